-- Each sequence of this database that gives values to a column, and the query for the column's outermost value, in the direction
-- in which the sequence counts, and whether there are values further out. They are so near the end of the sequence that one of them
-- would use its numbers up. A short sequence has no such values.
-- Every role may give a column of its own a default that names the sequence of another one, and any value: "may_set" says whether the
-- column's owner could set the sequence himself.
--   $1  bigint  how many numbers a sequence leaves out
select format('%I.%I', n.nspname, c.relname) as sequence,
       format('select (select %1$s(%2$I)::text from %3$I.%4$I where %2$I %5$s %6$L::bigint), '
              '(exists (select from %3$I.%4$I where not %2$I %5$s %6$L::bigint and %2$I %5$s %7$L::bigint))::text',
              case when q.seqincrement < 0 then 'pg_catalog.min' else 'pg_catalog.max' end, a.attname, tn.nspname, t.relname,
              case when q.seqincrement < 0 then '>=' else '<=' end,
              e.last - case when e.length > 10 * abs(e.gap) then 2 * e.gap else 0 end, e.last) as query,
       format('%I.%I.%I', tn.nspname, t.relname, a.attname) as column, has_sequence_privilege(t.relowner, c.oid, 'update') as may_set
  from pg_sequence q
  join pg_class c on c.oid = q.seqrelid
  join pg_namespace n on n.oid = c.relnamespace
 cross join lateral (select case when q.seqincrement < 0 then q.seqmin else q.seqmax end::numeric as last,
                            q.seqincrement::numeric * $1::bigint as gap, q.seqmax::numeric - q.seqmin as length) e
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
   and has_sequence_privilege(t.relowner, c.oid, 'usage, update')
