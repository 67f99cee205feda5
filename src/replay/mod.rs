//! Changes become statements on the slave.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements about the slave's tables, and about what is held there |
//! | `table` | one table of the slave: its columns, its key |
//! | `statements` | a change as SQL |
//! | `sets` | many changes of one shape as one statement |
//! | `net_effect` | what a run of changes comes to, row by row |
//! | `table_cache` | the tables as they are in this transaction |
//! | `conflict` | one change that does not find the row it should |
//! | `hold` | changes that are kept on the slave: of tables on hold, and in quarantine |
//! | `replayer` | replays changes as sets, as prepared statements, or one by one |
//!
//! PostgreSQL's apply worker does this (`worker.c`), with `relation.c` as its table cache and `conflict.c`.

pub mod sql;
pub mod table;
pub mod statements;
pub mod sets;
pub mod net_effect;
pub mod table_cache;
pub mod conflict;
pub mod hold;
pub mod replayer;
