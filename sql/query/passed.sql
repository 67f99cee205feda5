-- Sets the flags of what has been replayed according to a slave's position. The daemon deletes that position afterwards,
-- because its transaction numbers belong to another cluster. Rows that were logged in this cluster have higher ids than those
-- that were restored from the other one. "l.replicated" and "set replicated" stand for the slave's own column.
--   $1  text  the slave's column
with passed as (
    select s.base, s.current, s.last, coalesce(s.highest, 0) as highest
      from public.replica_slave s where s.field = $1::text::name)
update public.replica_log l
   set replicated = true
  from passed p
 where not coalesce(l.replicated, true) and l.id <= p.highest
   and l.txid in (select t.txid
                    from (select m.txid, max(m.id) as last from public.replica_log m
                           where m.id <= (select highest from passed) group by m.txid) t, passed q
                   where public.py_log_is_replayed(t.last, t.txid, q.base, q.current, q.last))
