"""How long the verbs take that look at every table: once for some tables, once for ten times as many."""

import subprocess
import time

SECTION = "many tables"
DATABASE = "bench"
# In this order: each finds what the one before has left.
VERBS = ("install", "doctor", "copy", "compare")


def measure(servers, sizes, samples):
    for count in sizes.many_tables:
        print(f"== {count:,} tables", flush=True)
        with samples.attempt(SECTION, "pyreplica"):
            for cluster in servers.both():
                cluster.create(DATABASE, "template1")
                make(cluster, count)
            for verb in VERBS:
                samples.add(SECTION, f"{count:,} tables", verb, "s", seconds(servers, verb))
        with samples.attempt(SECTION, "taking down"):
            servers.drop_both(DATABASE)


def make(cluster, count):
    """Some at a time: a transaction keeps a lock on each table that it has made."""
    for first in range(1, count + 1, 500):
        last = min(first + 499, count)
        cluster.run(f"do $$ begin for i in {first}..{last} loop"
                    " execute format('create table t%s (id serial primary key, a text)', i); end loop; end $$", DATABASE)
    cluster.run("vacuum analyze", DATABASE)


def seconds(servers, verb):
    dsns = [servers.master.dsn(DATABASE), servers.slave.dsn(DATABASE)]
    start = time.monotonic()
    done = subprocess.run(["./pyreplica", verb, *dsns[:1 if verb == "install" else 2]], capture_output=True, text=True)
    # doctor may have warnings.
    if done.returncode not in (0, 8):
        raise RuntimeError(f"{verb}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return time.monotonic() - start
