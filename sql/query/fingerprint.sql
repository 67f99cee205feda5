-- A text that changes whenever the definition of a table on the slave changes; `table.sql` reads the definition. Every
-- transaction asks for it, for every table that it writes to.
--   $1  text[]  quoted and qualified names
select r.name as relation, concat_ws(' ', c.oid,
           -- If a column, an index or a constraint changes, its catalog row gets a new xmin.
           (select string_agg(a.xmin::text, ' ' order by a.attnum) from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
           (select string_agg(i.indexrelid || '/' || i.xmin, ' ' order by i.indexrelid) from pg_index i
             where i.indrelid = c.oid),
           (select string_agg(o.oid || '/' || o.xmin, ' ' order by o.oid) from pg_constraint o
             where o.conrelid = c.oid and o.contype in ('p', 'u')),
           -- Triggers and rules that fire in the replica role too, also those of partitions.
           (select string_agg(t.oid::text, ' ' order by t.oid) from pg_trigger t
             where t.tgrelid = any (p.all) and t.tgenabled in ('A', 'R') and t.tgname !~ '^!replica_'),
           (select string_agg(r.oid::text, ' ' order by r.oid) from pg_rewrite r
             where r.ev_class = any (p.all) and r.ev_enabled in ('A', 'R'))) as fingerprint
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
  cross join lateral (select c.oid || array(select relid::oid from pg_partition_tree(c.oid)) as "all") p
