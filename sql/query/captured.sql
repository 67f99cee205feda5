-- The tables on the master whose changes are logged: those with a trigger that calls py_log_replica, each as the log names
-- it. The trigger that a partition has inherited from its root does not count.
select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as relation, n.nspname::text as schema,
       c.relname::text as name, c.relkind = 'p' as partitioned,
       -- Its owner has not renamed it since the triggers were created.
       public.py_log_knows(quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.oid) as known,
       -- Somebody has made the trigger by hand with a WHEN condition: a copy cannot know which rows it selects.
       bool_and(t.tgqual is not null and t.tgname <> '!replica_tg') as conditional
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid
  join pg_namespace n on n.oid = c.relnamespace
 where t.tgfoid in (select p.oid from pg_proc p join pg_namespace f on f.oid = p.pronamespace
                     where (f.nspname, p.proname) in (('public', 'py_log_replica'), ('pyreplica', 'by_partition')))
   and t.tgtype & 1 = 1 and t.tgparentid = 0 and t.tgenabled <> 'D'
 group by c.oid, n.nspname, c.relname, c.relkind
 order by 1
