//! One pair at work: it connects, recovers, listens, replays what is pending, waits.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of a pair at work |
//! | `pace` | how soon to look again under steady work |
//! | `housekeeping` | flags, old rows, the size of the log |
//! | `copied` | what an initial copy has brought, and is still missing |
//! | `release` | puts tables on hold, and replays what was held |
//! | `listener` | sleeps without missing a change |
//! | `replicator` | the loop |
//!
//! A pair is a subscription in PostgreSQL, a subscribed set in Slony-I, a consumer of a queue in PgQ.

pub mod sql;
pub mod pace;
pub mod housekeeping;
pub mod copied;
pub mod release;
pub mod listener;
pub mod replicator;
