//! The key finds the row on the slave: keys of several columns and of any type, keys that change, keys that shift.

use crate::harness::{Pair, drains, replays_each};

const PEOPLE: &str = "create table people (id int primary key, name text, age int, note text)";

/// Ten people on both sides, by replication.
const TEN: &str = "insert into people select i, 'person ' || i, 20 + i, null from generate_series(1, 10) i";

#[test]
fn an_update_of_the_key_moves_the_row() {
    replays_each(PEOPLE, &[TEN, "update people set id = 100, name = 'moved' where id = 5"]);
}

#[test]
fn keys_that_shift_by_one_are_replayed() {
    replays_each(
        "create table t (id int primary key deferrable, a text)",
        &["insert into t select i, 'row ' || i from generate_series(1, 50) i", "update t set id = id + 1"],
    );
}

#[test]
fn keys_that_shift_downwards_by_one_are_replayed_without_a_deferrable_constraint() {
    // Row by row in the order of the table this never collides on the master; nor may it on the slave.
    replays_each(
        "create table t (id int primary key, a text)",
        &["insert into t select i, 'row ' || i from generate_series(1, 50) i", "update t set id = id - 1"],
    );
}

#[test]
fn two_rows_swap_their_keys() {
    replays_each(
        "create table t (id int primary key, a text)",
        &[
            "insert into t values (1, 'one'), (2, 'two')",
            "update t set id = 0 where id = 1; update t set id = 1 where id = 2; update t set id = 2 where id = 0",
        ],
    );
}

#[test]
fn a_unique_value_that_wanders_between_rows_is_replayed() {
    replays_each(
        "create table t (id int primary key, slot int unique)",
        &[
            "insert into t values (1, 10), (2, 20)",
            "update t set slot = null where id = 1; update t set slot = 10 where id = 2;
             update t set slot = 20 where id = 1",
        ],
    );
}

#[test]
fn keys_of_several_columns_in_another_order_than_the_table_are_replayed() {
    let pair = replays_each(
        "create table t (a text, id2 int, b text, id1 text, primary key (id1, id2))",
        &[
            "insert into t select 'a' || i, i, null, 'k' || i % 3 from generate_series(1, 30) i",
            "update t set a = 'changed' where id1 = 'k1'",
            "update t set id2 = id2 + 100, b = '' where id1 = 'k2'",
            "delete from t where id1 = 'k0' and id2 < 15",
        ],
    );
    let said = pair.on_master("select py_log_create_tg('t')");
    assert_eq!(said, ["created trigger on t (id1,id2)"]);
}

#[test]
fn keys_of_every_usual_type_find_their_rows() {
    let types = [
        ("boolean", "true", "false"),
        ("text", "'it''s'", "'\\'"),
        ("char(8)", "'ab'", "'cd'"),
        ("numeric", "1.50", "-0.000001"),
        ("float8", "0.1", "'-Infinity'"),
        ("real", "0.1", "1e-30"),
        ("date", "'2024-02-29'", "'0044-03-15 BC'"),
        ("timestamptz", "'2024-02-29 12:00:00.123456+05'", "'infinity'"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
        ("bytea", "'\\x00ff'", "''"),
        ("inet", "'10.0.0.1/8'", "'::1'"),
        ("int[]", "'{1,2}'", "'[0:1]={1,2}'"),
        ("int4range", "'[1,5)'", "'empty'"),
        ("interval", "'1 mon'", "'-1 day'"),
        ("bit(3)", "B'101'", "B'000'"),
        ("jsonb", "'{\"a\": 1}'", "'null'"),
        ("\"char\"", "'x'", "'y'"),
        ("name", "'a name'", "''"),
        ("oid", "4000000000", "0"),
    ];
    let pair = Pair::new();
    for (i, (key, _, _)) in types.iter().enumerate() {
        pair.exec_both(&format!("create table t{i} (k {key} primary key, a text)"));
    }
    pair.create_triggers();
    for (i, (_, first, second)) in types.iter().enumerate() {
        pair.run(&format!("insert into t{i} values ({first}, 'one'), ({second}, 'two')"));
    }
    drains(&pair);
    for (i, (key, first, second)) in types.iter().enumerate() {
        let [first, second] = [first, second].map(|value| format!("({value})::{key}"));
        pair.run(&format!("update t{i} set a = 'changed' where k = {first}; delete from t{i} where k = {second}"));
        pair.run(&format!("update t{i} set k = {second}"));
    }
    drains(&pair);
}

#[test]
fn a_table_without_a_key_is_named_and_left_alone() {
    let pair = Pair::new();
    pair.exec_both("create table keyless (a int); create table keyed (id int primary key)");
    let said = pair.create_triggers();
    assert_eq!(said, ["created trigger on keyed (id)", "table keyless has no pk constraint (couldn't be replicated)!"]);
    pair.run("insert into keyless values (1); insert into keyed values (1)");
    pair.once();
    assert_eq!(pair.on_slave("select count(*) from keyless"), ["0"]);
    assert_eq!(pair.on_slave("select count(*) from keyed"), ["1"]);
}

#[test]
fn a_trigger_made_by_hand_works_like_the_generated_one() {
    let pair = Pair::new();
    pair.exec_both("create table tt (id1 int, id2 int, a text, primary key (id1, id2))");
    pair.run(
        "create trigger by_hand after insert or update or delete on tt
         for each row execute function py_log_replica('tt', 'id1', 'id2')",
    );
    pair.run("insert into tt values (1, 2, 'a'), (3, 4, 'b')");
    pair.run("update tt set a = 'c' where id1 = 1; update tt set id2 = 5 where id1 = 3");
    drains(&pair);
    pair.run("delete from tt");
    drains(&pair);
}

#[test]
fn a_trigger_made_by_hand_gives_way_to_the_generated_one() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int, a text)");
    pair.run(
        "create trigger replica_tg after insert or update or delete on t
         for each row execute function py_log_replica('t', 'id')",
    );
    pair.run("insert into t values (1, 'a')");
    drains(&pair);
    pair.exec_both("alter table t add primary key (id)");
    assert_eq!(pair.create_triggers(), ["created trigger on t (id)"]);
    pair.run("insert into t values (2, 'b')");
    assert_eq!(pair.logged(), 1, "logged once");
    drains(&pair);
}

// == Which row is meant ==

/// Rows of which only the key and what changed is logged.
const LARGE: &str =
    "insert into t (id, a) values (1, 'first ' || repeat('y', 3000)), (2, 'second' || repeat('y', 3000))";

#[test]
fn rows_that_swap_a_deferrable_key_are_told_apart_however_large_they_are() {
    for level in ["row", "statement"] {
        let pair = Pair::new();
        pair.exec_both(
            "create table t (id int, n int default 0, a text, primary key (id) deferrable initially deferred)",
        );
        pair.run(&format!("select py_log_create_tg('t', '{level}')"));
        pair.run(LARGE);
        pair.run(
            "begin; update t set id = 2 where id = 1; update t set n = 5 where id = 2 and a like 'second%';
             update t set id = 1 where id = 2 and a like 'second%'; commit",
        );
        drains(&pair);
        assert_eq!(pair.on_slave("select id || left(a, 6) || n from t order by id"), ["1second5", "2first 0"]);
    }
}

#[test]
fn the_key_that_counts_is_the_table_s_when_the_row_was_written() {
    for level in ["row", "statement"] {
        let pair = Pair::new();
        pair.exec_both("create table t (id int primary key, uid int not null, a text, n int)");
        pair.run(&format!("select py_log_create_tg('t', '{level}')"));
        pair.run("insert into t select i, i + 100, repeat(md5(i::text), 200), 0 from generate_series(1, 40) i");
        drains(&pair);
        // Logged with the old key only, and replayed under the new one.
        pair.run("update t set n = 1 where id = 2");
        pair.exec_both("alter table t drop constraint t_pkey, add primary key (uid)");
        pair.run("update t set n = n + 2 where id < 30");
        drains(&pair);
        pair.run("update t set uid = -uid where id < 5; update t set n = -1; delete from t where id = 7");
        drains(&pair);
        // The trigger is made anew while large rows wait that were logged by the old key.
        pair.exec_both("alter table t drop constraint t_pkey, add primary key (id)");
        pair.run("update t set n = 7 where id = 3");
        pair.run("select py_log_create_tg('t')");
        pair.run("update t set n = 8 where id = 4");
        drains(&pair);
    }
}

#[test]
fn a_key_named_by_hand_may_be_null() {
    let pair = Pair::new();
    pair.exec_both("create table t (a int, b text, v text, unique (a, b))");
    pair.run(
        "create trigger replica_tg after insert or update or delete on t
         for each row execute function py_log_replica('t', 'a', 'b')",
    );
    pair.run("insert into t values (1, null, 'x'), (1, 'b', 'x'), (null, null, 'x'), (2, null, repeat('x', 3000))");
    drains(&pair);
    pair.run("update t set v = 'y'");
    drains(&pair);
    pair.run("insert into t select i, null, 'n' from generate_series(10, 60) i");
    pair.run("update t set v = 'm' where a > 10; update t set v = v || repeat('z', 5000), b = 'c' where a = 2; delete from t where a = 1");
    drains(&pair);
    // Two rows with one key.
    pair.run("insert into t values (5, null, 'five'), (5, null, 'also')");
    pair.run("update t set v = 'other' where v = 'also'; delete from t where v = 'five'");
    drains(&pair);
}

#[test]
fn large_rows_with_one_key_are_told_apart_by_all_their_columns() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int, a text, n int default 0)");
    pair.run(
        "create trigger replica_tg after insert or update or delete on t
         for each row execute function py_log_replica('t', 'id')",
    );
    pair.run(LARGE);
    pair.run("update t set id = 1");
    pair.run("update t set n = 3 where a like 'second%'");
    drains(&pair);
}

#[test]
fn what_the_slave_suppresses_is_not_recorded_as_applied() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'a'), (2, 'a'), (3, 'a')");
    drains(&pair);
    pair.run_on_slave(
        "update t set a = 'other' where id = 2;
         create function keep() returns trigger language plpgsql as 'begin return null; end';
         create trigger keep before update on t for each row execute function keep();
         alter table t enable always trigger keep",
    );
    pair.run("update t set a = 'b' where id < 3");
    let finished = pair.once();
    assert_eq!(finished.count("the slave did not take the change"), 2, "{}", finished.output);
    assert_eq!(finished.count("values were applied"), 0, "{}", finished.output);
    assert_eq!(pair.on_slave("select distinct done from replica_conflict"), ["nothing"]);
}

/// So many changes that the daemon does not keep a condition for each until the end: it looks at them on the way.
#[test]
fn a_deferrable_constraint_is_checked_over_a_transaction_of_any_length() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, slot int unique deferrable initially deferred)");
    pair.create_triggers();
    pair.run("insert into t select i, i from generate_series(1, 12000) i");
    drains(&pair);
    // Two rows have the slot 2 until the very end, and each other slot is there twice for a moment.
    pair.run(
        "begin; update t set slot = 2 where id = 1; update t set slot = slot + 1 where id > 2;
         update t set slot = slot + 1 where id > 2; update t set slot = 1 where id = 2; commit",
    );
    drains(&pair);
    // Here a slot stays there twice.
    pair.run_on_slave("insert into t values (0, -1)");
    pair.run("insert into t values (20000, -1); insert into t select -i, -i from generate_series(2, 12000) i");
    let refused = pair.try_once();
    assert_eq!(refused.code(), 6, "{}", refused.output);
    let first = pair.on_master("select min(id) from replica_log where not replicated").remove(0);
    assert!(refused.output.contains(&format!("replay change {first} of transaction")), "{}", refused.output);
    assert!(refused.output.contains("violates a deferrable unique constraint"), "{}", refused.output);
    pair.run_on_slave("delete from t where id = 0");
    drains(&pair);
    pair.assert_equal();
}
