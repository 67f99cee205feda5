//! The operator's settings: connection strings, config files, rules for conflicts.
//!
//! | file | what |
//! |---|---|
//! | `dsn` | a connection string, as libpq writes it |
//! | `names` | names of tables, as SQL has them |
//! | `tables` | TABLES: which tables a pair replicates |
//! | `conflict_policy` | CONFLICT: which side wins, for each table and kind of conflict |
//! | `settings` | all settings of a pair, read from `key=value` text |
//! | `files` | finds and reads the config files |
//! | `arguments` | removes passwords from the command line |
//!
//! Slony-I keeps its settings in slonik scripts and in tables, PgQ in `.ini` files like these.

pub mod dsn;
mod names;
pub mod tables;
pub mod conflict_policy;
pub mod settings;
pub mod files;
pub mod arguments;
