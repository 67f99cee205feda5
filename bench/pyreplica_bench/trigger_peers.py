"""The peers that work by triggers, as pyreplica does: Slony-I, Londiste, Bucardo, and the Python way."""

import subprocess
import sys

from . import clusters, triggers
from .peers import DATABASE, OneDaemon, Peer
from .processes import Daemon


class Slony(Peer):
    def setup(self, tables):
        master, slave = self.master.dsn(DATABASE), self.slave.dsn(DATABASE)
        self.preamble = (f"cluster name = bench; node 1 admin conninfo='{master}';"
                         f" node 2 admin conninfo='{slave}';\n")
        triggers.slonik(self.preamble + f"""
            init cluster (id=1, comment='master');
            create set (id=1, origin=1, comment='all');
            {triggers.slony_tables(tables)}
            store node (id=2, comment='slave', event node=1);
            store path (server=1, client=2, conninfo='{master}');
            store path (server=2, client=1, conninfo='{slave}');""")
        self.start()
        # Both sides are equal already.
        triggers.slonik(self.preamble + """
            subscribe set (id=1, provider=1, receiver=2, forward=no, omit copy=yes);
            wait for event (origin=1, confirmed=2, wait on=1, timeout=60);""")
        clusters.wait_until("the subscription is active", 60, lambda: self.on_slave(
            "select 1 from _bench.sl_subscribe where sub_active"))

    def start(self):
        self.daemons = [Daemon(f"slon of the {cluster.label}", ["slon", "bench", cluster.dsn(DATABASE)],
                               self.folder / f"{cluster.label}.log") for cluster in (self.master, self.slave)]

    def stop(self):
        for daemon in self.daemons:
            daemon.stop()
        # A new slon refuses to start while a session of the old one is there.
        for cluster in (self.master, self.slave):
            clusters.wait_until("slon's sessions have ended", 30, lambda: not cluster.run(
                "select 1 from pg_stat_activity where application_name like 'slon%'"))

    def must_run(self):
        for daemon in self.daemons:
            daemon.must_run()


class Londiste(Peer):
    """PgQ's queue, its ticker pgqd, and a worker for each side."""

    def setup(self, tables):
        for cluster in (self.master, self.slave):
            cluster.run("create extension pgq; create extension pgq_node; create extension londiste", DATABASE)
            self.write_config(cluster.label, "londiste", f"db = {cluster.dsn(DATABASE)}\nqueue_name = bench")
        self.write_config("pgqd", "pgqd", f"base_connstr = host=127.0.0.1 port={self.master.port} user=postgres\n"
                                          f"initial_database = postgres\ndatabase_list = {DATABASE}")
        master, slave = self.master.dsn(DATABASE), self.slave.dsn(DATABASE)
        self.londiste("master", "create-root", "master", master)
        self.londiste("slave", "create-leaf", "slave", slave, f"--provider={master}")
        self.ticker = Daemon("pgqd", ["pgqd", self.folder / "pgqd.ini"], self.folder / "pgqd.out")
        self.start()
        names = [f"public.{table}" for table in tables]
        self.londiste("master", "add-table", *names)
        # Both sides are equal already.
        self.londiste("slave", "add-table", *names, "--expect-sync", "--skip-truncate")
        clusters.wait_until("the tables are in sync", 60, lambda: self.on_slave(
            "select bool_and(merge_state = 'ok') from londiste.get_table_list('bench')") == [(True,)])

    def write_config(self, name, section, lines):
        (self.folder / f"{name}.ini").write_text(f"[{section}]\n{lines}\nlogfile = {self.folder}/{name}.log\n"
                                                 f"pidfile = {self.folder}/{name}.pid\n")

    def londiste(self, side, *words):
        clusters.run(["londiste", self.folder / f"{side}.ini", *words])

    def start(self):
        self.daemons = [Daemon(f"londiste of the {side}", ["londiste", "-q", self.folder / f"{side}.ini", "worker"],
                               self.folder / f"{side}.out") for side in ("master", "slave")]

    def stop(self):
        """The workers; the ticker goes on cutting the queue into batches, since it belongs to the master."""
        for daemon in self.daemons:
            daemon.stop()

    def must_run(self):
        for daemon in [self.ticker, *self.daemons]:
            daemon.must_run()


class Bucardo(Peer):
    """Its own database, on the slave's cluster, tells it what to do; its daemon goes into the background by itself."""

    def setup(self, tables):
        self.rc = self.folder / "bucardorc"
        self.rc.write_text(f"dbhost = 127.0.0.1\ndbport = {self.slave.port}\ndbname = bucardo\ndbuser = bucardo\n")
        self.bucardo("install", "--batch", "--dbhost", "127.0.0.1", "--dbport", self.slave.port, "--dbuser", "postgres",
                     "--dbname", "postgres", "--pid-dir", self.folder)
        self.bucardo("set", f"piddir={self.folder}", f"reason_file={self.folder}/reason")
        for cluster in (self.master, self.slave):
            self.bucardo("add", "db", cluster.label, f"dbname={DATABASE}", "host=127.0.0.1", f"port={cluster.port}",
                         "user=postgres")
        self.bucardo("add", "table", *(f"public.{table}" for table in tables), "db=master", "relgroup=all")
        self.bucardo("add", "sync", "bench", "relgroup=all", "dbs=master:source,slave:target", "onetimecopy=0")
        self.start()

    def bucardo(self, *words):
        return clusters.run(["bucardo", "--bucardorc", self.rc, *words], cwd=self.folder)

    def start(self):
        # To a file: what reads a pipe would wait for the daemon to end, too.
        said = self.folder / "start.out"
        with open(said, "w") as output:
            code = subprocess.call(["bucardo", "--bucardorc", str(self.rc), "start", "--log-destination", str(self.folder)],
                                   cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if code != 0:
            raise RuntimeError(f"bucardo start has failed with code {code}: {said.read_text()}")

    def stop(self):
        self.bucardo("stop")
        self.servers.end_daemons()

    def must_run(self):
        if not self.servers.daemons():
            raise RuntimeError("bucardo has ended")

    def retire(self):
        self.slave.drop("bucardo")


class Python(OneDaemon):
    """The original's trigger, and a daemon that replays as the original's did."""

    def setup(self, tables):
        triggers.python(self.servers, DATABASE, tables)
        self.start()

    def start(self):
        self.daemon = Daemon("the Python daemon", [sys.executable, "-m", "pyreplica_bench.python_daemon",
                                                   self.master.dsn(DATABASE), self.slave.dsn(DATABASE)],
                             self.folder / "python.log")
