-- Rows that have been replayed and lack their flag, when the daemon has stopped at a change that it can't replay.
-- "l.replicated" stands for the slave's own column.
--   $1  bigint  read rows above this id
--   $2  text    a snapshot whose transactions had all been replayed before, or NULL
--   $3  text    the snapshot up to which the daemon was replaying
--   $4  bigint  the last id of the last transaction that has been replayed
--   $5  bigint  return this many rows at most
with drained as (
    select l.id, l.txid, not coalesce(l.replicated, true) as unmarked
      from (select $2::text::pg_snapshot as base, $3::text::pg_snapshot as current offset 0) s
      join public.replica_log l on l.id > $1 and pg_visible_in_snapshot(l.txid, s.current)
       and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false))
select array(select id from drained
              where unmarked and txid in (select txid from drained group by txid having max(id) <= $4)
              order by id
              limit $5) as due
