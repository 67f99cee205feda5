-- The oid of one of pyreplica's tables; null if there is none. A table of that name counts only if its owner is trusted: any role that
-- may create tables in public could have made one, or a view, whose functions would run with the rights of the role that reads it.
-- Nobody else can put something in the place of a table that counts.
(select c.oid from pg_class c join pg_roles r on r.oid = c.relowner
  where c.relnamespace = (select oid from pg_namespace where nspname = 'public') and c.relname = 'replica_log' and c.relkind = 'r'
    and (r.rolsuper or r.rolname = current_user
         or c.relowner in (select datdba from pg_database where datname = current_database() union
                           select nspowner from pg_namespace where nspname = 'public')
         or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(c.relowner, 'usage')))
