-- The columns that a table has on the master now, and whether it has ever lost one.
--   $1  text  quoted and qualified name
select coalesce(array_agg(a.attname::text order by a.attnum) filter (where not a.attisdropped), '{}') as names,
       coalesce(bool_or(a.attisdropped), false) as lost
  from pg_attribute a
 where a.attrelid = to_regclass($1) and a.attnum > 0
