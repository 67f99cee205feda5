#!/bin/sh
# Shows an operator's day: two throwaway PostgreSQL clusters, the second one empty; copy, replication of a pgbench load,
# status, a conflict, compare and repair; at the end all tables are compared without pyreplica's help. Installs what is
# missing; leaves nothing behind.
# Exit code: 0 when both sides are equal, 1 when not.
#
# SCALE, CLIENTS and SECONDS_OF_LOAD change the size of it.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

: "${SCALE:=10}" "${CLIENTS:=4}" "${SECONDS_OF_LOAD:=10}"
# How long the slave may take to catch up after the load before the demo gives up.
CATCH_UP_SECONDS=120

binary=target/x86_64-unknown-linux-gnu/release/pyreplica
rundir=
daemon=
load=
watch=

main() {
    need_rust
    say "two throwaway PostgreSQL servers; pyreplica copies the database of one to the other, and then each change, while"
    say "clients write; somebody damages the copy, and it is compared and repaired. All of it goes away at the end."
    need_server
    build --release
    rundir=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    start_both
    fill_master
    install_on_master
    copy_to_slave
    start_daemon
    run_load
    await_slave
    make_conflict
    damage_and_repair
    compare
}

say() { printf '== %s\n' "$*"; }

clean_up() {
    for pid in $watch $load $daemon; do
        kill "$pid" 2>/dev/null || true
    done
    # Closing the clusters' inputs stops and removes them.
    stop_clusters
    rm -rf "$rundir"
}

start_both() {
    say "starting two clusters"
    start_clusters "$rundir"
    master_dir=${master% *} master_port=${master#* } slave_dir=${slave% *} slave_port=${slave#* }
    dsn0="host=127.0.0.1 port=$master_port user=postgres dbname=demo"
    dsn1="host=127.0.0.1 port=$slave_port user=postgres dbname=demo"
    on_master -c 'create database demo' postgres
    on_slave -c 'create database demo' postgres
    echo "master: port $master_port, slave: port $slave_port, $(on_master -c 'show server_version' demo)"
}

# psql for both sides: further options, then the database.
on_master() { "$PG_CLIENTS/psql" -XqAt -v ON_ERROR_STOP=1 -h "$master_dir" -p "$master_port" -U postgres "$@" 8>&- 9>&-; }
on_slave() { "$PG_CLIENTS/psql" -XqAt -v ON_ERROR_STOP=1 -h "$slave_dir" -p "$slave_port" -U postgres "$@" 8>&- 9>&-; }

pgbench_master() { "$PG_CLIENTS/pgbench" -h "$master_dir" -p "$master_port" -U postgres "$@" demo 8>&- 9>&-; }

fill_master() {
    say "filling the master: pgbench -i -s $SCALE"
    pgbench_master -i -q -s "$SCALE" >/dev/null 2>&1
    # Rows are found on the slave by their key, and pgbench_history comes without one.
    on_master -c 'alter table pgbench_history replica identity full' demo
    echo "pgbench_history has no primary key: the whole row identifies it (REPLICA IDENTITY FULL)"
}

# One of the product's verbs, as an operator would type it.
verb() {
    echo "\$ pyreplica $*" | sed "s|$dsn0|\"\$DSN0\"|; s|$dsn1|\"\$DSN1\"|; s|$rundir/||"
    "$binary" "$@" 8>&- 9>&-
}

install_on_master() {
    say "installing the log and the triggers on the master"
    verb install "$dsn0"
}

copy_to_slave() {
    say "copying to the slave, which has not even the tables"
    PATH="$PG_CLIENTS:$PATH" verb copy --schema --jobs 2 "$dsn0" "$dsn1"
}

start_daemon() {
    say "starting pyreplica with a config file"
    cat >"$rundir/demo.conf" <<CONF
[MAIN]
NAME=DEMO
DSN0=$dsn0
DSN1=$dsn1
DEBUG_LEVEL=1
CONF
    sed 's/^/    /' "$rundir/demo.conf"
    "$binary" "$rundir/demo.conf" >"$rundir/pyreplica.log" 2>&1 8>&- 9>&- &
    daemon=$!
    listening="select exists (select from pg_stat_activity where application_name = 'pyreplica DEMO listener')"
    until [ "$(on_master -c "$listening" demo)" = t ]; do
        need_daemon
        sleep 0.05
    done
}

pending() { on_master -c 'select count(*) from replica_log where not replicated' demo; }

run_load() {
    say "pgbench on the master: TPC-B, $CLIENTS clients, $SECONDS_OF_LOAD seconds"
    # In this shell's own process, so that a kill reaches pgbench itself.
    "$PG_CLIENTS/pgbench" -h "$master_dir" -p "$master_port" -U postgres -n -c "$CLIENTS" -j 2 -T "$SECONDS_OF_LOAD" \
        --progress 1 demo >"$rundir/pgbench.out" 2>"$rundir/pgbench.progress" 8>&- 9>&- &
    load=$!
    printf '$ pyreplica status --watch 2 demo.conf\n'
    "$binary" status --watch 2 "$rundir/demo.conf" 8>&- 9>&- &
    watch=$!
    while kill -0 "$load" 2>/dev/null; do
        sleep 0.2
        need_daemon
    done
    load_end=$(date +%s%3N)
    if ! wait "$load"; then
        cat "$rundir/pgbench.progress" >&2
        exit 1
    fi
    load=
    kill "$watch" && wait "$watch" || true
    watch=
    sed -n '/^number of transactions actually/p; /^tps/p' "$rundir/pgbench.out"
}

# Nothing pending on the master, and nothing prepared on the slave that has yet to be committed.
caught_up() {
    [ "$(on_master -c 'select exists (select from replica_log where not replicated)' demo)" = f ] &&
        [ "$(on_slave -c 'select count(*) from pg_prepared_xacts where database = current_database()' demo)" = 0 ]
}

await_slave() {
    until caught_up; do
        need_daemon
        if [ $(($(date +%s%3N) - load_end)) -gt $((CATCH_UP_SECONDS * 1000)) ]; then
            echo "the slave has not caught up in $CATCH_UP_SECONDS seconds: $(pending) changes pending" >&2
            tail -n 20 "$rundir/pyreplica.log" >&2
            exit 1
        fi
        sleep 0.05
    done
    say "the slave has caught up"
    echo "lag after the end of the load: $(($(date +%s%3N) - load_end)) ms"
}

make_conflict() {
    say "somebody writes on the slave, and then the same row changes on the master"
    on_slave -c "update pgbench_tellers set tbalance = -1 where tid = 7" demo
    on_master -c "update pgbench_tellers set tbalance = tbalance + 1000 where tid = 7" demo
    until [ "$(on_slave -c 'select count(*) from replica_conflict' demo)" = 1 ]; do
        need_daemon
        sleep 0.05
    done
    on_slave -x -c 'select relation, kind, key, expected, found, new, done from replica_conflict' demo
}

damage_and_repair() {
    say "the slave is damaged behind replication's back"
    on_slave -c "delete from pgbench_accounts where aid in (7, 70000)" \
        -c "update pgbench_branches set bbalance = 0, filler = 'wrong' where bid = 3" demo
    verb compare "$rundir/demo.conf" || echo "(exit code $?: they differ)"
    verb repair "$rundir/demo.conf"
    verb compare "$rundir/demo.conf"
    verb status "$rundir/demo.conf"
}

# One line a table: name, rows, digest of all rows in the order of the key, or of the rows themselves.
digests() {
    for table in accounts:aid branches:bid history:t::text tellers:tid; do
        name=pgbench_${table%%:*} key=${table#*:}
        "$1" -F ' ' -c "select '$name', count(*), md5(string_agg(md5(t::text), '' order by $key)) from $name t" demo
    done
}

compare() {
    say "comparing all tables by their digests, without pyreplica"
    digests on_master >"$rundir/master.digests"
    digests on_slave >"$rundir/slave.digests"
    awk '{ printf "%-18s %9d rows  %s\n", $1, $2, $3 }' "$rundir/master.digests"
    if ! diff "$rundir/master.digests" "$rundir/slave.digests"; then
        echo "tables equal: no"
        exit 1
    fi
    echo "tables equal: yes"
}

main
