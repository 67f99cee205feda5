-- What pyreplica has in this database, and whether it is of somebody who may have installed pyreplica.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public. A log of the Python original that was
-- renamed (replica_log_former) is the operator's.
with x (kind, name, owner) as (
    select case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, 'public.' || quote_ident(c.relname), c.relowner
      from pg_class c
     where c.relnamespace = 'public'::regnamespace and c.relname = any (array['replica_log']) and c.relname <> 'replica_log_former'
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
                          and d.refclassid = 'pg_class'::regclass)
    union all
    select 'function', 'public.' || quote_ident(p.proname), p.proowner
      from pg_proc p
     where p.pronamespace = 'public'::regnamespace
       and p.proname in ('py_log_replica', 'py_log_sql', 'py_log_create_tg', 'py_log_create_tgs', 'py_log_warn_before', 'py_log_key',
                         'py_log_knows', 'py_log_forget', 'py_log_refuse_key', 'py_log_statement', 'py_log_add_slave', 'py_log_remove_slave',
                         'py_log_interleave', 'py_log_grant', 'py_log_grant_monitor', 'py_log_can_wake', 'py_log_is_replayed',
                         'py_log_columns', 'py_log_fence')
    union all
    select 'schema', quote_ident(nspname), nspowner from pg_namespace where nspname = 'pyreplica'
    union all
    select 'event trigger', quote_ident(e.evtname), p.proowner
      from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'pyreplica'
    union all
    -- A partition's copy goes with that of its root.
    select 'trigger', format('%I on %s', t.tgname, t.tgrelid::regclass), p.proowner
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_namespace n on n.oid = p.pronamespace
     where not t.tgisinternal and t.tgparentid = 0
       and (n.nspname = 'pyreplica'
            or n.nspname = 'public' and p.proname in ('py_log_replica', 'py_log_statement', 'py_log_fence') and p.pronargs = 0)
)
select x.kind, x.name::text, r.rolname::text as owner,
       r.rolsuper or r.rolname = current_user
       or r.oid in (select datdba from pg_database where datname = current_database() union
                    select nspowner from pg_namespace where nspname = 'public')
       or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(r.oid, 'usage') as is_trusted
  from x join pg_roles r on r.oid = x.owner
 order by x.kind, x.name
