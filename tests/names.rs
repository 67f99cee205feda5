//! Any name that PostgreSQL takes for a schema, a table or a column is replicated.

use crate::harness::{Pair, drains, replays_each};

#[test]
fn names_in_upper_case_with_quotes_spaces_and_reserved_words_are_replayed() {
    let tables = [
        "create table \"Select\" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
        "create table \"it's\" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
        "create table \"say \"\"hi\"\"\" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
        "create table \"user\" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
        "create table \"back\\slash\" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
        "create table \"per%cent $1\" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
        "create table \" spaces \" (\"Order\" int primary key, \"from\" text, \"Group By\" text)",
    ];
    let names = tables.map(|sql| sql.trim_start_matches("create table ").split_once(" (\"Order").unwrap().0.to_owned());
    let pair = Pair::new();
    pair.exec_both(&tables.join(";"));
    pair.create_triggers();
    for name in &names {
        pair.run(&format!("insert into {name} values (1, 'a', 'b'), (2, null, ''), (3, '', null)"));
        pair.run(&format!("update {name} set \"from\" = 'it''s', \"Order\" = 10 where \"Order\" = 1"));
        pair.run(&format!("update {name} set \"Group By\" = null where \"Order\" = 2"));
        pair.run(&format!("delete from {name} where \"Order\" = 3"));
    }
    drains(&pair);
    pair.run(&format!("truncate {}", names.join(", ")));
    drains(&pair);
}

#[test]
fn column_names_with_quotes_are_replayed() {
    replays_each(
        "create table t (\"a \"\"quoted\"\" key\" int, \"it's => {here}\" text, \"\\\" text, \"$1\" text, \"WHERE\" text,
            \"Ñandú\" text, primary key (\"a \"\"quoted\"\" key\", \"WHERE\"))",
        &[
            "insert into t values (1, 'a', 'b', 'c', 'd', 'e'), (2, '', '', '', '', '')",
            "update t set \"it's => {here}\" = '=>', \"\\\" = '\\', \"$1\" = '$1', \"Ñandú\" = null where \"WHERE\" = 'd'",
            "update t set \"WHERE\" = 'x' where \"WHERE\" = ''",
            "delete from t where \"WHERE\" = 'd'",
        ],
    );
}

#[test]
fn names_beyond_ascii_are_replayed() {
    let pair = Pair::new();
    pair.exec_both(
        "create schema \"Прод\"; create table \"Прод\".\"日本語\" (\"Größe\" int primary key, \"naïve\" text);
         create table \"Straße\" (\"Größe\" int primary key, \"naïve\" text)",
    );
    pair.create_triggers_in("Прод");
    pair.create_triggers_in("public");
    for table in ["\"Прод\".\"日本語\"", "\"Straße\""] {
        pair.run(&format!("insert into {table} values (1, 'Ünïcödé'), (2, ''), (3, null)"));
        pair.run(&format!("update {table} set \"naïve\" = 'š' where \"Größe\" = 1"));
        pair.run(&format!("delete from {table} where \"Größe\" = 2"));
    }
    drains(&pair);
}

#[test]
fn names_of_the_greatest_length_are_replayed() {
    let long = "x".repeat(60);
    replays_each(
        &format!("create table {long}_t (id int primary key, {long}_c text)"),
        &[
            &format!("insert into {long}_t values (1, 'a'), (2, 'b')"),
            &format!("update {long}_t set {long}_c = 'c' where id = 1"),
        ],
    );
}

#[test]
fn tables_of_the_same_name_in_several_schemas_are_kept_apart() {
    let pair = Pair::new();
    for schema in ["a", "b", "\"C c\""] {
        pair.exec_both(&format!("create schema {schema}; create table {schema}.t (id int primary key, v text)"));
    }
    pair.exec_both("create table t (id int primary key, v text)");
    for schema in ["a", "b", "C c", "public"] {
        assert_eq!(pair.create_triggers_in(schema), ["created trigger on t (id)"]);
    }
    pair.run(
        "insert into t values (1, 'public'); insert into a.t values (1, 'a'); insert into \"C c\".t values (1, 'c')",
    );
    pair.run(
        "set search_path = b; insert into t values (1, 'b'); update t set v = 'still b'; insert into t values (2, '')",
    );
    pair.run(
        "set search_path = a, public; update t set v = 'a again'; set search_path = ''; delete from b.t where id = 2",
    );
    drains(&pair);
    assert_eq!(pair.on_slave("select v from t"), ["public"]);
    assert_eq!(pair.on_slave("select v from b.t"), ["still b"]);
}

#[test]
fn an_application_that_hides_the_builtin_operators_changes_nothing() {
    let pair = Pair::new();
    pair.exec_both("create schema evil; create table t (id int primary key, a text)");
    pair.create_triggers();
    pair.run(
        "create function evil.is_equal(text, text) returns boolean language sql as 'select true';
         create operator evil.= (leftarg = text, rightarg = text, function = evil.is_equal);
         create function evil.txid_current() returns bigint language sql as 'select 1::bigint';
         create function evil.nextval(regclass) returns bigint language sql as 'select 1::bigint'",
    );
    pair.run(
        "set search_path = evil, pg_catalog, public; insert into t values (1, 'a'); update t set a = 'b' where id = 1",
    );
    drains(&pair);
}
