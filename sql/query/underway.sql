-- The beginning of a query about changes that the slave will still replay. "l.replicated" stands for the slave's own
-- column. The parameters below are replaced by literals, because the rest of the query has keys of any type.
--   $field      the slave's column
--   $skip_user  SKIP_USER, or NULL
--   $tables     a regular expression for the names of the tables to replicate (TABLES), or NULL for all
--   $slave      the slave database's identity
with s as materialized (
    select coalesce(max(floor), 0) as floor, max(last) as last, (array_agg(base))[1] as base, (array_agg(current))[1] as current
      from public.replica_slave where field = $field::name),
-- Transactions with a row after the last one that was replayed: a transaction is replayed as a whole, with its last row.
beyond as materialized (
    select distinct m.txid from s join public.replica_log m on m.id > s.last and pg_visible_in_snapshot(m.txid, s.current)
       and not public.py_log_is_replayed(m.id, m.txid, s.base, s.current, s.last)),
waiting as materialized (
    select l.event, l.relation, l.old, l.new
      from s join public.replica_log l on l.id > s.floor
     where not coalesce(l.replicated, true)
       and not coalesce(l.username = $skip_user::name, false) and not coalesce(l.origin = $slave, false)
       and not coalesce(l.relation !~ $tables, $tables is not null)
       and not (public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last)
                and l.txid not in (select txid from beyond)))
