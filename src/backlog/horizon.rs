//! From which id on a change can still be pending, so that no look at the log reads rows that have been replayed.
//!
//! When a drain has finished, everything that its snapshot shows has been replayed. Only transactions that it does not
//! show can still appear. Our own transactions on the master help to find their rows: a transaction with a higher
//! number than one of ours got that number later, and so draws ids above every id that had been seen before ours began.
//! Let O be our newest transaction below the snapshot's end, and H the highest id that had been seen before O began:
//!
//! * A transaction numbered above O has ids above H only.
//! * A transaction below O that the snapshot does not show is in its list of open ones. These are the *late*
//!   transactions. The ids of each are above those that had been seen before an earlier transaction of ours, one with a
//!   lower number, began.
//!
//! So the next look reads the ids above H, and the rows of late transactions that have ended since. A transaction that
//! stays open for hours costs one long read, when it ends.
//!
//! The snapshot's end would not do instead of our own number. It is one past the newest transaction that is over, and
//! transactions above it may be running, with ids that they drew long ago.

use crate::backlog::snapshot::Snapshot;
use crate::base::names::{LogId, Txid};
use std::collections::{BTreeMap, VecDeque};

/// How many of our transactions are remembered during a long drain. If there are more, every second one is forgotten.
const REMEMBERED: usize = 64;

#[derive(Debug)]
pub struct Horizon {
    /// One of our transactions, and the highest id seen before it began; oldest first.
    history: VecDeque<(Txid, LogId)>,
    above: LogId,
    /// Each late transaction, and the id above which its rows are.
    late: BTreeMap<Txid, LogId>,
}

impl Horizon {
    /// Nothing at or below `floor` can be pending.
    pub fn new(floor: LogId) -> Horizon {
        Horizon { history: VecDeque::new(), above: floor, late: BTreeMap::new() }
    }

    /// Notes a transaction of ours on the master, and the highest id that had been seen before it began.
    pub fn began(&mut self, ours: Txid, highest: LogId) {
        if self.history.len() >= REMEMBERED {
            let mut place = 0;
            self.history.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.history.push_back((ours, highest));
    }

    /// Everything that this snapshot shows has been replayed.
    pub fn finished(&mut self, snapshot: &Snapshot) {
        let behind = self.history.iter().filter(|(ours, _)| *ours < snapshot.xmax()).count();
        let Some((ours, highest)) = behind.checked_sub(1).map(|newest| self.history[newest]) else {
            self.late.retain(|transaction, _| !snapshot.shows(*transaction));
            return;
        };
        let bound = |late: Txid| {
            let before = self.history.iter().take_while(|(ours, _)| *ours < late).last();
            self.late.get(&late).copied().unwrap_or(before.map_or(self.above, |(_, highest)| *highest))
        };
        let late = snapshot.open().iter().filter(|open| **open < ours).map(|open| (*open, bound(*open))).collect();
        self.late = late;
        self.above = highest;
        self.history.drain(..behind - 1);
    }

    /// Only late transactions can have pending rows at or below this id.
    pub fn above(&self) -> LogId {
        self.above
    }

    /// The late transactions, each with the id above which its rows are.
    pub fn late(&self) -> impl Iterator<Item = (Txid, LogId)> + '_ {
        self.late.iter().map(|(transaction, bound)| (*transaction, *bound))
    }

    /// Where a look with this snapshot begins.
    pub fn start(&self, snapshot: &Snapshot) -> LogId {
        let ended = self.late().filter(|(late, _)| snapshot.shows(*late));
        ended.map(|(_, bound)| bound).min().unwrap_or(self.above).min(self.above)
    }

    /// Nothing at or below this id can be pending, whichever transactions are still open.
    pub fn floor(&self) -> LogId {
        self.late.values().copied().min().unwrap_or(self.above).min(self.above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    fn late(horizon: &Horizon) -> Vec<(i64, i64)> {
        horizon.late().map(|(late, bound)| (late.0, bound.0)).collect()
    }

    #[test]
    fn it_rises_to_what_was_seen_before_our_newest_transaction_behind_the_snapshot() {
        let mut horizon = Horizon::new(LogId(7));
        horizon.finished(&snapshot("100:100:"));
        assert_eq!(horizon.above(), LogId(7), "transaction 100 may have an id from long ago");
        horizon.began(Txid(110), LogId(50));
        horizon.finished(&snapshot("110:110:"));
        assert_eq!(horizon.above(), LogId(7), "ours itself was not over");
        horizon.finished(&snapshot("111:111:"));
        assert_eq!((horizon.above(), horizon.floor()), (LogId(50), LogId(50)));
    }

    #[test]
    fn a_transaction_that_stays_open_is_late_and_holds_down_the_floor_alone() {
        let mut horizon = Horizon::new(LogId(0));
        for (ours, highest) in [(110, 50), (120, 60), (130, 70)] {
            horizon.began(Txid(ours), LogId(highest));
        }
        horizon.finished(&snapshot("125:131:125"));
        assert_eq!((horizon.above(), horizon.floor()), (LogId(70), LogId(60)));
        assert_eq!(late(&horizon), [(125, 60)], "it began after our transaction 120");
        horizon.began(Txid(140), LogId(80));
        horizon.finished(&snapshot("125:141:125,135,141"));
        assert_eq!(late(&horizon), [(125, 60), (135, 70)]);
        assert_eq!(horizon.start(&snapshot("125:150:125,135")), LogId(80));
        assert_eq!(horizon.start(&snapshot("125:150:125")), LogId(70), "135 has ended");
        assert_eq!(horizon.start(&snapshot("150:150:")), LogId(60));
        horizon.finished(&snapshot("150:150:"));
        assert_eq!((late(&horizon), horizon.floor()), (vec![], LogId(80)));
    }

    #[test]
    fn what_was_open_when_we_came_is_bounded_by_the_floor_alone() {
        let mut horizon = Horizon::new(LogId(7));
        horizon.began(Txid(110), LogId(50));
        horizon.finished(&snapshot("90:111:90"));
        assert_eq!((late(&horizon), horizon.above(), horizon.floor()), (vec![(90, 7)], LogId(50), LogId(7)));
    }

    #[test]
    fn without_a_new_transaction_of_ours_late_ones_end_all_the_same() {
        let mut horizon = Horizon::new(LogId(0));
        horizon.began(Txid(110), LogId(50));
        horizon.finished(&snapshot("90:111:90,95"));
        horizon.finished(&snapshot("90:112:90"));
        assert_eq!(late(&horizon), [(90, 0)]);
        horizon.began(Txid(120), LogId(60));
        horizon.finished(&snapshot("119:119:"));
        assert_eq!((late(&horizon), horizon.floor()), (vec![], LogId(50)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_holds_the_first_and_the_newest() {
        let mut horizon = Horizon::new(LogId(0));
        (1..10_001).for_each(|n| horizon.began(Txid(n), LogId(n)));
        assert!(horizon.history.len() <= REMEMBERED);
        assert_eq!(horizon.history.front(), Some(&(Txid(1), LogId(1))));
        horizon.finished(&snapshot("20000:20000:"));
        assert_eq!(horizon.above(), LogId(10_000));
    }
}
