//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.
//!
//! The code map, in reading order; a module uses only what stands above it.
//!
//! Ground (std only, no I/O):
pub mod names;
pub mod dsn;
pub mod config;
pub mod backoff;
// World (each the only importer of its crate):
pub mod error;
pub mod control;
pub mod libpq;
pub mod signals;
pub mod logger;
pub mod conffiles;
pub mod argv;
// Loop:
pub mod install;
pub mod replicator;
pub mod daemon;
// Shell:
pub mod cli;
