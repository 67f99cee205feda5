//! Statements of single verbs.

use crate::backlog::sql::own;
use crate::base::names::quote_ident;

pub const MASTER_INSTALL: &str = include_str!("../../sql/master-install.sql");

/// The warnings of that script.
pub const TOLD: &str = "select coalesce(current_setting('pyreplica.told', true), '')";

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

/// For a session that has been without.
pub const OWN_SESSION_PATH: &str = "set search_path = pg_catalog, pg_temp";

/// A table as the log names it, in public if its name has no schema: a partition goes by its root.
pub const FIND_TABLE: &str = "select (select format('%I.%I', n.nspname, c.relname) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.oid = coalesce(pg_partition_root(t.oid), t.oid) and c.relkind in ('r', 'p')) \
     from (select coalesce(case when cardinality(parse_ident($1)) = 1 then to_regclass('public.' || $1) end, \
         to_regclass($1))::oid) t (oid)";

/// How many changes each table of a pair holds, and what is in quarantine, by reason.
pub const HELD_COUNTS: &str = "select coalesce(h.relation, o.relation) as relation, coalesce(h.why, o.why) as why, \
         coalesce(h.changes, 0) as changes, o.ts::text as since, o.who \
     from (select relation, why, count(*) as changes from public.replica_held \
           where master = $1 and why <> 'quarantined' group by relation, why) h \
     full join (select relation, why, who, ts from public.replica_hold where master = $1) o using (relation, why) \
     order by 1, 2";

/// The first changes in quarantine.
pub const FIRST_QUARANTINED: &str = "select id, txid::text::bigint as txid, place, error, count(*) over () as all \
     from public.replica_held where master = $1 and why = 'quarantined' order by place limit $2";

/// Which of these changes, or of the changes of these transactions, are held.
pub const FIND_HELD: &str = "select id, txid::text::bigint as txid, place, relation, event from public.replica_held \
     where master = $1 and (id = any ($2::bigint[]) or txid = any ($3::bigint[]::text[]::xid8[])) order by place";

pub const OF_TRANSACTION: &str = "select id from public.replica_log where txid = $1::text::xid8 order by id limit 2000";

/// A batch in hand finds its slave's row changed and is taken back, so none replays what is skipped meanwhile.
pub const STOP_BATCH: &str = "update public.replica_slave set batch = batch where field = $1::text::name";

/// Without two-phase commit: has the slave committed a batch that the master does not know of yet?
pub const IS_AHEAD: &str = "select coalesce((select batch > $2 from public.replica_progress where master = $1), false)";

/// The queries over the log for people, with the slave's own column in the place of "l.replicated".
pub struct SkipQueries {
    pub waiting: String,
    pub skippable: String,
    /// Notes changes as passed over, by whom and why, and passes over them.
    pub note: String,
    pub skip: String,
}

impl SkipQueries {
    /// `hstore_schema`: where the extension is installed.
    pub fn new(field: &str, hstore_schema: &str) -> SkipQueries {
        let array = format!("{}.hstore_to_array", quote_ident(hstore_schema));
        SkipQueries {
            waiting: own(field, include_str!("../../sql/query/waiting.sql")),
            skippable: own(field, include_str!("../../sql/query/skippable.sql")),
            note: format!(
                "insert into public.replica_skipped (master, id, txid, relation, event, old, new, sql, reason) \
                 select $1, l.id, l.txid, l.relation, l.event::text, {array}(l.old), {array}(l.new), l.sql, $3 \
                 from public.replica_log l where l.id = any ($2) order by l.id"
            ),
            skip: own(field, "update public.replica_log l set replicated = true where id = any ($1)"),
        }
    }
}
