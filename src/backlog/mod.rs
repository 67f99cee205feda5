//! Reads the log `replica_log` on the master for one slave: which changes the slave lacks, in which order they are
//! replayed, and how far the slave has come.
//!
//! | file | what |
//! |---|---|
//! | `row`, `change` | one logged change, as the trigger wrote it |
//! | `order` | whole transactions in the order of replay, with the proof |
//! | `snapshot` | which transactions a query sees |
//! | `horizon` | the ids above which a change can still be pending |
//! | `position` | what a slave has replayed, in one row |
//! | `id_ranges` | ranges of ids where flags are still to be set |
//! | `sql` | statements that read the log, move the position and set the flags |
//! | `reader` | lists pending rows and fetches changes, on one session |
//! | `prefetch` | a thread that reads long batches on a session of its own |
//! | `master_row`, `progress` | the slave's row in `replica_slave`: read and written |
//! | `pending` | finds all pending transactions, in bounded memory |
//! | `flags` | sets the flags of replayed changes, and deletes what every slave has replayed |
//!
//! PostgreSQL's reorder buffer does what `order` and `pending` do, and a slot's `confirmed_flush_lsn` is the position.
//! Slony-I keeps its position in `sl_confirm` and calls a look a SYNC; PgQ calls the slave a consumer, and a batch is
//! what lies between two ticks.

pub mod row;
pub mod change;
pub mod order;
pub mod snapshot;
pub mod horizon;
pub mod position;
pub mod id_ranges;
pub mod sql;
pub mod reader;
pub mod prefetch;
pub mod master_row;
pub mod progress;
pub mod pending;
pub mod flags;
