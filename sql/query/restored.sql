-- Has the log been restored here from a dump of a cluster with other transaction numbers? If so, the query returns the highest
-- id that was restored, and the highest number that its transactions can be renumbered to. If all numbers are from this
-- cluster, it returns no row.
--
-- When a transaction logs a change it has its number already. So the number of a row is never greater than the row's xmin;
-- in a restored row it may be. The xmin of such a row shows which other rows the restore has written. Rows that were logged
-- after the restore have higher ids.
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
