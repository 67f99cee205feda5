//! ON_ERROR=quarantine: a transaction that cannot be replayed is put aside with what depends on it, the rest goes on, and
//! it is replayed later or given up.

use crate::harness::{Daemon, Pair, assert_says};

const QUARANTINE: &str = "ON_ERROR=quarantine\n";

fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text); create table u (id int primary key, a text)");
    pair.create_triggers();
    pair.run("insert into t select i, 'old' from generate_series(1, 9) i");
    pair.once();
    pair
}

/// One transaction that fails, three that depend on it one after the other, and two that do not.
fn load(pair: &Pair) {
    pair.run_on_slave("insert into t values (20, 'in the way')");
    pair.run("update t set a = 'first' where id = 1; insert into t values (20, 'new'); insert into u values (1, 'u')");
    pair.run("update t set a = 'free' where id = 2");
    pair.run("update t set a = 'second' where id = 1; update t set a = 'second' where id = 3");
    pair.run("update t set id = 33 where id = 3");
    pair.run("insert into t values (3, 'third')");
    pair.run("insert into u values (2, 'free')");
}

#[test]
fn a_transaction_that_fails_is_put_aside_with_what_depends_on_it_and_the_rest_goes_on() {
    let pair = pair();
    load(&pair);
    let said = pair.drain_with(QUARANTINE);
    assert_says(&said, &["put into quarantine", "Key (id)=(20) already exists", "2 changes replayed, and 7 put aside"]);
    assert_eq!(pair.on_slave("select a from t where id in (1, 2, 3) order by id"), ["old", "free", "old"]);
    assert_eq!(pair.on_slave("select id from u"), ["2"]);
    let held = "select count(*) from replica_held where why = 'quarantined' group by txid order by min(place)";
    assert_eq!(pair.on_slave(held), ["3", "2", "1", "1"]);
    // Nothing else has been read from elsewhere: what comes later depends as well.
    pair.run("delete from t where id = 33");
    pair.drain_with(QUARANTINE);
    assert_eq!(pair.on_slave("select count(*) from t where id = 3"), ["1"]);
    let shown = pair.done(&["pending"]);
    assert_says(
        &shown,
        &["0 changes wait, 8 in quarantine", "UPDATE \"t\" SET \"a\"='first'", "already exists", "depends on change"],
    );
    // It fails again, and what depends on it waits.
    let retried = pair.verb(&["retry"]);
    assert_eq!(retried.code(), 6, "{}", retried.output);
    assert_says(&retried.output, &["fails: change ", "waits: it depends on transaction"]);
    pair.run_on_slave("delete from t where id = 20");
    let retried = pair.done(&["retry"]);
    assert_eq!(retried.matches("replayed").count(), 5, "{retried}");
    pair.assert_equal();
    assert_says(&pair.done(&["retry"]), &["nothing is in quarantine"]);
    pair.run("update t set a = 'after'");
    pair.drain_with(QUARANTINE);
    pair.assert_equal();
}

#[test]
fn what_is_in_quarantine_is_given_up_and_noted_on_the_slave() {
    let pair = pair();
    load(&pair);
    pair.drain_with(QUARANTINE);
    let id = pair.on_slave("select id from replica_held where new[4] = '20'").remove(0);
    pair.done(&["skip", &id, "--yes", "--reason", "kept"]);
    assert_eq!(pair.on_slave("select id || reason from replica_skipped"), [format!("{id}kept")]);
    let shown = pair.done(&["pending"]);
    assert_says(&shown, &[&format!("change {id} failed, and was skipped: pyreplica retry replays the rest")]);
    assert!(!shown.contains("already exists"), "{shown}");
    pair.done(&["retry"]);
    assert_eq!(pair.on_slave("select a from t where id = 20"), ["in the way"]);
    pair.run_on_slave("update t set a = 'new' where id = 20");
    pair.assert_equal();
}

#[test]
fn a_truncate_and_a_table_that_is_missing_are_all_their_rows() {
    let pair = pair();
    pair.run_on_slave("alter table u rename to hidden");
    pair.run("insert into u values (1, 'x')");
    pair.run("insert into t values (40, 'free')");
    pair.run("insert into u values (2, 'x'); insert into t values (41, 'with it')");
    pair.run("update t set a = 'changed' where id = 41; update t set a = 'with it' where id = 5");
    pair.run("truncate t");
    pair.run("insert into t values (50, 'behind')");
    pair.drain_with(QUARANTINE);
    assert_eq!(pair.on_slave("select id from t where id > 9"), ["40"]);
    assert_eq!(pair.on_slave("select count(distinct txid) from replica_held"), ["5"]);
    pair.run_on_slave("alter table hidden rename to u");
    pair.done(&["retry"]);
    pair.assert_equal();
}

/// Each time one change of the first transaction is given up; all others reach the slave, once.
#[test]
fn giving_up_what_is_in_quarantine_may_be_killed_at_any_point() {
    let pair = pair();
    let one = |sql: String| pair.on_slave(&sql).remove(0);
    for (number, point) in
        ["release-done:1", "release-committed:1", "release-done:2", "release-committed:2"].iter().enumerate()
    {
        pair.run("truncate t, u; insert into t select i, 'old' from generate_series(1, 9) i");
        pair.once();
        load(&pair);
        pair.drain_with(QUARANTINE);
        let id = one("select id from replica_held where new[4] = '20'".to_string());
        let held = || one(format!("select count(*) from replica_held where id = {id}"));
        let noted = || one(format!("select count(*) from replica_skipped where id = {id}"));
        pair.killed_at(point, &["skip", &id, "--yes"]);
        let is_done = *point == "release-committed:2";
        assert_eq!((held() == "0", noted() == "1"), (is_done, is_done), "{point}");
        let again = pair.verb(&["skip", &id, "--yes"]);
        assert_eq!(again.code(), if is_done { 2 } else { 0 }, "{point}: {}", again.output);
        assert_eq!((held(), noted()), ("0".to_string(), "1".to_string()), "{point}");
        // A retry that dies, and one that does not.
        pair.killed_at(if number % 2 == 0 { "release-done" } else { "release-committed" }, &["retry"]);
        pair.done(&["retry"]);
        assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"], "{point}");
        pair.run_on_slave("update t set a = 'new' where id = 20 and a = 'in the way'");
        pair.assert_equal();
    }
}

#[test]
fn giving_up_what_is_in_quarantine_waits_for_a_batch_in_doubt_and_says_so() {
    let pair = pair();
    load(&pair);
    pair.drain_with(QUARANTINE);
    let id = pair.on_slave("select id from replica_held where new[4] = '20'").remove(0);
    pair.run("insert into u select max(id) + 1, 'free' from u");
    let mut daemon = pair.start_in(QUARANTINE, &[("PYREPLICA_PAUSE_AT", "prepared")]);
    daemon.wait_paused();
    daemon.kill9();
    let finished = pair.verb(&["skip", &id, "--yes"]);
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(&finished.output, &["slave: cannot wait for the batch in progress", "in doubt", "then try again"]);
    assert_eq!(pair.on_slave("select count(*) from replica_skipped"), ["0"]);
    pair.drain_with(QUARANTINE);
    pair.done(&["skip", &id, "--yes"]);
    pair.done(&["retry"]);
    pair.run_on_slave("update t set a = 'new' where id = 20");
    pair.assert_equal();
}

#[test]
fn the_daemon_and_the_verbs_may_be_killed_at_any_point() {
    let pair = pair();
    for point in ["begun", "replayed", "prepared", "slave-committed", "master-committed"] {
        for turn in 1..=2 {
            pair.run("truncate t, u; insert into t select i, 'old' from generate_series(1, 9) i");
            pair.once();
            load(&pair);
            let file = pair.config_file(QUARANTINE);
            let pause = format!("{point}:{turn}");
            let words = ["--once", file.to_str().unwrap()];
            let mut daemon = Daemon::spawn(&pair.dir().join("sweep.log"), &words, &[("PYREPLICA_PAUSE_AT", &pause)]);
            if daemon.paused_or_exited() {
                daemon.kill9();
            }
            pair.drain_with(QUARANTINE);
            pair.run_on_slave("delete from t where id = 20");
            let at = if turn == 1 { "release-done" } else { "release-committed" };
            pair.killed_at(&format!("{at}:{turn}"), &["retry"]);
            pair.done(&["retry"]);
            pair.assert_equal();
            assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"], "{pause}");
        }
    }
}
