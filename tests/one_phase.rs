//! Without two-phase commit, on servers that cannot prepare a transaction at all, a change is still replayed exactly once,
//! whatever dies and at whichever step.

use crate::harness::{Daemon, OwnCluster, Pair};
use pyreplica::for_tests::Step;

const ONE_PHASE: &str = "TWO_PHASE=false";

/// The steps there are without PREPARE.
const STEPS: [Step; 5] = [Step::Begun, Step::Replayed, Step::Noted, Step::SlaveCommitted, Step::MasterCommitted];

/// How often the protocol passes the step before the fault.
const TURNS: [u32; 2] = [1, 2];

/// The counter has no trigger: a free statement counts on the slave, so a second replay shows.
const TABLES: &str = "create table t (id int primary key, a int, b text);
     create table counter (n int); insert into counter values (0)";

fn start_servers() -> [OwnCluster; 2] {
    ["master", "slave"].map(|label| OwnCluster::start(label, "max_prepared_transactions = 0", &[]))
}

fn prepared_pair(servers: &[OwnCluster; 2]) -> Pair {
    let pair = Pair::on(servers[0].server(), servers[1].server());
    pair.exec_both(TABLES);
    pair.run("select py_log_create_tg('t')");
    pair
}

fn load(pair: &Pair) {
    pair.run(
        "insert into t select coalesce(max(id), 0) + i, i, 'new' from t, generate_series(1, 20) i group by i;
         update t set a = a + 1, b = b || '.' where id % 3 = 0;
         delete from t where id % 7 = 0;
         update counter set n = n + 1;
         insert into replica_log(sql) values ('UPDATE counter SET n = n + 1')",
    );
}

/// Runs to every step at every turn and lets `fault` happen there. It leaves a daemon that is to catch up.
#[track_caller]
fn sweep(pair: &Pair, mut fault: impl FnMut(Daemon) -> Daemon) {
    for step in STEPS {
        for turn in TURNS {
            let mut daemon = pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", &format!("{step}:{turn}"))]);
            for _ in 1..turn {
                load(pair);
                pair.wait_caught_up();
            }
            load(pair);
            daemon.wait_paused();
            eprintln!("-- at {step}, turn {turn}");
            let mut daemon = fault(daemon);
            load(pair);
            pair.wait_caught_up();
            pair.assert_equal();
            let status = daemon.terminate();
            assert!(status.success(), "{step}: {status}");
        }
    }
    assert_eq!(pair.logged(), 0);
}

#[test]
fn the_daemon_may_be_killed_at_every_step() {
    let servers = start_servers();
    let pair = prepared_pair(&servers);
    sweep(&pair, |mut daemon| {
        daemon.kill9();
        load(&pair);
        pair.start_with(ONE_PHASE)
    });
}

#[test]
fn the_connections_may_break_at_every_step() {
    let servers = start_servers();
    let mut pair = prepared_pair(&servers);
    let forwarders = pair.put_behind_forwarders();
    for forwarder in &forwarders {
        sweep(&pair, |daemon| {
            forwarder.cut();
            daemon.resume();
            daemon
        });
    }
}

#[test]
fn both_servers_may_crash_at_every_step() {
    let servers = start_servers();
    let pair = prepared_pair(&servers);
    let [mut master, mut slave] = servers;
    sweep(&pair, |daemon| {
        slave.stop_immediate();
        master.restart();
        daemon.resume();
        slave.start_again();
        daemon
    });
}

/// Drains until the step and is killed there; false if it ended without having come to the step.
fn dies_at(pair: &Pair, lines: &str, step: Step) -> bool {
    let config = pair.config_file(lines);
    let arguments = ["--once", config.to_str().unwrap()];
    let log = pair.dir().join("dies.log");
    let mut daemon = Daemon::spawn(&log, &arguments, &[("PYREPLICA_PAUSE_AT", &step.to_string())]);
    let paused = daemon.paused_or_exited();
    if paused {
        daemon.kill9();
    }
    paused
}

#[test]
fn a_batch_of_several_transactions_and_a_huge_one_are_noted_from_the_progress_row() {
    let servers = start_servers();
    let pair = prepared_pair(&servers);
    let mut far = pair.master();
    far.batch_execute("begin; insert into t values (-1, 0, 'far')").unwrap();
    pair.run("insert into t select i, i, 'large' from generate_series(1, 45000) i");
    far.batch_execute("update t set b = 'far' where id = 3; commit").unwrap();
    for _ in 0..3 {
        load(&pair);
    }
    // One batch after the other, until there is none, each with its position lost on the master.
    let lines = "TWO_PHASE=false\nDEBUG_LEVEL=1";
    let mut lost = 0;
    while dies_at(&pair, lines, Step::SlaveCommitted) {
        lost += 1;
    }
    assert!(lost >= 2, "{lost}");
    pair.assert_equal();
    assert_eq!(pair.logged(), 0);
}
