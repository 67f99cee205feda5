#!/bin/sh
# One throwaway PostgreSQL cluster that cannot outlive the program that started it: it is stopped and removed when standard
# input closes, and the kernel closes that even for a process that was killed.
#
#   cluster.sh BIN LABEL CONF [INITDB-OPTION...]
#
# Its directory is made in CLUSTER_HOME, by default in /tmp.
#
# BIN is where initdb and pg_ctl are, CONF are lines for postgresql.conf. Answers "ready DIR PORT", then obeys one line
# at a time, each answered by "done" or "failed": "start", "stop MODE", "backup NAME" (a base backup), "restore NAME" (it takes
# the server's place, on the same timeline), "promote NAME" (it is promoted in the server's place) and "takeover NAME" (the same
# after it has got all WAL of the server) and "standby NAME" (it takes the server's place as a standby). PostgreSQL refuses to run as root, so this
# script does too; the callers hand its text to `sh -c`, because the other user may not be able to read the file.
set -u
bin=$1 label=$2 conf=$3
shift 3

# The terminal's signals reach every process of a group; only the end of the input may end this one.
trap '' HUP INT TERM PIPE

dir=$(mktemp -d "${CLUSTER_HOME:-/tmp}/pyreplica-$label.XXXXXX") || exit 1
cd "$dir" || exit 1
chmod 711 "$dir"

remove() {
    "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
    cd / && rm -rf "$dir"
}

fail() {
    echo "cluster $label: $1" >&2
    tail -n 20 "$dir/log" >&2
    remove
    exit 1
}

start() {
    "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null 2>&1
}

# Puts a base backup in the place of the server's directory, which is kept beside it.
replace() {
    count=$((${count:-0} + 1))
    mv "$dir/data" "$dir/former.$count" && cp -a "$dir/$1" "$dir/data"
}

promote() {
    touch "$dir/data/standby.signal" && start && "$bin/pg_ctl" -D "$dir/data" -w -t 60 promote >/dev/null 2>&1
}

# Below the range that the kernel takes client ports from, so that nothing but another server can be there.
pick_port() {
    number=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
    echo $((20000 + number % 12000))
}

"$bin/initdb" -D "$dir/data" -U postgres -A trust --no-sync --encoding UTF8 --locale C.UTF-8 "$@" >"$dir/log" 2>&1 ||
    fail "initdb failed"

# Roles that are members of scram_users must give a password over TCP; every other login is free. Only a test that has
# made a network of its own listens on more than loopback.
cat >"$dir/data/pg_hba.conf" <<HBA
local all all trust
local replication all trust
host all +scram_users samenet scram-sha-256
host all all samenet trust
HBA

cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
max_connections = 200
max_prepared_transactions = 50
shared_buffers = 32MB
max_wal_size = 256MB
fsync = off
jit = off
lc_messages = 'C'
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %d '
$conf
CONF

port=
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    candidate=$(pick_port)
    echo "port = $candidate" >>"$dir/data/postgresql.conf"
    if start; then
        port=$candidate
        break
    fi
    grep -q 'Address already in use' "$dir/log" || break
done
[ -n "$port" ] || fail "the server does not start"
echo "$port" >"$dir/port"
echo "ready $dir $port"

while read -r command mode; do
    case $command in
        start) start && echo "done" || echo "failed" ;;
        stop) "$bin/pg_ctl" -D "$dir/data" -m "$mode" -w stop >/dev/null 2>&1 && echo "done" || echo "failed" ;;
        backup)
            "$bin/pg_basebackup" -D "$dir/$mode" -h "$dir" -p "$port" -U postgres -X stream -c fast --no-sync \
                >>"$dir/log" 2>&1 && echo "done" || echo "failed"
            ;;
        restore)
            "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
            replace "$mode" && start && echo "done" || echo "failed"
            ;;
        promote)
            "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
            replace "$mode" && promote && echo "done" || echo "failed"
            ;;
        standby)
            "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
            replace "$mode" && touch "$dir/data/standby.signal" && start && echo "done" || echo "failed"
            ;;
        takeover)
            "$bin/pg_ctl" -D "$dir/data" -m fast -w stop >/dev/null 2>&1
            replace "$mode" && echo "restore_command = 'cp $dir/former.$count/pg_wal/%f %p'" >>"$dir/data/postgresql.conf" &&
                promote && echo "done" || echo "failed"
            ;;
        *) echo "failed" ;;
    esac
done
remove
