//! Many changes go out as sets: their net effect, table by table. It comes to the same as one change after the other.

use crate::harness::{Pair, assert_says, drains_at_once, refusal};

const TABLE: &str = "create table t (id int primary key, a text, n int)";

/// Columns of any type.
const ANY_TYPE: &str =
    "create type mood as enum ('so so', '\"fine\"', 'it''s'); create domain few as int[] check (cardinality(value) < 4);
     create type pair as (a text, b numeric(5,1));
     create table t (id int primary key, words text[], grid int[][], boxes box[], b box, m mood, ms mood[], f few, p pair,
         ps pair[], c char(5), bits bit(3), v varchar(4), j jsonb, r int4range, x xml, by bytea, n numeric(6,2),
         g int generated always as (id * 2) stored)";
const INSERT: &str = r#"insert into t select i, array['a,b', null, 'it''s', '"\', '', 'NULL'], array[[i, 2], [3, null]],
        array['(1,1),(0,0)'::box, '(2,2),(0,0)'], '(3,3),(1,1)', '"fine"', array['it''s', 'so so']::mood[], array[i, 2],
        row('x "y" (z', 1.25)::pair, array[row('a,''b', 2)::pair, null], 'ab', '101', 'it''s', '{"k": "\"\\"}', '[1,5)',
        '<a b="c">d</a>', '\x005c22', i / 3.0"#;

/// Forty rows on both sides, by replication.
fn pair_with_forty_rows(schema: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(schema);
    pair.create_triggers();
    pair.run("insert into t select i, 'row ' || i, i from generate_series(1, 40) i");
    drains_at_once(&pair);
    pair
}

/// How many statements the slave executed to replay this, by its own count of calls.
fn rows_versions(pair: &Pair) -> Vec<String> {
    pair.on_slave("select count(distinct ctid) || ' ' || count(distinct cmin::text) from t")
}

#[test]
fn a_run_of_changes_goes_out_as_one_statement() {
    let pair = pair_with_forty_rows(TABLE);
    // All rows were written by the same command.
    assert_eq!(rows_versions(&pair), ["40 1"]);
    pair.run("update t set n = n + 1, a = a || '!'");
    drains_at_once(&pair);
    assert_eq!(rows_versions(&pair), ["40 1"]);
}

#[test]
fn what_happens_to_a_row_in_between_comes_to_the_same() {
    let pair = pair_with_forty_rows(TABLE);
    for sql in [
        "update t set n = 100 where id <= 20",
        "update t set n = 200, a = 'b' where id <= 10",
        "update t set a = null where id <= 5",
        "delete from t where id in (1, 2, 21)",
        // Deleted, made anew, updated, deleted again.
        "insert into t values (1, 'anew', 1), (21, 'anew', 21)",
        "update t set n = -1 where id = 1",
        "delete from t where id = 21",
        // Comes and goes.
        "insert into t select i, 'short-lived', i from generate_series(101, 110) i",
        "update t set a = 'still there' where id > 100",
        "delete from t where id > 102",
        "insert into t values (103, 'it''s \"back\\', null)",
        // Comes back to what it was.
        "update t set n = 0 where id = 30",
        "update t set n = 30 where id = 30",
    ] {
        pair.run(sql);
    }
    drains_at_once(&pair);
    assert_eq!(pair.on_slave("select a || n from t where id = 1"), ["anew-1"]);
}

#[test]
fn several_tables_and_keys_of_several_columns_are_told_apart() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (a text, b text, v int, primary key (a, b)); create table u (b text, a text, v int, primary key (b, a));
         create table \"T\" (id bigint primary key, v int)",
    );
    pair.create_triggers();
    for table in ["t", "u"] {
        pair.run(&format!(
            "insert into {table} (a, b, v) values ('x', 'yz', 1), ('xy', 'z', 2), ('', 'xyz', 3), ('1:x', '', 4), ('1', ':x', 5)"
        ));
    }
    pair.run("insert into \"T\" select i, i from generate_series(1, 20) i");
    pair.run("update t set v = v * 10; update u set v = v * 100; update \"T\" set v = 0 where id > 10");
    pair.run("delete from t where a = 'x'; delete from u where a = 'xy'; delete from \"T\" where id = 1");
    drains_at_once(&pair);
}

#[test]
fn columns_of_any_type_travel_in_sets() {
    let pair = Pair::new();
    pair.exec_both(ANY_TYPE);
    pair.create_triggers();
    pair.run(&format!("{INSERT} from generate_series(1, 15) i"));
    pair.run("insert into t (id) select i from generate_series(16, 30) i");
    drains_at_once(&pair);
    pair.run(
        r#"update t set words = words || '}{'::text, boxes = array['(9,9),(0,0)'::box], b = null, m = 'it''s', f = null,
             p = row(null, 3)::pair, c = ' a', bits = '000', v = '\', x = '<a/>', n = -n"#,
    );
    pair.run("update t set words = null, grid = '{}', j = 'null' where id % 2 = 0");
    drains_at_once(&pair);
    pair.run(&format!("{INSERT} from generate_series(1001, 2000) i"));
    drains_at_once(&pair);
}

#[test]
fn a_value_that_is_the_same_in_many_rows_travels_once() {
    let pair = Pair::new();
    pair.exec_both(ANY_TYPE);
    pair.exec_both("create table u (place int, id int, a text, primary key (place, id))");
    pair.create_triggers();
    let update = r#"update t set words = '{"it''s \\ \""}', grid = null, b = '(9,9),(0,0)', m = 'it''s', f = null, c = ' a',
        p = row('\', 3)::pair, bits = '000', v = '''\', j = '"\\"', x = '<a/>', n = -0.5, by = '\x27'"#;
    let rounds = [
        // More than one table's, so that nothing is copied.
        &format!("{INSERT} from generate_series(1, 300) i"),
        "insert into u select 7, i, 'it''s \' from generate_series(1, 300) i",
        // What is written is the same; what it was is, or is not.
        "update t set n = id, j = null where id > 100",
        update,
        "update u set a = null",
        &update.replace("-0.5", "id"),
        "update u set id = -id, a = 'one' where id <= 150",
        "delete from t where id <= 150; delete from u where id > 0",
    ];
    for sql in rounds {
        pair.run(sql);
    }
    drains_at_once(&pair);
    for sql in rounds {
        pair.run(&sql.replace("(1, 300)", "(1001, 1300)"));
        drains_at_once(&pair);
    }
}

#[test]
fn of_many_rows_with_one_value_the_one_that_differs_is_found() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run("insert into t select i, 'same', 1 from generate_series(41, 400) i");
    drains_at_once(&pair);
    pair.run_on_slave("update t set n = 7000 where id = 50");
    pair.run("update t set n = 2 where id > 40");
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 1, "{}", finished.output);
    assert_says(&finished.output, &[r#""n": expected '1', found '7000'; the master's values were applied"#]);
    pair.assert_equal();
}

#[test]
fn many_new_rows_are_copied_whatever_they_hold() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (\"the \"\"key\"\"\" int generated always as identity primary key, a text, \"a\tb\" text default 'none')",
    );
    pair.create_triggers();
    pair.run(
        r#"insert into t (a, "a	b") select v.* from generate_series(1, 200) i,
             (values (null, '\N'), ('\.', ''), (E'tab\t', E'\\t'), (E'line\nend\r', E'\r\n'), ('it''s \x', '\'),
                     ('é€😀', E'\b\f\v\x01')) v"#,
    );
    drains_at_once(&pair);
    assert_eq!(pair.on_slave("select count(*) from t where a is null"), ["200"]);
}

#[test]
fn the_one_row_that_is_in_the_way_of_many_is_told() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run_on_slave("insert into t values (1000, 'mine', 50)");
    pair.run("insert into t select i, 'new', i from generate_series(41, 2000) i");
    assert_says(&refusal(&pair), &["duplicate key", "('1000', 'new', '1000')"]);
    assert_eq!(pair.on_slave("select count(*) from t"), ["41"]);
    pair.run_on_slave("delete from t where id = 1000");
    drains_at_once(&pair);
}

// == What cannot be one set is replayed all the same ==

#[test]
fn a_new_key_makes_way_for_another_row() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run("update t set id = id + 1000 where id <= 20");
    pair.run("insert into t select i, 'new', i from generate_series(1, 20) i");
    pair.run("update t set a = 'moved' where id > 1000");
    drains_at_once(&pair);
}

#[test]
fn values_that_are_unique_wander_between_rows() {
    let pair = pair_with_forty_rows("create table t (id int primary key, a text, n int unique)");
    pair.run("update t set n = -n; update t set n = -n % 40 + 1; delete from t where id = 7; update t set n = 8 where id = 6");
    assert_eq!(pair.once().count("Possible conflict"), 0);
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn a_key_that_the_slave_does_not_know_to_be_unique_is_no_key_for_sets() {
    let pair = Pair::new();
    pair.exec_both("create table t (k int, v int)");
    pair.run(
        "create trigger r after insert or update or delete on t for each row execute function py_log_replica('t', 'k')",
    );
    pair.run("insert into t select 1, i from generate_series(1, 30) i");
    drains_at_once(&pair);
    pair.run_on_slave("insert into t values (2, 1), (2, 1)");
    pair.run("insert into t values (3, 1); update t set v = v + 100 where v % 2 = 0; delete from t where v = 5");
    pair.once();
    let rows = "select k || ' ' || v from t where k <> 2 order by 1";
    assert_eq!(pair.on_slave(rows), pair.on_master(rows));
}

#[test]
fn a_trigger_that_watches_on_the_slave_sees_every_change() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run_on_slave(
        "create table seen (id int, n int);
         create function see() returns trigger language plpgsql as $$begin insert into seen values (new.id, new.n); return null; end$$;
         create trigger see after update on t for each row execute function see(); alter table t enable always trigger see",
    );
    for n in [5, 6, 7] {
        pair.run(&format!("update t set n = {n} where id <= 10"));
    }
    assert_eq!(pair.once().count("Possible conflict"), 0);
    assert_eq!(pair.on_slave("select string_agg(n::text, ' ' order by n) from seen where id = 3"), ["5 6 7"]);
}

// == Conflicts ==

#[test]
fn the_one_row_that_differs_is_found_in_a_set() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run_on_slave("update t set n = 7000 where id = 23; delete from t where id = 31");
    pair.run("update t set n = n + 1");
    pair.run("update t set n = n + 1 where id <= 30");
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 2, "{}", finished.output);
    assert_says(
        &finished.output,
        &[r#""n": expected '23', found '7000'; the master's values were applied"#, "the row is missing on the slave"],
    );
    let others = "select string_agg(id || ' ' || n, ',' order by id) from t where id <> 31";
    assert_eq!(pair.on_slave(others), pair.on_master(others));
    pair.assert_no_prepared();
}

#[test]
fn a_row_that_differs_and_is_deleted_in_the_end_is_told() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run_on_slave("update t set n = 7000 where id = 23");
    pair.run("update t set n = n + 1");
    pair.run("delete from t");
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 1, "{}", finished.output);
    assert_eq!(pair.on_slave("select count(*) from t"), ["0"]);
}

#[test]
fn a_row_that_is_in_the_way_is_an_error_even_if_the_masters_is_gone_again() {
    let pair = pair_with_forty_rows(TABLE);
    pair.run_on_slave("insert into t values (50, 'mine', 50)");
    pair.run("insert into t select i, 'new', i from generate_series(41, 70) i");
    pair.run("delete from t where id >= 41");
    assert_says(&refusal(&pair), &["duplicate key", "('50', 'new', '50')"]);
    assert_eq!(pair.on_slave("select a from t where id > 40"), ["mine"]);
    pair.run_on_slave("delete from t where id = 50");
    drains_at_once(&pair);
}

/// A server keeps the whole message with each statement that it prepares.
#[test]
fn many_tables_in_one_message_do_not_fill_the_slaves_memory() {
    let pair = Pair::new();
    let tables: String = (0..200).map(|n| format!("create table t{n} (id int primary key, a text);")).collect();
    pair.exec_both(&tables);
    pair.create_triggers();
    pair.run(
        "do $$ begin
             for n in 0..199 loop
                 execute format('insert into t%s values (1, repeat(''x'', 5000))', n);
             end loop;
         end $$",
    );
    let mut daemon = pair.start_in("DEBUG_LEVEL=1", &[("PYREPLICA_PAUSE_AT", "replayed")]);
    daemon.wait_paused();
    let session =
        "select pid from pg_stat_activity where datname = current_database() and state = 'idle in transaction'";
    let status = std::fs::read_to_string(format!("/proc/{}/status", pair.on_slave(session)[0])).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kilobytes: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    daemon.resume();
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
    assert!(kilobytes < 100_000, "the slave's session takes {kilobytes} kB");
}
