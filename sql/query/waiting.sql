-- What a slave has not replayed yet, as SQL, for people to read; the daemon itself uses pending.sql. The rows are in the order
-- of replay, as far as the first rows of the log show it: a transaction that goes on behind those may be missing. To know that
-- for sure the whole log would have to be read. "l.replicated" stands for the slave's own column.
--   $1  text    the slave's column, which names its row in replica_slave
--   $2  name    SKIP_USER, or NULL
--   $3  text    the slave database's identity
--   $4  bigint  read this many rows of the log
--   $5  bigint  return this many
--   $6  text    a regular expression for the names of the tables to replicate (TABLES), or NULL for all
select w.id, w.txid::text::bigint as txid, w.event::text as event, w.username::text as username, w.ts::text as ts,
       left(public.py_log_sql(w.whole), 2000) as sql, count(*) over () as waiting, w.size, w.reached
  from (select l.whole, l.id, l.txid, l.event, l.username, l.ts, max(l.id) over t as last, count(*) over t as size,
               count(*) over () as reached, coalesce(l.replicated, true) or coalesce(l.username = $2, false)
                   or coalesce(l.origin = $3, false) or coalesce(l.relation !~ $6, $6 is not null) as skip,
               s.last as passed, s.base, s.current
          from (select s.base, s.current, s.last, coalesce(s.floor, 0) as floor
                  from (select $1::text::name as field) f left join public.replica_slave s using (field)
                offset 0) s
          cross join lateral (
              select l as whole, l.id, l.txid, l.event, l.relation, l.username, l.origin, l.ts, l.replicated
                from public.replica_log l
               where l.id > s.floor and not coalesce(pg_visible_in_snapshot(l.txid, s.base), false)
               order by l.id
               limit $4) l
        window t as (partition by l.txid)) w
 where not w.skip and not public.py_log_is_replayed(w.last, w.txid, w.base, w.current, w.passed)
 order by w.last, w.id
 limit $5
