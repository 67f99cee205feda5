-- The sessions on the master that replicate to a slave, or copy to it. Each shows that by an advisory lock, whose number begins
-- with the number of the slave's column in the log and goes on by chance. Anybody may take such a lock, so only the sessions of
-- roles that may write the slave's position count.
--   $1  text  the slave's column
select s.pid, coalesce(a.application_name, '') as application, coalesce(host(a.client_addr), '') as client,
       a.backend_start::timestamptz(0)::text as since, s.replicates, s.copies
  from (select l.pid, bool_or(l.classid = 1887007333) as replicates, bool_or(l.classid = 1887007331) as copies
          from pg_locks l
          join pg_attribute f on f.attrelid = to_regclass('public.replica_log') and f.attname = $1 and f.attnum > 0
         where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid in (1887007333, 1887007331)
           and l.objid::bigint >> 20 = f.attnum
           and l.database = (select oid from pg_database where datname = current_database())
         group by l.pid) s
  join pg_stat_activity a on a.pid = s.pid
 where exists (select from pg_roles r where pg_has_role(a.usesysid, r.oid, 'member')
                 and has_table_privilege(r.oid, to_regclass('public.replica_slave')::oid, 'update'))
 order by s.replicates desc, s.copies desc, s.pid
