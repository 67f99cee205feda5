-- The settings of every session of the daemon. Values are written as text like the trigger logs them, and read so, whatever
-- the role or the database has set: with array_nulls = off, the NULLs of an array would be texts. There is no time-out
-- except for locks. Row security must not hide rows. The server must notice when the daemon's machine has failed. The search
-- path leaves out public: if other roles may create functions there, one of theirs may match a call better than PostgreSQL's
-- own. Settings that this version of PostgreSQL does not have are skipped; to ask pg_settings for them would take longer than
-- all the rest.
-- On the master a session reads no view: the owner of a table may put one in its place at any moment, and its functions would
-- run with the rights of the session. Older minor versions lack this setting.
--   $1  text     the origin that the trigger records for changes made in this session
--   $2  boolean  whether it reads no view
select pg_catalog.set_config(v.name, v.setting, false)
  from (values
      ('search_path', 'pg_catalog, pg_temp'), ('quote_all_identifiers', 'off'), ('client_min_messages', 'warning'),
      ('standard_conforming_strings', 'on'), ('backslash_quote', 'safe_encoding'), ('escape_string_warning', 'off'),
      ('array_nulls', 'on'), ('transform_null_equals', 'off'), ('exit_on_error', 'off'), ('DateStyle', 'ISO, YMD'),
      ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('lc_monetary', 'C'), ('xmlbinary', 'base64'),
      ('xmloption', 'content'), ('statement_timeout', '0'), ('lock_timeout', '10s'),
      ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'),
      ('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off'), ('default_transaction_deferrable', 'off'),
      ('row_security', 'off'), ('check_function_bodies', 'off'), ('jit', 'off'), ('tcp_keepalives_idle', '10'),
      ('tcp_keepalives_interval', '3'), ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '20000')
  ) v (name, setting)
 where pg_catalog.current_setting(v.name, true) is not null
union all
select pg_catalog.set_config('pyreplica.origin', $1, false)
union all
select pg_catalog.set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', false)
 where $2 and pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) is not null
