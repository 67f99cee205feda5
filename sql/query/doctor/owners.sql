-- Whose pyreplica's own objects are, and who else has rights on them, on either side. What stands in these tables is replayed,
-- or decides what is; their owner decides what runs when somebody writes to them.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
with log as (
    select c.relowner as owner from pg_class c
     where c.relnamespace = (select oid from pg_namespace where nspname = 'public') and c.relname = 'replica_log'
), objects as (
    select case when c.relkind = 'S' then 'sequence' when c.relkind in ('r', 'p') then 'table' when c.relkind = 'v' then 'view'
                else 'relation' end as kind,
           format('%I.%I', n.nspname, c.relname) as name, c.relname, c.relowner as owner, c.relacl as acl, null::name as field,
           c.relname in ('replica_log', 'replica_slave', 'replica_history', 'replica_purged', 'replica_table', 'replica_error',
                         'replica_log_sql', 'replica_replayed', 'replica_batch_seq', 'py_log_filter', 'py_log_transform') as of_log
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relname = any (array['replica_log']) and c.relname <> 'replica_log_former'
    union all
    select 'table', format('%I.%I', n.nspname, c.relname), c.relname, c.relowner, a.attacl, a.attname, false
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attacl is not null
     where n.nspname = 'public' and c.relname = any (array['replica_log']) and c.relname <> 'replica_log_former'
    union all
    -- Everybody may call those that run with the rights of their caller, or whose schema is closed.
    select 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proname,
           p.proowner,
           case when p.prosecdef and n.nspname = 'public' and p.proname <> 'py_log_knows' then coalesce(p.proacl, acldefault('f', p.proowner)) end, null, true
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'pyreplica' and p.proname <> 'python'
        or n.nspname = 'public'
           and p.proname in ('py_log_replica', 'py_log_statement', 'py_log_can_wake', 'py_log_sql', 'py_log_columns',
                             'py_log_key', 'py_log_create_tg', 'py_log_create_tgs', 'py_log_warn_before',
                             'py_log_refuse_key', 'py_log_add_slave', 'py_log_remove_slave', 'py_log_interleave',
                             'py_log_grant', 'py_log_grant_monitor', 'py_log_is_replayed', 'py_log_knows', 'py_log_forget')
    union all
    select 'schema', n.nspname::text, n.nspname, n.nspowner, n.nspacl, null, true from pg_namespace n where n.nspname = 'pyreplica'
), trusted as (
    select r.oid from pg_roles r
     where r.rolsuper or r.rolname = current_user or r.oid in (select owner from log)
        or r.oid in (select datdba from pg_database where datname = current_database() union
                     select nspowner from pg_namespace where nspname = 'public')
), rights as (
    select o.kind, o.name, o.relname, o.field, a.grantee, coalesce(r.rolname::text, 'PUBLIC') as role,
           coalesce(quote_ident(r.rolname), 'PUBLIC') as quoted,
           a.privilege_type || coalesce(' (' || quote_ident(o.field) || ')', '') as privilege, a.privilege_type = 'SELECT' as reads
      from objects o
     cross join aclexplode(o.acl) a
      left join pg_roles r on r.oid = a.grantee
     where a.grantee <> o.owner and not coalesce(r.rolsuper or r.rolname = current_user, false)
), daemons as (
    -- Those who have their rights from py_log_grant.
    select w.grantee from rights w
     where w.grantee <> 0 and w.relname = 'py_log_can_wake'
       and not exists (select from rights i where i.grantee = w.grantee and i.relname = 'replica_log' and i.privilege ~ '^INSERT')
), monitors as (
    -- Those who have theirs from py_log_grant_monitor.
    select w.grantee from rights w where w.grantee <> 0 and w.relname = 'replica_table' and w.privilege = 'SELECT'
)
select 'failure' as level, 'owners' as subject,
       format('the %s %s belongs to %s, who is not known to have installed pyreplica', o.kind, o.name, r.rolname) as text,
       null::text[] as fixes,
       format('the role that owns it decides what it does. Drop it, and run the script again that makes it; if it is what it should '
              'be: ALTER %s %s OWNER TO ..., the owner of the database', upper(o.kind), o.name) as advice
  from objects o join pg_roles r on r.oid = o.owner
 where o.field is null and o.owner not in (select oid from trusted)
union all
select 'failure', 'owners', format('the trigger %I on %s calls a function of %s', t.tgname, o.name, r.rolname),
       array[format('DROP TRIGGER %I ON %s;', t.tgname, o.name)],
       'what it does it does with the rights of who writes to the table'
  from objects o
  join pg_class c on c.relname = o.relname and c.relnamespace = (select oid from pg_namespace where nspname = 'public')
  join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
  join pg_proc p on p.oid = t.tgfoid and p.proowner not in (select oid from trusted)
  join pg_roles r on r.oid = p.proowner
 where o.kind = 'table' and o.field is null
union all
select 'warning', 'owners', format('the %s %s belongs to %s, and the log to another role', o.kind, o.name, r.rolname),
       array[format('ALTER %s %s OWNER TO %I;', upper(o.kind), o.name, k.rolname)], 'as a superuser'
  from objects o
  join pg_roles r on r.oid = o.owner
 cross join log
  join pg_roles k on k.oid = log.owner
 where o.field is null and o.of_log and o.owner <> log.owner and o.owner in (select oid from trusted)
union all
select case when w.reads then 'note' when w.relname in ('replica_progress', 'replica_hold', 'replica_held', 'replica_conflict',
                                                        'replica_skipped', 'replica_copy') then 'warning' else 'failure' end,
       'grants',
       format('%s may %s %s', w.role, case when w.reads then 'read' else 'use or write' end, string_agg(distinct w.name, ', ')),
       array_agg(distinct format('REVOKE %s ON %s %s FROM %s;', w.privilege,
                                 upper(case w.kind when 'view' then 'table' else w.kind end), w.name,
                                 w.quoted)),
       case when w.reads then 'unless it is meant to'
            else 'unless it is another daemon''s: what is written there is replayed, or decides what is' end
  from rights w
 where not (w.reads and (w.grantee in (select grantee from monitors) or w.relname = 'replica_role'))
   and not (w.grantee in (select grantee from daemons)
            and (w.relname in ('replica_slave', 'replica_history', 'replica_purged', 'replica_error', 'replica_skipped',
                               'replica_log_sql', 'replica_replayed', 'replica_batch_seq', 'py_log_can_wake', 'py_log_forget')
                 or w.relname = 'replica_log' and (
                        w.privilege in ('SELECT', 'DELETE')
                        or w.privilege like 'UPDATE (%' and exists (
                            select from pg_attribute a
                             where a.attrelid = to_regclass('public.replica_log') and a.attname = w.field
                               and (a.attname = 'txid' or a.atttypid = 'boolean'::regtype)))))
 group by 1, w.role, w.reads
 order by 2, 3
