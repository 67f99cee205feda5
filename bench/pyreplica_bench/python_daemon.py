"""Replays as the daemon of the Python original did, which wants Python 2 and is on no index of packages: waits for a
notification, reads the rows of the log that lack the flag, executes each statement on the slave, sets the flags, and commits
on both sides in two phases.

    python3 -m pyreplica_bench.python_daemon MASTER SLAVE      until it is killed

One thing is better here: the original missed notifications that came while it replayed, until the next one. What it did
after a crash isn't here.
"""

import select
import sys

import psycopg2

# Between two looks for what has been notified.
TIMEOUT_SECONDS = 60


def main():
    master, slave = (psycopg2.connect(dsn) for dsn in sys.argv[1:])
    with master, master.cursor() as cursor:
        cursor.execute("listen replicas")
    for connection in (master, slave):
        # So that the flags are set of the rows that were read, and of no others.
        connection.set_session(isolation_level="REPEATABLE READ")
    while True:
        replicate(master, slave)
        await_notification(master)


def replicate(master, slave):
    both = (master, slave)
    for number, connection in enumerate(both):
        connection.tpc_begin(connection.xid(0, f"python {number}", ""))
    with master.cursor() as log, slave.cursor() as target:
        log.execute("select id, sql from python_log where not replicated order by id for update")
        for _, sql in log:
            target.execute(sql)
            if target.rowcount != 1:
                print(f"possible conflict ({target.rowcount} rows): {sql}", flush=True)
        is_new = log.rowcount > 0
        if is_new:
            log.execute("update python_log set replicated = true where not replicated")
    for step in ("tpc_prepare", "tpc_commit") if is_new else ("tpc_rollback",):
        for connection in both:
            getattr(connection, step)()


def await_notification(master):
    """Some have come with the answers to other statements."""
    master.poll()
    while not master.notifies:
        select.select([master], [], [], TIMEOUT_SECONDS)
        master.poll()
    master.notifies.clear()


if __name__ == "__main__":
    main()
