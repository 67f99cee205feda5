-- How many changes of one table a snapshot shows that the slave's position does not cover yet: they are neither replayed nor
-- held. A transaction counts as a whole: the position covers it when it covers its last row. "l.replicated" stands for the
-- slave's own column.
--   $1  text  the slave's column
--   $2  text  the table, as the log names it
--   $3  text  the snapshot
select count(*)
  from (select s.base, s.current, s.last, coalesce(s.floor, 0) as floor,
               -- Transactions with rows after the last row that was replayed.
               array(select distinct m.txid from public.replica_log m where m.id > s.last) as beyond
          from (select $1::text::name as field) f
          left join public.replica_slave s using (field)
        offset 0) s
  join public.replica_log l on l.id > s.floor
 -- Older rows may have each name in quotes.
 where l.relation in ($2, (select format('"%s"."%s"', replace(i[1], '"', '""'), replace(i[2], '"', '""'))
                             from parse_ident($2) i))
   and not coalesce(l.replicated, true)
   and pg_visible_in_snapshot(l.txid, $3::text::pg_snapshot)
   and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false)
   and not coalesce(pg_visible_in_snapshot(l.txid, s.current) and l.id <= s.last and l.txid <> all (s.beyond), false)
