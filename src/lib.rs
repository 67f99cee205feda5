//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.

pub mod base;
pub mod process;
pub mod config;
pub mod server;
pub mod backlog;
pub mod replay;
pub mod commit;
pub mod compare;
pub mod pair;
pub mod copy;
pub mod health;
pub mod daemon;
pub mod verbs;
