-- How far a slave is behind. The query reads two limited parts of the log: the oldest rows that may still be pending, and the
-- newest rows. "l.replicated" stands for the slave's own column. Of a transaction that goes on beyond "last" it does not count
-- the rows up to there. Its further rows wait and are as old, so both that something waits and since when is right.
--   $1  text    the slave's column
--   $2  bigint  read this many of the oldest rows at most
with slave as (
    select s.batch, s.ts, s.base, s.current, s.last, coalesce(s.floor, 0) as floor
      from (select $1::text::name as field) f left join public.replica_slave s using (field)),
oldest as (
    select l.id, l.ts, not coalesce(l.replicated, true)
                       and not public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last) as pending
      from slave s
      cross join lateral (select * from public.replica_log l where l.id > s.floor order by l.id limit $2) l),
-- Whether "oldest" has reached its limit, and the highest id that it has read.
edge as (select count(*) >= $2 as is_cut, coalesce(max(id), 0) as id from oldest),
newest as (
    select l.id, l.ts, not coalesce(l.replicated, true)
                       and not public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last) as pending
      from slave s
      cross join lateral (select * from public.replica_log l order by l.id desc limit 1000) l),
-- While the daemon replays a long backlog, all rows of "oldest" may have been replayed. Then this is the next row to replay.
middle as (
    select l.ts, true as pending from slave s
      cross join lateral (select * from public.replica_log l where l.id > s.last order by l.id limit 1) l
     where not exists (select from oldest where pending))
select coalesce(s.batch, 0) as batch, s.ts::timestamptz(0)::text as replayed_at, s.last,
       extract(epoch from clock_timestamp() - s.ts)::float8 as idle,
       coalesce(o.pending, 0) as pending, e.is_cut, e.id as seen, coalesce(n.lowest, 0) as lowest,
       coalesce(n.highest, 0) as highest, coalesce(n.pending, 0) as newest,
       extract(epoch from clock_timestamp() - case when o.pending > 0 then o.since when n.pending > 0 then m.since end)::float8
           as seconds,
       (select l.txid::text from public.replica_log l where l.id = s.last limit 1) as txid,
       pg_total_relation_size('public.replica_log') as size, now()::timestamptz(0)::text as now
  from slave s
  cross join edge e
  cross join (select count(*) filter (where pending) as pending, min(ts) filter (where pending) as since from oldest) o
  cross join (select count(*) filter (where n.pending and (not e.is_cut or n.id > e.id)) as pending, min(n.id) as lowest,
                     max(n.id) as highest from newest n, edge e) n
  cross join (select min(ts) as since from middle) m
