-- One page of the sequences of a database, with the last number that each has given: null if there is none yet. To read it
-- locks the sequence until the transaction ends, so a page must be short: the server has room for some thousand locks.
-- Whoever alters a sequence locks it too, perhaps for long. Such a sequence is busy, and not read.
-- "array['replica_log']" stands for the names of all that is pyreplica's own in public.
--   $1  oid      only those with a higher oid, the lowest first
--   $2  bigint   how many
--   $3  text[]   only these, or NULL for all
--   $4  text[]   only those that belong to columns of these tables, or NULL for all
--   $5  boolean  whether to wait for those that are busy, and read them all the same
with page as materialized (
    select s.* from pg_sequence s
     where s.seqrelid > $1::oid
       and ($3::text[] is null or s.seqrelid in (
           select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind = 'S' and quote_ident(n.nspname) || '.' || quote_ident(c.relname) = any ($3::text[])))
       and ($4::text[] is null or s.seqrelid in (
           select d.objid from pg_depend d join pg_class o on o.oid = d.refobjid join pg_namespace n on n.oid = o.relnamespace
            where d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
              and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
              and quote_ident(n.nspname) || '.' || quote_ident(o.relname) = any ($4::text[])))
     order by s.seqrelid
     limit $2::bigint
), busy as (
    select relation from pg_locks
     where locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
       and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       and pid is distinct from pg_backend_pid()
), log as materialized (
    select relowner from pg_class where oid = to_regclass('public.replica_log')
)
select c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name, r.rolname::text as owner, c.relfilenode as file,
       p.seqincrement as increment, p.seqmin as lowest, p.seqmax as highest, p.seqcycle as cycles,
       o.oid as table_oid, quote_ident(n.nspname) || '.' || quote_ident(o.relname) as table_name, a.attname::text as column,
       -- pyreplica's own, an extension's, and those of single sessions.
       (n.nspname = 'public' and (c.relname = any (array['replica_log']) or coalesce(o.relname = any (array['replica_log']), false))
        or n.nspname = 'pyreplica' or c.relpersistence = 't'
        or exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')) as excepted,
       is_readable as readable, is_busy as busy, coalesce(has_sequence_privilege(c.oid, 'update'), false) as settable,
       -- Its owner may do anyway what the owner of the log may.
       r.rolsuper or r.oid in (select datdba from pg_database where datname = current_database() union all
                               select nspowner from pg_namespace where nspname = 'public')
           or coalesce(pg_has_role(r.oid, (select relowner from log), 'member'), false) as trusted,
       case when is_readable and not is_busy and c.relpersistence <> 't' then pg_sequence_last_value(c.oid) end as last
  from page p
  join pg_class c on c.oid = p.seqrelid
  join pg_namespace n on n.oid = c.relnamespace
  join pg_roles r on r.oid = c.relowner
  left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
                           and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
  left join pg_class o on o.oid = d.refobjid
  left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
  cross join lateral (select not $5::boolean and c.oid in (select relation from busy) as is_busy,
                             coalesce(has_sequence_privilege(c.oid, 'select') and has_schema_privilege(n.oid, 'usage'), false)
                                 as is_readable) i
 order by c.oid
