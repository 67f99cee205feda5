"""How pyreplica alone grows: with the backlog, with tables, slaves and pairs, from its start, with pairs once more while it runs;
each once more while a transaction on the master, which has written a row, stays open for the whole run.
"""

import time
from contextlib import ExitStack

from . import clusters, processes, triggers
from .peers import DATABASE, await_equal, pair_config, set_up_pyreplica, start_pyreplica
from .replay import LOOK, SETTLE_SECONDS, opened

SECTION = "scale"
OPEN = ", open transaction"
RUNNING = ", running"
BACKLOG = "backlog of {:,} changes"


def measure(servers, sizes, samples):
    cases = [(backlog, BACKLOG, sizes.scale_backlogs), (tables, "{:,} tables", sizes.scale_tables),
             (slaves, "{:,} slaves", sizes.scale_slaves), (pairs, "{:,} pairs", sizes.scale_pairs)]
    for measure_case, name, counts in cases:
        print(f"== scale: {measure_case.__name__}", flush=True)
        for count in counts:
            case = name.format(count) if count > 1 else name.format(count).rstrip("s")
            for kept_open in (False, True):
                run = Run(servers, sizes, samples, case, kept_open)
                with samples.attempt(SECTION, f"pyreplica, {run.case}"):
                    try:
                        measure_case(run, count)
                    finally:
                        run.take_down()


def backlog(run, changes):
    """A backlog of so many changes of one table, ten a transaction."""
    run.create_both(DATABASE, "bench_base")
    run.install(["t"])
    run.measure(["t"], f"call write_backlog({changes}, 10)", changes, [(DATABASE, DATABASE, "")])


def tables(run, count):
    """A backlog spread over so many tables."""
    run.create_both(DATABASE, "bench_base")
    names = [f"t{number}" for number in range(1, count + 1)]
    for cluster in run.servers.both():
        cluster.run(";".join(f"create table {name} (like t including all)" for name in names), DATABASE)
    run.install(names)
    run.measure(names, f"call write_many_tables({run.sizes.spread}, {count})", run.sizes.spread,
                [(DATABASE, DATABASE, "")])


def slaves(run, count):
    """A backlog for so many slaves of one master, replayed by one process."""
    run.create_both(DATABASE, "bench_base")
    run.install(["t"])
    ways = [(DATABASE, DATABASE, "")]
    for number in range(2, count + 1):
        run.create(run.servers.slave, f"{DATABASE}_{number}", "bench_base")
        run.servers.master.run(f"select py_log_add_slave('slave{number}')", DATABASE)
        ways.append((DATABASE, f"{DATABASE}_{number}", f"SLAVE_FIELD=slave{number}"))
    run.measure(["t"], f"call write_backlog({run.sizes.spread}, 10)", run.sizes.spread, ways)


def pairs(run, count):
    """A backlog spread over so many pairs of databases, replayed by one process."""
    run.create_both("bench_pair", "bench_base")
    for cluster in run.servers.both():
        cluster.run("create table t1 (like t including all); drop table t, narrow, wide", "bench_pair")
        cluster.run("vacuum full", "bench_pair")
    run.install(["t1"], "bench_pair")
    names = [f"{DATABASE}_{number}" for number in range(1, count + 1)]
    for name in names:
        for cluster in run.servers.both():
            run.create(cluster, name, "bench_pair", strategy="wal_log")
    changes = run.sizes.spread // count
    ways = [(name, name, "") for name in names]
    run.measure(["t1"], f"call write_many_tables({changes}, 1)", changes, ways)
    run.measure_running(["t1"], f"call write_many_tables({changes}, 1, {changes})", changes, ways)


class Run:
    """One case: the databases that it makes, what it measures, and the taking down of it all."""

    def __init__(self, servers, sizes, samples, case, kept_open):
        self.servers, self.sizes, self.samples = servers, sizes, samples
        self.base, self.kept_open = case, kept_open
        self.made = []
        self.daemon = None
        # Rows that are marks have numbers below zero.
        self.marks = 0

    @property
    def case(self):
        return self.base + (OPEN if self.kept_open else "")

    def create(self, cluster, name, template, strategy="file_copy"):
        cluster.create(name, template, strategy)
        self.made.append((cluster, name))

    def create_both(self, name, template):
        for cluster in self.servers.both():
            self.create(cluster, name, template)

    def install(self, names, database=DATABASE):
        triggers.pyreplica(self.servers, database, names)

    def measure(self, names, workload, changes, ways):
        """From the daemon's start. `ways` are the pairs, as master's database, slave's database and further config lines."""
        configs = [pair_config(self.servers, source, target, name=target.upper(), more=more)
                   for source, target, more in ways]

        def start():
            self.daemon = start_pyreplica(self.servers, configs)

        set_up_pyreplica(self.servers, configs)
        self.drain(names, workload, changes, ways, start)

    def measure_running(self, names, workload, changes, ways):
        """The same with the daemon that measure has started; it stands still while the backlog is written."""
        self.base += RUNNING
        self.daemon.pause()
        self.drain(names, workload, changes, ways, self.daemon.go_on)

    def drain(self, names, workload, changes, ways, start):
        self.marks += 2
        held, mark = -self.marks, -self.marks - 1
        sources = sorted({source for source, _, _ in ways})
        holder = self.begin(sources[0], names[0], held) if self.kept_open else None
        for source in sources:
            self.write(source, workload, names[0], mark)
        # Who looks whether the last change has arrived is connected before, so as not to take time from the daemon.
        with ExitStack() as stack:
            looks = [stack.enter_context(opened(self.servers.slave, target)) for _, target, _ in ways]
            begun = time.monotonic()
            start()
            for slave in looks:
                self.await_mark(slave, names[0], mark)
            seconds = time.monotonic() - begun
        self.add("changes/s", changes * len(ways) / seconds)
        self.add("MiB peak", processes.memory_kib(self.daemon.pid) / 1024)
        if holder:
            holder.execute("commit")
            holder.connection.close()
        for source, target, _ in ways:
            await_equal(self.servers, source, names, SETTLE_SECONDS, self.daemon.must_run, target)

    def begin(self, database, table, number):
        held = self.servers.master.connect(database).cursor()
        held.execute("begin isolation level repeatable read")
        held.execute(f"insert into {table} values ({number}, 0, 'open', 0, now())")
        return held

    def write(self, database, workload, table, mark):
        with opened(self.servers.master, database) as master:
            # Only to make the backlog faster.
            master.execute("set synchronous_commit = off")
            master.execute(workload)
            master.execute(f"insert into {table} values ({mark}, 0, 'mark', 0, now())")

    def await_mark(self, slave, table, mark):
        def arrived():
            self.daemon.must_run()
            slave.execute(f"select 1 from {table} where id = {mark}")
            return slave.rowcount == 1

        clusters.wait_until("the last change has arrived", self.sizes.patience, arrived, LOOK)

    def add(self, unit, value):
        self.samples.add(SECTION, self.case, "pyreplica", unit, value)

    def take_down(self):
        self.servers.end_daemons()
        for cluster in self.servers.both():
            cluster.set_flushing(False)
        for cluster, name in reversed(self.made):
            cluster.drop(name)
        for cluster in self.servers.both():
            cluster.set_flushing(True)
