"""Two throwaway PostgreSQL clusters, the master and the slave, and what one does with databases on them."""

import os
import subprocess
import time
from pathlib import Path

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from . import processes

# As close to a server in service as throwaway clusters on a small machine can be: every commit reaches the disk.
# What logical replication needs is on for everybody.
SETTINGS = """
fsync = on
synchronous_commit = on
wal_level = logical
max_connections = 500
max_prepared_transactions = 300
max_wal_senders = 20
max_replication_slots = 20
max_worker_processes = 20
max_logical_replication_workers = 8
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 15min
log_min_messages = warning
# A subscription that was disabled begins anew after five seconds otherwise, which would be taken for slowness.
wal_retrieve_retry_interval = 100ms
"""

# A statement of the set-up that takes longer than this hangs.
STATEMENT_SECONDS = 120

# Waits for the server in Python rather than in libpq, so that a signal ends the benchmark at once.
psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)


class Cluster:
    """One server. The script that runs it removes it when this process is gone, however it ends."""

    def __init__(self, label, binaries, settings):
        self.label, self.binaries = label, Path(binaries)
        script = Path("cluster.sh").read_text()
        self.keeper = subprocess.Popen(
            ["sh", "-c", script, "cluster", str(binaries), label, SETTINGS + settings],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        answer = self.keeper.stdout.readline().split()
        if len(answer) != 3:
            raise RuntimeError(f"the {label} cluster does not start")
        self.directory, self.port = Path(answer[1]), int(answer[2])

    def dsn(self, database):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def connect(self, database="postgres"):
        """A session in which every statement is a transaction; by the socket, which costs the least."""
        connection = psycopg2.connect(host=str(self.directory), port=self.port, user="postgres", dbname=database)
        connection.autocommit = True
        return connection

    def run(self, sql, database="postgres", parameters=None):
        """Runs SQL in a session of its own; returns the rows if there are any."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute("set statement_timeout = %s", [STATEMENT_SECONDS * 1000])
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def run_file(self, path, database):
        run([self.binaries / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", path,
             self.dsn(database)])

    def set(self, name, value):
        """Sets a parameter, or with None takes it back, and restarts the server: some are read at its start only."""
        self.run(f"alter system reset {name}" if value is None else f"alter system set {name} = {value}")
        self.obey("stop fast")
        self.obey("start")

    def set_flushing(self, on):
        """Not while databases are dropped by the hundred: each begins with a checkpoint."""
        self.run("alter system reset fsync" if on else "alter system set fsync = off")
        self.run("select pg_reload_conf()")

    def obey(self, command):
        self.keeper.stdin.write(command + "\n")
        self.keeper.stdin.flush()
        if self.keeper.stdout.readline().strip() != "done":
            raise RuntimeError(f"the {self.label} cluster fails to {command}")

    def postmaster(self):
        return int((self.directory / "data" / "postmaster.pid").read_text().split()[0])

    def create(self, database, template, strategy="file_copy"):
        """Copying files begins with a checkpoint, so everything that is measured starts alike."""
        self.drop(database)
        self.run(f"create database {database} template {template} strategy {strategy}")

    def drop(self, database):
        """Whatever still holds it: subscriptions, slots, prepared transactions, sessions."""
        if not self.run("select 1 from pg_database where datname = %s", parameters=[database]):
            return
        for gid, in self.run("select gid from pg_prepared_xacts where database = %s", parameters=[database]):
            self.run("rollback prepared %s", database, [gid])
        for name, in self.run("select subname from pg_subscription s join pg_database d on d.oid = subdbid"
                              " where datname = %s", parameters=[database]):
            self.run(f"alter subscription {name} disable", database)
            self.run(f"alter subscription {name} set (slot_name = none)", database)
            self.run(f"drop subscription {name}", database)
        self.run("select pg_terminate_backend(active_pid) from pg_replication_slots"
                 " where database = %s and active", parameters=[database])
        wait_until("the replication slots are free", 30, lambda: not self.run(
            "select 1 from pg_replication_slots where database = %s and active", parameters=[database]))
        self.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
                 parameters=[database])
        self.run(f"drop database {database} with (force)")

    def cpu_seconds(self):
        return processes.tree_cpu_seconds([self.postmaster()])

    def close(self):
        self.keeper.stdin.close()
        self.keeper.wait()


class Servers:
    """Both clusters, and a folder for logs and the peers' files."""

    def __init__(self, binaries, folder, settings=""):
        self.binaries, self.folder = Path(binaries), Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.master = Cluster("master", binaries, settings)
        try:
            self.slave = Cluster("slave", binaries, settings)
        except BaseException:
            self.master.close()
            raise

    def both(self):
        return self.master, self.slave

    def create_both(self, database, template):
        for cluster in self.both():
            cluster.create(database, template)

    def drop_both(self, database):
        """The slave first: what it subscribes to is held by it."""
        for cluster in (self.slave, self.master):
            cluster.drop(database)

    def daemons(self):
        """What the peers run: every process of ours that isn't a server's."""
        clusters = processes.tree(pid for cluster in self.both()
                                  for pid in (cluster.postmaster(), cluster.keeper.pid))
        ours = set(processes.tree([os.getpid()])) - {os.getpid()} - set(clusters)
        return {pid for pid in ours if processes.is_alive(pid)}

    def daemon_heads(self):
        """The heads of their families: the CPU of children that have ended is found in them."""
        daemons = self.daemons()
        by_parent = processes.children()
        return daemons - {child for pid in daemons for child in by_parent.get(pid, [])}

    def end_daemons(self):
        processes.end(self.daemons())

    def close(self):
        self.end_daemons()
        for cluster in self.both():
            cluster.close()


def run(command, **options):
    """Runs a program to its end; its words are in the error if it fails."""
    result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            stdin=options.pop("stdin", subprocess.DEVNULL if "input" not in options else None),
                            text=True, **options)
    if result.returncode != 0:
        words = " | ".join(result.stdout.splitlines()[-5:])
        raise RuntimeError(f"{Path(str(command[0])).name} has failed with code {result.returncode}: {words}")
    return result.stdout


def wait_until(what, seconds, condition, pause=0.1):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} seconds in vain until {what}")
        time.sleep(pause)
