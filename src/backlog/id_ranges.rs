//! Ranges of log ids in which flags are still to be set.

use crate::base::names::LogId;
use std::collections::VecDeque;

/// Ranges closer to each other than this become one: to read the rows between them costs less than a query.
const NEAR: i64 = 1_000;

/// If there are more ranges, the closest neighbours are joined, however far apart they are.
const KEPT: usize = 64;

/// Ranges (above, up to), in the order of ids. They do not overlap.
#[derive(Debug, Default)]
pub struct IdRanges {
    ranges: VecDeque<(LogId, LogId)>,
}

impl IdRanges {
    /// Adds the ids above one and up to another.
    pub fn add(&mut self, above: LogId, up_to: LogId) {
        if above >= up_to {
            return;
        }
        let place = self.ranges.iter().take_while(|(known, _)| *known <= above).count();
        self.ranges.insert(place, (above, up_to));
        self.join(NEAR);
        if self.ranges.len() > KEPT {
            let gaps = self.ranges.iter().zip(self.ranges.iter().skip(1)).map(|(a, b)| b.0.0 - a.1.0);
            let narrowest = gaps.min().expect("there are several");
            self.join(narrowest);
        }
    }

    pub fn first(&self) -> Option<(LogId, LogId)> {
        self.ranges.front().copied()
    }

    /// Removes the ids of the first range up to this one.
    pub fn done(&mut self, up_to: LogId) {
        if let Some((above, end)) = self.ranges.pop_front() {
            if up_to < end {
                self.ranges.push_front((up_to.max(above), end));
            }
        }
    }

    /// How many ids there are.
    pub fn ids(&self) -> u64 {
        self.ranges.iter().map(|(above, up_to)| (up_to.0 - above.0) as u64).sum()
    }

    fn join(&mut self, gap: i64) {
        let mut joined: VecDeque<(LogId, LogId)> = VecDeque::with_capacity(self.ranges.len());
        for (above, up_to) in self.ranges.drain(..) {
            match joined.back_mut() {
                Some((_, end)) if above.0 - end.0 <= gap => *end = up_to.max(*end),
                _ => joined.push_back((above, up_to)),
            }
        }
        self.ranges = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(added: &[(i64, i64)]) -> IdRanges {
        let mut ranges = IdRanges::default();
        added.iter().for_each(|(above, up_to)| ranges.add(LogId(*above), LogId(*up_to)));
        ranges
    }

    fn shown(ranges: &IdRanges) -> Vec<(i64, i64)> {
        ranges.ranges.iter().map(|(above, up_to)| (above.0, up_to.0)).collect()
    }

    #[test]
    fn spans_that_meet_are_one_and_others_keep_apart() {
        assert_eq!(shown(&ranges(&[(10, 20), (20, 30), (5_000, 6_000), (15, 40)])), [(10, 40), (5_000, 6_000)]);
        assert_eq!(shown(&ranges(&[(5_000, 6_000), (0, 9_000), (7, 7)])), [(0, 9_000)]);
    }

    #[test]
    fn the_first_span_is_done_bit_by_bit() {
        let mut ranges = ranges(&[(0, 100), (5_000, 6_000)]);
        ranges.done(LogId(40));
        assert_eq!((ranges.first(), ranges.ids()), (Some((LogId(40), LogId(100))), 1_060));
        ranges.done(LogId(100));
        ranges.done(LogId(6_000));
        assert_eq!((ranges.first(), ranges.ids()), (None, 0));
    }

    #[test]
    fn there_are_never_many() {
        let added: Vec<(i64, i64)> = (0..1_000).map(|n| (n * 10_000, n * 10_000 + 10 + n)).collect();
        let ranges = ranges(&added);
        assert!(ranges.ranges.len() <= KEPT);
        assert_eq!(shown(&ranges).first().unwrap().0, 0);
        assert_eq!(shown(&ranges).last().unwrap().1, 9_991_009);
    }
}
