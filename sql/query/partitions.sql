-- Tables and all their partitions, each name quoted as pg_dump --table needs it.
--   $1  text[]  quoted and qualified names
select format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""'))
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where c.oid in (select to_regclass(r.name) from unnest($1::text[]) r (name)
                 union all
                 select p.relid from unnest($1::text[]) r (name), pg_partition_tree(to_regclass(r.name)) p)
 order by 1
