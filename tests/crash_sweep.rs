//! Whatever dies, and at whichever step of the protocol: afterwards both sides are equal, nothing was replayed twice, and
//! nothing is left prepared. Each sweep goes through all steps; the daemon stands still at the step while the fault
//! happens.

use crate::harness::{Daemon, OwnCluster, Pair};
use pyreplica::for_tests::Step;

/// How often the protocol passes the step before the fault: the first batch ever, and one that finds numbers and rows of
/// an earlier one.
const TURNS: [u32; 2] = [1, 2];

/// A pair with tables in which a change that is lost or replayed twice shows.
fn prepared_pair(pair: Pair) -> Pair {
    pair.exec_both(
        "create table t (id int primary key, a int, b text);
         create table counter (n int); insert into counter values (0)",
    );
    pair.run("select py_log_create_tg('t')");
    pair
}

/// One transaction with everything in it. The counter has no trigger: a free statement counts on the slave, and a second
/// replay of it would be seen, whereas a row that is set to the same value twice would not.
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
    for step in Step::ALL {
        for turn in TURNS {
            let mut daemon = pair.start_paused_at(&format!("{step}:{turn}"));
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
            pair.assert_no_prepared();
            let status = daemon.terminate();
            assert!(status.success(), "{step}: {status}");
        }
    }
    assert_eq!(pair.logged(), 0);
}

#[test]
fn the_daemon_may_be_killed_at_every_step() {
    let pair = prepared_pair(Pair::new());
    sweep(&pair, |mut daemon| {
        daemon.kill9();
        load(&pair);
        pair.start()
    });
}

#[test]
fn the_connection_to_the_master_may_break_at_every_step() {
    let mut pair = prepared_pair(Pair::new());
    let [master, _slave] = pair.put_behind_forwarders();
    sweep(&pair, |daemon| {
        master.cut();
        daemon.resume();
        daemon
    });
}

#[test]
fn the_connection_to_the_slave_may_break_at_every_step() {
    let mut pair = prepared_pair(Pair::new());
    let [_master, slave] = pair.put_behind_forwarders();
    sweep(&pair, |daemon| {
        slave.cut();
        daemon.resume();
        daemon
    });
}

#[test]
fn the_master_may_crash_at_every_step() {
    let mut master = OwnCluster::start("master", "", &[]);
    let slave = OwnCluster::start("slave", "", &[]);
    let pair = prepared_pair(Pair::on(master.server(), slave.server()));
    sweep(&pair, |daemon| {
        master.stop_immediate();
        daemon.resume();
        master.start_again();
        daemon
    });
}

#[test]
fn the_slave_may_crash_at_every_step() {
    let master = OwnCluster::start("master", "", &[]);
    let mut slave = OwnCluster::start("slave", "", &[]);
    let pair = prepared_pair(Pair::on(master.server(), slave.server()));
    sweep(&pair, |daemon| {
        slave.stop_immediate();
        daemon.resume();
        slave.start_again();
        daemon
    });
}

#[test]
fn both_servers_may_crash_at_once_at_every_step_and_the_daemon_with_them() {
    let mut master = OwnCluster::start("master", "", &[]);
    let mut slave = OwnCluster::start("slave", "", &[]);
    let pair = prepared_pair(Pair::on(master.server(), slave.server()));
    sweep(&pair, |mut daemon| {
        daemon.kill9();
        master.restart();
        slave.restart();
        pair.start()
    });
}
