-- The tables of a master: whether their changes are logged, which columns identify a row (none: the whole row), and which filters and transforms
-- make the slave's table differ.
-- A table that its owner has renamed is not known by that name.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select r.name as relation, l.logged, l.logged and public.py_log_knows(r.name, c.oid) as known, coalesce(h.arguments, k.names) as key,
       c.relreplident = 'f' as full_row,
       coalesce((select array_agg(distinct f.event order by f.event) from public.py_log_filter f
                  where f.relname in (c.relname::text, r.name)), '{}') as filters,
       coalesce((select array_agg(distinct t.field order by t.field) from public.py_log_transform t
                  where t.relname in (c.relname::text, r.name)), '{}') as transforms,
       c.relname::text as name
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (select format('%s.%s', quote_ident(n.nspname), quote_ident(c.relname)) as name) r
  cross join lateral (
      select exists (select from pg_trigger t
                      where t.tgrelid = c.oid
                        and t.tgfoid in (select p.oid from pg_proc p join pg_namespace f on f.oid = p.pronamespace
                                              where (f.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition')))
                        and t.tgparentid = 0 and t.tgenabled <> 'D' and t.tgtype & 1 = 1) as logged) l
  left join lateral (
      select array_agg(a.attname::text order by k.n) as names
        from (select i.indrelid, i.indkey, i.indnkeyatts from pg_index i
               where i.indrelid = c.oid and (i.indisprimary or i.indisreplident)
               order by i.indisprimary desc limit 1) i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts) k on true
  left join lateral (
      -- A trigger made by hand. Each of its arguments ends in a zero byte; the first argument is the table's name.
      select (select array_agg(convert_from(decode(m[1], 'hex'), getdatabaseencoding()) order by n)
                from regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
               where n > 1) as arguments
        from pg_trigger t
       where t.tgrelid = c.oid and t.tgfoid = to_regprocedure('public.py_log_replica()')
         and t.tgname !~ '^!replica_' and t.tgnargs > 1
       limit 1) h on true
 where c.relkind in ('r', 'p') and c.relpersistence <> 't' and (l.logged or not c.relispartition)
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pyreplica')
   and (n.nspname <> 'public' or c.relname <> all (array['replica_log']))
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
 order by n.nspname, c.relname
