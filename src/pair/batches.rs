//! Takes batches from the backlog, and makes one longer where later transactions have to be replayed with it.

use crate::backlog::order::{Transaction, next_batch};
use crate::backlog::pending::Backlog;
use crate::backlog::reader::Batch;
use crate::base::error::Result;
use crate::commit::twophase::Pair;
use std::sync::Arc;

/// Limits of one batch. With some hundred changes in a batch, two-phase commit costs next to nothing per change.
const BATCH_ROWS: u64 = 20_000;
const BATCH_BYTES: usize = 16 << 20;

/// A batch with more changes does not grow.
const MAX_GROWN_ROWS: u64 = 100_000;

/// Replays a batch. If a check at the end of a transaction fails, which later changes may make succeed, the batch grows by
/// the next transactions.
pub fn replay_and_grow(
    pair: &mut Pair,
    batch: &mut Batch,
    next: &mut Option<Batch>,
    backlog: &mut Backlog,
) -> Result<u64> {
    let mut replayed = 0;
    let rows = |transactions: &[Transaction]| transactions.iter().map(Transaction::rows).sum::<u64>();
    loop {
        let may_grow = rows(batch) <= MAX_GROWN_ROWS;
        match pair.replay(batch, may_grow) {
            Err(error) if may_grow && error.is_premature() => {}
            done => return done.map(|last| replayed + last),
        }
        let mut left = pair.not_replayed(batch);
        replayed += rows(batch) - rows(&left);
        let wanted = 2 * rows(&left);
        let before = left.len();
        while rows(&left) < wanted {
            if next.is_none() {
                pair.log.more(&mut pair.master, backlog, pair.prefetcher.as_mut())?;
            }
            let more = next.take().unwrap_or_else(|| batch_of(backlog));
            if more.is_empty() {
                break;
            }
            left.extend(more.iter().cloned());
        }
        let has_grown = left.len() > before;
        *batch = Arc::new(left);
        if !has_grown {
            return pair.replay(batch, false).map(|last| replayed + last);
        }
    }
}

pub fn batch_of(backlog: &mut Backlog) -> Batch {
    Arc::new(next_batch(backlog.queue(), BATCH_ROWS, BATCH_BYTES))
}
