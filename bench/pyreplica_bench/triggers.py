"""What captures changes on the master: each function puts one kind of trigger on some tables of a database."""

from . import clusters

# {table: columns of its key}
TABLES = {"narrow": ["id"], "wide": ["id"]}
REPLAY_TABLES = {"t": ["id"]}
TPCB_TABLES = {"pgbench_accounts": ["aid"], "pgbench_branches": ["bid"], "pgbench_tellers": ["tid"],
               "pgbench_history": ["id"]}


def nothing(servers, database, tables):
    """What everything else is compared with."""


def pyreplica(servers, database, tables, level="row"):
    servers.master.run_file("product/master-install.sql", database)
    for table in tables:
        said = servers.master.run("select py_log_create_tg(%s, %s)", database, [table, level])[0][0]
        if not said.startswith("created trigger"):
            raise RuntimeError(f"py_log_create_tg: {said}")


def statement(servers, database, tables):
    """pyreplica on tables that it was told to capture by statement."""
    pyreplica(servers, database, tables, "statement")


def slony(servers, database, tables):
    """Slony-I's trigger logTrigger, which is in C, on a node without others."""
    slonik(f"""cluster name = bench;
        node 1 admin conninfo='{servers.master.dsn(database)}';
        init cluster (id=1, comment='master');
        create set (id=1, origin=1, comment='all');
        {slony_tables(tables)}""")


def slony_tables(tables):
    return "".join(f"set add table (set id=1, origin=1, id={number}, fully qualified name='public.{table}');\n"
                   for number, table in enumerate(tables, 1))


def pgq(servers, database, tables):
    """PgQ's trigger logutriga, which is in C and what Londiste uses too."""
    servers.master.run("create extension pgq; select pgq.create_queue('bench')", database)
    for table in tables:
        servers.master.run(f"create trigger log after insert or update or delete on {table}"
                           " for each row execute function pgq.logutriga('bench')", database)


def python(servers, database, tables):
    """PL/Python, as in the original of pyreplica."""
    servers.master.run_file("sql/python_trigger.sql", database)
    for table, keys in tables.items():
        arguments = ", ".join(f"'{word}'" for word in [table, *keys])
        servers.master.run(f"create trigger log after insert or update or delete on {table}"
                           f" for each row execute function python_log({arguments})", database)


def slonik(script):
    return clusters.run(["slonik"], input=script)


ALL = {"none": nothing, "pyreplica": pyreplica, "statement": statement, "slony": slony, "pgq": pgq, "python": python}
