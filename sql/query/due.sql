-- The next rows of the log that the slave has replayed and whose flag must be set. "l.replicated" stands for the slave's
-- own column.
--   $1  bigint  read rows above this id
--   $2  bigint  and up to this one
--   $3  bigint  read this many rows at most
--   $4  text    a snapshot whose transactions have all been replayed, or NULL
--   $5  text    the snapshot up to which the daemon is replaying now, or NULL. Of the transactions that it shows, all rows
--   $6  bigint  up to this id have been replayed,
--   $7  text[]  except those of these transactions
select count(*) as rows, max(x.id) as last, coalesce(array_agg(x.id) filter (where x.due), '{}') as due
  from (select l.id, not coalesce(l.replicated, true)
                       and public.py_log_is_replayed(l.id, l.txid, s.base, s.current, $6::bigint)
                       and l.txid <> all (s.apart) as due
          from (select $4::text::pg_snapshot as base, $5::text::pg_snapshot as current, $7::text[]::xid8[] as apart
                offset 0) s
          join public.replica_log l on l.id > $1 and l.id <= $2
         order by l.id
         limit $3) x
