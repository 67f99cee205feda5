-- The columns that a table has on the master now, and whether a column has ever been dropped.
--   $1  text  quoted and qualified name
select coalesce(array_agg(a.attname::text order by a.attnum) filter (where not a.attisdropped), '{}') as names,
       coalesce(bool_or(a.attisdropped), false) as lost
  from pg_class c
  -- Not with to_regclass, which fails if the role has no USAGE on the schema.
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = (parse_ident($1))[1]::name
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
 where c.relname = (parse_ident($1))[2]::name
