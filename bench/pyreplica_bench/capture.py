"""What capturing costs the master: single-row loops, bulk statements and TPC-B, under each kind of trigger and none."""

import time

from . import pgbench, processes, triggers

SECTION, TPCB = "capture", "tpcb"
OPERATIONS = ("insert", "update", "delete")
DATABASE = "bench"


def measure(servers, sizes, samples, wanted):
    """CPU of the backend and seconds on the clock, a row, in a fresh database for each kind of trigger and round."""
    for number in range(max(sizes.single_rounds, sizes.bulk_rounds)):
        print(f"== capture, round {number + 1}", flush=True)
        for peer in rotated(wanted, number):
            if samples.has_failed(SECTION, peer):
                continue
            with samples.attempt(SECTION, peer):
                servers.master.create(DATABASE, "bench_base")
                triggers.ALL[peer](servers, DATABASE, triggers.TABLES)
                session = servers.master.connect(DATABASE)
                warm_up(session)
                if number < sizes.single_rounds:
                    write(session, samples, peer, "single", sizes.single_rows)
                if number < sizes.bulk_rounds:
                    write(session, samples, peer, "bulk", sizes.bulk_rows)
                session.close()
            with samples.attempt(SECTION, peer):
                servers.master.drop(DATABASE)


def warm_up(session):
    """What a session does once, such as loading a language, is not a row's cost."""
    with session.cursor() as cursor:
        for table in triggers.TABLES:
            for operation in OPERATIONS:
                cursor.execute("call write_single(%s, %s, 100)", [table, operation])
        # They were made for tables that are all but empty.
        cursor.execute("discard plans")


def write(session, samples, peer, how, rows):
    with session.cursor() as cursor:
        pid = session.info.backend_pid
        for table in triggers.TABLES:
            for operation in OPERATIONS:
                before, start = processes.cpu_seconds(pid), time.monotonic()
                cursor.execute(f"call write_{how}(%s, %s, %s)", [table, operation, rows])
                clock, cpu = time.monotonic() - start, processes.cpu_seconds(pid) - before
                samples.add(SECTION, f"{table} {how} {operation}", peer, "us CPU", cpu / rows * 1e6)
                samples.add(SECTION, f"{table} {how} {operation}", peer, "us", clock / rows * 1e6)
            # So that the next table doesn't pay for what this one has left.
            cursor.execute("checkpoint")


def measure_tpcb(servers, sizes, samples, wanted):
    """pgbench's own transaction, every commit flushed, while nobody replays."""
    pgbench.make_bases(servers, sizes.tpcb_scale)
    for number in range(sizes.tpcb_rounds):
        print(f"== TPC-B, round {number + 1}", flush=True)
        for clients in sizes.tpcb_clients:
            for peer in rotated(wanted, number):
                if samples.has_failed(TPCB, peer):
                    continue
                with samples.attempt(TPCB, peer):
                    tps, cpu = run_tpcb(servers, sizes, peer, clients)
                    samples.add(TPCB, pgbench.case(clients), peer, "tps", tps)
                    samples.add(TPCB, pgbench.case(clients), peer, "us CPU", cpu)
                with samples.attempt(TPCB, peer):
                    servers.master.drop(DATABASE)


def run_tpcb(servers, sizes, peer, clients):
    """Transactions a second, and the CPU time of the master in us a transaction."""
    servers.master.create(DATABASE, pgbench.BASE)
    triggers.ALL[peer](servers, DATABASE, triggers.TPCB_TABLES)
    before = servers.master.cpu_seconds()
    tps, done = pgbench.run(servers, DATABASE, sizes.tpcb_seconds, clients)
    return tps, (servers.master.cpu_seconds() - before) / done * 1e6


def rotated(what, number):
    """Another one begins in every round, so that none always runs first."""
    number %= len(what)
    return what[number:] + what[:number]
