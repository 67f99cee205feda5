-- The session that holds the slave's lock on the master: that of the daemon or of an initial copy. If neither runs, the query
-- returns no row.
--   $1  text  the slave's column
select l.pid, coalesce(a.application_name, '') as application, coalesce(host(a.client_addr), '') as client,
       a.backend_start::timestamptz(0)::text as since,
       exists (select from pg_locks c
                where c.locktype = 'advisory' and c.granted and c.classid = 1887007331 and c.objsubid = 2
                  and c.objid = l.objid and c.database = l.database and c.pid = l.pid) as copies
  from pg_locks l
  left join pg_stat_activity a using (pid)
 where l.locktype = 'advisory' and l.granted and l.classid = 1887007333 and l.objsubid = 2
   and l.objid = (hashtext($1)::bigint & 4294967295)::oid
   and l.database = (select oid from pg_database where datname = current_database())
