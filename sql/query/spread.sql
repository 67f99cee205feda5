-- The transactions whose pending rows spread over many ids. The query reads a long backlog once. Every other transaction has
-- all its rows within the distance; the row without txid has the first and the last id, and the number of rows, of all these.
-- "l.replicated" stands for the slave's own column.
--   $1  bigint    read rows above this id
--   $2  text      the snapshot
--   $3  text      a snapshot whose transactions have all been replayed, or NULL
--   $4  bigint    the distance
select case when t.last - t.first >= $4 then t.txid::text::bigint end as txid,
       min(t.first) as first, max(t.last) as last, sum(t.rows)::bigint as rows, bool_or(t.flagged) as flagged
  from (select $2::text::pg_snapshot as now, $3::text::pg_snapshot as base offset 0) s
  join (select l.txid, min(l.id) as first, max(l.id) as last, count(*) as rows, coalesce(bool_or(l.replicated), false) as flagged
          from public.replica_log l
         where l.id > $1
         group by l.txid) t
    on pg_visible_in_snapshot(t.txid, s.now)
   and not coalesce(pg_visible_in_snapshot(t.txid, s.base), false)
 group by 1
 order by 3
