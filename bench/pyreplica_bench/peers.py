"""What replicates: how each peer is set up, started and stopped, on databases that are equal already.

Each is used as its manual says and with the settings that it comes with. Databases are called `bench` on both sides.
"""

import subprocess

from . import clusters, triggers
from .processes import Daemon

DATABASE = "bench"


class Peer:
    """setup() leaves the tables, {name: columns of the key}, replicating; stop() lets changes pile up, and start() returns
    without waiting for anything."""

    def __init__(self, servers):
        self.servers, self.master, self.slave = servers, servers.master, servers.slave
        self.folder = servers.folder / type(self).__name__.lower()
        self.folder.mkdir(exist_ok=True)

    def setup(self, tables):
        raise NotImplementedError

    def stop(self):
        raise NotImplementedError

    def start(self):
        raise NotImplementedError

    def must_run(self):
        """Raises if a daemon has ended."""

    def retire(self):
        """Between the end of the daemons and of the databases: undoes what else there is."""

    def on_master(self, sql):
        return self.master.run(sql, DATABASE)

    def on_slave(self, sql):
        return self.slave.run(sql, DATABASE)


class OneDaemon(Peer):
    """start() sets `daemon`."""

    def stop(self):
        self.daemon.stop()

    def must_run(self):
        self.daemon.must_run()


class Pyreplica(OneDaemon):
    # Further lines of the config file.
    more = ""

    def setup(self, tables):
        triggers.pyreplica(self.servers, DATABASE, tables)
        self.start()

    def start(self):
        self.daemon = start_pyreplica(self.servers, [pair_config(self.servers, DATABASE, DATABASE, more=self.more)])


class OnePhase(Pyreplica):
    """Without two-phase commit. The slave keeps the progress."""

    more = "TWO_PHASE=false"


def pair_config(servers, master_database, slave_database, name="BENCH", more=""):
    """The config file of one pair, as (name, text). What isn't named has its default, but that statements aren't logged."""
    return name, (f"[MAIN]\nNAME={name}\nDSN0={servers.master.dsn(master_database)}\n"
                  f"DSN1={servers.slave.dsn(slave_database)}\nDEBUG_LEVEL=1\n{more}\n")


def start_pyreplica(servers, configs):
    return Daemon("pyreplica", ["./pyreplica", folder_of(servers, configs)], servers.folder / "pyreplica.log")


def set_up_pyreplica(servers, configs):
    """Lets the slaves have what a daemon that starts for the first time makes there."""
    subprocess.run(["./pyreplica", "--once", folder_of(servers, configs)], stdout=subprocess.DEVNULL, check=True)


def folder_of(servers, configs):
    folder = servers.folder / "pyreplica.conf.d"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, text in configs:
        (folder / f"{name}.conf").write_text(text)
    return folder


class Builtin(Peer):
    """PostgreSQL's logical replication."""

    def setup(self, tables):
        self.on_master(f"create publication bench for table {', '.join(tables)}")
        self.on_slave(f"create subscription bench connection '{self.master.dsn(DATABASE)}' publication bench"
                      " with (copy_data = false)")

    def stop(self):
        self.on_slave("alter subscription bench disable")
        self.await_idle()

    def start(self):
        self.on_slave("alter subscription bench enable")

    def await_idle(self):
        """Until the sender has gone; a slot that is in use can't be taken again."""
        clusters.wait_until("the slot is free", 30, lambda: not self.master.run(
            "select 1 from pg_replication_slots where database = 'bench' and active"))


class Pglogical(Builtin):
    def setup(self, tables):
        for cluster in (self.master, self.slave):
            # From 15.19 on a plugin must be named before it is loaded.
            if cluster.run("select 1 from pg_settings where name = 'output_plugin_libraries'"):
                cluster.run("alter system set output_plugin_libraries = 'pgoutput', 'pglogical_output'")
            cluster.set("shared_preload_libraries", "pglogical")
        for cluster in (self.master, self.slave):
            cluster.run("create extension pglogical", DATABASE)
            cluster.run("select pglogical.create_node(node_name := %s, dsn := %s)", DATABASE,
                        [cluster.label, cluster.dsn(DATABASE)])
        for table in tables:
            self.on_master(f"select pglogical.replication_set_add_table('default', '{table}')")
        self.slave.run("select pglogical.create_subscription(subscription_name := 'bench', provider_dsn := %s,"
                       " synchronize_structure := false, synchronize_data := false)",
                       DATABASE, [self.master.dsn(DATABASE)])
        clusters.wait_until("pglogical is replicating", 60, lambda: self.on_slave(
            "select 1 from pglogical.show_subscription_status('bench') where status = 'replicating'"))

    def stop(self):
        self.on_slave("select pglogical.alter_subscription_disable('bench', true)")
        self.await_idle()

    def start(self):
        self.on_slave("select pglogical.alter_subscription_enable('bench', true)")

    def retire(self):
        # First of all: its supervisor, which stays without databases too, makes DROP DATABASE wait forever.
        for cluster in (self.master, self.slave):
            cluster.set("shared_preload_libraries", None)


def digests(cluster, database, tables):
    """Of each table its rows, and the sum of a hash of each: the same for the same rows in any order."""
    connection = cluster.connect(database)
    try:
        with connection.cursor() as cursor:
            found = {}
            for table in tables:
                cursor.execute(f"select count(*), sum(hashtextextended(t::text, 0)) from {table} t")
                found[table] = cursor.fetchone()
            return found
    finally:
        connection.close()


def await_equal(servers, database, tables, seconds, must_run=lambda: None, slave_database=None):
    """Until the slave has the master's rows; if it never does, says where it differs."""
    wanted = digests(servers.master, database, tables)
    found = {}

    def equal():
        must_run()
        found.update(digests(servers.slave, slave_database or database, tables))
        return found == wanted

    try:
        clusters.wait_until("both sides are equal", seconds, equal, pause=0.3)
    except TimeoutError:
        where = [f"{table} has {wanted[table][0]} rows on the master and {found[table][0]} on the slave"
                 for table in tables if found[table] != wanted[table]]
        raise RuntimeError(f"LOST CHANGES: the sides still differ after {seconds} s: {'; '.join(where[:5])}") from None
