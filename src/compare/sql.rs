//! Statements that list what can be compared.

use crate::server::sql::with_own;
use std::sync::LazyLock;

pub const COMPARABLE: &str = include_str!("../../sql/query/comparable.sql");
pub static REPLICATED: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/replicated.sql")));
pub const PENDING: &str = include_str!("../../sql/query/underway.sql");

/// Whether a daemon replicates to this slave: while it runs, it holds an advisory lock.
pub const DAEMON_RUNS: &str = "select exists (select from pg_locks where locktype = 'advisory' \
     and database = (select oid from pg_database where datname = current_database()) and classid = 1887007333 \
     and objid = (hashtext($1)::bigint & 4294967295)::oid and objsubid = 2 and granted)";
