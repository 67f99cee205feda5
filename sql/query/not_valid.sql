-- The checks of tables and domains that are NOT VALID, which rows may violate. A copy adds them after the rows, as pg_restore does.
-- Each has its oid, the statement that adds it, and the text by which a list of pg_restore names a comment on it.
select o.oid::bigint, format('ALTER %s %s ADD CONSTRAINT %I %s', x.kind, x.name, o.conname, pg_get_constraintdef(o.oid)) as statement,
       format(' COMMENT %s CONSTRAINT %I ON %s%I ', n.nspname, o.conname, case when o.contypid <> 0 then 'DOMAIN ' end, x.plain)
           as comment,
       n.nspname::text as schema, x.plain::text as plain, o.conname::text as name
  from pg_constraint o
  left join pg_class c on c.oid = o.conrelid
  left join pg_type t on t.oid = o.contypid
  join pg_namespace n on n.oid = coalesce(c.relnamespace, t.typnamespace)
 cross join lateral (
      select case when o.contypid <> 0 then 'DOMAIN' else 'TABLE' end as kind, coalesce(c.relname, t.typname) as plain,
             format('%I.%I', n.nspname, coalesce(c.relname, t.typname)) as name) x
 where o.contype = 'c' and not o.convalidated and o.conislocal and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
 order by o.oid
