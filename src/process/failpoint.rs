//! Where a test makes the process stand still. In production nothing names a point, and nothing happens.

use crate::process::signals;
use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names the point, and which time it is reached, at which the process is to stop itself: `prepared` or `marked:3`.
const PAUSE_VARIABLE: &str = "PYREPLICA_PAUSE_AT";

/// Called at every step of the protocol, and at every step of falling asleep.
pub fn reached(point: impl Display) {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    // Counted by the process, not by the connection: a daemon that goes on after a fault does not pause again.
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let Some((wanted, turn)) = WANTED.get_or_init(wanted) else { return };
    if point.to_string() == *wanted && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == *turn {
        signals::stand_still();
    }
}

fn wanted() -> Option<(String, u32)> {
    let wanted = std::env::var(PAUSE_VARIABLE).ok()?;
    let (point, turn) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    Some((point.to_string(), turn.parse().unwrap_or(1)))
}
