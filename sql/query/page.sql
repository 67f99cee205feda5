-- The next rows of one transaction that spreads over too many ids to be read as a whole. A row that is small and must be
-- replayed comes with its payload, in the form of fetch.sql; any other row comes without an event. "l.replicated" stands for
-- the slave's own column.
--   $1  bigint   read rows above this id
--   $2  name     SKIP_USER, or NULL
--   $3  text     the slave database's identity
--   $4  bigint   read this many rows at most
--   $5  text     the transaction
--   $6  bigint   its last id
--   $7  integer  a row is small up to this many bytes
--   $8  text     a regular expression for the names of the tables to replicate (TABLES), or NULL for all
select p.id, p.txid, p.size, p.skip, p.flagged, p.relation, p.origin,
       case when p.size <= $7 and not p.skip then p.event::text end as event,
       case when p.size <= $7 and not p.skip then public.hstore_send(p.old) end as old,
       case when p.size <= $7 and not p.skip then public.hstore_send(p.new) end as new,
       case when p.size <= $7 and not p.skip then p.sql end as sql
  from (
      select l.id, l.txid, l.event,
           -- A session with quote_all_identifiers = on logged each name in quotes, in an earlier version.
           case when l.relation like '"%"."%"' then (select quote_ident(i[1]) || '.' || quote_ident(i[2]) from parse_ident(l.relation) i)
                else coalesce(l.relation, '') end as relation, l.old, l.new, coalesce(l.sql, '') as sql, l.origin,
             coalesce(pg_column_size(l.old), 0) + coalesce(pg_column_size(l.new), 0)
                 + coalesce(pg_column_size(l.sql), 0) as size,
             l.replicated as flagged,
             coalesce(l.replicated, true) or coalesce(l.username = $2, false) or coalesce(l.origin = $3, false)
                     or coalesce(l.relation !~ $8, $8 is not null) as skip
        from public.replica_log l
       where l.id > $1 and l.id <= $6
         and l.txid = $5::text::xid8
       order by l.id
       limit $4) p
