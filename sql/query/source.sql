-- What a copy needs to know about tables on the master. Types have their oid too: built-in types have the same oid everywhere.
--   $1  text[]  quoted and qualified names
select r.name as relation, greatest(t.rows, 0)::bigint as rows, t.bytes, a.names,
       -- Of the table itself, if its rows can be read by ranges of their place: from PostgreSQL 14 on.
       case when c.relkind = 'r' and current_setting('server_version_num')::int >= 140000
            then pg_relation_size(c.oid) / current_setting('block_size')::int else 0 end as pages, a.type_oids, a.modifiers,
       a.plain, a.generated,
       -- Whether there are filters and transforms, and which columns are not sent at all.
       exists (select from public.py_log_filter f where f.event = 'INSERT' and f.relname in (c.relname, r.name)) as filtered,
       exists (select from public.py_log_transform f where f.relname in (c.relname, r.name)) as transformed,
       array(select f.field from public.py_log_transform f
              where f.expression is null and f.relname in (c.relname, r.name)) as withheld
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name)
  cross join lateral (
      select sum(p.reltuples) as rows, coalesce(sum(pg_table_size(p.oid)), 0)::bigint as bytes
        from pg_class p
       where p.oid = any (array(select c.oid union all select relid from pg_partition_tree(c.oid) where isleaf))) t
  cross join lateral (
      select coalesce(array_agg(a.attname::text order by a.attnum), '{}') as names,
             coalesce(array_agg(a.atttypid::bigint order by a.attnum), '{}') as type_oids,
             coalesce(array_agg(a.atttypmod order by a.attnum), '{}') as modifiers,
             -- The binary form of these types is the same in all versions, and contains no oid that may differ elsewhere.
             coalesce(array_agg(e.typnamespace = 'pg_catalog'::regnamespace and e.typname in (
                 'bool', 'char', 'name', 'int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'text', 'varchar', 'bpchar',
                 'bytea', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'uuid', 'json', 'jsonb', 'inet',
                 'cidr', 'macaddr', 'macaddr8', 'bit', 'varbit', 'point') order by a.attnum), '{}') as plain,
             coalesce(array_agg(a.attgenerated <> '' order by a.attnum), '{}') as generated
        from pg_attribute a
        join pg_type y on y.oid = a.atttypid
        join pg_type e on e.oid = case when y.typcategory = 'A' and y.typelem <> 0 then y.typelem else y.oid end
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) a
 order by t.bytes desc, r.name
