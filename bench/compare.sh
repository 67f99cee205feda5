#!/bin/sh
# Measures `pyreplica compare` of two equal tables on two throwaway clusters against what the servers cannot do without: one
# sequential scan with md5 of every row, on both at once. Both in turns; what counts is the ratio of the medians.
#
# ROWS, ROUNDS and TABLE (ordered or scattered keys) change what is measured. Installs what is missing; leaves nothing behind.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

: "${ROWS:=2000000}" "${ROUNDS:=5}" "${TABLE:=ordered}"
binary=target/x86_64-unknown-linux-gnu/release/pyreplica
rundir=

main() {
    need_server
    cargo build --release --quiet
    rundir=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    start_clusters "$rundir" "shared_buffers = 256MB
max_wal_size = 4GB
fsync = off
autovacuum = off"
    master_dir=${master% *} master_port=${master#* } slave_dir=${slave% *} slave_port=${slave#* }
    on_master -d postgres -c 'create database bench'
    on_slave -d postgres -c 'create database bench'
    on_master -d bench -f sql/master-install.sql
    fill on_master &
    filling=$!
    fill on_slave
    wait "$filling"
    on_master -d bench -c "select py_log_create_tg('t')" >/dev/null
    echo "rows: $ROWS, keys: $TABLE, size: $(on_master -d bench -c "select pg_size_pretty(pg_table_size('t'))")"
    : >"$rundir/scan"
    : >"$rundir/compare"
    for round in $(seq "$ROUNDS"); do
        took scan
        took compare
        echo "round $round: scan $(tail -n 1 "$rundir/scan") ms, compare $(tail -n 1 "$rundir/compare") ms"
    done
    scan=$(median scan) compare=$(median compare)
    echo "medians: scan $scan ms, compare $compare ms, ratio $((compare * 100 / scan)) %"
    echo "peak memory of pyreplica: $(sed -n 's/^VmHWM: *//p' "$rundir/memory")"
}

clean_up() {
    stop_clusters
    rm -rf "$rundir"
}

on_master() { "$PG_CLIENTS/psql" -XqAt -v ON_ERROR_STOP=1 -h "$master_dir" -p "$master_port" -U postgres "$@" 8>&- 9>&-; }
on_slave() { "$PG_CLIENTS/psql" -XqAt -v ON_ERROR_STOP=1 -h "$slave_dir" -p "$slave_port" -U postgres "$@" 8>&- 9>&-; }

fill() {
    key=n
    [ "$TABLE" = ordered ] || key="('x' || substr(md5(n::text), 1, 15))::bit(60)::bigint"
    "$1" -d bench -c "create table t (id bigint primary key, customer int, amount numeric(10,2), name text, at timestamptz)" \
        -c "insert into t select $key, n % 1000, n / 100.0, 'name ' || n, '2026-01-01'::timestamptz + n * interval '1 s' from generate_series(1, $ROWS) n" \
        -c "vacuum analyze t" -c checkpoint
}

# How long one of the two takes, in milliseconds.
took() {
    began=$(date +%s%N)
    "$1"
    echo $((($(date +%s%N) - began) / 1000000)) >>"$rundir/$1"
}

scan() {
    sql="select count(*), sum(('x' || left(md5(t::text), 16))::bit(64)::bigint) from t"
    on_slave -d bench -c "set max_parallel_workers_per_gather = 0" -c "$sql" >"$rundir/sum.slave" &
    on_master -d bench -c "set max_parallel_workers_per_gather = 0" -c "$sql" >"$rundir/sum.master"
    wait $!
    cmp -s "$rundir/sum.master" "$rundir/sum.slave"
}

compare() {
    PGHOST='' "$binary" compare "host=$master_dir port=$master_port user=postgres dbname=bench" \
        "host=$slave_dir port=$slave_port user=postgres dbname=bench" >"$rundir/out" 2>"$rundir/err" 8>&- 9>&- &
    # The kernel's figure goes with the process: the last one that is seen is taken.
    while cp "/proc/$!/status" "$rundir/status" 2>/dev/null && grep -q VmHWM "$rundir/status"; do
        mv "$rundir/status" "$rundir/memory"
        sleep 0.05
    done
    wait $! || { cat "$rundir/out" "$rundir/err" >&2; return 1; }
    grep -q '^public.t  *equal' "$rundir/out"
}

median() { sort -n "$rundir/$1" | sed -n "$(((ROUNDS + 1) / 2))p"; }

main
