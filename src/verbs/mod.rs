//! The command line, a file for each verb.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of single verbs |
//! | `verb` | what a verb is: options, help, what it does |
//! | `install`, `copy` | prepare a master, fill a slave |
//! | `doctor`, `status`, `compare` | look; `compare` has `repair` too |
//! | `pause`, `pending`, `skip`, `retry` | hold tables back; see, give up or try again what can't be replayed |
//! | `cli` | understands the command line |
//!
//! What Slony-I does by slonik and PgQ by its admin scripts.

pub mod sql;
pub mod verb;
pub mod install;
pub mod doctor;
pub mod status;
pub mod compare;
pub mod copy;
pub mod pause;
pub mod pending;
pub mod skip;
pub mod retry;
pub mod cli;
