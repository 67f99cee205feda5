//! Statements about the tables of the slave, and about what is held there.

pub const FINGERPRINT: &str = include_str!("../../sql/query/fingerprint.sql");
pub const TABLE: &str = include_str!("../../sql/query/table.sql");
pub const LINKS: &str = include_str!("../../sql/query/links.sql");
pub const KEY: &str = include_str!("../../sql/query/key.sql");
pub const COLUMNS: &str = include_str!("../../sql/query/columns.sql");

/// Rows are looked up by the index of their key, one after the other: what the planner believes of a table that has grown
/// a moment ago would have it read the whole table for each set of changes.
pub const LOOK_UP: &str = "set local enable_seqscan = off; set local enable_hashjoin = off; \
     set local enable_mergejoin = off; set local plan_cache_mode = force_generic_plan;";

/// What the application has set for the daemon's role: for statements that write rows, since functions of the application run
/// with them, in triggers and checks. Nothing in such a statement is looked for in that path.
pub const ITS_PATH: &str = "set local search_path to default;";

/// What the session has otherwise (`session.sql`).
pub const OWN_PATH: &str = "set local search_path = pg_catalog, pg_temp;";

/// For free statements, which are about anything.
pub const PLAN_FREELY: &str = "set local enable_seqscan to default; set local enable_hashjoin to default; \
     set local enable_mergejoin to default; set local plan_cache_mode to default; set local search_path to default;";

/// Who the daemon is, whatever a free statement has made of it.
pub const OWN_ROLE: &str = "reset session authorization; reset role;";

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

pub const IS_QUARANTINED: &str =
    "select exists (select from public.replica_held where master = $1 and why = 'quarantined')";

/// The first change in quarantine that has left one of these numbers.
pub const DEPENDS: &str = "select h.id, h.txid::text::bigint as txid from public.replica_held h \
     where h.master = $1 and h.why = 'quarantined' and h.keys && $2::bigint[] order by h.place limit 1";

pub const HELD: &str = "select id, txid::text::bigint as txid, relation, event, old, new, sql, origin \
     from public.replica_held where place = any ($1) order by place";

/// The transactions in quarantine, in the order of replay.
pub const QUARANTINED: &str = "select txid::text::bigint as txid, min(place) as place, min(id) as first, \
         count(*) as changes, array_agg(id) as ids, max(error) as error from public.replica_held \
     where master = $1 and why = 'quarantined' group by txid order by min(place)";
