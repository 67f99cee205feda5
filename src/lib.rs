//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.
//!
//! The code map, in reading order: a module uses only what stands on a floor below it, or above it on its own.

// Ground (std only, no I/O): the words, the rules, the texts.
pub mod backoff;
pub mod change;
pub mod config;
pub mod dsn;
pub mod names;
pub mod order;
pub mod recovery;

pub mod extent;
pub mod table;

pub mod render;

// World (each the only importer of its crate): errors, servers, signals, files.
pub mod control;
pub mod error;
pub mod libpq;
pub mod logger;
pub mod signals;
pub mod sql;

pub mod argv;
pub mod conffiles;
pub mod db;

// Engine: what to replay, how to replay it, how to commit it on both sides or on neither.
pub mod capture;
pub mod checks;
pub mod conflict;
pub mod install;
pub mod tables;

pub mod replay;

pub mod twophase;

// Loop: one pair, then many.
pub mod replicator;

pub mod daemon;

// Shell: the command line.
pub mod cli;
