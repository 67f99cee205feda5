-- pyreplica, slave side: what the initial copy has brought here.
--
--     psql somedb -f slave-copy.sql
--
-- `pyreplica copy` makes this table by itself; it is run by hand only if the role of DSN1 may not create tables in the
-- schema public. Then: GRANT SELECT, INSERT, UPDATE, DELETE ON replica_copy TO that role.

begin;

set local client_min_messages = warning;
-- No function that others may have put into public.
set local search_path = pg_catalog, pg_temp;

-- A table that somebody else may have put here before is not taken over: its owner's triggers would run with the rights of
-- whoever writes to it.
do $check$
declare
    stranger record;
begin
    select c.relname, c.relowner::regrole as owner into stranger
      from pg_class c join pg_roles r on r.oid = c.relowner
     where c.relnamespace = 'public'::regnamespace
       and c.relname in ('replica_copy')
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

-- Two that run this at once, such as the copies from two masters, would both find that the table is not there yet.
do $$ begin perform pg_advisory_xact_lock(hashtext('pyreplica slave-install')); end $$;

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

revoke all on public.replica_copy from public;

commit;
