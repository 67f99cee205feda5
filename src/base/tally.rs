//! What a pair has done since the process started, for whoever counts. The numbers only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Tally {
    replayed: AtomicU64,
    put_aside: AtomicU64,
    errors: AtomicU64,
    conflicts: AtomicU64,
}

impl Tally {
    /// Changes were replayed, and are committed on both sides.
    pub fn add_replayed(&self, changes: u64) {
        self.replayed.fetch_add(changes, Relaxed);
    }

    /// Some of these were not replayed but held, or put into quarantine.
    pub fn add_put_aside(&self, changes: u64) {
        self.put_aside.fetch_add(changes, Relaxed);
    }

    /// A try of the pair has failed.
    pub fn add_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Changes met something unexpected on the slave, and are committed.
    pub fn add_conflicts(&self, conflicts: u64) {
        self.conflicts.fetch_add(conflicts, Relaxed);
    }

    pub fn replayed(&self) -> u64 {
        self.replayed.load(Relaxed)
    }

    pub fn put_aside(&self) -> u64 {
        self.put_aside.load(Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Relaxed)
    }
}
