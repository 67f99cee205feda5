-- The transactions whose pending rows spread over many ids: the one pass over a long backlog. Everything else is known
-- to be complete within that distance.
--   $1  bigint    look above this id only
--   $2  text      the snapshot
--   $3  text      a snapshot whose transactions have all been replayed, or NULL
--   $4  bigint    the distance
select l.txid::text::bigint as txid, min(l.id) as first, max(l.id) as last, count(*) as rows
  from (select $2::text::pg_snapshot as now, $3::text::pg_snapshot as base offset 0) s
  join public.replica_log l on l.id > $1
   and pg_visible_in_snapshot(l.txid, s.now)
   and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false)
 group by l.txid
having max(l.id) - min(l.id) >= $4
 order by max(l.id)
