"""RESULTS.md and the plots, from samples."""

import statistics

from . import many_tables, plots, replicating, schema_changes, targets
from .capture import OPERATIONS
from .samples import figure
from .scale import OPEN

# In the order of the tables and plots.
NAMES = {"none": "no trigger", "pyreplica": "pyreplica", "statement": "pyreplica, by statement",
         "onephase": "pyreplica, TWO_PHASE=false",
         "builtin": "built-in logical replication", "pglogical": "pglogical", "slony": "Slony-I",
         "pgq": "PgQ (Londiste)", "londiste": "Londiste", "bucardo": "Bucardo", "python": "PL/Python, as the original"}
OURS = ("pyreplica", "statement", "onephase")


def write(samples, folder):
    """Sections that weren't measured are left out."""
    pictures = {f"{name}.svg": plots.bars(charts(samples)) for name, charts in PLOTS.items()}
    for name, picture in pictures.items():
        if picture:
            (folder / name).write_text(picture)
    parts = [head(samples), measures(samples)]
    for title, sections, text, picture in SECTIONS:
        if any(samples.has(section) for section in sections):
            image = f"![{title}]({picture})\n" if pictures.get(picture) else ""
            parts.append(f"## {title}\n\n{text(samples)}\n{image}")
    if samples.failures:
        parts.append(failures(samples))
    (folder / "RESULTS.md").write_text("\n".join(part.rstrip() + "\n" for part in parts))


def head(samples):
    about = samples.about
    trial = ("\n**A trial run of small sizes (`--quick`): it shows that the benchmark works, its figures mean nothing.**\n"
             if about.get("quick") else "")
    return (f"# Results of the benchmark\n{trial}\nMade by `bench/run.sh`; [README.md](README.md) says what is measured and"
            f" how. Only ratios carry over to other machines.\nMedians of rounds that took turns.\n\n"
            f"{about.get('date')}, pyreplica {about.get('commit')}, {about.get('machine')}.\n\n{about.get('versions')}; "
            f"fsync = {about.get('fsync')}.\n")


def measures(samples):
    rows = [(what, target, measured, verdict) for what, target, measured, verdict in targets.measures(samples)]
    return ("## Measures\n\n" + table(["measure", "target", "measured", ""], rows)
            + "\nWhere a target isn't met, [README.md](README.md#where-the-time-goes) says where the time goes.\n")


def table(columns, rows):
    lines = [columns, ["---"] + ["--:"] * (len(columns) - 1), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def name_of(peer):
    return NAMES.get(peer, peer)


def found_peers(samples, *sections):
    """In the order of NAMES, whoever has a sample."""
    found = {sample["peer"] for sample in samples.values if sample["section"] in sections}
    return [peer for peer in NAMES if peer in found]


def capture(samples):
    text = ("CPU time of the backend in us a row, without a trigger, and what each trigger adds to it; then what it adds to"
            " all three together, against Slony-I's.\n")
    for how, title in (("single", "Single-row statements in one loop"), ("bulk", "One statement for all rows")):
        columns = [title, *(f"{kind} {operation.upper()}" for kind in ("narrow", "wide") for operation in OPERATIONS),
                   "narrow", "wide"]
        text += "\n" + table(columns, [capture_row(samples, peer, how) for peer in found_peers(samples, "capture")])
    return text


def capture_row(samples, peer, how):
    cells = [name_of(peer)]
    for kind in ("narrow", "wide"):
        for operation in OPERATIONS:
            if peer == "none":
                cells.append(figure(samples.median("capture", f"{kind} {how} {operation}", peer, targets.CPU)))
            else:
                extra = figure(targets.added_to(samples, peer, kind, how, operation))
                cells.append(extra if extra.startswith("-") else "+" + extra)
    for kind in ("narrow", "wide"):
        against = targets.ratio(targets.added(samples, peer, kind, how), targets.added(samples, "slony", kind, how))
        cells.append("" if peer == "none" else times(against))
    return cells


def tpcb(samples):
    cases = sorted({sample["case"] for sample in samples.values if sample["section"] == "tpcb"})
    columns = ["TPC-B", *(word for case in cases for word in (f"{case}, tps", "against none", "CPU of the master, us"))]
    rows = []
    for peer in found_peers(samples, "tpcb"):
        row = [name_of(peer)]
        for case in cases:
            tps = samples.median("tpcb", case, peer, "tps")
            row += [figure(tps), times(targets.ratio(tps, samples.median("tpcb", case, "none", "tps"))),
                    figure(samples.median("tpcb", case, peer, "us CPU"))]
        rows.append(row)
    return ("`pgbench`, synchronous_commit = on. Nobody replays meanwhile. The CPU time is that of the whole server, for each\n"
            "transaction of four changes.\n\n" + table(columns, rows))


def replicated(samples):
    cases = sorted({sample["case"] for sample in samples.values if sample["section"] == replicating.SECTION})
    text = ("`pgbench`, synchronous_commit = on, while its four tables are replicated; clients, servers and daemons share all"
            " cores.\nCPU time, in us for each transaction of four changes, until the slave has the last one. *Behind*: how long"
            " after the clients'\nend that is. Both sides were compared then.\n")
    for case in cases:
        columns = [case, "tps", "against none", *(f"{who}, us" for who in replicating.WHO), "in sum, us", "behind, s"]
        text += "\n" + table(columns, [replicated_row(samples, peer, case)
                                       for peer in found_peers(samples, replicating.SECTION)])
    return text


def replicated_row(samples, peer, case):
    tps, none = (samples.median(replicating.SECTION, case, who, "tps") for who in (peer, "none"))
    used = [samples.median(replicating.SECTION, case, peer, f"us CPU {who}") for who in replicating.WHO]
    return ["no replication" if peer == "none" else name_of(peer), figure(tps), times(targets.ratio(tps, none)),
            *(figure(cpu) for cpu in used), figure(None if None in used else sum(used)),
            figure(samples.median(replicating.SECTION, case, peer, "s behind"))]


def replay(samples):
    columns = ["", "backlog, changes/s", "against built-in"]
    for operation in OPERATIONS:
        columns += [f"bulk {operation.upper()}, s", "speed against built-in"]
    rows = []
    for peer in found_peers(samples, "backlog", "bulk"):
        rate = samples.median("backlog", "backlog", peer, "changes/s")
        row = [name_of(peer), figure(rate),
               times(targets.ratio(rate, samples.median("backlog", "backlog", "builtin", "changes/s")))]
        for operation in OPERATIONS:
            seconds, builtin = (samples.median("bulk", f"bulk {operation}", who, "s") for who in (peer, "builtin"))
            row += [figure(seconds), times(targets.ratio(builtin, seconds))]
        rows.append(row)
    return ("A backlog of single-row transactions, from the daemon's start until it has arrived; one statement for many"
            " rows,\nfrom its commit until the slave shows it. Both sides were compared after each.\n\n"
            + table(columns, rows))


def latency(samples):
    rows = [[name_of(peer), *(figure(samples.median("latency", "commit to visible", peer, unit))
                              for unit in ("ms p50", "ms p99"))] for peer in found_peers(samples, "latency")]
    return ("From the commit of a single-row transaction until the slave shows it, on an idle system.\n\n"
            + table(["", "p50, ms", "p99, ms"], rows))


def idle(samples):
    units = ("ms CPU/min daemons", "ms CPU/min servers", "MiB daemons")
    rows = [["nothing" if peer == "none" else name_of(peer),
             *(figure(samples.median("idle", "idle", peer, unit)) for unit in units)]
            for peer in found_peers(samples, "idle")]
    return ("Nothing happens. CPU of the peer's daemons and of both servers, in ms a minute, and the daemons' resident"
            " memory.\n\n" + table(["", "daemons, CPU", "servers, CPU", "daemons, MiB"], rows))


def scale(samples):
    cases = list(dict.fromkeys(sample["case"].removesuffix(OPEN) for sample in samples.values
                               if sample["section"] == "scale"))
    rows = [[case, *(figure(samples.median("scale", case + mode, "pyreplica", unit))
                     for mode in ("", OPEN) for unit in ("changes/s", "MiB peak"))] for case in cases]
    return ("pyreplica alone, one process. From the daemon's start; *running*: from the moment when a daemon goes on that was stopped"
            " (SIGSTOP)\nwhile the changes were written. *Open*: a transaction on the master that has written a row stays open all the"
            " time.\n\n" + table(["", "changes/s", "peak MiB", "open: changes/s", "open: peak MiB"], rows))


def switchover(samples):
    peers = found_peers(samples, "switchover")
    values = lambda peer, case, unit: samples.all_of("switchover", case, peer, unit)
    rows = []
    for peer in peers:
        counts = [entry for entry in samples.values if (entry["section"], entry["peer"]) == ("switchover", peer)]
        errors = ", ".join(f"{entry['value']:,} {entry['unit'].removeprefix('SQLSTATE ')}" for entry in counts
                           if entry["unit"].startswith("SQLSTATE "))
        rows.append([name_of(peer), figure(samples.median("switchover", "load", peer, "transactions/s")),
                     figure(samples.median("switchover", "usual wait", peer, "ms p50")),
                     *(scatter(values(peer, case, unit)) for case, unit in (
                         ("longest wait without", "ms"), ("longest wait", "ms"), ("wait that the command tells", "ms"),
                         ("command", "s"), ("errors", "each"))),
                     errors or "none", *(f"{sum(values(peer, case, 'transactions')):,}" for case in ("lost", "done twice"))])
    count = max((len(values(peer, "command", "s")) for peer in peers), default=0)
    deadlocks = "".join(f"\n{name_of(peer)}'s command met {sum(found):,} deadlocks with the clients in all, and was tried again.\n"
                        for peer in peers if (found := values(peer, "deadlocks of the command", "attempts")))
    return (f"The roles are exchanged there and back again, {count} times, while clients write at a steady rate and repeat what"
            " fails in a\nnew session. *Longest*: of all transactions of all clients that ended during one exchange or in the two"
            " seconds after it,\nfrom the first attempt to the commit; *without*: between two exchanges. Each is the median of the"
            " exchanges, and in brackets\nthe least and the greatest.\n\n"
            + table(["", "transactions/s", "p50, ms", "longest without, ms", "longest, ms", "the command says, ms", "command, s",
                     "errors each time", "errors in all, by SQLSTATE", "lost", "done twice"], rows) + deadlocks)


def ddl(samples):
    cases = list(dict.fromkeys(sample["case"] for sample in samples.values if sample["section"] == schema_changes.SECTION))
    cpu = lambda case, kind: samples.median(schema_changes.SECTION, case, kind, targets.CPU)
    rows = [[case, figure(cpu(case, "none")), figure(cpu(case, "pyreplica")), figure(cpu(case, schema_changes.WITH)),
             times(targets.ratio(cpu(case, schema_changes.WITH), cpu(case, "pyreplica")))] for case in cases]
    return ("CPU time of the backend for each statement, in us, with `master-install-ddl.sql` and without. *Times*: the last column"
            " over the one before.\n\n" + table(["", "no pyreplica", "pyreplica", "and schema changes", "times"], rows))


def tables(samples):
    cases = list(dict.fromkeys(sample["case"] for sample in samples.values if sample["section"] == many_tables.SECTION))
    took = lambda case, verb: samples.median(many_tables.SECTION, case, verb, "s")
    rows = [[f"`{verb}`", *(figure(took(case, verb)) for case in cases),
             times(targets.ratio(took(cases[-1], verb), took(cases[0], verb)))] for verb in many_tables.VERBS]
    return ("Seconds that the verbs take which look at every table; the tables are empty. *Times*: the last column over the first.\n\n"
            + table(["", *cases, "times"], rows))


def scatter(values):
    return f"{figure(statistics.median(values))} ({figure(min(values))} to {figure(max(values))})" if values else "-"


def failures(samples):
    lines = dict.fromkeys(f"- {name_of(failure['peer'])}, {failure['section']}: {failure['why']}\n"
                          for failure in samples.failures)
    return "## Failed\n\n" + "".join(line.replace("\n", " ").rstrip() + "\n" for line in lines)


def times(value):
    return "-" if value is None else f"{value:.2f}x"


def peers_bars(samples, section, case, unit):
    return [(name_of(peer), samples.median(section, case, peer, unit), peer in OURS)
            for peer in found_peers(samples, section)]


def capture_charts(samples):
    for how, title in (("single", "single rows"), ("bulk", "bulk statements")):
        rows = []
        for peer in found_peers(samples, "capture"):
            total = targets.added(samples, peer, "narrow", how)
            if peer != "none" and total is not None:
                rows.append((name_of(peer), total / len(OPERATIONS), peer in OURS))
        yield f"CPU that capturing adds to a change on the master, us: {title}", rows, False
    yield "TPC-B, 8 clients, transactions a second", peers_bars(samples, "tpcb", "8 clients", "tps"), False


def replicating_charts(samples):
    yield ("TPC-B, 8 clients, replicating, transactions a second",
           peers_bars(samples, replicating.SECTION, "8 clients", "tps"), False)


def replay_charts(samples):
    yield ("Backlog of single-row transactions, changes a second",
           peers_bars(samples, "backlog", "backlog", "changes/s"), False)
    for operation in OPERATIONS:
        yield (f"Bulk {operation.upper()}, seconds from commit to visible",
               peers_bars(samples, "bulk", f"bulk {operation}", "s"), False)


def latency_charts(samples):
    for unit in ("p50", "p99"):
        yield (f"Commit to visible, {unit}, ms (logarithmic)",
               peers_bars(samples, "latency", "commit to visible", f"ms {unit}"), True)


def scale_charts(samples):
    cases = list(dict.fromkeys(sample["case"] for sample in samples.values
                               if sample["section"] == "scale" and sample["case"].startswith("backlog")))
    for unit, title in (("changes/s", "pyreplica by size of the backlog, changes a second (open: beside an open transaction)"),
                        ("MiB peak", "the same, peak memory of the daemon, MiB")):
        yield title, [(case.removeprefix("backlog of ").replace(OPEN, ", open"),
                       samples.median("scale", case, "pyreplica", unit), OPEN not in case)
                      for case in cases], False


PLOTS = {"capture": capture_charts, "replicating": replicating_charts, "replay": replay_charts, "latency": latency_charts,
         "scale": scale_charts}
# Title, the sections of samples that it is about, the text, the plot.
SECTIONS = [
    ("Capture", ["capture"], capture, "capture.svg"),
    ("TPC-B, the triggers alone", ["tpcb"], tpcb, None),
    ("TPC-B, replicating", [replicating.SECTION], replicated, "replicating.svg"),
    ("Replay", ["backlog", "bulk"], replay, "replay.svg"),
    ("Latency", ["latency"], latency, "latency.svg"),
    ("Scale", ["scale"], scale, "scale.svg"),
    ("Many tables", [many_tables.SECTION], tables, None),
    ("Idle", ["idle"], idle, None),
    ("Switchover", ["switchover"], switchover, None),
    ("Schema changes", [schema_changes.SECTION], ddl, None),
]
