-- Whether every transaction's rows lie close together: the usual case, and cheaper to tell than which ones do not (spread.sql).
-- The log is cut into blocks. If every row belongs to a later transaction than the first row of the block before or to the
-- same, and to an earlier one than the first row of the next block but one, no transaction has rows more than two blocks
-- apart. Ends at the first row that does not; rows that have been replayed, or are not of the drain, do no harm.
--   $1  bigint  look above this id only
--   $2  bigint  the log's last id
--   $3  bigint  the ids of a block
select not exists (
    select
      from (select k.above, lag(k.txid) over (order by k.above) as lowest, lead(k.txid, 2) over (order by k.above) as beyond
              from (select g as above,
                           (select l.txid from public.replica_log l where l.id > g order by l.id limit 1) as txid
                      from generate_series($1::bigint, $2::bigint, $3::bigint) g
                    -- Looked up once.
                    offset 0) k) b
      cross join lateral (
          select
            from public.replica_log l
           where l.id > b.above and l.id <= b.above + $3 and (l.txid < b.lowest or l.txid >= b.beyond)
           order by l.id
           limit 1) l) as are_close
