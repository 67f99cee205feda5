"""How fast the peers replay, how late a change arrives, and what they cost while nothing happens.

Every peer is set up anew for every round, on fresh databases, and does everything in the one set-up. After each part both
sides are compared.
"""

import itertools
import random
import threading
import time
from contextlib import contextmanager

from . import clusters, processes
from .capture import rotated
from .peers import DATABASE, Builtin, OnePhase, Pglogical, Pyreplica, await_equal
from .trigger_peers import Bucardo, Londiste, Slony
from .triggers import REPLAY_TABLES

PEERS = {"pyreplica": Pyreplica, "onephase": OnePhase, "builtin": Builtin, "pglogical": Pglogical, "slony": Slony,
         "londiste": Londiste, "bucardo": Bucardo}
# Idling comes first: what a backlog leaves to be done, such as flags and vacuum, is not idling.
PARTS = ("idle", "latency", "bulk", "backlog")

# How long the sides may still differ when the last change has arrived.
SETTLE_SECONDS = 60
# Between two looks at the slave.
LOOK = 0.01
LATENCY_LOOK = 0.0005

# Rows that mark the end of something have ids below zero, so that the workloads never meet them.
marks = itertools.count(1)


def measure(servers, sizes, samples, wanted, parts):
    for number in range(sizes.replay_rounds):
        print(f"== replay, round {number + 1}", flush=True)
        for name in rotated(wanted, number):
            now = [part for part in PARTS if part in parts and not samples.has_failed(part, name)
                   and (part != "idle" or number == 0)]
            if now:
                measure_peer(servers, sizes, samples, name, now)


def measure_peer(servers, sizes, samples, name, parts):
    """What fails ends this peer's turn, because the sides may differ from there on."""
    peer = PEERS[name](servers)
    try:
        set_up(servers, peer)
    except Exception as error:
        for part in parts:
            samples.fail(part, name, f"set-up: {error}")
        parts = []
    for part in parts:
        with samples.attempt(part, name):
            globals()[part](peer, sizes, lambda case, unit, value: samples.add(part, case, name, unit, value))
            await_equal(servers, DATABASE, REPLAY_TABLES, SETTLE_SECONDS, peer.must_run)
        if samples.has_failed(part, name):
            break
    with samples.attempt("taking down", name):
        take_down(servers, peer)


def set_up(servers, peer):
    servers.create_both(DATABASE, "bench_base")
    peer.setup(REPLAY_TABLES)
    await_mark(peer, write_mark(peer), 90)


def take_down(servers, peer):
    servers.end_daemons()
    peer.retire()
    servers.drop_both(DATABASE)


def measure_bare_idle(servers, sizes, samples):
    """What both servers cost without anything that replicates."""
    print("== idle servers", flush=True)
    servers.create_both(DATABASE, "bench_base")
    measure_idle(servers, sizes, lambda case, unit, value: samples.add("idle", case, "none", unit, value))
    servers.drop_both(DATABASE)


def backlog(peer, sizes, add):
    """Single-row transactions pile up while the peer is stopped; then the time from its start until they have arrived."""
    peer.stop()
    connection = peer.master.connect(DATABASE)
    with connection.cursor() as cursor:
        # Only to make the backlog faster.
        cursor.execute("set synchronous_commit = off")
        cursor.execute("call write_backlog(%s, 1)", [sizes.backlog])
    connection.close()
    mark = write_mark(peer)
    for cluster in (peer.master, peer.slave):
        cluster.run("checkpoint")
    start = time.monotonic()
    peer.start()
    await_mark(peer, mark, sizes.patience)
    add("backlog", "changes/s", sizes.backlog / (time.monotonic() - start))


def bulk(peer, sizes, add):
    """One statement for many rows, from its commit until the slave shows it."""
    rows = sizes.replay_bulk_rows
    first, last = 500_000_001, 500_000_000 + rows
    steps = (
        ("insert", "insert into t select i, i %% 1000, 'row text number ' || md5(i::text), i %% 1000000 / 100.0, now()"
                   " from generate_series(%s, %s) i", "select true from t where id = %s"),
        ("update", "update t set a = -1, c = c + 1, d = now() where id between %s and %s",
                   "select a = -1 from t where id = %s"),
        ("delete", "delete from t where id between %s and %s", "select count(*) = 0 from t where id = %s"))
    with opened(peer.master) as master:
        for name, statement, visible in steps:
            peer.must_run()
            master.execute(statement, [first, last])
            start = time.monotonic()
            await_row(peer, visible, last, sizes.patience)
            add(f"bulk {name}", "s", time.monotonic() - start)


def latency(peer, sizes, add):
    """Single-row transactions some 20 ms apart, so that each meets an idle system; each until the slave shows it."""
    count, chance = sizes.latency_transactions, random.Random(1)
    top = -1_000_000
    committed, seen = [None] * count, [None] * count

    def write():
        with opened(peer.master) as master:
            for number in range(count):
                time.sleep(chance.uniform(0.01, 0.03))
                master.execute("insert into t values (%s, 1, 'latency', 1, now())", [top - number])
                committed[number] = time.perf_counter()

    writer = threading.Thread(target=write)
    with opened(peer.slave) as slave:
        writer.start()
        arrived, deadline = 0, time.monotonic() + sizes.patience
        while arrived < count and time.monotonic() < deadline:
            slave.execute("select min(id) from t where id <= %s", [top])
            lowest, now = slave.fetchone()[0], time.perf_counter()
            while lowest is not None and arrived <= top - lowest:
                seen[arrived] = now
                arrived += 1
            time.sleep(LATENCY_LOOK)
    writer.join()
    if arrived < count:
        raise RuntimeError(f"LOST CHANGES: {count - arrived} of {count} transactions have not arrived"
                           f" in {sizes.patience} s")
    # The slave may be faster than the answer that the master's client gets.
    late = sorted(max(0, then - done) * 1000 for done, then in zip(committed, seen))
    add("commit to visible", "ms p50", late[count // 2])
    add("commit to visible", "ms p99", late[min(count - 1, int(count * 0.99))])


def idle(peer, sizes, add):
    measure_idle(peer.servers, sizes, add)


def measure_idle(servers, sizes, add):
    # What the work before has left to be done is not idling.
    for cluster in servers.both():
        cluster.run("vacuum analyze", DATABASE)
        cluster.run("checkpoint")
    time.sleep(sizes.settle_seconds)
    heads = servers.daemon_heads()

    def used():
        return processes.tree_cpu_seconds(heads), sum(cluster.cpu_seconds() for cluster in servers.both())

    before = used()
    time.sleep(sizes.idle_seconds)
    daemon, server = (1000 * 60 / sizes.idle_seconds * (now - then) for now, then in zip(used(), before))
    add("idle", "ms CPU/min daemons", daemon)
    add("idle", "ms CPU/min servers", server)
    add("idle", "MiB daemons", processes.tree_memory_kib(heads) / 1024)


@contextmanager
def opened(cluster, database=DATABASE):
    connection = cluster.connect(database)
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def write_mark(peer):
    mark = -next(marks)
    peer.on_master(f"insert into t values ({mark}, 0, 'mark', 0, now())")
    return mark


def await_mark(peer, mark, seconds):
    await_row(peer, "select true from t where id = %s", mark, seconds)


def await_row(peer, visible, row, seconds):
    """`visible` is a query about one row that says true as soon as the change has arrived."""
    with opened(peer.slave) as slave:
        def arrived():
            slave.execute(visible, [row])
            return slave.fetchone() == (True,)

        looks = itertools.count(1)

        def condition():
            # A look at the processes is dear, so one in hundred.
            if next(looks) % 100 == 0:
                peer.must_run()
            return arrived()

        clusters.wait_until("the last change has arrived", seconds, condition, LOOK)
