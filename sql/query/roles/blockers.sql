-- Who holds, or waits for, locks on these tables that keep a switchover from locking them: sessions and prepared transactions,
-- the longest first.
--   $1  oid[]  the tables
select l.pid, coalesce(x.gid, '') as gid, coalesce(a.backend_type, 'prepared transaction') as kind,
       coalesce(a.usename::text, x.owner::text, '') as role, coalesce(a.state, '') as state, left(coalesce(a.query, ''), 100) as query,
       coalesce(extract(epoch from clock_timestamp() - coalesce(a.xact_start, x.prepared)), 0)::float8 as seconds,
       string_agg(distinct format('%I.%I', n.nspname, c.relname), ', ') as tables
  from pg_locks l
  join pg_class c on c.oid = l.relation and l.relation = any ($1)
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_stat_activity a on a.pid = l.pid
  left join pg_locks own on l.pid is null and own.pid is null and own.locktype = 'transactionid' and own.mode = 'ExclusiveLock'
   and own.virtualtransaction = l.virtualtransaction
  left join pg_prepared_xacts x on x.transaction = own.transactionid
 where l.locktype = 'relation' and l.database = (select oid from pg_database where datname = current_database())
   and l.mode not in ('AccessShareLock', 'RowShareLock') and l.pid is distinct from pg_backend_pid()
 group by 1, 2, 3, 4, 5, 6, 7
 order by seconds desc
 limit 20
