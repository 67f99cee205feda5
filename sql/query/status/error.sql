-- The last failure that the daemon has recorded on the master. One that has been over for a day is nothing to tell any more.
--   $1  text  the slave's column
select since::timestamptz(0)::text as since, last::timestamptz(0)::text as last, attempts, side, message, hint, change,
       recovered::timestamptz(0)::text as recovered, extract(epoch from since)::float8 as since_epoch,
       extract(epoch from clock_timestamp() - last)::float8 as idle
  from public.replica_error
 where field = $1::text::name
   and (recovered is null or recovered > now() - interval '1 day')
