-- == What has been replayed ==

-- Installs py_log_is_replayed: the one place that says what a position in replica_slave means for a row of the log.

-- Has a slave with this position replayed the row? A transaction is replayed whole, when the turn of its last row has come.
-- So the answer is exact for that row, which "id" may name in the place of any other row of its transaction. Of a row before
-- "last" whose transaction goes on beyond it, the answer is yes too early. Who needs it exactly, and does not know the
-- transaction's last row, leaves out the transactions that have a row above "last" of which the answer is no. The function
-- looks at its arguments only, so everybody may call it, and PostgreSQL puts its text in the place of the call.
create or replace function public.py_log_is_replayed(id bigint, txid xid8, base pg_snapshot, current pg_snapshot, last bigint)
    returns boolean language sql immutable parallel safe
as $py_log_is_replayed$
    select coalesce(pg_catalog.pg_visible_in_snapshot(txid, base), false)
           or coalesce(pg_catalog.pg_visible_in_snapshot(txid, current) and id operator(pg_catalog.<=) last, false)
$py_log_is_replayed$;
