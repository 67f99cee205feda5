-- == Rights ==

-- Installs py_log_grant, gives everything to the owner of the log, revokes the rights of all others, and commits.

-- Grants the role of the daemon what it needs on the master. The owner of the log and superusers need no grants.
create or replace function public.py_log_grant(role name) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_grant$
declare
    schema name;
begin
    for schema in
        select 'public' union select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                               where e.extname = 'hstore'
    loop
        if not has_schema_privilege(role, schema, 'usage') then
            execute format('grant usage on schema %I to %I', schema, role);
        end if;
    end loop;
    execute format('grant select, update, delete on public.replica_log to %I', role);
    execute format('grant select, insert, update on public.replica_slave, public.replica_error, public.replica_purged to %I',
                   role);
    execute format('grant select, insert, delete on public.replica_history to %I', role);
    execute format('grant select on public.replica_log_sql to %I', role);
    execute format('grant select, insert on public.replica_skipped to %I', role);
    execute format('grant usage on sequence public.replica_batch_seq to %I', role);
    execute format('grant execute on function public.py_log_can_wake(text) to %I', role);
    return format('%s may read and mark the log', quote_ident(role));
end
$py_log_grant$;

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
        select format('alter %s %s owner to %s', kind, c.oid::regclass, keeper)
          from (values ('public.py_log_filter', 'table'), ('public.py_log_transform', 'table'),
                       ('public.replica_slave', 'table'), ('public.replica_error', 'table'),
                       ('public.replica_skipped', 'table'), ('public.replica_history', 'table'),
                       ('public.replica_purged', 'table'),
                       ('public.replica_log_sql', 'view'),
                       ('public.replica_batch_seq', 'sequence')) o (name, kind)
          join pg_class c on c.oid = o.name::regclass
         where c.relowner <> keeper
        union all
        select format('alter function %s owner to %s', oid::regprocedure, keeper) from pg_proc
         where (pronamespace = 'public'::regnamespace and starts_with(proname, 'py_log_')
                or pronamespace = 'pyreplica'::regnamespace and proname <> 'python') and proowner <> keeper
        union all
        select format('alter operator pyreplica.%s (none, record) owner to %s', oprname, keeper) from pg_operator
         where oprnamespace = 'pyreplica'::regnamespace and oprowner <> keeper
        union all
        select format('alter schema pyreplica owner to %s', keeper) from pg_namespace
         where nspname = 'pyreplica' and nspowner <> keeper
    loop
        execute statement;
    end loop;
end
$owner$;

-- The slave runs what the log says. So only the owner may write the log, or let the trigger functions write it.
revoke all on public.replica_log, public.replica_slave, public.replica_error, public.replica_skipped, public.replica_history,
    public.replica_purged, public.replica_log_sql from public;
revoke all on public.py_log_filter, public.py_log_transform from public;
revoke all on sequence public.replica_log_id_seq, public.replica_batch_seq from public;
revoke all on function public.py_log_replica(), public.py_log_statement(), public.py_log_can_wake(text),
    pyreplica.exact(record), pyreplica.begin_statement(), pyreplica.end_statement() from public;

commit;
