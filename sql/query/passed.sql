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
   and (coalesce(pg_visible_in_snapshot(l.txid, p.base), false)
        or l.txid in (select t.txid from public.replica_log t, passed q
                       where t.id <= q.highest and pg_visible_in_snapshot(t.txid, q.current)
                       group by t.txid, q.last
                      having max(t.id) <= q.last))
