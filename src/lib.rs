//! pyreplica: a trigger-based, asynchronous PostgreSQL master-slave replicator.
//!
//! The rooms of the house, from the ground up. A room uses only rooms above it in this list, and a file of a room only those
//! that its `mod.rs` lists above it; `tests/house.rs` checks both. Each `mod.rs` says what the room is for.

pub(crate) mod base;
pub(crate) mod process;
pub(crate) mod config;
pub(crate) mod server;
pub(crate) mod backlog;
pub(crate) mod replay;
pub(crate) mod commit;
pub(crate) mod compare;
pub(crate) mod pair;
pub(crate) mod copy;
pub(crate) mod health;
pub(crate) mod daemon;
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
    pub use crate::server::checks::origin;
    pub use crate::server::connect::connect;
    pub use crate::server::session::Session;
}
