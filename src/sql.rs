//! Every statement that is not made up on the way: the scripts an operator runs too, and the daemon's queries.

mod looking;

pub use looking::*;

use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::base::names::{BatchNumber, quote_ident, quote_literal};

pub mod copying;
pub mod holding;

pub const MASTER_INSTALL: &str = include_str!("../sql/master-install.sql");
pub const SLAVE_INSTALL: &str = include_str!("../sql/slave-install.sql");

/// The trigger on every table that is not pyreplica's own, whatever its schema. Partitions come with their root.
pub const CREATE_TRIGGERS: &str = "select public.py_log_create_tg(n.nspname::text, c.relname::text) \
     from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' \
     and n.nspname <> 'information_schema' \
     and c.oid not in ('public.replica_log'::regclass, 'public.replica_slave'::regclass, 'public.replica_error'::regclass, \
     'public.py_log_filter'::regclass, 'public.py_log_transform'::regclass) \
     and c.oid is distinct from to_regclass('public.replica_progress') \
     and c.oid is distinct from to_regclass('public.replica_hold') \
     and c.oid is distinct from to_regclass('public.replica_held') \
     and c.oid is distinct from to_regclass('public.replica_copy') \
     and c.oid is distinct from to_regclass('public.replica_conflict') \
     and c.oid is distinct from to_regclass('public.replica_skipped') order by n.nspname, c.relname";

pub const SESSION: &str = include_str!("../sql/query/session.sql");
pub const STRANGER: &str = include_str!("../sql/query/stranger.sql");
pub const FINGERPRINT: &str = include_str!("../sql/query/fingerprint.sql");
pub const TABLE: &str = include_str!("../sql/query/table.sql");
pub const LINKS: &str = include_str!("../sql/query/links.sql");
pub const KEY: &str = include_str!("../sql/query/key.sql");
pub const COMPARABLE: &str = include_str!("../sql/query/comparable.sql");
pub const REPLICATED: &str = include_str!("../sql/query/replicated.sql");
pub const UNDERWAY: &str = include_str!("../sql/query/underway.sql");
pub const COLUMNS: &str = include_str!("../sql/query/columns.sql");

/// Triggers, cascades and foreign key checks do not run in such a session.
pub const REPLICA_ROLE: &str = "set session_replication_role = replica";

/// Rows are looked up by the index of their key, one after the other: what the planner believes of a table that has grown
/// a moment ago would have it read the whole table for each set of changes.
pub const LOOK_UP: &str = "set local enable_seqscan = off; set local enable_hashjoin = off; \
     set local enable_mergejoin = off; set local plan_cache_mode = force_generic_plan;";

/// What the application has set for the daemon's role: for statements that write rows, since functions of the application run
/// with them, in triggers and checks. Nothing in such a statement is looked for in that path.
pub const ITS_PATH: &str = "set local search_path to default;";

/// For a session that has been without.
pub const OWN_SESSION_PATH: &str = "set search_path = pg_catalog, pg_temp";

/// What the session has otherwise (`session.sql`).
pub const OWN_PATH: &str = "set local search_path = pg_catalog, pg_temp;";

/// For free statements, which are about anything.
pub const PLAN_FREELY: &str = "set local enable_seqscan to default; set local enable_hashjoin to default; \
     set local enable_mergejoin to default; set local plan_cache_mode to default; set local search_path to default;";

/// Who the daemon is, whatever a free statement has made of it.
pub const OWN_ROLE: &str = "reset session authorization; reset role;";

/// The log is read by its index and in the order of that, however small the planner believes it to be. As that is known, no
/// look is planned anew, which takes longer than the look.
pub const READ_BY_INDEX: &str =
    "set enable_seqscan = off; set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan";

pub const LISTEN: &str = "listen replicas";

/// The trigger does not signal changes that a daemon makes, since a NOTIFY cannot be prepared: the daemon does, for the
/// replicas of its slave, once the changes are committed.
pub const NOTIFY: &str = "notify replicas";

/// For a daemon that waits for its next try after a failure: no writer signals this, only who has mended something.
pub const LISTEN_FOR_MENDING: &str = "listen replica_mended";
pub const NOTIFY_MENDED: &str = "notify replica_mended";

/// Whether the trigger asks for this slave's lock; makes it so if it can.
pub const CAN_WAKE: &str = "select public.py_log_can_wake($1)";

/// 0x70797267 is "pyrg". The trigger tries the same lock in shared mode.
pub const LOCK_SLEEPER: &str = "select pg_try_advisory_lock(1887007335, hashtext($1))";

pub const UNLOCK_SLEEPER: &str = "select pg_advisory_unlock(1887007335, hashtext($1))";

pub const HAS_LOG: &str = "select to_regclass('public.replica_log') is not null";

pub const KEEPALIVE: &str = "select now()::text";

/// Slaves come and go by columns of the log: none does while rows are being marked or deleted, which waits for nobody for
/// long, nor for the disk: if it gets lost, it is done again.
pub const BEGIN_MARKING: &str = "begin; set local lock_timeout = '1s'; set local synchronous_commit = off; \
     lock table public.replica_log in row exclusive mode";

pub const NEXT_BATCH: &str = "select nextval('public.replica_batch_seq')";

/// 0x70797267 is "pyrg". Of several slaves' daemons that find the log restored, one takes care of it.
pub const BEGIN_ADOPTING: &str = "begin; select pg_advisory_xact_lock(1887007335, 0)";

pub const CURRENT_SNAPSHOT: &str = "select pg_current_snapshot()::text";

pub const HIGHEST_ID: &str = "select coalesce(max(id), 0) from public.replica_log";

/// Which server and database this is, its encoding, its version, and how many transactions it can keep prepared.
pub const IDENTITY: &str = "select (select system_identifier from pg_control_system()) || '/' || oid, \
     pg_encoding_to_char(encoding)::text, current_setting('max_prepared_transactions')::int, \
     current_setting('server_version_num')::int, pg_is_in_recovery() \
     from pg_database where datname = current_database()";

/// The log's oid tells one installation from a later one in the same database; the second column is null if an earlier
/// version has made it.
pub const LOG: &str = "select to_regclass('public.replica_log')::oid, (select attrelid from pg_attribute \
     where attrelid = to_regclass('public.replica_slave') and attname = 'base' \
       and to_regprocedure('public.py_log_can_wake(text)') is not null)";

/// The columns that mark slaves.
pub const SLAVE_FIELDS: &str = "select attname::text from pg_attribute \
     where attrelid = to_regclass('public.replica_log') and attnum > 0 and not attisdropped \
     and atttypid = 'boolean'::regtype order by attnum";

pub const HSTORE_SCHEMA: &str = "select n.nspname::text from pg_extension e \
     join pg_namespace n on n.oid = e.extnamespace where e.extname = 'hstore'";

/// The GRANTs that the daemon's role lacks on the master.
pub const MISSING_RIGHTS: &str = include_str!("../sql/query/rights.sql");

/// An earlier version's has no position.
pub const HAS_PROGRESS: &str = "select exists (select from pg_attribute \
     where attrelid = to_regclass('public.replica_progress') and attname = 'position')";

/// The GRANTs that the daemon's role lacks on the slave's progress table, in one text.
pub const MISSING_PROGRESS_RIGHTS: &str = "select coalesce(string_agg(format('GRANT %s ON public.replica_progress TO \
     %I;', upper(privilege), current_user), ' '), '') from unnest(array['select', 'insert', 'update']) privilege \
     where not has_table_privilege('public.replica_progress', privilege)";

/// 0x70797265 is "pyre". Two daemons of one slave exclude each other with it, on the master.
pub const LOCK_SLAVE: &str = "select pg_try_advisory_lock(1887007333, hashtext($1))";

/// Whether a daemon replicates to this slave: it holds the lock above.
pub const DAEMON_RUNS: &str = "select exists (select from pg_locks where locktype = 'advisory' \
     and database = (select oid from pg_database where datname = current_database()) and classid = 1887007333 \
     and objid = (hashtext($1)::bigint & 4294967295)::oid and objsubid = 2 and granted)";

/// Whether there is an index by id; without one every look reads the whole log.
pub const HAS_INDEX: &str = "select exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid \
     and a.attnum = i.indkey[0] where i.indrelid = to_regclass('public.replica_log') and i.indisvalid \
     and i.indpred is null and a.attname = 'id')";

pub const LOG_SIZE: &str = "select pg_total_relation_size('public.replica_log')";

/// The look comes first: ON CONFLICT alone waits for a transaction in doubt that has changed the row, and this runs before
/// recovery.
pub const SLAVE_ROW: &str = "insert into public.replica_slave (field, batch) select $1::text::name, 0 \
     where not exists (select from public.replica_slave where field = $1::text::name) on conflict (field) do nothing";

pub const COMMITTED_BATCH: &str = "select batch from public.replica_slave where field = $1::text::name";

pub const KEEP_FLOOR: &str = "update public.replica_slave set floor = $3 where field = $1::text::name and batch = $2 \
     returning ctid::text";

pub const POSITION: &str = include_str!("../sql/query/position.sql");

/// A transaction of our own, and its number.
pub const OWN_TRANSACTION: &str = "select pg_current_xact_id()::text::bigint";

/// Has the log been restored from a cluster with other transaction numbers?
pub const RESTORED: &str = include_str!("../sql/query/restored.sql");
pub const RENUMBER: &str = include_str!("../sql/query/renumber.sql");

/// The slaves whose position is about another database than this one.
pub const FOREIGN_POSITIONS: &str = "select field::text from public.replica_slave where identity is distinct from $1 \
     and (base is not null or current is not null) order by field";

pub const FORGET_POSITIONS: &str = "update public.replica_slave set identity = $1, base = null, current = null, \
     last = null, highest = null, floor = null where identity is distinct from $1 \
     and (base is not null or current is not null or field = $2::text::name)";

/// An asynchronous commit could be lost after the other side's.
pub const COMMIT_DURABLY: &str = "select set_config('synchronous_commit', 'on', false) \
     where current_setting('synchronous_commit') = 'off'";

pub const PREPARED: &str = "select gid from pg_prepared_xacts where database = current_database() order by prepared";

pub const PROGRESS: &str = "select batch, position from public.replica_progress where master = $1";

pub const PROGRESS_ROW: &str = "insert into public.replica_progress (master, batch, position) values ($1, 0, '') \
     on conflict (master) do nothing";

/// Only if the row still says what the daemon believes: a commit that was under way when a connection broke is waited
/// for here, and then seen.
pub const NOTE_PROGRESS: &str = "update public.replica_progress set batch = $2, position = $3, ts = now() \
     where master = $1 and batch = $4";

/// The queries that read the log, with the slave's own column in the place of "l.replicated".
#[derive(Clone)]
pub struct ReadQueries {
    pub pending: String,
    pub page: String,
    pub fetch: String,
}

/// Passes over a long backlog.
pub const CLOSE: &str = include_str!("../sql/query/close.sql");
pub const SPREAD: &str = include_str!("../sql/query/spread.sql");

impl ReadQueries {
    /// `hstore_schema`: where the extension is installed; `packed`: in its binary form.
    pub fn new(field: &str, hstore_schema: &str, packed: bool) -> ReadQueries {
        let form = format!("{}.{}", quote_ident(hstore_schema), if packed { "hstore_send" } else { "hstore_to_array" });
        let own = |sql| own(field, sql).replace("public.hstore_send", &form);
        ReadQueries {
            pending: own(include_str!("../sql/query/pending.sql")),
            page: own(include_str!("../sql/query/page.sql")),
            fetch: own(include_str!("../sql/query/fetch.sql")),
        }
    }

    /// Has what an initial copy has brought of a table passed over: each table and the snapshot that its rows are from.
    pub fn pass_over(&mut self, copied: &[(String, Snapshot)]) {
        let case = |(relation, snapshot): &(String, Snapshot)| {
            format!(" when {} then {}::pg_snapshot", quote_literal(relation), quote_literal(snapshot.as_str()))
        };
        let cases: String = copied.iter().map(case).collect();
        let skip = format!("coalesce(pg_visible_in_snapshot(l.txid, case l.relation{cases} end), false) as skip");
        for query in [&mut self.pending, &mut self.page] {
            let place = query.find(") as skip").expect("the query tells which rows are passed over") + 1;
            query.replace_range(place..place + " as skip".len(), &format!("\n             or {skip}"));
        }
    }
}

/// What sets the flags of one slave, and what it takes to know those of the others.
pub struct MarkQueries {
    /// The rows whose flag is to be set.
    pub due: String,
    pub stuck: String,
    /// Marks changes, in one or two statements.
    pub mark: Vec<String>,
    /// The rows that every slave has replayed some time ago.
    pub old: String,
    pub purge: Vec<String>,
    /// For each slave's column: since when its oldest change waits, if one does.
    pub waiting: Vec<(String, String)>,
}

impl MarkQueries {
    /// `fields`: the columns of all slaves; `keep`: whether changes stay in the log for a while after every slave has
    /// replayed them.
    pub fn new(field: &str, fields: &[String], keep: bool) -> MarkQueries {
        let all: Vec<String> = fields.iter().map(|field| flag(field)).collect();
        let all = all.join(" and ");
        MarkQueries {
            due: own(field, include_str!("../sql/query/due.sql")),
            stuck: own(field, include_str!("../sql/query/stuck.sql")),
            mark: marks(field, fields, keep),
            old: include_str!("../sql/query/old.sql").replace("l.replicated", &format!("({all})")),
            purge: vec![format!("delete from public.replica_log l where id = any ($1) and {all}")],
            waiting: fields.iter().map(|field| (field.clone(), waiting(field))).collect(),
        }
    }
}

/// The lowest id that a slave has not replayed if its flags tell; $1 is a snapshot.
pub fn first_pending(field: &str) -> String {
    format!(
        "select min(id) from public.replica_log l where not {} \
         and pg_visible_in_snapshot(txid, (select $1::text::pg_snapshot))",
        flag(field)
    )
}

/// Sets the flags of what a slave's position says is replayed.
pub fn passed(field: &str) -> String {
    own(field, include_str!("../sql/query/passed.sql"))
}

/// SQLSTATE of `note_position` when the row is not as that batch has left it: a division by the number of rows.
pub const NOT_NOTED: &str = "22012";

/// Writes a slave's position, if `former` is the batch that wrote it last; the number of the transaction that does, and
/// where the row is now. `place`: where it was, if that is known. Without it the server walks over the row's former
/// versions, and while a transaction stays open, every batch leaves one.
pub fn note_position(
    field: &str,
    identity: &str,
    position: &Position,
    former: BatchNumber,
    place: Option<&str>,
) -> String {
    let place = place.map_or(String::new(), |place| format!(" and ctid = {}", quote_literal(place)));
    let snapshot = |snapshot: &Option<Snapshot>| match snapshot {
        Some(snapshot) => quote_literal(snapshot.as_str()),
        None => "null".to_string(),
    };
    format!(
        "with noted as (update public.replica_slave set batch = {}, identity = {}, base = {}, current = {}, last = {}, \
         highest = {}, floor = {}, ts = now() where field = {} and batch = {former}{place} \
         returning pg_current_xact_id()::text as ours, ctid::text as place) \
         select max(ours), max(place), 1 / count(*) from noted",
        position.batch,
        quote_literal(identity),
        snapshot(&position.base),
        snapshot(&position.current),
        position.last.map_or("null".to_string(), |last| last.to_string()),
        position.highest,
        position.floor,
        quote_literal(field)
    )
}

fn own(field: &str, sql: &str) -> String {
    let own = quote_ident(field);
    sql.replace("l.replicated", &format!("l.{own}")).replace("set replicated", &format!("set {own}"))
}

/// A NULL counts as replayed, as it did for the Python original.
fn flag(field: &str) -> String {
    format!("coalesce(l.{}, true)", quote_ident(field))
}

/// A row that every slave has replayed is deleted at once. READ COMMITTED looks again after a wait for another slave's
/// mark of the same row, so of two slaves that mark it together the second one deletes it.
fn marks(field: &str, fields: &[String], keep: bool) -> Vec<String> {
    let (own, pending) = (quote_ident(field), format!("not {} and id = any ($1)", flag(field)));
    if keep {
        return vec![format!("update public.replica_log l set {own} = true where {pending}")];
    }
    let mut statements = Vec::new();
    let rest: Vec<String> = fields.iter().filter(|other| *other != field).map(|other| flag(other)).collect();
    if !rest.is_empty() {
        statements.push(format!(
            "update public.replica_log l set {own} = true where {pending} and not ({})",
            rest.join(" and ")
        ));
    }
    statements.push(format!("delete from public.replica_log l where {pending}"));
    statements
}

/// What neither the flag nor the position says is replayed; the position may be a moment behind.
pub fn waiting(field: &str) -> String {
    format!(
        "select l.ts::text from (select $1::text::name as field) f left join public.replica_slave s using (field) \
         join public.replica_log l on l.id > coalesce(s.floor, 0) and not {} \
         and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false) \
         and not coalesce(l.id <= s.last and pg_visible_in_snapshot(l.txid, s.current), false) order by l.id limit 1",
        flag(field)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 3] = ["replicated", "Slave 2", "slave3"];

    #[test]
    fn queries_read_and_mark_the_slaves_own_column_only() {
        let fields = FIELDS.map(String::from);
        let (log, marks) =
            (ReadQueries::new("Slave 2", "extensions", true), MarkQueries::new("Slave 2", &fields, false));
        for sql in [&log.pending, &log.page, &log.fetch, &marks.due, &passed("Slave 2")] {
            let statement: String = sql.lines().filter(|line| !line.starts_with("--")).collect();
            assert!(statement.contains("l.\"Slave 2\"") && !statement.contains("replicated"), "{sql}");
        }
        assert!(log.fetch.contains("\"extensions\".hstore_send(l.old)"));
        let unpacked = ReadQueries::new("Slave 2", "extensions", false);
        assert!(unpacked.fetch.contains("\"extensions\".hstore_to_array(l.new)"));
    }

    #[test]
    fn what_a_copy_has_brought_is_passed_over_wherever_rows_are_listed() {
        let mut log = ReadQueries::new("replicated", "public", true);
        log.pass_over(&[("public.\"it's\"".to_string(), Snapshot::parse("7:9:7").unwrap())]);
        let skip = "case l.relation when 'public.\"it''s\"' then '7:9:7'::pg_snapshot end), false) as skip";
        assert!(log.pending.contains(skip) && log.page.contains(skip));
        assert!(log.pending.contains("null::boolean as skip"), "{}", log.pending);
    }

    #[test]
    fn a_row_is_deleted_once_all_slaves_have_it() {
        let fields = FIELDS.map(String::from);
        let own = "not coalesce(l.\"Slave 2\", true) and id = any ($1)";
        let flagged = format!("update public.replica_log l set \"Slave 2\" = true where {own}");
        assert_eq!(
            MarkQueries::new("Slave 2", &fields, false).mark,
            [
                format!("{flagged} and not (coalesce(l.\"replicated\", true) and coalesce(l.\"slave3\", true))"),
                format!("delete from public.replica_log l where {own}")
            ]
        );
        assert_eq!(MarkQueries::new("Slave 2", &fields, true).mark, [flagged]);
    }
}
