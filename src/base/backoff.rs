//! How long to wait before the next try: a quarter of a second at first, then twice as long each time up to a limit,
//! with a random part taken off.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The pause before the first retry. It is long enough for a server that only restarts a backend.
pub const FIRST: Duration = Duration::from_millis(250);

/// No pause is longer. So the daemon notices within a minute that a server is back, even after hours.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The pause before retry number `attempt`, counted from 0.
///
/// Up to half of it is taken off at random, so that many pairs that lost the same server do not all reconnect at the
/// same moment.
pub fn pause(attempt: u32) -> Duration {
    jittered(attempt, random_fraction())
}

fn jittered(attempt: u32, fraction: f64) -> Duration {
    debug_assert!((0.0..1.0).contains(&fraction));
    let full = FIRST.saturating_mul(2u32.saturating_pow(attempt)).min(LONGEST);
    full.mul_f64(1.0 - fraction / 2.0)
}

/// A number from 0 to below 1. The keys that std draws for its hash maps are random enough for this, so no crate is
/// needed.
fn random_fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_quarter_of_a_second_up_to_the_cap() {
        let full: Vec<u128> = (0..10).map(|attempt| jittered(attempt, 0.0).as_millis()).collect();
        assert_eq!(full, [250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        assert_eq!(jittered(u32::MAX, 0.0), LONGEST);
    }

    #[test]
    fn jitter_takes_off_half_at_most() {
        for attempt in [0, 3, 40] {
            let (real, full) = (pause(attempt), jittered(attempt, 0.0));
            assert!(full / 2 <= real && real <= full, "{real:?} is not within half of {full:?}");
        }
    }

    #[test]
    fn two_pauses_are_not_the_same() {
        let pauses: Vec<Duration> = (0..8).map(|_| pause(8)).collect();
        assert!(pauses.iter().any(|other| *other != pauses[0]));
    }
}
