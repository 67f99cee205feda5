-- The tablespaces of the application's tables, indexes and materialized views, and which tables are there, also by an index. What is in
-- the database's own tablespace is left out. "array['replica_log']" stands for the names of all that is pyreplica's own in public.
--   $1  text[]  only these tables and their partitions, quoted and qualified; null for all
select s.spcname as name, array_agg(distinct quote_ident(n.nspname) || '.' || quote_ident(t.relname)) as relations
  from pg_class c
  join pg_tablespace s on s.oid = c.reltablespace
  left join pg_index i on i.indexrelid = c.oid
  join pg_class t on t.oid = coalesce(i.indrelid, c.oid)
  join pg_namespace n on n.oid = t.relnamespace
 where t.relkind in ('r', 'p', 'm') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pyreplica')
   and (n.nspname <> 'public' or t.relname <> all (array['replica_log']))
   and ($1::text[] is null or t.oid in (select to_regclass(r.name) from unnest($1::text[]) r (name)
                                 union all
                                select p.relid from unnest($1::text[]) r (name), pg_partition_tree(to_regclass(r.name)) p))
 group by s.spcname
 order by s.spcname
