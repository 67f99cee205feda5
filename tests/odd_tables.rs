//! Copy, compare and repair where tables, keys, names and settings are unusual.

use crate::harness::Pair;
use crate::harness::copying::copy;

/// A key's type, and five values of it.
const KEYS: [(&str, [&str; 5]); 19] = [
    ("numeric", ["'NaN'", "'-1.50'", "0", "1e30", "1e-30"]),
    ("float8", ["'NaN'", "'-Infinity'", "'-0'", "'1e-300'", "0.1"]),
    ("char(5)", ["'a'", "'b  '", "' c'", "'ÄÖ'", "''"]),
    ("\"char\"", ["'a'", "'b'", "'Z'", "'0'", "' '"]),
    ("text", ["''", "' '", "'it''s'", "E'a\\\\b\\n'", "'%s'"]),
    ("bytea", ["''", "'\\x00'", "'\\xff'", "'\\x5c27'", "'\\x01'"]),
    ("date", ["'infinity'", "'-infinity'", "'2026-01-31'", "'0044-03-15 BC'", "'9999-12-31'"]),
    ("timestamptz", ["'infinity'", "'2026-01-31 12:00+05'", "'1900-01-01'", "'2026-10-25 00:30+00'", "'epoch'"]),
    ("interval", ["'1 mon'", "'31 days'", "'-1 day'", "'00:00:01'", "'1 year'"]),
    ("bit(3)", ["'000'", "'101'", "'111'", "'010'", "'001'"]),
    ("int[]", ["'{}'", "'{1,null}'", "'{1}'", "'[0:1]={1,2}'", "'{{1},{2}}'"]),
    ("uuid", ["gen_random_uuid()"; 5]),
    ("inet", ["'10.0.0.1/8'", "'10.0.0.1'", "'::1'", "'0.0.0.0/0'", "'10.0.0.0/8'"]),
    ("s.mood", ["'z'", "'a'", "'m'", "'b'", "'c'"]),
    ("s.short", ["'a'", "'b'", "'c'", "'d'", "'e'"]),
    ("s.ci", ["'Aa'", "'b'", "'C'", "'d'", "'e'"]),
    ("ext.citext", ["'Aa'", "'b'", "'C'", "'d'", "'e'"]),
    ("s.pair", ["'(1,a)'", "'(1,b)'", "'(2,\"\")'", "'(0,x)'", "'(3,\"it''s\")'"]),
    ("int4range", ["'empty'", "'[1,2)'", "'(,)'", "'[5,)'", "'(,3)'"]),
];

/// In all of these a row is missing on the slave, one is too many, and two differ.
#[test]
fn keys_of_many_types_and_odd_names_are_copied_compared_and_repaired() {
    let pair = Pair::new();
    // The types' numbers differ on both sides.
    pair.run("create type other as enum ('x')");
    pair.exec_both(
        "create schema s; create schema ext; create extension citext schema ext;
         create type s.mood as enum ('z', 'a', 'm', 'b', 'c'); create domain s.short as varchar(3) check (value <> 'no');
         create domain s.ci as ext.citext; create type s.pair as (n int, t text)",
    );
    let tables: Vec<String> = (0..KEYS.len()).map(|n| format!("s.\"{n} 100% 'é' \"\" $1\"")).collect();
    for (table, (kind, values)) in tables.iter().zip(KEYS) {
        pair.exec_both(&format!(
            "create table {table} (\"k $1 ü\" {kind} primary key, v {kind}, n int, m s.mood[] default '{{z,null}}')"
        ));
        for (n, value) in values.iter().enumerate() {
            pair.run(&format!("insert into {table} values ({value}, {value}, {n})"));
        }
    }
    pair.create_triggers_in("s");
    copy(&pair, &["--jobs", "3"]);
    compared(&pair, 0);
    for table in &tables {
        pair.run_on_slave(&format!(
            "delete from {table} where n = 1; update {table} set v = null where n = 2; update {table} set m = '{{a}}' where n = 3"
        ));
        pair.run(&format!("set session_replication_role = replica; delete from {table} where n = 4"));
    }
    let said = compared(&pair, 9);
    for word in [" missing\n", " extra\n"] {
        assert_eq!(said.matches(word).count(), tables.len(), "{said}");
    }
    assert_eq!(said.matches(" different: ").count(), 2 * tables.len(), "{said}");
    assert_eq!(pair.verb(&["repair"]).code(), 0);
    compared(&pair, 0);
    pair.assert_equal();
}

/// One row, whose key is written in two ways.
#[test]
fn keys_that_are_equal_and_look_different_are_one_row() {
    let pair = Pair::new();
    pair.exec_both("create table n (id numeric primary key, a text); create table f (id float8 primary key)");
    pair.create_triggers();
    pair.run("insert into n values (1.0, 'x'), (2, 'y'); insert into f values ('-0'), (1)");
    pair.once();
    pair.run_on_slave("update n set id = 1.00 where id = 1; update f set id = 0 where id = 0");
    let said = compared(&pair, 9);
    assert_eq!(said.matches(" different: ").count(), 2, "{said}");
    assert_eq!(pair.verb(&["repair"]).code(), 0);
    compared(&pair, 0);
    pair.assert_equal();
}

#[test]
fn a_key_that_is_a_number_here_and_a_text_there_can_be_compared() {
    let pair = Pair::new();
    pair.run("create table t (id int primary key, a text)");
    pair.run_on_slave("create table t (id text primary key, a text)");
    pair.create_triggers();
    pair.run("insert into t select i, 'a' from generate_series(1, 3000) i");
    copy(&pair, &[]);
    compared(&pair, 0);
    pair.run_on_slave("delete from t where id = '77'");
    assert!(compared(&pair, 9).contains("\"id\"=77 missing"));
}

#[test]
fn tables_of_as_many_columns_as_there_can_be() {
    let pair = Pair::new();
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n} int default {n}")).collect();
    pair.exec_both(&format!("create table t (id int primary key, {})", columns.join(", ")));
    pair.create_triggers();
    pair.run("insert into t select generate_series(1, 20)");
    copy(&pair, &[]);
    compared(&pair, 0);
    pair.run_on_slave("delete from t where id = 5; update t set c1599 = 0 where id = 6");
    assert_eq!(pair.verb(&["repair"]).code(), 0);
    pair.assert_equal();
}

/// What is set on databases is for people and applications.
#[test]
fn what_is_set_on_the_databases_changes_nothing() {
    let pair = Pair::new();
    pair.exec_both(
        "create schema s; create table s.t (id int primary key, r regclass, f float8 default 0.1::float8 + 0.2,
                                            at timestamptz default '2026-01-02 03:04+00');
         create policy p on s.t using (id < 10); alter table s.t enable row level security;
         alter table s.t force row level security",
    );
    pair.create_triggers_in("s");
    pair.run("insert into s.t select i, 's.t' from generate_series(1, 20000) i");
    let settings = [
        "statement_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "datestyle = 'German'",
        "timezone = 'Asia/Tokyo'",
        "extra_float_digits = -5",
        "synchronous_commit = off",
    ];
    let (master, slave) = (pair.master_server().connect("postgres"), pair.slave_server().connect("postgres"));
    for (mut admin, database) in [(master, pair.master_db()), (slave, pair.slave_db())] {
        for setting in settings {
            admin.batch_execute(&format!("alter database {database} set {setting}")).unwrap();
        }
    }
    // There the name of the table is written without its schema.
    let set = format!("alter database {} set search_path = s", pair.master_db());
    pair.master_server().connect("postgres").batch_execute(&set).unwrap();
    copy(&pair, &[]);
    compared(&pair, 0);
    let mut slave = pair.slave();
    slave.batch_execute("set default_transaction_read_only = off").unwrap();
    slave.batch_execute("set statement_timeout = 0").unwrap();
    slave.batch_execute("delete from s.t where id % 100 = 0").unwrap();
    assert_eq!(pair.verb(&["repair"]).code(), 0);
    compared(&pair, 0);
}

#[track_caller]
fn compared(pair: &Pair, code: i32) -> String {
    let finished = pair.verb(&["compare", "--wait", "0", "--rows", "1000"]);
    assert_eq!(finished.code(), code, "{}", finished.output);
    finished.output
}
