pub mod sql;
pub mod pace;
pub mod housekeeping;
pub mod copied;
pub mod release;
pub mod listener;
pub mod replicator;
