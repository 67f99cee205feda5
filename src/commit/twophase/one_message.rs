//! Replays a few changes that have come alone: one message to each server, both sent at once, does everything before
//! the commits.
//!
//! The slave's message begins the transaction, replays and prepares it. It fails if anything is not as expected, so
//! what is prepared is right. At the same time the master prepares the position. If the slave refuses, the master's
//! part is rolled back, and the batch is replayed in the usual way, which finds the reason and reports it. With
//! `TWO_PHASE=false` nothing is prepared: both transactions are open when both servers have answered.

use super::{Pair, Step};
use crate::backlog::order::Transaction;
use crate::backlog::reader::{Batch, Pages};
use crate::base::error::Result;
use crate::base::names::{LogId, Side};
use crate::commit::sql;
use crate::process::failpoint;
use crate::replay::replayer::MIN_CHANGES_FOR_SETS;
use crate::replay::sql::MAY_HAVE_CHANGED;
use crate::replay::table_cache::Note;

/// After a refused batch the next ones would probably be refused too. So many are replayed in the usual way.
const DOUBTFUL: u32 = 100;

/// Batches with a larger change are not replayed by one message: with each statement that it prepares, the server keeps its text.
const MAX_BYTES: usize = 64 << 10;

impl Pair {
    /// False if the batch has to be replayed in the usual way. Then nothing of it has been done.
    pub(super) fn at_once(&mut self, transactions: &Batch, last: LogId) -> Result<bool> {
        let rows: u64 = transactions.iter().map(Transaction::rows).sum();
        // What was requested from the prefetcher has to be taken from it.
        let is_ordered = self.prefetcher.as_ref().is_some_and(|ahead| !ahead.is_idle());
        if self.replayer.holds.checks_transactions() || is_ordered || rows >= MIN_CHANGES_FOR_SETS {
            return Ok(false);
        }
        let is_large = |transaction: &Transaction| match transaction {
            Transaction::Listed(entries) => entries.iter().any(|entry| entry.size > MAX_BYTES),
            Transaction::Spread { .. } => false,
        };
        if transactions.iter().any(is_large) {
            return Ok(false);
        }
        if self.doubts > 0 {
            self.doubts -= 1;
            return Ok(false);
        }
        let changes =
            Pages::new(transactions.clone()).next(&mut self.log.reader, &mut self.master)?.unwrap_or_default();
        // The others are to be skipped, or did not fit into one piece.
        if changes.len() as u64 != rows || changes.iter().any(|change| change.bytes() > MAX_BYTES) {
            return Ok(false);
        }
        let (batch, position) = self.next_batch(last)?;
        let values = self.note_values(&position);
        let note = Note { statement: sql::note_progress_if, types: sql::NOTE_TYPES, values };
        let prepare = self.two_phase.then(|| self.prepare(Side::Slave, &position));
        let composed = self.replayer.compose_one_message(&changes, &note, prepare.as_deref());
        let Some((message, written)) = composed else {
            self.next = Some(batch);
            return Ok(false);
        };
        failpoint::reached(Step::Begun);
        if let Some(refusal) = self.write_both("replay", &message, &position)? {
            if refusal.is_transient() {
                return Err(refusal);
            }
            self.slave.message("take a message back", "ROLLBACK")?;
            self.replayer.forget_prepared();
            if refusal.code() == Some(MAY_HAVE_CHANGED) {
                log::trace!(target: &self.name, "Looking closer: a table has changed, or has new statistics");
            } else {
                log::trace!(target: &self.name, "Looking closer: {refusal}");
                self.doubts = DOUBTFUL;
            }
            return Ok(false);
        }
        self.replayer.log_changes(written);
        self.commit(&position)?;
        self.committed_batch(position);
        Ok(true)
    }
}
