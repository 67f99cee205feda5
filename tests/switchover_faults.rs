//! A switchover that is stopped at each of its steps, by whatever dies there: afterwards exactly one database is the master and
//! accepts writes, both sides are equal, nothing is lost, and nothing is left prepared.

use crate::harness::switching::{MODES, master_said, refuses, roles, session, switch, switched, wait_equal};
use crate::harness::{Daemon, Forwarder, OwnCluster, Pair, Server, wait_until};
use std::thread;

/// The steps, and whether the verb comes there only with two-phase commit. The first exchange ever is stopped between its commits:
/// neither side has said anything before.
const STEPS: [(&str, bool); 9] = [
    ("switch old committed", false),
    ("switch locked", false),
    ("switch drained", false),
    ("switch slave noted", false),
    ("switch noted", false),
    ("switch old prepared", true),
    ("switch prepared", true),
    ("switch old committed", false),
    ("switch committed", true),
];

/// Nothing is written or prepared before these: they differ only for the verb itself.
const EARLY: [&str; 2] = ["switch locked", "switch slave noted"];

/// The two servers, a pair on them, and what was written so far.
struct Setting {
    clusters: [OwnCluster; 2],
    pair: Pair,
    mode: &'static str,
    rows: i64,
}

/// What dies while the verb stands still at a step. It returns the verb, which may go on, and the daemon.
type Fault = fn(&mut Setting, usize, Daemon, Daemon) -> Daemon;

impl Setting {
    #[track_caller]
    fn new(mode: &'static str) -> Setting {
        let [master, slave] = ["master", "slave"].map(|label| thread::spawn(|| OwnCluster::start(label, "", &[])));
        let clusters = [master, slave].map(|starting| starting.join().expect("it starts"));
        let pair = Pair::on(clusters[0].server(), clusters[1].server());
        pair.exec_both("create table t (id int primary key, a text)");
        pair.create_triggers();
        pair.run("insert into t values (0, 'first')");
        pair.once_with(mode);
        Setting { clusters, pair, mode, rows: 1 }
    }

    /// The database that is the master. Before the first exchange neither says so, and it is that of DSN0. None if an exchange
    /// was interrupted.
    fn master(&self) -> Option<usize> {
        let has_roles = |side| !roles(&mut session(&self.pair, side)).is_empty();
        master_said(&self.pair).or_else(|| (!has_roles(0)).then_some(0))
    }

    /// A row on the master, whichever side that is. It tries until it is accepted: who waits for a lock of a prepared transaction
    /// goes on when that ends.
    #[track_caller]
    fn write(&mut self) -> usize {
        let insert = format!("set lock_timeout = '1s'; insert into t values ({}, 'new')", self.rows);
        let mut master = None;
        wait_until("a write on the master works", || {
            master = self.master();
            master.is_some_and(|side| session(&self.pair, side).batch_execute(&insert).is_ok())
        });
        self.rows += 1;
        master.expect("a master")
    }

    #[track_caller]
    fn assert_settled(&mut self, at: &str, daemon: Daemon) -> Daemon {
        let mut daemon = daemon;
        if !self.mode.is_empty() && self.master().is_none() {
            // Only the verb finishes that.
            let finished = switch(&self.pair, self.mode, &[]);
            assert!(finished.status.success(), "{at}: {}", finished.output);
        }
        let master = self.write();
        wait_equal(&self.pair);
        assert_eq!(self.pair.on_master("select count(*) from t"), [self.rows.to_string()], "{at}");
        if !roles(&mut session(&self.pair, 1 - master)).is_empty() {
            refuses(&self.pair, 1 - master, "insert into t values (-1, 'refused')");
        }
        assert!(daemon.terminate().success(), "{at}");
        daemon
    }
}

/// Goes to every step, in both directions as it comes, and lets `fault` happen there.
#[track_caller]
fn sweep(mode: &'static str, fault: Fault) {
    let mut setting = Setting::new(mode);
    let mut forwarders: Option<[Forwarder; 2]> = None;
    for (step, two_phase) in STEPS {
        let is_early = EARLY.contains(&step) && !std::ptr::fn_addr_eq(fault, kill_verb as Fault);
        if two_phase && !mode.is_empty() || is_early {
            continue;
        }
        let master = setting.master().expect("a master");
        eprintln!("-- {mode} at {step}, the master is {master}");
        let daemon = setting.pair.start_with(mode);
        setting.write();
        let lines = match std::ptr::fn_addr_eq(fault, cut as Fault) {
            true => {
                let through = setting.clusters.each_ref().map(|cluster| Forwarder::to(cluster.server().port()));
                let dbs = [setting.pair.master_db(), setting.pair.slave_db()];
                let dsn = [0, 1].map(|side| Server::dsn_at(through[side].port(), &dbs[side]));
                forwarders = Some(through);
                format!("{mode}\nDSN0={}\nDSN1={}", dsn[0], dsn[1])
            }
            false => mode.to_string(),
        };
        let mut verb = setting.pair.start_verb("switchover", &lines, &[], &[("PYREPLICA_PAUSE_AT", step)]);
        verb.wait_paused();
        forwarders.iter().flatten().for_each(Forwarder::cut);
        let daemon = fault(&mut setting, master, verb, daemon);
        setting.assert_settled(step, daemon);
    }
    // Whatever has happened, the next exchanges work.
    let mut daemon = setting.pair.start_with(mode);
    for _ in 0..2 {
        switched(&setting.pair, mode, &[]);
        setting.write();
        wait_equal(&setting.pair);
    }
    assert!(daemon.terminate().success());
}

/// A daemon that is started anew settles what it finds.
fn again(setting: &Setting, mut daemon: Daemon) -> Daemon {
    daemon.terminate();
    setting.pair.start_with(setting.mode)
}

fn kill_verb(setting: &mut Setting, _: usize, mut verb: Daemon, daemon: Daemon) -> Daemon {
    verb.kill9();
    again(setting, daemon)
}

/// The next daemon comes, and settles what it finds, before the verb goes on.
fn kill_daemon(setting: &mut Setting, _: usize, mut verb: Daemon, mut daemon: Daemon) -> Daemon {
    daemon.kill9();
    let mut daemon = setting.pair.start_with(setting.mode);
    daemon.wait_log("Encoding for this connections");
    verb.resume();
    verb.wait_exit();
    daemon
}

/// Ctrl-C.
fn interrupt(setting: &mut Setting, _: usize, mut verb: Daemon, daemon: Daemon) -> Daemon {
    verb.signal("INT");
    verb.resume();
    verb.wait_exit();
    again(setting, daemon)
}

fn crash(setting: &mut Setting, side: usize, mut verb: Daemon, daemon: Daemon) -> Daemon {
    setting.clusters[side].stop_immediate();
    verb.resume();
    verb.wait_exit();
    setting.clusters[side].start_again();
    again(setting, daemon)
}

fn crash_old(setting: &mut Setting, master: usize, verb: Daemon, daemon: Daemon) -> Daemon {
    crash(setting, master, verb, daemon)
}

fn crash_new(setting: &mut Setting, master: usize, verb: Daemon, daemon: Daemon) -> Daemon {
    crash(setting, 1 - master, verb, daemon)
}

/// The verb's connections are cut already.
fn cut(setting: &mut Setting, _: usize, mut verb: Daemon, daemon: Daemon) -> Daemon {
    verb.resume();
    verb.wait_exit();
    again(setting, daemon)
}

#[test]
fn the_verb_may_be_killed_at_every_step() {
    MODES.into_iter().for_each(|mode| sweep(mode, kill_verb));
}

#[test]
fn the_daemon_may_be_killed_at_every_step_and_another_settles_what_it_finds() {
    MODES.into_iter().for_each(|mode| sweep(mode, kill_daemon));
}

#[test]
fn somebody_may_stop_the_verb_at_every_step() {
    sweep("", interrupt);
}

#[test]
fn the_old_master_may_crash_at_every_step() {
    MODES.into_iter().for_each(|mode| sweep(mode, crash_old));
}

#[test]
fn the_new_master_may_crash_at_every_step() {
    MODES.into_iter().for_each(|mode| sweep(mode, crash_new));
}

#[test]
fn the_connections_of_the_verb_may_break_at_every_step() {
    sweep("", cut);
}

/// Writers wait for what the dead verb has prepared. The daemon has nothing to do and would look only at its TIMEOUT.
#[test]
fn beside_an_idle_daemon_the_verb_that_is_run_again_has_settled_what_the_dead_one_left() {
    let mut setting = Setting::new("TIMEOUT=600");
    let daemon = setting.pair.start_with(setting.mode);
    setting.write();
    wait_equal(&setting.pair);
    let mut verb =
        setting.pair.start_verb("switchover", setting.mode, &[], &[("PYREPLICA_PAUSE_AT", "switch prepared")]);
    verb.wait_paused();
    verb.kill9();
    let finished = switch(&setting.pair, setting.mode, &[]);
    assert!(finished.status.success(), "{}", finished.output);
    setting.assert_settled("switch prepared", daemon);
}
