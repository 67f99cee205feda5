-- The next pending rows of a long backlog, in order of id, without their payload: those that one snapshot shows, save
-- the transactions that spread too far to be read as a whole.
--   $1  bigint    look above this id only
--   $2  name      SKIP_USER, or NULL
--   $3  text      the slave database's identity
--   $4  bigint    read this many rows at most
--   $5  text      the snapshot
--   $6  bigint[]  transactions to leave out
select l.id, l.txid::text::bigint as txid,
       coalesce(pg_column_size(l.old), 0) + coalesce(pg_column_size(l.new), 0)
           + coalesce(pg_column_size(l.sql), 0) as size,
       coalesce(l.username = $2, false) or coalesce(l.origin = $3, false) as skip
  from public.replica_log l
 where not replicated and l.id > $1
   and pg_visible_in_snapshot(l.txid, $5::text::pg_snapshot)
   and l.txid::text::bigint <> all ($6)
 order by l.id
 limit $4
