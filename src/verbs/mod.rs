//! The command line. Each verb has a file of its own.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of single verbs |
//! | `verb` | the type of a verb: its options, its help, its function |
//! | `install`, `copy` | prepare a master; fill a slave |
//! | `doctor`, `status`, `compare` | check the pairs; `compare` also has `repair` |
//! | `check_config` | checks config files without servers |
//! | `pause`, `pending`, `skip`, `retry` | put tables on hold; show, skip or retry changes that cannot be replayed |
//! | `switchover`, `failover` | change who is the master; `failover` also has `failback` |
//! | `protect` | keeps writers off a slave; it also has `unprotect` |
//! | `uninstall` | takes pyreplica away from a database |
//! | `printed` | prints `sample.conf` and the SQL scripts |
//! | `cli` | parses the command line and runs the verb or the daemon; makes the manual and completions from the help |
//!
//! Slony-I has slonik for this, PgQ its admin scripts.

pub mod sql;
pub mod verb;
pub mod install;
pub mod doctor;
pub mod status;
pub mod check_config;
pub mod compare;
pub mod copy;
pub mod pause;
pub mod pending;
pub mod skip;
pub mod retry;
pub mod switchover;
pub mod failover;
pub mod protect;
pub mod uninstall;
pub mod printed;
pub mod cli;
