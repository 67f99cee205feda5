//! The closer look: one change by itself, when it does not touch exactly the one row that it should.
//!
//! Unless the operator has said otherwise (`policy.rs`), the master wins, with a warning: a row that differs gets the
//! master's values, a row that is missing stays missing. Only an INSERT of a row that is there already, and what the server
//! refuses, is an error.

use crate::backlog::change::{Change, Event};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid, quote_ident, quote_literal};
use crate::config::conflict_policy::{Conflict, ConflictPolicies};
use crate::replay::statements::Shape;
use crate::replay::table::{Misfit, Table};
use crate::server::session::{Session, TextRow};
use case::Case;

mod case;

/// SQLSTATE of a value that another row has.
const UNIQUE_VIOLATION: &str = "23505";

/// In between the search path is the application's (`sql::ITS_PATH`).
const SAVEPOINT: &str = "SAVEPOINT pyreplica_one; set local search_path to default";
const RELEASE: &str = "RELEASE SAVEPOINT pyreplica_one; set local search_path = pg_catalog, pg_temp";
const BACK: &str = "ROLLBACK TO SAVEPOINT pyreplica_one; set local search_path to default";

/// A row of the slave that a change may be about.
struct Candidate {
    /// A condition on tableoid and ctid.
    place: String,
    /// (column, what the log says it was, what it is), all as the slave writes them.
    values: Vec<(String, Option<String>, Option<String>)>,
}

/// What was unusual about a change, and what was done about it.
#[derive(Debug)]
pub struct Met {
    pub conflict: Conflict,
    pub id: LogId,
    pub txid: Txid,
    pub relation: String,
    /// Names and values, as the text of an array each.
    pub key: Option<String>,
    pub expected: Option<String>,
    pub found: Option<String>,
    pub new: Option<String>,
    pub done: &'static str,
    /// For whoever reads the log.
    pub text: String,
    /// The operator has said nothing about such a conflict, and is told.
    pub is_warning: bool,
}

/// Replays one change and says what was unusual about it, if something was. `name` is free for a prepared statement.
pub fn replay_one(
    slave: &mut Session,
    table: &Table,
    change: &Change,
    name: &str,
    policies: &ConflictPolicies,
) -> Result<Option<Met>> {
    let shape = Shape::of(change, table, true).map_err(|misfit| misfit_error(change, table, &misfit))?;
    if shape.is_empty() {
        return Ok(None);
    }
    slave.message("replay", SAVEPOINT)?;
    let case = Case { table, change, name, policies };
    let unusual = match try_one(slave, &case, &shape) {
        // Also of a row that is found to differ, or of several that fit the key.
        Err(error) if change.event != Event::Delete && error.code() == Some(UNIQUE_VIOLATION) => {
            slave.message("take a change back", BACK)?;
            Some(case.exists(slave, error)?)
        }
        tried => tried?,
    };
    slave.message("replay", RELEASE)?;
    Ok(unusual)
}

fn try_one(slave: &mut Session, case: &Case, shape: &Shape) -> Result<Option<Met>> {
    let Case { table, change, name, policies } = *case;
    if change.event == Event::Delete && policies.watches_deletes(&change.relation) {
        return case.delete_watched(slave, shape);
    }
    match (once(slave, name, shape, table, change)?, change.event) {
        (1, _) => Ok(None),
        (0, Event::Insert) => {
            // A trigger of the slave, or the slave's row level security, has a mind of its own.
            Ok(Some(case.met(Conflict::InsertExists, None, "the slave did not take the row", "nothing", true)))
        }
        (0, Event::Update) => case.differs_or_missing(slave),
        (0, _) => case.missing(Conflict::DeleteMissing).map(Some),
        (rows, _) => {
            // A key that is checked at the end of a statement is shared by two rows while it is being shifted.
            slave.message("take a change back", BACK)?;
            case.exactly_one(slave, rows)
        }
    }
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

fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    let equal = |c: &&Candidate| c.values.iter().filter(|(_, expected, found)| expected == found).count();
    candidates.iter().max_by_key(equal)
}

/// The rows with the change's key, locked, with the logged and the present value of every logged column.
fn candidates(slave: &mut Session, table: &Table, change: &Change) -> Result<Vec<Candidate>> {
    let (key, row) = match change.event {
        // The row that is in the way of a new one.
        Event::Insert => (0, &change.new),
        _ => (table.key(change).map_err(|misfit| misfit_error(change, table, &misfit))?, &change.old),
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
    let place = format!("tableoid {is} {tableoid}::pg_catalog.oid AND ctid {is} '{ctid}'::pg_catalog.tid");
    Candidate { place, values }
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
            .map(|p| {
                let column = table.column(*p);
                let value = format!("{}::{}", quote_literal(value(*p)?), column.base_type);
                Some(format!("{} {} {value}", quote_ident(&column.name), column.operator("=")))
            })
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
