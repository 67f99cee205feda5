-- pyreplica, slave side: the progress row of a slave that replicates without two-phase commit (TWO_PHASE=false).
--
--     psql somedb -f slave-install.sql
--
-- With two-phase commit, which is the default, the slave needs nothing at all. May be run again at any time.
-- DROP TABLE replica_progress removes it.

begin;

set local client_min_messages = warning;

-- One row a master: the last batch replayed here, written in the very transaction that replays it, and the position that
-- it led to. When the master could not note it any more, recovery does it from here.
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

revoke all on public.replica_progress from public;

commit;
