-- What one slave has replayed of the log: everything that "base" shows, and of what "current" shows beyond it the
-- transactions whose last id is "last" at most. And the highest id there is, and where the row is.
--   $1  text  the slave's column
select s.batch, s.identity, s.base::text as base, s.current::text as current, s.last,
       greatest(coalesce(s.highest, 0), coalesce((select max(id) from public.replica_log), 0)) as highest,
       coalesce(s.floor, 0) as floor, s.ctid::text as place
  from public.replica_slave s
 where s.field = $1::text::name
