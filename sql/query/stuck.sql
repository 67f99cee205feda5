-- Rows that have been replayed and lack their flag, when the daemon has stopped at a change that it can't replay.
-- "l.replicated" stands for the slave's own column.
--   $1  bigint  read rows above this id
--   $2  text    a snapshot whose transactions had all been replayed before, or NULL
--   $3  text    the snapshot up to which the daemon was replaying
--   $4  bigint  the last id of the last transaction that has been replayed
--   $5  bigint  return this many rows at most
with s as materialized (
    select $2::text::pg_snapshot as base, $3::text::pg_snapshot as current, $4::bigint as last),
beyond as materialized (
    select distinct m.txid from s join public.replica_log m on m.id > s.last
       and not public.py_log_is_replayed(m.id, m.txid, s.base, s.current, s.last))
select array(select l.id from s join public.replica_log l on l.id > $1
              where not coalesce(l.replicated, true)
                and public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last)
                and l.txid not in (select txid from beyond)
              order by l.id
              limit $5) as due
