//! Statements of single verbs.

use crate::backlog::sql::own;
use crate::base::names::quote_ident;

/// The name of a table in the log. A name without a schema means a table in public. For a partition it is the name of
/// its root.
pub const FIND_TABLE: &str = "select (select format('%I.%I', n.nspname, c.relname) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.oid = coalesce(pg_partition_root(t.oid), t.oid) and c.relkind in ('r', 'p')) \
     from (select coalesce(case when cardinality(parse_ident($1)) = 1 then to_regclass('public.' || $1) end, \
         to_regclass($1))::oid) t (oid)";

/// What is on hold, and how many changes are held for each table and reason, without those in quarantine.
pub const HELD_COUNTS: &str = "select coalesce(h.relation, o.relation) as relation, coalesce(h.why, o.why) as why, \
         coalesce(h.changes, 0) as changes, o.ts::text as since, o.who \
     from (select relation, why, count(*) as changes from public.replica_held \
           where master = $1 and why <> 'quarantined' group by relation, why) h \
     full join (select relation, why, who, ts from public.replica_hold where master = $1) o using (relation, why) \
     order by 1, 2";

/// The first changes in quarantine.
/// What failed may have been skipped since.
pub const FIRST_QUARANTINED: &str = "select h.id, h.txid::text::bigint as txid, h.place, count(*) over () as all, \
         case when h.error !~ '^change [0-9]+: ' or exists (select from public.replica_held f where f.master = h.master \
                   and f.txid = h.txid and f.why = h.why and f.id::text = substring(h.error from '[0-9]+')) then h.error \
              else 'change ' || substring(h.error from '[0-9]+') || ' failed, and was skipped: pyreplica retry replays the rest' \
         end as error \
     from public.replica_held h where h.master = $1 and h.why = 'quarantined' order by h.place limit $2";

/// Which of these changes, or of the changes of these transactions, are held.
pub const FIND_HELD: &str = "select id, txid::text::bigint as txid, place, relation, event from public.replica_held \
     where master = $1 and (id = any ($2::bigint[]) or txid = any ($3::bigint[]::text[]::xid8[])) order by place";

pub const OF_TRANSACTION: &str = "select id from public.replica_log where txid = $1::text::xid8 order by id limit 2000";

/// Touches the slave's row. A batch in progress finds the row changed and rolls back, so no batch replays a change that
/// is skipped at the same time.
pub const STOP_BATCH: &str = "update public.replica_slave set batch = batch where field = $1::text::name";

/// Without two-phase commit: whether the slave has committed a batch that is not recorded on the master yet.
pub const IS_AHEAD: &str = "select coalesce((select batch > $2 from public.replica_progress where master = $1), false)";

/// The queries of `pending` and `skip` on the log, with the slave's own column instead of "l.replicated".
pub struct SkipQueries {
    pub waiting: String,
    pub skippable: String,
    /// The same two with their texts in ASCII, for texts that have no form in UTF-8.
    pub waiting_escaped: String,
    pub skippable_escaped: String,
    /// Records who has skipped which changes, and why.
    pub note: String,
    /// Marks changes as replayed.
    pub skip: String,
}

impl SkipQueries {
    /// `hstore_schema` is the schema in which the extension is installed.
    pub fn new(field: &str, hstore_schema: &str) -> SkipQueries {
        let array = format!("{}.hstore_to_array", quote_ident(hstore_schema));
        let (waiting, skippable) = (
            own(field, include_str!("../../sql/query/waiting.sql")),
            own(field, include_str!("../../sql/query/skippable.sql")),
        );
        let escaped = |sql: &str| {
            let text = |whole: &str| format!("left(public.py_log_sql({whole}), 2000)");
            let escape = |text: &str| format!("encode(convert_to({text}, getdatabaseencoding()), 'escape')");
            sql.replace(&text("w.whole"), &escape(&text("w.whole"))).replace(&text("l"), &escape(&text("l")))
        };
        SkipQueries {
            waiting_escaped: escaped(&waiting),
            skippable_escaped: escaped(&skippable),
            waiting,
            skippable,
            note: format!(
                "insert into public.replica_skipped (master, id, txid, relation, event, old, new, sql, reason) \
                 select $1, l.id, l.txid, l.relation, l.event::text, {array}(l.old), {array}(l.new), l.sql, $3 \
                 from public.replica_log l where l.id = any ($2) order by l.id"
            ),
            skip: own(field, "update public.replica_log l set replicated = true where id = any ($1)"),
        }
    }
}
