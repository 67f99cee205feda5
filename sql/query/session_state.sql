-- What a session does, for the watchdog: its state, what it waits for, and signs that it works. The signs are a text that changes
-- while a process works: the statement it runs, its transaction, its locks, its parallel workers, what it waits for, how far an
-- index is built. They stay the same if the process is stopped, but also while it computes for long without a pause.
--   $1  int  the server process
select coalesce(a.state, '') as state, a.wait_event_type as kind, a.wait_event as event,
       concat_ws(' ', a.state, a.query_start, a.state_change, a.backend_xid, a.backend_xmin, a.wait_event_type, a.wait_event,
                 (select count(*) from pg_locks l where l.pid = a.pid),
                 (select string_agg(concat_ws(' ', w.pid, w.wait_event), ',' order by w.pid)
                    from pg_stat_activity w where w.leader_pid = a.pid and w.pid <> a.pid),
                 (select p::text from pg_stat_progress_create_index p where p.pid = a.pid),
                 (select p::text from pg_stat_progress_cluster p where p.pid = a.pid)) as signs
  from pg_stat_activity a
 where a.pid = $1
