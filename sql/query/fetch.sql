-- Changes with their payload, in no particular order. As arrays of name, value, name, value: the binary form of hstore
-- counts bytes before they are converted from the database's encoding. "public" stands for hstore's own schema,
-- "l.replicated" for the slave's own column.
--   $1  bigint[]  their ids
select l.id, l.txid::text::bigint as txid, l.event::text as event, coalesce(l.relation, '') as relation,
       public.hstore_to_array(l.old) as old, public.hstore_to_array(l.new) as new, coalesce(l.sql, '') as sql, l.origin,
       coalesce(l.replicated, true) as skip
  from public.replica_log l
 where l.id = any ($1)
