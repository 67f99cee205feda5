//! Statements of doctor and status. They write nothing.

use crate::backlog::sql::own;
use crate::server::sql::with_own;
use std::sync::LazyLock;

/// Makes a session read-only. The search path makes the server print type names with their schema. The timeouts limit
/// each statement.
pub const READ_ONLY: &str = "set default_transaction_read_only = on; set search_path = pg_catalog; \
     set statement_timeout = '60s'; set lock_timeout = '5s'";

pub const DOCTOR_SERVER: &str = include_str!("../../sql/query/doctor/server.sql");
pub static DOCTOR_OWNERS: LazyLock<String> =
    LazyLock::new(|| with_own(include_str!("../../sql/query/doctor/owners.sql")));
pub const DOCTOR_COLLATION: &str = include_str!("../../sql/query/doctor/collation.sql");
pub const DOCTOR_LOG: &str = include_str!("../../sql/query/doctor/log.sql");
pub const DOCTOR_TRIGGERS: &str = include_str!("../../sql/query/doctor/triggers.sql");
pub const DOCTOR_SCHEMA_CHANGES: &str = include_str!("../../sql/query/doctor/schema_changes.sql");
pub const DOCTOR_LOCKS: &str = include_str!("../../sql/query/doctor/locks.sql");
pub const DOCTOR_NOT_REPLICATED: &str = include_str!("../../sql/query/doctor/not_replicated.sql");
pub const DOCTOR_WHOLE_ROWS: &str = include_str!("../../sql/query/doctor/whole_rows.sql");
pub const DOCTOR_UNLOGGED: &str = include_str!("../../sql/query/doctor/unlogged.sql");
pub const DOCTOR_SLAVE: &str = include_str!("../../sql/query/doctor/slave.sql");
pub static DOCTOR_CATALOG: LazyLock<String> =
    LazyLock::new(|| with_own(include_str!("../../sql/query/doctor/catalog.sql")));

/// The last batch, and when it was committed.
pub const LAST_BATCH: &str =
    "select batch, ts::timestamptz(0)::text as ts from public.replica_slave where field = $1::text::name";

/// How far a slave has come. `last` is null if it has replayed nothing.
pub const PROGRESS: &str = "select batch, last, extract(epoch from ts)::float8 as committed_at \
     from public.replica_slave where field = $1::text::name";

pub const WAITING_DAEMON: &str = include_str!("../../sql/query/status/waiting_daemon.sql");
pub const WAITS: &str = include_str!("../../sql/query/status/waits.sql");
pub const OPEN_TRANSACTIONS: &str = include_str!("../../sql/query/status/open.sql");

pub const ROLE_AND_VERSION: &str = "select current_user::text, current_setting('server_version_num')::int";

pub const CLOCK: &str = "select extract(epoch from clock_timestamp())::float8";

/// It reads columns that some versions lack through to_jsonb, which gives null for them.
pub const DATABASE: &str = "select pg_encoding_to_char(encoding)::text as encoding, concat_ws(' ', datcollate, datctype, \
     coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')) as locale \
     from pg_database d where datname = current_database()";

/// The columns that transforms leave out.
pub const LEFT_OUT: &str = "select relname, field from public.py_log_transform where expression is null";

/// The filters that keep changes of a row from a slave that has the row.
pub const CHANGE_FILTERS: &str = "select distinct relname::text, event::text from public.py_log_filter \
     where event in ('UPDATE', 'DELETE') order by 1, 2";

/// $1 identifies the pair, as in replica_progress.
pub const CONFLICTS: &str =
    "select count(*), max(ts)::timestamptz(0)::text from public.replica_conflict where master = $1";

/// The tables that the next query reads.
pub const HELD: &[&str] = &["replica_held", "replica_hold"];

pub const HELD_SUMMARY: &str = "select (select count(*) from public.replica_held where master = $1), \
     coalesce((select string_agg(nullif(relation, ''), ', ' order by relation) from public.replica_hold \
               where master = $1 and why <> 'copying'), ''), \
     exists (select from public.replica_hold where master = $1 and relation = ''), \
     coalesce((select string_agg(relation, ', ' order by relation) from public.replica_hold \
               where master = $1 and why = 'copying'), '')";

pub const LAST_ERROR: &str = include_str!("../../sql/query/status/error.sql");

/// When and why a slave's position was set back or anew, during the last week. That the server was started is no event.
pub const LAST_HISTORY: &str = "select ended::timestamptz(0)::text as at, why from public.replica_history \
     where field = $1::text::name and why !~ '^the server was started' and ended > now() - interval '7 days' \
     order by ended desc limit 1";

pub const MAY_READ_HISTORY: &str =
    "select coalesce(has_table_privilege(to_regclass('public.replica_history')::oid, 'select'), false)";

/// Whether there is a table for the daemon's failures, and the role may read it.
pub const MAY_READ_ERRORS: &str =
    "select coalesce(has_table_privilege(to_regclass('public.replica_error')::oid, 'select'), false)";

/// How far a slave is behind.
pub fn lag(field: &str) -> String {
    own(field, include_str!("../../sql/query/status/lag.sql"))
}
