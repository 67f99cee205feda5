-- The changes of a former master that its slave, which is the master now, does not have, as SQL: whole transactions in the order of
-- replay. "l.replicated" stands for the slave's own column.
--   $1  text  the slave's column, which names its row in replica_slave
--   $2  text  the slave database's identity: what came from there is not lost
select w.id, w.txid::text::bigint as txid, w.ts::text as ts, w.username::text as username, public.py_log_sql(w.whole) as sql,
       w.id = w.first as begins, w.id = w.last as ends
  from (select l as whole, l.id, l.txid, l.username, l.ts, max(l.id) over t as last, min(l.id) over t as first,
               coalesce(l.replicated, true) or coalesce(l.origin = $2, false) as skip, s.last as passed, s.base, s.current
          from public.replica_slave s
          join public.replica_log l on l.id > coalesce(s.floor, 0) and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false)
         where s.field = $1::text::name
        window t as (partition by l.txid)) w
 where not w.skip and not public.py_log_is_replayed(w.last, w.txid, w.base, w.current, w.passed)
 order by w.last, w.id
