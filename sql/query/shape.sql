-- The shape of an object: what its definition consists of, as parts in no special order. Two objects of the same parts are alike.
-- NULL for kinds of objects whose shape nobody asks for. It fails if there is no such object. What the triggers of pyreplica add is
-- left out, and NOT NULL is said once in all versions.
--   $1  text    the kind of the object, and
--   $2  text[]  its names and
--   $3  text[]  its arguments, as pg_identify_object_as_address says them
select nullif(case a.classid
    when 'pg_class'::regclass then array(
        select 'kind ' || case c.relkind when 'p' then 'r' when 'I' then 'i' else c.relkind::text end from pg_class c where c.oid = a.objid
        union all
        select format('column %I %s%s%s%s%s', t.attname, format_type(t.atttypid, t.atttypmod), case when t.attnotnull then ' not null' end,
                      ' identity ' || nullif(t.attidentity::text, ''), ' generated ' || nullif(t.attgenerated::text, ''),
                      ' default ' || pg_get_expr(d.adbin, d.adrelid))
          from pg_attribute t left join pg_attrdef d on d.adrelid = t.attrelid and d.adnum = t.attnum
         where t.attrelid = a.objid and t.attnum > 0 and not t.attisdropped
        union all
        select format('constraint %I %s', conname, pg_get_constraintdef(oid)) from pg_constraint
         where conrelid = a.objid and contype <> 'n'
        union all
        select pg_get_indexdef(indexrelid) from pg_index where a.objid in (indrelid, indexrelid)
        union all
        select 'view ' || pg_get_viewdef(c.oid) from pg_class c where c.oid = a.objid and c.relkind in ('v', 'm')
        union all
        select 'bound ' || pg_get_expr(c.relpartbound, c.oid) from pg_class c where c.oid = a.objid and c.relispartition)
    when 'pg_type'::regclass then array(
        select format('type %s of %s default %s', t.typtype, format_type(t.typbasetype, t.typtypmod), t.typdefault) from pg_type t where t.oid = a.objid
        union all
        select format('label %L', enumlabel) from pg_enum where enumtypid = a.objid
        union all
        select format('constraint %I %s', conname, pg_get_constraintdef(oid)) from pg_constraint where contypid = a.objid and contype <> 'n'
        union all
        select format('column %I %s', t.attname, format_type(t.atttypid, t.atttypmod))
          from pg_type y join pg_attribute t on t.attrelid = y.typrelid and t.attnum > 0 and not t.attisdropped where y.oid = a.objid)
    when 'pg_proc'::regclass then array(select pg_get_functiondef(oid) from pg_proc where oid = a.objid and prokind <> 'a')
    when 'pg_namespace'::regclass then array['schema']
    when 'pg_extension'::regclass then array['extension']
    when 'pg_trigger'::regclass then array[pg_get_triggerdef(a.objid)]
    when 'pg_rewrite'::regclass then array[pg_get_ruledef(a.objid)]
    when 'pg_policy'::regclass then array(
        select format('%s %s %s using %s check %s', polpermissive, polcmd, polroles = '{0}', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
          from pg_policy where oid = a.objid)
    end, '{}'::text[]) as shape
  from pg_get_object_address($1::text, $2::text[], $3::text[]) a
