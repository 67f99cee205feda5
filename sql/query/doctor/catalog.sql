-- Every table that could be replicated, as it is on one side. Partitions are left out, because their root is listed; so are
-- pyreplica's own tables. The key is the primary key, or the index of the REPLICA IDENTITY.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select n.nspname::text as schema, c.relname::text as name, format('%I.%I', n.nspname, c.relname) as relation,
       k.names as key, u.names as candidate, u.index as candidate_index, a.names, a.types, a.plain, a.notnull, a.generated,
       a.expressions, a.identity, a.filled, a.loose, q.sets as "unique",
       coalesce(g.logged, false) as logged, coalesce(g.by_hand, false) as by_hand, c.relreplident = 'f' as full_row
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (
      select array_agg(a.attname::text order by a.attnum) as names,
             array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum) as types,
             -- Without schema: the type of an extension may be in another schema on the other side.
             array_agg(y.typname || ' ' || a.atttypmod order by a.attnum) as plain,
             array_agg(a.attnotnull order by a.attnum) as notnull,
             array_agg(a.attgenerated <> '' order by a.attnum) as generated,
             array_agg(case when a.attgenerated <> '' then pg_get_expr(d.adbin, d.adrelid) end order by a.attnum) as expressions,
             array_agg(a.attidentity::text order by a.attnum) as identity,
             array_agg(d.oid is not null or a.attidentity <> '' order by a.attnum) as filled,
             -- The collation treats some different texts as equal.
             array_agg(coalesce(not l.collisdeterministic, false) order by a.attnum) as loose
        from pg_attribute a
        join pg_type y on y.oid = a.atttypid
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        left join pg_collation l on l.oid = a.attcollation
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) a
  left join lateral (
      select array_agg(a.attname::text order by k.n) as names
        from (select i.indrelid, i.indkey, i.indnkeyatts from pg_index i
               where i.indrelid = c.oid and (i.indisprimary or i.indisreplident)
               order by i.indisprimary desc limit 1) i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts) k on true
  left join lateral (
      -- The columns of each unique index.
      select array_agg(u.names) as sets
        from (select string_agg(a.attname, e'\x01' order by a.attname) as names
                from pg_index i
                cross join unnest(i.indkey) with ordinality k (attnum, n)
                join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
               where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
               group by i.indexrelid) u) q on true
  left join lateral (
      select true as logged, bool_or(t.tgname <> '!replica_tg' and n.nspname = 'public' and t.tgnargs > 1) as by_hand
        from pg_trigger t
        join pg_proc p on p.oid = t.tgfoid
        join pg_namespace n on n.oid = p.pronamespace
         and (n.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition'))
       where t.tgrelid = c.oid and t.tgtype & 1 = 1
      having count(*) > 0) g on true
  left join lateral (
      -- Columns that could be the primary key, and their index.
      select array_agg(a.attname::text order by k.n) as names, quote_ident((select x.relname from pg_class x where x.oid = i.indexrelid)) as index
        from pg_index i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
       where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null
         and i.indexprs is null
       group by i.indexrelid
      having bool_and(a.attnotnull)
       order by i.indexrelid limit 1) u on true
 where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   and (n.nspname <> 'public' or c.relname <> all (array['replica_log']))
   and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e')
 order by n.nspname, c.relname
