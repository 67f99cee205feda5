-- A table or view that has one of pyreplica's names, but an owner that pyreplica does not trust. Any role that may create
-- tables in public could have created it. Its triggers and rules would run with the rights of the role that uses it.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select c.relname::text as name, c.relowner::regrole::text as owner
  from pg_class c
  join pg_roles r on r.oid = c.relowner
 where c.relnamespace = (select oid from pg_namespace where nspname = 'public')
   -- A replica_role of a stranger counts for nothing, see ours.sql.
   and c.relname = any (array['replica_log']) and c.relname <> 'replica_role'
   and not r.rolsuper and r.rolname <> current_user
   and c.relowner not in (select datdba from pg_database where datname = current_database() union
                          select nspowner from pg_namespace where nspname = 'public')
   and ((select rolsuper from pg_roles where rolname = current_user) or not pg_has_role(c.relowner, 'usage'))
 limit 1
