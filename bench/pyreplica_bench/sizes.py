"""How large a run is."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    # Capture: rows of one single-row loop and of one bulk statement, and how often.
    single_rows: int = 20_000
    single_rounds: int = 5
    bulk_rows: int = 100_000
    bulk_rounds: int = 3
    # TPC-B: pgbench's scale, seconds of one run, clients.
    tpcb_scale: int = 10
    tpcb_seconds: int = 12
    tpcb_rounds: int = 3
    tpcb_clients: tuple = (1, 8)
    # Replay: transactions of the backlog, rows of a bulk statement, transactions whose latency is measured.
    backlog: int = 100_000
    replay_bulk_rows: int = 200_000
    latency_transactions: int = 300
    replay_rounds: int = 3
    # Scale, of pyreplica alone. Changes of `spread` are spread over tables, slaves or pairs.
    scale_backlogs: tuple = (10_000, 100_000, 1_000_000)
    spread: int = 50_000
    scale_tables: tuple = (1, 10, 100, 1000)
    scale_slaves: tuple = (1, 2, 4, 8)
    scale_pairs: tuple = (1, 10, 100)
    # Idle: seconds of doing nothing, after so many to settle.
    idle_seconds: int = 60
    settle_seconds: int = 10
    # Switchover: how often the roles are exchanged, seconds in between, clients, their transactions a second together, tables.
    switchovers: int = 10
    switchover_pause: int = 5
    switchover_clients: int = 8
    switchover_rate: int = 1000
    switchover_tables: int = 100
    # Schema changes: how often each statement is executed in a round.
    schema_changes: int = 200
    # Many tables: how many the verbs look at.
    many_tables: tuple = (1_000, 10_000)
    # How long a peer may take for one measurement before it is given up, in seconds.
    patience: int = 300


DEFAULT = Sizes()
QUICK = Sizes(
    single_rows=2_000, single_rounds=1, bulk_rows=5_000, bulk_rounds=1,
    tpcb_scale=2, tpcb_seconds=2, tpcb_rounds=1,
    backlog=2_000, replay_bulk_rows=5_000, latency_transactions=40, replay_rounds=1,
    scale_backlogs=(1_000, 10_000), spread=2_000, scale_tables=(1, 20), scale_slaves=(1, 2), scale_pairs=(1, 5),
    switchovers=2, switchover_pause=2, switchover_clients=4, switchover_rate=200, switchover_tables=10, schema_changes=10, many_tables=(20, 200),
    idle_seconds=5, settle_seconds=2, patience=90)


def choose(quick, full, rounds):
    sizes = QUICK if quick else DEFAULT
    if full:
        sizes = replace(sizes, scale_backlogs=sizes.scale_backlogs + (10_000_000,), patience=7200)
    if rounds:
        sizes = replace(sizes, single_rounds=rounds, bulk_rounds=rounds, tpcb_rounds=rounds, replay_rounds=rounds)
    return sizes
