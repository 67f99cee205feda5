-- Whether this database says who is the master. A table of that name counts only if its owner is trusted: any role that may create
-- tables in public could have made one, to stop or to mislead a daemon.
select exists (
    select from pg_class c join pg_roles r on r.oid = c.relowner
     where c.relnamespace = (select oid from pg_namespace where nspname = 'public') and c.relname = 'replica_role' and c.relkind = 'r'
       and (r.rolsuper or r.rolname = current_user
            or c.relowner in (select datdba from pg_database where datname = current_database() union
                              select nspowner from pg_namespace where nspname = 'public')
            or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(c.relowner, 'usage')))
