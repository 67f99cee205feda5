//! How long the daemon pauses between two looks at the log under a steady load.
//!
//! The daemon replays a single transaction at once, and a backlog as fast as the slave can. Under a steady load,
//! transactions arrive faster than a batch takes. A daemon that looks again at once finds two or three transactions each
//! time. For these it needs as many round trips and flushes as for a hundred, on servers on which applications are working.
//! So it pauses after each look, and the pause grows as long as it gathers several transactions.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);

/// No change waits longer than this to be replayed together with others.
const LONGEST: Duration = Duration::from_millis(20);

/// If the daemon has had nothing to do for this long, the load is not steady.
const IDLE: Duration = Duration::from_millis(5);

/// With so many changes at once, nothing is gained by a pause.
const MANY_CHANGES: u64 = 2_000;

#[derive(Debug, Default)]
pub struct Pace {
    pause: Duration,
}

impl Pace {
    /// To be called when everything that a look has found is replayed. Returns the pause before the next look.
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

    /// To be called when the daemon has waited for work. `length`: for how long.
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
    fn an_idle_daemon_begins_with_short_pauses_again() {
        let mut pace = Pace::default();
        pauses(&mut pace, 5, 3, 12);
        pace.slept(IDLE - Duration::from_millis(1));
        assert_eq!(pauses(&mut pace, 1, 3, 12), [20]);
        pace.slept(IDLE);
        assert_eq!(pauses(&mut pace, 2, 3, 12), [1, 2]);
    }
}
