//! Commits a batch on both servers or on neither.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of two-phase commit, and of `TWO_PHASE=false` |
//! | `recovery` | names of prepared transactions, and a table that says whether to commit each |
//! | `prepared` | reads a server's prepared transactions, and says which of them are batches |
//! | `agreement` | compares the last batch of both servers |
//! | `twophase` | a connected pair: the protocol, and recovery at every connect |
//!
//! In PostgreSQL this is PREPARE TRANSACTION, and `pg_prepared_xacts` shows what a crash leaves in doubt. PostgreSQL's
//! own logical replication does not need this: a replication origin stores the position on the subscriber only, in the
//! transaction that replays the changes.

pub mod sql;
pub mod recovery;
pub mod prepared;
pub mod agreement;
pub mod twophase;
