-- pyreplica, either side: who is the master, and the fence that keeps writers off a database that is not.
--
--     psql somedb -f roles-install.sql
--
-- The verbs switchover, failover and protect run this by themselves. May be run again at any time. It changes nothing until
-- one of them puts up the fence: the trigger !replica_fence on each replicated table.
--
-- slave-uninstall.sql takes it away.

-- A slave's sessions are read-only by default.
begin read write;

set local client_min_messages = warning;
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

-- The function runs in the sessions of all who write to replicated tables, and the daemon believes the table. So what somebody
-- else may have put here is not taken over. Superusers are trusted, the owners of the database and of the schema public, the
-- role that runs this, and, if that is no superuser, the roles that it is a member of.
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
    stranger record;
begin
    select x.name, x.owner::regrole as owner into stranger
      from (select 'table ' || oid::regclass as name, relowner as owner from pg_class
             where relnamespace = 'public'::regnamespace and relname = 'replica_role'
            union all
            select 'type ' || oid::regtype, typowner from pg_type
             where typnamespace = 'public'::regnamespace and typname = 'replica_role'
            union all
            select 'function ' || oid::regprocedure, proowner from pg_proc where oid = to_regprocedure('public.py_log_fence()')
            union all
            select format('trigger %I on %s', t.tgname, t.tgrelid::regclass), p.proowner
              from pg_trigger t join pg_proc p on p.oid = t.tgfoid
             where t.tgrelid = to_regclass('public.replica_role') and not t.tgisinternal) x
     where x.owner <> all (current_setting('pyreplica.trusted')::oid[])
     limit 1;
    if found then
        raise exception 'there is a % of % already, who is not known to have installed pyreplica', stranger.name, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = 'Drop it; or, if it is what it should be, give it to the owner of the database.';
    end if;
end
$check$;

-- One row for each pair that this database belongs to, once the roles of the pair have been exchanged. Both databases of a pair
-- have one; "pair" is drawn by chance, and the same in both. "field" is SLAVE_FIELD, "peer" the other database (system
-- identifier/oid), "peer_at" where clients find it. "role" is "former" if this was the master and missed a failover, and
-- "moved" in a row for a slave that still asks this database, which is not its master any more. A greater epoch is later.
-- "batch" and "token": what a failover found last on the slave.
create table if not exists public.replica_role (
    field name not null,
    peer text not null,
    pair text not null,
    role text not null check (role in ('master', 'slave', 'former', 'moved')),
    epoch bigint not null,
    peer_at text not null,
    batch bigint,
    token text,
    since timestamptz not null default now(),
    primary key (field, peer)
);

-- Somebody may have made or dropped a table of that name since it was checked, and IF NOT EXISTS says nothing of it. From here on
-- the names are taken.
do $check$
declare
    missing text;
begin
    select t.name into missing
      from unnest(array['replica_role']) t (name)
     where not exists (select from pg_class c
                        where c.relnamespace = 'public'::regnamespace and c.relname = t.name and c.relkind = 'r'
                          and c.relowner = any (current_setting('pyreplica.trusted')::oid[]))
     limit 1;
    if found then
        raise exception 'somebody has made and dropped a table % meanwhile', missing
            using errcode = 'insufficient_privilege', hint = 'Drop what has that name, if it is there, and run the script again.';
    end if;
end
$check$;

-- Raises an error in the session of whoever writes to a fenced table. A daemon does not meet it, since it writes in the replica
-- role. If it may not take that role, the second argument of the trigger names the daemon's own, which may be the
-- application's too: so it passes only in a session that says whose changes it replays. The first argument says where the master
-- is.
create or replace function public.py_log_fence() returns trigger language plpgsql set search_path = pg_catalog, pg_temp
as $py_log_fence$
begin
    if session_user = tg_argv[1] and coalesce(current_setting('pyreplica.origin', true), '') <> '' then
        return null;
    end if;
    raise exception 'cannot write to %: this database is a slave of pyreplica, and not the master', tg_relid::regclass
        using errcode = 'read_only_sql_transaction', hint = format('The master is %s.', tg_argv[0]);
end
$py_log_fence$;

-- Everybody may know who is the master. Nobody but the owner says so.
do $rights$
declare
    statement text;
begin
    for statement in
        select format('revoke %s on public.replica_role from %s cascade', a.privilege_type,
                      case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
          from pg_class c cross join aclexplode(c.relacl) a
         where c.oid = 'public.replica_role'::regclass and a.grantee <> c.relowner and pg_has_role(c.relowner, 'usage')
           and (a.privilege_type <> 'SELECT' or a.is_grantable)
    loop
        execute statement;
    end loop;
    if (select pg_has_role(relowner, 'usage') from pg_class where oid = 'public.replica_role'::regclass) then
        grant select on public.replica_role to public;
    end if;
end
$rights$;

commit;
