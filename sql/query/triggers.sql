-- The triggers of these tables and their partitions that log changes, and whether each is enabled.
--   $1  text[]  names of tables, qualified and quoted
select format('%I.%I', n.nspname, c.relname) as relation, t.tgname::text as trigger, t.tgenabled::text as state
  from unnest($1::text[]) x (name)
 cross join lateral (select to_regclass(x.name)::oid as oid
                      union select relid from pg_partition_tree(to_regclass(x.name))) f
  join pg_class c on c.oid = f.oid
  join pg_namespace n on n.oid = c.relnamespace
  join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
  join pg_proc p on p.oid = t.tgfoid
  join pg_namespace s on s.oid = p.pronamespace
 where t.tgname <> '!replica_fence' and t.tgenabled <> 'A'
   and (s.nspname = 'pyreplica' or s.nspname = 'public' and p.proname in ('py_log_replica', 'py_log_statement'))
 order by 1, 2
