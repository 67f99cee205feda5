-- The application's tables that no trigger logs, neither their own nor one of their partitions. Partitions are left out.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pyreplica')
   and (n.nspname <> 'public' or c.relname <> all (array['replica_log']))
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
   and c.oid not in (select coalesce(pg_partition_root(t.tgrelid)::oid, t.tgrelid) from pg_trigger t
                      where t.tgfoid in (select p.oid from pg_proc p join pg_namespace f on f.oid = p.pronamespace
                                          where (f.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition')))
                        and t.tgtype & 1 = 1)
 order by 1
