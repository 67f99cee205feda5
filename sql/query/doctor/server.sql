-- Problems of one server, on either side. All queries in this folder have these columns: level, what was checked, what is
-- wrong, the statements that correct it on the same side, and what else to do.
--   $1  boolean  two-phase commit is used
select 'failure' as level, 'two-phase commit' as subject, 'max_prepared_transactions is 0' as text,
       array['ALTER SYSTEM SET max_prepared_transactions = 10;'] as fixes,
       'then restart that server; or, without two-phase commit, TWO_PHASE=false in the config file' as advice
 where $1 and current_setting('max_prepared_transactions')::int = 0
union all
select case when u.used < u.most then 'warning' else 'failure' end, 'two-phase commit',
       format('%s of the %s prepared transactions that the server can keep are in use', u.used, u.most),
       array[format('ALTER SYSTEM SET max_prepared_transactions = %s;', 2 * u.most)],
       'then restart that server; or settle those that nobody needs'
  from (select count(*) as used, current_setting('max_prepared_transactions')::int as most from pg_prepared_xacts) u
 where $1 and u.most > 0 and u.used >= 0.8 * u.most
union all
select 'warning', 'open transactions',
       format('process %s (%s, %s) has had a transaction open since %s: vacuum cannot remove what was deleted since',
              a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'no name'), a.xact_start::timestamptz(0)),
       array[format('SELECT pg_terminate_backend(%s);', a.pid)], 'unless it is wanted'
  from pg_stat_activity a
 where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start < now() - interval '1 hour'
union all
select 'warning', 'open transactions',
       format('the replication slot %s is not in use and keeps vacuum from removing what was deleted', s.slot_name),
       array[format('SELECT pg_catalog.pg_drop_replication_slot(%L);', s.slot_name)], 'unless its standby comes back'
  from pg_replication_slots s
 where not s.active and s.xmin is not null
union all
select case when q.usage < 0.9 then 'warning' else 'failure' end, 'notify queue',
       format('the queue of NOTIFY is %s %% full; when it is full, commits fail', round(100 * q.usage)), null::text[],
       'a session that listens, and has a transaction open or reads nothing, keeps it: end that'
  from (select pg_notification_queue_usage()::numeric as usage) q
 where q.usage > 0.5
union all
select 'note', 'durability', format('%s is off: after a crash the server may have lost what it committed, or worse', name),
       array[format('ALTER SYSTEM SET %I = on;', name), 'SELECT pg_reload_conf();'], null
  from pg_settings
 where name in ('fsync', 'full_page_writes') and setting = 'off'
