//! `pyreplica compare`: what differs is found, what is equal is not called different, whatever both sides do meanwhile.

use crate::harness::{Finished, Pair};
use serde_json::Value;

/// The table's entry in what `compare --json` has printed.
fn finding(finished: &Finished, table: &str) -> Value {
    let start = finished.output.find("{\n").unwrap_or_else(|| panic!("no document: {}", finished.output));
    let mut documents = serde_json::Deserializer::from_str(&finished.output[start..]).into_iter::<Value>();
    let document = documents.next().expect("a document").expect("valid JSON");
    let tables = document["pairs"][0]["tables"].as_array().expect("tables").clone();
    tables
        .into_iter()
        .find(|entry| entry["table"] == table)
        .unwrap_or_else(|| panic!("no {table}: {}", finished.output))
}

#[track_caller]
fn compare(pair: &Pair, options: &[&str]) -> Finished {
    pair.verb(&[&["compare"], options, &["--json"]].concat())
}

/// (missing, extra, different, pending)
fn counts(finding: &Value) -> (u64, u64, u64, u64) {
    let count = |name: &str| finding[name].as_u64().expect("a count");
    (count("missing"), count("extra"), count("different"), count("pending"))
}

#[track_caller]
fn assert_state(pair: &Pair, table: &str, state: &str) -> Value {
    let finished = compare(pair, &["--table", table]);
    let entry = finding(&finished, table);
    assert_eq!(entry["state"], state, "{entry:#}");
    assert_eq!(finished.code(), if state == "different" { 9 } else { 0 });
    entry
}

#[test]
fn each_kind_of_difference_is_counted_and_shown_with_key_and_columns() {
    let pair = Pair::new();
    pair.exec_both("create table \"T x\" (id int primary key, a text, \"B\" int); insert into \"T x\" select n, 'v' || n, n from generate_series(1, 5000) n");
    pair.create_triggers();
    pair.run_on_slave(
        "delete from \"T x\" where id in (17, 4000); insert into \"T x\" values (6000, 'extra', 1);
         update \"T x\" set a = null, \"B\" = -1 where id = 2500",
    );
    let finished = compare(&pair, &[]);
    let entry = finding(&finished, "public.\"T x\"");
    assert_eq!((counts(&entry), entry["rows"]["master"].as_u64()), ((2, 1, 1, 0), Some(5000)), "{entry:#}");
    assert_eq!(finished.code(), 9);
    let rows = entry["differences"].as_array().unwrap();
    let row = rows.iter().find(|row| row["what"] == "different").unwrap();
    assert_eq!(row["key"]["id"], "2500");
    assert_eq!(row["columns"][0], serde_json::json!({"column": "a", "master": "v2500", "slave": null}));
    assert_eq!(row["columns"][1]["slave"], "-1");
    let text = pair.verb(&["compare", "--rows", "1"]).output;
    assert!(text.contains("public.\"T x\" and 3 more rows"), "{text}");
}

#[test]
fn equal_tables_of_many_types_are_equal() {
    let pair = Pair::new();
    let settings = "alter database {} set timezone = 'Asia/Tokyo'; alter database {} set datestyle = 'German';
                    alter database {} set extra_float_digits = -3; alter database {} set bytea_output = 'escape';
                    alter database {} set intervalstyle = 'iso_8601'";
    pair.run_on_slave(&settings.replace("{}", &pair.slave_db()));
    let fill = "insert into t (k, c, d) values ('a', 0.1::float8 + 0.2, '\\x00ff')";
    pair.run(&format!(
        "create table t (k text primary key, dropped int, b timestamptz default '2026-03-01 12:00+01', c float8, d bytea,
                         e interval default '1 day 2:03', f numeric default 1.50, g int[] default '{{1,null}}', h char(5) default 'x',
                         gone date default '2026-01-31'); alter table t drop column dropped; {fill}"
    ));
    pair.run_on_slave(&format!(
        "create table t (h char(5) default 'x', g int[] default '{{1,null}}', f numeric default 1.50, e interval default '1 day 2:03',
                         d bytea, c float8, b timestamptz default '2026-03-01 12:00+01', k text primary key,
                         gone date default '2026-01-31', more text); {fill}"
    ));
    pair.create_triggers();
    assert_state(&pair, "public.t", "equal");
    pair.run_on_slave("update t set c = 0.3");
    let entry = assert_state(&pair, "public.t", "different");
    assert_eq!(entry["differences"][0]["columns"][0]["master"], "0.30000000000000004");
}

#[test]
fn another_encoding_and_another_collation_make_no_difference() {
    let pair = Pair::with_master_encoding("LATIN1");
    let words = "insert into t select chr(192 + n % 60) || ' ' || md5(n::text) || chr(224 + n % 20), n from generate_series(1, 3000) n";
    pair.run(&format!("create table t (k text primary key, n int); {words}"));
    pair.run_on_slave(&format!("create table t (k text collate \"C\" primary key, n int); {words}"));
    pair.create_triggers();
    assert_state(&pair, "public.t", "equal");
    pair.run_on_slave("delete from t where n in (7, 77, 777)");
    let entry = assert_state(&pair, "public.t", "different");
    assert_eq!(counts(&entry), (3, 0, 0, 0));
}

#[test]
fn keys_that_sort_otherwise_on_the_slave_are_compared_by_their_bytes() {
    let pair = Pair::new();
    let words = "insert into t select case n % 3 when 0 then 'a-' when 1 then 'A' else 'ab' end || n, n, n from generate_series(1, 4000) n";
    let other = pair
        .on_slave("select quote_ident(collname) from pg_collation where collprovider = 'i' and collname = 'en-x-icu'");
    let Some(other) = other.first() else { return };
    pair.run(&format!("create table t (k text collate \"C\", n int, v int, primary key (k, n)); {words}"));
    pair.run_on_slave(&format!("create table t (k text collate {other}, n int, v int, primary key (k, n)); {words}"));
    pair.create_triggers();
    let entry = assert_state(&pair, "public.t", "equal");
    assert!(entry["notes"][0].as_str().unwrap().contains("COLLATE \"C\""), "{entry:#}");
    pair.run_on_slave("update t set v = 0 where n = 1234");
    assert_eq!(counts(&assert_state(&pair, "public.t", "different")), (0, 0, 1, 0));
}

#[test]
fn a_partitioned_table_is_compared_whatever_its_partitions() {
    let pair = Pair::new();
    pair.run(
        "create schema \"S.1\"; create table \"S.1\".\"P\" (id int generated always as identity, y int, s int generated always as (y * 2) stored,
                                               primary key (y, id)) partition by range (y);
         create table \"S.1\".p1 partition of \"S.1\".\"P\" for values from (0) to (50);
         create table \"S.1\".p2 partition of \"S.1\".\"P\" for values from (50) to (100);
         insert into \"S.1\".\"P\" (y) select n % 100 from generate_series(1, 500) n; select py_log_create_tg('S.1', 'P')",
    );
    pair.run_on_slave(
        "create schema \"S.1\"; create table \"S.1\".\"P\" (id int, y int, s int generated always as (y * 3) stored, primary key (y, id));
         insert into \"S.1\".\"P\" select n, n % 100 from generate_series(1, 500) n",
    );
    assert_state(&pair, "\"S.1\".\"P\"", "equal");
    pair.run_on_slave("delete from \"S.1\".\"P\" where y = 99 and id = 99");
    assert_eq!(counts(&assert_state(&pair, "\"S.1\".\"P\"", "different")), (1, 0, 0, 0));
}

#[test]
fn what_waits_in_the_log_explains_a_difference_and_nothing_else_does() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, a text); insert into t select n, 'old' from generate_series(1, 100) n",
    );
    pair.create_triggers();
    pair.run("update t set a = 'new' where id <= 10; delete from t where id = 11; insert into t values (200, 'new')");
    pair.run_on_slave("update t set a = 'wrong' where id = 50");
    let entry = assert_state(&pair, "public.t", "different");
    assert_eq!(counts(&entry), (0, 0, 1, 12), "{entry:#}");
    pair.once();
    let entry = assert_state(&pair, "public.t", "different");
    assert_eq!(counts(&entry), (0, 0, 1, 0), "{entry:#}");
    // A key that has moved: both rows differ.
    pair.run("update t set id = 300 where id = 12");
    assert_eq!(counts(&finding(&compare(&pair, &[]), "public.t")), (0, 0, 1, 2));
    pair.once();
    pair.run("truncate t");
    let entry = assert_state(&pair, "public.t", "pending");
    assert_eq!(entry["pending"], 100, "{entry:#}");
}

#[test]
fn rows_at_the_ends_of_ranges_are_seen_and_so_are_those_beyond() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key); insert into t select generate_series(1, 210000);
         create table empty (id int, name text, primary key (id, name))",
    );
    pair.create_triggers();
    pair.run_on_slave(
        "delete from t where id in (1, 100000, 100001, 200000, 210000); insert into t values (0), (300000);
         insert into empty select n / 10, 'it''s ' || n from generate_series(1, 12345) n",
    );
    let finished = compare(&pair, &[]);
    assert_eq!(counts(&finding(&finished, "public.t")), (5, 2, 0, 0));
    assert_eq!(counts(&finding(&finished, "public.empty")), (0, 12345, 0, 0));
}

/// Somebody has committed the master's half by hand, and the rows are not on the slave yet, only prepared: neither the log nor the
/// row tells of it.
#[test]
fn a_batch_in_doubt_is_no_difference() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text); insert into t values (1, 'old'), (2, 'old')");
    pair.create_triggers();
    pair.run_on_slave("update t set a = 'wrong' where id = 2");
    let mut daemon = pair.start_paused_at("prepared");
    pair.run("update t set a = 'new' where id = 1; insert into t values (3, 'new')");
    daemon.wait_paused();
    let gid = pair.on_master("select gid from pg_prepared_xacts where database = current_database()").remove(0);
    pair.run(&format!("commit prepared '{gid}'"));
    assert_eq!(counts(&finding(&compare(&pair, &["--wait", "0"]), "public.t")), (0, 0, 0, 3));
    daemon.resume();
    pair.wait_caught_up();
    assert_eq!(counts(&finding(&compare(&pair, &[]), "public.t")), (0, 0, 1, 0));
}

#[test]
fn tables_that_cannot_be_equal_are_left_out_with_a_reason() {
    let pair = Pair::new();
    pair.exec_both(
        "create table filtered (id int primary key, a text); create table few (id int primary key, a text);
         create table masked (id int primary key, a text, b text); create table keyless (a text); create table plain (id int primary key)",
    );
    pair.run("create table only_here (id int primary key)");
    pair.create_triggers();
    pair.run(
        "insert into py_log_filter (relname, event, condition) values ('filtered', 'UPDATE', 'new.a = old.a'), ('few', 'INSERT', 'new.id < 3');
         insert into py_log_transform (relname, field, expression) values ('masked', 'a', '''x''');
         insert into few select n, 'a' from generate_series(1, 5) n; insert into masked values (1, 'secret', 'b');
         drop trigger \"!replica_tg\" on plain",
    );
    let refused = compare(&pair, &[]);
    assert_eq!(refused.code(), 9);
    pair.run_on_slave("create table only_here (id int primary key)");
    pair.once();
    let finished = compare(&pair, &[]);
    assert_eq!(finished.code(), 0, "{}", finished.output);
    let state = |table: &str| finding(&finished, table)["state"].as_str().unwrap().to_string();
    let tables =
        ["public.filtered", "public.keyless", "public.plain", "public.few", "public.masked", "public.only_here"];
    assert_eq!(tables.map(state), ["left out", "left out", "left out", "equal", "equal", "equal"]);
    assert_eq!(finding(&finished, "public.few")["rows"]["slave"], 2);
    let unknown = compare(&pair, &["--table", "nonesuch"]);
    assert!(unknown.code() == 2 && unknown.output.contains("cannot find table nonesuch"), "{}", unknown.output);
    for verb in ["copy", "pause"] {
        let unknown = pair.verb(&[verb, "--table", "nonesuch"]);
        assert_eq!(unknown.code(), 2, "{verb}: {}", unknown.output);
    }
}

#[test]
fn a_key_that_is_not_unique_on_the_slave_is_said_plainly() {
    let pair = Pair::new();
    pair.run("create table t (id int primary key)");
    pair.run_on_slave("create table t (id int)");
    pair.create_triggers();
    let finished = compare(&pair, &[]);
    assert_eq!((finished.code(), finding(&finished, "public.t")["state"].as_str()), (8, Some("unknown")));
    assert!(finished.output.contains("no unique index"), "{}", finished.output);
}

#[test]
fn a_table_under_constant_change_causes_no_false_alarm_and_no_endless_wait() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, n int); insert into t select n, 0 from generate_series(1, 3000) n;
         create table gone (id int primary key); insert into gone select generate_series(1, 500)",
    );
    pair.create_triggers();
    pair.run_on_slave("update t set n = -1 where id = 2999; insert into t values (5000, 1)");
    let _daemon = pair.start();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (pair, over) = (&pair, &over);
            scope.spawn(move || {
                let mut client = pair.master();
                let mut n = 0;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    n += 1;
                    let hot = n % 50 * 2 + writer;
                    let sql = format!(
                        "update t set n = {n} where id = {hot}; delete from gone where id = {hot}; insert into gone values ({hot});
                         insert into t values (10000 + {writer} * 100000 + {n}, 1)"
                    );
                    client.batch_execute(&sql).unwrap();
                    // Leaves the daemon some time to follow.
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
        }
        let outcome = std::panic::catch_unwind(|| {
            for _ in 0..2 {
                let finished = compare(&pair, &[]);
                let entry = finding(&finished, "public.t");
                assert_eq!(
                    (entry["missing"].as_u64(), entry["extra"].as_u64(), entry["different"].as_u64()),
                    (Some(0), Some(1), Some(1)),
                    "{entry:#}"
                );
                let entry = finding(&finished, "public.gone");
                assert_ne!(entry["state"], "different", "{entry:#}");
            }
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Symptom: "value is out of range for type integer", and no table was compared.
/// Cause: the slave was asked for the master's key in its own, smaller type; and the error of one table was everybody's.
#[test]
fn one_table_does_not_keep_the_others_from_being_compared() {
    let pair = Pair::new();
    let tables = |key: &str| {
        format!(
            "create table k (id {key} primary key, a int); create table z (id int primary key); create table a (id int primary key)"
        )
    };
    pair.run(&tables("bigint"));
    pair.run_on_slave(&tables("int"));
    pair.create_triggers();
    pair.run("insert into k values (1), (3000000000); insert into z values (1)");
    pair.run_on_slave("insert into k values (1), (2)");
    let finished = compare(&pair, &[]);
    assert_eq!(finished.code(), 9);
    assert_eq!(counts(&finding(&finished, "public.k")), (0, 1, 0, 1));
    assert_eq!(counts(&finding(&finished, "public.z")), (0, 0, 0, 1));
    // The master cannot read the slave's key.
    pair.run_on_slave("drop table a; create table a (id text primary key); insert into a values ('x')");
    pair.run("insert into a values (7)");
    let finished = compare(&pair, &[]);
    assert_eq!(finding(&finished, "public.a")["state"], "unknown", "{}", finished.output);
    assert_eq!(counts(&finding(&finished, "public.z")), (0, 0, 0, 1));
}

/// Symptom: the owner of a table made a cast from text to the type of its key, and his function ran with the rights of whoever compared, for
/// a change that waited.
#[test]
fn a_key_of_the_log_is_not_cast_by_somebodys_function() {
    let pair = Pair::new();
    pair.exec_both("create type k as enum ('a', 'b', 'c'); create table t (id k primary key, v int)");
    pair.create_triggers();
    pair.run("insert into t values ('a', 1), ('b', 2)");
    pair.once();
    pair.exec_both(
        "create function evil(text) returns k language plpgsql as 'begin raise exception ''evil ran''; end';
         create cast (text as k) with function evil(text)",
    );
    pair.run("update t set v = 3 where id = 'a'");
    let finished = pair.verb(&["compare", "--wait", "0"]);
    assert!(!finished.output.contains("evil"), "{}", finished.output);
    assert!(finished.output.contains("a change on its way"), "{}", finished.output);
}
