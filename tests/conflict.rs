//! The slave is not what the master thinks it is: the master wins, with a warning, where that loses nothing; otherwise the
//! change is named, nothing of its transaction stays, and everything before it is replayed.

use crate::harness::{Pair, assert_says, refusal};

const TABLE: &str = "create table t (id int primary key, a text, n int)";
const THREE: &str = "insert into t select i, 'row ' || i, i from generate_series(1, 3) i";

/// Three rows on both sides, by replication.
fn pair_with_three_rows() -> Pair {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    pair.run(THREE);
    pair.once();
    pair
}

/// Drains; the one warning there must be.
#[track_caller]
fn the_warning(pair: &Pair) -> String {
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 1, "{}", finished.output);
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
    let line = finished.output.lines().find(|line| line.contains("Possible conflict"));
    line.unwrap().to_owned()
}

// == The master wins, with a warning ==

#[test]
fn an_update_of_a_row_that_differs_gives_it_the_masters_values_and_says_what_was_there() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("update t set a = 'somebody''s', n = 7 where id = 2");
    pair.run("update t set a = 'new', n = 8 where id = 2");
    let warning = the_warning(&pair);
    assert_says(
        &warning,
        &[
            r#"UPDATE "t" SET "a"='new', "n"='8' WHERE "id"='2'"#,
            r#""a": expected 'row 2', found 'somebody''s'"#,
            r#""n": expected '2', found '7'"#,
            "the master's values were applied",
        ],
    );
    pair.assert_equal();
}

#[test]
fn a_difference_in_a_column_that_does_not_change_is_no_conflict() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("update t set n = 7 where id = 2");
    pair.run("update t set a = 'new' where id = 2");
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    assert_eq!(pair.on_slave("select a || n from t where id = 2"), ["new7"]);
}

#[test]
fn null_and_empty_text_differ() {
    let pair = pair_with_three_rows();
    pair.run("update t set a = null where id = 2");
    pair.once();
    pair.run_on_slave("update t set a = '' where id = 2");
    pair.run("update t set a = 'new' where id = 2");
    assert_says(&the_warning(&pair), &[r#""a": expected NULL, found ''"#]);
    pair.assert_equal();
}

#[test]
fn an_update_of_a_missing_row_is_only_a_warning() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("delete from t where id = 2");
    pair.run("update t set a = 'new' where id = 2; update t set a = 'new' where id = 3");
    assert_says(&the_warning(&pair), &["UPDATE", r#""id"='2'"#, "the row is missing on the slave"]);
    assert_eq!(pair.on_slave("select id || a from t order by id"), ["1row 1", "3new"]);
}

#[test]
fn a_delete_of_a_missing_row_is_only_a_warning() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("delete from t where id = 2");
    pair.run("delete from t where id < 3");
    assert_says(&the_warning(&pair), &[r#"DELETE FROM "t" WHERE "id"='2'"#, "the row is missing on the slave"]);
    pair.assert_equal();
}

#[test]
fn the_warning_comes_once_for_each_row_among_many_changes() {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    pair.run("insert into t select i, 'row', i from generate_series(1, 3000) i");
    pair.once();
    pair.run_on_slave("update t set n = -n where id in (10, 700, 2500); delete from t where id in (11, 701)");
    pair.run("update t set n = n + 1");
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 5, "{}", finished.count("Possible conflict"));
    pair.run("delete from t where id in (11, 701)");
    pair.once();
    pair.assert_equal();
}

// == What cannot be replayed ==

#[test]
fn an_insert_of_an_existing_key_fails_and_everything_before_it_is_replayed() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("insert into t values (20, 'in the way', 0)");
    pair.run("insert into t values (10, 'before', 0)");
    pair.run("update t set n = 11 where id = 1");
    pair.run("insert into t values (12, 'same transaction', 0); insert into t values (20, 'new', 0); delete from t where id = 1");
    pair.run("insert into t values (30, 'after', 0)");
    let id =
        pair.on_master("select id || ' of transaction ' || txid from replica_log where new->'id' = '20'").remove(0);
    assert_says(
        &refusal(&pair),
        &[
            "slave: cannot replay change",
            &id,
            r#"INSERT INTO "t" ("id", "a", "n") VALUES ('20', 'new', '0')"#,
            r#"duplicate key value violates unique constraint "t_pkey""#,
            "Key (id)=(20) already exists",
            "hint: ",
        ],
    );
    let rows = pair.on_slave("select id || a || n from t order by id");
    assert_eq!(rows, ["1row 111", "2row 22", "3row 33", "10before0", "20in the way0"]);
    assert_eq!(pair.pending(), 4);
    pair.run_on_slave("delete from t where id = 20");
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_failing_change_after_thousands_in_one_batch_takes_none_of_them_along() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("insert into t values (-1, 'in the way', 0)");
    for first in [1000, 3000, 5000] {
        pair.run(&format!("insert into t select i, 'bulk', i from generate_series({first}, {first} + 1500) i"));
    }
    pair.run("insert into t select i, 'own', i from generate_series(8000, 9000) i; insert into t values (-1, '', 0)");
    assert_says(&refusal(&pair), &["Key (id)=(-1) already exists"]);
    assert_eq!(pair.on_slave("select a || count(*) from t where id > 3 group by a"), ["bulk4503"]);
    pair.run_on_slave("delete from t where id = -1");
    pair.once();
    pair.assert_equal();
}

#[test]
fn the_daemon_goes_on_by_itself_once_the_obstacle_is_gone() {
    let pair = pair_with_three_rows();
    pair.run_on_slave("insert into t values (20, 'in the way', 0)");
    let mut daemon = pair.start();
    pair.run("insert into t values (10, 'before', 0)");
    pair.run("insert into t values (20, 'new', 0)");
    pair.run("insert into t values (30, 'after', 0)");
    daemon.wait_log("Key (id)=(20) already exists");
    daemon.wait_log_times("Trying again", 2);
    assert_eq!(pair.on_slave("select id from t where id > 3 order by id"), ["10", "20"]);
    pair.run_on_slave("delete from t where id = 20");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

/// `obstacle` on the slave makes `change` on the master fail there; `cure` lets it through.
#[track_caller]
fn refused_until_cured(obstacle: &str, change: &str, expected: &[&str], cure: &str) {
    let pair = pair_with_three_rows();
    pair.exec_both("create table other (id int primary key)");
    pair.create_triggers();
    pair.run_on_slave(obstacle);
    pair.run("insert into other values (1)");
    pair.run(&format!("insert into other values (2); {change}"));
    pair.run("insert into other values (3)");
    let said = refusal(&pair);
    assert_says(&said, expected);
    assert_says(&said, &["slave: cannot replay ", "hint: "]);
    assert_eq!(pair.on_slave("select id from other"), ["1"], "{said}");
    pair.run_on_slave(cure);
    pair.once();
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn a_check_that_only_the_slave_has_refuses_the_change() {
    refused_until_cured(
        "alter table t add constraint small check (n < 100)",
        "update t set n = 1000 where id = 2",
        &[r#"UPDATE "t" SET "n"='1000' WHERE "id"='2'"#, "small"],
        "alter table t drop constraint small",
    );
}

#[test]
fn a_unique_constraint_that_only_the_slave_has_refuses_the_change() {
    refused_until_cured(
        "alter table t add constraint once unique (a)",
        "insert into t values (20, 'row 3', 20)",
        &["INSERT", "once", "Key (a)=(row 3) already exists"],
        "alter table t drop constraint once",
    );
}

#[test]
fn a_not_null_constraint_that_only_the_slave_has_refuses_the_change() {
    refused_until_cured(
        "alter table t alter a set not null",
        "update t set a = null where id = 1",
        &[r#"SET "a"=NULL"#, "null value in column \"a\""],
        "alter table t alter a drop not null",
    );
}

#[test]
fn text_that_is_too_long_for_the_slaves_column_refuses_the_change() {
    refused_until_cured(
        "alter table t alter a type varchar(10)",
        "update t set a = 'longer than ten' where id = 1",
        &["longer than ten", "value too long for type character varying(10)"],
        "alter table t alter a type text",
    );
}

#[test]
fn a_number_that_is_too_large_for_the_slaves_column_refuses_the_change() {
    refused_until_cured(
        "alter table t alter n type smallint",
        "insert into t values (20, 'large', 100000)",
        &["100000", "out of range for type smallint"],
        "alter table t alter n type int",
    );
}

#[test]
fn a_missing_table_refuses_the_change_and_says_what_to_do() {
    refused_until_cured(
        "alter table t rename to hidden",
        "insert into t values (20, 'x', 20)",
        &["public.t", "does not exist", "hint: create the table on the slave"],
        "alter table hidden rename to t",
    );
}

#[test]
fn a_missing_column_refuses_the_change_and_names_it() {
    refused_until_cured(
        "alter table t rename n to hidden",
        "update t set n = 5 where id = 1",
        &["has no column n", "hint: ALTER TABLE"],
        "alter table t rename hidden to n",
    );
}

// == All at once ==

#[test]
fn conflicts_shifted_keys_and_changes_of_every_kind_share_one_batch() {
    let pair = Pair::new();
    pair.exec_both(&format!("{TABLE}; create table u (id int primary key deferrable, a text)"));
    pair.create_triggers();
    pair.run("insert into t select i, 'row', i from generate_series(1, 60) i");
    pair.run("insert into u select i, 'u' || i from generate_series(1, 60) i");
    pair.once();
    pair.run_on_slave(
        "update t set n = -1 where id = 7; delete from t where id = 8; update u set a = 'other' where id = 9",
    );
    pair.run("update t set n = n + 1; update u set id = id + 1");
    pair.run("insert into replica_log(sql) values ('UPDATE t SET a = ''free'' WHERE id = 3')");
    pair.run("update u set a = a || '.' where id = 10");
    pair.run("delete from t where id in (8, 20); update u set id = id - 1");
    pair.run("update u set id = 61 - id; insert into t values (8, 'again', 1)");
    let finished = pair.once();
    assert!(finished.count("Possible conflict") >= 3, "{}", finished.output);
    // A later change of what differs makes it equal.
    pair.run("update t set a = 'free' where id = 3; update u set a = a || '!'");
    pair.once();
    pair.assert_equal();
    pair.assert_no_prepared();
}
