//! A batch is committed on both servers or on neither.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of two-phase commit, and of its substitute |
//! | `recovery` | names of prepared transactions, and what becomes of each: a pure table |
//! | `prepared` | what a server keeps prepared, and which of it are batches |
//! | `agreement` | do both servers mean the same last batch? |
//! | `twophase` | a connected pair: the protocol, and recovery at every connect |
//!
//! PostgreSQL calls both sides' part PREPARE TRANSACTION, and what a crash leaves in doubt is in `pg_prepared_xacts`. Its own
//! logical replication needs none of this: a replication origin notes the position with the changes, on the subscriber alone.

pub mod sql;
pub mod recovery;
pub mod prepared;
pub mod agreement;
pub mod twophase;
