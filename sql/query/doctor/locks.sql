-- The sessions whose locks block pyreplica's sessions on this server, or would block them.
--   $1  boolean  true on the slave, where replayed changes write to every table
select 'warning' as level, 'locks' as subject,
       format('process %s (%s) waits for a lock of %s', w.pid, w.application_name,
              case when b.pid is null then 'a prepared transaction'
                   else format('process %s (%s, %s), which has had its transaction open since %s', b.pid, b.usename,
                               coalesce(nullif(b.application_name, ''), 'no name'), b.xact_start::timestamptz(0)) end) as text,
       case when b.pid is not null then array[format('SELECT pg_terminate_backend(%s);', b.pid)] end as fixes,
       case when b.pid is null then 'see the transactions in doubt; or commit it or roll it back: SELECT * FROM pg_prepared_xacts;'
            else 'unless it is wanted: then wait for its end' end as advice
  from pg_stat_activity w
  cross join lateral unnest(pg_blocking_pids(w.pid)) as blocking (pid)
  left join pg_stat_activity b on b.pid = blocking.pid
 where w.datname = current_database() and w.pid <> pg_backend_pid() and w.wait_event_type = 'Lock'
   and starts_with(w.application_name, 'pyreplica ')
union all
select 'warning', 'locks',
       format('%s keeps a lock (%s) on %s, for which pyreplica has to wait',
              case when l.pid is null then 'a prepared transaction'
                   else format('process %s (%s, %s)', l.pid, a.usename, coalesce(nullif(a.application_name, ''), 'no name')) end,
              l.mode, l.relation::regclass),
       case when l.pid is not null then array[format('SELECT pg_terminate_backend(%s);', l.pid)] end,
       case when l.pid is null then 'commit it or roll it back: SELECT * FROM pg_prepared_xacts;'
            else 'unless it is wanted: then wait for its end' end
  from pg_locks l
  join pg_class c on c.oid = l.relation and c.relkind in ('r', 'p')
  join pg_namespace n on n.oid = c.relnamespace and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  left join pg_stat_activity a on a.pid = l.pid
 where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
   and l.database = (select oid from pg_database where datname = current_database())
   and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
   and ($1 or c.oid in (to_regclass('public.replica_log')::oid, to_regclass('public.replica_slave')::oid))
   -- DDL needs such locks for a moment: those are not reported.
   and coalesce(a.xact_start < clock_timestamp() - interval '5 s', true)
