-- The tables that were attached as partitions after the trigger of their root was made, and not made as partitions. What they held
-- then is not in the log. "look" is a query that finds a row from before. It looks at the first block only, which is where such rows
-- are; a query of the whole table would take too long.
select format('%I.%I', n.nspname, c.relname) as relation, format('%I.%I', m.nspname, r.relname) as root, r.relname::text as name,
       m.nspname::text as schema, coalesce(pg_relation_size(l.oid), 0) > 0 as has_pages,
       i.xmin::text as attached_by,
       case when has_table_privilege(l.oid, 'select') and has_schema_privilege(l.relnamespace, 'usage') then
           format('select from only %I.%I x where x.ctid = any (array(select format(''(0,%%s)'', g)::tid from generate_series(1, 300) g)) '
                  'and age(x.xmin) > age(''%s''::xid)', k.nspname, l.relname, i.xmin) end as look
  from pg_trigger t
  join pg_proc p on p.oid = t.tgfoid and p.proname = 'by_partition'
  join pg_namespace f on f.oid = p.pronamespace and f.nspname = 'pyreplica'
  join pg_class r on r.oid = t.tgrelid
  join pg_namespace m on m.oid = r.relnamespace
 cross join lateral pg_partition_tree(r.oid) e
  join pg_inherits i on i.inhrelid = e.relid
  join pg_class c on c.oid = e.relid
  join pg_namespace n on n.oid = c.relnamespace
  join pg_type y on y.oid = c.reltype
  join pg_class l on l.relkind = 'r' and l.oid = any (array(select relid::oid from pg_partition_tree(c.oid)))
  join pg_namespace k on k.oid = l.relnamespace
 where t.tgparentid = 0 and t.tgtype & 1 = 1 and i.xmin <> y.xmin and age(i.xmin) < age(t.xmin)
 order by 1
