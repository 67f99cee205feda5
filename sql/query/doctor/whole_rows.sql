-- Large tables of the slave whose rows are found by all their columns, without an index that helps. It should be on the column that
-- tells most rows apart, if ANALYZE has counted and the role may know.
--   $1  text[]  schemas of the tables
--   $2  text[]  their names
select 'note' as level, 'whole rows' as subject,
       format('%s has no key and no index that helps: an UPDATE or DELETE there reads all of its %s rows', r.relation, s.rows) as text,
       case when o.name is not null then array[format('CREATE INDEX ON %s (%I);', r.relation, o.name)] end as fixes,
       'docs/keys.md; nothing is to be done if its rows are only inserted' as advice
  from unnest($1::text[], $2::text[]) w (schema, name)
  join pg_namespace n on n.nspname = w.schema
  join pg_class c on c.relnamespace = n.oid and c.relname = w.name
 cross join lateral (select format('%I.%I', n.nspname, c.relname) as relation) r
 cross join lateral (
     select coalesce(sum(l.reltuples) filter (where l.reltuples > 0), 0)::bigint as rows
       from pg_class l
      where l.relkind = 'r' and l.oid = any (array(select c.oid union select p.relid from pg_partition_tree(c.oid) p))) s
 -- Columns of PostgreSQL's own types that a btree index orders.
 cross join lateral (
     select array_agg(a.attnum) as numbers
       from pg_attribute a join pg_type t on t.oid = a.atttypid and t.typnamespace = 'pg_catalog'::regnamespace
                                          and t.typtype = 'b' and t.typelem = 0
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        and exists (select from pg_opclass k
                     where k.opcintype in (t.oid, case when t.typname = 'varchar' then 'text'::regtype end) and k.opcdefault
                       and k.opcmethod = (select oid from pg_am where amname = 'btree'))) u
  left join lateral (
     select a.attname as name
       from pg_attribute a
       left join pg_stats t on t.schemaname = n.nspname and t.tablename = c.relname and t.attname = a.attname
      where a.attrelid = c.oid and a.attnum = any (u.numbers)
      order by case when t.n_distinct < 0 then -t.n_distinct * s.rows else t.n_distinct end desc nulls last,
               a.attnotnull desc, a.attnum
      limit 1) o on true
 where s.rows >= 10000
   and not exists (select from pg_index i join pg_class x on x.oid = i.indexrelid
                    where i.indrelid = c.oid and i.indisvalid and i.indpred is null and i.indkey[0] = any (u.numbers)
                      and x.relam = (select oid from pg_am where amname = 'btree'))
