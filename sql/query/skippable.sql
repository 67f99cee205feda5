-- Changes of the log that an operator wants to skip, single ones or whole transactions, and whether it is too late to skip them.
-- "public" stands for hstore's own schema, "l.replicated" for the slave's own column.
--   $1  text      the slave's column, which names its row in replica_slave
--   $2  bigint[]  ids of changes
--   $3  bigint[]  numbers of transactions
select l.id, l.txid::text::bigint as txid, left(public.py_log_sql(l), 2000) as sql, coalesce(l.replicated, true) as is_flagged,
       public.py_log_is_replayed((select max(t.id) from public.replica_log t where t.txid = l.txid and t.id >= l.id), l.txid,
                                 s.base, s.current, s.last) as is_replayed
  from (select $1::text::name as field) f
  left join public.replica_slave s using (field)
  cross join public.replica_log l
 where l.id = any ($2::bigint[]) or l.txid = any ($3::bigint[]::text[]::xid8[]) and l.id > coalesce(s.floor, 0)
 order by l.id
