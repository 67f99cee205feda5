"""What replication costs in sum: pgbench's TPC-B while a peer replicates its tables, all of it on the same cores."""

import time

from . import pgbench, processes, replay
from .capture import rotated
from .peers import DATABASE, await_equal
from .trigger_peers import Python
from .triggers import TPCB_TABLES

SECTION = "replicating"
PEERS = {**replay.PEERS, "python": Python}
# Whose CPU time is told apart.
WHO = ("master", "slave", "daemons")
SETUP_SECONDS = 90


def measure(servers, sizes, samples, wanted):
    """Without replication first: everything is compared with that."""
    pgbench.make_bases(servers, sizes.tpcb_scale)
    for number in range(sizes.tpcb_rounds):
        for clients in sizes.tpcb_clients:
            case = pgbench.case(clients)
            print(f"== replicating TPC-B, round {number + 1}, {case}", flush=True)
            for name in rotated(["none", *wanted], number):
                if not samples.has_failed(SECTION, name):
                    measure_peer(servers, sizes, samples, name, clients, case)


def measure_peer(servers, sizes, samples, name, clients, case):
    peer = PEERS[name](servers) if name != "none" else None
    with samples.attempt(SECTION, name):
        servers.create_both(DATABASE, pgbench.BASE)
        if peer:
            peer.setup(TPCB_TABLES)
            await_mark(peer, -1, SETUP_SECONDS)
        run(servers, sizes, peer, clients, lambda unit, value: samples.add(SECTION, case, name, unit, value))
        if peer:
            await_equal(servers, DATABASE, TPCB_TABLES, replay.SETTLE_SECONDS, peer.must_run)
    with samples.attempt("taking down", name):
        if peer:
            replay.take_down(servers, peer)
        else:
            servers.drop_both(DATABASE)


def run(servers, sizes, peer, clients, add):
    """The CPU time is that from the first transaction until the slave has the last one."""
    heads = servers.daemon_heads()

    def used():
        return [*(cluster.cpu_seconds() for cluster in servers.both()), processes.tree_cpu_seconds(heads)]

    before = used()
    tps, done = pgbench.run(servers, DATABASE, sizes.tpcb_seconds, clients)
    add("tps", tps)
    end = time.monotonic()
    if peer:
        await_mark(peer, -2, sizes.patience)
        add("s behind", time.monotonic() - end)
    for who, then, now in zip(WHO, before, used()):
        add(f"us CPU {who}", (now - then) / done * 1e6)


def await_mark(peer, mark, seconds):
    """A row that pgbench never meets is written, and arrives after all that was written before it."""
    peer.on_master(f"insert into pgbench_branches values ({mark}, 0)")
    replay.await_row(peer, "select true from pgbench_branches where bid = %s", mark, seconds)
