-- Whether schema changes travel from this master: at most one row, none if they do.
with triggers as (
    select count(*) as number, count(*) filter (where e.evtenabled = 'A') as enabled,
           bool_or(p.proowner <> (select relowner from pg_class where oid = to_regclass('public.replica_log'))) as is_strange
      from pg_event_trigger e
      join pg_proc p on p.oid = e.evtfoid
      join pg_namespace n on n.oid = p.pronamespace and n.nspname = 'pyreplica'
     where p.proname in ('ddl_script', 'ddl_drop', 'ddl_who', 'ddl_end')
)
select case number when 0 then 'note' else 'warning' end as level, 'schema changes' as subject,
       case when number = 0 then 'they do not travel: each has to be made on the slave too'
            when is_strange then 'the functions of the event triggers do not belong to the owner of the log'
            else 'event triggers of pyreplica are missing or disabled, so they do not travel' end as text,
       null::text[] as fixes,
       'docs/ddl.md; as a superuser: psql -f sql/master-install-ddl.sql, or pyreplica install --ddl DSN0' as advice
  from triggers where number <> 6 or enabled <> 6 or is_strange
