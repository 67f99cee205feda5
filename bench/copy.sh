#!/bin/sh
# Measures the initial copy against psql's COPY piped into psql's COPY: two throwaway clusters, everything side by side and
# in turn, medians. Prints the time of each as a multiple of psql's, and how much memory pyreplica took at most.
#
#   bench/copy.sh [ROWS [ROUNDS]]      default: 2,000,000 rows, half of them in each of two tables, and 5 rounds
#
# PYREPLICA=path names the binary, or else a release build is made.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

rows=${1:-2000000}
rounds=${2:-5}
need_server
if [ -z "${PYREPLICA:-}" ]; then
    cargo build --release
    PYREPLICA=target/x86_64-unknown-linux-gnu/release/pyreplica
fi

rundir=$(mktemp -d)
chmod 755 "$rundir"
trap 'stop_clusters; rm -rf "$rundir"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
start_clusters "$rundir" 'shared_buffers = 256MB
max_wal_size = 4GB'
here="host=127.0.0.1 user=postgres dbname=postgres port="
dsn0="$here${master##* }"
dsn1="$here${slave##* }"
psql=$PG_CLIENTS/psql

on() {
    "$psql" -XqAt -v ON_ERROR_STOP=1 -d "$@"
}

tables='create table a (id int primary key, n int, at timestamptz, amount numeric(12, 2), note text);
    create table b (like a including all)'
"$PYREPLICA" install "$dsn0" >/dev/null
on "$dsn0" -c "$tables" -c "insert into a select i, i % 1000, now() - i * interval '1 s', i / 7.0, md5(i::text)
    from generate_series(1, $rows / 2) i" -c 'insert into b select * from a' -c 'vacuum analyze'
"$PYREPLICA" install "$dsn0" >/dev/null
on "$dsn1" -c "$tables"

empty() {
    on "$dsn1" -c 'truncate a, b' -c checkpoint
}

# The peak of the resident memory of what is run, in kilobytes.
peak() {
    "$@" >"$rundir/said" 2>&1 &
    pid=$!
    most=0
    while kill -0 $pid 2>/dev/null; do
        now=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$pid/status 2>/dev/null || true)
        [ "${now:-0}" -le "$most" ] || most=$now
        sleep 0.02
    done
    wait $pid || { cat "$rundir/said" >&2; exit 1; }
    echo "$most" >>"$rundir/memory"
}

# For the slave's sessions to be comparable, psql's skips foreign keys and triggers too.
pipe() {
    for table in a b; do
        on "$dsn0" -c "copy $table to stdout$1" |
            on "$dsn1" -c "set session_replication_role = replica" -c "copy $table from stdin$1"
    done
}

timed() {
    empty
    before=$(date +%s%N)
    kind=$1
    shift
    "$@"
    echo $((($(date +%s%N) - before) / 1000000)) >>"$rundir/$kind"
}

median() {
    sort -n "$rundir/$1" | sed -n "$(((rounds + 1) / 2))p"
}

round=0
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    timed text pipe ''
    timed binary pipe ' (format binary)'
    timed jobs1 peak "$PYREPLICA" copy --restart "$dsn0" "$dsn1"
    timed jobs2 peak "$PYREPLICA" copy --restart --jobs 2 "$dsn0" "$dsn1"
done
on "$dsn1" -c 'select count(*) from a union all select count(*) from b' | grep -qx "$((rows / 2))"

base=$(median text)
for way in text binary jobs1 jobs2; do
    case $way in
        text) name='psql | psql' ;;
        binary) name='psql | psql, binary' ;;
        jobs1) name='pyreplica copy' ;;
        jobs2) name='pyreplica copy --jobs 2' ;;
    esac
    echo "$way $(median "$way") $base" | awk -v name="$name" '{ printf "%-26s %8d ms   %.2f of psql'"'"'s time\n", name, $2, $2 / $3 }'
done
echo "pyreplica's memory at most: $(sort -n "$rundir/memory" | tail -n 1) kB"
