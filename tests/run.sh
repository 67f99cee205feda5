#!/bin/sh
# Runs all tests: installs what is missing, starts one master and one slave cluster for the whole run, and stops them.
# Further arguments go to `cargo test`, e.g. `tests/run.sh --test replay`.
set -eu
cd "$(dirname "$0")/.."
. tests/lib.sh

need_rust
need_server
need_python
need_openssl
need_mail_server

rundir=$(mktemp -d)
# The clusters follow when this shell ends, however it ends; the rest of the time is for an orderly end.
trap 'stop_clusters; rm -rf "$rundir"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
: "${CLUSTER_HOME:=$(cluster_home)}"
export CLUSTER_HOME
start_clusters "$rundir"

# Tests mostly wait for servers, so there may be more of them than cores.
: "${RUST_TEST_THREADS:=4}"
export RUST_TEST_THREADS
export PYREPLICA_TEST_CLUSTERS="$master $slave"
status=0
cargo test "$@" 8>&- 9>&- || status=$?
exit "$status"
