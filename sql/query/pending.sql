-- The rows of the log that one snapshot shows and the slave has not replayed. One more row, without an id, has the snapshot.
-- The rows have no payload, unless they are few and small. Rows whose flag is set already, by hand or by an upgrade, are
-- included and marked "skip": the daemon needs them to know where their transaction ends. "l.replicated" stands for the
-- slave's own column; the payload has the form of fetch.sql.
--   $1  bigint    read rows above this id; for late transactions see $7
--   $2  name      SKIP_USER, or NULL
--   $3  text      the slave database's identity: changes that came from there are not sent back
--   $4  bigint    read this many rows at most, the first ones
--   $5  text      the snapshot, or NULL for this query's own
--   $6  text      a snapshot whose transactions have all been replayed, or NULL
--   $7  text[]    late transactions: they were still open in snapshot $6, and may have ids up to $1
--   $8  bigint[]  for each late transaction, the id above which its rows are
--   $9  text[]    transactions to leave out
--   $10 bigint    return the payload if there are at most this many rows
--   $11 bigint    and they have at most this many bytes
--   $12 text      a regular expression for the names of the tables to replicate (TABLES), or NULL for all
with s as materialized (
    select t.*,
           -- Only late transactions that have ended by now make the query begin at a lower id.
           least($1, (select min(u.bound) from unnest(t.late, $8::bigint[]) u (txid, bound)
                       where pg_visible_in_snapshot(u.txid, t.now))) as above
      from (select coalesce($5::text::pg_snapshot, pg_current_snapshot()) as now, $6::text::pg_snapshot as base,
                   $7::text[]::xid8[] as late, $9::text[]::xid8[] as apart
            -- OFFSET 0: PostgreSQL evaluates this once, not for every row.
            offset 0) t),
p as materialized (
    select p.*
      from s cross join lateral (
          select l.id, l.txid, l.ctid as place,
                 coalesce(pg_column_size(l.old), 0) + coalesce(pg_column_size(l.new), 0)
                     + coalesce(pg_column_size(l.sql), 0) as size,
                 l.replicated as flagged,
                 coalesce(l.replicated, true) or coalesce(l.username = $2, false)
                     or coalesce(l.origin = $3, false)
                     or coalesce(l.relation !~ $12, $12 is not null) as skip
            from public.replica_log l
           where l.id > s.above and (l.id > $1 or l.txid = any (s.late))
             and pg_visible_in_snapshot(l.txid, s.now)
             and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false)
             and l.txid <> all (s.apart)
           order by l.id
           limit $4) p)
select s.now::text as snapshot, null::bigint as id, null::xid8 as txid, null::integer as size, null::boolean as skip,
       null::boolean as flagged,
       null as event, null as relation, null as old, null as new, null as sql, null as origin
  from s
union all
select null, p.id, p.txid, p.size, p.skip, p.flagged, f.event, f.relation, f.old, f.new, f.sql, f.origin
  from p
  -- With the payload here, a change that comes alone costs one message to the server less.
  left join lateral (
      select l.event::text,
           -- A session with quote_all_identifiers = on logged each name in quotes, in an earlier version.
           case when l.relation like '"%"."%"' then (select quote_ident(i[1]) || '.' || quote_ident(i[2]) from parse_ident(l.relation) i)
                else coalesce(l.relation, '') end as relation, public.hstore_send(l.old) as old,
             public.hstore_send(l.new) as new, coalesce(l.sql, '') as sql, l.origin
        from public.replica_log l
       where l.ctid = p.place and not p.skip
         and (select count(*) <= $10 and sum(p.size) <= $11 from p)) f on true
