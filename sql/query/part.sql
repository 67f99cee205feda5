-- Which part of which table a partition is: the tables that it is in, and its bounds in each. NULL if it is no partition.
--   $1  text[]  quoted and qualified names
select r.name as relation, p.ancestors, case when c.relispartition then p.part end as part
  from unnest($1::text[]) r (name)
  -- Not with to_regclass, which fails if the role has no USAGE on the schema.
  join pg_namespace n on n.nspname = (parse_ident(r.name))[1]::name
  join pg_class c on c.relnamespace = n.oid and c.relname = (parse_ident(r.name))[2]::name
 cross join lateral (
      select coalesce(array_agg(a.name order by a.level) filter (where a.level > 1), '{}') as ancestors,
             string_agg(concat_ws(' ', a.name, case when a.level > 1 then pg_get_partkeydef(a.oid) end, a.bounds,
                                  -- A default partition is what the others leave.
                                  case when a.bounds = 'DEFAULT' then a.siblings end), ' in ' order by a.level) as part
        from (select a.oid, x.level, format('%I.%I', s.nspname, a.relname) as name,
                     pg_get_expr(a.relpartbound, a.oid) as bounds,
                     (select string_agg(pg_get_expr(b.relpartbound, b.oid), ', ' order by pg_get_expr(b.relpartbound, b.oid) collate "C")
                        from pg_inherits i
                        join pg_inherits j on j.inhparent = i.inhparent
                        join pg_class b on b.oid = j.inhrelid
                       where i.inhrelid = a.oid) as siblings
                from pg_partition_ancestors(c.oid) with ordinality x (relid, level)
                join pg_class a on a.oid = x.relid
                join pg_namespace s on s.oid = a.relnamespace) a) p
