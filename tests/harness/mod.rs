//! Real servers for the tests, cheap enough for a database pair per test.
//!
//! A test takes a [`Pair`]: a fresh database on the master cluster and one on the slave cluster, both cloned from
//! templates that hold pyreplica's own SQL scripts. It runs the real binary against them, once or as a [`Daemon`], and
//! compares all tables. A test that has to stop a server brings its [`OwnCluster`]; one that breaks the network puts a
//! [`Forwarder`] in between. Nothing outlives the tests, not even after `kill -9`.

mod certificates;
mod cluster;
mod compare;
pub mod copying;
mod daemon;
mod database;
mod forwarder;
pub mod http;
pub mod looking;
mod network;
mod pair;
mod road;
pub mod secure;
mod smtp;
pub mod switching;
mod words;

pub use certificates::{Authority, Certificate, Contents, ORDINARY, restrict};
pub use cluster::{OwnCluster, Script, Server, psql, shared};
pub use daemon::{Daemon, Finished, Still, run, signal};
pub use database::{Database, Feed};
pub use forwarder::Forwarder;
pub use network::Network;
pub use pair::Pair;
pub use road::{acquainted_pair, drains, drains_at_once, quietly, refused, replays, replays_each, told};
pub use smtp::{Certificates, MailServer};
pub use words::{assert_says, final_words, refusal};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. It bounds a hang; no test measures time with it. A daemon whose
/// server was away for long, as on a busy machine, rests for up to a minute before it tries again.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The pauses between two looks at something that is waited for: a tenth of the time that has passed, within these bounds,
/// since looking takes the others' time.
const POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// Waits until `reached` says so; panics with `what` when it never does.
#[track_caller]
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep((start.elapsed() / 10).clamp(POLL, LONGEST_POLL));
    }
}

/// Tells threads to end, however the test goes on: a scope waits for its threads even when it fails.
pub struct End<'a>(pub &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
