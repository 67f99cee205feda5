//! What becomes of changes beside being replayed: quarantine, and the record of conflicts.

use super::Replayer;
use crate::change::Change;
use crate::conflict::Met;
use crate::db::Session;
use crate::error::Result;
use crate::render::instruction;

impl Replayer {
    /// Whether one of these changes needs one that is in quarantine; says which.
    pub fn depends(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<Option<String>> {
        self.tables.lock(master, slave, relations(changes))?;
        self.holding.depends(slave, changes, |change| self.tables.get(change).ok())
    }

    /// Puts changes of a transaction into quarantine.
    pub fn quarantine(
        &mut self,
        master: &mut Session,
        slave: &mut Session,
        changes: &[Change],
        error: &str,
    ) -> Result<()> {
        self.tables.lock(master, slave, relations(changes))?;
        self.holding.quarantine(slave, changes, error, |change| self.tables.get(change).ok())
    }

    /// The instructions that changes stand for.
    pub fn show(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<Vec<String>> {
        self.tables.lock(master, slave, relations(changes))?;
        Ok(changes.iter().map(|change| instruction(change, self.tables.get(change).ok())).collect())
    }

    /// Writes conflicts down on the slave, in the transaction that has met them, and keeps those that somebody is to be told.
    pub(super) fn record(&mut self, slave: &mut Session, met: Vec<Met>) -> Result<()> {
        if self.keeps_conflicts {
            self.holding.record(slave, &met)?;
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
