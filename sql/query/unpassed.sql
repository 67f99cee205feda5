-- How many changes of one table a snapshot shows that the slave's position does not cover yet: they are neither replayed nor
-- held. A transaction counts as a whole: the position covers it when it covers its last row. "l.replicated" stands for the
-- slave's own column.
--   $1  text  the slave's column
--   $2  text  the table, as the log names it
--   $3  text  the snapshot
with s as materialized (
    select s.base, s.current, s.last, coalesce(s.floor, 0) as floor
      from (select $1::text::name as field) f
      left join public.replica_slave s using (field))
select coalesce(sum(t.changes), 0)::bigint
  from s
 -- Older rows may have each name in quotes.
 cross join (select array[$2, (select format('"%s"."%s"', replace(i[1], '"', '""'), replace(i[2], '"', '""'))
                                 from parse_ident($2) i)] as names) n
 cross join lateral (select l.txid, max(l.id) as last,
                            count(*) filter (where l.relation = any (n.names) and not coalesce(l.replicated, true)) as changes
               from s join public.replica_log l on l.id > s.floor
              group by l.txid) t
 where pg_visible_in_snapshot(t.txid, $3::text::pg_snapshot)
   and not public.py_log_is_replayed(t.last, t.txid, s.base, s.current, s.last)
