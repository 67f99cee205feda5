"""The benchmark's driver: what to run, in which order. bench/run.sh prepares its folder and calls it."""

import argparse
import datetime
import os
import signal
import sys
import time
from pathlib import Path

from . import capture, clusters, many_tables, processes, replay, replicating, report, scale, schema_changes
from . import sizes, switchover, triggers
from .samples import Samples

SECTIONS = ("capture", "tpcb", "replicating", "replay", "latency", "idle", "scale", "tables", "switchover", "ddl")
# What --only says, by the parts of the replay's round.
PARTS = {"replay": ["bulk", "backlog"], "latency": ["latency"], "idle": ["idle"]}


def main():
    options = parse()
    out = Path("out")
    if options.report:
        samples = Samples.load([Path(f"given-{number}.json") for number, _ in enumerate(options.report, 1)])
    else:
        samples = Samples()
        measure(options, samples)
    samples.save(out / "samples.json")
    report.write(samples, out)
    for failure in samples.failures:
        print(f"failed: {failure['peer']}, {failure['section']}: {failure['why']}")


def parse():
    parser = argparse.ArgumentParser(prog="bench/run.sh", description="Measures pyreplica against its peers.",
                                     allow_abbrev=False)
    parser.add_argument("binaries", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--full", action="store_true", help="a backlog of 10 million changes too")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections: " + ",".join(SECTIONS))
    parser.add_argument("--peers", help="peers, by names with commas: "
                        + ",".join(dict.fromkeys([*replay.PEERS, *triggers.ALL])))
    parser.add_argument("--no-fsync", action="store_true", help="leave the disk out: the servers don't wait for it")
    parser.add_argument("--report", nargs="+", metavar="samples.json", help="no measuring, only the report")
    parser.add_argument("--out", metavar="DIR", help="where the results go")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = set(options.only) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section: {', '.join(sorted(unknown))}")
    options.peers = options.peers.split(",") if options.peers else [*replay.PEERS, *triggers.ALL]
    return options


def measure(options, samples):
    """Everything that is started in here has ended when it is left, by an error or a signal too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("stopped by a signal"))
    # The shell starts what runs in the background with it ignored, and the daemons would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    processes.adopt_orphans()
    start, chosen = time.monotonic(), sizes.choose(options.quick, options.full, options.rounds)
    settings = "fsync = off" if options.no_fsync else ""
    servers = clusters.Servers(options.binaries, Path("work").absolute(), settings)
    try:
        samples.about = about(servers, options)
        run_sections(servers, chosen, samples, options)
    finally:
        servers.close()
    print(f"== done in {(time.monotonic() - start) / 60:.1f} minutes", flush=True)


def run_sections(servers, chosen, samples, options):
    for cluster in servers.both():
        cluster.run("create database bench_base")
        cluster.run_file("sql/tables.sql", "bench_base")
        cluster.run("vacuum analyze", "bench_base")
    # Without triggers first: everything is compared with that.
    kinds = [name for name in triggers.ALL if name == "none" or name in options.peers]
    # Its tables are not loaded in bulk.
    tpcb_kinds = [name for name in kinds if name != "statement"]
    parts = [part for section in options.only for part in PARTS.get(section, [])]
    peers = [name for name in replay.PEERS if name in options.peers]
    replicants = [name for name in replicating.PEERS if name in options.peers]
    switching = [name for name in switchover.PEERS if name in options.peers]
    steps = [
        ("capture", "capture" in options.only, lambda: capture.measure(servers, chosen, samples, kinds)),
        ("tpcb", "tpcb" in options.only, lambda: capture.measure_tpcb(servers, chosen, samples, tpcb_kinds)),
        (replicating.SECTION, replicating.SECTION in options.only and replicants,
         lambda: replicating.measure(servers, chosen, samples, replicants)),
        ("replay", parts and peers, lambda: replay.measure(servers, chosen, samples, peers, parts)),
        ("idle", "idle" in parts, lambda: replay.measure_bare_idle(servers, chosen, samples)),
        ("scale", "scale" in options.only and "pyreplica" in peers, lambda: scale.measure(servers, chosen, samples)),
        ("tables", "tables" in options.only and "pyreplica" in peers,
         lambda: many_tables.measure(servers, chosen, samples)),
        ("switchover", switching and "switchover" in options.only,
         lambda: switchover.measure(servers, chosen, samples, switching)),
        ("ddl", "ddl" in options.only and "pyreplica" in peers,
         lambda: schema_changes.measure(servers, chosen, samples)),
    ]
    for section, is_wanted, step in steps:
        if is_wanted:
            # What no peer's own care has caught ends the section, and the next one goes on.
            with samples.attempt(section, "all"):
                step()


def about(servers, options):
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), os.uname().machine)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(os.uname().release.split(".")[:2])
    system = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {
        "quick": options.quick,
        "fsync": servers.master.run("show fsync")[0][0],
        "date": datetime.date.today().isoformat(),
        "commit": Path("commit").read_text().strip(),
        "machine": f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB of memory, Linux {kernel}",
        "versions": f"{system['PRETTY_NAME'].strip(chr(34))}, PostgreSQL "
                    f"{servers.master.run('show server_version')[0][0]}, {packages(options.binaries)}",
    }


def packages(binaries):
    """The peers' versions, as Debian counts them."""
    major = Path(binaries).parent.name
    names = {"Slony-I": "slony1-2-bin", "PgQ": f"postgresql-{major}-pgq3", "Londiste": "python3-londiste",
             "Bucardo": "bucardo", "pglogical": f"postgresql-{major}-pglogical"}
    return ", ".join(f"{name} " + clusters.run(["dpkg-query", "-W", "-f", "${Version}", package])
                     for name, package in names.items())


if __name__ == "__main__":
    main()
