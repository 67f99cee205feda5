//! Changes as SQL: what the log shows, and the prepared statements that replay them.

use crate::change::{Change, Event};
use crate::names::{quote_ident, quote_literal};
use crate::row::Row;
use crate::table::{Misfit, Table};

/// What one prepared statement is made for. Changes of one shape differ in their values only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    table: u32,
    event: Event,
    /// Columns that are written.
    written: Vec<u16>,
    /// Which of the table's keys finds the row.
    key: u16,
    /// Whether an UPDATE insists on the old values.
    guarded: bool,
}

/// Marks a guarded value of a missing column; every changed column of an UPDATE has its old value in the log.
const NULL: &str = "NULL";

impl Shape {
    /// `guarded` makes an UPDATE find its row only if the columns it changes hold the values they held on the master.
    pub fn of(change: &Change, table: &Table, guarded: bool) -> Result<Shape, Misfit> {
        let written = if change.event == Event::Delete { Vec::new() } else { table.written(change)? };
        let key = if change.event == Event::Insert { 0 } else { table.key(change)? };
        // A filter on UPDATE withholds some: the next one that passes is logged without old values and sets every column.
        let guarded = guarded && written.iter().all(|p| change.old.has(&table.column(*p).name));
        Ok(Shape { table: table.number, event: change.event, written, key, guarded })
    }

    /// An UPDATE whose changed columns are all computed by the slave itself.
    pub fn is_empty(&self) -> bool {
        self.event == Event::Update && self.written.is_empty()
    }

    /// The columns whose old values an UPDATE insists on; those of the key find the row already.
    fn guards<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = u16> + 'a {
        let key = &table.keys[usize::from(self.key)];
        self.written.iter().copied().filter(move |position| self.guarded && !key.contains(position))
    }

    /// `PREPARE name (types) AS ...`
    pub fn prepare(&self, name: &str, table: &Table) -> String {
        let mut parameters = Parameters::default();
        let body = match self.event {
            Event::Insert => self.insert(table, &mut parameters),
            Event::Delete => {
                format!("DELETE FROM {} WHERE {}", table.target, self.condition(table, &mut parameters))
            }
            _ if self.written.iter().any(|p| table.column(*p).identity_always) => self.replace(table, &mut parameters),
            _ => self.update(table, &mut parameters),
        };
        let types = parameters.types.join(", ");
        if types.is_empty() {
            format!("PREPARE {name} AS {body}")
        } else {
            format!("PREPARE {name} ({types}) AS {body}")
        }
    }

    fn insert(&self, table: &Table, parameters: &mut Parameters) -> String {
        if self.written.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", table.plain_target());
        }
        let columns: Vec<String> = self.written.iter().map(|p| quote_ident(&table.column(*p).name)).collect();
        let values: Vec<String> = self.written.iter().map(|p| parameters.add(&table.column(*p).base_type)).collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            table.plain_target(),
            columns.join(", "),
            values.join(", ")
        )
    }

    fn update(&self, table: &Table, parameters: &mut Parameters) -> String {
        let set: Vec<String> = self
            .written
            .iter()
            .map(|p| table.column(*p))
            .map(|column| format!("{} = {}", quote_ident(&column.name), parameters.add(&column.base_type)))
            .collect();
        format!("UPDATE {} SET {} WHERE {}", table.target, set.join(", "), self.condition(table, parameters))
    }

    /// An identity column that is GENERATED ALWAYS takes a value in an INSERT only.
    fn replace(&self, table: &Table, parameters: &mut Parameters) -> String {
        let kept: Vec<u16> = (0..table.columns.len() as u16).filter(|p| !table.column(*p).generated).collect();
        let columns: Vec<String> = kept.iter().map(|p| quote_ident(&table.column(*p).name)).collect();
        // Parameters are numbered in the order that `execute` gives the values in: the written columns first.
        let values: Vec<(u16, String)> =
            self.written.iter().map(|p| (*p, parameters.add(&table.column(*p).base_type))).collect();
        let selected: Vec<String> = kept
            .iter()
            .map(|p| match values.iter().find(|(written, _)| written == p) {
                Some((_, parameter)) => parameter.clone(),
                None => format!("gone.{}", quote_ident(&table.column(*p).name)),
            })
            .collect();
        format!(
            "WITH gone AS (DELETE FROM {} WHERE {} RETURNING *) \
             INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM gone",
            table.target,
            self.condition(table, parameters),
            table.plain_target(),
            columns.join(", "),
            selected.join(", ")
        )
    }

    fn condition(&self, table: &Table, parameters: &mut Parameters) -> String {
        let key = table.keys[usize::from(self.key)].iter().map(|p| table.column(*p));
        let mut terms: Vec<String> = key
            .map(|column| {
                let value = parameters.add(&column.base_type);
                format!("{} {} {value}", quote_ident(&column.name), column.operator("="))
            })
            .collect();
        if self.event == Event::Update {
            for position in self.guards(table) {
                let column = table.column(position);
                let parameter = parameters.add(&column.base_type);
                terms.push(same(&quote_ident(&column.name), &format!("{parameter}::{}", column.full_type)));
            }
        }
        terms.join(" AND ")
    }

    /// `EXECUTE name (values)`
    pub fn execute(&self, name: &str, change: &Change, table: &Table, message: &mut String) {
        message.push_str("EXECUTE ");
        message.push_str(name);
        let mut separator = '(';
        let mut push = |row: &Row, position: u16| {
            message.push(separator);
            separator = ',';
            push_value(message, row.get(&table.column(position).name).flatten());
        };
        self.written.iter().for_each(|p| push(&change.new, *p));
        if self.event != Event::Insert {
            table.keys[usize::from(self.key)].iter().for_each(|p| push(&change.old, *p));
        }
        if self.event == Event::Update {
            self.guards(table).for_each(|p| push(&change.old, p));
        }
        if separator == ',' {
            message.push(')');
        }
    }
}

#[derive(Default)]
struct Parameters {
    types: Vec<String>,
}

impl Parameters {
    fn add(&mut self, base_type: &str) -> String {
        self.types.push(base_type.to_string());
        format!("${}", self.types.len())
    }
}

/// Exact equality of two expressions, NULLs included, for types without `=` too: their texts are the same.
fn same(left: &str, right: &str) -> String {
    format!("{left}::pg_catalog.text COLLATE \"C\" IS NOT DISTINCT FROM ({right})::pg_catalog.text COLLATE \"C\"")
}

fn push_value(message: &mut String, value: Option<&str>) {
    let Some(text) = value else {
        message.push_str(NULL);
        return;
    };
    message.push('\'');
    let mut parts = text.split('\'');
    message.push_str(parts.next().unwrap_or_default());
    for part in parts {
        message.push_str("''");
        message.push_str(part);
    }
    message.push('\'');
}

/// More of an instruction than this is not shown: the log is to be read, and a mail too.
const SHOWN_BYTES: usize = 2_000;

/// The instruction that a change stands for, as the log shows it:
/// `UPDATE "test" SET "a"='123' WHERE "id1"='1' AND "id2"='2'`.
pub fn instruction(change: &Change, table: Option<&Table>) -> String {
    let mut shown = whole_instruction(change, table);
    if shown.len() > SHOWN_BYTES {
        let length = shown.len();
        let end = (0..=SHOWN_BYTES).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or(0);
        shown.truncate(end);
        shown.push_str(&format!("... ({length} bytes)"));
    }
    shown
}

fn whole_instruction(change: &Change, table: Option<&Table>) -> String {
    let Some(table) = table else {
        return match change.event {
            Event::Statement => change.sql.clone(),
            _ => format!("{:?} {}", change.event, change.relation).to_uppercase(),
        };
    };
    let shown = &table.shown;
    match change.event {
        Event::Statement => change.sql.clone(),
        Event::Truncate => format!("TRUNCATE {shown}"),
        Event::Insert => {
            let positions = table.positions_in(&change.new);
            let names: Vec<String> = positions.iter().map(|p| quote_ident(&table.column(*p).name)).collect();
            let values: Vec<String> =
                positions.iter().map(|p| literal(change.new.get(&table.column(*p).name))).collect();
            format!("INSERT INTO {shown} ({}) VALUES ({})", names.join(", "), values.join(", "))
        }
        Event::Update => {
            let changed: Vec<u16> = table.positions_in(&change.new);
            let changed = changed.into_iter().filter(|p| change.changes(&table.column(*p).name));
            format!(
                "UPDATE {shown} SET {} WHERE {}",
                pairs(changed, &change.new, table, ", "),
                shown_key(change, table)
            )
        }
        Event::Delete => format!("DELETE FROM {shown} WHERE {}", shown_key(change, table)),
    }
}

fn shown_key(change: &Change, table: &Table) -> String {
    let key = match table.key(change) {
        Ok(key) => table.keys[usize::from(key)].clone(),
        Err(_) => table.positions_in(&change.old),
    };
    pairs(key.into_iter(), &change.old, table, " AND ")
}

/// `"a"='1', "b"=NULL`
fn pairs(positions: impl Iterator<Item = u16>, row: &Row, table: &Table, separator: &str) -> String {
    let pairs: Vec<String> = positions
        .map(|p| &table.column(p).name)
        .map(|name| format!("{}={}", quote_ident(name), literal(row.get(name))))
        .collect();
    pairs.join(separator)
}

fn literal(value: Option<Option<&str>>) -> String {
    match value {
        Some(Some(text)) => quote_literal(text),
        _ => NULL.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{LogId, Txid};
    use crate::table::Column;

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
    fn an_update_writes_what_changed_and_insists_on_what_it_was() {
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
        assert_eq!(
            instruction(&update, Some(&table)),
            "UPDATE \"test\" SET \"a\"='123' WHERE \"id1\"='1' AND \"id2\"='2'"
        );
        let insert = change(Event::Insert, Row::default(), new);
        assert_eq!(
            instruction(&insert, Some(&table)),
            "INSERT INTO \"test\" (\"id1\", \"id2\", \"a\") VALUES ('1', '2', '123')"
        );
        let delete = change(Event::Delete, old, Row::default());
        assert_eq!(instruction(&delete, Some(&table)), "DELETE FROM \"test\" WHERE \"id1\"='1' AND \"id2\"='2'");
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
        assert_eq!(Shape::of(&change, &table, true), Err(Misfit::NoSuchColumn("b".into())));
    }
}
