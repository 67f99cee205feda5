-- The unlogged tables. If the server had crashed before it was started, they are empty. A partition is listed as its root. Whether
-- pyreplica's trigger is on the table is known on the master only.
select distinct format('%I.%I', n.nspname, r.relname) as relation,
       exists (select from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_namespace f on f.oid = p.pronamespace
                where t.tgrelid = c.oid and t.tgtype & 1 = 1 and t.tgenabled <> 'D'
                  and (f.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition'))) as captured,
       pg_postmaster_start_time()::timestamptz(0)::text as started
  from pg_class c
  join pg_class r on r.oid = coalesce(pg_partition_root(c.oid), c.oid)
  join pg_namespace n on n.oid = r.relnamespace
 where c.relpersistence = 'u' and c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
 order by 1
