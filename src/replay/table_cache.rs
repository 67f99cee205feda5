//! The slave's tables as they are in the transaction in hand, and what to do when the two sides' columns differ.
//!
//! A table is locked against changes of its definition before it is first written to in a transaction, and its
//! fingerprint is compared then. So no statement is ever sent with the types that a column had some time ago, although
//! nobody tells the daemon when a column is added, renamed, dropped or retyped.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::ColumnNames;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::config::conflict_policy::{Conflict, ConflictAction, ConflictPolicies};
use crate::replay::sql;
use crate::replay::table::{Column, Table};
use crate::server::session::{Row, Session};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Default)]
pub struct TableCache {
    known: HashMap<String, Table>,
    locked: HashSet<String>,
    /// What the server said when a table could not be locked.
    refused: HashMap<String, (String, Option<String>)>,
    policies: ConflictPolicies,
    /// Columns of old and new rows that their table has, all of them. No two tables share these lists.
    fitting: Vec<(ColumnNames, ColumnNames)>,
    made: u32,
    /// The statement that asks for fingerprints and the one that insists on them, as far as they are prepared, and how many
    /// there have been.
    look: Option<String>,
    insistence: Option<String>,
    looks: u32,
}

/// Kept of these.
const MAX_FITTING: usize = 16;

impl TableCache {
    pub fn new(policies: &ConflictPolicies) -> TableCache {
        TableCache { policies: policies.clone(), ..TableCache::default() }
    }

    /// The transaction that held the locks is over, or a statement in it may have changed the tables.
    pub fn unlock(&mut self) {
        self.locked.clear();
        self.refused.clear();
        self.fitting.clear();
    }

    /// A statement may have dropped everything that was prepared.
    pub fn forget_prepared(&mut self) {
        self.look = None;
        self.insistence = None;
    }

    /// The tables of these changes that this transaction has not locked yet.
    pub fn unlocked<'a>(&self, changes: &'a [Change]) -> Vec<&'a str> {
        let mut fresh: Vec<&str> = Vec::new();
        for changes in changes.chunk_by(|a, b| a.relation == b.relation) {
            let relation = changes[0].relation.as_str();
            // A free statement has none.
            if !relation.is_empty() && !self.locked.contains(relation) && !fresh.contains(&relation) {
                fresh.push(relation);
            }
        }
        fresh
    }

    /// The statements that lock the tables of these changes and fail if one of them is not as it is known; if all of them are
    /// known and have the columns. `nothing` is a query, and that it finds something is as bad.
    pub fn insist(&mut self, changes: &[Change], nothing: Option<&str>) -> Option<Vec<String>> {
        if !changes.iter().all(|change| self.fits(change)) {
            return None;
        }
        let fresh = self.unlocked(changes);
        let mut statements: Vec<String> = fresh.iter().map(|relation| lock(relation)).collect();
        let fingerprints = fresh.iter().filter_map(|relation| Some(self.known.get(*relation)?.fingerprint.as_str()));
        let (fingerprints, relations) = (array(fingerprints), array(fresh.iter().copied()));
        let name = self.insistence.take().unwrap_or_else(|| {
            let name = self.fresh_name();
            statements.push(format!("PREPARE {name} (text[], text[]) AS {}", sql::insist(nothing)));
            name
        });
        statements.push(format!("EXECUTE {name} ({relations}, {fingerprints})"));
        self.insistence = Some(name);
        Some(statements)
    }

    /// Locks tables, and learns them anew if they have changed.
    pub fn lock(&mut self, master: &mut Session, slave: &mut Session, fresh: &[&str]) -> Result<()> {
        let mut changed = self.lock_all(slave, fresh)?;
        changed.retain(|relation, fingerprint| {
            self.known.get(relation).is_none_or(|table| table.fingerprint != *fingerprint)
        });
        if !changed.is_empty() {
            self.learn(master, slave, &changed)?;
        }
        self.locked.extend(fresh.iter().map(|relation| relation.to_string()));
        Ok(())
    }

    /// Learns the foreign keys of tables, and to them, as they are now; `lock` has been asked for the tables.
    pub fn link<'a>(&mut self, slave: &mut Session, relations: impl Iterator<Item = &'a str>) -> Result<()> {
        let relations: Vec<&str> = relations.collect::<HashSet<&str>>().into_iter().collect();
        for row in slave.query("look at the foreign keys", sql::LINKS, &[&relations])? {
            if let Some(table) = self.known.get_mut(row.get::<_, &str>("relation")) {
                table.link(&lists(&row, "refers"), &lists(&row, "referred"));
            }
        }
        Ok(())
    }

    /// The table a change is about; `lock` has been asked for it.
    pub fn get(&self, change: &Change) -> Result<&Table> {
        let relation = &change.relation;
        if let (Some(table), None) = (self.known.get(relation), self.refused.get(relation)) {
            return Ok(table);
        }
        let (detail, code) = self
            .refused
            .get(relation)
            .cloned()
            .unwrap_or_else(|| (format!("relation {relation} is not a table"), None));
        let operation = format!("replay change {} of transaction {} on {relation}", change.id, change.txid);
        let error = Error::new(Kind::Change, Some(Side::Slave), operation, detail)
            .with_change(change.id, change.txid)
            .with_hint(
                "create the table on the slave as the master has it, or give the daemon's role the right to write it",
            );
        Err(match code {
            Some(code) => error.with_code(&code),
            None => error,
        })
    }

    /// Locks tables, as far as it can; the fingerprints of all that there are.
    fn lock_all(&mut self, slave: &mut Session, relations: &[&str]) -> Result<HashMap<String, String>> {
        let all: String = relations.iter().map(|relation| lock(relation) + ";").collect();
        let look = self.look(relations);
        if let Ok(found) = self.guarded(slave, &format!("{all}{look}"))? {
            return Ok(found);
        }
        // One of them cannot be locked; the changes of the others are replayed all the same, up to the first that needs it.
        for relation in relations {
            if let Err(error) = self.guarded(slave, &format!("{};", lock(relation)))? {
                self.known.remove(*relation);
                let refusal = (error.detail().to_string(), error.code().map(str::to_string));
                self.refused.insert(relation.to_string(), refusal);
            }
        }
        let look = self.look(relations);
        self.guarded(slave, &look)?
    }

    /// A statement that asks for fingerprints. It comes with the locks, but sees what there is when it has them.
    fn look(&mut self, relations: &[&str]) -> String {
        let (name, prepare) = match self.look.take() {
            Some(name) => (name, String::new()),
            None => {
                let name = self.fresh_name();
                let prepare = format!("PREPARE {name} (text[]) AS {};", sql::FINGERPRINT);
                (name, prepare)
            }
        };
        let look = format!("{prepare} EXECUTE {name} ({});", array(relations.iter().copied()));
        self.look = Some(name);
        look
    }

    fn fresh_name(&mut self) -> String {
        self.looks += 1;
        format!("pyreplica_look_{}", self.looks)
    }

    /// Runs statements behind a savepoint. When the server refuses one, they are taken back, and the error is the inner one.
    fn guarded(&mut self, slave: &mut Session, sql: &str) -> Result<Result<HashMap<String, String>>> {
        let message = format!("SAVEPOINT pyreplica_lock; {sql} RELEASE SAVEPOINT pyreplica_lock");
        match slave.text_rows("lock tables", &message) {
            Ok(rows) => {
                Ok(Ok(rows.into_iter().filter_map(|row| Some((row.first()?.clone()?, row.get(1)?.clone()?))).collect()))
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                // Whether it came to preparing something is not known.
                self.look = None;
                slave.message("take the locks back", "ROLLBACK TO SAVEPOINT pyreplica_lock")?;
                Ok(Err(error))
            }
        }
    }

    /// Learns tables anew that now have these fingerprints.
    fn learn(&mut self, master: &mut Session, slave: &mut Session, changed: &HashMap<String, String>) -> Result<()> {
        let relations: Vec<&str> = changed.keys().map(String::as_str).collect();
        let rows = slave.query("look at the tables", sql::TABLE, &[&relations])?;
        let keys = master.query("look at the keys", sql::KEY, &[&relations])?;
        for row in &rows {
            let relation: &str = row.get("relation");
            let mine = keys.iter().find(|key| key.get::<_, &str>("relation") == relation);
            // A trigger made by hand says which columns are the key. Otherwise the slave's own primary key finds the row
            // by an index; the master's serves if the slave's is another one.
            let candidates: Vec<Vec<String>> =
                [mine.and_then(|key| key.get("arguments")), row.get("key"), mine.and_then(|key| key.get("key"))]
                    .into_iter()
                    .flatten()
                    .collect();
            self.made += 1;
            let name = (row.get("schema"), row.get("name"));
            let fingerprint = changed[relation].clone();
            let mut table = Table::new(self.made, fingerprint, name, row.get("partitioned"), columns(row), &candidates);
            constrain(&mut table, row);
            let action = self.policies.of(relation, Conflict::UpdateDiffers);
            table.whole_rows = matches!(action, ConflictAction::Newest(_));
            self.known.insert(relation.to_string(), table);
        }
        Ok(())
    }

    /// Whether the change's table, as it is known, has all of its columns.
    fn fits(&mut self, change: &Change) -> bool {
        let is_known = |(old, new): &(ColumnNames, ColumnNames)| {
            Arc::ptr_eq(old, change.old.names()) && Arc::ptr_eq(new, change.new.names())
        };
        if self.fitting.iter().any(is_known) {
            return true;
        }
        let fits = self.get(change).is_ok_and(|table| change.columns().all(|name| table.has(name)));
        if fits {
            if self.fitting.len() == MAX_FITTING {
                self.fitting.clear();
            }
            self.fitting.push((change.old.names().clone(), change.new.names().clone()));
        }
        fits
    }

    /// Brings a change's columns in line with the slave's table, if it has columns that the table lacks.
    ///
    /// A column that neither side has any more was dropped or renamed while the change was waiting. It is left out, or
    /// takes its new name, where there is no doubt which; otherwise the change is refused rather than a value lost.
    pub fn reconcile(&mut self, master: &mut Session, change: &mut Change) -> Result<()> {
        if self.fits(change) {
            return Ok(());
        }
        let Ok(table) = self.get(change) else { return Ok(()) };
        let missing: Vec<String> = change.columns().filter(|name| !table.has(name)).cloned().collect();
        let row = master.query_one("look at the master's columns", sql::COLUMNS, &[&change.relation])?;
        let (names, lost): (Vec<String>, bool) = (row.get("names"), row.get("lost"));
        if names.is_empty() || missing.iter().any(|name| names.contains(name)) {
            return Ok(());
        }
        // An UPDATE that is logged in part has its key in the old row only.
        let whole = change.event != Event::Update || change.new.len() >= change.old.len();
        let logged: HashSet<&String> = change.columns().collect();
        let added: Vec<&String> = names.iter().filter(|name| !logged.contains(name) && table.has(name)).collect();
        match (added.as_slice(), missing.as_slice()) {
            ([], _) if whole => missing.iter().for_each(|name| change.leave_out(name)),
            ([to], [from]) if whole && !lost => change.rename(from, to),
            _ => return Err(ambiguous(table, &missing)),
        }
        Ok(())
    }
}

fn lock(relation: &str) -> String {
    format!("LOCK TABLE {relation} IN ROW EXCLUSIVE MODE")
}

fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    format!("ARRAY[{}]", texts.map(quote_literal).collect::<Vec<String>>().join(", "))
}

/// What the slave lets no two rows have in common.
fn constrain(table: &mut Table, row: &Row) {
    let (unique, deferrable) = (lists(row, "unique"), lists(row, "deferrable"));
    deferrable.iter().for_each(|names| table.add_deferrable(names));
    unique.iter().chain(&deferrable).for_each(|names| table.add_unique(names));
    if row.get("setwise") {
        table.allow_sets(&unique);
    }
}

/// Lists of names, each in one text.
fn lists<'a>(row: &'a Row, column: &str) -> Vec<Vec<&'a str>> {
    let lists: Option<Vec<&str>> = row.get(column);
    lists.unwrap_or_default().into_iter().map(|names| names.split('\u{1}').collect()).collect()
}

fn columns(row: &Row) -> Vec<Column> {
    let names: Option<Vec<String>> = row.get("names");
    let base_types: Option<Vec<String>> = row.get("base_types");
    let full_types: Option<Vec<String>> = row.get("full_types");
    let generated: Option<Vec<bool>> = row.get("generated");
    let identity: Option<Vec<bool>> = row.get("identity_always");
    let array_types: Option<Vec<Option<String>>> = row.get("array_types");
    let operators: Option<Vec<Option<String>>> = row.get("operators");
    let names = names.unwrap_or_default().into_iter();
    let types = base_types.unwrap_or_default().into_iter().zip(full_types.unwrap_or_default());
    let flags = generated.unwrap_or_default().into_iter().zip(identity.unwrap_or_default());
    let types = types.zip(operators.unwrap_or_default());
    names
        .zip(types)
        .zip(array_types.unwrap_or_default())
        .zip(flags)
        .map(|(((name, ((base_type, full_type), operators)), array_type), (generated, identity_always))| Column {
            name,
            operators,
            base_type,
            full_type,
            is_cast: array_type.is_none(),
            array_type: array_type.unwrap_or_else(|| "pg_catalog.text[]".into()),
            generated,
            identity_always,
        })
        .collect()
}

fn ambiguous(table: &Table, missing: &[String]) -> Error {
    let detail = format!(
        "neither side's table {} has the column {} any more, and it cannot be told whether it was dropped or renamed",
        table.shown,
        missing.join(", ")
    );
    Error::new(Kind::Change, Some(Side::Slave), "read the change", detail)
        .with_hint("give the slave's column its former name until the changes from before have been replayed")
}
