//! Getting past a change that cannot be replayed: what waits is shown, what is given up is noted, nothing else is lost.

use crate::harness::{self, Pair, assert_says, refusal};

fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text)");
    pair.create_triggers();
    pair
}

/// A transaction of two changes that the slave refuses because of its second one, between two others.
fn stuck() -> Pair {
    let pair = pair();
    pair.run_on_slave("insert into t values (20, 'in the way')");
    pair.run("insert into t values (1, 'before')");
    pair.run("insert into t values (10, 'with it'); insert into t values (20, 'new')");
    pair.run("insert into t values (30, 'it''s after')");
    pair
}

fn id_of(pair: &Pair, key: &str) -> String {
    pair.on_master(&format!("select id from replica_log where new->'id' = '{key}'")).remove(0)
}

#[test]
fn what_waits_is_shown_as_sql_and_the_change_that_fails_is_marked() {
    let pair = stuck();
    assert_says(&pair.done(&["pending"]), &["4 changes wait, 0 in quarantine", "waits  INSERT INTO"]);
    refusal(&pair);
    let said = pair.done(&["pending"]);
    let failing = id_of(&pair, "20");
    assert_says(
        &said,
        &["3 changes wait", &format!("change {failing} fails: "), "Key (id)=(20) already exists", "it''s after"],
    );
    assert_eq!(said.matches("  fails  ").count(), 1, "{said}");
    let one = pair.done(&["pending", "--limit", "1"]);
    assert_eq!((one.matches("waits  INSERT INTO").count(), one.contains("3 changes wait")), (1, true), "{one}");
    let json = pair.done(&["pending", "--json"]);
    assert_says(&json, &["\"waiting\": 3", "\"state\": \"fails\"", "\"more\": false", "already exists"]);
    // Looking has left nothing behind.
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "20"]);
    assert_eq!(pair.pending(), 3);
}

#[test]
fn a_change_is_skipped_and_noted_and_the_rest_of_its_transaction_is_replayed() {
    let pair = stuck();
    refusal(&pair);
    let id = id_of(&pair, "20");
    let said = pair.done(&["skip", &id, "--reason", "entered by hand", "--yes"]);
    assert_says(&said, &["1 change skipped"]);
    pair.once();
    assert_eq!(
        pair.on_slave("select id || a from t order by id"),
        ["1before", "10with it", "20in the way", "30it's after"]
    );
    let note = "select id || ' ' || reason || ' ' || (who = session_user) || ' ' || new::text from replica_skipped";
    assert_eq!(pair.on_master(note), [format!("{id} entered by hand true {{a,new,id,20}}")]);
    let again = pair.verb(&["skip", &id, "--yes"]);
    assert_eq!(again.code(), 2, "{}", again.output);
}

#[test]
fn a_whole_transaction_is_skipped() {
    let pair = stuck();
    refusal(&pair);
    let txid = pair.on_master("select txid from replica_log where new->'id' = '20'").remove(0);
    let said = pair.done(&["skip", "--transaction", &txid, "--yes", "--json"]);
    assert_says(&said, &["\"noted\": \"master\"", &format!("\"transaction\": {txid}")]);
    pair.once();
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "20", "30"]);
    assert_eq!(pair.on_master("select count(*) from replica_skipped"), ["2"]);
}

#[test]
fn what_is_replayed_already_cannot_be_skipped_and_nobody_is_asked_without_a_terminal() {
    let pair = pair();
    pair.run("insert into t values (1, 'x')");
    let id = id_of(&pair, "1");
    pair.once();
    let finished = pair.verb(&["skip", &id, "--yes"]);
    assert_eq!(finished.code(), 2, "{}", finished.output);
    assert_says(&finished.output, &["cannot skip: change"]);
    assert_says(&pair.verb(&["skip", "999999", "--yes"]).output, &["there is no change 999999 that waits"]);
    assert_says(&pair.verb(&["skip", "1"]).output, &["skip cannot ask for confirmation here", "--yes"]);
    assert_says(&pair.verb(&["skip", "--yes"]).output, &["skip needs the id of a change"]);
    assert_eq!(pair.on_master("select count(*) from replica_skipped"), ["0"]);
}

#[test]
fn a_daemon_that_is_stuck_goes_on_once_the_change_is_skipped() {
    let pair = stuck();
    let mut daemon = pair.start();
    daemon.wait_log("Key (id)=(20) already exists");
    pair.done(&["skip", &id_of(&pair, "20"), "--yes"]);
    pair.wait_caught_up();
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "10", "20", "30"]);
    assert!(daemon.terminate().success());
}

/// The pauses between two tries have grown to more than this test takes.
#[test]
fn a_daemon_that_waits_for_its_next_try_tries_at_once_when_an_operator_has_acted() {
    let pair = stuck();
    let mut daemon = pair.start();
    daemon.wait_log_times("Trying again in", 7);
    // Perhaps the slave has been mended by hand: it has not.
    assert_says(&pair.done(&["retry"]), &["nothing is in quarantine"]);
    daemon.wait_log("Trying at once");
    daemon.wait_log_times("Trying again in", 8);
    pair.done(&["skip", &id_of(&pair, "20"), "--yes"]);
    daemon.wait_log_times("somebody has signalled that the cause may be fixed", 2);
    pair.wait_caught_up();
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "10", "20", "30"]);
    let waiting = "select count(*) from pg_stat_activity where application_name like 'pyreplica % waiting' \
                   and datname = current_database()";
    harness::wait_until("it waits no longer for that", || pair.on_master(waiting) == ["0"]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_change_that_is_in_the_batch_in_hand_is_skipped_or_replayed_but_not_both() {
    for step in ["begun", "replayed"] {
        let pair = pair();
        pair.run("insert into t values (1, 'x'); insert into t values (2, 'y')");
        let id = id_of(&pair, "2");
        let mut daemon = pair.start_paused_at(step);
        daemon.wait_paused();
        pair.done(&["skip", &id, "--yes"]);
        daemon.resume();
        pair.wait_caught_up();
        assert_eq!(pair.on_slave("select id from t"), ["1"], "{step}");
        assert!(daemon.terminate().success());
    }
}

#[test]
fn the_verb_may_be_killed_and_then_the_change_is_skipped_and_noted_or_neither() {
    for (point, expected) in [("skip-done", "0"), ("skip-committed", "1")] {
        let pair = stuck();
        refusal(&pair);
        let id = id_of(&pair, "20");
        pair.killed_at(point, &["skip", &id, "--yes"]);
        let count = |sql: &str| pair.on_master(sql).remove(0);
        assert_eq!(count("select count(*) from replica_skipped"), expected, "{point}");
        assert_eq!(
            count("select count(*) from replica_log where replicated and new->'id' = '20'"),
            expected,
            "{point}"
        );
        if expected == "0" {
            pair.done(&["skip", &id, "--yes"]);
        }
        pair.once();
        assert_eq!(pair.on_slave("select id from t order by id"), ["1", "10", "20", "30"], "{point}");
        pair.assert_no_prepared();
    }
}
