#!/bin/sh
# Does the log stay small under a load that never ends? Two throwaway clusters, pgbench's TPC-B at a steady rate, a daemon;
# every half minute the size of the log and what it holds. Fails if the log has grown in the last third beyond what it was
# in the second one by more than a tenth, if the daemon writes flags while the load lasts, if one is missing a minute after it,
# or if the two sides differ at the end.
#
#   bench/soak.sh [MINUTES [TPS]]      default: 30 minutes, 200 transactions of four changes each a second
#
# PYREPLICA=path names the binary, or else a release build is made. RETENTION=seconds, by default 60: how long what has been
# replayed is kept.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

minutes=${1:-30}
tps=${2:-200}
: "${RETENTION:=60}"
need_server
if [ -z "${PYREPLICA:-}" ]; then
    cargo build --release
    PYREPLICA=target/x86_64-unknown-linux-gnu/release/pyreplica
fi

rundir=$(mktemp -d)
daemon= load=
chmod 755 "$rundir"
clean_up() {
    for pid in $load $daemon; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" || true
    done
    stop_clusters
    rm -rf "$rundir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
start_clusters "$rundir"
here="host=127.0.0.1 user=postgres dbname=postgres port="
dsn0="$here${master##* }"
dsn1="$here${slave##* }"

on() {
    "$PG_CLIENTS/psql" -XqAt -v ON_ERROR_STOP=1 -d "$@" 8>&- 9>&-
}

pgbench() {
    "$PG_CLIENTS/pgbench" "$@" "$dsn0" 8>&- 9>&-
}

pgbench -i -q -s 10 >/dev/null 2>&1
on "$dsn0" -c 'alter table pgbench_history replica identity full'
"$PYREPLICA" install "$dsn0" >/dev/null
"$PYREPLICA" copy --schema "$dsn0" "$dsn1" >/dev/null
printf '[MAIN]\nNAME=soak\nDSN0=%s\nDSN1=%s\nDEBUG_LEVEL=1\nRETENTION=%s\n' "$dsn0" "$dsn1" "$RETENTION" >"$rundir/soak.conf"
"$PYREPLICA" "$rundir/soak.conf" >"$rundir/daemon.log" 2>&1 8>&- 9>&- &
daemon=$!
# It outlasts the last sample.
pgbench -n -c 4 -R "$tps" -T $((minutes * 60 + 20)) >"$rundir/load" 2>&1 &
load=$!

peak() {
    sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$daemon/status
}

echo 'minute  log kB  rows in it  flagged  daemon kB'
sample=0
while [ $sample -lt $((minutes * 2)) ]; do
    sleep 30
    kill -0 $daemon 2>/dev/null || { cat "$rundir/daemon.log" >&2; exit 1; }
    sample=$((sample + 1))
    on "$dsn0" -F ' ' -c "select pg_total_relation_size('replica_log') / 1024, count(*), count(*) filter (where replicated)
        from replica_log" | {
        read -r size rows flagged
        echo "$size" >>"$rundir/sizes"
        echo "$flagged" >>"$rundir/flagged"
        [ $((sample % 2)) = 1 ] || echo "$((sample / 2)) $size $rows $flagged $(peak)" |
            awk '{ printf "%6d %7d %11d %8d %10d\n", $1, $2, $3, $4, $5 }'
    }
done
wait $load
load=
grep -E 'actually processed|tps' "$rundir/load"

tries=0
balance='select sum(abalance) from pgbench_accounts'
until [ "$(on "$dsn0" -c "$balance")" = "$(on "$dsn1" -c "$balance")" ]; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || break
    sleep 1
done
unflagged='select count(*) from replica_log where not replicated'
tries=0
until [ "$(on "$dsn0" -c "$unflagged")" = 0 ]; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || { echo "a minute after the load there are changes without a flag" >&2; exit 1; }
    sleep 1
done
echo "all changes in the log have their flag $tries s after the slave had everything"
"$PYREPLICA" compare "$dsn0" "$dsn1"
most() {
    sed -n "$1p" "$rundir/sizes" | sort -n | tail -n 1
}
then=$(most "$((sample / 3 + 1)),$((sample * 2 / 3))") now=$(most "$((sample * 2 / 3 + 1)),$sample")
echo "the log at most: $then kB in the second third, $now kB in the last one"
[ $((now * 10)) -le $((then * 11)) ]
most_flagged=$(sort -n "$rundir/flagged" | tail -n 1)
echo "at most $most_flagged changes with a flag while the load lasted"
[ "$most_flagged" = 0 ]
