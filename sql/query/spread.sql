-- The transactions whose pending rows spread over many ids: the one pass over a long backlog. Everything else is known
-- to be complete within that distance.
--   $1  bigint  look above this id only
--   $2  text    the snapshot
--   $3  bigint  the distance
select l.txid::text::bigint as txid, min(l.id) as first, max(l.id) as last, count(*) as rows
  from public.replica_log l
 where not replicated and l.id > $1
   and pg_visible_in_snapshot(l.txid, $2::text::pg_snapshot)
 group by l.txid
having max(l.id) - min(l.id) >= $3
 order by max(l.id)
