-- pyreplica, master side: takes away what master-install.sql and py_log_create_tg made. Changes that no slave has
-- replayed yet are lost. The extension hstore stays, others may use it. May be run again at any time.
--
--     psql somedb -f master-uninstall.sql

-- The sessions of a database that was the master may be read-only by default.
begin read write;

set local client_min_messages = warning;
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

do $check$
declare
    prepared text;
begin
    -- Anybody may give such a name to a transaction of his. A daemon's role may write its table.
    select string_agg(gid, ', ') into prepared
      from pg_prepared_xacts
     where database = current_database() and gid like 'pyreplica:%'
       and has_table_privilege(owner, to_regclass('public.replica_slave')::oid, 'update');
    if prepared is not null then
        raise exception 'in-doubt transactions of a replica: %', prepared
            using errcode = 'object_in_use', hint = 'Start pyreplica once more, it settles them; then stop it and uninstall.';
    end if;
end
$check$;

-- Those of master-install-ddl.sql.
do $drop$
declare
    t name;
begin
    for t in select e.evtname from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_namespace n on n.oid = p.pronamespace
              where n.nspname = 'pyreplica' loop
        execute format('drop event trigger %I', t);
    end loop;
end
$drop$;

-- With it go the triggers on all tables.
drop function if exists public.py_log_replica() cascade;
drop view if exists public.replica_log_sql, public.replica_replayed, pyreplica.turn;
do $drop$
begin
    if to_regclass('public.replica_log') is not null then
        drop function if exists public.py_log_sql(public.replica_log), pyreplica.flags(public.replica_log);
    end if;
end
$drop$;
drop table if exists public.replica_log, public.replica_slave, public.replica_error, public.replica_skipped,
    public.replica_history, public.replica_purged, public.replica_table, public.py_log_filter, public.py_log_transform, public.py_log_ddl,
    public.py_log_ddl_setting, public.py_log_ddl_table, public.py_log_ddl_absent, public.py_log_ddl_script;
drop sequence if exists public.replica_batch_seq;
drop function if exists public.py_log_create_tg(text), public.py_log_create_tg(text, text),
    public.py_log_create_tg(text, text, text), public.py_log_create_tg(regclass, text, text),
    public.py_log_create_tgs(text, text, name[]), public.py_log_create_tgs(text, text),
    public.py_log_create_tg(regclass, text), public.py_log_warn_before(regclass, text), public.py_log_warn_before(regclass),
     public.py_log_key(regclass), public.py_log_knows(text, oid), public.py_log_forget(), public.py_log_refuse_key(regclass, text[], text[]), public.py_log_statement(), public.py_log_add_slave(text),
    public.py_log_remove_slave(text), public.py_log_interleave(regclass, int, int),
    public.py_log_interleave(text, int, int), public.py_log_grant(name), public.py_log_grant(text), public.py_log_grant_monitor(text), public.py_log_can_wake(text),
    public.py_log_is_replayed(bigint, xid8, pg_snapshot, pg_snapshot, bigint);
do $drop$
declare
    f regprocedure;
begin
    for f in select p.oid from pg_proc p join pg_type t on t.oid = p.proargtypes[1] and t.typname = 'hstore'
              where p.pronamespace = 'public'::regnamespace and p.proname = 'py_log_columns' and p.pronargs = 2
                and p.proargtypes[0] = 'text'::regtype loop
        execute format('drop function %s', f);
    end loop;
end
$drop$;

do $drop$
declare
    f regprocedure;
    o regoperator;
begin
    for f in select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
              where n.nspname = 'pyreplica' and pg_has_role(n.nspowner, 'usage')
                and (p.proname like 'ddl\_%' or p.proname in ('begin_statement', 'end_statement', 'exact', 'small', 'shortened', 'tables',
                                  'check_types', 'is_trusted', 'register', 'parts_of', 'check_expression',
                                  'check_filter', 'check_transform', 'complain', 'evaluation', 'conditions',
                                  'replacements', 'apply', 'changed', 'special', 'admit', 'send', 'send_exact', 'python',
                                  'asleep', 'asleep_body', 'apply_slaves', 'own',
                                  'by_partition', 'is_shadowed', 'is_by_name', 'has_names', 'logged_name',
                                  'logged_key', 'computed', 'is_second')) loop
        execute format('drop function %s cascade', f);
    end loop;
    for o in select x.oid from pg_operator x join pg_namespace n on n.oid = x.oprnamespace
              where n.nspname = 'pyreplica' and pg_has_role(n.nspowner, 'usage')
                and x.oprname in ('%%', '->', '?', '||', '-', '&', '~>', '=', '@>', '@', '#') loop
        execute format('drop operator %s', o);
    end loop;
end
$drop$;
-- Somebody else's schema of that name is not empty, or not ours to drop: installing had refused it.
drop schema if exists pyreplica;

commit;
