//! Real servers for the tests, cheap enough for a database pair per test.
//!
//! A test takes a [`Pair`]: a fresh database on the master cluster and one on the slave cluster, both cloned from
//! templates that hold pyreplica's own SQL scripts. It runs the real binary against them, once or as a [`Daemon`], and
//! compares all tables. A test that has to stop a server brings its [`OwnCluster`]; one that breaks the network puts a
//! [`Forwarder`] in between. Nothing outlives the tests, not even after `kill -9`.

// Every file in tests/ is a program of its own and uses another part of this.
#![allow(dead_code, unused_imports)]

mod certificates;
mod cluster;
mod compare;
pub mod copying;
mod daemon;
mod database;
mod forwarder;
mod network;
mod pair;
mod road;
pub mod secure;
mod smtp;
mod words;

pub use certificates::{Authority, Certificate, Contents, ORDINARY, restrict};
pub use cluster::{OwnCluster, Script, Server, psql, shared};
pub use daemon::{Daemon, Finished, Still, process_state, run, signal};
pub use database::{Database, Feed, Said};
pub use forwarder::Forwarder;
pub use network::Network;
pub use pair::Pair;
pub use road::{drains, drains_at_once, quietly, refused, replays, replays_each, told};
pub use smtp::{Certificates, Mail, MailServer};
pub use words::{assert_says, final_words, refusal};

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. It bounds a hang; no test measures time with it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `reached` says so; panics with `what` when it never does.
#[track_caller]
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}
