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
use crate::base::names::{BatchId, BatchNumber, Side, quote_literal};
use crate::commit::agreement::SlaveRow;
use crate::commit::recovery::GidFamily;
use crate::commit::sql;
use crate::config::settings::{Config, OnError};
use crate::process::failpoint;
use crate::replay::hold::Holds;
use crate::replay::replayer::Replayer;
use crate::server::checks::Findings;
use crate::server::session::Session;
use std::sync::Arc;

mod quarantine;
mod one_message;
mod recover;
mod step;

pub use step::Step;

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
    slave_identity: String,
    gids: GidFamily,
    two_phase: bool,
    /// ON_ERROR = quarantine.
    quarantine: bool,
    /// The next batch, drawn while nobody waited for it.
    next: Option<BatchId>,
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
            slave_identity: findings.slave_identity.clone(),
            gids: GidFamily::new(&name, &field, findings.origin),
            two_phase: config.two_phase,
            quarantine: config.on_error == OnError::Quarantine,
            next: None,
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
        let batch = self.next_batch()?;
        let position = self.log.progress.after(&batch, last);
        if !self.two_phase {
            self.log.progress.announce(&mut self.master, &batch.token)?;
        }
        self.replayer.begin(&mut self.slave)?;
        if !self.two_phase {
            self.note_on_slave(&position)?;
        }
        failpoint::reached(Step::Begun);
        let applied = if self.replayer.holds.checks_transactions() {
            self.work_with_care(transactions)?
        } else {
            self.work(transactions)?
        };
        self.replayer.check_unique(&mut self.slave)?;
        // Without a base the flags tell what was replayed before there was a position.
        if self.log.progress.position().base.is_some() {
            self.log.reader.note_flagged(&mut self.master, &self.key, transactions)?;
        }
        failpoint::reached(Step::Replayed);
        if applied == 0 && self.two_phase {
            // With nothing but changes to skip there is nothing to do on the slave.
            let position = self.log.progress.without_batch(&position);
            self.slave.message("end the transaction", "ROLLBACK")?;
            self.commit_noted(&position)?;
            self.log.progress.committed(position);
            self.next = Some(batch);
            return Ok(());
        }
        if self.two_phase {
            self.commit_both(&position)?;
        } else {
            self.log.progress.note(&mut self.master, &position)?;
            failpoint::reached(Step::Noted);
            self.slave.message("end the transaction", "COMMIT")?;
            failpoint::reached(Step::SlaveCommitted);
            self.master.message("commit", "COMMIT")?;
            failpoint::reached(Step::MasterCommitted);
        }
        self.committed_batch(position);
        Ok(())
    }

    /// Moves the position on the master alone.
    fn commit_noted(&mut self, position: &Position) -> Result<()> {
        self.log.progress.note(&mut self.master, position)?;
        failpoint::reached(Step::Noted);
        self.master.message("commit", "COMMIT")?;
        failpoint::reached(Step::MasterCommitted);
        Ok(())
    }

    fn next_batch(&mut self) -> Result<BatchId> {
        self.next.take().map_or_else(|| draw_batch(&mut self.master), Ok)
    }

    fn committed_batch(&mut self, position: Position) {
        self.log.progress.committed(position);
        // Now nobody waits for it. If it cannot be had, the next statement tells why.
        self.next = draw_batch(&mut self.master).ok();
    }

    fn commit_both(&mut self, position: &Position) -> Result<()> {
        let operation = format!("prepare transaction batch {}", position.batch);
        let message = self.note_and_prepare(position);
        match self.prepare_both(&operation, &message, position)? {
            Some(refusal) if refusal.code() == Some(sql::NOT_NOTED) => {
                self.slave.roll_back();
                let row = SlaveRow::read(&mut self.slave, &self.key, &self.log.progress.row(&mut self.master)?)?;
                let is_known = row.and_then(|row| row.token) == self.log.progress.position().token;
                Err(if is_known { refusal } else { moved() })
            }
            Some(refusal) => Err(refusal),
            None => self.commit_prepared(position),
        }
    }

    /// Sends the slave's message, which ends in PREPARE, while the master notes the position and prepares that: two flushes to
    /// disk, of which neither waits for the other. If the slave refuses, what it said: nothing is prepared then.
    fn prepare_both(&mut self, operation: &str, message: &str, position: &Position) -> Result<Option<Error>> {
        let on_master = self.prepare(Side::Master, position);
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
                self.finish(Side::Master, "ROLLBACK PREPARED", position)?;
                Ok(Some(refusal))
            }
            (Err(error), Ok(_)) if error.code().is_some() || !error.is_transient() => {
                self.finish(Side::Slave, "ROLLBACK PREPARED", position)?;
                Err(error)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn prepare(&self, side: Side, position: &Position) -> String {
        format!("PREPARE TRANSACTION {}", quote_literal(&self.gid(side, position)))
    }

    fn gid(&self, side: Side, position: &Position) -> String {
        self.gids.gid(side, position.batch, position.token.as_deref().unwrap_or_default())
    }

    /// What the slave's transaction of a batch ends with.
    fn note_and_prepare(&self, position: &Position) -> String {
        format!("{}; {}", self.progress_note(position, None), self.prepare(Side::Slave, position))
    }

    /// The statement that writes the slave's row.
    fn progress_note(&self, position: &Position, former: Option<String>) -> String {
        let progress = &self.log.progress;
        let row = sql::ProgressRow { position, former, identity: progress.identity(), history: progress.history() };
        sql::note_progress(&self.key, progress.position().token.as_deref(), &row)
    }

    fn commit_prepared(&mut self, position: &Position) -> Result<()> {
        failpoint::reached(Step::Prepared);
        self.finish(Side::Master, "COMMIT PREPARED", position)?;
        failpoint::reached(Step::MasterCommitted);
        self.finish(Side::Slave, "COMMIT PREPARED", position)?;
        failpoint::reached(Step::SlaveCommitted);
        Ok(())
    }

    /// `COMMIT PREPARED 'gid'` and its like, of a batch of this connection.
    fn finish(&mut self, side: Side, command: &str, position: &Position) -> Result<()> {
        let gid = self.gid(side, position);
        finish(self.session(side), command, position.batch, &gid)
    }

    fn session(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Master => &mut self.master,
            Side::Slave => &mut self.slave,
        }
    }

    /// Without two-phase commit the slave's row is written first: a commit of a former connection that is still going on is
    /// waited for, and noticed.
    fn note_on_slave(&mut self, position: &Position) -> Result<()> {
        let note = self.progress_note(position, Some(self.log.progress.state()));
        match self.slave.message("note the progress", &note) {
            Err(error) if error.code() == Some(sql::NOT_NOTED) => Err(moved()),
            noted => noted.map(drop),
        }
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

pub fn draw_batch(master: &mut Session) -> Result<BatchId> {
    let row = master.query_one("number the batch", sql::NEXT_BATCH, &[])?;
    Ok(BatchId { number: BatchNumber(row.get(0)), token: row.get(1) })
}

/// Somebody else has written the slave's row, or a former connection's commit was still going on.
fn moved() -> Error {
    let detail = "the row in replica_progress is not as the last batch left it";
    Error::new(Kind::Contention, Some(Side::Slave), "note the progress", detail)
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
