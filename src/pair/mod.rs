//! Runs one pair: connects, recovers, listens, replays what is pending, and waits.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of a running pair |
//! | `pace` | how long to pause between two looks under a steady load |
//! | `turns` | lets the pairs of a process start in turns |
//! | `attached` | tables that had rows when they were attached as partitions |
//! | `failure` | what the daemon has recorded of its failures on the master |
//! | `housekeeping` | flags, old rows, the size of the log, attached partitions |
//! | `copied` | what an initial copy has loaded, and what is still missing |
//! | `emptied` | unlogged tables that a crash has emptied |
//! | `release` | puts tables on hold, and replays held changes |
//! | `batches` | takes batches from the backlog, and makes them longer where later transactions belong to them |
//! | `former` | puts the fence up on a database that was the master before a failover |
//! | `connecting` | connects, finds out who is the master, settles what is in doubt |
//! | `listener` | lets the daemon sleep without missing a change |
//! | `waiting` | waits until there may be something to replay |
//! | `replicator` | the main loop |
//!
//! A pair is a subscription in PostgreSQL, a subscribed set in Slony-I, a consumer of a queue in PgQ.

pub mod sql;
pub mod pace;
pub mod turns;
pub mod attached;
pub mod failure;
pub mod housekeeping;
pub mod copied;
pub mod emptied;
pub mod release;
pub mod batches;
pub mod former;
pub mod connecting;
pub mod listener;
pub mod waiting;
pub mod replicator;
