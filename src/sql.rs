//! Every statement that is not made up on the way: the scripts an operator runs too, and the daemon's queries.

use crate::names::quote_ident;

pub const MASTER_INSTALL: &str = include_str!("../sql/master-install.sql");

/// The trigger on every table that is not pyreplica's own, whatever its schema. Partitions come with their root.
pub const CREATE_TRIGGERS: &str = "select public.py_log_create_tg(n.nspname::text, c.relname::text) \
     from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' \
     and n.nspname <> 'information_schema' \
     and c.oid not in ('public.replica_log'::regclass, 'public.replica_slave'::regclass, \
     'public.py_log_filter'::regclass, 'public.py_log_transform'::regclass) order by n.nspname, c.relname";

pub const SESSION: &str = include_str!("../sql/query/session.sql");
pub const TABLE: &str = include_str!("../sql/query/table.sql");
pub const KEY: &str = include_str!("../sql/query/key.sql");
pub const COLUMNS: &str = include_str!("../sql/query/columns.sql");

/// Triggers, cascades and foreign key checks do not run in such a session.
pub const REPLICA_ROLE: &str = "set session_replication_role = replica";

/// Rows are looked up by the index of their key, one after the other: what the planner believes of a table that has grown
/// a moment ago would have it read the whole table for each set of changes.
pub const LOOK_UP: &str = "set local enable_seqscan = off; set local enable_hashjoin = off; \
     set local enable_mergejoin = off; set local plan_cache_mode = force_generic_plan;";

/// For free statements, which are about anything.
pub const PLAN_FREELY: &str = "set local enable_seqscan to default; set local enable_hashjoin to default; \
     set local enable_mergejoin to default; set local plan_cache_mode to default;";

/// Who the daemon is, whatever a free statement has made of it.
pub const OWN_ROLE: &str = "reset session authorization; reset role;";

/// The partial index is the way into the log, however small the planner believes the log to be.
pub const NO_SEQUENTIAL_SCANS: &str = "set enable_seqscan = off";

pub const LISTEN: &str = "listen replicas";

/// The trigger does not signal changes that a daemon makes, since a NOTIFY cannot be prepared: the daemon does, for the
/// replicas of its slave, once the changes are committed.
pub const NOTIFY: &str = "notify replicas";

/// Whether the trigger asks for this slave's lock; makes it so if it can.
pub const CAN_WAKE: &str = "select public.py_log_can_wake($1)";

/// 0x70797267 is "pyrg". The trigger tries the same lock in shared mode.
pub const LOCK_SLEEPER: &str = "select pg_try_advisory_lock(1887007335, hashtext($1))";

pub const UNLOCK_SLEEPER: &str = "select pg_advisory_unlock(1887007335, hashtext($1))";

pub const HAS_LOG: &str = "select to_regclass('public.replica_log') is not null";

pub const KEEPALIVE: &str = "select now()::text";

/// Slaves come and go by columns of the log: none does while a batch is being marked.
pub const BEGIN_MARKING: &str = "begin; lock table public.replica_log in row exclusive mode";

/// The number of a batch, and the slaves' columns as they are now that the log is locked.
pub const NEXT_BATCH: &str = "select nextval('public.replica_batch_seq'), \
     array(select attname::text from pg_attribute where attrelid = to_regclass('public.replica_log') \
     and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype order by attnum)";

pub const CURRENT_SNAPSHOT: &str = "select pg_current_snapshot()::text";

/// Which server and database this is, its encoding, its version, and how many transactions it can keep prepared.
pub const IDENTITY: &str = "select (select system_identifier from pg_control_system()) || '/' || oid, \
     pg_encoding_to_char(encoding)::text, current_setting('max_prepared_transactions')::int, \
     current_setting('server_version_num')::int, pg_is_in_recovery() \
     from pg_database where datname = current_database()";

/// The log's oid tells one installation from a later one in the same database; the second column is null if another
/// version has made it.
pub const LOG: &str = "select to_regclass('public.replica_log')::oid, case when \
     to_regprocedure('public.py_log_can_wake(text)') is not null then to_regclass('public.replica_slave')::oid end";

/// The columns that mark slaves.
pub const SLAVE_FIELDS: &str = "select attname::text from pg_attribute \
     where attrelid = to_regclass('public.replica_log') and attnum > 0 and not attisdropped \
     and atttypid = 'boolean'::regtype order by attnum";

pub const HSTORE_SCHEMA: &str = "select n.nspname::text from pg_extension e \
     join pg_namespace n on n.oid = e.extnamespace where e.extname = 'hstore'";

/// The GRANTs that the daemon's role lacks on the master.
pub const MISSING_RIGHTS: &str = include_str!("../sql/query/rights.sql");

pub const HAS_PROGRESS: &str = "select to_regclass('public.replica_progress') is not null";

/// The GRANTs that the daemon's role lacks on the slave's progress table, in one text.
pub const MISSING_PROGRESS_RIGHTS: &str = "select coalesce(string_agg(format('GRANT %s ON public.replica_progress TO \
     %I;', upper(privilege), current_user), ' '), '') from unnest(array['select', 'insert', 'update']) privilege \
     where not has_table_privilege('public.replica_progress', privilege)";

/// 0x70797265 is "pyre". Two daemons of one slave exclude each other with it, on the master.
pub const LOCK_SLAVE: &str = "select pg_try_advisory_lock(1887007333, hashtext($1))";

/// The look comes first: ON CONFLICT alone waits for a transaction in doubt that has changed the row, and this runs before
/// recovery.
/// For a moment, to see whether another slave's daemon is running.
pub const UNLOCK_SLAVE: &str = "select pg_advisory_unlock(1887007333, hashtext($1))";

/// Whether an index serves the slave's column; without one every look reads the whole log.
pub const HAS_INDEX: &str = "select exists (select from pg_index \
     where indrelid = to_regclass('public.replica_log') and indisvalid \
     and pg_get_expr(indpred, indrelid) = format('(NOT %I)', $1::text))";

pub const LOG_SIZE: &str = "select pg_total_relation_size('public.replica_log')";

pub const SLAVE_ROW: &str = "insert into public.replica_slave (field, batch) select $1::text::name, 0 \
     where not exists (select from public.replica_slave where field = $1::text::name) on conflict (field) do nothing";

pub const COMMITTED_BATCH: &str = "select batch from public.replica_slave where field = $1::text::name";

/// Says which transaction of ours that was.
pub const NOTE_BATCH: &str = "update public.replica_slave set batch = $2, ts = now() \
     where field = $1::text::name returning pg_current_xact_id()::text::bigint";

pub const PREPARED: &str = "select gid from pg_prepared_xacts where database = current_database() order by prepared";

pub const PROGRESS: &str = "select batch, changes from public.replica_progress where master = $1";

pub const PROGRESS_ROW: &str = "insert into public.replica_progress (master, batch, changes) values ($1, 0, '') \
     on conflict (master) do nothing";

/// Only if the row still says what the daemon believes: a commit that was under way when a connection broke is waited
/// for here, and then seen.
pub const NOTE_PROGRESS: &str = "update public.replica_progress set batch = $2, changes = $3, ts = now() \
     where master = $1 and batch = $4";

/// The queries over the log, with the slave's own column in the place of "replicated".
pub struct LogQueries {
    pub pending: String,
    pub window: String,
    pub spread: String,
    pub page: String,
    pub fetch: String,
    /// Marks changes, in one or two statements.
    pub mark: Vec<String>,
    /// Deletes a few changes that every slave replayed longer ago than $1 seconds.
    pub purge: String,
    /// For each slave's column: since when its oldest change waits, if one does.
    pub waiting: Vec<(String, String)>,
}

/// Deleted in one step, which holds no lock that anybody waits for.
const PURGE_ROWS: u32 = 5_000;

impl LogQueries {
    /// `fields`: the columns of all slaves; `hstore_schema`: where the extension is installed; `keep`: whether changes
    /// stay in the log for a while after every slave has replayed them.
    pub fn new(field: &str, fields: &[String], hstore_schema: &str, keep: bool) -> LogQueries {
        let own = |sql: &str| sql.replace("not replicated", &format!("not l.{}", quote_ident(field)));
        LogQueries {
            pending: own(include_str!("../sql/query/pending.sql")),
            window: own(include_str!("../sql/query/window.sql")),
            spread: own(include_str!("../sql/query/spread.sql")),
            page: own(include_str!("../sql/query/page.sql")),
            fetch: own(include_str!("../sql/query/fetch.sql"))
                .replace("public.hstore_to_array", &format!("{}.hstore_to_array", quote_ident(hstore_schema))),
            mark: marks(field, fields, keep),
            purge: purge(fields),
            waiting: fields.iter().map(|field| (field.clone(), waiting(field))).collect(),
        }
    }
}

/// A row that every slave has replayed is deleted at once. READ COMMITTED looks again after a wait for another slave's
/// mark of the same row, so of two slaves that mark it together the second one deletes it.
fn marks(field: &str, fields: &[String], keep: bool) -> Vec<String> {
    let own = quote_ident(field);
    if keep {
        return vec![format!("update public.replica_log set {own} = true where not {own} and id = any ($1)")];
    }
    let mut statements = Vec::new();
    let rest: Vec<String> = fields.iter().filter(|other| *other != field).map(|other| quote_ident(other)).collect();
    if !rest.is_empty() {
        statements.push(format!(
            "update public.replica_log set {own} = true where not {own} and id = any ($1) and not ({})",
            rest.join(" and ")
        ));
    }
    statements.push(format!("delete from public.replica_log where not {own} and id = any ($1)"));
    statements
}

/// By way of the index on ts, whose ranges are coarse; rows that another transaction holds are for the next time.
fn purge(fields: &[String]) -> String {
    let all: Vec<String> = fields.iter().map(|field| quote_ident(field)).collect();
    format!(
        "delete from public.replica_log where ctid = any (array(select ctid from public.replica_log \
         where ts < now() - make_interval(secs => $1::float8) and {} limit {PURGE_ROWS} for update skip locked))",
        all.join(" and ")
    )
}

fn waiting(field: &str) -> String {
    format!("select ts::text from public.replica_log where not {} order by id limit 1", quote_ident(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 3] = ["replicated", "Slave 2", "slave3"];

    #[test]
    fn queries_read_and_mark_the_slaves_own_column_only() {
        let queries = LogQueries::new("Slave 2", &FIELDS.map(String::from), "extensions", false);
        for sql in [&queries.pending, &queries.window, &queries.spread, &queries.page, &queries.fetch] {
            assert!(sql.contains("not l.\"Slave 2\"") && !sql.contains("not replicated"), "{sql}");
        }
        assert_eq!(
            queries.mark[0],
            "update public.replica_log set \"Slave 2\" = true where not \"Slave 2\" and id = any ($1) \
             and not (\"replicated\" and \"slave3\")"
        );
        assert_eq!(queries.mark[1], "delete from public.replica_log where not \"Slave 2\" and id = any ($1)");
        assert_eq!(queries.mark.len(), 2);
        let keeping = LogQueries::new("Slave 2", &FIELDS.map(String::from), "extensions", true).mark;
        assert_eq!(
            keeping,
            ["update public.replica_log set \"Slave 2\" = true where not \"Slave 2\" and id = any ($1)"]
        );
        assert!(queries.fetch.contains("\"extensions\".hstore_to_array(l.old)"));
    }
}
