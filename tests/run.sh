#!/bin/sh
# Runs the tests on throwaway servers; installs what is missing.
#
#   tests/run.sh                       all of them, the library's own among them
#   tests/run.sh replay keys           those in tests/replay.rs and tests/keys.rs
#   tests/run.sh replay::a_change      of those in tests/replay.rs whose names contain this; cargo prints whole names
#   tests/run.sh replay -- --nocapture options, and everything from -- on, go to `cargo test`
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

# The arguments without the names are cargo's; there is a -- among them.
names=
ended=
for argument; do
    shift
    if [ -n "$ended" ] || [ "${argument#-}" != "$argument" ]; then
        [ "$argument" != -- ] || ended=yes
        set -- "$@" "$argument"
    elif [ -e "tests/${argument%%::*}.rs" ]; then
        names="$names $argument"
    else
        echo "there is no tests/${argument%%::*}.rs; arguments are FILE or FILE::PART" >&2
        exit 2
    fi
done
[ -n "$ended" ] || set -- "$@" --

need_rust
echo "== tests on throwaway PostgreSQL servers, with the real program; first both are built, which takes minutes the first time"
need_server
need_python
need_pooler
need_openssl
need_mail_server
need_promtool

: "${CLUSTER_HOME:=$(cluster_home)}"
export CLUSTER_HOME
# Tests mostly wait for servers, so there may be more of them than cores.
: "${RUST_TEST_THREADS:=5}"
export RUST_TEST_THREADS

[ -n "$names" ] || exec cargo test "$@"

# Whole names, since cargo would take odd_tables::x for tables::x too, and find nothing wrong with a name that nothing has.
list=$(cargo test --test tests "$@" --list --format terse)
chosen=
for name in $names; do
    file=${name%%::*}
    part=${name#"$file"}
    if ! found=$(echo "$list" | sed -n 's/: test$//p' | grep "^$file::.*${part#::}"); then
        echo "no test is called $name" >&2
        exit 2
    fi
    chosen="$chosen $found"
done
# shellcheck disable=SC2086
exec cargo test --test tests "$@" --exact $chosen
