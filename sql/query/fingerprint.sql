-- A text that changes whenever the definition of a table on the slave changes; `table.sql` reads the definition. Every
-- transaction asks for it, for every table that it writes to.
--   $1  text[]  quoted and qualified names
select r.name as relation, concat_ws(' ', c.oid,
           -- If a column, an index or a constraint changes, its catalog row gets a new xmin.
           array(select a.xmin from pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
           array(select i.indexrelid || '/' || i.xmin from pg_index i
                  where i.indrelid = c.oid order by i.indexrelid),
           array(select o.oid || '/' || o.xmin from pg_constraint o
                  where o.conrelid = c.oid and o.contype in ('p', 'u') order by o.oid),
           -- Triggers and rules that fire in the replica role too, also those of partitions.
           array(select t.oid from pg_trigger t
                  where t.tgrelid = any (p.all) and t.tgenabled in ('A', 'R') and t.tgname !~ '^!replica_' order by t.oid),
           array(select r.oid from pg_rewrite r
                  where r.ev_class = any (p.all) and r.ev_enabled in ('A', 'R') order by r.oid)) as fingerprint
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
  cross join lateral (
      select case c.relkind when 'p' then c.oid || array(select relid::oid from pg_partition_tree(c.oid))
             else array[c.oid] end as "all") p
