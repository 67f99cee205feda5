-- The rights that the daemon's role lacks to read the log and set its flags, as the statements that grant them. If no right is
-- missing, the query returns no row.
select format('GRANT %s ON %s TO %I;', upper(r.privilege), r.relation, current_user)
  from (values
      ('public.replica_log', 'select'), ('public.replica_log', 'delete'),
      ('public.replica_slave', 'select'), ('public.replica_slave', 'insert'), ('public.replica_slave', 'update'),
      ('public.replica_history', 'select'), ('public.replica_history', 'insert'),
      ('public.replica_history', 'update'), ('public.replica_history', 'delete'),
      ('public.replica_purged', 'select'), ('public.replica_purged', 'insert'), ('public.replica_purged', 'update'),
      ('public.replica_skipped', 'select'), ('public.replica_skipped', 'insert')
  ) r (relation, privilege)
 where not has_table_privilege(r.relation, r.privilege)
union all
select format('GRANT UPDATE (%s) ON public.replica_log TO %I;', string_agg(quote_ident(attname), ', ' order by attnum), current_user)
  from pg_attribute
 where attrelid = to_regclass('public.replica_log') and attnum > 0 and not attisdropped
   and (attname = 'txid' or atttypid = 'boolean'::regtype)
   and not has_column_privilege(attrelid, attnum, 'update')
having count(*) > 0
union all
select format('GRANT USAGE ON SEQUENCE public.replica_batch_seq TO %I;', current_user)
 where not has_sequence_privilege('public.replica_batch_seq', 'usage')
union all
select format('GRANT EXECUTE ON FUNCTION public.py_log_can_wake(text) TO %I;', current_user)
 where not has_function_privilege('public.py_log_can_wake(text)', 'execute')
union all
select format('GRANT EXECUTE ON FUNCTION public.py_log_forget() TO %I;', current_user)
 where not has_function_privilege('public.py_log_forget()', 'execute')
