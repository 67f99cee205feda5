//! Words that every other room uses: names and numbers with types of their own, errors, and how a thread tells another one
//! to stop or to look again.
//!
//! | file | what |
//! |---|---|
//! | `names` | ids of changes, transactions and batches; the two sides; quoting for SQL |
//! | `backoff` | how long to wait before the next attempt |
//! | `error` | what failed, on which side, why, and what to do now; the exit codes |
//! | `control` | stop, wake up, cancel what the servers do for a pair |
//!
//! PostgreSQL: SQLSTATE, DETAIL and HINT are what `error` says; a `Control` is what a latch is to its processes.

pub mod names;
pub mod backoff;
pub mod error;
pub mod control;
