-- Whether the rows of every transaction lie close together. That is the usual case, and this query is cheaper than the one
-- that finds the transactions whose rows do not (spread.sql).
-- The query divides the log into blocks. A row is in order if its transaction number is not lower than that of the first row of
-- the previous block, and lower than that of the first row two blocks further. If all rows are in order, no transaction has
-- rows more than two blocks apart. The query ends at the first row that is not in order. Rows that have been replayed, or are
-- not in the daemon's snapshot, are read too: they can only make the answer false, which is safe.
--   $1  bigint  look above this id only
--   $2  bigint  the log's last id
--   $3  bigint  the number of ids in a block
select not exists (
    select
      from (select k.above, lag(k.txid) over (order by k.above) as lowest, lead(k.txid, 2) over (order by k.above) as beyond
              from (select g as above,
                           (select l.txid from public.replica_log l where l.id > g order by l.id limit 1) as txid
                      from generate_series($1::bigint, $2::bigint, $3::bigint) g
                    -- OFFSET 0: PostgreSQL looks these rows up once.
                    offset 0) k) b
      cross join lateral (
          select
            from public.replica_log l
           where l.id > b.above and l.id <= b.above + $3 and (l.txid < b.lowest or l.txid >= b.beyond)
           order by l.id
           limit 1) l) as are_close
