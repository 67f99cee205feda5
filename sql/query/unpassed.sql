-- How many changes of one table a snapshot shows that the slave's position does not cover yet: they are neither replayed nor
-- held. A transaction counts as a whole: the position covers it when it covers its last row. "l.replicated" stands for the
-- slave's own column.
--   $1  text    the slave's column
--   $2  text[]  the table, as the log names it, and as older rows may name it
--   $3  text    the snapshot
with s as materialized (
    select s.base, s.current, s.last, coalesce(s.floor, 0) as floor
      from (select $1::text::name as field) f
      left join public.replica_slave s using (field))
select coalesce(sum(t.changes), 0)::bigint
  from s
 cross join (select l.txid, max(l.id) as last,
                            count(*) filter (where l.relation = any ($2) and not coalesce(l.replicated, true)) as changes
               from s join public.replica_log l on l.id > s.floor
              group by l.txid) t
 where pg_visible_in_snapshot(t.txid, $3::text::pg_snapshot)
   and not public.py_log_is_replayed(t.last, t.txid, s.base, s.current, s.last)
