-- Has the log come here by a dump from a cluster with other transaction numbers? The highest id that it came with, and up
-- to which number its transactions can be renumbered. No row if every number is from here.
--
-- Whoever logs a change has its transaction's number before the row is written, so the number is never above the row's
-- xmin; of a row that was restored it may be. What else the restore has written is known by its xmin then, and what has
-- been logged since by its higher id.
with log as (
    select id, number, written - case when written >= next then 4294967296 else 0 end as written
      from (select l.id, l.txid::text::bigint as number, s.next,
                   s.next - s.next % 4294967296 + l.xmin::text::bigint as written
              from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next) s, public.replica_log l) x)
select r.last,
       greatest(1, least((select min(number) from log where id > r.last),
                         pg_snapshot_xmin(pg_current_snapshot())::text::bigint) - 1) as numbers
  from (select max(id) as last from log where written <= (select max(written) from log where number > written)) r
 where r.last is not null
