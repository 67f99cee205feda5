-- Triggers that log, but not all changes, or in the wrong order, or twice. The trigger on a partition is a copy of its root's.
with logging as (
    select t.tgrelid, t.tgname, t.tgenabled, t.tgtype, t.tgqual, t.tgparentid, t.tgrelid::regclass as relation,
           t.tgname = '!replica_tg' or p.proname = 'by_partition' as own
      from pg_trigger t
     -- Not with to_regprocedure, which fails if the role has no USAGE on the schema.
      join pg_proc p on p.oid = t.tgfoid
      join pg_namespace n on n.oid = p.pronamespace
     where (n.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition'),
                                      ('pyreplica', 'begin_statement'), ('pyreplica', 'end_statement')))
select 'failure' as level, 'disabled triggers' as subject,
       format('trigger %s on %s is disabled: changes are not logged', quote_ident(tgname), relation) as text,
       array[format('ALTER TABLE %s ENABLE TRIGGER %I;', relation, tgname)] as fixes,
       'what was changed meanwhile is not in the log: compare the tables' as advice
  from logging
 where tgenabled in ('D', 'R')
union all
select 'warning', 'trigger order',
       format('trigger %s on %s fires before %s, which logs: what it writes is logged before the row that made it',
              quote_ident(t.tgname), l.relation, quote_ident(l.tgname)),
       array[case when l.own then
           format('ALTER TRIGGER %I ON %s RENAME TO %I;', t.tgname, l.relation, left('a' || t.tgname, 63))
       else format('ALTER TRIGGER %I ON %s RENAME TO %I;', l.tgname, l.relation, left('!' || l.tgname, 63)) end], null
  from logging l
  join pg_trigger t on t.tgrelid = l.tgrelid and not t.tgisinternal and t.tgtype & 3 = 1 and t.tgparentid = 0
   and t.tgname < l.tgname and t.tgenabled <> 'D'
 where l.tgtype & 3 = 1 and l.tgparentid = 0
   and not exists (select from logging o where o.tgrelid = t.tgrelid and o.tgname = t.tgname)
union all
select 'warning', 'superfluous triggers',
       format('trigger %s on %s is superfluous: another trigger logs the same changes', quote_ident(l.tgname), l.relation),
       array[format('DROP TRIGGER %I ON %s;', l.tgname, l.relation)], null
  from logging l
 where not l.own and l.tgqual is null and l.tgtype & 1 = 1 and l.tgparentid = 0 and l.tgenabled in ('O', 'A')
   and exists (select from logging o where o.tgrelid = l.tgrelid and o.tgtype & l.tgtype & 28 <> 0 and o.tgtype & 1 = 1
                                       and o.tgqual is null and o.tgenabled in ('O', 'A')
                                       and (o.own or o.tgname < l.tgname))
union all
select 'warning', 'handing on',
       format('%s is not handed on to the next slave, while other tables are', l.relation),
       array[format('ALTER TABLE %s %s;', l.relation, string_agg(format('ENABLE ALWAYS TRIGGER %I', l.tgname), ', '))], null
  from logging l
 where l.tgenabled = 'O' and l.tgparentid = 0
   and exists (select from logging o where o.own and o.tgenabled = 'A' and o.tgparentid = 0)
 group by l.relation
 order by 2, 3
