-- The pending rows in order of id, without their payload, with the oldest transaction that was still open then.
-- At least one row: with a NULL id when nothing is pending. "replicated" stands for the slave's own column.
--   $1  bigint  look above this id only
--   $2  name    SKIP_USER, or NULL
--   $3  text    the slave database's identity: what came from there does not go back
--   $4  bigint  read this many rows at most
select pg_snapshot_xmin(s.now)::text::bigint as oldest_open, p.id, p.txid, p.size, p.skip
  from (select pg_current_snapshot() as now) s
  left join lateral (
      select l.id, l.txid::text::bigint as txid,
             coalesce(pg_column_size(l.old), 0) + coalesce(pg_column_size(l.new), 0)
                 + coalesce(pg_column_size(l.sql), 0) as size,
             coalesce(l.username = $2, false) or coalesce(l.origin = $3, false) as skip
        from public.replica_log l
       where not replicated and l.id > $1
       order by l.id
       limit $4) p on true
 order by p.id
