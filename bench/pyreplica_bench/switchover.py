"""How long writers wait while two databases exchange their roles, and whether a transaction is lost or done twice.

Clients never stop, and repeat what fails. The roles are exchanged there and back again, and at the end every token is looked for.
"""

import json
import statistics
import subprocess
import sys
import time
from collections import Counter

from . import clusters, peers, trigger_peers, triggers
from .peers import DATABASE
from .processes import Daemon

SECTION = "switchover"
# A writer that has waited is done at the latest so long after the command has ended.
AFTER_SECONDS = 2
# How long a command may take.
COMMAND_SECONDS = 120
# How often Slony-I's LOCK SET is tried for one exchange.
TRIES = 50


class Pyreplica(peers.Pyreplica):
    deadlocks = 0

    def setup(self, tables):
        self.config = self.servers.folder / "pyreplica.conf.d" / "BENCH.conf"
        triggers.pyreplica(self.servers, DATABASE, tables)
        self.start()

    def hosts(self):
        """libpq takes the host whose sessions can write."""
        ports = ",".join(str(cluster.port) for cluster in self.servers.both())
        return [f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname={DATABASE} target_session_attrs=read-write"]

    def exchange(self):
        """Returns how long writers waited, as the command itself says, in seconds."""
        run = subprocess.run(["./pyreplica", "switchover", "--json", self.config], capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"switchover has ended with code {run.returncode}: {run.stdout} {run.stderr}")
        return json.loads(run.stdout)["waited_seconds"]


class Slony(trigger_peers.Slony):
    """Its subscribers refuse writers too, but nothing tells libpq which host is the origin: the clients try them in turn."""

    def setup(self, tables):
        self.origin, self.deadlocks = 1, 0
        sequences = [f"{table}_{column}_seq" for table in tables for column in ("id", "number")]
        adds = triggers.slony_tables(tables)
        adds += "".join(f"set add sequence (set id=1, origin=1, id={number}, fully qualified name='public.{sequence}');\n"
                        for number, sequence in enumerate(sequences, 1))
        master, slave = self.master.dsn(DATABASE), self.slave.dsn(DATABASE)
        self.preamble = (f"cluster name = bench; node 1 admin conninfo='{master}'; node 2 admin conninfo='{slave}';\n")
        triggers.slonik(self.preamble + f"""
            init cluster (id=1, comment='master');
            create set (id=1, origin=1, comment='all');
            {adds}
            store node (id=2, comment='slave', event node=1);
            store path (server=1, client=2, conninfo='{master}');
            store path (server=2, client=1, conninfo='{slave}');""")
        self.start()
        triggers.slonik(self.preamble + """
            subscribe set (id=1, provider=1, receiver=2, forward=yes, omit copy=yes);
            wait for event (origin=1, confirmed=2, wait on=1, timeout=60);""")
        clusters.wait_until("the subscription is active", 60, lambda: self.on_slave(
            "select 1 from _bench.sl_subscribe where sub_active"))

    def hosts(self):
        return [cluster.dsn(DATABASE) for cluster in self.servers.both()]

    def exchange(self):
        """As its manual says: LOCK SET, and MOVE SET when the subscriber has it all."""
        origin, other = self.origin, 3 - self.origin
        self.lock(origin)
        triggers.slonik(self.preamble + f"""
            sync (id={origin});
            wait for event (origin={origin}, confirmed={other}, wait on={origin}, timeout={COMMAND_SECONDS});
            move set (id=1, old origin={origin}, new origin={other});
            wait for event (origin={origin}, confirmed={other}, wait on={origin}, timeout={COMMAND_SECONDS});""")
        self.origin = other

    def lock(self, origin):
        """It locks one table after the other, so that it and writers of several tables wait for each other: again, then."""
        for _ in range(TRIES):
            try:
                return triggers.slonik(self.preamble + f"lock set (id=1, origin={origin});")
            except RuntimeError as error:
                if "deadlock" not in str(error) and "blocked by process" not in str(error):
                    raise
                self.deadlocks += 1
        raise RuntimeError(f"LOCK SET has met a deadlock {TRIES} times")


PEERS = {"pyreplica": Pyreplica, "slony": Slony}


def measure(servers, sizes, samples, wanted):
    for name in wanted:
        print(f"== switchover, {name}", flush=True)
        with samples.attempt(SECTION, name):
            measure_peer(servers, sizes, samples, name)
        servers.end_daemons()
        servers.drop_both(DATABASE)


def measure_peer(servers, sizes, samples, name):
    tables = [f"t{number}" for number in range(sizes.switchover_tables)]
    for cluster in servers.both():
        cluster.drop(DATABASE)
        cluster.run(f"create database {DATABASE}")
        cluster.run("; ".join(statement for table in tables for statement in create(table)), DATABASE)
    peer = PEERS[name](servers)
    peer.setup(tables)
    add = lambda case, unit, value: samples.add(SECTION, case, name, unit, value)
    start = time.time()
    writers = start_writers(servers, sizes, peer.hosts())
    time.sleep(sizes.switchover_pause)
    exchanges = []
    for _ in range(sizes.switchovers):
        begin = time.time()
        said = peer.exchange()
        exchanges.append((begin, time.time(), said))
        time.sleep(sizes.switchover_pause)
        for daemon in writers:
            daemon.must_run()
    records, seconds = end_writers(servers, writers), time.time() - start
    report(add, records, exchanges, start, seconds)
    if peer.deadlocks:
        add("deadlocks of the command", "attempts", peer.deadlocks)
    judge(servers, add, records, tables, peer)


def create(table):
    """Two sequences, and unique columns by which a sequence that stayed behind shows."""
    yield f"create table {table} (id bigserial primary key, number bigserial unique, token text, amount bigint not null)"
    yield f"insert into {table} (amount) select 0 from generate_series(1, 10)"


def start_writers(servers, sizes, hosts):
    rate = sizes.switchover_rate / sizes.switchover_clients
    started = []
    for number in range(sizes.switchover_clients):
        options = {"number": number, "hosts": hosts, "tables": sizes.switchover_tables, "rate": rate}
        out = servers.folder / f"writer-{number}.json"
        started.append(Daemon(f"writer {number}", [sys.executable, "-m", "pyreplica_bench.writer", json.dumps(options), out],
                              servers.folder / f"writer-{number}.log"))
    return started


def end_writers(servers, writers):
    for writer in writers:
        writer.must_run()
        writer.process.terminate()
    for writer in writers:
        if writer.process.wait() != 0:
            raise RuntimeError(f"{writer.name} has failed: {writer.last_words()}")
    return [json.loads((servers.folder / f"writer-{number}.json").read_text()) for number in range(len(writers))]


def report(add, records, exchanges, start, seconds):
    done = [tuple(entry) for record in records for entry in record["done"]]
    errors = [tuple(entry) for record in records for entry in record["errors"]]
    add("load", "transactions/s", len(done) / seconds)
    add("load", "transactions", len(done))
    add("usual wait", "ms p50", statistics.median(end - begin for begin, end in done) * 1000)
    quiet = start
    for begin, end, said in exchanges:
        add("command", "s", end - begin)
        add("longest wait without", "ms", longest(done, quiet, begin) * 1000)
        quiet = end + AFTER_SECONDS
        add("longest wait", "ms", longest(done, begin, quiet) * 1000)
        if said is not None:
            add("wait that the command tells", "ms", said * 1000)
        add("errors", "each", sum(begin <= at <= end + AFTER_SECONDS for at, *_ in errors))
    for what, count in Counter(what for _, what, _ in errors).items():
        add("errors", f"SQLSTATE {what}", count)
    for what, words in {what: words for _, what, words in errors}.items():
        print(f"   {what}: {words}", flush=True)


def longest(done, since, until):
    """Of the transactions that ended in between."""
    return max((end - begin for begin, end in done if since <= end <= until), default=0)


def judge(servers, add, records, tables, peer):
    """What the clients were told is there once, nothing is there twice, and both sides are equal."""
    peers.await_equal(servers, DATABASE, tables, 60, peer.must_run)
    union = " union all ".join(f"select token, amount from {table}" for table in tables)
    found = Counter(token for token, in servers.master.run(f"select token from ({union}) x where token is not null", DATABASE))
    told = [f"{record['number']}.{count}" for record in records for count in range(len(record["done"]))]
    lost = sum(token not in found for token in told)
    twice = sum(count > 1 for count in found.values())
    add("lost", "transactions", lost)
    add("done twice", "transactions", twice)
    total = servers.master.run(f"select sum(amount) from ({union}) x", DATABASE)[0][0]
    if lost or twice or total != 0:
        raise RuntimeError(f"LOST CHANGES: {lost} transactions are lost, {twice} were done twice, the sum is {total}")
