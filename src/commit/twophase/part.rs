//! Parts batches, and finds the transaction that cannot be replayed.
//!
//! Transactions are joined in a batch to save time. What fails may fail only because of that: PostgreSQL does not allow a
//! new value of an enum in the transaction that adds it, and the locks of many tables may not fit into its memory. So a
//! transaction is to blame only if it has failed by itself.
//!
//! It may also fail because it is by itself. A deferred check of the master was made at the end of the transaction, when
//! another one, whose last change comes later in the log, had been committed (`order.rs`). Then both are replayed in one
//! batch.

use super::Pair;
use crate::backlog::order::Transaction;
use crate::backlog::reader::Batch;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use std::sync::Arc;

/// SQLSTATE of a server that has no memory left, for locks for example.
const OUT_OF_MEMORY: &str = "53200";

impl Pair {
    /// Replays whole transactions and commits them on both sides. If a change cannot be replayed, the transactions before
    /// it are committed, and the error names it, unless ON_ERROR=quarantine puts its transaction into quarantine. With
    /// `may_grow` a failed check that later transactions may pass is an error too: the caller adds them.
    pub fn replay(&mut self, transactions: &Batch, may_grow: bool) -> Result<u64> {
        let mut rest = transactions.clone();
        while let Err(error) = self.replay_up_to_error(&rest) {
            if may_grow && error.is_premature() {
                return Err(error);
            }
            rest = self.put_in_quarantine(&rest, error)?;
        }
        Ok(transactions.iter().map(Transaction::rows).sum())
    }

    /// Those of the transactions that have not been replayed.
    pub fn not_replayed(&self, transactions: &Batch) -> Vec<Transaction> {
        let done = self.log.progress.position().last;
        transactions.iter().filter(|transaction| Some(transaction.last()) > done).cloned().collect()
    }

    fn replay_up_to_error(&mut self, transactions: &Batch) -> Result<()> {
        let mut rest = transactions.clone();
        while !rest.is_empty() {
            let error = match self.attempt(&rest) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let is_too_much = error.code() == Some(OUT_OF_MEMORY) && error.side() == Some(Side::Slave);
            if error.is_transient() && !(is_too_much && rest.len() > 1) {
                return Err(error);
            }
            let first = match error.change() {
                Some((id, txid)) => rest.iter().position(|transaction| transaction.holds(id, txid)).unwrap_or(0).max(1),
                None if error.side() != Some(Side::Slave) => return Err(error),
                // The slave has refused the whole batch, at PREPARE or by a deferred constraint.
                None => rest.len() / 2,
            };
            if rest.len() == 1 {
                return Err(if error.change().is_some() { error } else { blame(error, &rest[0]) });
            }
            match self.replay_up_to_error(&Arc::new(rest[..first].to_vec())) {
                Err(error) if error.is_premature() => {
                    rest = Arc::new(self.not_replayed(&rest));
                    let joined = self.replay_joined(&rest, error)?;
                    rest = Arc::new(rest[joined..].to_vec());
                }
                done => {
                    done?;
                    rest = Arc::new(rest[first..].to_vec());
                }
            }
        }
        Ok(())
    }

    /// Replays the first transaction together with more and more of those after it. Returns how many could be replayed so;
    /// the error of the first one if that does not help.
    fn replay_joined(&mut self, transactions: &[Transaction], error: Error) -> Result<usize> {
        let mut count = 1;
        while count < transactions.len() {
            count = (2 * count).min(transactions.len());
            match self.attempt(&Arc::new(transactions[..count].to_vec())) {
                Ok(()) => return Ok(count),
                Err(failure) if failure.is_transient() && failure.code() != Some(OUT_OF_MEMORY) => return Err(failure),
                Err(_) => {}
            }
        }
        Err(error)
    }

    /// Replays and commits a batch, or leaves nothing of it.
    pub(super) fn attempt(&mut self, transactions: &Batch) -> Result<()> {
        let mut outcome = self.attempt_with_large(transactions);
        if outcome.is_err() && self.replayer.take_unread() {
            self.replayer.be_careful(true);
            outcome = self.attempt_with_large(transactions);
            self.replayer.be_careful(false);
        }
        outcome?;
        self.control.tally().add_conflicts(self.replayer.take_met());
        self.control.tally().add_put_aside(self.replayer.holds.take_put_aside());
        for conflict in self.replayer.take_conflicts() {
            log::warn!(target: &self.name, "{conflict}");
            self.conflicts.push(conflict);
        }
        Ok(())
    }

    /// If the slave refuses a large change, which memory does not hold any more, this replays the batch again and keeps it.
    fn attempt_with_large(&mut self, transactions: &Batch) -> Result<()> {
        let mut outcome = self.attempt_once(transactions);
        if outcome.is_err() && self.replayer.has_dropped_change() {
            outcome = self.attempt_once(transactions);
            self.replayer.drop_large_changes();
        }
        outcome
    }

    fn attempt_once(&mut self, transactions: &Batch) -> Result<()> {
        let outcome = self.batch(transactions);
        if outcome.is_err() {
            self.prefetcher = None;
            self.master.roll_back();
            self.slave.roll_back();
        }
        outcome
    }
}

/// The error for a transaction that the slave refuses as a whole.
fn blame(error: Error, transaction: &Transaction) -> Error {
    let (txid, first) = (transaction.txid(), transaction.first());
    let operation = format!("replay transaction {txid}, changes {first} to {}", transaction.last());
    let is_violation = error.code().is_some_and(|code| code.starts_with("23"));
    let blamed = error.with_kind(Kind::Change).with_operation(operation).with_change(first, txid);
    if is_violation { blamed.premature() } else { blamed }
}
