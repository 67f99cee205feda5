-- The next rows of one transaction that spreads too far to be read as a whole, without their payload. "l.replicated"
-- stands for the slave's own column.
--   $1  bigint  look above this id only
--   $2  name    SKIP_USER, or NULL
--   $3  text    the slave database's identity
--   $4  bigint  read this many rows at most
--   $5  text    the transaction
--   $6  bigint  its last id
select l.id, l.txid,
       coalesce(pg_column_size(l.old), 0) + coalesce(pg_column_size(l.new), 0)
           + coalesce(pg_column_size(l.sql), 0) as size,
       coalesce(l.replicated, true) or coalesce(l.username = $2, false) or coalesce(l.origin = $3, false) as skip
  from public.replica_log l
 where l.id > $1 and l.id <= $6
   and l.txid = $5::text::xid8
 order by l.id
 limit $4
