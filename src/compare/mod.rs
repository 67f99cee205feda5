//! Finds the rows that differ between master and slave, and repairs them.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements that list what can be compared |
//! | `servers` | runs queries on both servers at the same time |
//! | `digest` | the queries that digest ranges of keys, on one side |
//! | `comparison` | finds rows that differ, while both sides change |
//! | `rejoin` | a repair that gives two servers that are apart a common position again |
//! | `repair` | writes the master's rows over the slave's |
//!
//! PostgreSQL has nothing of the kind for logical replication; pg_comparator and pt-table-checksum digest ranges likewise.

pub mod sql;
pub mod servers;
pub mod digest;
pub mod comparison;
pub mod repair;
pub mod rejoin;
