-- == What the daemon keeps ==

-- Installs what the daemon and its verbs write on the master: each slave's position, its last error, and the changes that
-- somebody skipped.

-- What each slave has replayed: the last batch that was committed here, and the position that it led to. Recovery
-- compares the number with that of a transaction which it finds prepared on the slave.
create table if not exists public.replica_slave (
    field name primary key,
    batch bigint not null,
    ts timestamptz not null default now()
);

-- Replayed is what base shows, and of what current shows beyond it the transactions whose last id is "last" at most. No
-- id above "highest" is among them; no row at or below "floor" is waiting for anything. The transaction numbers are those
-- of the database identity. Without base and current the flags say what has been replayed.
alter table public.replica_slave
    add column if not exists identity text,
    add column if not exists base pg_snapshot,
    add column if not exists current pg_snapshot,
    add column if not exists last bigint,
    add column if not exists highest bigint,
    add column if not exists floor bigint;

-- The last failure of each slave's daemon, for pyreplica status; "since" is when it began to fail without a success between,
-- "recovered" when it went on.
create table if not exists public.replica_error (
    field name primary key,
    pair text not null,
    since timestamptz not null default now(),
    last timestamptz not null default now(),
    attempts bigint not null default 1,
    side text,
    message text not null,
    hint text,
    change bigint,
    recovered timestamptz
);

-- Changes that somebody had passed over instead of replayed, by whom and why. `master` names log and slave as on the slave,
-- which has such a table too, for what had been put aside there.
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

-- Every attempt at a batch draws a number of its own, also one that is rolled back.
create sequence if not exists public.replica_batch_seq;
