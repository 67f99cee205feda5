//! Replays changes as SQL statements on the slave.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements about the slave's tables and about held changes |
//! | `table` | one table of the slave: its columns, its key |
//! | `whole_row` | finds rows by the values of all their columns |
//! | `statements` | one change as SQL |
//! | `sets` | many changes of one shape as one statement |
//! | `net_effect` | reduces a run of changes to their net effect on each row |
//! | `table_cache` | the slave's tables as the current transaction sees them |
//! | `conflict` | replays one change that did not find the row it should |
//! | `hold` | holds changes on the slave: of tables on hold, and of transactions in quarantine |
//! | `replayer` | replays changes as sets, as prepared statements, or one by one |
//!
//! In PostgreSQL the apply worker does this (`worker.c`); `relation.c` is its table cache, and `conflict.c` reports
//! conflicts.

pub mod sql;
pub mod table;
pub mod whole_row;
pub mod statements;
pub mod sets;
pub mod net_effect;
pub mod table_cache;
pub mod conflict;
pub mod hold;
pub mod replayer;
