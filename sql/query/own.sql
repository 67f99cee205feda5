-- The objects that pyreplica has created in a database outside the schema pyreplica: catalog and oid of each, as pg_restore
-- --list shows them. They do not belong to the application's schema.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
with functions as (
    select oid from pg_proc where pronamespace = to_regnamespace('public') and starts_with(proname, 'py_log_')
), triggers as (
    select t.oid, t.tgrelid from pg_trigger t
     where t.tgfoid in (select oid from functions)
        or t.tgfoid in (select oid from pg_proc where pronamespace = to_regnamespace('pyreplica'))
), relations as (
    select c.oid from pg_class c
     where c.relnamespace = to_regnamespace('public') and c.relname = any (array['replica_log'])
    union
    select d.objid from pg_depend d join pg_class c on c.oid = d.refobjid
     where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
       and c.relnamespace = to_regnamespace('public') and c.relname = any (array['replica_log'])
       and d.objid in (select oid from pg_class where relkind = 'S')
)
select 'pg_proc'::regclass::oid as catalog, oid from functions
union all
select 'pg_trigger'::regclass::oid, oid from triggers
union all
select 'pg_class'::regclass::oid, oid from relations
union all
select 'pg_class'::regclass::oid, indexrelid from pg_index where indrelid in (select oid from relations)
union all
select 'pg_constraint'::regclass::oid, oid from pg_constraint where conrelid in (select oid from relations)
union all
select 'pg_attrdef'::regclass::oid, oid from pg_attrdef where adrelid in (select oid from relations)
union all
select 'pg_event_trigger'::regclass::oid, oid from pg_event_trigger
 where evtfoid in (select oid from pg_proc where pronamespace = to_regnamespace('pyreplica'))
union all
-- Filters in Python need it on the master. The slave may not have it, and only a superuser may create it there.
select 'pg_extension'::regclass::oid, x.oid from pg_extension x
 where x.extname = 'plpython3u'
   and not exists (select from pg_proc p join pg_language l on l.oid = p.prolang and l.lanname = x.extname
                    where p.oid not in (select oid from functions)
                      and p.pronamespace <> coalesce(to_regnamespace('pyreplica'), 0))
