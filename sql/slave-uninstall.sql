-- pyreplica, either side: takes away what slave-install.sql, slave-copy.sql and roles-install.sql made, the fence on all tables
-- with it. What is in quarantine, on hold or recorded as a conflict is lost. Stop the daemon first, which would make its tables
-- again. May be run again at any time.
--
--     psql somedb -f slave-uninstall.sql

-- A slave's sessions may be read-only by default.
begin read write;

set local client_min_messages = warning;
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

do $check$
begin
    perform set_config('pyreplica.trusted', array(
        select r.oid from pg_roles r
         where r.rolsuper or r.rolname = current_user
            or r.oid in (select datdba from pg_database where datname = current_database() union
                         select nspowner from pg_namespace where nspname = 'public')
            or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(r.oid, 'usage'))::text, true);
end
$check$;

do $check$
declare
    prepared text;
    stranger record;
begin
    -- Anybody may give such a name to a transaction of his. A daemon's role may write its table.
    select string_agg(gid, ', ') into prepared
      from pg_prepared_xacts
     where database = current_database() and gid like 'pyreplica:%'
       and has_table_privilege(owner, to_regclass('public.replica_progress')::oid, 'update');
    if prepared is not null then
        raise exception 'in-doubt transactions of a replica: %', prepared
            using errcode = 'object_in_use', hint = 'Start pyreplica once more, it settles them; then stop it and uninstall.';
    end if;
    -- What somebody else has put here under one of these names is not pyreplica's.
    select x.name, x.owner::regrole as owner into stranger
      from (select 'table ' || oid::regclass as name, relowner as owner from pg_class
             where relnamespace = 'public'::regnamespace
               and relname in ('replica_progress', 'replica_hold', 'replica_held', 'replica_conflict', 'replica_skipped',
                               'replica_copy', 'replica_copy_schema', 'replica_role')
            union all
            select 'function ' || oid::regprocedure, proowner from pg_proc where oid = to_regprocedure('public.py_log_fence()')) x
     where x.owner <> all (current_setting('pyreplica.trusted')::oid[])
     limit 1;
    if found then
        raise exception 'there is a % of %, who is not known to have installed pyreplica', stranger.name, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = 'Rename it; or, if it is pyreplica''s, give it to the owner of the database.';
    end if;
end
$check$;

-- A database that was fenced has it as a default, if the role that fenced it owns the database.
do $writable$
declare
    is_fenced bool;
begin
    -- Only pyreplica's own, which nobody else can replace: somebody may have made one of that name since the check.
    if exists (select from pg_class c
                where c.relnamespace = 'public'::regnamespace and c.relname = 'replica_role' and c.relkind = 'r'
                  and c.relowner = any (current_setting('pyreplica.trusted')::oid[])) then
        execute 'select exists (select from public.replica_role where role in (''slave'', ''former''))' into is_fenced;
        if is_fenced and (select pg_has_role(datdba, 'usage') from pg_database where datname = current_database()) then
            execute format('alter database %I reset default_transaction_read_only', current_database());
        end if;
    end if;
end
$writable$;

-- With it go the triggers on all tables.
drop function if exists public.py_log_fence() cascade;
drop table if exists public.replica_progress, public.replica_hold, public.replica_held, public.replica_conflict,
    public.replica_skipped, public.replica_copy, public.replica_copy_schema, public.replica_role;

commit;
