//! The slave's tables as they are in the current transaction, and what to do if the columns of both sides differ.
//!
//! Before the first write to a table in a transaction, the daemon locks the table against changes of its definition and
//! compares its fingerprint. So it never sends a statement with outdated column types, although PostgreSQL does not inform
//! it when a column is added, renamed, dropped or given another type.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::ColumnNames;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::config::conflict_policy::{Conflict, ConflictAction, ConflictPolicies};
use crate::replay::sql;
use crate::replay::table::Table;
use crate::server::session::{Row, Session};
use definition::{add_constraints, columns, lists};
use noting::Noting;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

mod definition;
mod noting;

pub use noting::Note;

#[derive(Default)]
pub struct TableCache {
    known: HashMap<String, Table>,
    locked: HashSet<String>,
    /// The tables that could not be locked: the server's message, and the SQLSTATE.
    refused: HashMap<String, (String, Option<String>)>,
    policies: ConflictPolicies,
    /// The column lists of old and new rows that were checked: their table has all of these columns. No two tables share a
    /// list, so a list identifies the table too.
    checked_columns: Vec<(ColumnNames, ColumnNames)>,
    last_number: u32,
    /// The name of the prepared statement that reads fingerprints, if it is prepared.
    fingerprint_query: Option<String>,
    /// What is prepared for `lock_and_note`.
    noting: Noting,
    /// How many such names there have been.
    names_used: u32,
    /// The server could not read a message.
    has_unread: bool,
    /// Savepoints are messages of their own: the server may not be able to read the name of a table.
    is_careful: bool,
}

/// The limit of `checked_columns`.
const MAX_CHECKED_COLUMNS: usize = 16;

impl TableCache {
    pub fn new(policies: &ConflictPolicies) -> TableCache {
        TableCache { policies: policies.clone(), ..TableCache::default() }
    }

    /// Forgets the locks: the transaction that held them is over, or a free statement in it may have changed the tables.
    pub fn unlock(&mut self) {
        self.locked.clear();
        self.refused.clear();
        self.checked_columns.clear();
    }

    /// Forgets the prepared statements: a free statement may have deallocated them.
    pub fn forget_prepared(&mut self) {
        self.fingerprint_query = None;
        self.noting = Noting::default();
    }

    /// Whether the server could not read a message since the last call.
    pub fn take_unread(&mut self) -> bool {
        std::mem::take(&mut self.has_unread)
    }

    pub fn be_careful(&mut self, is_careful: bool) {
        self.is_careful = is_careful;
    }

    /// The tables of these changes that this transaction has not locked yet.
    pub fn not_yet_locked<'a>(&self, changes: &'a [Change]) -> Vec<&'a str> {
        let mut relations: Vec<&str> = Vec::new();
        for changes in changes.chunk_by(|a, b| a.relation == b.relation) {
            let relation = changes[0].relation.as_str();
            // A free statement has no table.
            if !relation.is_empty() && !self.locked.contains(relation) && !relations.contains(&relation) {
                relations.push(relation);
            }
        }
        relations
    }

    /// Locks tables, and reads their definitions if they are new or have changed.
    pub fn lock(&mut self, master: &mut Session, slave: &mut Session, relations: &[&str]) -> Result<()> {
        let mut changed = self.lock_all(slave, relations)?;
        changed.retain(|relation, fingerprint| {
            self.known.get(relation).is_none_or(|table| table.fingerprint != *fingerprint)
        });
        if !changed.is_empty() {
            self.load(master, slave, &changed)?;
        }
        self.locked.extend(relations.iter().map(|relation| relation.to_string()));
        Ok(())
    }

    /// Reads the foreign keys of tables, and those of others that refer to them. Call `lock` for the tables first.
    pub fn load_foreign_keys<'a>(
        &mut self,
        slave: &mut Session,
        relations: impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        // The slave may lack a table, and even the characters of its name.
        let is_locked = |name: &&str| self.known.contains_key(*name) && !self.refused.contains_key(*name);
        let relations: Vec<&str> = relations.filter(is_locked).collect::<HashSet<&str>>().into_iter().collect();
        for row in slave.query("look at the foreign keys", sql::LINKS, &[&relations])? {
            if let Some(table) = self.known.get_mut(row.get::<_, &str>("relation")) {
                table.set_foreign_keys(&lists(&row, "refers"), &lists(&row, "referred"));
            }
        }
        Ok(())
    }

    /// The statement that sets the search path for writing these changes. Call `lock` for their tables first.
    pub fn path<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> &'static str {
        let is_by_name = |change: &Change| self.known.get(&change.relation).is_some_and(|table| table.by_name);
        if changes.into_iter().any(is_by_name) { sql::NAMES_PATH } else { sql::APPLICATION_PATH }
    }

    /// The table of a change. Call `lock` for it first.
    pub fn get(&self, change: &Change) -> Result<&Table> {
        let relation = &change.relation;
        let refused = match (self.known.get(relation), self.refused.get(relation)) {
            (Some(table), None) if !table.only_truncated || change.event == Event::Truncate => return Ok(table),
            (Some(_), None) => Some((unknown_name(relation), None)),
            (_, refused) => refused.cloned(),
        };
        let (detail, code) = refused.unwrap_or_else(|| (format!("relation {relation} is not a table"), None));
        let operation = format!("replay change {} of transaction {} on {relation}", change.id, change.txid);
        let hint = if detail == unknown_name(relation) { UNKNOWN_NAME } else { NO_TABLE };
        let error = Error::new(Kind::Change, Some(Side::Slave), operation, detail)
            .with_change(change.id, change.txid)
            .with_hint(hint);
        Err(match code {
            Some(code) => error.with_code(&code),
            None => error,
        })
    }

    /// Locks the tables that can be locked. Returns the fingerprints of those that exist.
    fn lock_all(&mut self, slave: &mut Session, relations: &[&str]) -> Result<HashMap<String, String>> {
        let all: String = relations.iter().map(|relation| lock(relation) + ";").collect();
        let query = self.fingerprint_statement(relations);
        if let Ok(found) = self.guarded(slave, &format!("{all}{query}"))? {
            return Ok(found);
        }
        // One table cannot be locked. The changes of the others are replayed all the same, up to the first change that
        // needs it.
        for relation in relations {
            if let Err(error) = self.guarded(slave, &format!("{};", lock(relation)))? {
                self.known.remove(*relation);
                let refusal = (error.detail().to_string(), error.code().map(str::to_string));
                self.refused.insert(relation.to_string(), refusal);
            }
        }
        let is_locked = |relation: &&str| !self.refused.contains_key(*relation);
        let query = self.fingerprint_statement(&relations.iter().copied().filter(is_locked).collect::<Vec<_>>());
        self.guarded(slave, &query)?
    }

    /// The statement that reads fingerprints. It is sent together with the LOCKs and runs when they are granted.
    fn fingerprint_statement(&mut self, relations: &[&str]) -> String {
        let (name, prepare) = match self.fingerprint_query.take() {
            Some(name) => (name, String::new()),
            None => {
                let name = self.new_name();
                let prepare = format!("PREPARE {name} (text[]) AS {};", sql::FINGERPRINT);
                (name, prepare)
            }
        };
        let query = format!("{prepare} EXECUTE {name} ({});", array(relations.iter().copied()));
        self.fingerprint_query = Some(name);
        query
    }

    fn new_name(&mut self) -> String {
        self.names_used += 1;
        format!("pyreplica_look_{}", self.names_used)
    }

    /// Runs statements after a savepoint. If the server refuses one, it rolls back to the savepoint and returns the refusal
    /// as the inner error.
    fn guarded(&mut self, slave: &mut Session, sql: &str) -> Result<Result<HashMap<String, String>>> {
        let mut begin = "SAVEPOINT pyreplica_lock;";
        if self.is_careful {
            slave.message("lock tables", begin)?;
            begin = "";
        }
        let message = format!("{begin} {sql} RELEASE SAVEPOINT pyreplica_lock");
        match slave.text_rows("lock tables", &message) {
            Ok(rows) => {
                Ok(Ok(rows.into_iter().filter_map(|row| Some((row.first()?.clone()?, row.get(1)?.clone()?))).collect()))
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                // It is unknown whether the server has executed the PREPARE.
                self.fingerprint_query = None;
                match slave.message("roll back the locks", "ROLLBACK TO SAVEPOINT pyreplica_lock") {
                    // The server has not set it: it could not read the message.
                    Err(missing) if missing.code() == Some(sql::NO_SAVEPOINT) => {
                        self.has_unread = true;
                        Err(error)
                    }
                    done => done.map(|_| Err(error)),
                }
            }
        }
    }

    /// Reads the definitions of these tables; the fingerprints are those that they have now.
    fn load(&mut self, master: &mut Session, slave: &mut Session, changed: &HashMap<String, String>) -> Result<()> {
        let relations: Vec<&str> = changed.keys().map(String::as_str).collect();
        let rows = slave.query("look at the tables", &sql::TABLE, &[&relations])?;
        let keys = master.query("look at the keys", sql::KEY, &[&relations])?;
        let is_unknown = |relation: &str| {
            !keys.iter().any(|key| key.get::<_, &str>("relation") == relation && key.get::<_, bool>("known"))
        };
        for relation in relations.iter().filter(|relation| is_unknown(relation)) {
            self.known.remove(*relation);
            let is_partition = |row: &Row| row.get::<_, &str>("relation") == *relation && row.get("partition");
            if !rows.iter().any(is_partition) {
                self.refused.insert(relation.to_string(), (unknown_name(relation), None));
            }
        }
        for row in &rows {
            let relation: &str = row.get("relation");
            let master_key = keys.iter().find(|key| key.get::<_, &str>("relation") == relation);
            // If a trigger was created by hand, its arguments name the key. Otherwise the slave's primary key finds the row
            // by an index; if the log does not hold the columns of that key, the master's primary key does, or the index of
            // its REPLICA IDENTITY.
            let candidates: Vec<Vec<String>> = [
                master_key.and_then(|key| key.get("arguments")),
                row.get("key"),
                master_key.and_then(|key| key.get("key")),
                master_key.and_then(|key| key.get("identity")),
            ]
            .into_iter()
            .flatten()
            .collect();
            self.noting.forget(relation);
            self.last_number += 1;
            let name = (row.get("schema"), row.get("name"));
            let fingerprint = changed[relation].clone();
            let mut table =
                Table::new(self.last_number, fingerprint, name, row.get("partitioned"), columns(row), &candidates);
            add_constraints(&mut table, row);
            let action = self.policies.of(relation, Conflict::UpdateDiffers);
            table.whole_rows = matches!(action, ConflictAction::Newest(_));
            table.by_name = row.get("by_name");
            table.only_truncated = is_unknown(relation);
            let computed = master_key.map(|key| key.get::<_, Vec<String>>("computed")).unwrap_or_default();
            let is_plain = |name: &String| table.position(name).is_some_and(|p| !table.column(p).generated);
            table.not_logged = computed.into_iter().filter(is_plain).collect();
            self.known.insert(relation.to_string(), table);
        }
        Ok(())
    }

    /// Whether the table, as it is known, has all columns of the change.
    fn has_all_columns(&mut self, change: &Change) -> bool {
        let is_known = |(old, new): &(ColumnNames, ColumnNames)| {
            Arc::ptr_eq(old, change.old.names()) && Arc::ptr_eq(new, change.new.names())
        };
        if self.checked_columns.iter().any(is_known) {
            return true;
        }
        let fits = self.get(change).is_ok_and(|table| {
            change.columns().all(|name| table.has(name)) && !table.not_logged.iter().any(|name| change.new.has(name))
        });
        if fits {
            if self.checked_columns.len() == MAX_CHECKED_COLUMNS {
                self.checked_columns.clear();
            }
            self.checked_columns.push((change.old.names().clone(), change.new.names().clone()));
        }
        fits
    }

    /// Adapts a change to the slave's table, if the change has columns that the table lacks.
    ///
    /// A column that neither side has any more was dropped or renamed while the change was pending. The change loses the
    /// column or gets its new name, if only one of the two is possible. Otherwise the change fails, so that no value is
    /// lost.
    pub fn reconcile(&mut self, master: &mut Session, change: &mut Change) -> Result<()> {
        if let Some(table) = self.known.get_mut(&change.relation) {
            table.add_key_for(change);
        }
        if self.has_all_columns(change) {
            return Ok(());
        }
        let Ok(table) = self.get(change) else { return Ok(()) };
        let is_lost = |name: &&String| change.new.get(name) == Some(None);
        if let Some(name) = table.not_logged.iter().find(is_lost).filter(|_| change.event == Event::Insert) {
            return Err(virtual_column(table, name));
        }
        let missing: Vec<String> = change.columns().filter(|name| !table.has(name)).cloned().collect();
        let row = master.query_one("look at the master's columns", sql::COLUMNS, &[&change.relation])?;
        let (names, lost): (Vec<String>, bool) = (row.get("names"), row.get("lost"));
        if names.is_empty() || missing.iter().any(|name| names.contains(name)) {
            return Ok(());
        }
        // An UPDATE of a large row is logged in part: its key is in the old row only.
        let whole = change.event != Event::Update || change.new.len() >= change.old.len();
        let logged: HashSet<&String> = change.columns().collect();
        let added: Vec<&String> = names.iter().filter(|name| !logged.contains(name) && table.has(name)).collect();
        match (added.as_slice(), missing.as_slice()) {
            ([], _) if whole => missing.iter().for_each(|name| change.leave_out(name)),
            ([to], [from]) if whole && !lost => change.rename(from, to),
            _ => return Err(ambiguous_column(table, &missing)),
        }
        Ok(())
    }
}

const NO_TABLE: &str =
    "create the table on the slave as the master has it, or give the daemon's role the right to write it";

const UNKNOWN_NAME: &str = "was a table of the master renamed, or moved to another schema? If the slave's table of this name is \
     the same table, let the owner of the log run on the master: SELECT py_log_create_tg('SCHEMA', 'TABLE'); otherwise \
     pyreplica skip";

fn unknown_name(relation: &str) -> String {
    format!("no table of the master is known to have triggers of pyreplica under the name {relation}")
}

fn lock(relation: &str) -> String {
    format!("LOCK TABLE {relation} IN ROW EXCLUSIVE MODE")
}

fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    format!("ARRAY[{}]::pg_catalog.text[]", texts.map(quote_literal).collect::<Vec<String>>().join(", "))
}

fn virtual_column(table: &Table, name: &str) -> Error {
    let detail = format!(
        "the master computes the column {name} of {} when it is read (VIRTUAL), so the log does not have it, and the slave \
         does not compute it",
        table.shown
    );
    Error::new(Kind::Change, Some(Side::Slave), "read the change", detail).with_hint(
        "make it a generated column on the slave too; or let the slave do without it: drop it there, and leave it out by a row \
         of py_log_transform with expression NULL",
    )
}

fn ambiguous_column(table: &Table, missing: &[String]) -> Error {
    let detail = format!(
        "on both sides the table {} has no column {} any more, and it may have been dropped or renamed",
        table.shown,
        missing.join(", ")
    );
    Error::new(Kind::Change, Some(Side::Slave), "read the change", detail)
        .with_hint("give the slave's column its old name until the older changes have been replayed")
}
