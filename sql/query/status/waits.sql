-- The sessions of this pair that execute a statement and have waited for something other than work for some seconds. A name alone proves
-- nothing: the session's role must be one that may replicate.
--   $1  text   the pair's name
--   $2  text   the table that such a role may write on this side
--   $3  float  for how many seconds
select a.pid, a.wait_event || ' (' || a.wait_event_type || ')' as what, a.wait_event as event, a.wait_event_type as kind,
       extract(epoch from clock_timestamp() - a.query_start)::float8 as seconds
  from pg_stat_activity a
 where a.datname = current_database() and a.pid <> pg_backend_pid() and a.state = 'active'
   and a.application_name = left('pyreplica ' || $1::text, 63)
   and a.wait_event_type in ('IPC', 'Lock', 'Client', 'Extension', 'BufferPin')
   and coalesce(has_table_privilege(a.usesysid, to_regclass($2::text), 'update'), false)
   and clock_timestamp() - a.query_start > make_interval(secs => $3)
 order by a.query_start limit 1
