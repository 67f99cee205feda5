//! Replays one change by itself, when its statement has not touched exactly one row.
//!
//! Unless the operator's CONFLICT rules say otherwise (`conflict_policy.rs`), the master wins and the daemon warns: a row
//! that differs gets the master's values, a row that is missing stays missing. Only two things are errors: an INSERT of a
//! row that exists already, and a change that the server refuses.

use crate::backlog::change::{Change, Event};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid, quote_ident, quote_literal};
use crate::config::conflict_policy::{Conflict, ConflictPolicies};
use crate::replay::statements::Shape;
use crate::replay::table::{Mismatch, Table};
use crate::server::session::{Session, TextRow};
use case::Case;

mod case;

/// SQLSTATE: another row has the same unique value.
const UNIQUE_VIOLATION: &str = "23505";

/// Between SAVEPOINT and RELEASE the search path is the application's (`Table::path`).
const SAVEPOINT: &str = "SAVEPOINT pyreplica_one;";
const RELEASE: &str = "RELEASE SAVEPOINT pyreplica_one; set local search_path = pg_catalog, pg_temp";
const ROLL_BACK: &str = "ROLLBACK TO SAVEPOINT pyreplica_one;";

/// A row of the slave that has the change's key.
struct Candidate {
    /// A condition on tableoid and ctid that finds the row.
    location: String,
    /// (column, its value in the log, its value in the row), both as the slave writes them.
    values: Vec<(String, Option<String>, Option<String>)>,
}

/// A conflict, and what was done about it.
#[derive(Debug)]
pub struct ConflictRecord {
    pub conflict: Conflict,
    pub id: LogId,
    pub txid: Txid,
    pub relation: String,
    /// Names and values, each as the text of an array.
    pub key: Option<String>,
    pub expected: Option<String>,
    pub found: Option<String>,
    pub new: Option<String>,
    pub done: &'static str,
    /// The text for the log.
    pub text: String,
    /// The rule for the conflict is `warn`, or there is none: the daemon warns the operator.
    pub is_warning: bool,
}

/// Replays one change. Returns the conflict, if there was one. `name` is free for a prepared statement.
pub fn replay_one(
    slave: &mut Session,
    table: &Table,
    change: &Change,
    name: &str,
    (policies, tells_values): (&ConflictPolicies, bool),
) -> Result<Option<ConflictRecord>> {
    let shape = Shape::of(change, table, true).map_err(|mismatch| mismatch_error(change, table, &mismatch))?;
    if shape.is_empty() {
        return Ok(None);
    }
    slave.message("replay", &format!("{SAVEPOINT}{}", table.path()))?;
    let case = Case { table, change, name, policies, tells_values };
    let unusual = match try_one(slave, &case, &shape) {
        // The violation may also come from the UPDATE of a row that differs, or of one of several rows with the key.
        Err(error) if change.event != Event::Delete && error.code() == Some(UNIQUE_VIOLATION) => {
            slave.message("roll back a change", &format!("{ROLL_BACK}{}", table.path()))?;
            Some(case.exists(slave, error)?)
        }
        tried => tried?,
    };
    slave.message("replay", RELEASE)?;
    Ok(unusual)
}

fn try_one(slave: &mut Session, case: &Case, shape: &Shape) -> Result<Option<ConflictRecord>> {
    let Case { table, change, name, policies, .. } = *case;
    // A row that is found by all its values does not differ.
    if change.event == Event::Delete
        && policies.watches_deletes(&change.relation)
        && !table.is_found_by_whole_row(change)
    {
        return case.delete_compared(slave, shape);
    }
    match (execute_alone(slave, name, shape, table, change)?, change.event) {
        (1, _) => Ok(None),
        (0, Event::Insert) => {
            // A trigger, a rule or the row-level security of the slave has kept the row out.
            Ok(Some(case.record(Conflict::InsertExists, None, "the slave did not take the row", "nothing", true)))
        }
        (0, Event::Update) => case.differs_or_missing(slave),
        (0, _) => case.missing(Conflict::DeleteMissing).map(Some),
        (rows, _) => {
            // Two rows may share a key that is checked at the end of a statement, while the master shifts the keys of many
            // rows.
            slave.message("roll back a change", &format!("{ROLL_BACK}{}", table.path()))?;
            case.exactly_one(slave, rows)
        }
    }
}

/// Executes a change and returns how many rows it touched. A statement that fails stays prepared, so each call needs
/// another name.
fn execute_alone(slave: &mut Session, name: &str, shape: &Shape, table: &Table, change: &Change) -> Result<u64> {
    let mut message = shape.prepare(name, table);
    message.push(';');
    shape.execute(name, change, table, &mut message);
    message.push_str(&format!("; DEALLOCATE {name}"));
    let counts = slave.message("replay", &message)?;
    Ok(counts.get(1).copied().unwrap_or(0))
}

fn most_similar(candidates: &[Candidate]) -> Option<&Candidate> {
    let equal = |c: &&Candidate| c.values.iter().filter(|(_, expected, found)| expected == found).count();
    candidates.iter().max_by_key(equal)
}

/// Locks the rows that have the change's key, and reads the logged and the present value of every logged column.
fn candidates(slave: &mut Session, table: &Table, change: &Change) -> Result<Vec<Candidate>> {
    if table.is_found_by_whole_row(change) {
        return Ok(Vec::new());
    }
    let (key, row) = match change.event {
        // The existing row that has the key of the new one.
        Event::Insert => (0, &change.new),
        _ => (table.key(change).map_err(|mismatch| mismatch_error(change, table, &mismatch))?, &change.old),
    };
    let Some(key) = table.keys.get(usize::from(key)) else { return Ok(Vec::new()) };
    let logged = table.positions_in(row);
    let value = |position: u16| row.get(&table.column(position).name).flatten();
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
    let condition: Vec<String> = key
        .iter()
        .map(|p| match value(*p) {
            Some(text) => format!(
                "{} {} {}::{}",
                quote_ident(&table.column(*p).name),
                table.column(*p).operator("="),
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
    let is = "OPERATOR(pg_catalog.=)";
    let location = format!("tableoid {is} {tableoid}::pg_catalog.oid AND ctid {is} '{ctid}'::pg_catalog.tid");
    Candidate { location, values }
}

/// Writes a change to the row at this place, and returns whether the slave has taken it.
fn write_at(slave: &mut Session, table: &Table, change: &Change, location: &str) -> Result<bool> {
    let sql = if change.event == Event::Delete {
        format!("DELETE FROM {} WHERE {location}", table.target)
    } else {
        let written = table.written(change).map_err(|mismatch| mismatch_error(change, table, &mismatch))?;
        let set: Vec<String> = written
            .iter()
            .map(|p| &table.column(*p).name)
            .map(|name| match change.new.get(name).flatten() {
                Some(text) => format!("{} = {}", quote_ident(name), quote_literal(text)),
                None => format!("{} = NULL", quote_ident(name)),
            })
            .collect();
        format!("UPDATE {} SET {} WHERE {location}", table.target, set.join(", "))
    };
    Ok(slave.message("replay", &sql)?.last() == Some(&1))
}

fn value_text(value: &Option<String>) -> String {
    value.as_deref().map_or_else(|| "NULL".into(), quote_literal)
}

/// For each deferrable unique constraint that this change may violate: a condition that is true if there is a duplicate.
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
            .map(|p| {
                let column = table.column(*p);
                let value = format!("{}::{}", quote_literal(value(*p)?), column.base_type);
                Some(format!("{} {} {value}", quote_ident(&column.name), column.operator("=")))
            })
            .collect();
        Some(format!("(SELECT count(*) FROM {} WHERE {}) > 1", table.target, terms?.join(" AND ")))
    })
}

/// The error for a change that does not fit the slave's table.
pub fn mismatch_error(change: &Change, table: &Table, mismatch: &Mismatch) -> Error {
    let (detail, hint) = match mismatch {
        Mismatch::NoSuchColumn(name) => (
            format!("the slave's table {} has no column {name}", table.shown),
            format!("ALTER TABLE {} ADD the column on the slave, as the master has it", table.shown),
        ),
        Mismatch::NoKey => (
            format!("nothing identifies a row of {}", table.shown),
            format!(
                "give {} a primary key, the same on both sides, or REPLICA IDENTITY FULL on the master",
                table.shown
            ),
        ),
    };
    let operation = format!("replay change {} of transaction {}", change.id, change.txid);
    Error::new(Kind::Change, Some(Side::Slave), operation, detail).with_hint(hint).with_change(change.id, change.txid)
}
