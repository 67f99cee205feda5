//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.
//!
//! The code map, in reading order; a module uses only what stands above it.
//!
//! Ground (std only, no I/O):
pub mod config;
pub mod dsn;
pub mod names;
// World (each the only importer of its crate):
pub mod control;
pub mod error;
// Loop:
pub mod replicator;
