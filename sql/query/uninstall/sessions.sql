-- The sessions of pyreplica in this database, other than this one: of roles that may write what a daemon writes. Anybody may call
-- a session so, and the rights tell the daemon's from others.
select a.application_name::text as name, a.usename::text as role
  from pg_stat_activity a
 where a.datname = current_database() and a.pid <> pg_backend_pid() and a.application_name like 'pyreplica %'
   and exists (select from unnest(array[to_regclass('public.replica_slave'), to_regclass('public.replica_progress')]) t (id)
                where has_table_privilege(a.usesysid, t.id, 'update'))
 order by 1
