-- pyreplica, slave side: what the initial copy has brought here.
--
--     psql somedb -f slave-copy.sql
--
-- `pyreplica copy` makes these tables by itself; it is run by hand only if the role of DSN1 may not create tables in the
-- schema public. Then: GRANT SELECT, INSERT, UPDATE, DELETE ON replica_copy, replica_copy_schema TO that role.

begin;

set local client_min_messages = warning;
-- No function that others may have put into public.
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

-- What somebody else may have put here before is not taken over: the owner of a table decides what runs when somebody writes
-- to it. Superusers are trusted, the owners of the database and of the schema public, the role that runs this, and, if that
-- is no superuser, the roles that it is a member of.
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
    select x.relname, x.owner::regrole as owner, x.trigger into stranger
      from (select relname, relowner as owner, null::name as trigger from pg_class where relnamespace = 'public'::regnamespace
            union all
            select typname, typowner, null from pg_type where typnamespace = 'public'::regnamespace
            union all
            -- It runs with the rights of who writes to the table.
            select c.relname, p.proowner, t.tgname
              from pg_class c join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal join pg_proc p on p.oid = t.tgfoid
             where c.relnamespace = 'public'::regnamespace) x
     where x.relname in ('replica_copy', 'replica_copy_schema')
       and x.owner <> all (current_setting('pyreplica.trusted')::oid[])
     limit 1;
    if stranger.trigger is not null then
        raise exception 'there is a trigger % on % with a function of %', stranger.trigger, stranger.relname, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('DROP TRIGGER %I ON public.%I;', stranger.trigger, stranger.relname);
    elsif stranger.relname is not null then
        raise exception 'there is a table % of % already', stranger.relname, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop or rename it; or, if it is what it should be: ALTER TABLE public.%I OWNER TO ..., '
                                'the owner of the database.', stranger.relname);
    end if;
    -- Remembers which tables are there already.
    perform set_config('pyreplica.former', array(
        select relname from pg_class
         where relnamespace = 'public'::regnamespace
           and relname in ('replica_copy', 'replica_copy_schema'))::text, true);
end
$check$;

-- Two that run this at once, such as the copies from two masters, would both find that the table is not there yet.
-- Anybody could keep them waiting, so they wait for some seconds at most.
do $wait$
begin
    for i in 1..50 loop
        exit when pg_try_advisory_xact_lock(hashtext('pyreplica slave-install'));
        perform pg_sleep(0.1);
    end loop;
end
$wait$;

-- One row a table. state: wanted, to be loaded yet; loaded, while others are wanted: until all are, no daemon replicates to
-- this slave; held, to be loaded yet, while the daemon puts its changes aside; passing, the daemon passes over the changes
-- that the snapshot shows. A row goes when the slave's position has passed its snapshot. whole: part of a copy of all
-- tables. batch: the number in replica_slave on the master when the copy began.
create table if not exists public.replica_copy (
    master text not null,
    relation text not null,
    state text not null check (state in ('wanted', 'loaded', 'held', 'passing')),
    whole boolean not null,
    batch bigint not null,
    snapshot text,
    rows bigint,
    ts timestamptz not null default now(),
    primary key (master, relation)
);

-- What of a schema is made when the rows are there: indexes, constraints and more, one row each, written before the tables are
-- created. A row goes in the transaction that runs its statement. Whoever may write here has DSN1's role run what he likes.
create table if not exists public.replica_copy_schema (
    master text not null,
    place bigint not null,
    stage text not null,
    name text not null,
    relations text[] not null,
    alone boolean not null,
    size bigint not null,
    statement text not null,
    primary key (master, place)
);

-- Somebody may have made or dropped a table of that name since it was checked, and IF NOT EXISTS says nothing of it. From here on
-- the names are taken.
do $check$
declare
    missing text;
begin
    select t.name into missing
      from unnest(array['replica_copy', 'replica_copy_schema']) t (name)
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

-- What stands in these tables is replayed, or decides what is. A table that is new has no rights yet but those that ALTER
-- DEFAULT PRIVILEGES gives, often to the applications: they are taken from all roles, and so is what PUBLIC may do. A table
-- that was here before keeps what roles were granted to read and write rows, for one of them is the daemon's; pyreplica
-- doctor knows which, and names the others.
do $rights$
declare
    statement text;
begin
    for statement in
        with ours as (
            select * from pg_class
             where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and pg_has_role(relowner, 'usage')
               and relname in ('replica_copy', 'replica_copy_schema')
        )
        select distinct format('revoke %s on %s from %s cascade',
                               case when a.grantee = 0 or c.is_new then 'all'
                                    when a.is_grantable then 'grant option for all' else a.privilege_type end,
                               c.relation, case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
          from (select c.oid::regclass as relation, c.relowner, c.relacl as acl,
                       c.relname <> all (current_setting('pyreplica.former')::name[]) as is_new
                  from ours c
                union all
                select c.oid::regclass, c.relowner, a.attacl, c.relname <> all (current_setting('pyreplica.former')::name[])
                  from ours c join pg_attribute a on a.attrelid = c.oid
                union all
                -- Nobody needs a right to the sequence of an identity column.
                select d.objid::regclass, c.relowner, s.relacl, true
                  from ours c
                  join pg_depend d on d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                                  and d.refobjid = c.oid and d.deptype = 'i'
                  join pg_class s on s.oid = d.objid and s.relkind = 'S') c
         cross join aclexplode(c.acl) a
         where a.grantee <> c.relowner
           and (a.grantee = 0 or c.is_new or a.is_grantable
                or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'))
    loop
        execute statement;
    end loop;
end
$rights$;

commit;
