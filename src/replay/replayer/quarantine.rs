//! The quarantine, and the record of conflicts.

use super::{MAX_REPORTED, Replayer};
use crate::backlog::change::Change;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side};
use crate::replay::conflict::ConflictRecord;
use crate::replay::statements::instruction;
use crate::server::session::Session;

impl Replayer {
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

    /// For a verb: conflicts are told to the operator who has asked, with the values of the rows.
    #[must_use]
    pub fn telling_values(mut self) -> Replayer {
        self.tells_values = true;
        self
    }

    /// An error as it is told to the operator.
    pub fn told(&self, error: Error) -> Error {
        if self.tells_values { error } else { error.without_values() }
    }

    /// Adds a message to those that `take_conflicts` returns.
    pub fn report(&mut self, what: String) {
        if self.conflicts.len() < MAX_REPORTED {
            self.conflicts.push(what);
        } else {
            self.unreported += 1;
        }
    }

    /// Notes the error of a filter or a transform: each text once, with the number of changes. Of thousands of texts, which hold
    /// values, only the first are kept.
    pub(super) fn remark(&mut self, text: String, id: LogId) {
        if self.remarks.len() < MAX_REPORTED || self.remarks.contains_key(&text) {
            self.remarks.entry(text).or_insert((id, 0)).1 += 1;
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
        self.met += records.len() as u64;
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

/// A change from the quarantine whose text nobody could read: it is there with its bytes escaped.
pub(super) fn refuse_escaped(change: &Change) -> Result<()> {
    if !change.old.has("") && !change.new.has("") {
        return Ok(());
    }
    let detail = "a text of the master in it has no form in UTF-8";
    Err(Error::new(Kind::Change, Some(Side::Slave), "replay", detail).with_hint(
        "correct the row on the master, which logs another change, and give this one up with pyreplica skip",
    ))
}
