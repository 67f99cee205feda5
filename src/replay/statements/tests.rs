use super::*;
use crate::base::names::{LogId, Txid};
use crate::replay::table::Column;

fn row(columns: &[(&str, &str)]) -> Row {
    columns.iter().map(|(name, value)| (name.to_string(), Some(*value))).collect()
}

fn change(event: Event, old: Row, new: Row) -> Change {
    Change {
        id: LogId(1),
        txid: Txid(1),
        event,
        relation: "public.test".into(),
        old,
        new,
        sql: String::new(),
        origin: None,
    }
}

fn table() -> Table {
    let column = |name: &str, base: &str, full: &str| Column {
        name: name.into(),
        base_type: base.into(),
        full_type: full.into(),
        array_type: format!("{base}[]"),
        operators: Some("pg_catalog".into()),
        is_cast: false,
        generated: name == "twice",
        identity_always: name == "serial",
        is_probe: false,
    };
    let columns = vec![
        column("id1", "integer", "integer"),
        column("id2", "integer", "integer"),
        column("a", "character varying", "character varying(9)"),
        column("twice", "integer", "integer"),
        column("serial", "integer", "integer"),
    ];
    let key = vec!["id1".to_string(), "id2".to_string()];
    Table::new(3, String::new(), ("public", "test"), false, columns, &[key])
}

#[test]
fn an_update_writes_the_changed_columns_and_compares_their_old_values() {
    let table = table();
    let change = change(
        Event::Update,
        row(&[("id1", "1"), ("id2", "2"), ("a", "x"), ("twice", "2")]),
        row(&[("id1", "1"), ("id2", "2"), ("a", "it's"), ("twice", "4")]),
    );
    let shape = Shape::of(&change, &table, true).unwrap();
    assert_eq!(
        shape.prepare("p", &table),
        "PREPARE p (character varying, integer, integer, character varying) AS \
         UPDATE ONLY \"public\".\"test\" SET \"a\" = $1 WHERE \"id1\" OPERATOR(pg_catalog.=) $2 AND \
         \"id2\" OPERATOR(pg_catalog.=) $3 AND \
         \"a\"::pg_catalog.text COLLATE \"C\" IS NOT DISTINCT FROM \
         ($4::character varying(9))::pg_catalog.text COLLATE \"C\""
    );
    let mut message = String::new();
    shape.execute("p", &change, &table, &mut message);
    assert_eq!(message, "EXECUTE p('it''s','1','2','x')");
}

#[test]
fn generated_columns_are_left_to_the_slave() {
    let table = table();
    let change = change(Event::Insert, Row::default(), row(&[("id1", "1"), ("twice", "2")]));
    let shape = Shape::of(&change, &table, true).unwrap();
    assert_eq!(
        shape.prepare("p", &table),
        "PREPARE p (integer) AS INSERT INTO \"public\".\"test\" (\"id1\") OVERRIDING SYSTEM VALUE VALUES ($1)"
    );
}

#[test]
fn a_new_value_of_an_identity_column_replaces_the_row() {
    let table = table();
    let change = change(
        Event::Update,
        row(&[("id1", "1"), ("id2", "2"), ("serial", "5")]),
        row(&[("id1", "1"), ("id2", "2"), ("serial", "6")]),
    );
    let shape = Shape::of(&change, &table, false).unwrap();
    assert_eq!(
        shape.prepare("p", &table),
        "PREPARE p (integer, integer, integer) AS \
         WITH gone AS (DELETE FROM ONLY \"public\".\"test\" WHERE \"id1\" OPERATOR(pg_catalog.=) $2 AND \
         \"id2\" OPERATOR(pg_catalog.=) $3 RETURNING *) \
         INSERT INTO \"public\".\"test\" (\"id1\", \"id2\", \"a\", \"serial\") OVERRIDING SYSTEM VALUE \
         SELECT gone.\"id1\", gone.\"id2\", gone.\"a\", $1 FROM gone"
    );
}

#[test]
fn the_log_shows_the_instruction_as_the_original_did() {
    let table = table();
    let old = row(&[("id1", "1"), ("id2", "2"), ("a", "x")]);
    let new = row(&[("id1", "1"), ("id2", "2"), ("a", "123")]);
    let update = change(Event::Update, old.clone(), new.clone());
    assert_eq!(instruction(&update, Some(&table)), "UPDATE \"test\" SET \"a\"='123' WHERE \"id1\"='1' AND \"id2\"='2'");
    let insert = change(Event::Insert, Row::default(), new);
    assert_eq!(
        instruction(&insert, Some(&table)),
        "INSERT INTO \"test\" (\"id1\", \"id2\", \"a\") VALUES ('1', '2', '123')"
    );
    let delete = change(Event::Delete, old, Row::default());
    assert_eq!(instruction(&delete, Some(&table)), "DELETE FROM \"test\" WHERE \"id1\"='1' AND \"id2\"='2'");
}

#[test]
fn an_outline_has_no_value() {
    let table = table();
    let update = change(Event::Update, row(&[("id1", "1")]), row(&[("a", "secret")]));
    assert_eq!(outline(&update, Some(&table)), "UPDATE \"test\"");
    for (sql, shown) in [
        ("ALTER TABLE shop.orders ADD note text DEFAULT 'secret'", "ALTER TABLE shop.orders ADD note text ..."),
        ("update users set password='secret'", "update users set ..."),
        ("select f(42)", "select ..."),
        ("/* secret */ select 1", "..."),
        ("do $$ secret $$", "do ..."),
        ("select 42", "select ..."),
    ] {
        let mut statement = change(Event::Statement, Row::default(), Row::default());
        statement.sql = sql.to_string();
        assert_eq!(outline(&statement, None), shown);
    }
}

#[test]
fn a_long_instruction_is_cut() {
    let table = table();
    let insert = change(Event::Insert, Row::default(), row(&[("a", &"é".repeat(5000))]));
    let shown = instruction(&insert, Some(&table));
    assert!(
        shown.starts_with("INSERT INTO \"test\" (\"a\") VALUES ('éé") && shown.ends_with("... (10036 bytes)"),
        "{shown}"
    );
}

#[test]
fn a_column_that_the_slave_lacks_is_named() {
    let table = table();
    let change = change(Event::Insert, Row::default(), row(&[("id1", "1"), ("b", "2")]));
    assert_eq!(Shape::of(&change, &table, true), Err(Mismatch::NoSuchColumn("b".into())));
}

#[test]
fn an_exact_statement_fails_unless_it_touches_one_row() {
    let table = table();
    let delete = change(Event::Delete, row(&[("id1", "1"), ("id2", "2")]), Row::default());
    let shape = Shape::of(&delete, &table, true).unwrap();
    assert_eq!(
        shape.prepare_exact("p", &table),
        "PREPARE p (integer, integer) AS WITH done AS (DELETE FROM ONLY \"public\".\"test\" WHERE \
         \"id1\" OPERATOR(pg_catalog.=) $1 AND \"id2\" OPERATOR(pg_catalog.=) $2 RETURNING 1) \
         SELECT 1 OPERATOR(pg_catalog./) (pg_catalog.count(*) OPERATOR(pg_catalog.=) 1)::pg_catalog.int4 FROM done"
    );
}
