-- Tables as they are on one side, to compare them with the tables of the other side.
--   $1  text[]  quoted and qualified names
select r.name as relation, c.relkind = 'p' as partitioned, a.names, a.base_types, a.full_types, a.generated,
       a.identity_always, a.collations, a.schemas, u."unique"
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
  cross join lateral (
      select coalesce(array_agg(a.attname::text order by a.attnum), '{}') as names,
             coalesce(array_agg(format_type(a.atttypid, -1) order by a.attnum), '{}') as base_types,
             coalesce(array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum), '{}') as full_types,
             coalesce(array_agg(a.attgenerated <> '' order by a.attnum), '{}') as generated,
             coalesce(array_agg(a.attidentity = 'a' order by a.attnum), '{}') as identity_always,
             -- NULL: the type has no collation. Empty: the collation may treat different texts as equal.
             coalesce(array_agg(case when o.collisdeterministic then format('%I.%I', s.nspname, o.collname)
                                     when o.oid is not null then '' end order by a.attnum), '{}') as collations,
             -- The schema that has the type's operators. Enumerations, ranges, rows and arrays use PostgreSQL's own.
             coalesce(array_agg(case when b.typtype in ('c', 'e', 'm', 'r') or b.typcategory = 'A' then 'pg_catalog'
                                     else n.nspname::text end order by a.attnum), '{}') as schemas
        from pg_attribute a
        join pg_type y on y.oid = a.atttypid
        join pg_type b on b.oid = case when y.typtype = 'd' then y.typbasetype else y.oid end
        join pg_namespace n on n.oid = b.typnamespace
        left join pg_collation o on o.oid = a.attcollation
        left join pg_namespace s on s.oid = o.collnamespace
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) a
  left join lateral (
      -- The columns of each unique index, separated by a byte that should be in no name.
      select array_agg(x.names) as "unique"
        from (select string_agg(a.attname, e'\x01' order by k.n) as names
                from pg_index i
                cross join unnest(i.indkey) with ordinality k (attnum, n)
                join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
               where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
               group by i.indexrelid
              having bool_and(a.attnotnull)) x) u on true
