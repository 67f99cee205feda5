-- Changes with their payload, in no particular order. The payload is in hstore's binary form. If the database's encoding is
-- not UTF-8, the lengths in that form are wrong; then hstore_to_array makes arrays of name, value, name, value. "public"
-- stands for hstore's own schema, "l.replicated" for the slave's own column.
--   $1  bigint[]  the first id of each range of ids
--   $2  bigint[]  the last id of each range
select l.id, l.txid, l.event::text as event,
           -- A session with quote_all_identifiers = on logged each name in quotes, in an earlier version.
           case when l.relation like '"%"."%"' then (select quote_ident(i[1]) || '.' || quote_ident(i[2]) from parse_ident(l.relation) i)
                else coalesce(l.relation, '') end as relation,
       public.hstore_send(l.old) as old, public.hstore_send(l.new) as new, coalesce(l.sql, '') as sql, l.origin,
       coalesce(l.replicated, true) as skip
  from unnest($1::bigint[], $2::bigint[]) r (first, last)
  join public.replica_log l on l.id between r.first and r.last
