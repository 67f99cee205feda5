-- What is wrong with the log itself.
--   $1  text  the slave's column
select 'warning' as level, 'log' as subject, 'replica_log has no index on id: every look reads the whole log' as text,
       array['CREATE INDEX replica_log_id ON public.replica_log (id);'] as fixes, null as advice
 where not exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                    where i.indrelid = 'public.replica_log'::regclass and i.indisvalid and i.indpred is null
                      and a.attname = 'id')
union all
select 'note', 'log', format('slave %s has a column in the log and has never replicated: everything is kept for it', a.attname),
       null, format('start its daemon; or, if there is no such slave: SELECT py_log_remove_slave(%L);', a.attname)
  from pg_attribute a
 where a.attrelid = 'public.replica_log'::regclass and a.attnum > 0 and not a.attisdropped
   and a.atttypid = 'boolean'::regtype and a.attname::text <> $1
   and not exists (select from public.replica_slave s where s.field = a.attname and s.batch > 0)
union all
select 'note', 'log', format('replica_log holds %s dead rows and %s live ones', s.n_dead_tup, s.n_live_tup),
       array['VACUUM public.replica_log;'], null
  from pg_stat_user_tables s
 where s.relid = 'public.replica_log'::regclass and s.n_dead_tup > 1000000 + 4 * s.n_live_tup
union all
select 'note', 'log', 'there is no place for the daemon''s errors: status tells less', null,
       'run this version''s sql/master-install.sql, or: pyreplica install DSN0'
 where to_regclass('public.replica_error') is null
union all
select 'note', 'log', 'the role may not leave the daemon''s errors: status tells less',
       array[format('GRANT SELECT, INSERT, UPDATE ON public.replica_error TO %I;', current_user)], 'as its owner'
 where exists (select from unnest(array['select', 'insert', 'update']) privilege
                where not has_table_privilege(to_regclass('public.replica_error')::oid, privilege))
