-- The replicated tables that are unlogged on this side.
--   $1  text[]  the schemas of the tables that the master logs
--   $2  text[]  the names of these tables
select 'warning' as level, 'unlogged tables' as subject,
       format('%s is unlogged: a crash of this server empties it, and nothing logs that', x.name) as text,
       array[format('ALTER TABLE %s SET LOGGED;', x.name)] as fixes,
       'after a crash the two sides differ: pyreplica compare, and repair' as advice
  from unnest($1::text[], $2::text[]) r (schema, name)
  join pg_namespace n on n.nspname = r.schema
  join pg_class c on c.relnamespace = n.oid and c.relname = r.name
  join pg_class p on p.relpersistence = 'u' and p.relkind = 'r'
                 and p.oid = any (array(select c.oid union all select relid from pg_partition_tree(c.oid)))
  join pg_namespace s on s.oid = p.relnamespace
 cross join lateral (select format('%I.%I', s.nspname, p.relname) as name) x
 order by x.name
