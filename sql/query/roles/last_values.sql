-- Each sequence of this database that gives values to a column, and the query for the column's outermost value, in the direction
-- in which the sequence counts.
select format('%I.%I', n.nspname, c.relname) as sequence,
       format('select %s(%I)::text from %I.%I', case when q.seqincrement < 0 then 'pg_catalog.min' else 'pg_catalog.max' end,
              a.attname, tn.nspname, t.relname) as query
  from pg_sequence q
  join pg_class c on c.oid = q.seqrelid
  join pg_namespace n on n.oid = c.relnamespace
  join (select d.objid as sequence, d.refobjid as relation, d.refobjsubid as attnum from pg_depend d
         where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
        union
        -- A default that calls nextval of a sequence that no column owns.
        select d.refobjid, ad.adrelid, ad.adnum from pg_depend d join pg_attrdef ad on d.classid = 'pg_attrdef'::regclass and ad.oid = d.objid
         where d.refclassid = 'pg_class'::regclass) u on u.sequence = q.seqrelid
  join pg_class t on t.oid = u.relation and t.relkind in ('r', 'p') and not t.relispartition
  join pg_namespace tn on tn.oid = t.relnamespace
  join pg_attribute a on a.attrelid = t.oid and a.attnum = u.attnum and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
 where not (n.nspname = 'public' and c.relname in ('replica_log_id_seq', 'replica_batch_seq')) and n.nspname <> 'pyreplica'
   and not (tn.nspname = 'public' and t.relname ~ '^replica_')
