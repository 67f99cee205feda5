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

-- Which batch that was, so that a server that was restored, or a slave in its place, is noticed. "token" is drawn for
-- each batch and written on both servers: replica_progress on the slave has the same one. "slave" names the database that
-- has it. "history" is an id that the daemon draws when the master may have begun another life, and "life" tells lives
-- apart: the timeline, and when the server was started. "announced" is drawn when TWO_PHASE=false writes here what it is
-- about to replay. Flags are set up to "flagged".
alter table public.replica_slave
    add column if not exists token text,
    add column if not exists slave text,
    add column if not exists history text,
    add column if not exists life text,
    add column if not exists announced text,
    add column if not exists flagged bigint;

-- The former histories of each slave, and up to which batch the master still has each. A slave that was restored is
-- behind if its last batch is in one of them, and has changes that the master lacks otherwise.
create table if not exists public.replica_history (
    field name not null,
    history text not null,
    up_to bigint not null,
    why text not null,
    ended timestamptz not null default now(),
    primary key (field, history)
);

-- What has been deleted from the log: no deleted row has a higher id or transaction number. A slave that needs one of
-- them can't catch up.
create table if not exists public.replica_purged (
    only_row boolean primary key default true check (only_row),
    id bigint not null,
    txid xid8 not null,
    ts timestamptz not null default now()
);

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
