//! Free statements, rows that somebody writes into the log by hand: they are replayed in their place, cannot break out of
//! the batch, and what goes wrong in one is named.

use crate::harness::{Pair, assert_says, refusal};

/// Three rows on both sides, by replication.
fn pair_with_three_rows() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text, n int)");
    pair.create_triggers();
    pair.run("insert into t select i, 'row ' || i, i from generate_series(1, 3) i");
    pair.once();
    pair
}

#[test]
fn free_statements_are_replayed_in_their_place_with_the_rows_around_them() {
    let pair = pair_with_three_rows();
    let free = |sql: &str| format!("{sql}; insert into replica_log(sql) values ('{}')", sql.replace('\'', "''"));
    pair.run(&free("alter table t add b text default 'it''s'"));
    pair.run("insert into t(id, b) values (4, 'new')");
    pair.run(&format!("update t set n = 0; {}; update t set c = c + 1", free("alter table t add c int default 5")));
    pair.run(&free("create table made (id int primary key)"));
    pair.run(&format!("{}; insert into t(id) values (5)", free("alter table t rename a to d")));
    pair.once();
    pair.assert_equal();
    assert_eq!(pair.on_slave("select c from t where id = 4"), ["6"]);
}

#[test]
fn a_free_statement_that_fails_is_named() {
    let pair = pair_with_three_rows();
    pair.run("update t set n = 10 where id = 1");
    pair.run("update t set n = 20 where id = 2; insert into replica_log(sql) values ('DROP TABLE there')");
    assert_says(&refusal(&pair), &["cannot replay change ", "(DROP TABLE there)", "table \"there\" does not exist"]);
    assert_eq!(pair.on_slave("select n from t order by id"), ["10", "2", "3"]);
    pair.run_on_slave("create table there (a int)");
    pair.once();
    pair.assert_equal();
}

/// A free statement that can never be replayed: it is named, and the operator takes it out of the log.
#[track_caller]
fn never_replayed(statement: &str, expected: &[&str]) {
    let pair = pair_with_three_rows();
    pair.run("update t set n = 10 where id = 1");
    pair.run(&format!(
        "update t set n = 20 where id = 2; insert into replica_log(sql) values ('{}'); update t set n = 30 where id = 3",
        statement.replace('\'', "''")
    ));
    pair.run("insert into t values (4, 'after', 40)");
    assert_says(&refusal(&pair), expected);
    assert_eq!(pair.on_slave("select n from t order by id"), ["10", "2", "3"]);
    pair.run("delete from replica_log where event = 'S'");
    pair.once();
    pair.assert_equal();
    assert_eq!(pair.logged(), 0);
}

#[test]
fn a_statement_that_cannot_run_in_a_transaction_is_named() {
    never_replayed("VACUUM t", &["(VACUUM t)", "VACUUM cannot"]);
}

#[test]
fn a_free_statement_cannot_end_the_transaction_of_its_batch() {
    for statement in ["COMMIT", "ROLLBACK", "SELECT 1; COMMIT", "PREPARE TRANSACTION 'x'", "ROLLBACK TO pyreplica"] {
        never_replayed(statement, &[&format!("({statement})")]);
    }
    never_replayed("DO $$ begin commit; end $$", &["invalid transaction termination"]);
}

#[test]
fn a_free_statement_that_keeps_its_transaction_from_being_prepared_is_named_by_its_transaction() {
    never_replayed("NOTIFY somebody", &["cannot replay transaction", "LISTEN, UNLISTEN, or NOTIFY"]);
    never_replayed("CREATE TEMP TABLE x (a int)", &["cannot replay transaction", "temporary objects"]);
}

#[test]
fn a_statement_that_says_nothing_is_passed_over() {
    let pair = pair_with_three_rows();
    pair.run("insert into replica_log(sql) values (''), (' -- a comment'), (';'), ('SELECT 1')");
    pair.run("update t set n = 10");
    pair.once();
    pair.assert_equal();
    assert_eq!(pair.logged(), 0);
}

#[test]
fn what_a_free_statement_sets_does_not_change_how_the_next_rows_are_replayed() {
    let pair = pair_with_three_rows();
    pair.exec_both("create table times (id int primary key, at timestamptz, f float8, b bytea)");
    pair.create_triggers();
    for setting in [
        "SET datestyle = 'German'",
        "SET search_path = ''",
        "SET standard_conforming_strings = off",
        "SET timezone = 'Asia/Tokyo'",
        "SET role pg_monitor",
        "RESET ALL",
        "DEALLOCATE ALL",
        "SET session_replication_role = origin",
        "SET default_transaction_read_only = on",
        "SET session authorization pg_monitor",
        "SET client_min_messages = debug5",
        "SET row_security = off",
        "SET lock_timeout = 1",
    ] {
        let id = pair.on_master("select count(*) from times").remove(0);
        let quoted = setting.replace('\'', "''");
        pair.run(&format!(
            "insert into times values ({id}, '2001-02-03 04:05:06+00', 0.1, '\\x5c');
             insert into replica_log(sql) values ('{quoted}');
             update times set f = f + 0.2, at = at + '1 month', b = b || '\\x27' where id = {id};
             insert into t values (1000 + {id}, 'back\\slash', 0)"
        ));
        let finished = pair.try_once();
        assert!(finished.status.success(), "{setting}: {}", finished.output);
        assert_eq!(finished.count("Possible conflict"), 0, "{setting}: {}", finished.output);
        pair.assert_equal();
    }
}
