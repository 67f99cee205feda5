//! The order of replay: whole transactions, by their last change; inside one, by id.
//!
//! If a transaction Tb depends on Ta (it changed or referenced a row that Ta changed, or waited for its lock), then Ta had
//! committed before Tb made that change, and the change drew its id after all of Ta's. So last(Ta) < last(Tb). Those that
//! do not depend on each other commute. Hence replay by last(T) is right, it may be cut between any two transactions, and
//! a transaction still open on the master has no visible dependants: it is simply not in the list yet.

use crate::names::{LogId, Txid};
use std::collections::{HashMap, VecDeque};

/// One pending row of the log without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: LogId,
    pub txid: Txid,
    /// About the bytes its payload takes, for cutting batches.
    pub size: usize,
    /// Marked without being replayed: made by SKIP_USER, or by a replica whose master is our slave.
    pub skip: bool,
}

/// One whole master transaction, in the place it is replayed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// All its rows, by id.
    Listed(Vec<Entry>),
    /// Too far apart to have been read as a whole: its rows are paged through when it is replayed.
    Spread { txid: Txid, first: LogId, last: LogId, rows: u64 },
}

impl Unit {
    pub fn last(&self) -> LogId {
        match self {
            Unit::Listed(entries) => entries.last().expect("a unit has a row").id,
            Unit::Spread { last, .. } => *last,
        }
    }

    pub fn rows(&self) -> u64 {
        match self {
            Unit::Listed(entries) => entries.len() as u64,
            Unit::Spread { rows, .. } => *rows,
        }
    }

    fn size(&self) -> usize {
        match self {
            Unit::Listed(entries) => entries.iter().map(|entry| entry.size).sum(),
            Unit::Spread { .. } => usize::MAX,
        }
    }
}

/// Groups pending rows into transactions and puts them in order of replay. With a cut, transactions whose last row in
/// `entries` lies beyond it are left for later: there may be more of them than was read.
pub fn units(mut entries: Vec<Entry>, cut: Option<LogId>) -> Vec<Unit> {
    let mut last: HashMap<Txid, LogId> = HashMap::new();
    for entry in &entries {
        let known = last.entry(entry.txid).or_insert(entry.id);
        *known = entry.id.max(*known);
    }
    if let Some(cut) = cut {
        entries.retain(|entry| last[&entry.txid] <= cut);
    }
    entries.sort_by_key(|entry| (last[&entry.txid], entry.id));
    entries.chunk_by(|a, b| a.txid == b.txid).map(|rows| Unit::Listed(rows.to_vec())).collect()
}

/// Takes the next batch off the front: whole units, up to `rows` rows and `bytes` bytes, at least one.
pub fn next_batch(queue: &mut VecDeque<Unit>, rows: u64, bytes: usize) -> Vec<Unit> {
    let mut batch = Vec::new();
    let (mut taken_rows, mut taken_bytes) = (0u64, 0usize);
    while let Some(unit) = queue.front() {
        taken_rows += unit.rows();
        taken_bytes = taken_bytes.saturating_add(unit.size());
        if !batch.is_empty() && (taken_rows > rows || taken_bytes > bytes) {
            break;
        }
        batch.extend(queue.pop_front());
    }
    batch
}

/// The lowest id that can still be pending, so that no drain walks over the dead rows before it.
///
/// What was visible to a finished drain has been replayed. What may still appear belongs to transactions that were open
/// then, or not begun. Our own transactions on the master tell the two apart: a transaction with a higher number than one
/// of ours got it later, so it draws its ids above every id that had been seen by then. Hence: once all transactions up to
/// one of ours are over, and a drain that saw that is finished, no id seen before ours can appear any more.
///
/// The end of a snapshot would not do in the place of our own number: it is one past the newest transaction that is over,
/// and transactions above it may be running, with ids drawn long ago.
#[derive(Debug, Default)]
pub struct Floor {
    /// (one of our transactions, highest id seen before it began), oldest first.
    history: VecDeque<(Txid, LogId)>,
    floor: Option<LogId>,
}

/// Transactions of ours remembered while a long one of the application holds the floor down.
const REMEMBERED: usize = 64;

impl Floor {
    /// Rows at or below this id need no look.
    pub fn get(&self) -> LogId {
        self.floor.unwrap_or(LogId(0))
    }

    /// Notes a transaction of ours on the master, and the highest id that had been seen before it began.
    pub fn batch(&mut self, ours: Txid, highest: LogId) {
        if self.history.len() == REMEMBERED {
            self.history.pop_back();
        }
        self.history.push_back((ours, highest));
    }

    /// Notes a finished drain, by the oldest transaction that was still open when it looked.
    pub fn drained(&mut self, oldest_open: Txid) {
        while self.history.front().is_some_and(|(ours, _)| *ours < oldest_open) {
            let (_, id) = self.history.pop_front().expect("there is a front");
            self.floor = self.floor.max(Some(id));
        }
    }

    /// Looks at the whole log again next time.
    pub fn forget(&mut self) {
        *self = Floor::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(rows: &[(i64, i64)]) -> Vec<Entry> {
        rows.iter().map(|(id, txid)| Entry { id: LogId(*id), txid: Txid(*txid), size: 10, skip: false }).collect()
    }

    fn ids(units: &[Unit]) -> Vec<Vec<i64>> {
        units
            .iter()
            .map(|unit| match unit {
                Unit::Listed(entries) => entries.iter().map(|entry| entry.id.0).collect(),
                Unit::Spread { .. } => panic!("not listed"),
            })
            .collect()
    }

    #[test]
    fn interleaved_transactions_are_taken_apart_and_go_by_their_last_change() {
        let order = units(entries(&[(1, 7), (2, 8), (3, 9), (4, 8), (5, 7)]), None);
        assert_eq!(ids(&order), [vec![3], vec![2, 4], vec![1, 5]]);
    }

    #[test]
    fn a_transaction_that_reaches_beyond_the_cut_waits() {
        let order = units(entries(&[(1, 7), (2, 8), (3, 7), (4, 9)]), Some(LogId(2)));
        assert_eq!(ids(&order), [vec![2]]);
    }

    #[test]
    fn a_batch_holds_whole_transactions_and_at_least_one() {
        let mut queue = units(entries(&[(1, 7), (2, 7), (3, 7), (4, 8), (5, 9)]), None).into();
        assert_eq!(ids(&next_batch(&mut queue, 2, 1000)), [vec![1, 2, 3]]);
        assert_eq!(ids(&next_batch(&mut queue, 2, 15)), [vec![4]]);
        assert_eq!(ids(&next_batch(&mut queue, 2, 1000)), [vec![5]]);
        assert!(next_batch(&mut queue, 2, 1000).is_empty());
    }

    #[test]
    fn the_floor_rises_once_everything_up_to_our_own_transaction_is_over() {
        let mut floor = Floor::default();
        floor.drained(Txid(100));
        assert_eq!(floor.get(), LogId(0));
        floor.batch(Txid(110), LogId(50));
        floor.drained(Txid(100));
        assert_eq!(floor.get(), LogId(0), "transaction 100 may still bring an id below 50");
        floor.drained(Txid(110));
        assert_eq!(floor.get(), LogId(0), "ours itself was open when the drain looked");
        floor.drained(Txid(111));
        assert_eq!(floor.get(), LogId(50));
    }

    #[test]
    fn an_open_transaction_holds_the_floor_where_it_began() {
        let mut floor = Floor::default();
        for (ours, highest) in [(110, 50), (120, 60), (130, 70)] {
            floor.batch(Txid(ours), LogId(highest));
        }
        floor.drained(Txid(125));
        assert_eq!(floor.get(), LogId(60), "transaction 125 began after our transaction 120");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut floor = Floor::default();
        (1..10_000).for_each(|n| floor.batch(Txid(n), LogId(n)));
        assert_eq!(floor.history.len(), REMEMBERED);
        floor.drained(Txid(10_000));
        assert_eq!(floor.get(), LogId(9_999));
    }
}
