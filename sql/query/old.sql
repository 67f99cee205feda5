-- The next rows of the log that may be deleted: every slave has replayed them, and they are old enough. "l.replicated" stands
-- for the columns of all slaves.
--   $1  bigint            read rows above this id
--   $2  double precision  how long rows are kept, in seconds
--   $3  bigint            read this many rows at most
select count(*) as rows, max(x.id) as last, min(x.id) filter (where not x.passed) as kept,
       count(*) filter (where x.old) as old, coalesce(array_agg(x.id) filter (where x.passed), '{}') as passed
  from (select o.id, o.old, o.old and o.replayed as passed
          from (select l.id, coalesce(l.ts < now() - make_interval(secs => $2), true) as old,
                       l.replicated as replayed
                  from public.replica_log l
                 where l.id > $1
                 order by l.id
                 limit $3) o) x
