-- What a database has that is never replicated, with its number: one row, or none. Tables without a key and unlogged tables have findings of
-- their own.
with counts (what, number, n) as (
    select 'materialized views', count(*), 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'm' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    union all
    select 'large objects', count(*), 2 from pg_largeobject_metadata
    union all
    select 'configuration tables of extensions', count(distinct x.id), 3 from pg_extension e cross join unnest(e.extconfig) x (id)
    union all
    select 'foreign tables', count(*), 4 from pg_class c where c.relkind = 'f'
    union all
    select 'tables that belong to an extension', count(*), 5 from pg_class c
     where c.relkind in ('r', 'p') and exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                                 and d.deptype = 'e'))
select 'note' as level, 'not replicated' as subject,
       'these are not replicated: ' || string_agg(number || ' ' || what, ', ' order by n) as text, null::text[] as fixes,
       'refresh materialized views on the slave, and copy the others by hand if the slave needs them' as advice
  from counts where number > 0 having count(*) > 0
