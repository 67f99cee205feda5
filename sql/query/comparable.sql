-- Tables as they are on one side, to compare them with the tables of the other side.
--   $1  text[]  quoted and qualified names
select r.name as relation, c.relkind = 'p' as partitioned, a.names, a.base_types, a.full_types, a.generated,
       a.identity_always, a.collations, a.operators, a.nested_domains, a.castable, a.runs_casts, u."unique"
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
  cross join lateral (
      select coalesce(array_agg(a.attname::text order by a.attnum), '{}') as names,
             -- Of a domain the type beneath it: a value that is cast to a domain runs its checks.
             coalesce(array_agg(format_type(b.id, -1) order by a.attnum), '{}') as base_types,
             coalesce(array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum), '{}') as full_types,
             coalesce(array_agg(a.attgenerated <> '' order by a.attnum), '{}') as generated,
             coalesce(array_agg(a.attidentity = 'a' order by a.attnum), '{}') as identity_always,
             -- NULL: the type has no collation. Empty: the collation may treat different texts as equal.
             coalesce(array_agg(case when o.collisdeterministic then format('%I.%I', s.nspname, o.collname)
                                     when o.oid is not null then '' end order by a.attnum), '{}') as collations,
             coalesce(array_agg(b.nested and b.holds_domain order by a.attnum), '{}') as nested_domains,
             -- A text can be cast to the type by nothing but the type's own input function, and that calls no function of users.
             coalesce(array_agg(not (b.nested and b.holds_domain) and not exists (
                          select from pg_cast where castsource = 'text'::regtype and casttarget in (a.atttypid, b.id))
                      order by a.attnum), '{}') as castable,
             -- To cast a text to such a type is to call a function of somebody's.
             coalesce(array_agg(exists (
                          select from pg_cast where castsource = 'text'::regtype and casttarget in (a.atttypid, b.id)
                                                and castmethod = 'f' and castfunc >= 16384)
                      order by a.attnum), '{}') as runs_casts,
             -- The schema of the type's own operators. The queries name it, because another role may have created an
             -- operator or a function that matches better in a schema of the search path. NULL: PostgreSQL's own.
             coalesce(array_agg((select quote_ident(n.nspname)
                                   from pg_opclass k
                                   join pg_amop g on g.amopfamily = k.opcfamily and g.amoplefttype = k.opcintype
                                                 and g.amoprighttype = k.opcintype and g.amopstrategy = 3
                                   join pg_operator o on o.oid = g.amopopr
                                   join pg_namespace n on n.oid = o.oprnamespace
                                  where k.opcintype = b.id and k.opcdefault
                                    and k.opcmethod = (select oid from pg_am where amname = 'btree'))
                                order by a.attnum), '{}') as operators
        from pg_attribute a
        cross join lateral (
            -- The type, what a domain is made of, and what arrays, rows and ranges are made of.
            with recursive parts (id, nested) as (
                select a.atttypid, false
                union
                select x.id, p.nested or t.typtype <> 'd'
                  from parts p
                  join pg_type t on t.oid = p.id
                 cross join lateral (
                     select t.typbasetype union all select t.typelem
                     union all
                     select e.atttypid from pg_attribute e where e.attrelid = t.typrelid and e.attnum > 0 and not e.attisdropped
                     union all
                     select r.rngsubtype from pg_range r
                      where t.typtype in ('r', 'm') and t.oid in (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)) x (id)
                 where x.id <> 0)
            select min(p.id) filter (where not p.nested and t.typtype <> 'd') as id, bool_or(p.nested) as nested,
                   bool_or(p.nested and t.typtype = 'd') as holds_domain
              from parts p join pg_type t on t.oid = p.id) b
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
