//! What the operator wants: connection strings, config files, what to do about conflicts.
//!
//! | file | what |
//! |---|---|
//! | `dsn` | a connection string, as libpq writes it |
//! | `conflict_policy` | CONFLICT: which side wins, by table and kind of conflict |
//! | `settings` | all settings of a pair, read from `key=value` text |
//! | `files` | the config files on disk |
//! | `arguments` | the command line without the passwords on it |
//!
//! Slony-I keeps this in slonik scripts and in its tables; PgQ in `.ini` files like ours.

pub mod dsn;
pub mod conflict_policy;
pub mod settings;
pub mod files;
pub mod arguments;
