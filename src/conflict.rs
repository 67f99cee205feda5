//! The closer look: one change by itself, when it does not touch exactly the one row that it should.
//!
//! The master wins, with a warning: a row that differs gets the master's values, a row that is missing stays missing.
//! Only an INSERT of a row that is there already, and what the server refuses, is an error.

use crate::change::{Change, Event};
use crate::db::{Session, TextRow};
use crate::error::{Error, Kind, Result};
use crate::names::{Side, quote_ident, quote_literal};
use crate::render::{Shape, instruction};
use crate::table::{Misfit, Table};

const SAVEPOINT: &str = "SAVEPOINT pyreplica_one";
const RELEASE: &str = "RELEASE SAVEPOINT pyreplica_one";
const BACK: &str = "ROLLBACK TO SAVEPOINT pyreplica_one";

/// A row of the slave that a change may be about.
struct Candidate {
    /// `tableoid = ... AND ctid = ...`
    place: String,
    /// (column, what the log says it was, what it is), all as the slave writes them.
    values: Vec<(String, Option<String>, Option<String>)>,
}

/// Replays one change and says what was unusual about it, if something was. `name` is free for a prepared statement.
pub fn replay_one(slave: &mut Session, table: &Table, change: &Change, name: &str) -> Result<Option<String>> {
    let shape = Shape::of(change, table, true).map_err(|misfit| misfit_error(change, table, &misfit))?;
    if shape.is_empty() {
        return Ok(None);
    }
    slave.message("replay", SAVEPOINT)?;
    let touched = once(slave, name, &shape, table, change)?;
    let unusual = match (touched, change.event) {
        (1, _) => None,
        (0, Event::Insert) => Some(report(0, change, table, "the slave did not take the row")),
        (0, Event::Update) => differs_or_missing(slave, table, change, name)?,
        (0, _) => Some(report(0, change, table, "the row is missing on the slave")),
        (rows, _) => {
            // A key that is checked at the end of a statement is shared by two rows while it is being shifted.
            slave.message("take a change back", BACK)?;
            exactly_one(slave, table, change, rows)?
        }
    };
    slave.message("replay", RELEASE)?;
    Ok(unusual)
}

/// How many rows the change touched. A statement that fails stays prepared, so each needs a name of its own.
fn once(slave: &mut Session, name: &str, shape: &Shape, table: &Table, change: &Change) -> Result<u64> {
    let mut message = shape.prepare(name, table);
    message.push(';');
    shape.execute(name, change, table, &mut message);
    message.push_str(&format!("; DEALLOCATE {name}"));
    let counts = slave.message("replay", &message)?;
    Ok(counts.get(1).copied().unwrap_or(0))
}

/// An UPDATE that insisted on the old values found no row.
fn differs_or_missing(slave: &mut Session, table: &Table, change: &Change, name: &str) -> Result<Option<String>> {
    let candidates = candidates(slave, table, change)?;
    let Some(found) = best(&candidates) else {
        return Ok(Some(report(0, change, table, "the row is missing on the slave")));
    };
    let differences: Vec<String> = found
        .values
        .iter()
        .filter(|(_, expected, found)| expected != found)
        .map(|(name, expected, found)| {
            format!("{}: expected {}, found {}", quote_ident(name), shown(expected), shown(found))
        })
        .collect();
    if candidates.len() == 1 {
        let shape = Shape::of(change, table, false).map_err(|misfit| misfit_error(change, table, &misfit))?;
        once(slave, name, &shape, table, change)?;
    } else {
        at_place(slave, table, change, &found.place)?;
    }
    let what = format!("{}; the master's values were applied", differences.join(", "));
    Ok(Some(report(0, change, table, &what)))
}

/// Several rows fit the key: the one that is in every column what the master's was is the one.
fn exactly_one(slave: &mut Session, table: &Table, change: &Change, rows: u64) -> Result<Option<String>> {
    let candidates = candidates(slave, table, change)?;
    let Some(found) = best(&candidates) else {
        return Ok(Some(report(0, change, table, "the row is missing on the slave")));
    };
    at_place(slave, table, change, &found.place)?;
    let equal = found.values.iter().all(|(_, expected, found)| expected == found);
    Ok((!equal).then(|| report(rows, change, table, "several rows fit the key; the most similar one was taken")))
}

fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    let equal = |c: &&Candidate| c.values.iter().filter(|(_, expected, found)| expected == found).count();
    candidates.iter().max_by_key(equal)
}

/// The rows with the change's key, locked, with the logged and the present value of every logged column.
fn candidates(slave: &mut Session, table: &Table, change: &Change) -> Result<Vec<Candidate>> {
    let key = table.key(change).map_err(|misfit| misfit_error(change, table, &misfit))?;
    let logged = table.positions_in(&change.old);
    let value = |position: u16| change.old.get(&table.column(position).name).flatten();
    let columns: Vec<String> = logged
        .iter()
        .map(|p| (table.column(*p), value(*p)))
        .map(|(column, old)| {
            let expected = match old {
                Some(text) => format!("({}::{})::pg_catalog.text", quote_literal(text), column.full_type),
                None => "NULL".into(),
            };
            format!("{}::pg_catalog.text, {expected}", quote_ident(&column.name))
        })
        .collect();
    let condition: Vec<String> = table.keys[usize::from(key)]
        .iter()
        .map(|p| match value(*p) {
            Some(text) => format!(
                "{} = {}::{}",
                quote_ident(&table.column(*p).name),
                quote_literal(text),
                table.column(*p).base_type
            ),
            None => format!("{} IS NULL", quote_ident(&table.column(*p).name)),
        })
        .collect();
    let sql = format!(
        "SELECT tableoid, ctid, {} FROM {} WHERE {} FOR UPDATE",
        columns.join(", "),
        table.target,
        condition.join(" AND ")
    );
    let rows = slave.text_rows("look at the slave's row", &sql)?;
    Ok(rows.into_iter().map(|row| candidate(row, table, &logged)).collect())
}

fn candidate(row: TextRow, table: &Table, logged: &[u16]) -> Candidate {
    let mut values = row.into_iter();
    let mut next = || values.next().flatten();
    let (tableoid, ctid) = (next().unwrap_or_default(), next().unwrap_or_default());
    let values = logged
        .iter()
        .map(|p| {
            let (found, expected) = (next(), next());
            (table.column(*p).name.clone(), expected, found)
        })
        .collect();
    Candidate { place: format!("tableoid = {tableoid} AND ctid = '{ctid}'"), values }
}

fn at_place(slave: &mut Session, table: &Table, change: &Change, place: &str) -> Result<()> {
    let sql = if change.event == Event::Delete {
        format!("DELETE FROM {} WHERE {place}", table.target)
    } else {
        let written = table.written(change).map_err(|misfit| misfit_error(change, table, &misfit))?;
        let set: Vec<String> = written
            .iter()
            .map(|p| &table.column(*p).name)
            .map(|name| match change.new.get(name).flatten() {
                Some(text) => format!("{} = {}", quote_ident(name), quote_literal(text)),
                None => format!("{} = NULL", quote_ident(name)),
            })
            .collect();
        format!("UPDATE {} SET {} WHERE {place}", table.target, set.join(", "))
    };
    slave.message("replay", &sql).map(drop)
}

fn report(rows: u64, change: &Change, table: &Table, what: &str) -> String {
    let shown = instruction(change, Some(table));
    format!("Possible conflict ({rows} rows affected): {shown} (change {}): {what}", change.id)
}

fn shown(value: &Option<String>) -> String {
    value.as_deref().map_or_else(|| "NULL".into(), quote_literal)
}

/// For each deferrable unique constraint that this change may break: a condition that is true of a duplicate.
pub fn duplicates<'a>(change: &'a Change, table: &'a Table) -> impl Iterator<Item = String> + 'a {
    let name = |position: u16| &table.column(position).name;
    let breaks = move |columns: &&Vec<u16>| {
        change.event != Event::Delete
            && columns.iter().any(|p| change.event == Event::Insert || change.changes(name(*p)))
    };
    table.deferrable.iter().filter(breaks).filter_map(move |columns| {
        let value = |p: u16| change.new.get(name(p)).or(change.old.get(name(p))).flatten();
        // A NULL is equal to nothing.
        let terms: Option<Vec<String>> = columns
            .iter()
            .map(|p| Some(format!("{} = {}", quote_ident(name(*p)), quote_literal(value(*p)?))))
            .collect();
        Some(format!("(SELECT count(*) FROM {} WHERE {}) > 1", table.target, terms?.join(" AND ")))
    })
}

/// What the operator is told about a change that fits no statement.
pub fn misfit_error(change: &Change, table: &Table, misfit: &Misfit) -> Error {
    let (detail, hint) = match misfit {
        Misfit::NoSuchColumn(name) => (
            format!("the slave's table {} has no column {name}", table.shown),
            format!("ALTER TABLE {} ADD the column on the slave, as the master has it", table.shown),
        ),
        Misfit::NoKey => (
            format!("nothing identifies a row of {}", table.shown),
            format!("give {} a primary key, the same on both sides", table.shown),
        ),
    };
    let operation = format!("replay change {} of transaction {}", change.id, change.txid);
    Error::new(Kind::Change, Some(Side::Slave), operation, detail).with_hint(hint).with_change(change.id, change.txid)
}
