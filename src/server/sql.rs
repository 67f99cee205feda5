//! Statements about a server, and what must be there before a daemon starts.

use std::sync::LazyLock;

/// What is pyreplica's own in the schema public, on either server: the one list. A test compares it with the scripts.
const OWN: &str = "array['replica_log', 'replica_slave', 'replica_history', 'replica_purged', 'replica_error', \
     'replica_skipped', 'py_log_filter', 'py_log_transform', 'replica_log_former', 'replica_progress', 'replica_hold', \
     'replica_held', 'replica_conflict', 'replica_copy', 'replica_log_sql', 'replica_log_id_seq', 'replica_batch_seq']";

/// A query that says array['replica_log'] for the list above, so that it can be run by hand too.
pub fn with_own(sql: &str) -> String {
    sql.replace("array['replica_log']", OWN)
}

pub const SESSION: &str = include_str!("../../sql/query/session.sql");
pub const SLAVE_INSTALL: &str = include_str!("../../sql/slave-install.sql");
pub static STRANGER: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/stranger.sql")));

/// Triggers, cascades and foreign key checks do not run in such a session.
pub const REPLICA_ROLE: &str = "set session_replication_role = replica";

pub const HAS_LOG: &str = "select to_regclass('public.replica_log') is not null";

/// Which server and database this is, its encoding, its version, and how many transactions it can keep prepared.
pub const IDENTITY: &str = "select (select system_identifier from pg_control_system()) || '/' || oid, \
     pg_encoding_to_char(encoding)::text, current_setting('max_prepared_transactions')::int, \
     current_setting('server_version_num')::int, pg_is_in_recovery() \
     from pg_database where datname = current_database()";

/// The log's oid tells one installation from a later one in the same database; the second column is null if an earlier
/// version has made it.
pub const LOG: &str = "select to_regclass('public.replica_log')::oid, (select attrelid from pg_attribute \
     where attrelid = to_regclass('public.replica_slave') and attname = 'token' \
       and to_regprocedure('public.py_log_can_wake(text)') is not null)";

/// The columns that mark slaves.
pub const SLAVE_FIELDS: &str = "select attname::text from pg_attribute \
     where attrelid = to_regclass('public.replica_log') and attnum > 0 and not attisdropped \
     and atttypid = 'boolean'::regtype order by attnum";

pub const HSTORE_SCHEMA: &str = "select n.nspname::text from pg_extension e \
     join pg_namespace n on n.oid = e.extnamespace where e.extname = 'hstore'";

/// The GRANTs that the daemon's role lacks on the master.
pub const MISSING_RIGHTS: &str = include_str!("../../sql/query/rights.sql");

/// An earlier version's has no position.
pub const HAS_PROGRESS: &str = "select exists (select from pg_attribute \
     where attrelid = to_regclass('public.replica_progress') and attname = 'token')";

/// The GRANTs that the daemon's role lacks on the slave's progress table, in one text.
pub const MISSING_PROGRESS_RIGHTS: &str = "select coalesce(string_agg(format('GRANT %s ON public.replica_progress TO \
     %I;', upper(privilege), current_user), ' '), '') from unnest(array['select', 'insert', 'update']) privilege \
     where not has_table_privilege('public.replica_progress', privilege)";

/// 0x70797265 is "pyre". Two daemons of one slave exclude each other with it, on the master.
pub const LOCK_SLAVE: &str = "select pg_try_advisory_lock(1887007333, hashtext($1))";

/// Whether there is an index by id; without one every look reads the whole log.
pub const HAS_INDEX: &str = "select exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid \
     and a.attnum = i.indkey[0] where i.indrelid = to_regclass('public.replica_log') and i.indisvalid \
     and i.indpred is null and a.attname = 'id')";

/// The look comes first: ON CONFLICT alone waits for a transaction in doubt that has changed the row, and this runs before
/// recovery.
pub const SLAVE_ROW: &str = "insert into public.replica_slave (field, batch) select $1::text::name, 0 \
     where not exists (select from public.replica_slave where field = $1::text::name) on conflict (field) do nothing";

/// The daemon's session on the master.
pub const DAEMON: &str = include_str!("../../sql/query/status/daemon.sql");
