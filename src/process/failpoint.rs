//! Failpoints: named places where a test stops the process. In production the variable is not set, and nothing happens.

use crate::process::signals;
use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that names the failpoint at which the process stops itself, for example `prepared`, or
/// `replayed:3` for the third time that it reaches `marked`.
const PAUSE_VARIABLE: &str = "PYREPLICA_PAUSE_AT";

/// Stops the process here if the variable names this point. Called at every step of two-phase commit, and at every step
/// with which a pair starts to wait for changes.
pub fn reached(point: impl Display) {
    // The process counts, not the connection, so a daemon that reconnects after an error does not stop again.
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let Some((wanted, turn)) = wanted() else { return };
    if point.to_string() == *wanted && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == *turn {
        signals::stop_this_process();
    }
}

fn wanted() -> Option<&'static (String, u32)> {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    WANTED.get_or_init(read).as_ref()
}

fn read() -> Option<(String, u32)> {
    let wanted = std::env::var(PAUSE_VARIABLE).ok()?;
    let (point, turn) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    Some((point.to_string(), turn.parse().unwrap_or(1)))
}
