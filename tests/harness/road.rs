//! The road that most tests take: a schema, a load, one drain, both sides equal.

use super::{Finished, Pair};

/// `schema` on both sides, triggers on all tables, `load` on the master, one drain: both sides are equal.
#[track_caller]
pub fn replays(schema: &str, load: &str) -> Pair {
    replays_each(schema, &[load])
}

/// The same with several transactions.
#[track_caller]
pub fn replays_each(schema: &str, loads: &[&str]) -> Pair {
    let pair = Pair::new();
    pair.exec_both(schema);
    pair.create_triggers();
    for load in loads {
        pair.run(load);
    }
    drains(&pair);
    pair
}

/// Drains the log and finds nothing wrong afterwards.
#[track_caller]
pub fn drains(pair: &Pair) -> Finished {
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    pair.assert_equal();
    pair.assert_no_prepared();
    assert_eq!(pair.logged(), 0, "what the only slave has replayed is deleted from the log");
    finished
}

/// The same without a closer look at anything: what went out together succeeded.
#[track_caller]
pub fn drains_at_once(pair: &Pair) {
    let finished = drains(pair);
    assert_eq!(finished.count("Looking closer"), 0, "{}", finished.output);
}

/// Drains a log that filters or transforms have been at, and finds no complaint of theirs; the two sides differ on purpose.
#[track_caller]
pub fn quietly(pair: &Pair) {
    let finished = told(pair);
    assert_eq!(finished.count("Possible conflict") + finished.count("SQLSTATE"), 0, "{}", finished.output);
}

/// The same where they may complain: in what is returned.
#[track_caller]
pub fn told(pair: &Pair) -> Finished {
    let finished = pair.once();
    assert_eq!(pair.logged(), 0);
    finished
}

/// The master refuses the statement, and says this among other things.
#[track_caller]
pub fn refused(pair: &Pair, sql: &str, reason: &str) {
    let error = pair.master().batch_execute(sql).expect_err("it is refused");
    let said = format!("{error:?}");
    assert!(said.contains(reason), "{said}");
}

/// A pair that has replicated one batch, by which the master knows the slave.
#[track_caller]
pub fn acquainted_pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, how text);
         create table counter (n int); insert into counter values (0)",
    );
    pair.run("select py_log_create_tg('t')");
    pair.run("insert into t values (0, 'replayed')");
    pair.once_with("");
    pair
}
