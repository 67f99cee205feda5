-- The application's tables, and whether each has the triggers that py_log_create_tg would create. Partitions are left out.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select n.nspname::text as schema, c.relname::text as name, format('%I.%I', n.nspname, c.relname) as relation, k.columns as key,
       k.columns is null and c.relreplident <> 'f' as lacks_key,
       (k.columns is not null or c.relreplident = 'f')
       and exists (select from pg_trigger t
                    where t.tgrelid = c.oid and t.tgparentid = 0 and t.tgtype = 29 and t.tgenabled in ('O', 'A') and t.tgargs = a.args
                      and (t.tgqual is null or s.by_statement)
                      and case c.relkind when 'p' then t.tgfoid = 'pyreplica.by_partition()'::regprocedure
                          else t.tgname = '!replica_tg' and t.tgfoid = 'public.py_log_replica()'::regprocedure end)
       and (not s.by_statement
            or (select count(*) = 4 and bool_and(substr(t.tgargs, length(t.tgargs) - length(a.args) + 1) = a.args) from pg_trigger t
                 where t.tgrelid = c.oid and t.tgenabled in ('O', 'A')
                   and t.tgname in ('!replica_begin_tg', '!replica_insert_tg', '!replica_update_tg', '!replica_delete_tg')))
       and not exists (select from unnest(p.all) x (id)
                        where not exists (select from pg_trigger t
                                           where t.tgrelid = x.id and t.tgname = '!replica_truncate_tg' and t.tgargs = a.args
                                             and t.tgenabled in ('O', 'A')))
       -- One that was made by hand, or by the Python original.
       and not exists (select from pg_trigger t
                        where t.tgrelid = any (p.all) and t.tgparentid = 0 and t.tgtype & 1 = 1
                          and t.tgqual is null and t.tgname !~ '^!replica_'
                          and t.tgfoid = 'public.py_log_replica()'::regprocedure) as is_done
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 cross join lateral (select public.py_log_key(c.oid) as columns) k
 cross join lateral (
      select string_agg(convert_to(x.name, getdatabaseencoding()) || '\x00'::bytea, ''::bytea order by x.n) as args
        from unnest(c.relname::text || k.columns) with ordinality x (name, n)) a
 cross join lateral (
      select exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = '!replica_begin_tg') as by_statement) s
 cross join lateral (select c.oid || array(select relid::oid from pg_partition_tree(c.oid) where relid <> c.oid) as "all") p
 where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   and (n.nspname <> 'public' or c.relname <> all (array['replica_log']))
 order by n.nspname, c.relname
