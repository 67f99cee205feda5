-- What one slave has replayed of the log: all transactions that the snapshot "base" shows, and those that the snapshot
-- "current" shows in addition and whose last id is not greater than "last". The query also returns the last batch, its history,
-- and the slave's database that has it; the former histories of the slave, with the last batch of each; the highest id of the
-- log and the ctid and xmin of the slave's row. "life" is the timeline and the start time of the server as they are now, "known_life" as
-- the row has them: if they differ, the server was started or promoted since. A standby does not say its timeline.
--   $1  text  the slave's column
with server as (
    select concat_ws(' ', case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end,
                     pg_postmaster_start_time()::timestamptz(3)) as life)
select s.batch, s.token, s.identity, s.base::text as base, s.current::text as current, s.last,
       greatest(coalesce(s.highest, 0), coalesce((select max(id) from public.replica_log), 0)) as highest,
       coalesce(s.floor, 0) as floor, coalesce(s.flagged, 0) as flagged, s.ctid::text || ' ' || s.xmin as place,
       s.slave, s.history, s.life as known_life, v.life, s.announced, s.ts::timestamptz(0)::text as ts,
       array(select h.history from public.replica_history h where h.field = s.field order by h.history) as histories,
       array(select h.up_to from public.replica_history h where h.field = s.field order by h.history) as up_to
  from public.replica_slave s
  cross join server v
 where s.field = $1::text::name
