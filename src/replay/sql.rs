//! Statements about the tables of the slave, and about held changes.

use crate::base::names::quote_literal;
use crate::server::sql::with_own;
use std::sync::LazyLock;

pub const FINGERPRINT: &str = include_str!("../../sql/query/fingerprint.sql");
pub static TABLE: LazyLock<String> = LazyLock::new(|| with_own(include_str!("../../sql/query/table.sql")));
pub const LINKS: &str = include_str!("../../sql/query/links.sql");
pub const KEY: &str = include_str!("../../sql/query/key.sql");
pub const PART: &str = include_str!("../../sql/query/part.sql");
pub const COLUMNS: &str = include_str!("../../sql/query/columns.sql");

/// SQLSTATE: there is no such savepoint.
pub const NO_SAVEPOINT: &str = "3B001";

/// Makes the slave look up rows one after the other, by the index of their key. The planner's statistics of a table that
/// has just grown are out of date: it would read the whole table for each set of changes.
pub const USE_INDEXES: &str = "set local enable_seqscan = off; set local enable_hashjoin = off; \
     set local enable_mergejoin = off; set local plan_cache_mode = force_generic_plan;";

/// The same for a transaction that prepares statements. Later ones run them with the plans that they have got: the session's setting
/// keeps the server from planning them anew.
pub const PREPARE_BY_INDEXES: &str = "set local enable_seqscan = off; set local enable_hashjoin = off; \
     set local enable_mergejoin = off; set plan_cache_mode = force_generic_plan;";

/// The search path that the application has set for the daemon's role. Statements that write rows run with it, because
/// triggers and checks call functions of the application. The statements themselves look nothing up in that path.
pub const APPLICATION_PATH: &str = "set local search_path to default;";

/// The search path of statements that write to a table with names of objects in it (`Table::by_name`). The master writes
/// such a name as it is found in `public`, or with its schema. What the application has set comes after that, for triggers.
pub const NAMES_PATH: &str = "select pg_catalog.set_config('search_path', \
     pg_catalog.concat_ws(', ', 'pg_catalog', 'public', nullif(reset_val, '')), true) \
     from pg_catalog.pg_settings where name operator(pg_catalog.=) 'search_path';";

/// The search path of all other statements (`session.sql`).
pub const DAEMON_PATH: &str = "set local search_path = pg_catalog, pg_temp;";

/// Resets what USE_INDEXES and DAEMON_PATH set, for free statements, which may do anything.
pub const DEFAULT_PLANNING: &str = "set local enable_seqscan to default; set local enable_hashjoin to default; \
     set local enable_mergejoin to default; set local plan_cache_mode to default; set local search_path to default;";

/// Makes the session run as the daemon's own role again, whatever a free statement has set.
pub const RESET_ROLE: &str = "reset session authorization; reset role;";

/// Resets what the text of a schema change sets for itself (`pyreplica.ddl_settings`) and `session.sql` does not set.
pub const RESET_SETTINGS: &str = "select pg_catalog.set_config(name, reset_val, true) from pg_catalog.pg_settings \
     where name operator(pg_catalog.=) any ('{TimeZone,default_table_access_method,default_toast_compression}'::pg_catalog.text[]);";

/// The role that owns an object of the slave, if it is neither trusted there nor called as the owner of the master's. Any such role that
/// may create something in its schema could have made it, to get the rows that are to come, and to have its own code run. $1 to $3 as in
/// shape.sql, as text; $4 who owns the master's, if the log says it.
const STRANGER: &str = "select r.rolname::text from pg_get_object_address($1::text, $2::text::text[], $3::text::text[]) a \
       join (select 'pg_class'::regclass, oid, relowner from pg_class union all \
             select 'pg_proc'::regclass, oid, proowner from pg_proc union all \
             select 'pg_type'::regclass, oid, typowner from pg_type union all \
             select 'pg_extension'::regclass, oid, extowner from pg_extension union all \
             select 'pg_namespace'::regclass, oid, nspowner from pg_namespace) o (classid, oid, owner) \
         on o.classid = a.classid and o.oid = a.objid \
       join pg_roles r on r.oid = o.owner \
      where not r.rolsuper and r.rolname <> current_user and r.rolname is distinct from $4::text \
        and o.owner not in (select datdba from pg_database where datname = current_database() union \
                            select nspowner from pg_namespace where nspname = 'public') \
        and ((select rolsuper from pg_roles where rolname = current_user) or not pg_has_role(o.owner, 'usage'))";

/// Whether an object of the slave has the shape that a schema change gave it on the master, and the stranger who owns it. $1 to $4 as
/// above; $5 the shape; $6 whether the slave's may have more.
pub static HAS_SHAPE: LazyLock<String> = LazyLock::new(|| {
    let shape = include_str!("../../sql/query/shape.sql").replace("::text[]", "::text::text[]");
    format!(
        "select coalesce($5::text::text[] <@ s.shape and ($6 or s.shape <@ $5::text::text[]), false), ({STRANGER}) from ({shape}) s"
    )
});

/// What to do about an object of somebody who is not trusted.
pub const TAKE_IT_AWAY: &str = "Drop it on the slave; or look at what it has of its owner's, such as triggers and checks, and give it to the \
     daemon's role: ALTER ... OWNER TO.";

/// Fails if a statement has left an object to a stranger: CREATE OR REPLACE and IF NOT EXISTS change no owner. The arguments are
/// those of `STRANGER`.
pub fn refuse_stranger(arguments: [Option<&str>; 4]) -> String {
    let [kind, names, arguments, owner] = arguments.map(|a| a.map_or("null::text".to_string(), quote_literal));
    let body = format!(
        "declare stranger text; begin execute {} into stranger using {kind}, {names}, {arguments}, {owner}; \
         if stranger is not null then raise exception '% % belongs to role % on the slave', {kind}, \
         array_to_string({names}::text[], '.'), stranger using errcode = 'insufficient_privilege', hint = {}; end if; end",
        quote_literal(STRANGER),
        quote_literal(TAKE_IT_AWAY)
    );
    format!("{DAEMON_PATH} DO {};", quote_literal(&body))
}

/// Whether there may be rows in it.
pub const HAS_HOLDS: &str = "select coalesce(pg_relation_size(to_regclass('public.replica_hold')) > 0, false)";

/// How many of pyreplica's tables on the slave are missing, and how many the role may not use.
pub const TABLES: &str = "select count(*) filter (where to_regclass(t) is null), \
     count(*) filter (where to_regclass(t) is not null and not has_table_privilege(to_regclass(t), \
         'select') or not has_table_privilege(to_regclass(t), 'insert') \
         or not has_table_privilege(to_regclass(t), 'update') or not has_table_privilege(to_regclass(t), 'delete')) \
     from unnest(array['public.replica_hold', 'public.replica_held', 'public.replica_conflict', \
         'public.replica_skipped']) t";

/// What is on hold of a pair.
pub const HOLDS: &str = "select relation, why, who, ts::text as since from public.replica_hold where master = $1 \
     order by relation";

/// Takes the lock that reading the table takes: until the end of the transaction nobody changes what is on hold.
pub const LOCK_HOLDS: &str = "LOCK TABLE public.replica_hold IN ACCESS SHARE MODE";

/// Fails unless all tables of $1 have their fingerprints of $2.
pub fn compare_fingerprints() -> String {
    format!(
        "SELECT 1 / (count(*) = cardinality($1) AND bool_and(f.fingerprint = e.fingerprint))::int \
         FROM ({FINGERPRINT}) f JOIN unnest($1, $2) e (relation, fingerprint) USING (relation)"
    )
}

/// To be prepared: fails if the definition of the table may have changed since then. To read the fingerprint each time would take the
/// slave a third more time for a change that comes alone.
///
/// PostgreSQL parses a prepared statement again if something that it names has changed, or has new statistics. The literal
/// `timestamptz 'now'` gets the time when the transaction has begun in which it is parsed. So it is the time of the current transaction
/// if, and only if, the statement has just been parsed again. After such a failure the table has to be read, and the statement is to be
/// forgotten: the next time it would not fail.
///
/// A partitioned table is not watched: triggers of its partitions are part of its definition.
pub fn watch(relation: &str) -> String {
    format!("SELECT ln((timestamptz 'now' <> now())::int) WHERE regclass {} IS NOT NULL", quote_literal(relation))
}

/// SQLSTATE of `watch`: the logarithm of zero.
pub const MAY_HAVE_CHANGED: &str = "2201E";

/// Rows and keys are sent as the text of an array each, because PostgreSQL has no arrays of arrays of different lengths.
pub const INSERT_HELD: &str = "insert into public.replica_held \
     (master, id, txid, relation, event, old, new, sql, origin, keys, needs, why, error) \
     select $1, x.id, x.txid::text::xid8, x.relation, x.event, x.old::text[], x.new::text[], x.sql, x.origin, \
         x.keys::bigint[], x.needs::bigint[], x.why, x.error \
     from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::text[], $11::text[], $12::text[], $13::text[]) \
         with ordinality x (id, txid, relation, event, old, new, sql, origin, keys, needs, why, error, n) order by x.n";

/// Rows are sent as the text of an array of name, value, name, value.
pub const INSERT_CONFLICTS: &str = "insert into public.replica_conflict \
     (master, change, txid, relation, kind, key, expected, found, new, done) \
     select $1, x.id, x.txid::text::xid8, x.relation, x.kind, jsonb_object(x.key::text[]), \
         jsonb_object(x.expected::text[]), jsonb_object(x.found::text[]), jsonb_object(x.new::text[]), x.done \
     from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::text[]) with ordinality x (id, txid, relation, kind, key, expected, found, new, done, n) order by x.n";

pub const IS_QUARANTINED: &str =
    "select exists (select from public.replica_held where master = $1 and why = 'quarantined')";

/// The first change in quarantine that has one of these hashes among its keys.
pub const DEPENDS: &str = "select h.id, h.txid::text::bigint as txid from public.replica_held h \
     where h.master = $1 and h.why = 'quarantined' and h.keys && $2::bigint[] order by h.place limit 1";

pub const HELD: &str = "select id, txid::text::bigint as txid, relation, event, old, new, sql, origin \
     from public.replica_held where place = any ($1) order by place";

/// The transactions in quarantine, in the order of replay.
pub const QUARANTINED: &str = "select txid::text::bigint as txid, min(place) as place, min(id) as first, \
         count(*) as changes, array_agg(id) as ids, max(error) as error from public.replica_held \
     where master = $1 and why = 'quarantined' group by txid order by min(place)";
