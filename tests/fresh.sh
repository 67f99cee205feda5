#!/bin/sh
# Runs the README's two commands as a newcomer does: on fresh Debians that have nothing but what the README asks for.
#
#   tests/fresh.sh                      Debian 12 and 13: tests/demo.sh, and tests/run.sh with a file of tests
#   tests/fresh.sh trixie               only this one
#   tests/fresh.sh trixie -- copy wake  these files of tests; with nothing after the --, all of them
#
# Each is a chroot (chroot.sh says where from), with a clone of what is committed. It is removed when all went well.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh
. tests/chroot.sh

# The README's sentence for each release.
packages_for() {
    case $1 in
        bookworm) echo git gcc cargo-web ;;
        *) echo git gcc cargo ;;
    esac
}

suites=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    suites="$suites $1"
    shift
done
if [ $# = 0 ]; then
    set -- replay
else
    shift
fi
need_debootstrap

for suite in ${suites:-bookworm trixie}; do
    make_chroot "$suite"
    packages=$(packages_for "$suite")
    echo "== apt-get install $packages =="
    # shellcheck disable=SC2086
    in_chroot apt-get -qq -y install $packages >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        exit 1
    }
    clone_into_chroot
    echo "== tests/demo.sh on Debian $suite =="
    in_chroot sh -ec 'cd /root/pyreplica && exec tests/demo.sh'
    echo "== tests/run.sh $* on Debian $suite =="
    in_chroot sh -ec 'cd /root/pyreplica && exec tests/run.sh "$@"' run "$@"
    rm -rf "$root" "$root.log"
done
