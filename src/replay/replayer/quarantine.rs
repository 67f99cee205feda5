//! The last check of a batch, the quarantine, and the record of conflicts.

use super::{FIX_SLAVE, MAX_REPORTED, Replayer};
use crate::backlog::change::Change;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::replay::conflict::ConflictRecord;
use crate::replay::sql;
use crate::replay::statements::instruction;
use crate::server::session::Session;

/// Conditions that one query checks.
const UNIQUE_CHECKS: usize = 200;

impl Replayer {
    /// Checks deferrable unique constraints at the end of a batch. PostgreSQL checks them by triggers, which do not run in
    /// the replica role.
    pub fn check_unique(&mut self, master: &mut Session, slave: &mut Session) -> Result<()> {
        self.finish(master, slave)?;
        for unchecked in std::mem::take(&mut self.unchecked).chunks(UNIQUE_CHECKS) {
            let queries: Vec<String> =
                unchecked.iter().map(|(id, _, duplicate)| format!("SELECT {id} WHERE {duplicate}")).collect();
            let found = slave.text_rows("look for duplicates", &queries.join(" UNION ALL "))?;
            let Some(id) = found.into_iter().flatten().flatten().next() else { continue };
            if let Some((id, txid, _)) = unchecked.iter().find(|(known, ..)| known.to_string() == id) {
                let operation = format!("replay change {id} of transaction {txid}");
                let detail = "duplicate key value violates a deferrable unique constraint";
                return Err(Error::new(Kind::Change, Some(Side::Slave), operation, detail)
                    .with_change(*id, *txid)
                    .with_code("23505")
                    .premature()
                    .with_hint(FIX_SLAVE));
            }
        }
        if self.deferring {
            // Deferred triggers run at the end of the transaction, and need the application's search path.
            slave.message("replay", sql::APPLICATION_PATH)?;
        }
        Ok(())
    }

    /// Whether one of these changes depends on a change in quarantine. Returns a text that names that change.
    pub fn depends(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<Option<String>> {
        self.finish(master, slave)?;
        self.lock(master, slave, changes)?;
        self.cache.load_foreign_keys(slave, relations(changes))?;
        self.holds.depends(slave, changes, |change| self.cache.get(change).ok())
    }

    /// Puts changes of a transaction into quarantine.
    pub fn quarantine(
        &mut self,
        master: &mut Session,
        slave: &mut Session,
        changes: &[Change],
        error: &str,
    ) -> Result<()> {
        self.finish(master, slave)?;
        self.lock(master, slave, changes)?;
        self.cache.load_foreign_keys(slave, relations(changes))?;
        self.holds.quarantine(slave, changes, error, |change| self.cache.get(change).ok())
    }

    /// Adds a message to those that `take_conflicts` returns.
    pub fn report(&mut self, what: String) {
        if self.conflicts.len() < MAX_REPORTED {
            self.conflicts.push(what);
        } else {
            self.unreported += 1;
        }
    }

    /// The changes as SQL, as the log shows them.
    pub fn show(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<Vec<String>> {
        self.finish(master, slave)?;
        self.lock(master, slave, changes)?;
        Ok(changes.iter().map(|change| instruction(change, self.cache.get(change).ok())).collect())
    }

    /// Writes conflicts to the slave's table, in the transaction that met them. Warnings are kept for `take_conflicts`; the
    /// others are logged here.
    pub(super) fn record(&mut self, slave: &mut Session, records: Vec<ConflictRecord>) -> Result<()> {
        if self.records_conflicts {
            self.holds.record(slave, &records)?;
        }
        for record in records {
            if record.is_warning {
                self.report(record.text);
            } else {
                log::info!(target: &self.name, "{}: {}", record.conflict, record.text);
            }
        }
        Ok(())
    }
}

/// The tables of these changes; a free statement has none.
fn relations(changes: &[Change]) -> impl Iterator<Item = &str> {
    changes.iter().map(|change| change.relation.as_str()).filter(|relation| !relation.is_empty())
}
