//! Filters and transforms in Python, as the original had them. These tests need PL/Python on the master's server, which
//! tests/run.sh installs from the distribution; where a server has none they say so and pass.

use crate::harness::{self, Pair, Script, quietly, refused, told};
use std::path::{Path, PathBuf};

/// As the original documents it, to the letter.
const VERBATIM: &str = r#"INSERT INTO py_log_filter (relname, event, condition)
    VALUES ('mytable','INSERT','new["field1"].startswith("Something") or new["field2"]==123')"#;

const MYTABLE: &str = "create table mytable (id int primary key, field1 text, field2 int)";

fn sql(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(file)
}

/// A pair with the filter script; none where the server has no PL/Python.
#[track_caller]
fn with_python(schema: &str) -> Option<Pair> {
    let pair = Pair::new();
    // Some builds come with the extension but without the Python that it was built for: trying is the only way to know.
    if let Err(error) = pair.master().batch_execute("begin; create extension plpython3u; rollback") {
        eprintln!("skipped: no plpython3u on this server (Debian: postgresql-plpython3-VERSION): {error:?}");
        return None;
    }
    pair.master_server().psql(&pair.master_db(), &sql("master-install-filter.sql"));
    pair.exec_both(schema);
    pair.create_triggers();
    Some(pair)
}

fn filter(pair: &Pair, event: &str, condition: &str) {
    let condition = condition.replace('\'', "''");
    let values = format!("('mytable', '{event}', '{condition}')");
    pair.run(&format!("insert into py_log_filter (relname, event, condition) values {values}"));
}

#[test]
fn the_originals_example_works_to_the_letter() {
    let Some(pair) = with_python(MYTABLE) else { return };
    pair.run(VERBATIM);
    pair.run("insert into mytable values (1, 'Something else', 1), (2, 'Nothing', 123), (3, 'Nothing', 1)");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id from mytable order by 1"), ["1", "2"]);
    pair.run("update mytable set field2 = 124 where id = 2; update mytable set field1 = 'Something' where id = 3");
    pair.run("update mytable set field2 = 7 where id <> 2; delete from mytable where id = 1");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id || field1 || field2 from mytable"), ["3Something7"]);
}

#[test]
fn new_and_old_are_dictionaries_with_pythons_types() {
    let columns = "create type pair as (a int, b text);
         create table mytable (id int primary key, i8 bigint, f float8, n numeric, b boolean, t text, c varchar(9), d date,
                               ts timestamp, by bytea, a int[], j jsonb, x text, p pair)";
    let Some(pair) = with_python(columns) else { return };
    let types = r#"
        [type(new[k]).__name__ for k in ("id", "i8", "f", "n", "b", "t", "c", "d", "ts", "by", "a", "j", "p")]
        == ["int", "int", "float", "Decimal", "bool", "str", "str", "str", "str", "bytes", "list", "str", "dict"]
        and new["x"] is None and old is None and new["n"] == Decimal("1.10") and new["d"] == "2020-02-29"
        and new["by"] == b"\x00\xff" and new["a"] == [1, None] and new["p"]["b"] == "z" and new["f"] == 0.1 + 0.2
        and datetime.date.fromisoformat(new["d"]).year == 2020 and bool(re.match("it's", new["t"]))"#;
    filter(&pair, "INSERT", types);
    filter(&pair, "UPDATE", r#"old["i8"] + 1 == new["i8"] and set(old) == set(new)"#);
    filter(&pair, "DELETE", r#"new is None and old["b"]"#);
    pair.run(
        r"insert into mytable values (1, 5000000000, 0.1::float8 + 0.2::float8, 1.10, true, 'it''s', 'é', '2020-02-29', '2020-02-29 12:00',
          '\x00ff', '{1,NULL}', '[1]', null, '(1,z)'), (2, 1, 1, 1, false, '', '', '2020-02-29', now(), '', '{}', '1', 'x', null)",
    );
    quietly(&pair);
    assert_eq!(pair.on_slave("select id from mytable"), ["1"]);
    pair.run("set session_replication_role = replica; delete from mytable where id = 2");
    pair.run("update mytable set i8 = i8 + 2");
    pair.run("update mytable set i8 = i8 + 1");
    quietly(&pair);
    assert_eq!(pair.on_slave("select i8 from mytable"), ["5000000003"]);
}

#[test]
fn conditions_in_both_languages_are_anded_and_followed_in_open_sessions() {
    let Some(pair) = with_python(MYTABLE) else { return };
    pair.run(VERBATIM);
    pair.run("insert into py_log_filter (relname, event, condition, language) values ('mytable', 'INSERT', 'new.id > 1', 'sql')");
    let mut session = pair.master();
    let mut run = |sql: &str| session.batch_execute(sql).unwrap();
    run("insert into mytable values (1, 'Something', 1), (2, 'Something', 1), (3, 'else', 1)");
    pair.run(r#"update py_log_filter set condition = 'new["field1"] == "else"' where language = 'python'"#);
    run("insert into mytable values (4, 'Something', 1), (5, 'else', 1)");
    pair.exec_both("alter table mytable alter field2 type text");
    pair.run(r#"update py_log_filter set condition = 'new["field2"] == "1"' where language = 'python'"#);
    run("insert into mytable values (6, '', 1), (7, '', '2')");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id from mytable order by 1"), ["2", "5", "6"]);
}

#[test]
fn a_condition_that_raises_replicates_the_row_unless_told_otherwise() {
    let Some(pair) = with_python(MYTABLE) else { return };
    pair.run(VERBATIM);
    pair.run("insert into mytable values (1, null, 1), (2, 'else', 1)");
    let finished = told(&pair);
    assert_eq!(finished.count("failed with SQLSTATE 38000, the change is replicated"), 1, "{}", finished.output);
    assert_eq!(pair.on_slave("select id from mytable"), ["1"]);
    assert!(
        pair.master_server().log().contains("failed: AttributeError: 'NoneType' object has no attribute 'startswith'")
    );
    pair.run("update py_log_filter set on_error = 'raise'");
    refused(&pair, "insert into mytable values (3, null, 1)", "AttributeError");
    refused(
        &pair,
        "insert into py_log_filter (relname, event, condition) values ('mytable', 'INSERT', 'new[')",
        "SyntaxError",
    );
}

#[test]
fn a_transform_in_python_replaces_a_value() {
    let columns =
        "create table mytable (id int primary key, email text, price numeric, raw bytea, ok boolean, day date, l text)";
    let Some(pair) = with_python(columns) else { return };
    let transforms = [
        ("email", r#"hashlib.md5(new["email"].encode()).hexdigest() if new["email"] else None"#),
        ("price", r#"round(new["price"], 1)"#),
        ("raw", r#"new["raw"][::-1]"#),
        ("ok", r#"not new["ok"]"#),
        ("day", r#"datetime.date.fromisoformat(new["day"]).replace(day=1)"#),
        ("l", "[1]"),
    ];
    for (field, expression) in transforms {
        let expression = expression.replace('\'', "''");
        let values = format!("('mytable', '{field}', '{expression}')");
        pair.run(&format!("insert into py_log_transform (relname, field, expression) values {values}"));
    }
    pair.run(r"insert into mytable values (1, 'ada', 12.34, '\x0102', true, '2020-02-29', 'secret')");
    let finished = told(&pair);
    assert_eq!(finished.count("SQLSTATE 38000, NULL is sent for l"), 1, "{}", finished.output);
    let row = "select concat_ws(' ', email, price, raw, ok, day, l) from mytable";
    assert_eq!(pair.on_slave(row), [r"8c8d357b5e872bbacd45197626bd5759 12.3 \x0201 f 2020-02-01"]);
    pair.run("update py_log_transform set expression = null where field = 'l'; update mytable set l = 'left out'");
    pair.run("update mytable set email = '', price = 5, ok = false");
    quietly(&pair);
    assert_eq!(pair.on_slave(row), [r"5.0 \x0201 t 2020-02-01"]);
}

#[test]
fn the_originals_filter_table_is_taken_over() {
    let Some(pair) = with_python(MYTABLE) else { return };
    let (server, db) = (pair.master_server(), pair.master_db());
    server.psql(&db, &sql("master-uninstall.sql"));
    pair.run("create table py_log_filter (relname text, event text, condition text)");
    pair.run(VERBATIM);
    server.psql(&db, &Script::Master.path());
    server.psql(&db, &sql("master-install-filter.sql"));
    pair.create_triggers();
    pair.run("insert into mytable values (1, 'Something else', 1), (2, 'Nothing', 1)");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id from mytable"), ["1"]);
}

/// The owner of the table may make casts for its rows.
#[test]
fn the_casts_of_a_tables_owner_do_not_run() {
    let Some(pair) = with_python(MYTABLE) else { return };
    filter(&pair, "INSERT", "new[\"field2\"] > 1");
    let role = format!("{}_tenant", pair.name);
    pair.run(&format!(
        "create role {role} login; create schema ten authorization {role}; alter table mytable owner to {role};
         grant create on schema public to {role}; set session authorization {role};
         create function ten.read(text) returns mytable language plpgsql as $$ begin raise 'trapped as %', current_user; end $$;
         create function ten.write(mytable) returns text language plpgsql as $$ begin raise 'trapped as %', current_user; end $$;
         create cast (text as mytable) with function ten.read(text) as assignment;
         create cast (mytable as text) with function ten.write(mytable) as implicit"
    ));
    pair.run("insert into mytable values (1, 'a', 1), (2, 'b \"c\", (d)', 2), (3, null, 3)");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id || coalesce(field1, '') from mytable order by id"), ["2b \"c\", (d)", "3"]);
    pair.run(&format!("drop owned by {role} cascade; drop role {role}"));
}

/// It is no part of the application's schema, and a slave may be without it.
#[test]
fn the_language_does_not_come_with_the_schema() {
    let Some(pair) = with_python("create table gone (id int primary key)") else { return };
    pair.run_on_slave("drop table gone");
    pair.run("comment on table gone is 'stays'");
    harness::copying::copy(&pair, &["--schema"]);
    assert_eq!(pair.on_slave("select count(*) from pg_extension where extname = 'plpython3u'"), ["0"]);
    assert_eq!(pair.on_slave("select obj_description('gone'::regclass)"), ["stays"]);
}
