//! The order of replay: whole transactions, by their last change; inside one, by id.
//!
//! If a transaction Tb depends on Ta (it changed or referenced a row that Ta changed, or waited for its lock), then Ta
//! had committed before Tb made that change, and the change drew its id after all of Ta's. So last(Ta) < last(Tb). Only a
//! deferred check may depend on a transaction that comes later (ARCHITECTURE.md, and `commit/twophase/part.rs`).
//! Transactions that do not depend on each other commute. So replay in the order of last(T) is right, and a batch may
//! end between any two transactions. No visible transaction depends on one that is still open on the master, so that
//! one can wait.

use crate::backlog::change::Change;
use crate::base::names::{LogId, Txid};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// One pending row of the log, mostly without its payload, which is read when the row is replayed.
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub id: LogId,
    pub txid: Txid,
    /// About how many bytes its payload takes. This limits batches.
    pub size: usize,
    /// The slave does not get it: its flag is set, or SKIP_USER made it, or it came from the slave's own database.
    pub skip: bool,
    /// Its flag is set, although the slave has not replayed it: somebody wants to skip it.
    pub flagged: bool,
    /// Its payload, if the query that listed it has returned it.
    pub change: Option<Arc<Change>>,
}

/// One whole transaction of the master.
#[derive(Clone, Debug)]
pub enum Transaction {
    /// All its rows, by id.
    Listed(Vec<LogEntry>),
    /// Its rows spread over too many ids to be read at once. They are read page by page when it is replayed.
    Spread { txid: Txid, first: LogId, last: LogId, rows: u64, flagged: bool },
}

impl Transaction {
    pub fn last(&self) -> LogId {
        match self {
            Transaction::Listed(entries) => entries.last().expect("a transaction has a row").id,
            Transaction::Spread { last, .. } => *last,
        }
    }

    pub fn first(&self) -> LogId {
        match self {
            Transaction::Listed(entries) => entries[0].id,
            Transaction::Spread { first, .. } => *first,
        }
    }

    pub fn txid(&self) -> Txid {
        match self {
            Transaction::Listed(entries) => entries[0].txid,
            Transaction::Spread { txid, .. } => *txid,
        }
    }

    /// Whether it is the transaction that has this change.
    pub fn holds(&self, change: LogId, transaction: Txid) -> bool {
        match self {
            Transaction::Listed(entries) => entries.iter().any(|entry| entry.id == change),
            Transaction::Spread { txid, .. } => *txid == transaction,
        }
    }

    pub fn rows(&self) -> u64 {
        match self {
            Transaction::Listed(entries) => entries.len() as u64,
            Transaction::Spread { rows, .. } => *rows,
        }
    }

    fn size(&self) -> usize {
        match self {
            Transaction::Listed(entries) => entries.iter().map(|entry| entry.size).sum(),
            Transaction::Spread { .. } => usize::MAX,
        }
    }
}

/// Groups pending rows into transactions and puts them in order of replay.
pub fn in_order(entries: Vec<LogEntry>) -> Vec<Transaction> {
    split(entries, LogId(i64::MAX)).0
}

/// Does the same with the transactions whose last row is not above `cut`. Also returns the rows of the others, which
/// may have more rows than were read.
pub fn split(entries: Vec<LogEntry>, cut: LogId) -> (Vec<Transaction>, Vec<LogEntry>) {
    let last = last_ids(&entries);
    let (mut complete, mut rest) = (Vec::with_capacity(entries.len()), Vec::new());
    for entry in entries {
        let last = last[&entry.txid];
        if last <= cut {
            complete.push((last, entry));
        } else {
            rest.push(entry);
        }
    }
    complete.sort_unstable_by_key(|(last, entry)| (*last, entry.id));
    let mut complete = complete.into_iter().peekable();
    let mut transactions = Vec::new();
    while let Some((last, first)) = complete.next() {
        let others = std::iter::from_fn(|| complete.next_if(|(other, _)| *other == last));
        transactions.push(Transaction::Listed(std::iter::once(first).chain(others.map(|(_, entry)| entry)).collect()));
    }
    (transactions, rest)
}

/// Takes the next batch from the front of the queue: whole transactions with at most `rows` rows and `bytes` bytes, but
/// at least one transaction.
pub fn next_batch(queue: &mut VecDeque<Transaction>, rows: u64, bytes: usize) -> Vec<Transaction> {
    let mut batch = Vec::new();
    let (mut taken_rows, mut taken_bytes) = (0u64, 0usize);
    while let Some(transaction) = queue.front() {
        taken_rows += transaction.rows();
        taken_bytes = taken_bytes.saturating_add(transaction.size());
        if !batch.is_empty() && (taken_rows > rows || taken_bytes > bytes) {
            break;
        }
        batch.extend(queue.pop_front());
    }
    batch
}

fn last_ids(entries: &[LogEntry]) -> HashMap<Txid, LogId> {
    let mut last: HashMap<Txid, LogId> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let known = last.entry(entry.txid).or_insert(entry.id);
        *known = entry.id.max(*known);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(rows: &[(i64, i64)]) -> Vec<LogEntry> {
        let entry = |(id, txid): &(i64, i64)| LogEntry {
            id: LogId(*id),
            txid: Txid(*txid),
            size: 10,
            skip: false,
            flagged: false,
            change: None,
        };
        rows.iter().map(entry).collect()
    }

    fn ids(transactions: &[Transaction]) -> Vec<Vec<i64>> {
        transactions
            .iter()
            .map(|transaction| match transaction {
                Transaction::Listed(entries) => entries.iter().map(|entry| entry.id.0).collect(),
                Transaction::Spread { .. } => panic!("not listed"),
            })
            .collect()
    }

    #[test]
    fn interleaved_transactions_are_taken_apart_and_go_by_their_last_change() {
        let order = in_order(entries(&[(1, 7), (2, 8), (3, 9), (4, 8), (5, 7)]));
        assert_eq!(ids(&order), [vec![3], vec![2, 4], vec![1, 5]]);
    }

    #[test]
    fn a_transaction_that_reaches_beyond_the_cut_waits() {
        let (complete, rest) = split(entries(&[(1, 7), (2, 8), (3, 7), (4, 9)]), LogId(2));
        let rest: Vec<i64> = rest.iter().map(|entry| entry.id.0).collect();
        assert_eq!((ids(&complete), rest), (vec![vec![2]], vec![1, 3, 4]));
    }

    #[test]
    fn a_batch_holds_whole_transactions_and_at_least_one() {
        let mut queue = in_order(entries(&[(1, 7), (2, 7), (3, 7), (4, 8), (5, 9)])).into();
        assert_eq!(ids(&next_batch(&mut queue, 2, 1000)), [vec![1, 2, 3]]);
        assert_eq!(ids(&next_batch(&mut queue, 2, 15)), [vec![4]]);
        assert_eq!(ids(&next_batch(&mut queue, 2, 1000)), [vec![5]]);
        assert!(next_batch(&mut queue, 2, 1000).is_empty());
    }
}
