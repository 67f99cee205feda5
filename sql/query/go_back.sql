-- Clears the flags that the position of a restored slave does not cover: the position is older than the flags. The flags of
-- changes that somebody has skipped stay. "l.replicated" and "set replicated" stand for the slave's own column.
--   $1  bigint  the position's floor: the slave has replayed everything up to this id
--   $2  text    a snapshot whose transactions have all been replayed, or NULL
--   $3  text    the snapshot up to which the slave was replaying, or NULL
--   $4  bigint  of that snapshot, the transactions whose last id is not greater have been replayed; or NULL
--   $5  text    the pair, as replica_skipped names it
with s as materialized (
    select $2::text::pg_snapshot as base, $3::text::pg_snapshot as current, $4::bigint as last offset 0),
-- Transactions with rows after $4: they are replayed as a whole, so nothing of them has been replayed.
beyond as materialized (
    select distinct m.txid from s join public.replica_log m on m.id > s.last and pg_visible_in_snapshot(m.txid, s.current)
       and not public.py_log_is_replayed(m.id, m.txid, s.base, s.current, s.last))
update public.replica_log l
   set replicated = false
  from s
 where l.id > $1 and l.replicated
   and not (public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last) and l.txid not in (select txid from beyond))
   and not exists (select from public.replica_skipped k where k.master = $5 and k.id = l.id)
