#!/bin/sh
# Measures the initial copy, with two throwaway clusters, everything side by side and in turn, medians.
#
# First the rows of two tables alone: against psql's COPY piped into psql's COPY. Then a whole database with a table of four
# indexes and a foreign key, into an empty one: `pyreplica copy --schema` against `pgcopydb clone` and against pg_dump and
# pg_restore, with one job and with two. Prints the time of each as a multiple, and how much memory pyreplica took at most.
#
#   bench/copy.sh [ROWS [ROUNDS [PART]]]    default: 2,000,000 rows, 5 rounds, both parts: rows and clone
#
# PYREPLICA=path names the binary, or else a release build is made. Without pgcopydb (a package of that name) it is left out.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

rows=${1:-2000000}
rounds=${2:-5}
parts=${3:-rows clone}
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

# The peak of the resident memory of what is run, in kilobytes.
peak() {
    "$@" >"$rundir/said" 2>&1 &
    pid=$!
    most=0
    while kill -0 $pid 2>/dev/null; do
        now=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$pid/status 2>/dev/null || true)
        [ "${now:-0}" -le "$most" ] || most=$now
        sleep 0.1
    done
    wait $pid || { cat "$rundir/said" >&2; exit 1; }
    echo "$most" >>"$rundir/memory"
}

timed() {
    kind=$1
    shift
    prepare
    before=$(date +%s%N)
    "$@"
    echo $((($(date +%s%N) - before) / 1000000)) >>"$rundir/$kind"
}

median() {
    sort -n "$rundir/$1" | sed -n "$(((rounds + 1) / 2))p"
}

# show NAME KIND OTHER TEXT: the time of one kind, as a multiple of another's.
show() {
    echo "$(median "$2") $(median "$3")" |
        awk -v name="$1" -v text="$4" '{ printf "%-26s %8d ms   %.2f of %s time\n", name, $1, $1 / $2, text }'
}

show_memory() {
    echo "pyreplica's memory at most: $(sort -n "$rundir/memory" | tail -n 1) kB"
    rm "$rundir/memory"
}

# For the slave's sessions to be comparable, psql's skips foreign keys and triggers too.
pipe() {
    for table in a b; do
        on "$dsn0" -c "copy $table to stdout$1" |
            on "$dsn1" -c "set session_replication_role = replica" -c "copy $table from stdin$1"
    done
}

rows_alone() {
    prepare() {
        on "$dsn1" -c 'truncate a, b' -c checkpoint
    }
    tables='create table a (id int primary key, n int, at timestamptz, amount numeric(12, 2), note text);
        create table b (like a including all)'
    "$PYREPLICA" install "$dsn0" >/dev/null
    on "$dsn0" -c "$tables" -c "insert into a select i, i % 1000, now() - i * interval '1 s', i / 7.0, md5(i::text)
        from generate_series(1, $rows / 2) i" -c 'insert into b select * from a' -c 'vacuum analyze'
    "$PYREPLICA" install "$dsn0" >/dev/null
    on "$dsn1" -c "$tables"
    round=0
    while [ $round -lt "$rounds" ]; do
        round=$((round + 1))
        timed text pipe ''
        timed binary pipe ' (format binary)'
        timed jobs1 peak "$PYREPLICA" copy --restart "$dsn0" "$dsn1"
        timed jobs2 peak "$PYREPLICA" copy --restart --jobs 2 "$dsn0" "$dsn1"
    done
    on "$dsn1" -c 'select count(*) from a union all select count(*) from b' | grep -qx "$((rows / 2))"
    show 'psql | psql' text text "psql's"
    show 'psql | psql, binary' binary text "psql's"
    show 'pyreplica copy' jobs1 text "psql's"
    show 'pyreplica copy --jobs 2' jobs2 text "psql's"
    show_memory
}

dump_and_restore() {
    if [ "$1" = 1 ]; then
        "$PG_CLIENTS/pg_dump" -Fc -Z0 -d "$shop0" | "$PG_CLIENTS/pg_restore" -d "$shop1"
    else
        "$PG_CLIENTS/pg_dump" -Fd -Z0 -j "$1" -f "$rundir/dump" -d "$shop0"
        "$PG_CLIENTS/pg_restore" -j "$1" -d "$shop1" "$rundir/dump"
        rm -r "$rundir/dump"
    fi
}

# It runs with the programs of the server's version.
pgcopydb() {
    PATH=$PG_CLIENTS:$PATH command pgcopydb clone --source "$shop0" --target "$shop1" --table-jobs "$1" --index-jobs "$1" \
        --split-tables-larger-than 20MB --dir "$rundir/pgcopydb" >"$rundir/said" 2>&1 || { cat "$rundir/said" >&2; exit 1; }
    rm -r "$rundir/pgcopydb"
}

clone() {
    [ "$1" != pgcopydb ] || [ -n "$has_pgcopydb" ] || return 0
    case $1 in
        pyreplica) timed "pyreplica$2" peak "$PYREPLICA" copy --schema --restart --jobs "$2" "$shop0" "$shop1" ;;
        pgcopydb) timed "pgcopydb$2" pgcopydb "$2" ;;
        dump) timed "dump$2" dump_and_restore "$2" ;;
    esac
    on "$shop1" -c 'select count(*) from orders' | grep -qx "$rows"
}

whole_database() {
    shop0=${dsn0%dbname=*}dbname=shop${dsn0#*dbname=postgres}
    shop1=${dsn1%dbname=*}dbname=shop${dsn1#*dbname=postgres}
    prepare() {
        on "$dsn1" -c 'drop database if exists shop' -c 'create database shop' -c checkpoint
    }
    on "$dsn0" -c 'create database shop'
    on "$shop0" -c 'create table customer (id int primary key, name text);
        create table orders (id bigint primary key, customer int not null references customer, at timestamptz, amount numeric(12, 2),
                             note text)' \
        -c "insert into customer select i, md5(i::text) from generate_series(1, $rows / 20 + 1) i" \
        -c "insert into orders select i, i * 7919::bigint % ($rows / 20) + 1, now() - i * interval '1 s', i / 7.0, md5(i::text)
            from generate_series(1, $rows) i" \
        -c 'create index on orders (customer); create index on orders (at); create index on orders (amount);
            create index on orders (note)' -c 'vacuum analyze'
    "$PYREPLICA" install "$shop0" >/dev/null
    has_pgcopydb=$(command -v pgcopydb || true)
    round=0
    while [ $round -lt "$rounds" ]; do
        round=$((round + 1))
        # What one leaves to be written to disk delays the next: so the order changes.
        ways='pyreplica pgcopydb dump'
        [ $((round % 2)) = 1 ] || ways='dump pgcopydb pyreplica'
        for jobs in 1 2; do
            for way in $ways; do
                clone "$way" $jobs
            done
        done
    done
    for jobs in 1 2; do
        for way in pyreplica pgcopydb dump; do
            [ -e "$rundir/$way$jobs" ] || continue
            if [ -n "$has_pgcopydb" ]; then
                show "$way, jobs: $jobs" "$way$jobs" "pgcopydb$jobs" "pgcopydb's"
            else
                show "$way, jobs: $jobs" "$way$jobs" "dump$jobs" "pg_dump's and pg_restore's"
            fi
        done
    done
    show_memory
}

for part in $parts; do
    case $part in
        rows) rows_alone ;;
        clone) whole_database ;;
    esac
done
