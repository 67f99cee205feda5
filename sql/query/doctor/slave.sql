-- What on the slave would refuse replayed changes, or add changes to them.
--   $1  text[]   the schemas of the tables that the master logs
--   $2  boolean  the daemon may set the replica role
--   $3  text[]   the names of these tables
with logged as (
    -- Not with to_regclass, which fails if the role has no USAGE on the schema.
    select c.oid, format('%I.%I', r.schema, r.name) as relation, n.nspname from unnest($1::text[], $3::text[]) r (schema, name)
      join pg_namespace n on n.nspname = r.schema
      join pg_class c on c.relnamespace = n.oid and c.relname = r.name)
select 'failure' as level, 'rights' as subject, format('the role lacks rights on %s', l.relation) as text,
       array[format('GRANT %s ON %s TO %I;', string_agg(upper(p.privilege), ', ' order by p.n), l.relation, current_user)] as fixes,
       null as advice
  from logged l
  cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate']) with ordinality p (privilege, n)
 where not has_table_privilege(l.oid, p.privilege)
 group by l.relation
union all
select distinct 'failure', 'rights', format('the role may not use the schema %s', quote_ident(l.nspname)),
       array[format('GRANT USAGE ON SCHEMA %I TO %I;', l.nspname, current_user)], null
  from logged l
 where not has_schema_privilege(l.nspname, 'usage')
union all
select 'failure', 'row security', format('row-level security of %s would refuse every change', l.relation),
       array[format('ALTER ROLE %I BYPASSRLS;', current_user)], null
  from logged l
 where has_schema_privilege(l.nspname, 'usage') and row_security_active(l.oid)
union all
select case when $2 then 'note' else 'warning' end, 'slave triggers',
       format('trigger %s on %s fires for replayed changes', quote_ident(t.tgname), l.relation),
       array[case when $2 then format('ALTER TABLE %s ENABLE TRIGGER %I;', l.relation, t.tgname)
                  else format('ALTER TABLE %s DISABLE TRIGGER %I;', l.relation, t.tgname) end],
       case when $2 then 'unless it is meant to: then it fires no more for replayed changes'
            else 'unless it is meant to; what it writes to replicated tables is replayed a second time' end
  from logged l
  join pg_trigger t on t.tgrelid = l.oid and not t.tgisinternal and t.tgparentid = 0 and t.tgname !~ '^!replica_'
   and t.tgenabled = any (case when $2 then array['A', 'R'] else array['A', 'O'] end::"char"[])
union all
select 'note', 'slave triggers', format('rule %s on %s is applied to replayed changes', quote_ident(w.rulename), l.relation),
       array[format('ALTER TABLE %s ENABLE RULE %I;', l.relation, w.rulename)], 'unless it is meant to'
  from logged l
  join pg_rewrite w on w.ev_class = l.oid and w.ev_enabled in ('A', 'R') and w.ev_type in ('2', '3', '4')
 where $2
 order by 2, 3
