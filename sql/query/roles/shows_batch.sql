-- Whether the log of a former master still shows the last batch of its slave, which is the master now, and has not been begun anew
-- since. A database that was restored may give the same ids and transaction numbers to other changes, but these are written later
-- than the batch, and after the server was started. The clocks of the two servers may differ a little.
--   $1  text    what the slave has: a snapshot whose transactions have all been replayed, or NULL
--   $2  text    the snapshot up to which it was replaying, or NULL
--   $3  bigint  the id with which the batch ended
--   $4  bigint  no row that one of the snapshots shows has a higher id
--   $5  bigint  the slave has replayed everything up to this id before
--   $6  text    when the slave wrote the batch
select coalesce(bool_or(l.id = $3), false)
       and bool_and(l.id <= $4 and coalesce(l.ts < least(pg_postmaster_start_time(), $6::text::timestamptz + interval '10 s'), false)) as shows
  from public.replica_log l
 where l.id > $5
   and (coalesce(pg_visible_in_snapshot(l.txid, $1::text::pg_snapshot), false)
        or coalesce(pg_visible_in_snapshot(l.txid, $2::text::pg_snapshot), false))
