-- Changes with their payload, in no particular order. In hstore's binary form, or where the database's encoding is another
-- than UTF-8, and that form's lengths are wrong, as arrays of name, value, name, value, by hstore_to_array. "public"
-- stands for hstore's own schema, "l.replicated" for the slave's own column.
--   $1  bigint[]  the first id of each run of ids
--   $2  bigint[]  its last id
select l.id, l.txid, l.event::text as event, coalesce(l.relation, '') as relation,
       public.hstore_send(l.old) as old, public.hstore_send(l.new) as new, coalesce(l.sql, '') as sql, l.origin,
       coalesce(l.replicated, true) as skip
  from unnest($1::bigint[], $2::bigint[]) r (first, last)
  join public.replica_log l on l.id between r.first and r.last
