//! What a broken batch left prepared, built by hand in every state there is: recovery does what its table says, to the
//! right rows, and touches nobody else's transactions.
//!
//! Whatever is prepared on the slave writes `prepared` where a replay would write `replayed`, so the row tells which of
//! the two became of a change.

use crate::harness::{Pair, acquainted_pair, wait_until};
use postgres::Client;
use pyreplica::for_tests::{BatchNumber, GidFamily, Side, origin};

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

/// Each batch's own, as the daemon draws one at random.
fn token(number: BatchNumber) -> String {
    format!("{:032x}", number.0 + 0x1000)
}

fn gid(pair: &Pair, side: Side, number: BatchNumber) -> String {
    // A gid shows the first half of a token.
    family(pair).gid(side, number, &format!("{}{}", &token(number)[16..], &token(number)[..16]))
}

/// What the batch does on the master, without its end: number and position are noted, and all is replayed that is there.
fn note(number: BatchNumber) -> String {
    let token = token(number);
    format!(
        "update replica_slave set batch = {number}, token = '{0}{1}', current = pg_current_snapshot(),
             last = (select max(id) from replica_log);",
        &token[16..],
        &token[..16]
    )
}

/// The same on the slave, which keeps the position as text.
fn note_on_slave(pair: &Pair, number: BatchNumber) -> String {
    let token = token(number);
    let position = pair
        .on_master("select '- ' || pg_current_snapshot() || ' ' || max(id) || ' ' || max(id) || ' 0' from replica_log");
    let (token, position) = (format!("{}{}", &token[16..], &token[..16]), &position[0]);
    format!("update replica_progress set batch = {number}, token = '{token}', position = '{position}';")
}

fn prepare_on_master(pair: &Pair, number: BatchNumber) {
    let gid = gid(pair, Side::Master, number);
    pair.run(&format!("begin; {} prepare transaction '{gid}'", note(number)));
}

fn commit_on_master(pair: &Pair, number: BatchNumber) {
    pair.run(&note(number));
}

fn prepare_on_slave(pair: &Pair, number: BatchNumber, id: i32) {
    let (gid, note) = (gid(pair, Side::Slave, number), note_on_slave(pair, number));
    pair.run_on_slave(&format!("begin; insert into t values ({id}, 'prepared'); {note} prepare transaction '{gid}'"));
}

/// Of several only one can have the slave's row: what all that are rolled back have written does not matter.
fn prepare_late_on_slave(pair: &Pair, number: BatchNumber, id: i32) {
    let gid = gid(pair, Side::Slave, number);
    pair.run_on_slave(&format!("begin; insert into t values ({id}, 'prepared'); prepare transaction '{gid}'"));
}

fn commit_on_slave(pair: &Pair, number: BatchNumber, id: i32) {
    let note = note_on_slave(pair, number);
    pair.run_on_slave(&format!("begin; insert into t values ({id}, 'prepared'); {note} commit"));
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
    let output = pair.once_with("");
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
    let output = pair.once_with("");
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
    let output = pair.once_with("");
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
    let output = pair.once_with("");
    assert!(output.contains("not committed on the master: roll back on the slave"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
    assert_settled(&pair);
}

/// Symptom: a backup of the master from between PREPARE and COMMIT was restored later: the batch was replayed twice.
/// Cause: what was prepared on the master alone was rolled back, whatever the slave had committed.
#[test]
fn prepared_on_the_master_and_committed_on_the_slave_is_committed() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    change(&pair, 1);
    commit_on_slave(&pair, number, 1);
    prepare_on_master(&pair, number);
    let output = pair.once_with("");
    assert!(output.contains("committed on the slave: commit on the master"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 prepared"]);
    assert_settled(&pair);
}

#[test]
fn a_number_that_is_not_the_masters_is_rolled_back_whether_it_is_older_or_newer() {
    let pair = acquainted_pair();
    let (older, committed, newer) = (next_number(&pair), next_number(&pair), next_number(&pair));
    for (id, number) in [(1, older), (3, newer)] {
        prepare_late_on_slave(&pair, number, id);
    }
    prepare_on_slave(&pair, committed, 2);
    commit_on_master(&pair, committed);
    for id in [1, 3] {
        change(&pair, id);
    }
    let output = pair.once_with("");
    assert_eq!(output.matches("not committed on the master: roll back on the slave").count(), 2, "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed", "2 prepared", "3 replayed"]);
    assert_settled(&pair);
}

#[test]
fn several_batches_in_doubt_are_each_settled_by_their_own_state() {
    let pair = acquainted_pair();
    let (late, both) = (next_number(&pair), next_number(&pair));
    prepare_late_on_slave(&pair, late, 1);
    change(&pair, 2);
    prepare_on_master(&pair, both);
    prepare_on_slave(&pair, both, 2);
    change(&pair, 1);
    pair.once_with("");
    assert_eq!(slave_rows(&pair), ["1 replayed", "2 prepared"]);
    assert_settled(&pair);
}

#[test]
fn nothing_prepared_leaves_everything_to_the_replay() {
    let pair = acquainted_pair();
    change(&pair, 1);
    let output = pair.once_with("");
    assert!(!output.contains("Recovering"), "{output}");
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
    pair.assert_equal();
}

// == Settled by hand while the daemon is about to do so ==

/// Symptom: the daemon said that it cannot replay the transaction, which the slave might have got already; with
/// ON_ERROR=quarantine it would have put that one aside.
#[test]
fn a_batch_that_somebody_has_settled_by_hand_is_told_as_such_and_replayed_once() {
    for by_master in [true, false] {
        for command in ["commit", "rollback"] {
            let pair = acquainted_pair();
            let mut daemon = pair.start_in("ON_ERROR=quarantine", &[("PYREPLICA_PAUSE_AT", "prepared")]);
            // A free statement that could be replayed twice, unlike a row.
            pair.run(
                "insert into t values (1, 'x'); insert into replica_log (sql) values ('update counter set n = n + 1')",
            );
            daemon.wait_paused();
            let (mut client, side) = if by_master { (pair.master(), "master") } else { (pair.slave(), "slave") };
            let here = "select gid from pg_prepared_xacts where database = current_database()";
            let gid: String = client.query_one(here, &[]).unwrap().get(0);
            client.batch_execute(&format!("{command} prepared '{gid}'")).unwrap();
            daemon.resume();
            pair.wait_caught_up();
            wait_until("the slave has it", || pair.on_slave("select n from counter") == ["1"]);
            let log = daemon.log();
            let told = format!("ERROR: {side}: cannot commit prepared batch ");
            let lines: Vec<&str> = log.lines().filter(|line| line.contains("ERROR: ")).collect();
            assert!(lines.len() == 1 && lines[0].contains(&told) && lines[0].contains("by hand"), "{log}");
            assert_eq!(slave_rows(&pair), ["1 x"]);
            assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"]);
            assert_settled(&pair);
            assert!(daemon.terminate().success());
        }
    }
}

// == Other people's transactions ==

#[test]
fn transactions_that_are_not_this_pairs_are_left_alone() {
    let pair = acquainted_pair();
    let number = next_number(&pair);
    let name = &pair.name;
    let ours = gid(&pair, Side::Slave, number);
    let (_, digits) = ours.split_once(&format!(":{number}:")).unwrap();
    let token = token(number);
    let foreign = [
        family_of(&pair, name, "replicated:slave", 0).gid(Side::Slave, number, &token),
        family_of(&pair, name, "slave2", 0).gid(Side::Slave, number, &token),
        family_of(&pair, name, "replicated", 1).gid(Side::Slave, number, &token),
        gid(&pair, Side::Master, number),
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
    pair.once_with("");
    let left = pair.on_slave("select count(*) from pg_prepared_xacts where database = current_database()");
    assert_eq!(left, [foreign.len().to_string()]);
    let on_master = pair.on_master("select gid from pg_prepared_xacts where database = current_database()");
    assert_eq!(on_master, [format!("{name} on the master")]);
    assert_eq!(slave_rows(&pair), ["1 replayed"]);
}

#[test]
fn a_gid_of_this_pair_in_another_database_is_left_alone() {
    let (pair, elsewhere) = (acquainted_pair(), acquainted_pair());
    let gid = gid(&pair, Side::Slave, next_number(&pair));
    elsewhere.run_on_slave(&format!("begin; insert into t values (1, 'elsewhere'); prepare transaction '{gid}'"));
    change(&pair, 1);
    pair.once_with("");
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
    for (id, step) in [(1, "prepared"), (2, "prepared"), (3, "slave-committed")] {
        change(&pair, id);
        let mut daemon = pair.start_paused_at(step);
        daemon.wait_paused();
        daemon.kill9();
        // One of the two may not have come so far.
        match id {
            1 => undo_prepared(&mut pair.slave()),
            2 => undo_prepared(&mut pair.master()),
            _ => {}
        }
        let finished = pair.try_once_by_file(&format!("NAME=renamed{id}"));
        assert!(finished.status.success(), "{}", finished.output);
        pair.assert_equal();
        assert_settled(&pair);
    }
}

fn undo_prepared(client: &mut Client) {
    let sql = "select gid from pg_prepared_xacts where database = current_database()";
    let gid: String = client.query_one(sql, &[]).unwrap().get(0);
    client.batch_execute(&format!("rollback prepared '{gid}'")).unwrap();
}

// == Without two-phase commit ==

const ONE_PHASE: &str = "TWO_PHASE=false";

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
    pair.once_with("");
    assert_eq!(slave_rows(&pair), ["1 prepared", "2 replayed", "3 replayed"]);
    assert_settled(&pair);
}
