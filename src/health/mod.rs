//! How a pair is doing, asked of the two databases without writing anything.
//!
//! | file | what |
//! |---|---|
//! | `sql` | statements of doctor and status |
//! | `doctor` | what replication needs, with the statements that set it right |
//! | `status` | lag, last error, what is in doubt or held |
//! | `metrics` | the same over HTTP, for Prometheus |
//!
//! PostgreSQL: `pg_stat_subscription` and `pg_stat_subscription_stats`. Slony-I: `sl_status`.

pub mod sql;
pub mod doctor;
pub mod status;
pub mod metrics;
