-- Rows that have been replayed and lack their flag, when the daemon has stopped at a change that it can't replay.
-- "l.replicated" stands for the slave's own column.
--   $1  bigint  read rows above this id
--   $2  text    a snapshot whose transactions had all been replayed before, or NULL
--   $3  text    the snapshot up to which the daemon was replaying
--   $4  bigint  the last id of the last transaction that has been replayed
--   $5  bigint  return this many rows at most
with s as materialized (
    select $2::text::pg_snapshot as base, $3::text::pg_snapshot as current),
logged as (
    select l.id, l.txid, max(l.id) over (partition by l.txid) as last, not coalesce(l.replicated, true) as unmarked
      from public.replica_log l where l.id > $1)
select array(select l.id from s, logged l
              where l.unmarked and public.py_log_is_replayed(l.last, l.txid, s.base, s.current, $4::bigint)
              order by l.id
              limit $5) as due
