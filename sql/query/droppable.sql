-- The indexes and constraints of the slave's tables that slow a load down: what drops each, and what makes it again. Left out are
-- those of partitioned tables and partitions, and foreign keys whose check would run a cast or an operator of somebody else (post_data.sql).
--   $1  text[]    quoted and qualified names of the tables that are filled
--   $2  bigint[]  their sizes on the master
with tables as (
    select c.oid, format('%I.%I', n.nspname, c.relname) as name, r.size
      from unnest($1::text[], $2::bigint[]) r (name, size)
      join pg_class c on c.oid = to_regclass(r.name) and c.relkind = 'r' and not c.relispartition
      join pg_namespace n on n.oid = c.relnamespace
), indexes as (
    select t.name as tab, t.size, i.*, n.nspname, c.relname, o.oid as con, o.conname, o.contype,
           -- What DROP takes along without a word.
           concat(case when i.indisclustered then format(e'ALTER TABLE %s CLUSTER ON %I;\n', t.name, c.relname) end,
                  case when i.indisreplident
                       then format(e'ALTER TABLE ONLY %s REPLICA IDENTITY USING INDEX %I;\n', t.name, c.relname) end,
                  (select string_agg(format(e'ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s;\n', n.nspname, c.relname,
                                            a.attnum, a.attstattarget), '' order by a.attnum)
                     from pg_attribute a where a.attrelid = c.oid and a.attstattarget >= 0),
                  (select format(e'COMMENT ON INDEX %I.%I IS %L;\n', n.nspname, c.relname, d.description)
                     from pg_description d where d.classoid = 'pg_class'::regclass and d.objoid = c.oid and d.objsubid = 0),
                  (select format(e'COMMENT ON CONSTRAINT %I ON %s IS %L;\n', o.conname, t.name, d.description)
                     from pg_description d where d.classoid = 'pg_constraint'::regclass and d.objoid = o.oid)) as more,
           coalesce(s.spcname, '') as space
      from pg_index i
      join tables t on t.oid = i.indrelid
      join pg_class c on c.oid = i.indexrelid
      join pg_namespace n on n.oid = c.relnamespace
      left join pg_tablespace s on s.oid = c.reltablespace
      left join pg_constraint o on o.conindid = i.indexrelid and o.conrelid = i.indrelid and o.contype in ('p', 'u', 'x')
     where i.indisvalid
       and not exists (select from pg_depend d
                        where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid and d.deptype in ('e', 'x'))
)
select 'reference' as stage, o.conname::text as name, array[t.name, f.name] as relations, true as alone, t.size,
       format('ALTER TABLE %s DROP CONSTRAINT %I', t.name, o.conname) as dropping,
       concat(format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.name, o.conname, pg_get_constraintdef(o.oid))) as making
  from pg_constraint o
  join tables t on t.oid = o.conrelid
  join tables f on f.oid = o.confrelid
 where o.contype = 'f' and o.conparentid = 0
   and not exists (select from pg_description d where d.classoid = 'pg_constraint'::regclass and d.objoid = o.oid)
   -- Somebody has changed when its triggers fire.
   and not exists (select from pg_trigger g where g.tgconstraint = o.oid and g.tgenabled <> 'O')
   and not exists (select from unnest(o.conkey, o.confkey, o.conpfeqop) k (here, there, operator)
                     join pg_attribute x on x.attrelid = o.conrelid and x.attnum = k.here
                     join pg_attribute y on y.attrelid = o.confrelid and y.attnum = k.there
                    where k.operator >= 16384 or x.atttypid <> y.atttypid and greatest(x.atttypid, y.atttypid) >= 16384)
union all
select 'index', relname::text, array[tab], con is not null or more <> '', size,
       case when con is null then format('DROP INDEX %I.%I', nspname, relname)
            else format('ALTER TABLE %s DROP CONSTRAINT %I', tab, conname) end,
       concat(format(e'SET LOCAL default_tablespace = %L;\n', space),
              case when con is null then pg_get_indexdef(indexrelid)
                   else format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s', tab, conname, pg_get_constraintdef(con)) end, e';\n', more)
  from indexes
 order by stage desc, size desc, name
