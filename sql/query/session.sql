-- Every session of the daemon: text as the trigger logs it, no time-out but that of locks, no policy that hides rows,
-- and a server that notices a dead daemon. Where others may create functions in public, one of theirs may fit a call better
-- than PostgreSQL's own: those are not looked at. Names are written as pg_settings does; those that this version of
-- PostgreSQL lacks are passed over.
--   $1  text  what the trigger notes as the origin of changes made in this session
select pg_catalog.set_config(s.name, v.setting, false)
  from (values
      ('search_path', 'pg_catalog, pg_temp'), ('client_min_messages', 'warning'), ('standard_conforming_strings', 'on'), ('DateStyle', 'ISO, YMD'),
      ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('lc_monetary', 'C'),
      ('xmloption', 'content'), ('statement_timeout', '0'), ('lock_timeout', '10s'),
      ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'),
      ('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off'),
      ('row_security', 'off'), ('check_function_bodies', 'off'), ('jit', 'off'), ('tcp_keepalives_idle', '10'),
      ('tcp_keepalives_interval', '3'), ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '20000')
  ) v (name, setting)
  join pg_catalog.pg_settings s on s.name operator(pg_catalog.=) v.name
union all
select pg_catalog.set_config('pyreplica.origin', $1, false)
