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
use crate::base::names::{BatchNumber, Side, quote_literal};
use crate::commit::recovery::GidFamily;
use crate::commit::sql;
use crate::config::settings::{Config, OnError};
use crate::process::failpoint;
use crate::replay::hold::Holds;
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

/// A connected pair: both sessions and everything that belongs to them.
pub struct Pair {
    name: String,
    field: String,
    pub master: Session,
    pub slave: Session,
    pub log: SlaveLog,
    pub flags: FlagWriter,
    pub replayer: Replayer,
    /// Reads the changes of long batches.
    pub prefetcher: Option<Prefetcher>,
    /// The master's log and the slave's column in it, as the slave's tables name them.
    pub key: String,
    /// The slave is a master too, so replayed changes may be for others.
    pub feeds_others: bool,
    pub control: Control,
    gids: GidFamily,
    two_phase: bool,
    /// ON_ERROR = quarantine.
    quarantine: bool,
    /// The next batch's number, drawn while nobody waited for it.
    number: Option<BatchNumber>,
    /// What was unusual about the batches committed so far.
    conflicts: Vec<String>,
    /// For so many batches the single message is not tried, since one of them has failed so.
    doubts: u32,
}

/// The pair as tables of the slave name it: the master's log, and the slave's column in it.
pub fn pair_key(origin: u64, field: &str) -> String {
    format!("{origin:016x} {field}")
}

impl Pair {
    /// `deferring`: the slave's session may not take the replica role.
    pub fn new(
        config: &Config,
        findings: &Findings,
        (master, slave): (Session, Session),
        holds: Holds,
        deferring: bool,
        feeds_others: bool,
        control: &Control,
    ) -> Pair {
        let (name, field) = (config.name.clone(), config.slave_field.clone());
        Pair {
            master,
            slave,
            log: SlaveLog::new(config, findings),
            flags: FlagWriter::new(config, &findings.fields),
            replayer: Replayer::new(config, &findings.master_identity, deferring, holds),
            prefetcher: None,
            key: pair_key(findings.origin, &field),
            feeds_others,
            control: control.clone(),
            gids: GidFamily::new(&name, &field, findings.origin),
            two_phase: config.two_phase,
            quarantine: config.on_error == OnError::Quarantine,
            number: None,
            conflicts: Vec::new(),
            doubts: 0,
            name,
            field,
        }
    }

    /// What was unusual since the last call, already logged; also when a later batch has failed.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.conflicts)
    }

    /// Replays whole transactions and commits them on both sides. When one of them holds a change that cannot be
    /// replayed, those before it are replayed and committed all the same, and the error says which change it is.
    pub fn replay(&mut self, transactions: &Batch) -> Result<u64> {
        let mut rest = transactions.clone();
        while let Err(error) = self.replay_up_to_error(&rest) {
            rest = self.put_in_quarantine(&rest, error)?;
        }
        Ok(transactions.iter().map(Transaction::rows).sum())
    }

    fn replay_up_to_error(&mut self, transactions: &Batch) -> Result<()> {
        let error = match self.attempt(transactions) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        match error.change() {
            Some((id, txid)) => {
                let before = transactions.iter().position(|transaction| transaction.holds(id, txid)).unwrap_or(0);
                if before > 0 {
                    // One of those may fail too: at the end of the batch, which this attempt has not reached.
                    self.replay_up_to_error(&Arc::new(transactions[..before].to_vec()))?;
                }
                Err(error)
            }
            // Refused as a whole, at PREPARE or by a deferred constraint: alone, the transaction to blame is found.
            None if error.side() != Some(Side::Slave) => Err(error),
            None if transactions.len() > 1 => {
                for transaction in transactions.iter() {
                    self.replay(&Arc::new(vec![transaction.clone()]))?;
                }
                Ok(())
            }
            None => Err(blame(error, &transactions[0])),
        }
    }

    fn attempt(&mut self, transactions: &Batch) -> Result<()> {
        let outcome = self.batch(transactions);
        if outcome.is_err() {
            self.prefetcher = None;
            self.master.roll_back();
            self.slave.roll_back();
            return outcome;
        }
        for conflict in self.replayer.take_conflicts() {
            log::warn!(target: &self.name, "{conflict}");
            self.conflicts.push(conflict);
        }
        Ok(())
    }

    fn batch(&mut self, transactions: &Batch) -> Result<()> {
        let Some(last) = transactions.last().map(Transaction::last) else { return Ok(()) };
        if self.at_once(transactions, last)? {
            return Ok(());
        }
        let number = self.next_number()?;
        let position = self.log.progress.after(number, last);
        if !self.two_phase {
            self.log.progress.announce(&mut self.master)?;
        }
        self.replayer.begin(&mut self.slave)?;
        if !self.two_phase {
            self.note_progress(&position)?;
        }
        failpoint::reached(Step::Begun);
        let applied = if self.replayer.holds.checks_transactions() {
            self.work_with_care(transactions)?
        } else {
            self.work(transactions)?
        };
        self.replayer.check_unique(&mut self.slave)?;
        failpoint::reached(Step::Replayed);
        if applied > 0 && self.two_phase {
            self.commit_both(&position)?;
        } else {
            self.log.progress.note(&mut self.master, &position)?;
            failpoint::reached(Step::Noted);
            // With nothing but changes to skip there is nothing on the slave that could get lost.
            let end = if !self.two_phase { "COMMIT" } else { "ROLLBACK" };
            self.slave.message("end the transaction", end)?;
            failpoint::reached(Step::SlaveCommitted);
            self.master.message("commit", "COMMIT")?;
            failpoint::reached(Step::MasterCommitted);
        }
        self.committed_batch(position);
        Ok(())
    }

    fn next_number(&mut self) -> Result<BatchNumber> {
        self.number.take().map_or_else(|| draw_number(&mut self.master), Ok)
    }

    fn committed_batch(&mut self, position: Position) {
        self.log.progress.committed(position);
        // Now nobody waits for it. If it cannot be had, the next statement tells why.
        self.number = draw_number(&mut self.master).ok();
    }

    fn commit_both(&mut self, position: &Position) -> Result<()> {
        let number = position.batch;
        let operation = format!("prepare transaction batch {number}");
        let message = self.prepare(Side::Slave, number);
        match self.prepare_both(&operation, &message, position)? {
            Some(refusal) => Err(refusal),
            None => self.commit_prepared(number),
        }
    }

    /// Sends the slave's message, which ends in PREPARE, while the master notes the position and prepares that: two flushes to
    /// disk, of which neither waits for the other. If the slave refuses, what it said: nothing is prepared then.
    fn prepare_both(&mut self, operation: &str, message: &str, position: &Position) -> Result<Option<Error>> {
        let number = position.batch;
        let on_master = self.prepare(Side::Master, number);
        let Pair { master, slave, log, .. } = self;
        let (on_slave, noted) = slave.ask_while(
            |slave| slave.message(operation, message),
            || log.progress.note_and_prepare(master, position, &on_master),
        );
        // Who is heard to refuse has prepared nothing, and nothing of it can appear later. Of whom nothing is heard, recovery
        // finds out.
        match (noted, on_slave) {
            (Ok(()), Ok(_)) => Ok(None),
            (Ok(()), Err(refusal)) if refusal.code().is_some() || !refusal.is_transient() => {
                self.finish(Side::Master, "ROLLBACK PREPARED", number)?;
                Ok(Some(refusal))
            }
            (Err(error), Ok(_)) if !error.is_transient() => {
                self.finish(Side::Slave, "ROLLBACK PREPARED", number)?;
                Err(error)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn prepare(&self, side: Side, number: BatchNumber) -> String {
        format!("PREPARE TRANSACTION {}", quote_literal(&self.gids.gid(side, number)))
    }

    fn commit_prepared(&mut self, number: BatchNumber) -> Result<()> {
        failpoint::reached(Step::Prepared);
        self.finish(Side::Master, "COMMIT PREPARED", number)?;
        failpoint::reached(Step::MasterCommitted);
        self.finish(Side::Slave, "COMMIT PREPARED", number)?;
        failpoint::reached(Step::SlaveCommitted);
        Ok(())
    }

    /// `COMMIT PREPARED 'gid'` and its like, of a batch of this connection.
    fn finish(&mut self, side: Side, command: &str, number: BatchNumber) -> Result<()> {
        let gid = self.gids.gid(side, number);
        finish(self.session(side), command, number, &gid)
    }

    fn session(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Master => &mut self.master,
            Side::Slave => &mut self.slave,
        }
    }

    /// The number in the master's row for this slave.
    fn committed(&mut self) -> Result<BatchNumber> {
        Ok(BatchNumber(self.master.query_one("read the last batch", sql::COMMITTED_BATCH, &[&self.field])?.get(0)))
    }

    fn note_progress(&mut self, position: &Position) -> Result<()> {
        let committed = self.log.progress.position().batch;
        let noted = self.slave.execute(
            "note the progress",
            sql::NOTE_PROGRESS,
            &[&self.key, &position.batch.0, &position.encode(), &committed.0],
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

    /// Replays everything in these transactions; how many changes went to the slave.
    fn work(&mut self, transactions: &Batch) -> Result<u64> {
        let mut applied = 0;
        let mut pages = Pages::new(transactions.clone());
        let mut ahead = self.prefetcher.take_if(|ahead| ahead.is_next(transactions));
        loop {
            if self.control.is_stopping() {
                return Err(Error::new(Kind::Stopped, None, "finish the batch", "the daemon is stopping"));
            }
            let changes = match &mut ahead {
                Some(ahead) => ahead.next()?,
                None => pages.next(&mut self.log.reader, &mut self.master)?,
            };
            let Some(changes) = changes else { break };
            applied += changes.len() as u64;
            self.replayer.apply(&mut self.master, &mut self.slave, changes)?;
        }
        self.prefetcher = ahead.or(self.prefetcher.take());
        Ok(applied)
    }
}

fn draw_number(master: &mut Session) -> Result<BatchNumber> {
    Ok(BatchNumber(master.query_one("number the batch", sql::NEXT_BATCH, &[])?.get(0)))
}

fn finish(session: &mut Session, command: &str, number: BatchNumber, gid: &str) -> Result<()> {
    let operation = format!("{} batch {number}", command.to_lowercase());
    session.message(&operation, &format!("{command} {}", quote_literal(gid))).map(drop)
}

/// A transaction that the slave refuses as a whole.
fn blame(error: Error, transaction: &Transaction) -> Error {
    let (txid, first) = (transaction.txid(), transaction.first());
    let operation = format!("replay transaction {txid}, changes {first} to {}", transaction.last());
    let blamed = Error::new(Kind::Change, error.side(), operation, error.detail()).with_change(first, txid);
    match error.hint() {
        Some(hint) => blamed.with_hint(hint),
        None => blamed,
    }
}
