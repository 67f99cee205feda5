//! One batch on both servers, or on neither.
//!
//! ```text
//! begin both -> replay on the slave -> mark on the master -> note the batch's number in the master's row
//!            -> PREPARE master -> PREPARE slave -> COMMIT PREPARED master -> COMMIT PREPARED slave
//! ```
//!
//! Up to the first PREPARE a failure leaves nothing behind. From then on, what is prepared survives any crash, and
//! recovery reads it back: gid by gid, before the first drain of every connection, by the table in `recovery.rs`.
//!
//! Two crashes, traced:
//!
//! 1. *The daemon dies between the two commits.* Master: marks and number n are committed. Slave: n is prepared, its rows
//!    not visible yet. Recovery finds n on the slave alone, reads n in the master's row, commits the slave. Nothing is
//!    replayed twice, because the marks are there; nothing is lost, because the rows are in the prepared transaction.
//!
//! 2. *The connection to the slave breaks while its backend is still at work on PREPARE.* Recovery finds n on the master
//!    alone and rolls it back, so the changes are pending again. Now the old backend finishes: n is prepared on the slave.
//!    Nothing is prepared on the master, just as in the first case. But the master's row names another number, so n is
//!    rolled back on the slave. Absence proves nothing; the number does. It is drawn from a sequence, hence never used
//!    for two attempts. While the late transaction holds its locks, the new attempt waits for them, at most for
//!    lock_timeout; then recovery finds the late one.
//!
//! Without two-phase commit (`TWO_PHASE=false`) the slave's transaction also writes the number and the extent of the
//! batch into a row of its own, and commits first. If the master then fails to commit its marks, the slave's row is ahead
//! of the master's, and recovery makes the marks from the extent. The row is updated only if it says what the daemon
//! believes: a COMMIT still under way in an old backend holds the row, is waited for, and is then seen.

use crate::capture::{Log, chunks};
use crate::control::Control;
use crate::db::Session;
use crate::error::{Error, Kind, Result};
use crate::extent::{self, Extent};
use crate::names::{BatchNumber, LogId, Side, Txid, quote_literal};
use crate::order::{Entry, Unit};
use crate::recovery::{Action, GidFamily, decide};
use crate::replay::Replayer;
use crate::sql;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Marks sent in one statement.
const MARKS: usize = 10_000;

/// The points of the protocol at which something can be made to happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begun,
    Replayed,
    Marked,
    MasterPrepared,
    SlavePrepared,
    MasterCommitted,
    SlaveCommitted,
}

impl Step {
    pub const ALL: [Step; 7] = [
        Step::Begun,
        Step::Replayed,
        Step::Marked,
        Step::MasterPrepared,
        Step::SlavePrepared,
        Step::MasterCommitted,
        Step::SlaveCommitted,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Begun => "begun",
            Step::Replayed => "replayed",
            Step::Marked => "marked",
            Step::MasterPrepared => "master-prepared",
            Step::SlavePrepared => "slave-prepared",
            Step::MasterCommitted => "master-committed",
            Step::SlaveCommitted => "slave-committed",
        })
    }
}

/// The one seam for fault injection: called at every step, and does nothing unless a test asks for it.
pub type Seam = Box<dyn FnMut(Step)>;

/// Both sessions and everything that belongs to them.
pub struct Link<'a> {
    pub master: Session,
    pub slave: Session,
    pub log: Log,
    pub replayer: Replayer,
    pub control: &'a Control,
}

pub struct Protocol {
    name: String,
    field: String,
    gids: GidFamily,
    /// The master in the slave's progress row, if two-phase commit is off.
    progress: Option<String>,
    seam: Seam,
}

impl Protocol {
    /// `origin` is a digest of the log that is read. With `two_phase` off the slave keeps a progress row.
    pub fn new(name: &str, field: &str, origin: u64, two_phase: bool, seam: Seam) -> Protocol {
        Protocol {
            name: name.to_string(),
            field: field.to_string(),
            gids: GidFamily::new(name, field, origin),
            progress: (!two_phase).then(|| Protocol::progress_key(origin, field)),
            seam,
        }
    }

    /// The master, as the slave's progress row names it.
    pub fn progress_key(origin: u64, field: &str) -> String {
        format!("{origin:016x} {field}")
    }

    /// Settles whatever a former connection left behind.
    pub fn recover(&mut self, link: &mut Link) -> Result<()> {
        let on_master = self.prepared(&mut link.master)?;
        let on_slave = self.prepared(&mut link.slave)?;
        let numbers: BTreeSet<BatchNumber> = on_master.keys().chain(on_slave.keys()).copied().collect();
        for number in numbers {
            let committed = self.committed(&mut link.master)?;
            let (there, here) = (on_master.get(&number), on_slave.get(&number));
            let Some(action) = decide(number, there.is_some(), here.is_some(), committed) else { continue };
            log::warn!(target: &self.name, "Recovering batch {number}: {action}");
            let command = match action {
                Action::CommitBoth | Action::CommitSlave => "COMMIT PREPARED",
                Action::RollBackMaster | Action::RollBackSlave => "ROLLBACK PREPARED",
            };
            // The table acts on every side that has something prepared; the master goes first.
            for (session, gid) in [(&mut link.master, there), (&mut link.slave, here)] {
                if let Some(gid) = gid {
                    finish(session, command, number, gid)?;
                }
            }
        }
        self.recover_progress(link)
    }

    /// Replays whole transactions and commits them on both sides. When one of them holds a change that cannot be
    /// replayed, those before it are replayed and committed all the same, and the error says which change it is.
    pub fn replay(&mut self, link: &mut Link, units: &[Unit]) -> Result<u64> {
        let error = match self.attempt(link, units) {
            Ok(()) => return Ok(units.iter().map(Unit::rows).sum()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        match error.change() {
            Some((id, txid)) => {
                let before = units.iter().position(|unit| holds(unit, id, txid)).unwrap_or(0);
                if before > 0 {
                    self.attempt(link, &units[..before])?;
                }
                Err(error)
            }
            // Refused as a whole, at PREPARE or by a deferred constraint: alone, the transaction to blame is found.
            None if error.side() != Some(Side::Slave) => Err(error),
            None if units.len() > 1 => {
                for unit in units {
                    self.replay(link, std::slice::from_ref(unit))?;
                }
                Ok(units.iter().map(Unit::rows).sum())
            }
            None => Err(blame(error, &units[0])),
        }
    }

    fn attempt(&mut self, link: &mut Link, units: &[Unit]) -> Result<()> {
        let outcome = self.batch(link, units);
        if outcome.is_err() {
            // Best effort: a session that cannot roll back is lost, and its server does it.
            for session in [&mut link.master, &mut link.slave] {
                if let Err(error) = session.message("roll back", "ROLLBACK") {
                    log::debug!(target: &self.name, "{error}");
                }
            }
            return outcome;
        }
        for conflict in link.replayer.take_conflicts() {
            log::warn!(target: &self.name, "{conflict}");
        }
        Ok(())
    }

    fn batch(&mut self, link: &mut Link, units: &[Unit]) -> Result<()> {
        let number = BatchNumber(link.master.query_one("number the batch", sql::NEXT_BATCH, &[])?.get(0));
        link.master.message("begin a transaction", "BEGIN")?;
        link.replayer.begin(&mut link.slave)?;
        if let Some(master) = &self.progress {
            self.note_progress(link, master, number, &extent::encode(units))?;
        }
        (self.seam)(Step::Begun);
        let applied = self.work(link, units)?;
        link.replayer.check_unique(&mut link.slave)?;
        (self.seam)(Step::Replayed);
        let noted = link.master.query_one("note the batch", sql::NOTE_BATCH, &[&self.field, &number.0])?;
        link.log.marked_in(Txid(noted.get(0)));
        (self.seam)(Step::Marked);
        if applied == 0 && self.progress.is_none() {
            // Nothing but changes to skip: there is nothing on the slave that could get lost.
            link.slave.message("roll back", "ROLLBACK")?;
            link.master.message("commit", "COMMIT")?;
        } else if self.progress.is_some() {
            link.slave.message("commit", "COMMIT")?;
            (self.seam)(Step::SlaveCommitted);
            link.master.message("commit", "COMMIT")?;
            (self.seam)(Step::MasterCommitted);
        } else {
            self.commit_both(link, number)?;
        }
        Ok(())
    }

    fn commit_both(&mut self, link: &mut Link, number: BatchNumber) -> Result<()> {
        self.finish(&mut link.master, "PREPARE TRANSACTION", number)?;
        (self.seam)(Step::MasterPrepared);
        if let Err(error) = self.finish(&mut link.slave, "PREPARE TRANSACTION", number) {
            // The slave is heard to refuse, so nothing of it can appear later.
            if !error.is_transient() {
                self.finish(&mut link.master, "ROLLBACK PREPARED", number)?;
            }
            return Err(error);
        }
        (self.seam)(Step::SlavePrepared);
        self.finish(&mut link.master, "COMMIT PREPARED", number)?;
        (self.seam)(Step::MasterCommitted);
        self.finish(&mut link.slave, "COMMIT PREPARED", number)?;
        (self.seam)(Step::SlaveCommitted);
        Ok(())
    }

    /// Replays and marks everything in these units; how many changes went to the slave.
    fn work(&mut self, link: &mut Link, units: &[Unit]) -> Result<u64> {
        let mut applied = 0;
        let mut listed: Vec<Entry> = Vec::new();
        for unit in units {
            match unit {
                Unit::Listed(entries) => listed.extend(entries),
                Unit::Spread { first, .. } => {
                    applied += work_through(link, &std::mem::take(&mut listed))?;
                    let mut above = LogId(first.0 - 1);
                    loop {
                        let page = link.log.page(&mut link.master, unit, above)?;
                        let Some(last) = page.last() else { break };
                        above = last.id;
                        applied += work_through(link, &page)?;
                    }
                }
            }
        }
        Ok(applied + work_through(link, &listed)?)
    }

    /// `PREPARE TRANSACTION 'gid'` and its like, of a batch of this connection.
    fn finish(&self, session: &mut Session, command: &str, number: BatchNumber) -> Result<()> {
        let gid = self.gids.gid(session.side(), number);
        finish(session, command, number, &gid)
    }

    /// This pair's transactions that a server keeps prepared; a gid may hold a former name of the pair.
    fn prepared(&self, session: &mut Session) -> Result<BTreeMap<BatchNumber, String>> {
        let rows = session.query("look for in-doubt transactions", sql::PREPARED, &[])?;
        let gids = rows.iter().map(|row| row.get::<_, String>(0));
        Ok(gids.filter_map(|gid| Some((self.gids.number(session.side(), &gid)?, gid))).collect())
    }

    /// The number in the master's row for this slave.
    fn committed(&self, master: &mut Session) -> Result<BatchNumber> {
        Ok(BatchNumber(master.query_one("read the last batch", sql::COMMITTED_BATCH, &[&self.field])?.get(0)))
    }

    fn note_progress(&self, link: &mut Link, master: &str, number: BatchNumber, changes: &str) -> Result<()> {
        let committed = self.committed(&mut link.master)?;
        let noted = link.slave.execute(
            "note the progress",
            sql::NOTE_PROGRESS,
            &[&master, &number.0, &changes, &committed.0],
        )?;
        if noted == 1 {
            return Ok(());
        }
        Err(Error::new(
            Kind::Contention,
            Some(Side::Slave),
            "note the progress",
            "a former batch was still being committed",
        ))
    }

    /// Without two-phase commit: makes the marks that the master lost.
    fn recover_progress(&self, link: &mut Link) -> Result<()> {
        let Some(master) = &self.progress else { return Ok(()) };
        let row = link.slave.query_one("read the progress", sql::PROGRESS, &[master])?;
        let (progress, changes): (i64, String) = (row.get("batch"), row.get("changes"));
        let committed = self.committed(&mut link.master)?;
        if progress <= committed.0 {
            // Numbers that the slave never saw: batches of skipped changes, or of two-phase commit before.
            return link
                .slave
                .execute("note the progress", sql::NOTE_PROGRESS, &[master, &committed.0, &"", &progress])
                .map(drop);
        }
        log::warn!(target: &self.name, "Recovering batch {progress}: committed on the slave: mark it on the master");
        let extents = extent::decode(&changes).ok_or_else(|| {
            Error::new(Kind::Internal, Some(Side::Slave), "read the progress", "replica_progress.changes is damaged")
        })?;
        link.master.message("begin a transaction", "BEGIN")?;
        for extent in extents {
            mark_extent(link, extent)?;
        }
        link.master.query_one("note the batch", sql::NOTE_BATCH, &[&self.field, &progress])?;
        link.master.message("commit", "COMMIT").map(drop)
    }
}

fn finish(session: &mut Session, command: &str, number: BatchNumber, gid: &str) -> Result<()> {
    let operation = format!("{} batch {number}", command.to_lowercase());
    session.message(&operation, &format!("{command} {}", quote_literal(gid))).map(drop)
}

/// Replays listed changes chunk by chunk, and marks them.
fn work_through(link: &mut Link, entries: &[Entry]) -> Result<u64> {
    let wanted: Vec<Entry> = entries.iter().filter(|entry| !entry.skip).copied().collect();
    for chunk in chunks(&wanted) {
        if link.control.is_stopping() {
            return Err(Error::new(Kind::Stopped, None, "finish the batch", "the daemon is stopping"));
        }
        let changes = link.log.fetch(&mut link.master, chunk)?;
        link.replayer.apply(&mut link.master, &mut link.slave, changes)?;
    }
    let ids: Vec<i64> = entries.iter().map(|entry| entry.id.0).collect();
    for ids in ids.chunks(MARKS) {
        link.log.mark(&mut link.master, ids)?;
    }
    Ok(wanted.len() as u64)
}

fn mark_extent(link: &mut Link, extent: Extent) -> Result<()> {
    match extent {
        Extent::Ids(first, last) => {
            let mut next = first;
            while next <= last {
                let end = last.min(next + MARKS as i64 - 1);
                link.log.mark_remaining(&mut link.master, &(next..=end).collect::<Vec<i64>>())?;
                next = end + 1;
            }
        }
        Extent::Transaction(txid, first, last) => {
            let unit = Unit::Spread { txid, first, last, rows: 0 };
            let mut above = LogId(first.0 - 1);
            loop {
                let page = link.log.page(&mut link.master, &unit, above)?;
                let Some(end) = page.last() else { break };
                above = end.id;
                link.log.mark_remaining(&mut link.master, &page.iter().map(|entry| entry.id.0).collect::<Vec<_>>())?;
            }
        }
    }
    Ok(())
}

fn holds(unit: &Unit, id: LogId, transaction: Txid) -> bool {
    match unit {
        Unit::Listed(entries) => entries.iter().any(|entry| entry.id == id),
        Unit::Spread { txid, .. } => *txid == transaction,
    }
}

/// A transaction that the slave refuses as a whole.
fn blame(error: Error, unit: &Unit) -> Error {
    let (txid, first) = match unit {
        Unit::Listed(entries) => (entries[0].txid, entries[0].id),
        Unit::Spread { txid, first, .. } => (*txid, *first),
    };
    let operation = format!("replay transaction {txid}, changes {first} to {}", unit.last());
    let blamed = Error::new(Kind::Change, error.side(), operation, error.detail()).with_change(first, txid);
    match error.hint() {
        Some(hint) => blamed.with_hint(hint),
        None => blamed,
    }
}
