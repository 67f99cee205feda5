-- The last value of each sequence of the applications.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
select format('%I.%I', schemaname, sequencename) as name, last_value, increment_by > 0 as rises
  from pg_sequences s
 where last_value is not null
   and (schemaname <> 'public' or sequencename <> all (array['replica_log'])
        and not exists (select from pg_depend d join pg_class o on o.oid = d.refobjid
                         where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
                           and o.relnamespace = 'public'::regnamespace and o.relname = any (array['replica_log'])
                           and d.objid = (select c.oid from pg_class c where c.relnamespace = 'public'::regnamespace
                                                                         and c.relname = s.sequencename)))
 order by 1
