"""What logging schema changes costs the master: statements that change the schema, and one that does not."""

import time

from . import processes, triggers

SECTION = "schema changes"
DATABASE = "bench"
# So many more turns of what changes no schema and is soon done.
MORE = 20
WITH = "pyreplica, schema changes"

# What is measured, and its statements; {n} is the number of the turn.
STATEMENTS = {
    "INSERT of a row": "insert into narrow (id, a, b, c, d) select coalesce(max(id), 0) + 1, 1, 'b', 1.5, now() from narrow",
    "CREATE TABLE": "create table made_{n} (id int primary key, a text)",
    "ALTER TABLE ADD": "alter table made_{n} add b int",
    "CREATE INDEX": "create index on made_{n} (a)",
    "CREATE VIEW": "create view seen_{n} as select * from made_{n}",
    "DROP TABLE": "drop table made_{n} cascade",
}


def nothing(servers, database):
    """What both others are compared with."""


def pyreplica(servers, database):
    triggers.pyreplica(servers, database, triggers.TABLES)


def with_schema_changes(servers, database):
    pyreplica(servers, database)
    servers.master.run_file("product/master-install-ddl.sql", database)


KINDS = {"none": nothing, "pyreplica": pyreplica, WITH: with_schema_changes}


def measure(servers, sizes, samples):
    """CPU of the backend for each statement, by itself in a transaction, in a fresh database for each kind and round."""
    for number in range(sizes.single_rounds):
        print(f"== schema changes, round {number + 1}", flush=True)
        kinds = list(KINDS)
        for kind in kinds[number % len(kinds):] + kinds[:number % len(kinds)]:
            if samples.has_failed(SECTION, kind):
                continue
            with samples.attempt(SECTION, kind):
                servers.master.create(DATABASE, "bench_base")
                KINDS[kind](servers, DATABASE)
                run(servers.master.connect(DATABASE), sizes.schema_changes, samples, kind)
            with samples.attempt(SECTION, kind):
                servers.master.drop(DATABASE)


def run(session, count, samples, kind):
    with session, session.cursor() as cursor:
        pid = session.info.backend_pid
        # What a session does once is not a statement's cost.
        for statement in STATEMENTS.values():
            cursor.execute(statement.format(n=0))
        for case, statement in STATEMENTS.items():
            before, start = processes.cpu_seconds(pid), time.monotonic()
            turns = count * (MORE if case.startswith("INSERT") else 1)
            for turn in range(1, turns + 1):
                cursor.execute(statement.format(n=turn))
            clock, cpu = time.monotonic() - start, processes.cpu_seconds(pid) - before
            samples.add(SECTION, case, kind, "us CPU", cpu / turns * 1e6)
            samples.add(SECTION, case, kind, "us", clock / turns * 1e6)
    session.close()
