//! Statements about a server, and about what a daemon needs before it starts.

use std::sync::LazyLock;

/// What is pyreplica's own in the schema public, on either server: the one list. A test compares it with the scripts.
pub const OWN: [&str; 26] = [
    "replica_log",
    "replica_slave",
    "replica_history",
    "replica_purged",
    "replica_table",
    "replica_error",
    "replica_skipped",
    "py_log_filter",
    "py_log_transform",
    "py_log_ddl",
    "py_log_ddl_setting",
    "py_log_ddl_table",
    "py_log_ddl_absent",
    "py_log_ddl_script",
    "replica_log_former",
    "replica_progress",
    "replica_hold",
    "replica_held",
    "replica_conflict",
    "replica_copy",
    "replica_copy_schema",
    "replica_role",
    "replica_log_sql",
    "replica_replayed",
    "replica_log_id_seq",
    "replica_batch_seq",
];

/// A query that says array['replica_log'] for the list above, so that it can be run by hand too.
pub fn with_own(sql: &str) -> String {
    sql.replace("array['replica_log']", &format!("array['{}']", OWN.join("', '")))
}

pub const SESSION: &str = include_str!("../../sql/query/session.sql");

/// Versions that lack the setting ignore it. Partitions on the slave may be foreign tables.
pub const REFUSE_VIEWS: &str = "select set_config('restrict_nonsystem_relation_kind', 'view', false) \
     where current_setting('restrict_nonsystem_relation_kind', true) is not null";

pub const SLAVE_INSTALL: &str = include_str!("../../sql/slave-install.sql");

/// Which of pyreplica's tables there are, and whose they are.
pub const OURS: &str = include_str!("../../sql/query/ours.sql");

/// Triggers, cascades and foreign key checks do not run in a session with this role.
pub const REPLICA_ROLE: &str = "set session_replication_role = replica";

pub const MAY_CREATE: &str = "select has_schema_privilege('public', 'create')";

/// Identifies the server and the database. Also the encoding, max_prepared_transactions, the version, and whether the
/// server is in recovery.
pub const IDENTITY: &str = "select (select system_identifier from pg_control_system()) || '/' || oid, \
     pg_encoding_to_char(encoding)::text, current_setting('max_prepared_transactions')::int, \
     current_setting('server_version_num')::int, pg_is_in_recovery() \
     from pg_database where datname = current_database()";

/// The server's process for this session, and whether it is a standby's.
pub const WHO_ANSWERS: &str = "select pg_backend_pid(), pg_is_in_recovery()";

/// The log's oid, which distinguishes an installation from a later one in the same database. The second column is null
/// if an earlier version made the log.
pub const LOG: &str = "select to_regclass('public.replica_log')::oid, (select attrelid from pg_attribute \
     where attrelid = to_regclass('public.replica_slave') and attname = 'token' \
       and to_regprocedure('public.py_log_forget()') is not null)";

/// The columns that belong to slaves.
pub const SLAVE_FIELDS: &str = "select attname::text from pg_attribute \
     where attrelid = to_regclass('public.replica_log') and attnum > 0 and not attisdropped \
     and atttypid = 'boolean'::regtype order by attnum";

pub const HSTORE_SCHEMA: &str = "select n.nspname::text from pg_extension e \
     join pg_namespace n on n.oid = e.extnamespace where e.extname = 'hstore'";

/// The GRANTs that the daemon's role lacks on the master.
pub const MISSING_RIGHTS: &str = include_str!("../../sql/query/rights.sql");

/// Whether there is a progress table of this version. That of an earlier version has no column `token`.
pub const HAS_PROGRESS: &str = "select exists (select from pg_attribute \
     where attrelid = to_regclass('public.replica_progress') and attname = 'token')";

/// The GRANTs that the daemon's role lacks on the slave's progress table, in one text.
pub const MISSING_PROGRESS_RIGHTS: &str = "select coalesce(string_agg(format('GRANT %s ON public.replica_progress TO \
     %I;', upper(privilege), current_user), ' '), '') from unnest(array['select', 'insert', 'update']) privilege \
     where not has_table_privilege('public.replica_progress', privilege)";

/// Of several daemons of a slave that start at once, one comes first: it has shown itself before the others look. A
/// role that may not write the table can't lock it; who writes it need not wait, nor is it waited for, as it may be in doubt.
pub const BEGIN_TAKING: &str = "begin; lock table public.replica_slave in share update exclusive mode";

/// How a session shows that it replicates to the slave of a column, for as long as it lives: by an advisory lock on the master,
/// which `DAEMON` looks for. Anybody can take any such lock. So it keeps nobody out by itself, and its number ends by chance: who
/// has taken one before is not in the way. 1887007333 is 0x70797265, "pyre" in ASCII.
pub static SHOW_DAEMON: LazyLock<String> = LazyLock::new(|| show("pg_try_advisory_lock(1887007333"));

/// The same for a copy to the slave, so that status can distinguish a copy that runs from an interrupted one, and from a daemon.
/// 0x70797263 is "pyrc".
pub static SHOW_COPY: LazyLock<String> = LazyLock::new(|| show("pg_try_advisory_lock(1887007331"));

fn show(lock: &str) -> String {
    format!(
        "select {lock}, (attnum::int << 20) | ('x' || left(gen_random_uuid()::text, 5))::bit(20)::int) from pg_attribute \
         where attrelid = to_regclass('public.replica_log') and attname = $1 and attnum > 0"
    )
}

/// Whether the log has an index on id. Without one, every look reads the whole log.
pub const HAS_INDEX: &str = "select exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid \
     and a.attnum = i.indkey[0] where i.indrelid = to_regclass('public.replica_log') and i.indisvalid \
     and i.indpred is null and a.attname = 'id')";

/// Creates the slave's row if it is missing. It looks for the row first: this runs before recovery, and ON CONFLICT
/// alone would wait for a transaction in doubt that has changed the row.
pub const SLAVE_ROW: &str = "insert into public.replica_slave (field, batch) select $1::text::name, 0 \
     where not exists (select from public.replica_slave where field = $1::text::name) on conflict (field) do nothing";

/// Whether a session shows itself as the daemon of some slave of this database, or takes such a lock for another reason.
pub const MAY_HAVE_DAEMON: &str = "select exists (select from pg_locks where locktype = 'advisory' and classid = 1887007333 \
     and database = (select oid from pg_database where datname = current_database()))";

/// The sessions on the master that replicate or copy to a slave.
pub const DAEMON: &str = include_str!("../../sql/query/status/daemon.sql");

pub const ROLES_INSTALL: &str = include_str!("../../sql/roles-install.sql");

/// What this database says about the pairs with a field, the latest epoch first. "is_over": it has become the master again of a pair
/// that has moved.
pub const ROLES: &str = "select r.role, r.pair, r.epoch, r.peer, r.peer_at, r.since::timestamptz(0)::text as since, r.token, \
     rank() over (order by r.since) as order, \
     exists (select from public.replica_role m where m.pair = r.pair and m.role = 'master' and m.epoch > r.epoch) as is_over \
     from public.replica_role r where r.field = $1::text::name order by r.epoch desc";

pub const IS_SLAVE_OF: &str = "select exists (select from public.replica_role where peer = $1 and role = 'slave')";

pub const IS_LED: &str = "select exists (select from public.replica_role where role in ('slave', 'former'))";

/// The masters from which a batch has come since this became their slave. Their row of progress was written with the role.
pub const REPLAYED_SINCE: &str = "select r.peer from public.replica_role r \
     where r.field = $1::text::name and r.role = 'slave' \
       and exists (select from public.replica_progress p where p.identity = r.peer and p.ts > r.since)";

/// Another text whenever the roles under this field change. The epochs of different pairs are in no order.
pub const ROLES_STAMP: &str = "select coalesce(string_agg(concat_ws(' ', peer, pair, role, epoch), ', ' order by peer), '') \
     from public.replica_role where field = $1::text::name";

/// The greatest epoch of a database's own roles under this field.
pub const EPOCH: &str = "select coalesce(max(epoch), 0) from public.replica_role \
     where field = $1::text::name and role <> 'moved'";

/// The tables that a fence is on, or is to be on.
pub const FENCE: &str = include_str!("../../sql/query/fence.sql");

/// The database's name, and whether the role owns it.
pub const OWNS_DATABASE: &str = "select datname::text, pg_has_role(datdba, 'usage') from pg_database \
     where datname = current_database()";

/// The database's name, and whether its sessions are read-only unless they say otherwise.
pub const IS_READ_ONLY: &str = "select datname::text, exists (select from pg_db_role_setting s \
         where s.setdatabase = d.oid and s.setrole = 0 and 'default_transaction_read_only=on' = any (s.setconfig)) \
     from pg_database d where datname = current_database()";

/// The triggers of tables that log changes, and whether each is enabled.
pub const TRIGGERS: &str = include_str!("../../sql/query/triggers.sql");

/// The tables whose changes this database has logged as a master.
pub const WITH_TRIGGER: &str = "select distinct format('%I.%I', n.nspname, c.relname) as relation, n.nspname::text as schema, \
     c.relname::text as name, c.oid from pg_trigger t \
     join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace \
     where t.tgfoid in (select p.oid from pg_proc p join pg_namespace f on f.oid = p.pronamespace \
                         where (f.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition'))) \
       and t.tgtype & 1 = 1 and t.tgparentid = 0 order by 1";

/// Whether their changes are replayed under the names that they have.
pub static KNOWN_BY_NAME: LazyLock<String> =
    LazyLock::new(|| format!("select t.*, public.py_log_knows(relation, oid) as known from ({WITH_TRIGGER}) t"));
