#!/bin/sh
# Measures pyreplica against other ways to replicate PostgreSQL: installs them from Debian, runs everything on two
# throwaway clusters, and writes RESULTS.md and the plots. Wants root, on Debian 12. README.md says what is measured.
#
#   bench/run.sh                              everything: about an hour; into bench/
#   bench/run.sh --quick                      small sizes, one repetition, to see that it works; into target/bench/
#   bench/run.sh --only replicating,idle      some sections; into target/bench/
#   bench/run.sh --peers slony,bucardo        some peers; into target/bench/
#   bench/run.sh --full                       a backlog of 10 million changes too
#   bench/run.sh --rounds 1 --no-fsync        fewer rounds, no waiting for the disk; into target/bench/
#   bench/run.sh --report samples.json...     no measuring: the report of earlier runs anew; into target/bench/
#   --out DIR                                 where to write to
#
# PYREPLICA=path names the binary, or else a release build is made.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

# The major version that Debian 12 has all the peers for.
: "${PG_MAJOR:=15}"
PG_BIN=/usr/lib/postgresql/$PG_MAJOR/bin
PACKAGES="postgresql-$PG_MAJOR postgresql-plpython3-$PG_MAJOR postgresql-plperl-$PG_MAJOR
    postgresql-$PG_MAJOR-slony1-2 slony1-2-bin postgresql-$PG_MAJOR-pgq3 postgresql-$PG_MAJOR-pgq-node
    postgresql-$PG_MAJOR-londiste-sql pgqd python3-londiste bucardo postgresql-$PG_MAJOR-pglogical python3-psycopg2"

rundir=
driver=

main() {
    [ "$(id -u)" = 0 ] || { echo "bench/run.sh wants to be root: it installs packages" >&2; exit 1; }
    out=$(choose_directory "$@")
    install_packages
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    # Not by mktemp: bucardo turns the names of folders into lower case, and cuts them at a dot.
    mkdir -m 755 "/tmp/pyreplica-bench-$$"
    rundir=/tmp/pyreplica-bench-$$
    for argument in "$@"; do
        case $argument in
            --report) reporting=yes ;;
            *.json)
                given_files=$((${given_files:-0} + 1))
                cp "$argument" "$rundir/given-$given_files.json"
                ;;
        esac
    done
    [ "${reporting:-no}" = yes ] || build
    gather
    run_driver "$@"
    mkdir -p "$out"
    cp "$rundir"/out/* "$out/"
    [ "$out" != bench ] || mv bench/samples.json target/bench-samples.json
    echo "written: $out/RESULTS.md"
}

# Only a whole run may replace the results that the repository shows.
choose_directory() {
    default=bench given= previous=
    for argument in "$@"; do
        case $argument in
            --quick | --only* | --peers* | --rounds* | --no-fsync | --report) default=target/bench ;;
            --out=*) given=${argument#--out=} ;;
        esac
        [ "$previous" != --out ] || given=$argument
        previous=$argument
    done
    echo "${given:-$default}"
}

install_packages() {
    missing=
    for package in $PACKAGES; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    # shellcheck disable=SC2086 # a list of words
    [ -z "$missing" ] || need_packages $missing
}

build() {
    if [ -n "${PYREPLICA:-}" ]; then
        cp "$PYREPLICA" "$rundir/"
        return
    fi
    echo "building pyreplica"
    cargo build --release --quiet
    cp target/x86_64-unknown-linux-gnu/release/pyreplica "$rundir/"
}

# PostgreSQL refuses to be run by root, and its user may not be able to read this directory.
gather() {
    cp -R bench/pyreplica_bench bench/sql tests/harness/cluster.sh "$rundir/"
    mkdir "$rundir/product" "$rundir/out"
    cp sql/master-install.sql sql/master-install-ddl.sql "$rundir/product/"
    git log -1 --format=%h >"$rundir/commit" 2>/dev/null || echo unknown >"$rundir/commit"
    chown -R postgres "$rundir"
}

# In a session of its own, so that the terminal's Ctrl-C reaches this script alone, which then ends the driver in order;
# by setpriv because runuser would leave it two seconds for that.
run_driver() {
    (cd "$rundir" && exec setsid setpriv --reuid postgres --regid postgres --init-groups --reset-env \
        /usr/bin/python3 -m pyreplica_bench "$PG_BIN" "$@") &
    driver=$!
    wait "$driver"
    driver=
}

clean_up() {
    if [ -n "$driver" ]; then
        kill "$driver" 2>/dev/null || true
        wait "$driver" || true
    fi
    [ -z "$rundir" ] || rm -rf "$rundir"
}

# One line, read before it runs: the file may change meanwhile.
main "$@"; exit
