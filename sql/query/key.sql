-- The columns that identify a row of a table on the master: the primary key, the index of the REPLICA IDENTITY, and the arguments of
-- a trigger made by hand.
--   $1  text[]  quoted and qualified names
select r.name as relation, k.names as key, d.names as identity,
       -- Whether changes may be replayed under this name.
       public.py_log_knows(r.name, null::oid) as known,
       -- Columns that are computed only when a query reads them. The log has NULL in their place.
       array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attgenerated = 'v') as computed,
       -- Each argument ends in a zero byte; the first argument is the table's name.
       (select array_agg(convert_from(decode(m[1], 'hex'), getdatabaseencoding()) order by n)
          from regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
         where n > 1) as arguments
  from unnest($1::text[]) r (name)
  -- Not with to_regclass, which fails if the role has no USAGE on the schema.
  left join lateral (
      select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = (parse_ident(r.name))[1]::name and c.relname = (parse_ident(r.name))[2]::name) c on true
  left join lateral (
      select array_agg(a.attname::text order by k.n) as names
        from pg_index i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
       where i.indrelid = c.oid and i.indisprimary) k on true
  left join lateral (
      select array_agg(a.attname::text order by k.n) as names
        from pg_index i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
       where i.indrelid = c.oid and i.indisreplident and not i.indisprimary) d on true
  left join lateral (
      select t.tgargs from pg_trigger t
        join pg_proc p on p.oid = t.tgfoid and p.proname = 'py_log_replica'
        join pg_namespace n on n.oid = p.pronamespace and n.nspname = 'public'
       where t.tgrelid = c.oid and t.tgname !~ '^!replica_' and t.tgnargs > 1
       limit 1) t on true
