//! Changes as SQL: the text that the log shows, and the prepared statements that replay them.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::Row;
use crate::base::names::{quote_ident, quote_literal};
use crate::base::shown::shown_sql;
use crate::replay::table::{Mismatch, Table};
use crate::replay::whole_row;
use std::cell::Cell;

/// What distinguishes one prepared statement from another. Changes of one shape differ in their values only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    table: u32,
    event: Event,
    /// Columns that are written.
    written: Vec<u16>,
    /// The number of the table's key that finds the row.
    key: u16,
    /// The columns whose values find the row, if no key does.
    compared: Option<Vec<u16>>,
    /// Those of the columns that find the row that are NULL, which a key that was named by hand may be.
    nulls: Vec<u16>,
    /// Whether an UPDATE compares the old values.
    guarded: bool,
}

/// Also stands for a value that the log does not hold.
const NULL: &str = "NULL";

impl Shape {
    /// With `guarded`, an UPDATE finds its row only if the columns that it changes hold the values that they held on the
    /// master.
    pub fn of(change: &Change, table: &Table, guarded: bool) -> Result<Shape, Mismatch> {
        let written = if change.event == Event::Delete { Vec::new() } else { table.written(change)? };
        let key = match (change.event, table.key(change)) {
            (Event::Insert, _) => 0,
            (_, Ok(key)) => key,
            (_, Err(_)) if table.is_found_by_whole_row(change) => {
                return Ok(Shape::of_whole_row(change, table, written));
            }
            (_, Err(mismatch)) => return Err(mismatch),
        };
        // A filter on UPDATE may withhold some UPDATEs of a row. The next one that passes is logged without old values and
        // sets every column.
        let guarded = guarded && written.iter().all(|p| change.old.has(&table.column(*p).name));
        let nulls = if change.event == Event::Insert { Vec::new() } else { table.nulls_in_key(change, key) };
        Ok(Shape { table: table.number, event: change.event, written, key, compared: None, nulls, guarded })
    }

    fn of_whole_row(change: &Change, table: &Table, written: Vec<u16>) -> Shape {
        let compared = table.compared(&change.old);
        let is_null = |p: &&u16| change.old.get(&table.column(**p).name) == Some(None);
        let nulls = compared.iter().filter(is_null).copied().collect();
        let (table, event) = (table.number, change.event);
        Shape { table, event, written, key: 0, compared: Some(compared), nulls, guarded: false }
    }

    /// Whether this is an UPDATE that changes only columns which the slave computes itself.
    pub fn is_empty(&self) -> bool {
        self.event == Event::Update && self.written.is_empty()
    }

    /// The columns whose old values an UPDATE compares. The key's columns are not among them, since they find the row.
    fn guards<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = u16> + 'a {
        let is_key = |position: &u16| table.keys[usize::from(self.key)].contains(position);
        self.written.iter().copied().filter(move |position| self.guarded && !is_key(position))
    }

    /// Whether an UPDATE has to delete the row and insert it again: it changes an identity column that is GENERATED ALWAYS.
    pub fn needs_delete_and_insert(&self, table: &Table) -> bool {
        self.event == Event::Update && self.written.iter().any(|p| table.column(*p).identity_always)
    }

    /// `PREPARE name (types) AS ...`
    pub fn prepare(&self, name: &str, table: &Table) -> String {
        self.prepared(name, table, |statement| statement)
    }

    /// The same for a statement that fails, by a division by zero, unless it touches exactly one row. Not for a shape that
    /// `needs_delete_and_insert`.
    pub fn prepare_exact(&self, name: &str, table: &Table) -> String {
        self.prepared(name, table, |statement| {
            format!(
                "WITH done AS ({statement} RETURNING 1) \
                 SELECT 1 OPERATOR(pg_catalog./) (pg_catalog.count(*) OPERATOR(pg_catalog.=) 1)::pg_catalog.int4 FROM done"
            )
        })
    }

    fn prepared(&self, name: &str, table: &Table, finish: impl Fn(String) -> String) -> String {
        let mut parameters = Parameters::default();
        let body = finish(match self.event {
            Event::Insert => self.insert(table, &mut parameters),
            Event::Delete => {
                format!("DELETE FROM {} WHERE {}", table.target, self.condition(table, &mut parameters))
            }
            _ if self.needs_delete_and_insert(table) => self.replace(table, &mut parameters),
            _ => self.update(table, &mut parameters),
        });
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

    /// Deletes the row and inserts it again. An identity column that is GENERATED ALWAYS takes a value in an INSERT only.
    fn replace(&self, table: &Table, parameters: &mut Parameters) -> String {
        let kept: Vec<u16> = (0..table.columns.len() as u16).filter(|p| !table.column(*p).generated).collect();
        let columns: Vec<String> = kept.iter().map(|p| quote_ident(&table.column(*p).name)).collect();
        // Parameters are numbered in the order in which `execute` writes the values: the written columns first.
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
        if let Some(compared) = &self.compared {
            let values = compared.iter().map(|p| (*p, parameters.add(&table.column(*p).base_type)));
            return whole_row::condition(table, &values.collect::<Vec<_>>(), |p| self.nulls.contains(&p));
        }
        let key = table.keys[usize::from(self.key)].iter();
        let mut terms: Vec<String> = key
            .map(|position| {
                let column = table.column(*position);
                if self.nulls.contains(position) {
                    return format!("{} IS NULL", quote_ident(&column.name));
                }
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
        if let Some(compared) = &self.compared {
            compared.iter().for_each(|p| push(&change.old, *p));
        } else if self.event != Event::Insert {
            let key = table.keys[usize::from(self.key)].iter().filter(|p| !self.nulls.contains(p));
            key.for_each(|p| push(&change.old, *p));
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

/// A condition that two expressions have the same text. It is true for two NULLs, and works for types without `=`.
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

/// A longer instruction is cut, so that the log and mails stay readable.
const SHOWN_BYTES: usize = 2_000;

/// `CREATE TABLE IF NOT EXISTS t`
const OUTLINE_WORDS: usize = 6;

/// A change as SQL, as the log shows it: `UPDATE "test" SET "a"='123' WHERE "id1"='1' AND "id2"='2'`.
pub fn instruction(change: &Change, table: Option<&Table>) -> String {
    let left_out = Cell::new(0);
    let mut shown = shown_sql(&whole_instruction(change, table, &left_out)).into_owned();
    if shown.len() > SHOWN_BYTES {
        let length = shown.len() + left_out.get();
        shown.truncate(boundary(&shown));
        shown.push_str(&format!("... ({length} bytes)"));
    }
    shown
}

/// The same without values: `UPDATE "test"`, and of a free statement what stands before the first value.
pub fn outline(change: &Change, table: Option<&Table>) -> String {
    let name = table.map_or(change.relation.as_str(), |table| &table.shown);
    match change.event {
        Event::Statement => shown_sql(&before_values(&change.sql)).into_owned(),
        Event::Truncate => format!("TRUNCATE {name}"),
        Event::Insert => format!("INSERT INTO {name}"),
        Event::Update => format!("UPDATE {name}"),
        Event::Delete => format!("DELETE FROM {name}"),
    }
}

/// The first words of a statement that can only be key words and names: a constant begins with a digit or a quote.
fn before_values(sql: &str) -> String {
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_alphabetic() || "_\"".contains(c))
            && word.chars().all(|c| c.is_alphanumeric() || "_.\"".contains(c))
    };
    let words: Vec<&str> = sql.split_whitespace().take_while(is_name).take(OUTLINE_WORDS).collect();
    format!("{} ...", words.join(" ")).trim_start().to_string()
}

/// How much of a longer text is shown.
fn boundary(text: &str) -> usize {
    (0..=SHOWN_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
}

/// Long values are cut already, and the bytes counted in `left_out`: each would be copied several times only to be cut.
fn whole_instruction(change: &Change, table: Option<&Table>, left_out: &Cell<usize>) -> String {
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
                positions.iter().map(|p| literal(change.new.get(&table.column(*p).name), left_out)).collect();
            format!("INSERT INTO {shown} ({}) VALUES ({})", names.join(", "), values.join(", "))
        }
        Event::Update => {
            let changed: Vec<u16> = table.positions_in(&change.new);
            let changed = changed.into_iter().filter(|p| change.changes(&table.column(*p).name));
            format!(
                "UPDATE {shown} SET {} WHERE {}",
                pairs(changed, (&change.new, table), ", ", left_out),
                shown_key(change, table, left_out)
            )
        }
        Event::Delete => format!("DELETE FROM {shown} WHERE {}", shown_key(change, table, left_out)),
    }
}

fn shown_key(change: &Change, table: &Table, left_out: &Cell<usize>) -> String {
    let key = match table.key(change) {
        Ok(key) => table.keys[usize::from(key)].clone(),
        Err(_) => table.positions_in(&change.old),
    };
    pairs(key.into_iter(), (&change.old, table), " AND ", left_out)
}

/// `"a"='1', "b"=NULL`
fn pairs(
    positions: impl Iterator<Item = u16>,
    (row, table): (&Row, &Table),
    separator: &str,
    left_out: &Cell<usize>,
) -> String {
    let pairs: Vec<String> = positions
        .map(|p| &table.column(p).name)
        .map(|name| format!("{}={}", quote_ident(name), literal(row.get(name), left_out)))
        .collect();
    pairs.join(separator)
}

fn literal(value: Option<Option<&str>>, left_out: &Cell<usize>) -> String {
    match value {
        Some(Some(text)) if text.len() > SHOWN_BYTES => {
            let end = boundary(text);
            left_out.set(left_out.get() + text.len() - end);
            quote_literal(&text[..end])
        }
        Some(Some(text)) => quote_literal(text),
        _ => NULL.to_string(),
    }
}

#[cfg(test)]
mod tests;
