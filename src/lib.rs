//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.
//!
//! The code map, in reading order: a module uses only what stands on a floor below it, or above it on its own.

// Ground (std only, no I/O): the words, the rules, the texts.
pub mod names;
pub mod dsn;
pub mod policy;
pub mod config;
pub mod backoff;
pub mod pace;
pub mod notices;
pub mod row;
pub mod change;
pub mod order;
pub mod snapshot;
pub mod horizon;
pub mod position;
pub mod spans;
pub mod recovery;
pub mod table;
pub mod render;
pub mod sets;
pub mod net;
pub mod digest;

// World (each the only importer of its crate): errors, servers, signals, files, mails.
pub mod error;
pub mod control;
pub mod libpq;
pub mod tls;
pub mod signals;
pub mod logger;
pub mod conffiles;
pub mod mail;
pub mod argv;
pub mod output;
pub mod user;
pub mod sql;
pub mod db;

// Engine: what to replay, how to replay it, how to commit it on both sides or on neither.
pub mod checks;
pub mod ledger;
pub mod marking;
pub mod reading;
pub mod capture;
pub mod tables;
pub mod conflict;
pub mod held;
pub mod replay;
pub mod twophase;
pub mod housekeeping;
pub mod copied;
pub mod diagnosis;
pub mod vitals;
pub mod compare;
pub mod repair;
pub mod plan;

// Loop: one pair, then many.
pub mod seam;
pub mod dial;
pub mod sides;
pub mod both;
pub mod release;
pub mod listener;
pub mod ahead;
pub mod replicator;
pub mod schema;
pub mod copier;
pub mod postman;
pub mod report;
pub mod metrics;
pub mod daemon;
pub mod errand;

// Shell: the command line, a module for each verb.
pub mod verb;
pub mod install;
pub mod doctor;
pub mod status;
pub mod comparing;
pub mod copy;
pub mod pause;
pub mod pending;
pub mod skip;
pub mod retry;
pub mod cli;
