//! Commits one batch on both servers, or on neither.
//!
//! ```text
//! begin on the slave -> replay
//!   -> at once: master: begin, write the batch's number, its token and the position into replica_slave, PREPARE
//!               slave:  write the same into replica_progress, PREPARE
//!   -> COMMIT PREPARED on the slave -> COMMIT PREPARED on the master
//! ```
//!
//! For a few changes, one message to each server does everything before the commits, also without two-phase commit
//! (`one_message.rs`).
//!
//! A failure before the first PREPARE leaves nothing behind. What is prepared survives any crash. Recovery settles it
//! at the next connect, before the first drain, gid by gid, by the table in `recovery.rs`.
//!
//! Two crashes, step by step:
//!
//! 1. *The daemon dies between the two commits.* Number n and the rows are committed on the slave. On the master n is prepared, its
//!    position has not moved yet. Recovery finds n prepared on the master only, reads n in the slave's row, and commits the master.
//!    Nothing is replayed twice, because that moves the position. Had an operator committed the master's by hand, recovery would find n
//!    prepared on the slave only, read n in the master's row, and commit the slave: nothing is lost, because the rows are in the
//!    prepared transaction. A server shows what it has committed before the prepared transaction vanishes from its list, and recovery
//!    reads the lists before the rows. So a commit that is still being executed is seen as prepared or as committed; if as prepared,
//!    recovery's own commit fails, and the daemon connects again.
//!
//! 2. *The connection to the slave breaks while its backend still executes PREPARE.* Recovery finds n prepared on the
//!    master only and rolls it back, so the changes are pending again. Now the old backend finishes: n is prepared on
//!    the slave, and on the master nothing is, as in the first case. But the master's row has another number, so
//!    recovery rolls n back on the slave. What is not prepared proves nothing; the number in the row does. Numbers are
//!    drawn from a sequence, so no two attempts have the same one. The late transaction holds its locks, and the new
//!    attempt waits for them, at most for lock_timeout. Then the daemon reconnects, and recovery finds the late
//!    transaction.
//!
//! Without two-phase commit (`TWO_PHASE=false`) the slave's transaction writes the number and the position into the
//! slave's own row, and commits first. If the master then fails to commit, the slave's row is ahead of the master's,
//! and recovery copies the slave's position to the master. A batch updates the slave's row only if the row is as the
//! daemon expects. If an old backend is still executing COMMIT, it holds the row: the batch waits for it, and then
//! finds another row.

use crate::backlog::flags::FlagWriter;
use crate::backlog::order::Transaction;
use crate::backlog::pending::SlaveLog;
use crate::backlog::position::Position;
use crate::backlog::prefetch::Prefetcher;
use crate::backlog::reader::{Batch, Pages};
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchId, BatchNumber, LogId, Side, quote_literal};
use crate::commit::agreement::SlaveRow;
use crate::commit::recovery::GidFamily;
use crate::commit::sql;
use crate::config::settings::{Config, OnError};
use crate::process::failpoint;
use crate::replay::hold::Holds;
use crate::replay::replayer::Replayer;
use crate::server::checks::Findings;
use crate::server::session::Session;

/// SQLSTATE of COMMIT PREPARED for a transaction that is not there.
const UNKNOWN_GID: &str = "42704";

mod quarantine;
mod one_message;
mod part;
mod recover;
mod step;

pub use step::Step;

/// A connected pair: both sessions, and what belongs to them.
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
    /// The pair's name in the slave's tables, see `pair_key`.
    pub key: String,
    /// What the master said of the roles when this pair was connected.
    pub roles: String,
    /// The same of the slave, if a switchover was interrupted: when it is finished, only the slave's changes.
    pub slave_roles: Option<String>,
    /// The slave is a master too, so other slaves may need the replayed changes.
    pub feeds_others: bool,
    pub control: Control,
    slave_identity: String,
    gids: GidFamily,
    two_phase: bool,
    /// Whether ON_ERROR is quarantine.
    quarantine: bool,
    /// Number and token of the next batch, drawn in advance.
    next: Option<BatchId>,
    /// What the operator should know of the batches committed so far. It is logged already.
    conflicts: Vec<String>,
    /// For how many batches not to try the single message, because it has failed before.
    doubts: u32,
}

/// The pair's name in the tables of the slave: a digest of the master's log, and the slave's column in it.
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
            log: SlaveLog::new(config, findings, control),
            flags: FlagWriter::new(config, &findings.fields),
            replayer: Replayer::new(config, &findings.master_identity, deferring, holds).dropping_large_changes(),
            prefetcher: None,
            key: pair_key(findings.origin, &field),
            roles: String::new(),
            slave_roles: None,
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

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Logs a warning, and keeps it for `take_conflicts`.
    pub fn warn(&mut self, what: String) {
        log::warn!(target: &self.name, "{what}");
        self.conflicts.push(what);
    }

    /// Returns the conflicts and warnings since the last call, which are logged already. To be called after a failure
    /// too.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.conflicts)
    }

    fn batch(&mut self, transactions: &Batch) -> Result<()> {
        let Some(last) = transactions.last().map(Transaction::last) else { return Ok(()) };
        if self.at_once(transactions, last)? {
            return Ok(());
        }
        let (batch, position) = self.next_batch(last)?;
        if !self.two_phase {
            self.log.progress.announce(&mut self.master)?;
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
        self.replayer.check_unique(&mut self.master, &mut self.slave)?;
        // Without a base, the flags say what was replayed before there was a position. Then they do not mean skipped.
        if self.log.progress.position().base.is_some() {
            self.log.reader.note_flagged(&mut self.master, &self.key, transactions)?;
        }
        failpoint::reached(Step::Replayed);
        if applied == 0 && self.two_phase {
            // All changes are to be skipped, so the slave has nothing to do.
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
            self.log.progress.note(&mut self.master, &position, None)?;
            self.commit(&position)?;
        }
        self.committed_batch(position);
        Ok(())
    }

    /// Moves the position on the master alone.
    fn commit_noted(&mut self, position: &Position) -> Result<()> {
        self.log.progress.note(&mut self.master, position, None)?;
        failpoint::reached(Step::Noted);
        self.master.message("commit", "COMMIT")?;
        failpoint::reached(Step::MasterCommitted);
        Ok(())
    }

    /// The next batch, and the position after it. `last` is its last row.
    fn next_batch(&mut self, last: LogId) -> Result<(BatchId, Position)> {
        let batch = self.next.take().map_or_else(|| draw_batch(&mut self.master), Ok)?;
        let position = self.log.progress.after(&batch, last);
        if !self.two_phase {
            self.log.progress.will_announce(&batch.token);
        }
        Ok((batch, position))
    }

    fn committed_batch(&mut self, position: Position) {
        self.log.progress.committed(position);
        // Drawn now, because nobody waits for it. If that fails, the next statement reports the error.
        self.next = draw_batch(&mut self.master).ok();
    }

    fn commit_both(&mut self, position: &Position) -> Result<()> {
        let operation = format!("prepare transaction batch {}", position.batch);
        let note = sql::note_progress(&self.note_values(position));
        let message = format!("{note}; {}", self.prepare(Side::Slave, position));
        match self.write_both(&operation, &message, position)? {
            Some(refusal) if refusal.code() == Some(sql::NOT_NOTED) => {
                self.slave.roll_back();
                let row = SlaveRow::read(&mut self.slave, &self.key, &self.log.progress.row(&mut self.master)?)?;
                let is_known = row.and_then(|row| row.token) == self.log.progress.position().token;
                Err(if is_known { refusal } else { moved() })
            }
            Some(refusal) => Err(refusal),
            None => self.commit(position),
        }
    }

    /// Sends the slave's last message before its commit. At the same time the master writes the position, so the two flushes to
    /// disk do not wait for each other. With two-phase commit both end with PREPARE. If the slave refuses, returns its error: then
    /// nothing is prepared or noted.
    fn write_both(&mut self, operation: &str, message: &str, position: &Position) -> Result<Option<Error>> {
        let prepare = self.two_phase.then(|| self.prepare(Side::Master, position));
        let Pair { master, slave, log, .. } = self;
        let note = || match prepare {
            Some(prepare) => log.progress.note(master, position, Some(&prepare)),
            None => log.progress.announce(master).and_then(|()| log.progress.note(master, position, None)),
        };
        let (on_slave, noted) = slave.ask_while(|slave| slave.message(operation, message), note);
        // A server that answers with an error has written nothing, and cannot do so later. If a server does not
        // answer, recovery finds out what it has done.
        match (noted, on_slave) {
            (Ok(()), Ok(_)) => Ok(None),
            (Ok(()), Err(refusal)) if refusal.code().is_some() || !refusal.is_transient() => {
                self.take_back(Side::Master, position)?;
                Ok(Some(refusal))
            }
            (Err(error), Ok(_)) if error.code().is_some() || !error.is_transient() => {
                self.take_back(Side::Slave, position)?;
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

    /// What a batch writes into the slave's row.
    fn note_values(&self, position: &Position) -> [String; 8] {
        let progress = &self.log.progress;
        let (identity, history) = (progress.identity(), progress.history());
        let former = if self.two_phase { progress.state_in_life() } else { progress.state() };
        let row = sql::ProgressRow { position, former: Some(former), identity, history };
        sql::note_values(&self.key, progress.position().token.as_deref(), &row)
    }

    /// Commits on the slave and then on the master: whoever reads the slave does not wait for the master. To commit on both at once
    /// would take a second thread, whose start takes longer than the commit.
    fn commit(&mut self, position: &Position) -> Result<()> {
        failpoint::reached(if self.two_phase { Step::Prepared } else { Step::Noted });
        for (side, step) in [(Side::Slave, Step::SlaveCommitted), (Side::Master, Step::MasterCommitted)] {
            if self.two_phase {
                self.finish(side, "COMMIT PREPARED", position.batch, &self.gid(side, position))?;
            } else {
                self.session(side).message("commit", "COMMIT")?;
            }
            failpoint::reached(step);
        }
        Ok(())
    }

    /// Takes back what `write_both` has done on one side.
    fn take_back(&mut self, side: Side, position: &Position) -> Result<()> {
        if self.two_phase {
            return self.finish(side, "ROLLBACK PREPARED", position.batch, &self.gid(side, position));
        }
        self.session(side).message("take the batch back", "ROLLBACK").map(drop)
    }

    /// Commits or rolls back a prepared transaction. What is prepared has been replayed. So whatever a server
    /// refuses now, no change is to blame, and recovery goes on from there.
    fn finish(&mut self, side: Side, command: &str, batch: BatchNumber, gid: &str) -> Result<()> {
        let operation = format!("{} batch {batch}", command.to_lowercase());
        let statement = format!("{command} {}", quote_literal(gid));
        let finished = self.session(side).message(&operation, &statement);
        finished.map(drop).map_err(|error| if error.is_transient() { error } else { unsettled(error) })
    }

    fn session(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Master => &mut self.master,
            Side::Slave => &mut self.slave,
        }
    }

    /// Without two-phase commit the slave's row is written first. This waits for a former connection's COMMIT, if there
    /// is one.
    fn note_on_slave(&mut self, position: &Position) -> Result<()> {
        let note = sql::note_progress(&self.note_values(position));
        match self.slave.message("note the progress", &note) {
            Err(error) if error.code() == Some(sql::NOT_NOTED) => Err(moved()),
            noted => noted.map(drop),
        }
    }

    /// Replays these transactions. Returns how many changes the slave got.
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

/// Somebody else has written the slave's row, or a commit of a former connection was still in progress.
fn moved() -> Error {
    let detail = "the row in replica_progress is not as the last batch left it";
    Error::new(Kind::Contention, Some(Side::Slave), "note the progress", detail)
}

fn unsettled(error: Error) -> Error {
    let detail = match error.code() {
        Some(UNKNOWN_GID) => "it is not prepared there any more: somebody has committed it or rolled it back by hand",
        _ => error.detail(),
    };
    Error::new(Kind::Contention, error.side(), error.operation(), detail).with_hint(
        "nothing is lost: the daemon connects again, sees in the last batch of both servers what became of it, and settles or \
         replays the rest. Leave transactions named pyreplica:... to the daemon",
    )
}
