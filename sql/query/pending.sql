-- What one snapshot shows of the log and the slave has not replayed, without payload unless it is little; and in a row of
-- its own, without an id, the snapshot. A row whose own flag is set, by hand or by an upgrade, is among it, to be passed
-- over: without it nobody would know where its transaction ends. "l.replicated" stands for the slave's own column; the
-- payload is that of fetch.sql.
--   $1  bigint    look above this id, save for the late transactions
--   $2  name      SKIP_USER, or NULL
--   $3  text      the slave database's identity: what came from there does not go back
--   $4  bigint    read this many rows at most, the first ones
--   $5  text      the snapshot, or NULL for this query's own
--   $6  text      a snapshot whose transactions have all been replayed, or NULL
--   $7  text[]    late transactions: those that were still open then, and may have ids up to $1
--   $8  bigint[]  of each of them, the id above which its rows are
--   $9  text[]    transactions to leave out
--   $10 bigint    so many rows are little,
--   $11 bigint    and so many bytes
with s as materialized (
    select t.*,
           -- Only a late transaction that is over by now makes the look begin further down.
           least($1, (select min(u.bound) from unnest(t.late, $8::bigint[]) u (txid, bound)
                       where pg_visible_in_snapshot(u.txid, t.now))) as above
      from (select coalesce($5::text::pg_snapshot, pg_current_snapshot()) as now, $6::text::pg_snapshot as base,
                   $7::text[]::xid8[] as late, $9::text[]::xid8[] as apart
            -- Evaluated once, not for every row.
            offset 0) t),
p as materialized (
    select p.*
      from s cross join lateral (
          select l.id, l.txid, l.ctid as place,
                 coalesce(pg_column_size(l.old), 0) + coalesce(pg_column_size(l.new), 0)
                     + coalesce(pg_column_size(l.sql), 0) as size,
                 l.replicated as flagged,
                 coalesce(l.replicated, true) or coalesce(l.username = $2, false)
                     or coalesce(l.origin = $3, false) as skip
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
  -- A message to the server less for the change that comes alone.
  left join lateral (
      select l.event::text, coalesce(l.relation, '') as relation, public.hstore_send(l.old) as old,
             public.hstore_send(l.new) as new, coalesce(l.sql, '') as sql, l.origin
        from public.replica_log l
       where l.ctid = p.place and not p.skip
         and (select count(*) <= $10 and sum(p.size) <= $11 from p)) f on true
