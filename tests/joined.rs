//! Transactions are joined in batches, and changes in messages. None of them fails because of that, and none is refused
//! because it was parted from another one that it needs.

use crate::harness::{OwnCluster, Pair, assert_says, drains, final_words, refusal, wait_until};
use std::thread;

/// Symptom: the pair stopped for ever at a duplicate key that the master had allowed.
/// Cause: a transaction took a deferrable unique value that another one freed later, and committed after it. The first one's
/// last change came earlier in the log, and a batch ended between the two.
#[test]
fn a_value_that_is_freed_by_a_later_change_is_taken_in_the_same_batch() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, n int unique deferrable initially deferred)");
    pair.create_triggers();
    pair.run("insert into t values (1, 1), (2, 2)");
    drains(&pair);
    let (mut taker, mut freer) = (pair.master(), pair.master());
    // So many changes fill a batch.
    taker
        .batch_execute(
            "begin; insert into t values (10, 1); insert into t select g, g from generate_series(100, 25000) g",
        )
        .unwrap();
    freer.batch_execute("begin; delete from t where id = 1").unwrap();
    thread::scope(|scope| {
        let committing = scope.spawn(move || taker.batch_execute("commit").unwrap());
        let waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        wait_until("the check waits for the other transaction", || !pair.on_master(waits).is_empty());
        freer.batch_execute("commit").unwrap();
        committing.join().unwrap();
    });
    drains(&pair);
    assert_eq!(pair.on_slave("select id from t where n = 1"), ["10"]);

    // A value that nobody frees is still refused.
    pair.run_on_slave("insert into t values (50, 50)");
    pair.run("insert into t values (60, 50); insert into t select g, g from generate_series(30000, 30010) g");
    assert!(refusal(&pair).contains("duplicate key value violates a deferrable unique constraint"));
}

/// Symptom: "unsafe use of new value", and the pair stopped, or the second transaction went into quarantine.
/// Cause: PostgreSQL wants the new value committed first, and both transactions were one on the slave.
#[test]
fn a_new_value_of_an_enum_and_its_first_use_are_replayed_one_after_the_other() {
    let pair = Pair::new();
    pair.exec_both("create type mood as enum ('calm'); create table t (id int primary key, m mood)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'calm')");
    let add = "alter type mood add value 'wild'";
    pair.run(&format!("begin; {add}; insert into replica_log (sql) values ($${add}$$); commit"));
    pair.run("insert into t values (2, 'wild')");
    pair.run("update t set m = 'wild' where id = 1");
    pair.run("insert into t select g, 'wild' from generate_series(10, 50) g");
    drains(&pair);
}

/// Symptom: "out of shared memory", for ever, although each transaction fitted into the slave's lock table.
#[test]
fn a_batch_that_needs_more_locks_than_the_slave_has_is_parted() {
    let few = "max_locks_per_transaction = 10\nmax_connections = 12\nmax_prepared_transactions = 2\nautovacuum = off";
    let (master, slave) =
        (OwnCluster::start("master", "max_locks_per_transaction = 500", &[]), OwnCluster::start("slave", few, &[]));
    let pair = Pair::on(master.server(), slave.server());
    let tables = 900;
    for first in (0..tables).step_by(50) {
        pair.exec_both(&format!(
            "do $$ begin for i in {first}..{} loop execute format('create table t%s (id int primary key)', i); end loop; end $$",
            first + 49
        ));
    }
    pair.create_triggers();
    pair.run(&(0..tables).map(|n| format!("insert into t{n} values (1);")).collect::<Vec<_>>().join("commit;"));
    drains(&pair);
    assert_eq!(pair.on_slave("select id from t899"), ["1"]);
    // One transaction cannot be parted.
    pair.run(&(0..tables).map(|n| format!("update t{n} set id = 2;")).collect::<String>());
    let finished = pair.try_once();
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(&final_words(&finished), &["out of shared memory", "max_locks_per_transaction"]);
}

/// Symptom: "cannot truncate a table referenced in a foreign key constraint", on every retry.
/// Cause: the log has a row for each table of a TRUNCATE, and every 2,000th change the daemon replayed what it had.
#[test]
fn a_truncate_of_several_tables_is_one_statement_wherever_the_changes_are_parted() {
    let pair = Pair::new();
    pair.exec_both("create table a (id int primary key); create table b (id int primary key, a int references a)");
    pair.create_triggers();
    pair.run("begin; insert into a select g from generate_series(1, 1999) g; truncate a, b; insert into a values (7); commit");
    drains(&pair);
    pair.run(
        "begin; insert into a select g from generate_series(10001, 12000) g; truncate b, a; truncate b, a; commit",
    );
    drains(&pair);
    assert_eq!(pair.on_slave("select count(*) from a"), ["0"]);
}

/// Symptom: "savepoint does not exist" in the place of the reason.
/// Cause: the server could not read the message, so it had not set the savepoint that was in it either.
#[test]
fn what_the_slave_cannot_even_read_is_refused_with_its_reason_and_its_change() {
    let pair = Pair::with_slave_encoding("LATIN1");
    pair.exec_both("create table t (id int primary key, v text)");
    pair.create_triggers();
    pair.run("insert into t select g, 'ä' from generate_series(1, 30) g");
    pair.run("insert into t values (100, '10 €')");
    let said = refusal(&pair);
    assert!(said.contains("change 31") && said.contains("has no equivalent in encoding \"LATIN1\""), "{said}");
    assert_eq!(pair.on_slave("select count(*) || min(v) from t"), ["30ä"]);
    pair.run("update replica_log set replicated = true where id = 31; insert into t values (101, 'ö')");
    assert_eq!(pair.once().code(), 0);
    assert_eq!(pair.on_slave("select v from t where id > 30"), ["ö"]);
}

/// Symptom: "prepared statement does not exist", and a whole set of changes was replayed one by one.
/// Cause: the daemon had composed that set while the slave refused the set before, and threw it away with its PREPAREs.
#[test]
fn a_set_that_is_composed_again_prepares_its_statements_again() {
    let pair = Pair::new();
    pair.exec_both("create table a (id int primary key, v int); create table b (id int primary key, v int)");
    pair.run("insert into a select g, 0 from generate_series(1, 3000) g; insert into b select g, 0 from generate_series(1, 3000) g");
    pair.run_on_slave("insert into a select g, 0 from generate_series(1, 3000) g; insert into b select g, 0 from generate_series(1, 3000) g");
    pair.create_triggers();
    pair.run_on_slave("update a set v = 5 where id = 7");
    pair.run("begin; update a set v = 1 where id <= 2000; update b set v = 1; commit");
    let finished = pair.once();
    assert_eq!((finished.count("Possible conflict"), finished.count("does not exist")), (1, 0), "{}", finished.output);
    pair.assert_equal();
}

/// Symptom: a lock timeout that named neither the table nor the change.
#[test]
fn a_truncate_that_waits_for_a_lock_says_which() {
    let pair = Pair::new().with_a_table();
    pair.run("truncate t");
    let mut reader = pair.slave();
    reader.batch_execute("begin; select * from t").unwrap();
    let finished = pair.try_once();
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(
        &final_words(&finished),
        &["slave: cannot replay change 1 (TRUNCATE ONLY \"public\".\"t\")", "lock timeout"],
    );
}
