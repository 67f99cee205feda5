//! The state of a pair, read from the two databases. Nothing here writes to them.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of doctor and status |
//! | `doctor` | checks what replication needs, and gives the statements that fix it |
//! | `status` | lag, last error, transactions in doubt, held changes |
//! | `exposition` | the same as metrics for Prometheus |
//! | `observer` | looks at a pair now and then, and keeps what its databases said last |
//! | `page` | all that as a page for people |
//! | `metrics` | serves all that over HTTP |
//!
//! PostgreSQL: `pg_stat_subscription` and `pg_stat_subscription_stats`. Slony-I: `sl_status`.

pub mod sql;
pub mod doctor;
pub mod status;
pub mod exposition;
pub mod observer;
pub mod page;
pub mod metrics;
