-- == What the daemon keeps ==

-- Installs the tables that the daemon and the verbs write on the master: the position of each slave, its last error, and
-- the changes that somebody has skipped.

-- One row for each slave: the last batch that the master has committed, and the position after it. After a crash the
-- daemon compares the batch number with that of a transaction which it finds prepared on the slave.
create table if not exists public.replica_slave (
    field name primary key,
    batch bigint not null,
    ts timestamptz not null default now()
);

-- The slave has replayed all transactions that the snapshot "base" shows. Of those that only "current" shows, it has
-- replayed the ones whose last id is at most "last". No id of theirs is above "highest". No row up to "floor" is still
-- to be replayed or marked. "identity" names the database that these transaction numbers belong to. Without base and
-- current, the slave's column of the log says what it has replayed.
alter table public.replica_slave
    add column if not exists identity text,
    add column if not exists base pg_snapshot,
    add column if not exists current pg_snapshot,
    add column if not exists last bigint,
    add column if not exists highest bigint,
    add column if not exists floor bigint;

-- The last error of each slave's daemon, which pyreplica status shows. since: when the first of a row of failures
-- happened. recovered: when the daemon went on.
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

-- The changes that somebody has skipped, with role and reason. master names the log and the slave, as in the table of
-- this name on the slave, which is for changes that were in replica_held there.
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

-- Each attempt at a batch draws a number of its own, even if the attempt is rolled back.
create sequence if not exists public.replica_batch_seq;
