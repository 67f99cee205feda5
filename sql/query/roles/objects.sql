-- What a database has of its schema, without what belongs to an extension or to pyreplica: the kind of each object, and its name
-- as the other database would have it. An index is named by what it is on.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
with member as (
    select classid, objid from pg_depend where deptype = 'e'
), relations as (
    select c.* from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pyreplica') and c.relpersistence <> 't'
       and (n.nspname <> 'public' or c.relname <> all (array['replica_log']))
       and (c.oid not in (select objid from member where classid = 'pg_class'::regclass))
), named as (
    select c.oid, format('%I.%I', c.relnamespace::regnamespace::text, c.relname) as name, c.relkind, c.relispartition from relations c
)
select 'extension' as kind, quote_ident(extname) as name from pg_extension where extname <> 'plpgsql'
union all
select 'schema', quote_ident(nspname) from pg_namespace n
 where nspname !~ '^pg_' and nspname not in ('information_schema', 'pyreplica')
   and oid not in (select objid from member where classid = 'pg_namespace'::regclass)
union all
select 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pyreplica')
   and not (n.nspname = 'public' and starts_with(p.proname, 'py_log_'))
   and p.oid not in (select objid from member where classid = 'pg_proc'::regclass)
union all
select case r.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table' end, r.name
  from named r where r.relkind in ('v', 'm', 'S', 'f') and not (r.relkind = 'S' and exists (
       -- Those of an identity column or a serial come with their table, maybe under another name.
       select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.deptype in ('a', 'i')))
union all
select 'trigger', format('%I on %s', t.tgname, r.name)
  from pg_trigger t join named r on r.oid = t.tgrelid
 where not t.tgisinternal and t.tgparentid = 0 and t.tgenabled <> 'D' and t.tgname !~ '^!replica_'
   and t.tgfoid not in (select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                         where n.nspname = 'pyreplica' or n.nspname = 'public' and starts_with(p.proname, 'py_log_'))
union all
select 'index', regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE (UNIQUE )?INDEX .*? ON (ONLY )?', '\1ON ')
  from pg_index i join named r on r.oid = i.indrelid
 where r.relkind in ('r', 'p') and not r.relispartition and i.indisvalid
union all
select 'policy', format('%I on %s', p.polname, r.name) from pg_policy p join named r on r.oid = p.polrelid
union all
-- Also those with which schema changes travel.
select 'event trigger', quote_ident(evtname) from pg_event_trigger
 where oid not in (select objid from member where classid = 'pg_event_trigger'::regclass)
