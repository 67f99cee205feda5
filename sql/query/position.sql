-- What one slave has replayed of the log: all transactions that the snapshot "base" shows, and those that the snapshot
-- "current" shows in addition and whose last id is not greater than "last". The query also returns the highest id of the log,
-- and the ctid of the slave's row.
--   $1  text  the slave's column
select s.batch, s.identity, s.base::text as base, s.current::text as current, s.last,
       greatest(coalesce(s.highest, 0), coalesce((select max(id) from public.replica_log), 0)) as highest,
       coalesce(s.floor, 0) as floor, s.ctid::text as place
  from public.replica_slave s
 where s.field = $1::text::name
