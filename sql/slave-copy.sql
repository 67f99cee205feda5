-- pyreplica, slave side: what the initial copy has brought here.
--
--     psql somedb -f slave-copy.sql
--
-- `pyreplica copy` makes this table by itself; it is run by hand only if the role of DSN1 may not create tables in the
-- schema public. Then: GRANT SELECT, INSERT, UPDATE, DELETE ON replica_copy TO that role.

begin;

set local client_min_messages = warning;

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
