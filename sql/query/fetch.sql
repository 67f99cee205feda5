-- Changes with their payload, in no particular order.
--   $1  bigint[]  their ids
select l.id, l.txid::text::bigint as txid, l.event::text as event, coalesce(l.relation, '') as relation,
       l.old, l.new, coalesce(l.sql, '') as sql
  from public.replica_log l
 where not replicated and l.id = any ($1)
