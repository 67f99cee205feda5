-- Gives the transactions of a restored log new numbers, in the order of replay. They are lower than the number of any
-- transaction of this cluster in the log. If there are too few numbers, neighbouring transactions share one.
--   $1  bigint  the highest id that was restored
--   $2  bigint  the highest number to use
update public.replica_log l
   set txid = (1 + g.place * least(g.transactions, $2) / g.transactions)::text::xid8
  from (select txid, row_number() over (order by max(id)) - 1 as place, count(*) over () as transactions
          from public.replica_log
         where id <= $1
         group by txid) g
 where l.id <= $1 and l.txid = g.txid
