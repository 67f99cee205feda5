//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.
//!
//! The rooms of the house, from the ground up. A room uses only rooms above it in this list, and a file of a room only those
//! that its `mod.rs` lists above it; `tests/house.rs` checks both. Each `mod.rs` says what the room is for.

/// Words: names, errors, stop and wake up.
pub(crate) mod base;
/// The process: signals, log file, terminal, user.
pub(crate) mod process;
/// What the operator wants.
pub(crate) mod config;
/// A session on one of the two servers.
pub(crate) mod server;
/// What is pending in the log, in which order, and how far the slave has come.
pub(crate) mod backlog;
/// Changes become statements on the slave.
pub(crate) mod replay;
/// A batch on both servers, or on neither.
pub(crate) mod commit;
/// Are both sides equal? Make them so.
pub(crate) mod compare;
/// Sequences, which no trigger logs.
pub(crate) mod sequences;
/// One pair: connect, recover, listen, replay, wait.
pub(crate) mod pair;
/// The initial copy.
pub(crate) mod copy;
/// What doctor, status and Prometheus ask.
pub(crate) mod health;
/// Who is the master: switchover, failover, failback.
pub(crate) mod roles;
/// All pairs of a process, and mails about them.
pub(crate) mod daemon;
/// The command line, a file a verb.
pub(crate) mod verbs;

pub use config::arguments::arguments;
pub use verbs::cli;

/// What only tests use of the program; they run the binary for everything else.
#[doc(hidden)]
pub mod for_tests {
    pub use crate::base::error::Error;
    pub use crate::base::names::{BatchNumber, Side};
    pub use crate::commit::recovery::GidFamily;
    pub use crate::commit::twophase::Step;
    pub use crate::config::dsn::Dsn;
    pub use crate::sequences::decision::Why;
    pub use crate::sequences::setting::{Occasion, set_exactly};
    pub use crate::server::checks::origin;
    pub use crate::server::connect::connect;
    pub use crate::server::session::Session;
}
