-- pyreplica, slave side: what is put aside instead of being replayed, what was in the way, and the progress row of a slave
-- that replicates without two-phase commit (TWO_PHASE=false).
--
--     psql somedb -f slave-install.sql
--
-- May be run again at any time, also while the daemon works. The daemon needs replica_progress. Without the other tables pause,
-- quarantine and the record of conflicts do not work. A daemon whose role may create tables in the schema public runs this by
-- itself; for another role, as the owner:
--
--     GRANT SELECT, INSERT, UPDATE, DELETE
--         ON replica_progress, replica_hold, replica_held, replica_conflict, replica_skipped TO somerole;
--
-- slave-uninstall.sql takes it away.

begin;

set local client_min_messages = warning;
-- No function that others may have put into public.
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

-- Two that run this at once, such as the daemons of two masters, would both find that a table is not there yet.
-- Anybody could keep them waiting, so they wait for some seconds at most.
do $wait$
begin
    for i in 1..50 loop
        exit when pg_try_advisory_xact_lock(hashtext('pyreplica slave-install'));
        perform pg_sleep(0.1);
    end loop;
end
$wait$;

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
     where x.relname in ('replica_progress', 'replica_hold', 'replica_held', 'replica_conflict', 'replica_skipped',
                         'replica_held_relation', 'replica_held_txid', 'replica_held_keys')
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
           and relname in ('replica_progress', 'replica_hold', 'replica_held', 'replica_conflict', 'replica_skipped'))::text, true);
end
$check$;

-- One row a master: the last batch replayed here, written by the transaction that replays it, and the position that it led
-- to. The daemon compares it with the master's replica_slave before it replays anything.
create table if not exists public.replica_progress (
    master text primary key,
    batch bigint not null,
    position text not null,
    ts timestamptz not null default now()
);

-- In an earlier version these were the batch's changes, which the master has noted unless it lost that very batch.
do $upgrade$
begin
    if exists (select from pg_attribute where attrelid = 'public.replica_progress'::regclass and attname = 'changes') then
        alter table public.replica_progress rename column changes to position;
    end if;
end
$upgrade$;

-- "token" is drawn for each batch and written on both servers. "identity" names the master's database, "history" its life,
-- as replica_slave does. "former" is what the master's row said when TWO_PHASE=false committed this batch: if it still says
-- so, only the commit on the master is missing.
alter table public.replica_progress
    add column if not exists token text,
    add column if not exists former text,
    add column if not exists identity text,
    add column if not exists history text;

-- What is not to be replayed for now. `master` names the pair as replica_progress does. `relation` is a table as the log
-- names it, or empty for the whole pair. A batch reads this table in its first message and so keeps it locked in ACCESS
-- SHARE mode to its end, also while it is prepared: who writes here under ACCESS EXCLUSIVE knows that no batch is under way
-- that has not seen it.
create table if not exists public.replica_hold (
    master text not null,
    relation text not null,
    why text not null check (why in ('paused', 'copying')),
    who text not null default session_user,
    ts timestamptz not null default now(),
    primary key (master, relation)
);

-- Changes put aside, by the slave's own transaction that moves on past them. `place` is the order of replay. `old` and
-- `new` are the logged rows: name, value, name, value. `keys` are numbers made of the table and the row's keys, by which a
-- later change of the same row is found to depend on this one: it has one of them among its own `needs`.
create table if not exists public.replica_held (
    place bigint generated always as identity primary key,
    master text not null,
    id bigint not null,
    txid xid8 not null,
    relation text not null,
    event text not null,
    old text[],
    new text[],
    sql text not null default '',
    origin text,
    keys bigint[] not null default '{}',
    needs bigint[] not null default '{}',
    why text not null check (why in ('paused', 'quarantined', 'copying')),
    error text,
    ts timestamptz not null default now(),
    unique (master, id)
);

-- What a change met on the slave that it should not have met, named as PostgreSQL 18 names it, and what was done. Rows are
-- objects of column and text. CONFLICTS_KEPT bounds how many rows the daemon leaves here.
create table if not exists public.replica_conflict (
    id bigint generated always as identity primary key,
    ts timestamptz not null default clock_timestamp(),
    master text not null,
    change bigint not null,
    txid xid8 not null,
    relation text not null,
    kind text not null,
    key jsonb,
    expected jsonb,
    found jsonb,
    new jsonb,
    done text not null
);

-- Changes that were put aside and then given up, by whom and why.
create table if not exists public.replica_skipped (
    place bigint generated always as identity primary key,
    master text not null,
    id bigint not null,
    txid xid8 not null,
    relation text,
    event text not null,
    old text[],
    new text[],
    sql text,
    error text,
    who text not null default session_user,
    reason text,
    ts timestamptz not null default now()
);

-- Somebody may have made or dropped a table of that name since it was checked, and IF NOT EXISTS says nothing of it. From here on
-- the names are taken.
do $check$
declare
    missing text;
begin
    select t.name into missing
      from unnest(array['replica_progress', 'replica_hold', 'replica_held', 'replica_conflict', 'replica_skipped']) t (name)
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

create index if not exists replica_held_relation on public.replica_held (master, relation, place);
create index if not exists replica_held_txid on public.replica_held (master, txid);
create index if not exists replica_held_keys on public.replica_held using gin (keys) where why = 'quarantined';

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
               and relname in ('replica_progress', 'replica_hold', 'replica_held', 'replica_conflict', 'replica_skipped')
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
