//! Statements about what is put aside on the slave, and about what is passed over.

use super::{FINGERPRINT, own};
use crate::base::names::quote_ident;

/// How many of the slave's tables are not there, and how many may not be used.
pub const TABLES: &str = "select count(*) filter (where to_regclass(t) is null), \
     count(*) filter (where to_regclass(t) is not null and not has_table_privilege(to_regclass(t), \
         'select') or not has_table_privilege(to_regclass(t), 'insert') \
         or not has_table_privilege(to_regclass(t), 'update') or not has_table_privilege(to_regclass(t), 'delete')) \
     from unnest(array['public.replica_hold', 'public.replica_held', 'public.replica_conflict', \
         'public.replica_skipped']) t";

pub const HAS_HELD: &str = "select to_regclass('public.replica_held') is not null";

/// What is on hold of a pair. In every batch's first message, so it must be cheap.
pub const HOLDS: &str = "select relation, why, who, ts::text as since from public.replica_hold where master = $1 \
     order by relation";

/// Something that keeps what is on hold as it is, as reading it does.
pub const KEEP: &str = "LOCK TABLE public.replica_hold IN ACCESS SHARE MODE";

/// Fails if the tables named in $1 have not the fingerprints in $2, or if the query finds something: by a division by zero.
pub fn insist(nothing: Option<&str>) -> String {
    let and_nothing = nothing.map_or(String::new(), |query| format!(" AND NOT EXISTS ({query})"));
    format!(
        "SELECT 1 / (count(*) = cardinality($1) AND bool_and(f.fingerprint = e.fingerprint){and_nothing})::int \
         FROM ({FINGERPRINT}) f JOIN unnest($1, $2) e (relation, fingerprint) USING (relation)"
    )
}

/// No batch is under way then that has not seen what is written next.
pub const LOCK: &str = "lock table public.replica_hold in access exclusive mode";

pub const HOLD: &str = "insert into public.replica_hold (master, relation, why) values ($1, $2, $3) \
     on conflict (master, relation) do nothing";

pub const UNHOLD: &str = "delete from public.replica_hold where master = $1 and relation = $2";

/// 0x70797268 is "pyrh". One at a time puts back what is held of a pair.
pub const LOCK_RELEASE: &str = "select pg_advisory_xact_lock(1887007336, hashtext($1))";

/// Rows and keys travel as the text of an array each, since there are no arrays of arrays of different lengths.
pub const PUT_ASIDE: &str = "insert into public.replica_held \
     (master, id, txid, relation, event, old, new, sql, origin, keys, needs, why, error) \
     select $1, x.id, x.txid::text::xid8, x.relation, x.event, x.old::text[], x.new::text[], x.sql, x.origin, \
         x.keys::bigint[], x.needs::bigint[], x.why, x.error \
     from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::text[], $11::text[], $12::text[], $13::text[]) \
         with ordinality x (id, txid, relation, event, old, new, sql, origin, keys, needs, why, error, n) order by x.n";

/// Rows travel as the text of an array of name, value, name, value.
pub const RECORD: &str = "insert into public.replica_conflict \
     (master, change, txid, relation, kind, key, expected, found, new, done) \
     select $1, x.id, x.txid::text::xid8, x.relation, x.kind, jsonb_object(x.key::text[]), \
         jsonb_object(x.expected::text[]), jsonb_object(x.found::text[]), jsonb_object(x.new::text[]), x.done \
     from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::text[]) with ordinality x (id, txid, relation, kind, key, expected, found, new, done, n) order by x.n";

/// All but the newest conflicts of a pair.
pub const FORGET_CONFLICTS: &str = "delete from public.replica_conflict where master = $1 \
     and id <= (select max(id) - $2 from public.replica_conflict where master = $1)";

pub const IS_QUARANTINED: &str =
    "select exists (select from public.replica_held where master = $1 and why = 'quarantined')";

/// The first change in quarantine that has left one of these numbers.
pub const DEPENDS: &str = "select h.id, h.txid::text::bigint as txid from public.replica_held h \
     where h.master = $1 and h.why = 'quarantined' and h.keys && $2::bigint[] order by h.place limit 1";

/// The next changes held of a table, and about how large each is.
pub const NEXT_HELD: &str = "select place, coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) \
     + pg_column_size(sql) as size from public.replica_held \
     where master = $1 and relation = $2 and why <> 'quarantined' order by place limit $3";

/// The same for the changes of a transaction in quarantine; $4 is the place of the one before.
pub const NEXT_QUARANTINED: &str = "select place, coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) \
     + pg_column_size(sql) as size from public.replica_held \
     where master = $1 and txid = $2::text::xid8 and why = 'quarantined' and place > $4 order by place limit $3";

pub const HELD: &str = "select id, txid::text::bigint as txid, relation, event, old, new, sql, origin \
     from public.replica_held where place = any ($1) order by place";

pub const FORGET_HELD: &str = "delete from public.replica_held where place = any ($1)";

/// What a copy of the table has brought along already.
pub const DROP_VISIBLE: &str = "delete from public.replica_held where master = $1 and relation = $2 \
     and why <> 'quarantined' and pg_visible_in_snapshot(txid, $3::text::pg_snapshot)";

/// The transactions in quarantine, in the order of replay.
pub const QUARANTINED: &str = "select txid::text::bigint as txid, min(place) as place, min(id) as first, \
         count(*) as changes, array_agg(id) as ids, max(error) as error from public.replica_held \
     where master = $1 and why = 'quarantined' group by txid order by min(place)";

/// The transaction before this one in quarantine that it waits for.
pub const WAITS_FOR: &str = "select e.txid::text::bigint as txid from public.replica_held h \
     join public.replica_held e on e.master = h.master and e.why = 'quarantined' and e.txid <> h.txid \
         and e.place < h.place and e.keys && h.needs \
     where h.master = $1 and h.why = 'quarantined' and h.txid = $2::text::xid8 order by e.place limit 1";

/// A table of this transaction in quarantine that is on hold.
pub const HELD_BACK: &str = "select h.relation from public.replica_held h \
     join public.replica_hold o on o.master = h.master and o.relation in (h.relation, '') \
     where h.master = $1 and h.why = 'quarantined' and h.txid = $2::text::xid8 limit 1";

pub const FORGET_QUARANTINED: &str =
    "delete from public.replica_held where master = $1 and why = 'quarantined' and txid = $2::text::xid8";

pub const NOTE_ERROR: &str = "update public.replica_held set error = $3 \
     where master = $1 and why = 'quarantined' and txid = $2::text::xid8";

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

/// Gives held changes up, and says by whom and why.
pub const SKIP_HELD: &str = "with given_up as (delete from public.replica_held where master = $1 and place = any ($2) \
         returning *) \
     insert into public.replica_skipped (master, id, txid, relation, event, old, new, sql, error, reason) \
     select master, id, txid, relation, event, old, new, sql, error, $3 from given_up order by place";

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
