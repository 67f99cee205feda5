-- The tables of a database that get a trigger when pyreplica is installed there: those with a key, or whose whole row is one.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as relation
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pyreplica')
   and (n.nspname <> 'public' or c.relname <> all (array['replica_log']))
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
   and (c.relreplident = 'f' or exists (select from pg_index i where i.indrelid = c.oid and (i.indisprimary or i.indisreplident)))
 order by 1
