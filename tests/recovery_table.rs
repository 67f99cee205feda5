//! What a broken batch left prepared, built by hand in every state there is: recovery does what its table says, to the
//! right rows, and touches nobody else's transactions.
//!
//! Whatever is prepared on the slave writes `prepared` where a replay would write `replayed`, so the row tells which of
//! the two became of a change.

mod harness;

use harness::{Daemon, Pair, Still, wait_until};
use postgres::Client;
use pyreplica::checks::origin;
use pyreplica::names::{BatchNumber, Side};
use pyreplica::recovery::GidFamily;
use std::fs;

/// A pair that has replicated one batch, by which the master knows the slave.
fn acquainted_pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, how text);
         create table counter (n int); insert into counter values (0)",
    );
    pair.run("select py_log_create_tg('t')");
    pair.run("insert into t values (0, 'replayed')");
    once(&pair);
    pair
}

#[track_caller]
fn once(pair: &Pair) -> String {
    let finished = pair.try_once_by_file("");
    assert!(finished.status.success(), "{}", finished.output);
    finished.output
}

/// The gids of this pair's batches, as its daemon makes them.
fn family(pair: &Pair) -> GidFamily {
    family_of(pair, &pair.name, "replicated", 0)
}

/// `shift` makes the origin another one.
fn family_of(pair: &Pair, name: &str, field: &str, shift: u64) -> GidFamily {
    let identity = "select system_identifier || '/' || (select oid from pg_database where datname = current_database())
                      from pg_control_system()";
    let log = pair.on_master("select 'replica_log'::regclass::oid")[0].parse().unwrap();
    GidFamily::new(name, field, origin(&pair.on_master(identity)[0], log).wrapping_add(shift))
}

fn next_number(pair: &Pair) -> BatchNumber {
    BatchNumber(pair.on_master("select nextval('replica_batch_seq')")[0].parse().unwrap())
}

/// What the batch does on the master, without its end: number and position are noted, and all is replayed that is there.
fn note(number: BatchNumber) -> String {
    format!(
        "update replica_slave set batch = {number}, current = pg_current_snapshot(),
             last = (select max(id) from replica_log);"
    )
}

fn prepare_on_master(pair: &Pair, number: BatchNumber) {
    let gid = family(pair).gid(Side::Master, number);
    pair.run(&format!("begin; {} prepare transaction '{gid}'", note(number)));
}

fn commit_on_master(pair: &Pair, number: BatchNumber) {
    pair.run(&note(number));
}

fn prepare_on_slave(pair: &Pair, number: BatchNumber, id: i32) {
    let gid = family(pair).gid(Side::Slave, number);
    pair.run_on_slave(&format!("begin; insert into t values ({id}, 'prepared'); prepare transaction '{gid}'"));
}

fn change(pair: &Pair, id: i32) {
    pair.run(&format!("insert into t values ({id}, 'replayed')"));
}

/// How each row came to the slave.
fn slave_rows(pair: &Pair) -> Vec<String> {
    pair.on_slave("select id || ' ' || how from t where id > 0 order by id")
}

#[track_caller]
fn assert_settled(pair: &Pair) {
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
}

// == The table, row by row ==

#[test]
fn prepared_on_both_sides_is_committed_on_both() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    change(&pair, 1);
    prepare_on_master(&pair, number);
    prepare_on_slave(&pair, number, 1);
    let output = once(&pair);
    assert!(output.contains(&format!("Recovering batch {number}: prepared on both sides: commit both")), "{output}");
    assert_eq!(slave_rows(&pair), ["1 prepared"]);
    assert_settled(&pair);
}

#[test]
fn prepared_on_the_master_alone_is_rolled_back_and_replayed() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    change(&pair, 1);
    prepare_on_master(&pair, number);
    let output = once(&pair);
    assert!(output.contains("prepared on the master only: roll it back"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
    assert_settled(&pair);
}

#[test]
fn prepared_on_the_slave_and_committed_on_the_master_is_committed() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    change(&pair, 1);
    prepare_on_slave(&pair, number, 1);
    commit_on_master(&pair, number);
    let output = once(&pair);
    assert!(output.contains("committed on the master: commit on the slave"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 prepared"]);
    assert_settled(&pair);
}

#[test]
fn prepared_on_the_slave_and_rolled_back_on_the_master_is_rolled_back_and_replayed() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    change(&pair, 1);
    prepare_on_slave(&pair, number, 1);
    let output = once(&pair);
    assert!(output.contains("not committed on the master: roll back on the slave"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
    assert_settled(&pair);
}

#[test]
fn a_number_that_is_not_the_masters_is_rolled_back_whether_it_is_older_or_newer() {
    let pair = acquainted_pair();
    let (older, committed, newer) = (next_number(&pair), next_number(&pair), next_number(&pair));
    for (id, number) in [(1, older), (2, committed), (3, newer)] {
        prepare_on_slave(&pair, number, id);
    }
    commit_on_master(&pair, committed);
    for id in [1, 3] {
        change(&pair, id);
    }
    let output = once(&pair);
    assert_eq!(output.matches("not committed on the master: roll back on the slave").count(), 2, "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed", "2 prepared", "3 replayed"]);
    assert_settled(&pair);
}

#[test]
fn several_batches_in_doubt_are_each_settled_by_their_own_state() {
    let pair = acquainted_pair();
    let (late, both) = (next_number(&pair), next_number(&pair));
    prepare_on_slave(&pair, late, 1);
    change(&pair, 2);
    prepare_on_master(&pair, both);
    prepare_on_slave(&pair, both, 2);
    change(&pair, 1);
    once(&pair);
    assert_eq!(slave_rows(&pair), ["1 replayed", "2 prepared"]);
    assert_settled(&pair);
}

#[test]
fn nothing_prepared_leaves_everything_to_the_replay() {
    let pair = acquainted_pair();
    change(&pair, 1);
    let output = once(&pair);
    assert!(!output.contains("Recovering"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
    pair.assert_equal();
}

// == Other people's transactions ==

#[test]
fn transactions_that_are_not_this_pairs_are_left_alone() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    let name = &pair.name;
    let ours = family(&pair).gid(Side::Slave, number);
    let (_, digits) = ours.rsplit_once(':').unwrap();
    let foreign = [
        family_of(&pair, name, "replicated:slave", 0).gid(Side::Slave, number),
        family_of(&pair, name, "slave2", 0).gid(Side::Slave, number),
        family_of(&pair, name, "replicated", 1).gid(Side::Slave, number),
        family(&pair).gid(Side::Master, number),
        format!("pyreplica:{name}:replicated:slave:soon:{digits}"),
        format!("pyreplica:{name}:replicated:slave:{number}:{digits}:"),
        format!("PYREPLICA:{name}:replicated:slave:{number}:{digits}"),
        format!("{name}: an application's, with a quote ' in it"),
    ];
    for (id, gid) in (101..).zip(&foreign) {
        let gid = gid.replace('\'', "''");
        pair.run_on_slave(&format!("begin; insert into t values ({id}, 'foreign'); prepare transaction '{gid}'"));
    }
    pair.run(&format!("begin; create table theirs (a int); prepare transaction '{name} on the master'"));
    change(&pair, 1);
    once(&pair);
    let left = pair.on_slave("select count(*) from pg_prepared_xacts where database = current_database()");
    assert_eq!(left, [foreign.len().to_string()]);
    let on_master = pair.on_master("select gid from pg_prepared_xacts where database = current_database()");
    assert_eq!(on_master, [format!("{name} on the master")]);
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
}

#[test]
fn a_gid_of_this_pair_in_another_database_is_left_alone() {
    let (pair, elsewhere) = (acquainted_pair(), acquainted_pair());
    let gid = family(&pair).gid(Side::Slave, next_number(&pair));
    elsewhere.run_on_slave(&format!("begin; insert into t values (1, 'elsewhere'); prepare transaction '{gid}'"));
    change(&pair, 1);
    once(&pair);
    let held = "select gid from pg_prepared_xacts where database = current_database()";
    assert_eq!(elsewhere.on_slave(held), [gid]);
    pair.assert_equal();
}

/// Symptom: after a crash, a pair that was started under another NAME (or from the command line, where the database's
/// name is taken) waited for its own locks for ever; or it committed its next batch, and back under its first name it
/// rolled the old one back on the slave, though the master had committed it.
/// Cause: recovery looked for gids with its own NAME only. Nobody else reads this log for this slave, whatever the NAME.
#[test]
fn what_the_pair_left_under_a_former_name_is_settled() {
    let pair = acquainted_pair();
    for (id, step) in [(1, "master-prepared"), (2, "slave-prepared"), (3, "master-committed")] {
        change(&pair, id);
        let mut daemon = pair.start_paused_at(step);
        daemon.wait_paused();
        daemon.kill9();
        let finished = pair.try_once_by_file(&format!("NAME=renamed{id}"));
        assert!(finished.status.success(), "{}", finished.output);
        pair.assert_equal();
        assert_settled(&pair);
    }
}

// == The late one ==

/// The daemon's session on the slave: process and client port.
fn slave_backend(pair: &Pair) -> (u32, u16) {
    let sql = "select pid || ' ' || client_port from pg_stat_activity
                where datname = current_database() and client_port > 0";
    // The session of an earlier daemon may still be ending.
    wait_until("the daemon's session is the only one", || pair.on_slave(sql).len() == 1);
    let found = pair.on_slave(sql).remove(0);
    let (pid, port) = found.split_once(' ').unwrap();
    (pid.parse().unwrap(), port.parse().unwrap())
}

/// Has the server's end of this connection got bytes that nobody has read yet? Linux tells.
fn has_unread_bytes(server_port: u16, client_port: u16) -> bool {
    let text = fs::read_to_string("/proc/net/tcp").expect("Linux lists its connections");
    text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 4
            && words[1].ends_with(&format!(":{server_port:04X}"))
            && words[2].ends_with(&format!(":{client_port:04X}"))
            && !words[4].ends_with(":00000000")
    })
}

/// A daemon that dies right after it has sent the slave's last word of a batch, to a backend that stands still. Returns
/// the backend: it will do as it was told, but later.
fn die_while_the_slave_is_slow(pair: &Pair, mut daemon: Daemon) -> Still {
    daemon.wait_paused();
    let (pid, client_port) = slave_backend(pair);
    let backend = Still::make(pid);
    daemon.resume();
    wait_until("the daemon has sent its command", || has_unread_bytes(pair.slave_server().port(), client_port));
    daemon.kill9();
    backend
}

const LOAD: &str = "insert into t values (1, 'replayed');
     update counter set n = n + 1;
     insert into replica_log(sql) values ('UPDATE counter SET n = n + 1')";

#[test]
fn a_prepare_that_comes_after_its_batch_was_rolled_back_is_rolled_back_too() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let backend = die_while_the_slave_is_slow(&pair, pair.start_paused_at("master-prepared"));
    let mut daemon = pair.start();
    daemon.wait_log("prepared on the master only: roll it back");
    backend.go_on();
    daemon.wait_log("not committed on the master: roll back on the slave");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
}

#[test]
fn a_prepare_that_comes_before_anybody_looks_is_completed() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let backend = die_while_the_slave_is_slow(&pair, pair.start_paused_at("master-prepared"));
    backend.go_on();
    wait_until("the slave has prepared", || prepared(&mut pair.slave()) == 1);
    let output = once(&pair);
    assert!(output.contains("prepared on both sides: commit both"), "{output}");
    pair.assert_equal();
    assert_settled(&pair);
}

#[test]
fn a_late_prepare_that_holds_no_lock_is_found_by_the_next_connection() {
    let pair = acquainted_pair();
    pair.run_on_slave("delete from t");
    pair.run("delete from t");
    let backend = die_while_the_slave_is_slow(&pair, pair.start_paused_at("master-prepared"));
    let output = once(&pair);
    assert!(output.contains("prepared on the master only: roll it back"), "{output}");
    backend.go_on();
    wait_until("the slave has prepared", || prepared(&mut pair.slave()) == 1);
    let output = once(&pair);
    assert!(output.contains("not committed on the master: roll back on the slave"), "{output}");
    pair.assert_equal();
    assert_settled(&pair);
}

fn prepared(client: &mut Client) -> i64 {
    let sql = "select count(*) from pg_prepared_xacts where database = current_database()";
    client.query_one(sql, &[]).unwrap().get(0)
}

// == Without two-phase commit ==

const ONE_PHASE: &str = "TWO_PHASE=false";

#[test]
fn a_slave_that_is_ahead_has_its_position_noted_and_nothing_replayed() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let mut daemon = pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", "slave-committed")]);
    daemon.wait_paused();
    daemon.kill9();
    assert_ne!(pair.pending(), 0);
    let finished = pair.try_once_by_file(ONE_PHASE);
    assert!(finished.output.contains("committed on the slave: note it on the master"), "{}", finished.output);
    assert!(finished.status.success(), "{}", finished.output);
    pair.assert_equal();
    assert_settled(&pair);
}

#[test]
fn a_commit_that_comes_while_the_next_daemon_is_at_work_is_waited_for_and_seen() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let paused = pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", "noted")]);
    let backend = die_while_the_slave_is_slow(&pair, paused);
    let mut daemon = pair.start_with(ONE_PHASE);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the new daemon waits for the old one's row", || pair.on_slave(waits) == ["1"]);
    backend.go_on();
    daemon.wait_log("committed on the slave: note it on the master");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

#[test]
fn a_commit_that_comes_before_anybody_looks_is_seen() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let backend = die_while_the_slave_is_slow(&pair, pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", "noted")]));
    backend.go_on();
    wait_until("the slave has committed", || slave_rows(&pair) == ["1 replayed"]);
    let finished = pair.try_once_by_file(ONE_PHASE);
    assert!(finished.output.contains("committed on the slave: note it on the master"), "{}", finished.output);
    pair.assert_equal();
    assert_settled(&pair);
}

#[test]
fn what_two_phase_commit_left_is_settled_without_it_too() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    change(&pair, 1);
    prepare_on_master(&pair, number);
    prepare_on_slave(&pair, number, 1);
    let finished = pair.try_once_by_file(ONE_PHASE);
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(slave_rows(&pair), ["1 prepared"]);
    change(&pair, 2);
    pair.try_once_by_file(ONE_PHASE);
    change(&pair, 3);
    once(&pair);
    assert_eq!(slave_rows(&pair), ["1 prepared", "2 replayed", "3 replayed"]);
    assert_settled(&pair);
}
