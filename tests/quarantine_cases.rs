//! Quarantine where it is easy to get wrong: several errors in one batch.

mod harness;

use harness::{Pair, assert_says};

const QUARANTINE: &str = "ON_ERROR=quarantine\n";

fn pair(schema: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(schema);
    pair.create_triggers();
    pair
}

/// Nothing waits any more in the log.
#[track_caller]
fn drain(pair: &Pair) -> String {
    let finished = pair.try_once_by_file(QUARANTINE);
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(pair.pending(), 0);
    pair.assert_no_prepared();
    finished.output
}

/// A duplicate of a deferrable constraint is found at the end of a batch only, so of two errors the later one comes first.
#[test]
fn what_stands_before_two_errors_is_replayed_whichever_is_found_first() {
    let pair = pair("create table t (id int primary key, a int unique deferrable)");
    pair.run_on_slave("insert into t values (100, 7), (20, 20)");
    pair.run("insert into t values (1, 1)");
    pair.run("insert into t values (2, 7)");
    pair.run("insert into t values (3, 3)");
    pair.run("insert into t values (20, 4)");
    pair.run("insert into t values (5, 5)");
    let said = drain(&pair);
    assert_eq!(said.matches("put into quarantine").count(), 2, "{said}");
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "3", "5", "20", "100"]);
    pair.run_on_slave("delete from t where id in (20, 100)");
    pair.done(&["retry"]);
    pair.assert_equal();
}

#[test]
fn without_quarantine_the_first_of_two_errors_is_told_and_what_stands_before_it_is_replayed() {
    let pair = pair("create table t (id int primary key, a int unique deferrable)");
    pair.run_on_slave("insert into t values (100, 7), (20, 20)");
    pair.run("insert into t values (1, 1)");
    pair.run("insert into t values (2, 7)");
    pair.run("insert into t values (20, 4)");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 6, "{}", finished.output);
    assert_says(&finished.output, &["deferrable unique constraint"]);
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "20", "100"]);
}

#[test]
fn transactions_that_touch_each_others_keys_come_back_in_order() {
    let pair = pair("create table t (id int primary key, a text)");
    pair.run("insert into t select i, 'old' from generate_series(1, 6) i");
    drain(&pair);
    pair.run_on_slave("insert into t values (20, 'x'), (21, 'x')");
    pair.run("update t set id = 20 where id = 1");
    pair.run("update t set id = 21 where id = 2");
    pair.run("update t set id = 1 where id = 21");
    pair.run("update t set id = 2 where id = 20");
    pair.run("update t set a = 'new' where id in (1, 2); update t set a = 'new' where id = 3");
    pair.run("update t set a = 'free' where id = 4");
    drain(&pair);
    assert_eq!(
        pair.on_slave("select string_agg(id || a, ' ' order by id) from t"),
        ["1old 2old 3old 4free 5old 6old 20x 21x"]
    );
    pair.run_on_slave("delete from t where id = 21");
    let retried = pair.verb(&["retry"]);
    assert_eq!(retried.code(), 6, "{}", retried.output);
    pair.run_on_slave("delete from t where id = 20");
    pair.done(&["retry"]);
    pair.assert_equal();
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"]);
}
