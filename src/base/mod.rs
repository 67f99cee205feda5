//! What every other room uses: types for names and ids, errors, and how one thread tells another to stop or to look
//! again.
//!
//! | file | what |
//! |---|---|
//! | `names` | ids of changes, transactions and batches; the two sides; quoting for SQL |
//! | `shown` | how text of others is shown, so that it does nothing else |
//! | `phrases` | a number of things, the word that was meant |
//! | `backoff` | how long to wait before the next attempt |
//! | `error` | what failed, on which side, why, and what to do now; the exit codes |
//! | `tally` | what a pair has done, in numbers |
//! | `control` | stop or wake a pair, cancel the statements that the servers run for it |
//!
//! In PostgreSQL: `error` carries what SQLSTATE, DETAIL and HINT carry; a `Control` does what a latch does.

pub mod names;
pub mod shown;
pub mod phrases;
pub mod backoff;
pub mod error;
pub mod tally;
pub mod control;
