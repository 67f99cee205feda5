-- A table, or view, of one of pyreplica's names whose owner is not known to be allowed that: whoever may create tables in public
-- could have put one there, and what hangs on it would run with the rights of who uses it.
select c.relname::text as name, c.relowner::regrole::text as owner
  from pg_class c
  join pg_roles r on r.oid = c.relowner
 where c.relnamespace = (select oid from pg_namespace where nspname = 'public')
   and c.relname in ('replica_log', 'replica_slave', 'replica_error', 'replica_skipped', 'replica_log_sql', 'replica_log_id_seq',
                     'replica_batch_seq', 'py_log_filter', 'py_log_transform', 'replica_progress', 'replica_hold',
                     'replica_held', 'replica_conflict', 'replica_copy')
   and not r.rolsuper and r.rolname <> current_user
   and c.relowner not in (select datdba from pg_database where datname = current_database() union
                          select nspowner from pg_namespace where nspname = 'public')
   and ((select rolsuper from pg_roles where rolname = current_user) or not pg_has_role(c.relowner, 'usage'))
 limit 1
