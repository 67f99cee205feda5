-- Which of these sequences have given another number meanwhile, or are busy: then nobody can tell.
--   $1  oid[]     the sequences
--   $2  bigint[]  their last numbers, null if they had given none
with busy as materialized (
    select relation from pg_locks
     where locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
       and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       and pid is distinct from pg_backend_pid()
)
select k.oid from unnest($1::oid[], $2::bigint[]) k (oid, last)
 where case when k.oid in (select relation from busy) then true else pg_sequence_last_value(k.oid) is distinct from k.last end
