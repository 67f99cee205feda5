-- == Rights ==

-- Installs py_log_grant, gives everything to the owner of the log, revokes the rights of all others, and commits.

-- An earlier version had this.
drop function if exists public.py_log_grant(name);

-- Grants the role of the daemon what it needs on the master. The owner of the log and superusers need no grants. PostgreSQL
-- prefers text for a literal. If this took a name, a function of somebody else that takes text would be called instead.
create or replace function public.py_log_grant(role text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_grant$
declare
    schema name;
begin
    for schema in
        select 'public' union select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                               where e.extname = 'hstore'
    loop
        if not has_schema_privilege(role::name, schema, 'usage') then
            execute format('grant usage on schema %I to %I', schema, role);
        end if;
    end loop;
    execute format('grant select, delete, update (txid, %s) on public.replica_log to %I', (
        select string_agg(quote_ident(attname), ', ') from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype),
        role);
    execute format('grant select, insert, update on public.replica_slave, public.replica_error, public.replica_purged to %I',
                   role);
    execute format('grant select, insert, update, delete on public.replica_history to %I', role);
    execute format('grant select on public.replica_log_sql, public.replica_replayed to %I', role);
    execute format('grant select, insert on public.replica_skipped to %I', role);
    execute format('grant usage on sequence public.replica_batch_seq to %I', role);
    execute format('grant execute on function public.py_log_can_wake(text), public.py_log_forget() to %I', role);
    return format('%s may read and mark the log', quote_ident(role));
end
$py_log_grant$;

-- Grants a role what "pyreplica status", "doctor" and "compare" read on the master, and nothing that writes. To see what
-- sessions wait for, it should be a member of pg_monitor too.
create or replace function public.py_log_grant_monitor(role text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_grant_monitor$
declare
    relations constant text := 'public.replica_log, public.replica_slave, public.replica_history, public.replica_purged, '
        'public.replica_table, public.replica_error, public.replica_skipped, public.replica_log_sql, public.replica_replayed, '
        'public.py_log_filter, public.py_log_transform';
begin
    execute format('grant select on %s to %I', relations, role);
    return format('%s may read what status, doctor and compare need', quote_ident(role));
end
$py_log_grant_monitor$;

-- Everything belongs to the owner of the log, also what a superuser adds later, because the trigger runs with its
-- owner's rights. Only the function that runs Python stays with the role that created it: nothing limits what Python can
-- do.
do $owner$
declare
    keeper constant regrole := (select relowner from pg_class where oid = 'public.replica_log'::regclass);
    statement text;
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        return;
    end if;
    for statement in
        -- A sequence that numbers the rows of a table follows the table.
        select format('alter %s %s owner to %s', kind, name, keeper) from pyreplica.own()
         where owner <> keeper and field is null and (kind <> 'sequence' or name = 'public.replica_batch_seq')
        union all
        select format('alter operator %s owner to %s', oid::regoperator, keeper) from pg_operator
         where oprnamespace = 'pyreplica'::regnamespace and oprowner <> keeper
    loop
        execute statement;
    end loop;
end
$owner$;

-- The slave runs what the log says, and filters run with the rights of the log's owner. So only the owner may write these
-- tables, or let the trigger functions write them. Whatever the rights come from, ALTER DEFAULT PRIVILEGES or a GRANT ON
-- ALL TABLES: they are taken from everybody. Then the roles get theirs back that had them from py_log_grant: they may
-- execute py_log_can_wake, and may not add to the log. If another role loses something that it had before this script
-- ran, a warning says so. The binary shows the warnings, too, which it finds in the setting pyreplica.told.
do $rights$
declare
    former constant jsonb := current_setting('pyreplica.rights')::jsonb;
    daemon regrole;
    monitor name;
    statement text;
    loss record;
    told jsonb := '[]';
begin
    for statement in
        select distinct format('revoke all on %s %s from %s cascade', o.kind, o.name,
                               case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
          from pyreplica.own() o cross join aclexplode(o.acl) a
         where a.grantee <> o.owner and not (o.open and a.grantee = 0)
           -- A slave has this table too, and its daemon needs it.
           and not (o.name = 'public.replica_skipped' and a.grantee <> 0
                    and coalesce(has_table_privilege(a.grantee, to_regclass('public.replica_progress')::oid, 'update'), false))
    loop
        execute statement;
    end loop;
    -- Default privileges may have taken it.
    grant execute on function pyreplica.by_partition(), pyreplica.flags(public.replica_log), public.py_log_knows(text, oid),
        public.py_log_is_replayed(bigint, xid8, pg_snapshot, pg_snapshot, bigint) to public;
    for daemon in
        select r.oid from pg_roles r
         where exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                        where f.grantee = r.oid and f.name = 'public.py_log_can_wake(text)')
           and not exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                            where f.grantee = r.oid and f.name = 'public.replica_log' and f.privilege ~ '^INSERT')
    loop
        perform public.py_log_grant(rolname::text) from pg_roles where oid = daemon;
        -- On a slave that is a master too, the same table is the daemon's of the slave.
        for statement in
            select format('grant %s on public.replica_skipped to %s', f.privilege, daemon)
              from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
             where f.grantee = daemon and f.name = 'public.replica_skipped'
               and f.privilege in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
        loop
            execute statement;
        end loop;
    end loop;
    -- Only py_log_grant_monitor grants this, and a role that could write does not get it back.
    for monitor in
        select r.rolname from pg_roles r
         where exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                        where f.grantee = r.oid and f.name = 'public.replica_table' and f.privilege = 'SELECT')
           and not exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                            where f.grantee = r.oid and f.name in ('public.replica_table', 'public.replica_log', 'public.py_log_filter')
                              and f.privilege !~ '^SELECT')
    loop
        perform public.py_log_grant_monitor(monitor::text);
    end loop;
    for loss in
        select r.rolname, f.kind, f.name, string_agg(distinct f.privilege, ', ') as privileges
          from jsonb_to_recordset(former) f (kind text, name text, grantee oid, privilege text)
          join pg_roles r on r.oid = f.grantee
         where not exists (select from pyreplica.own() o cross join aclexplode(o.acl) a
                            where o.name = f.name and a.grantee = f.grantee
                              and a.privilege_type || coalesce(' (' || quote_ident(o.field) || ')', '') = f.privilege)
           and f.name not in (select o.name from pyreplica.own() o where o.open)
           -- An earlier version granted the daemon all columns.
           and not (f.name = 'public.replica_log' and f.privilege = 'UPDATE'
                    and has_function_privilege(r.oid, 'public.py_log_can_wake(text)', 'execute'))
         group by r.rolname, f.kind, f.name order by r.rolname, f.name
    loop
        raise warning '% is no longer granted to % on %', loss.privileges, loss.rolname, loss.name
            using hint = format('If it is wanted: GRANT %s ON %s %s TO %I;',
                                loss.privileges, upper(loss.kind), loss.name, loss.rolname);
        told := told || to_jsonb(format('%s is no longer granted to %s on %s. If it is wanted: GRANT %1$s ON %4$s %3$s TO %5$I;',
                               loss.privileges, loss.rolname, loss.name, upper(loss.kind), loss.rolname));
    end loop;
    perform set_config('pyreplica.told', told::text, false);
end
$rights$;

-- Somebody may have made an object of such a name while this script ran, and IF NOT EXISTS and OR REPLACE leave it to him.
do $check$
declare
    stranger record;
begin
    select o.kind, o.name, o.owner::regrole as owner into stranger
      from pyreplica.own() o where o.owner <> all (current_setting('pyreplica.trusted')::oid[]) limit 1;
    if found then
        raise exception 'there is a % % of % now, who is not known to have installed pyreplica', stranger.kind, stranger.name, stranger.owner
            using errcode = 'insufficient_privilege', hint = 'Drop or rename it, and run the script again.';
    end if;
end
$check$;

commit;
