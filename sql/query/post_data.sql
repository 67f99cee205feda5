-- The indexes and constraints of the application's tables, which pg_dump makes after the rows: catalog and oid of each, as a script of
-- pg_restore names them.
--   $1  text[]  quoted and qualified names of the tables that a copy fills
with filled as (
    -- What filters let through may refer to rows that they do not.
    select c.oid from unnest($1::text[]) r (name) join pg_class c on c.oid = to_regclass(r.name)
     where not exists (select from public.py_log_filter f where f.event = 'INSERT' and f.relname in (c.relname, r.name))
       and not exists (select from public.py_log_transform f where f.relname in (c.relname, r.name))
), tables as (
    select c.oid, format('%I.%I', n.nspname, c.relname) as name, coalesce(pg_partition_root(c.oid)::oid, c.oid) as root,
           pg_relation_size(c.oid) as size
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p')
)
select 'pg_class'::regclass::oid as catalog, i.indexrelid as oid, 'i' as kind, c.relname::text as name, array[t.name] as relations,
       -- Its own size says best how long it takes to make.
       t.root, pg_relation_size(i.indexrelid) as size, false as early
  from pg_index i
  join pg_class c on c.oid = i.indexrelid
  join tables t on t.oid = i.indrelid
union all
-- A foreign key is checked with the rights of the role that creates it. If its columns are of PostgreSQL's own types, or of one
-- type that is compared by an operator of PostgreSQL's own, no cast and no operator of others runs. All others are created while
-- the tables are empty, and so are those of tables that are not filled: see "early".
select 'pg_constraint'::regclass::oid, o.oid, o.contype::text, o.conname::text,
       case when f.oid is null then array[t.name] else array[t.name, f.name] end, coalesce(f.root, t.root),
       case when f.oid is null then pg_relation_size(o.conindid) else t.size end,
       o.contype = 'f' and (t.root not in (select oid from filled) or f.root not in (select oid from filled)
           or exists (select from unnest(o.conkey, o.confkey, o.conpfeqop) k (here, there, operator)
                        join pg_attribute x on x.attrelid = o.conrelid and x.attnum = k.here
                        join pg_attribute y on y.attrelid = o.confrelid and y.attnum = k.there
                       where k.operator >= 16384 or x.atttypid <> y.atttypid and greatest(x.atttypid, y.atttypid) >= 16384))
  from pg_constraint o
  join tables t on t.oid = o.conrelid
  left join tables f on f.oid = o.confrelid
 where o.contype in ('p', 'u', 'x', 'f')
