//! Statements about what is put aside on the slave, and about what is passed over.

/// How many of the slave's tables are not there, and how many may not be used.
pub const TABLES: &str = "select count(*) filter (where to_regclass(t) is null), \
     count(*) filter (where to_regclass(t) is not null and not has_table_privilege(to_regclass(t), \
         'select') or not has_table_privilege(to_regclass(t), 'insert') \
         or not has_table_privilege(to_regclass(t), 'update') or not has_table_privilege(to_regclass(t), 'delete')) \
     from unnest(array['public.replica_hold', 'public.replica_held', 'public.replica_conflict', \
         'public.replica_skipped']) t";

/// What is on hold of a pair. In every batch's first message, so it must be cheap.
pub const HOLDS: &str = "select relation, why, who, ts::text as since from public.replica_hold where master = $1 \
     order by relation";

/// No batch is under way then that has not seen what is written next.
pub const LOCK: &str = "lock table public.replica_hold in access exclusive mode";

pub const HOLD: &str = "insert into public.replica_hold (master, relation, why) values ($1, $2, $3) \
     on conflict (master, relation) do nothing";

pub const UNHOLD: &str = "delete from public.replica_hold where master = $1 and relation = $2";

/// 0x70797268 is "pyrh". One at a time puts back what is held of a pair.
pub const LOCK_RELEASE: &str = "select pg_advisory_xact_lock(1887007336, hashtext($1))";

/// Rows and keys travel as the text of an array each, since there are no arrays of arrays of different lengths.
pub const PUT_ASIDE: &str = "insert into public.replica_held \
     (master, id, txid, relation, event, old, new, sql, origin, keys, why, error) \
     select $1, x.id, x.txid::text::xid8, x.relation, x.event, x.old::text[], x.new::text[], x.sql, x.origin, \
         x.keys::bigint[], x.why, x.error \
     from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
         $10::text[], $11::text[], $12::text[]) \
         with ordinality x (id, txid, relation, event, old, new, sql, origin, keys, why, error, n) order by x.n";

pub const IS_QUARANTINED: &str =
    "select exists (select from public.replica_held where master = $1 and why = 'quarantined')";

/// The first change in quarantine that has one of these keys, or is of one of these tables.
pub const DEPENDS: &str = "select h.id, h.txid::text::bigint as txid from public.replica_held h \
     where h.master = $1 and h.why = 'quarantined' and (h.keys && $2::bigint[] or h.relation = any ($3)) \
     order by h.place limit 1";

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

/// The transaction before this one in quarantine that it shares a key with.
pub const WAITS_FOR: &str = "select e.txid::text::bigint as txid from public.replica_held h \
     join public.replica_held e on e.master = h.master and e.why = 'quarantined' and e.txid <> h.txid \
         and e.place < h.place and (e.keys && h.keys or e.relation = h.relation and h.event = 'T') \
     where h.master = $1 and h.why = 'quarantined' and h.txid = $2::text::xid8 order by e.place limit 1";

/// A table of this transaction in quarantine that is on hold.
pub const HELD_BACK: &str = "select h.relation from public.replica_held h \
     join public.replica_hold o on o.master = h.master and o.relation in (h.relation, '') \
     where h.master = $1 and h.why = 'quarantined' and h.txid = $2::text::xid8 limit 1";

pub const FORGET_QUARANTINED: &str =
    "delete from public.replica_held where master = $1 and why = 'quarantined' and txid = $2::text::xid8";

pub const NOTE_ERROR: &str = "update public.replica_held set error = $3 \
     where master = $1 and why = 'quarantined' and txid = $2::text::xid8";

/// A table as the log names it: a partition goes by its root.
pub const FIND_TABLE: &str = "select (select format('%I.%I', n.nspname, c.relname) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.oid = coalesce(pg_partition_root(t.oid), t.oid) and c.relkind in ('r', 'p')) \
     from (select to_regclass($1)::oid) t (oid)";
