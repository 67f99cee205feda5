-- Transactions that have logged changes and have not ended, prepared ones too. Their changes are not visible before they end.
select count(*) as transactions,
       coalesce(max(extract(epoch from clock_timestamp() - coalesce(a.xact_start, p.prepared))), 0)::float8 as seconds
  from pg_locks l
  left join pg_stat_activity a on a.pid = l.pid
  left join pg_prepared_xacts p on l.virtualtransaction = '-1/' || p.transaction::text
 where l.locktype = 'relation' and l.relation = 'public.replica_log'::regclass and l.mode = 'RowExclusiveLock' and l.granted
   and l.database = (select oid from pg_database where datname = current_database())
   -- Without the daemons, which set flags in the log. daemon.sql says why their role is asked for.
   and not exists (select from pg_locks d
                    join pg_roles r on pg_has_role(a.usesysid, r.oid, 'member')
                         and has_table_privilege(r.oid, 'public.replica_slave', 'update')
                    where d.pid = l.pid and d.locktype = 'advisory' and d.classid = 1887007333)
