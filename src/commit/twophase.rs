//! One batch on both servers, or on neither.
//!
//! ```text
//! begin on the slave -> replay
//!   -> at once: master: begin, note the batch's number and the position in the slave's row, PREPARE
//!               slave:  PREPARE
//!   -> COMMIT PREPARED master -> COMMIT PREPARED slave
//! ```
//!
//! Of a few changes the first two lines are one message to each server, both at once (`one_message.rs`).
//!
//! Up to the first PREPARE a failure leaves nothing behind. From then on, what is prepared survives any crash, and
//! recovery reads it back: gid by gid, before the first drain of every connection, by the table in `recovery.rs`.
//!
//! Two crashes, traced:
//!
//! 1. *The daemon dies between the two commits.* Master: number n and its position are committed. Slave: n is prepared, its
//!    rows not visible yet. Recovery finds n on the slave alone, reads n in the master's row, commits the slave. Nothing is
//!    replayed twice, because of the position; nothing is lost, because the rows are in the prepared transaction.
//!
//! 2. *The connection to the slave breaks while its backend is still at work on PREPARE.* Recovery finds n on the master
//!    alone and rolls it back, so the changes are pending again. Now the old backend finishes: n is prepared on the slave.
//!    Nothing is prepared on the master, just as in the first case. But the master's row names another number, so n is
//!    rolled back on the slave. Absence proves nothing; the number does. It is drawn from a sequence, hence never used
//!    for two attempts. While the late transaction holds its locks, the new attempt waits for them, at most for
//!    lock_timeout; then recovery finds the late one.
//!
//! Without two-phase commit (`TWO_PHASE=false`) the slave's transaction also writes the number and the position into a row
//! of its own, and commits first. If the master then fails to commit them, the slave's row is ahead of the master's, and
//! recovery copies it. The row is updated only if it says what the daemon believes: a COMMIT still under way in an old
//! backend holds the row, is waited for, and is then seen.

use crate::backlog::flags::FlagWriter;
use crate::backlog::order::Transaction;
use crate::backlog::pending::SlaveLog;
use crate::backlog::position::Position;
use crate::backlog::prefetch::Prefetcher;
use crate::backlog::reader::{Batch, Pages};
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, LogId, Side, Txid, quote_literal};
use crate::commit::recovery::GidFamily;
use crate::commit::sql;
use crate::config::settings::{Config, OnError};
use crate::replay::replayer::Replayer;
use crate::server::checks::Findings;
use crate::server::session::Session;
use std::fmt;
use std::sync::Arc;

mod quarantine;
mod one_message;
mod recover;

/// The points of the protocol at which something can be made to happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begun,
    Replayed,
    Prepared,
    MasterCommitted,
    SlaveCommitted,
    /// Without two-phase commit only.
    Noted,
}

impl Step {
    /// Those of two-phase commit.
    pub const ALL: [Step; 5] =
        [Step::Begun, Step::Replayed, Step::Prepared, Step::MasterCommitted, Step::SlaveCommitted];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Begun => "begun",
            Step::Replayed => "replayed",
            Step::Prepared => "prepared",
            Step::MasterCommitted => "master-committed",
            Step::SlaveCommitted => "slave-committed",
            Step::Noted => "noted",
        })
    }
}

/// The one seam for fault injection: called at every step, and does nothing unless a test asks for it.
pub type Seam = Box<dyn FnMut(Step)>;

/// Both sessions and everything that belongs to them.
pub struct Link<'a> {
    pub master: Session,
    pub slave: Session,
    pub log: SlaveLog,
    pub marking: FlagWriter,
    pub replayer: Replayer,
    /// Reads the changes of long batches.
    pub ahead: Option<Prefetcher>,
    /// The master's log and the slave's column in it, as the slave's tables name them.
    pub pair: String,
    /// The slave is a master too, so replayed changes may be for others.
    pub hands_on: bool,
    pub control: &'a Control,
}

pub struct Protocol {
    name: String,
    field: String,
    gids: GidFamily,
    /// The master in the slave's progress row, if two-phase commit is off.
    progress: Option<String>,
    /// A transaction that cannot be replayed is put aside.
    quarantine: bool,
    /// The next batch's, drawn when there was time.
    number: Option<BatchNumber>,
    /// What was unusual about the batches committed so far.
    conflicts: Vec<String>,
    /// So many batches are not tried in one message, since one has failed so.
    doubts: u32,
    seam: Seam,
}

impl Protocol {
    pub fn new(config: &Config, findings: &Findings, seam: Seam) -> Protocol {
        let (name, field, origin) = (&config.name, &config.slave_field, findings.origin);
        Protocol {
            name: name.clone(),
            field: field.clone(),
            gids: GidFamily::new(name, field, origin),
            progress: (!config.two_phase).then(|| Protocol::progress_key(origin, field)),
            quarantine: config.on_error == OnError::Quarantine,
            number: None,
            conflicts: Vec::new(),
            doubts: 0,
            seam,
        }
    }

    /// The master, as the slave's progress row names it.
    pub fn progress_key(origin: u64, field: &str) -> String {
        format!("{origin:016x} {field}")
    }

    /// What was unusual since the last call, already logged; also when a later batch has failed.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.conflicts)
    }

    /// Replays whole transactions and commits them on both sides. When one of them holds a change that cannot be
    /// replayed, those before it are replayed and committed all the same, and the error says which change it is.
    pub fn replay(&mut self, link: &mut Link, units: &Batch) -> Result<u64> {
        let mut rest = units.clone();
        while let Err(error) = self.replay_up_to_error(link, &rest) {
            rest = self.put_in_quarantine(link, &rest, error)?;
        }
        Ok(units.iter().map(Transaction::rows).sum())
    }

    fn replay_up_to_error(&mut self, link: &mut Link, units: &Batch) -> Result<()> {
        let error = match self.attempt(link, units) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        match error.change() {
            Some((id, txid)) => {
                let before = units.iter().position(|unit| holds(unit, id, txid)).unwrap_or(0);
                if before > 0 {
                    // One of those may fail too: at the end of the batch, which this attempt has not reached.
                    self.replay_up_to_error(link, &Arc::new(units[..before].to_vec()))?;
                }
                Err(error)
            }
            // Refused as a whole, at PREPARE or by a deferred constraint: alone, the transaction to blame is found.
            None if error.side() != Some(Side::Slave) => Err(error),
            None if units.len() > 1 => {
                for unit in units.iter() {
                    self.replay(link, &Arc::new(vec![unit.clone()]))?;
                }
                Ok(())
            }
            None => Err(blame(error, &units[0])),
        }
    }

    fn attempt(&mut self, link: &mut Link, units: &Batch) -> Result<()> {
        let outcome = self.batch(link, units);
        if outcome.is_err() {
            link.ahead = None;
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
            self.conflicts.push(conflict);
        }
        Ok(())
    }

    fn batch(&mut self, link: &mut Link, units: &Batch) -> Result<()> {
        let Some(last) = units.last().map(Transaction::last) else { return Ok(()) };
        if self.at_once(link, units, last)? {
            return Ok(());
        }
        let number = self.next_number(&mut link.master)?;
        let position = link.log.ledger.after(number, last);
        if self.progress.is_some() {
            link.log.ledger.announce(&mut link.master)?;
        }
        link.replayer.begin(&mut link.slave)?;
        if let Some(master) = &self.progress {
            self.note_progress(link, master, &position)?;
        }
        (self.seam)(Step::Begun);
        let applied = if link.replayer.holding.is_quarantine() {
            quarantine::work_with_care(link, units)?
        } else {
            work(link, units)?
        };
        link.replayer.check_unique(&mut link.slave)?;
        (self.seam)(Step::Replayed);
        if applied > 0 && self.progress.is_none() {
            self.commit_both(link, &position)?;
        } else {
            link.log.ledger.note(&mut link.master, &position)?;
            (self.seam)(Step::Noted);
            // With nothing but changes to skip there is nothing on the slave that could get lost.
            let end = if self.progress.is_some() { "COMMIT" } else { "ROLLBACK" };
            link.slave.message("end the transaction", end)?;
            (self.seam)(Step::SlaveCommitted);
            link.master.message("commit", "COMMIT")?;
            (self.seam)(Step::MasterCommitted);
        }
        self.committed_batch(link, position);
        Ok(())
    }

    fn next_number(&mut self, master: &mut Session) -> Result<BatchNumber> {
        self.number.take().map_or_else(|| draw_number(master), Ok)
    }

    fn committed_batch(&mut self, link: &mut Link, position: Position) {
        link.log.ledger.committed(position);
        // Now nobody waits for it. If it cannot be had, the next statement tells why.
        self.number = draw_number(&mut link.master).ok();
    }

    fn commit_both(&mut self, link: &mut Link, position: &Position) -> Result<()> {
        let number = position.batch;
        let operation = format!("prepare transaction batch {number}");
        match self.prepare_both(link, &operation, &self.prepare(Side::Slave, number), position)? {
            Some(refusal) => Err(refusal),
            None => self.commit_prepared(link, number),
        }
    }

    /// Sends the slave's message, which ends in PREPARE, while the master notes the position and prepares that: two flushes to
    /// disk, of which neither waits for the other. If the slave refuses, what it said: nothing is prepared then.
    fn prepare_both(
        &self,
        link: &mut Link,
        operation: &str,
        message: &str,
        position: &Position,
    ) -> Result<Option<Error>> {
        let number = position.batch;
        let Link { master, slave, log, .. } = link;
        let (ledger, on_master) = (&mut log.ledger, self.prepare(Side::Master, number));
        let (on_slave, noted) = slave.ask_while(
            |slave| slave.message(operation, message),
            || ledger.note_and_prepare(master, position, &on_master),
        );
        // Who is heard to refuse has prepared nothing, and nothing of it can appear later. Of whom nothing is heard, recovery
        // finds out.
        match (noted, on_slave) {
            (Ok(()), Ok(_)) => Ok(None),
            (Ok(()), Err(refusal)) if refusal.code().is_some() || !refusal.is_transient() => {
                self.finish(master, "ROLLBACK PREPARED", number)?;
                Ok(Some(refusal))
            }
            (Err(error), Ok(_)) if !error.is_transient() => {
                self.finish(slave, "ROLLBACK PREPARED", number)?;
                Err(error)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn prepare(&self, side: Side, number: BatchNumber) -> String {
        format!("PREPARE TRANSACTION {}", quote_literal(&self.gids.gid(side, number)))
    }

    fn commit_prepared(&mut self, link: &mut Link, number: BatchNumber) -> Result<()> {
        (self.seam)(Step::Prepared);
        self.finish(&mut link.master, "COMMIT PREPARED", number)?;
        (self.seam)(Step::MasterCommitted);
        self.finish(&mut link.slave, "COMMIT PREPARED", number)?;
        (self.seam)(Step::SlaveCommitted);
        Ok(())
    }

    /// `COMMIT PREPARED 'gid'` and its like, of a batch of this connection.
    fn finish(&self, session: &mut Session, command: &str, number: BatchNumber) -> Result<()> {
        let gid = self.gids.gid(session.side(), number);
        finish(session, command, number, &gid)
    }

    /// The number in the master's row for this slave.
    fn committed(&self, master: &mut Session) -> Result<BatchNumber> {
        Ok(BatchNumber(master.query_one("read the last batch", sql::COMMITTED_BATCH, &[&self.field])?.get(0)))
    }

    fn note_progress(&self, link: &mut Link, master: &str, position: &Position) -> Result<()> {
        let committed = link.log.ledger.position().batch;
        let noted = link.slave.execute(
            "note the progress",
            sql::NOTE_PROGRESS,
            &[&master, &position.batch.0, &position.encode(), &committed.0],
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
}

fn draw_number(master: &mut Session) -> Result<BatchNumber> {
    Ok(BatchNumber(master.query_one("number the batch", sql::NEXT_BATCH, &[])?.get(0)))
}

fn finish(session: &mut Session, command: &str, number: BatchNumber, gid: &str) -> Result<()> {
    let operation = format!("{} batch {number}", command.to_lowercase());
    session.message(&operation, &format!("{command} {}", quote_literal(gid))).map(drop)
}

/// Replays everything in these units; how many changes went to the slave.
fn work(link: &mut Link, units: &Batch) -> Result<u64> {
    let mut applied = 0;
    let mut pages = Pages::new(units.clone());
    let mut ahead = link.ahead.take_if(|ahead| ahead.is_next(units));
    loop {
        if link.control.is_stopping() {
            return Err(Error::new(Kind::Stopped, None, "finish the batch", "the daemon is stopping"));
        }
        let changes = match &mut ahead {
            Some(ahead) => ahead.next()?,
            None => pages.next(&mut link.log.reading, &mut link.master)?,
        };
        let Some(changes) = changes else { break };
        applied += changes.len() as u64;
        link.replayer.apply(&mut link.master, &mut link.slave, changes)?;
    }
    link.ahead = ahead.or(link.ahead.take());
    Ok(applied)
}

fn holds(unit: &Transaction, id: LogId, transaction: Txid) -> bool {
    match unit {
        Transaction::Listed(entries) => entries.iter().any(|entry| entry.id == id),
        Transaction::Spread { txid, .. } => *txid == transaction,
    }
}

/// A transaction that the slave refuses as a whole.
fn blame(error: Error, unit: &Transaction) -> Error {
    let (txid, first) = match unit {
        Transaction::Listed(entries) => (entries[0].txid, entries[0].id),
        Transaction::Spread { txid, first, .. } => (*txid, *first),
    };
    let operation = format!("replay transaction {txid}, changes {first} to {}", unit.last());
    let blamed = Error::new(Kind::Change, error.side(), operation, error.detail()).with_change(first, txid);
    match error.hint() {
        Some(hint) => blamed.with_hint(hint),
        None => blamed,
    }
}
