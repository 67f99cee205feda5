#!/bin/sh
# How long do writers wait while the roles of two servers are exchanged, which errors do they see, and is a transaction lost or
# done twice? 8 clients, about 1,000 transactions a second in all, 100 tables, 200 sequences; ten times there and back again.
# Beside it Slony-I's LOCK SET and MOVE SET under the same load; the other peers are not measured here.
#
#   bench/switchover.sh              into target/bench/RESULTS.md
#   bench/switchover.sh --quick      small sizes; any other option of bench/run.sh, too
set -eu
cd "$(dirname "$0")"
exec ./run.sh --only switchover --peers pyreplica,slony "$@"
