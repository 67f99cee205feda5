-- The materialized views that hold rows, each after those that it reads.
with recursive views as (
    select c.oid, format('%I.%I', n.nspname, c.relname) as name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'm' and c.relispopulated
), reads as (
    select distinct r.ev_class as view, d.refobjid as other
      from pg_rewrite r
      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
      join pg_class c on c.oid = d.refobjid and c.relkind in ('v', 'm')
     where d.refobjid <> r.ev_class
), depth as (
    select oid, oid as reached, 0 as depth from views
    union
    select d.oid, r.other, d.depth + 1 from depth d join reads r on r.view = d.reached where d.depth < 100
)
select v.name from views v join depth d on d.oid = v.oid group by v.oid, v.name order by max(d.depth), v.oid
