//! How often to look at the log while there is always something in it.
//!
//! What comes alone is replayed at once, and a backlog as fast as the slave can. In between lies steady work: transactions
//! come faster than a batch takes, and a daemon that looks again at once finds two or three each time, for which it makes
//! the same round trips and flushes as for a hundred, on the servers of those who write. So it makes a pause after each
//! look, which grows as long as there is something to gain.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);

/// No change waits longer than this for being gathered with others.
const LONGEST: Duration = Duration::from_millis(20);

/// Whoever had nothing to do for so long has no steady work.
const IDLE: Duration = Duration::from_millis(5);

/// So many changes are as good as a full batch.
const MANY_CHANGES: u64 = 2_000;

#[derive(Debug, Default)]
pub struct Pace {
    pause: Duration,
}

impl Pace {
    /// All that a look has found is replayed; the pause before the next one.
    pub fn replayed(&mut self, transactions: usize, changes: u64) -> Duration {
        if changes >= MANY_CHANGES {
            return Duration::ZERO;
        }
        self.pause = match transactions {
            0 | 1 if self.pause > FIRST => self.pause / 2,
            0 | 1 => Duration::ZERO,
            _ => (self.pause * 2).clamp(FIRST, LONGEST),
        };
        self.pause
    }

    /// A look has found nothing, and so long there was nothing.
    pub fn slept(&mut self, length: Duration) {
        if length >= IDLE {
            self.pause = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(pace: &mut Pace, looks: usize, transactions: usize, changes: u64) -> Vec<u128> {
        (0..looks).map(|_| pace.replayed(transactions, changes).as_millis()).collect()
    }

    #[test]
    fn pauses_grow_with_steady_work_up_to_the_longest() {
        assert_eq!(pauses(&mut Pace::default(), 7, 3, 12), [1, 2, 4, 8, 16, 20, 20]);
    }

    #[test]
    fn a_change_that_comes_alone_waits_for_nothing() {
        assert_eq!(pauses(&mut Pace::default(), 3, 1, 1), [0, 0, 0]);
    }

    #[test]
    fn pauses_shrink_when_they_gather_nothing() {
        let mut pace = Pace::default();
        pauses(&mut pace, 5, 3, 12);
        assert_eq!(pauses(&mut pace, 5, 1, 1), [8, 4, 2, 1, 0]);
    }

    #[test]
    fn a_backlog_is_not_held_up() {
        let mut pace = Pace::default();
        assert_eq!(pauses(&mut pace, 3, 500, MANY_CHANGES), [0, 0, 0]);
        assert_eq!(pauses(&mut pace, 3, 1, MANY_CHANGES), [0, 0, 0]);
    }

    #[test]
    fn whoever_has_had_nothing_to_do_begins_anew() {
        let mut pace = Pace::default();
        pauses(&mut pace, 5, 3, 12);
        pace.slept(IDLE - Duration::from_millis(1));
        assert_eq!(pauses(&mut pace, 1, 3, 12), [20]);
        pace.slept(IDLE);
        assert_eq!(pauses(&mut pace, 2, 3, 12), [1, 2]);
    }
}
