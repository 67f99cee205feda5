-- pyreplica, slave side: what is put aside instead of being replayed, what was in the way, and the progress row of a slave
-- that replicates without two-phase commit (TWO_PHASE=false).
--
--     psql somedb -f slave-install.sql
--
-- May be run again at any time, also while the daemon works. With two-phase commit, which is the default, the slave can do
-- without: then nothing can be paused, quarantined or told about conflicts but in the log file. A daemon whose role may
-- create tables in the schema public runs this by itself; for another one, as the owner:
--
--     GRANT SELECT, INSERT, UPDATE, DELETE ON replica_hold, replica_held, replica_conflict, replica_skipped TO somerole;
--
-- DROP TABLE replica_progress, replica_hold, replica_held, replica_conflict, replica_skipped removes it all.

begin;

set local client_min_messages = warning;
-- No function that others may have put into public.
set local search_path = pg_catalog, pg_temp;

-- Two that run this at once, such as the daemons of two masters, would both find that a table is not there yet.
do $$ begin perform pg_advisory_xact_lock(hashtext('pyreplica slave-install')); end $$;

-- A table that somebody else may have put here before is not taken over: its owner's triggers would run with the rights of
-- whoever writes to it.
do $check$
declare
    stranger record;
begin
    select c.relname, c.relowner::regrole as owner into stranger
      from pg_class c join pg_roles r on r.oid = c.relowner
     where c.relnamespace = 'public'::regnamespace
       and c.relname in ('replica_progress', 'replica_hold', 'replica_held', 'replica_conflict', 'replica_skipped')
       and not r.rolsuper and r.rolname <> current_user
       and c.relowner not in (select datdba from pg_database where datname = current_database() union
                              select nspowner from pg_namespace where nspname in ('public', 'pyreplica'))
       and ((select rolsuper from pg_roles where rolname = current_user) or not pg_has_role(c.relowner, 'usage'))
     limit 1;
    if found then
        raise exception 'there is a table % of % already', stranger.relname, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop or rename it; or, if it is what it should be: ALTER TABLE public.%I OWNER TO ..., '
                                'the owner of the database.', stranger.relname);
    end if;
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
create index if not exists replica_held_relation on public.replica_held (master, relation, place);
create index if not exists replica_held_txid on public.replica_held (master, txid);
create index if not exists replica_held_keys on public.replica_held using gin (keys) where why = 'quarantined';

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

revoke all on public.replica_progress, public.replica_hold, public.replica_held, public.replica_conflict,
    public.replica_skipped from public;

commit;
