//! Wake-ups: writers are silent while the daemon is awake and signal while it sleeps, and whatever they do while it falls
//! asleep or wakes up, no change is missed. In all these tests the time-out comes after an hour: a change that arrives was
//! either signalled or seen in time.

use crate::harness::{Daemon, Pair, wait_until};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

const CONFIG: &str = "TIMEOUT=3600\nDEBUG_LEVEL=3\n";

const PAUSE: &str = "PYREPLICA_PAUSE_AT";

/// The steps of falling asleep and waking up at which the daemon holds its lock, so writers signal.
const LOUD: [&str; 4] = ["lying", "looked", "woken", "lying:2"];

/// Those at which it does not.
const SILENT: [&str; 2] = ["drained", "risen"];

/// What one transaction does; each leaves the row @.
const WRITES: [&str; 6] = [
    "insert into t values (@)",
    "savepoint a; insert into t values (@); release a",
    "savepoint a; insert into t values (@); rollback to a; insert into t values (@)",
    "insert into t values (@); savepoint a; insert into t values (-@); rollback to a",
    "savepoint a; savepoint b; insert into t values (-@); rollback to b; insert into t values (@); release a",
    "insert into replica_log(sql) values ('INSERT INTO t VALUES (@)'); set local session_replication_role = replica; \
     insert into t values (@)",
];

fn new_pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key)");
    pair.create_triggers();
    pair
}

/// A daemon that stands still at a step of falling asleep or waking up.
fn still_at(pair: &Pair, step: &str) -> Daemon {
    let mut daemon = pair.start_in(CONFIG, &[(PAUSE, step)]);
    let wakes = match step {
        // It replays that while it has the lock still.
        "woken" | "lying:2" => Some("insert into t values (0)"),
        // It takes longer for that.
        "risen" => Some("insert into t select -i from generate_series(1000, 40000) i"),
        _ => None,
    };
    if let Some(change) = wakes {
        daemon.wait_log("Waiting for 'NOTIFY'");
        pair.run(change);
    }
    daemon.wait_paused();
    daemon
}

#[track_caller]
fn wait_idle(daemon: &Daemon) {
    wait_until("the daemon waits", || daemon.log().trim_end().ends_with("Waiting for 'NOTIFY'"));
}

#[track_caller]
fn wait_polling(daemon: &Daemon) {
    wait_until("the daemon looks again and again", || daemon.log().trim_end().ends_with("looking again soon"));
}

#[track_caller]
fn arrives(pair: &Pair) {
    pair.wait_caught_up();
    pair.assert_equal();
    pair.assert_no_prepared();
}

/// Begins a transaction and leaves it open.
#[track_caller]
fn begin(pair: &Pair, number: usize, write: &str) -> Client {
    let mut writer = pair.master();
    writer.batch_execute("begin").unwrap();
    writer.batch_execute(&numbered(write, number)).unwrap();
    writer
}

fn numbered(write: &str, number: usize) -> String {
    write.replace('@', &number.to_string())
}

/// Prepares a transaction, if it has not signalled: PostgreSQL refuses one that has.
fn prepare(writer: &mut Client, gid: &str) -> bool {
    match writer.batch_execute(&format!("prepare transaction '{gid}'")) {
        Ok(()) => true,
        Err(error) => {
            let detail = format!("{error:?}");
            assert!(
                detail.contains("cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"),
                "{detail}"
            );
            false
        }
    }
}

/// Whether a writer would signal now.
#[track_caller]
fn is_loud(pair: &Pair) -> bool {
    let gid = format!("{} probe", pair.name);
    let mut writer = begin(pair, 1000, WRITES[0]);
    let is_silent = prepare(&mut writer, &gid);
    if is_silent {
        writer.batch_execute(&format!("rollback prepared '{gid}'")).unwrap();
    }
    !is_silent
}

#[test]
fn writers_signal_only_while_the_daemon_lies_and_what_they_commit_meanwhile_arrives() {
    for step in LOUD.into_iter().chain(SILENT) {
        let pair = new_pair();
        let daemon = still_at(&pair, step);
        assert_eq!(is_loud(&pair), LOUD.contains(&step), "{step}");
        pair.run("insert into t values (1)");
        daemon.resume();
        arrives(&pair);
        wait_idle(&daemon);
        pair.run("insert into t values (2)");
        arrives(&pair);
    }
}

#[test]
fn what_is_written_while_the_daemon_falls_asleep_and_committed_later_arrives() {
    for (step, turn) in LOUD.into_iter().chain(SILENT).zip(0..) {
        let pair = new_pair();
        let daemon = still_at(&pair, step);
        let mut open: Vec<Client> = WRITES.iter().zip(1..).map(|(write, number)| begin(&pair, number, write)).collect();
        let mut last = open.remove(turn);
        daemon.resume();
        for mut writer in open {
            writer.batch_execute("commit").unwrap();
        }
        // The one that is still open keeps the daemon awake if it is silent; otherwise the daemon may sleep.
        if LOUD.contains(&step) {
            wait_idle(&daemon)
        } else {
            wait_polling(&daemon)
        }
        last.batch_execute("commit").unwrap();
        arrives(&pair);
        wait_idle(&daemon);
        pair.run("insert into t values (100)");
        arrives(&pair);
    }
}

#[test]
fn a_prepared_transaction_keeps_the_daemon_awake_and_arrives_when_it_is_committed() {
    let pair = new_pair();
    let mut daemon = still_at(&pair, "drained");
    let gid = format!("{} application", pair.name);
    assert!(prepare(&mut begin(&pair, 1, WRITES[0]), &gid));
    daemon.resume();
    wait_polling(&daemon);
    pair.run("insert into t values (2)");
    wait_until("another one's change arrives", || pair.on_slave("select id from t") == ["2"]);
    // Not forgotten by a daemon that has just been started.
    assert!(daemon.terminate().success());
    let daemon = pair.start_with(CONFIG);
    wait_polling(&daemon);
    pair.run(&format!("commit prepared '{gid}'"));
    arrives(&pair);
    wait_idle(&daemon);
    // Asleep, PostgreSQL refuses unless the application has switched signals off.
    let mut loud = begin(&pair, 3, WRITES[0]);
    assert!(!prepare(&mut loud, &gid));
    loud.batch_execute("set pyreplica.notify = off; begin; insert into t values (4)").unwrap();
    assert!(prepare(&mut loud, &gid));
    loud.batch_execute(&format!("commit prepared '{gid}'")).unwrap();
    // A loud one after it brings both.
    pair.run("insert into t values (5)");
    arrives(&pair);
}

#[test]
fn nobody_signals_to_a_daemon_that_was_killed_in_its_sleep_or_that_polls() {
    let pair = new_pair();
    let mut daemon = pair.start_with(CONFIG);
    wait_idle(&daemon);
    assert!(is_loud(&pair));
    daemon.kill9();
    wait_until("the server has noticed", || !is_loud(&pair));
    pair.run("insert into t values (1)");
    let mut daemon = pair.start_with(&format!("{CONFIG}POLL=1\n"));
    arrives(&pair);
    daemon.wait_log_times("Waiting to poll", 2);
    assert!(!is_loud(&pair));
    assert!(daemon.terminate().success());
    let daemon = pair.start_with(CONFIG);
    wait_idle(&daemon);
    assert!(is_loud(&pair));
    pair.run("insert into t values (2)");
    arrives(&pair);
}

/// A column that was added by hand, as the original's documentation says, is none that the trigger knows.
#[test]
fn the_trigger_learns_a_slave_that_was_added_by_hand_as_soon_as_nobody_writes() {
    let (pair, other) = (new_pair(), new_pair());
    pair.run("alter table replica_log add column slave2 boolean not null default false");
    pair.run("create index on replica_log (id) where not slave2");
    let mut open = begin(&pair, 1, WRITES[0]);
    let daemon = other.start_with(&format!("{CONFIG}DSN0={}\nSLAVE_FIELD=slave2\n", pair.master_dsn));
    wait_polling(&daemon);
    pair.run("insert into t values (2)");
    let arrived = |rows: &str| {
        wait_until("it arrives", || other.on_slave("select string_agg(id::text, ' ' order by id) from t") == [rows])
    };
    arrived("2");
    open.batch_execute("commit").unwrap();
    arrived("1 2");
    wait_idle(&daemon);
    assert!(is_loud(&pair));
    // Also to a session that had another plan for the question.
    open.batch_execute("insert into t values (3)").unwrap();
    arrived("1 2 3");
    wait_idle(&daemon);
    pair.run("select py_log_remove_slave('slave2')");
    assert!(!is_loud(&pair));
}

#[test]
fn a_change_that_was_recovered_wakes_the_next_slave_of_a_cascade() {
    let (first, second) = (new_pair(), new_pair());
    second.run("alter table t enable always trigger \"!replica_tg\"");
    let next = second.start_with(CONFIG);
    wait_idle(&next);
    let lines = format!("{CONFIG}DSN1={}\n", second.master_dsn);
    let mut dying = first.start_in(&lines, &[(PAUSE, "slave-committed")]);
    first.run("insert into t values (1)");
    dying.wait_paused();
    dying.kill9();
    let _again = first.start_with(&lines);
    wait_until("the last one has it", || second.on_slave("select id from t") == ["1"]);
}

/// How long the stress goes on, longer if it must for these rounds, and who writes.
const STRESS: Duration = Duration::from_secs(16);
const FEWEST_ROUNDS: usize = 30;
const WRITERS: usize = 4;

const QUIET: &str = "TIMEOUT=3600\nDEBUG_LEVEL=1\n";

#[test]
fn no_change_is_missed_however_commits_and_the_daemons_naps_coincide() {
    let pair = new_pair();
    let _daemon = pair.start_with(QUIET);
    stress(&pair, "replicated");
}

#[test]
fn no_change_is_missed_by_two_slaves_that_sleep_at_moments_of_their_own() {
    let (pair, other) = (new_pair(), new_pair());
    pair.run("select py_log_add_slave('slave2')");
    let _one = pair.start_with(QUIET);
    let _two = other.start_with(&format!("{QUIET}DSN0={}\nSLAVE_FIELD=slave2\n", pair.master_dsn));
    stress(&pair, "replicated and slave2");
    wait_until("the second slave has committed", || {
        let sum = "select count(*)::text || ' ' || sum(id) from t";
        other.on_slave(sum) == pair.on_master(sum)
    });
}

/// Daemons fall asleep again and again while writers commit, prepare and roll back. Nobody writes after a round, so nothing
/// makes up for a wake-up that got lost.
fn stress(pair: &Pair, replayed: &str) {
    let mut writers: Vec<Client> = (0..WRITERS).map(|_| pair.master()).collect();
    let (mut watcher, end) = (pair.master(), Instant::now() + STRESS);
    let left = format!("select from replica_log where not ({replayed}) limit 1");
    let mut rounds = 0;
    while rounds < FEWEST_ROUNDS || Instant::now() < end {
        rounds += 1;
        // Few of them in most rounds: the last commit of a round is the one that may be missed.
        let busy = [1, 1, 2, WRITERS][Dice(rounds as u64).throw(4)];
        thread::scope(|scope| {
            for (number, writer) in writers.iter_mut().enumerate().take(busy) {
                let mut dice = Dice((rounds * WRITERS + number) as u64);
                let (first, name) = ((rounds * WRITERS + number) * 10, &pair.name);
                scope.spawn(move || (0..2 + dice.throw(2)).for_each(|n| write(writer, first + n, name, &mut dice)));
            }
        });
        wait_watching("every slave has everything", || watcher.query(&left, &[]).unwrap().is_empty());
    }
    arrives(pair);
    let changes: u64 = pair.on_master("select count(*) from t")[0].parse().unwrap();
    eprintln!("{rounds} rounds, {changes} changes");
    assert!(changes > 40, "{changes} changes in {rounds} rounds");
}

/// One transaction, after a moment in which the daemon replays the one before, or falls asleep.
fn write(writer: &mut Client, number: usize, name: &str, dice: &mut Dice) {
    thread::sleep(Duration::from_micros(dice.throw(12_000) as u64));
    writer.batch_execute("begin").unwrap();
    writer.batch_execute(&numbered(WRITES[dice.throw(WRITES.len())], number)).unwrap();
    if dice.throw(4) == 0 {
        thread::sleep(Duration::from_micros(dice.throw(2000) as u64));
    }
    let gid = format!("{name} {number}");
    match dice.throw(5) {
        0 => writer.batch_execute("rollback").unwrap(),
        1 if prepare(writer, &gid) => writer.batch_execute(&format!("commit prepared '{gid}'")).unwrap(),
        1 => {}
        _ => writer.batch_execute("commit").unwrap(),
    }
}

/// As `wait_until`, without its pauses, which would outlast a round.
#[track_caller]
fn wait_watching(what: &str, mut reached: impl FnMut() -> bool) {
    let soon = Instant::now() + Duration::from_secs(1);
    while !reached() {
        if Instant::now() > soon {
            return wait_until(what, reached);
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// Chance that repeats itself: a linear congruential generator.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}
