-- == What has been replayed ==

-- Installs py_log_is_replayed, the one place that says what a position in replica_slave means for a row of the log, and the view
-- replica_replayed, which answers that for each row and slave.

-- Has a slave with this position replayed the row? A transaction is replayed whole, when the turn of its last row has come.
-- So the answer is exact for that row, which "id" may name in the place of any other row of its transaction. Of a row before
-- "last" whose transaction goes on beyond it, the answer is yes too early; the transaction has been replayed if it has no row of
-- which the answer is no. The function looks at its arguments only, so everybody may call it, and PostgreSQL puts its text in
-- the place of the call.
create or replace function public.py_log_is_replayed(id bigint, txid xid8, base pg_snapshot, current pg_snapshot, last bigint)
    returns boolean language sql immutable parallel safe
as $py_log_is_replayed$
    select coalesce(pg_catalog.pg_visible_in_snapshot(txid, base), false)
           or coalesce(pg_catalog.pg_visible_in_snapshot(txid, current) and id operator(pg_catalog.<=) last, false)
$py_log_is_replayed$;

-- Which slave has replayed, or passed over, which row: by its position, or because its flag is set. This is exact at any moment,
-- and the flags in replica_log follow later or, with FLAGS=false, not at all. A batch that the master has committed counts, also
-- if a crash has left the slave's half prepared.
create or replace view public.replica_replayed as
    select l.id, l.txid, f.field,
           f.is_flagged or e.txid is null and public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last) as replayed
      from public.replica_log l
     cross join lateral pyreplica.flags(l) f
      -- In another cluster the transaction numbers of a position mean something else.
      left join public.replica_slave s on s.field = f.field and s.identity = (
               select (select c.system_identifier from pg_control_system() c) || '/' || d.oid
                 from pg_database d where d.datname = current_database())
      -- Transactions of a drain in progress whose last row's turn has not come.
      left join (select distinct b.field, m.txid
                   from public.replica_slave b
                   join public.replica_log m on m.id > b.last
                    and not public.py_log_is_replayed(m.id, m.txid, b.base, b.current, b.last)
                  where b.current is not null) e on e.field = f.field and e.txid = l.txid;
