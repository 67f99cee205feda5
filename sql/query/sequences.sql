-- The sequences of a database that are not pyreplica's own. "array['replica_log']" stands for all of pyreplica's tables.
--   $1  text[]  only those that belong to columns of these tables, or NULL for all
select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as sequence, c.oid, s.seqincrement as increment,
       has_sequence_privilege(c.oid, 'select') as readable
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_sequence s on s.seqrelid = c.oid
  left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
                           and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
  left join pg_class o on o.oid = d.refobjid
 where c.relkind = 'S' and c.relpersistence <> 't'
   and not (n.nspname = 'public' and (c.relname in ('replica_log_id_seq', 'replica_batch_seq')
                                      or coalesce(o.relname = any (array['replica_log']), false)))
   and ($1::text[] is null or d.refobjid = any (array(select to_regclass(r.name)::oid from unnest($1::text[]) r (name))))
 order by 1
