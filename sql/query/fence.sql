-- The tables that a fence is on, or is to be on: those with these names, each with its partitions, and all that have the
-- trigger already. A statement trigger of a partitioned table does not fire for who writes to a partition. Everybody may give a
-- trigger of his own this name: it counts only with pyreplica's function.
--   $1  text[]  names of tables, qualified and quoted
with recursive trusted as (
    select r.oid from pg_roles r
     where r.rolsuper or r.rolname = current_user
        or r.oid in (select datdba from pg_database where datname = current_database() union
                     select nspowner from pg_namespace where nspname = 'public')
        or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(r.oid, 'usage')
), named as (
    -- Not by to_regclass, which fails for a role that may not use the schema.
    select c.oid
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and format('%I.%I', n.nspname, c.relname) = any ($1::text[])
), family as (
    select oid from named
    union
    select i.inhrelid from family f join pg_class c on c.oid = f.oid and c.relkind = 'p' join pg_inherits i on i.inhparent = f.oid
), fenced as (
    select t.tgrelid as oid, t.tgenabled <> 'D' as is_up, t.tgargs,
           t.tgfoid in (select oid from pg_proc where oid = to_regprocedure('public.py_log_fence()') and proowner in (select oid from trusted))
               as is_ours
      from pg_trigger t where t.tgname = '!replica_fence' and not t.tgisinternal
)
select format('%I.%I', n.nspname, c.relname) as relation, c.oid, x.oid is not null as is_there, coalesce(x.is_up and x.is_ours, false) as is_up,
       coalesce(x.is_ours, true) as is_ours, f.oid is not null as is_named, pg_has_role(c.relowner, 'usage') as is_owner,
       c.relowner in (select oid from trusted) as is_trusted,
       c.relowner::regrole::text as owner,
       coalesce(array(select convert_from(decode(m[1], 'hex'), getdatabaseencoding())
                        from regexp_matches(encode(x.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality y (m, n)
                       order by n), '{}') as arguments
  from family f
  full join fenced x using (oid)
  join pg_class c on c.oid = coalesce(f.oid, x.oid)
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and (f.oid is not null or x.is_ours)
 order by 1
