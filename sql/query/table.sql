-- Tables as they are on the slave now: everything that the daemon needs to make statements for them.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public: nothing is replayed there.
--   $1  text[]  quoted and qualified names
select r.name as relation, c.oid, n.nspname::text as schema, c.relname::text as name, c.relkind = 'p' as partitioned,
       a.names, a.base_types, a.full_types, a.operators, a.array_types, a.generated, a.identity_always, a.plain, a.brief, k.names as key,
       c.relispartition as partition,
       d.deferrable, q."unique", y.indexed, coalesce(a.castable, false) and not w.watched as setwise, b.by_name
  from unnest($1::text[]) r (name)
  join pg_class c on c.oid = to_regclass(r.name) and c.relkind in ('r', 'p')
  join pg_namespace n on n.oid = c.relnamespace and n.nspname <> 'pyreplica'
                     and not (n.nspname = 'public' and c.relname = any (array['replica_log']))
  cross join lateral (
      select array_agg(a.attname::text order by a.attnum) as names,
             -- For a domain, the type that it is made of: an old value may violate a check that is NOT VALID. What is written
             -- is checked by the assignment.
             array_agg(format_type(b.oid, -1) order by a.attnum) as base_types,
             array_agg(format_type(b.oid, d.typmod) order by a.attnum) as full_types,
             array_agg(case when s.simple then format_type(b.typarray, -1) end order by a.attnum) as array_types,
             -- Values of the other types are cast from text. That must use the type's input function, not a user's cast.
             bool_and(s.simple or not exists (select from pg_cast where castsource = 'text'::regtype
                                                 and casttarget in (a.atttypid, b.oid))) as castable,
             -- The schema of the type's own operators. The statements name it, because another role may have created an
             -- operator for this type in a schema of the search path. NULL: the type has no operator that a btree index uses.
             array_agg(case when b.typnamespace = 'pg_catalog'::regnamespace or b.typtype in ('c', 'e', 'm', 'r')
                                 or b.typcategory = 'A' and b.typelem <> 0 and b.typlen = -1 then 'pg_catalog'
                            else (select quote_ident(n.nspname) from pg_opclass k
                                    join pg_amop g on g.amopfamily = k.opcfamily and g.amoplefttype = k.opcintype
                                                  and g.amoprighttype = k.opcintype and g.amopstrategy = 3
                                    join pg_operator o on o.oid = g.amopopr and o.oprname = '='
                                    join pg_namespace n on n.oid = o.oprnamespace
                                   where k.opcintype = b.oid and k.opcdefault
                                     and k.opcmethod = (select oid from pg_am where amname = 'btree')) end
                       order by a.attnum) as operators,
             -- PostgreSQL's own types whose equal texts are equal values; and those of them whose values are always short.
             array_agg(s.plain order by a.attnum) as plain, array_agg(s.plain and (b.typlen > 0 or b.typname = 'numeric') order by a.attnum) as brief,
             array_agg(a.attgenerated <> '' order by a.attnum) as generated,
             array_agg(a.attidentity = 'a' order by a.attnum) as identity_always
        from pg_attribute a
        cross join lateral (
            with recursive made_of (id, typmod, domain) as (
                select y.oid, a.atttypmod, y.typtype = 'd' from pg_type y where y.oid = a.atttypid
                union all
                select y.typbasetype, y.typtypmod, b.typtype = 'd'
                  from made_of m join pg_type y on y.oid = m.id join pg_type b on b.oid = y.typbasetype
                 where m.domain)
            select id, typmod from made_of where not domain) d
        join pg_type b on b.oid = d.id
        -- These types are not simple: arrays and rows, because unnest takes them apart, and types whose arrays have another
        -- separator than a comma.
        cross join lateral (
            select b.typarray <> 0 and b.typdelim = ',' and (b.typelem = 0 or b.typlen <> -1) and b.typcategory <> 'C'
                       as simple,
                   b.typnamespace = 'pg_catalog'::regnamespace and b.typtype = 'b' and b.typelem = 0 and b.typname !~ '^reg'
                       and exists (select from pg_opclass k where k.opcintype in (b.oid, case when b.typname = 'varchar' then 'text'::regtype end)
                                      and k.opcdefault and k.opcmethod = (select oid from pg_am where amname = 'btree')
                                      and k.opcnamespace = 'pg_catalog'::regnamespace) as plain) s
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) a
  left join lateral (
      select array_agg(a.attname::text order by k.n) as names
        from pg_index i
        cross join unnest(i.indkey) with ordinality k (attnum, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
       where i.indrelid = c.oid and i.indisprimary) k on true
  left join lateral (
      -- The columns of each deferrable unique constraint, separated by a byte that should be in no name.
      select array_agg(u.names) as deferrable
        from (select string_agg(a.attname, e'\x01' order by a.attnum) as names
                from pg_constraint o
                join pg_attribute a on a.attrelid = o.conrelid and a.attnum = any (o.conkey)
               where o.conrelid = c.oid and o.contype in ('p', 'u') and o.condeferrable
               group by o.oid) u) d on true
  left join lateral (
      -- The columns of each unique index that is not deferrable.
      select array_agg(u.names) as "unique"
        from (select string_agg(a.attname, e'\x01' order by k.n) as names
                from pg_index i
                cross join unnest(i.indkey) with ordinality k (attnum, n)
                join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
               where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                 and i.indpred is null and i.indexprs is null
               group by i.indexrelid) u) q on true
  cross join lateral (
      -- The first columns of its indexes.
      select array(select distinct a.attname::text from pg_index i
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                     join pg_class x on x.oid = i.indexrelid and x.relam = (select oid from pg_am where amname = 'btree')
                    where i.indrelid = c.oid and i.indisvalid and i.indpred is null order by 1) as indexed) y
  cross join lateral (
      -- Whether the table has triggers or rules, other than those that log, that fire in the replica role too.
      select exists (select from pg_trigger t where t.tgrelid = any (p.all) and t.tgenabled in ('A', 'R')
                                                and t.tgname !~ '^!replica_')
             or exists (select from pg_rewrite r where r.ev_class = any (p.all) and r.ev_enabled in ('A', 'R'))
                 as watched
        from (select c.oid || array(select relid::oid from pg_partition_tree(c.oid)) as "all") p) w
  cross join lateral (
      -- Whether it has a column whose text is read by the search_path: regclass and the like, or what is made of them.
      with recursive parts (id) as (
          select a.atttypid from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          union
          select x.id from parts p
            join pg_type t on t.oid = p.id and (p.id >= 16384 or t.typelem <> 0)
           cross join lateral (
               select t.typbasetype union all select t.typelem
               union all
               select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
               union all
               select r.rngsubtype from pg_range r
                where t.typtype in ('r', 'm') and t.oid in (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)) x (id)
           where x.id <> 0)
      select exists (select from parts
                      where id = any ('{regclass,regproc,regprocedure,regoper,regoperator,regtype,regconfig,regdictionary,
                                        regcollation}'::regtype[]::oid[])) as by_name) b
