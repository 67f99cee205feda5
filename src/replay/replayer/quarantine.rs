//! What becomes of changes beside being replayed: the last check of a batch, quarantine, and the record of conflicts.

use super::{MEND, Replayer};
use crate::backlog::change::Change;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::replay::conflict::Met;
use crate::replay::sql;
use crate::replay::statements::instruction;
use crate::server::session::Session;

/// Looked at in one query.
const UNIQUE_CHECKS: usize = 200;

impl Replayer {
    /// Looks at the end of a batch whether unique constraints hold that the slave has not checked: those that are
    /// deferrable are checked by triggers, which do not run in the replica role.
    pub fn check_unique(&mut self, slave: &mut Session) -> Result<()> {
        self.settle(slave)?;
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
                    .with_hint(MEND));
            }
        }
        if self.deferring {
            // What is deferred runs at the end of the transaction.
            slave.message("replay", sql::ITS_PATH)?;
        }
        Ok(())
    }

    /// Whether one of these changes needs one that is in quarantine; says which.
    pub fn depends(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<Option<String>> {
        self.settle(slave)?;
        self.lock(master, slave, changes)?;
        self.cache.link(slave, relations(changes))?;
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
        self.settle(slave)?;
        self.lock(master, slave, changes)?;
        self.cache.link(slave, relations(changes))?;
        self.holds.quarantine(slave, changes, error, |change| self.cache.get(change).ok())
    }

    /// Something unusual about the batch, to be told once it is committed.
    pub fn tell(&mut self, what: String) {
        self.conflicts.push(what);
    }

    /// The instructions that changes stand for.
    pub fn show(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<Vec<String>> {
        self.settle(slave)?;
        self.lock(master, slave, changes)?;
        Ok(changes.iter().map(|change| instruction(change, self.cache.get(change).ok())).collect())
    }

    /// Writes conflicts down on the slave, in the transaction that has met them, and keeps those that somebody is to be told.
    pub(super) fn record(&mut self, slave: &mut Session, met: Vec<Met>) -> Result<()> {
        if self.keeps_conflicts {
            self.holds.record(slave, &met)?;
        }
        for met in met {
            if met.is_warning {
                self.conflicts.push(met.text);
            } else {
                log::info!(target: &self.name, "{}: {}", met.conflict, met.text);
            }
        }
        Ok(())
    }
}

/// The tables of these changes; a free statement has none.
fn relations(changes: &[Change]) -> impl Iterator<Item = &str> {
    changes.iter().map(|change| change.relation.as_str()).filter(|relation| !relation.is_empty())
}
