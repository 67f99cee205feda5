-- The tables with some of pyreplica's names that there are, and whose they are. One of an owner who may not have installed pyreplica
-- must not be used: any role that may create tables in public could have made it, or a view, and its functions would run with
-- the rights of the role that reads it. Nobody else can put something in the place of a table that is trusted.
--   $1  name[]  the names
select c.relname::text as name, c.relowner::regrole::text as owner, c.relkind = 'r' as is_table,
       coalesce(has_table_privilege(c.oid, 'select'), false) as is_readable,
       r.rolsuper or r.rolname = current_user
       or c.relowner in (select datdba from pg_database where datname = current_database() union
                         select nspowner from pg_namespace where nspname = 'public')
       or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(c.relowner, 'usage') as is_trusted
  from pg_class c
  join pg_roles r on r.oid = c.relowner
 where c.relname = any ($1) and c.relnamespace = (select oid from pg_namespace where nspname = 'public')
