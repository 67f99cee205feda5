-- The roles that own what pg_dump reads of a database, or have rights on it, apart from what is pyreplica's own. "matters"
-- says that the role owns something and is not trusted: neither a superuser nor the owner of the database. "in_policy" says that a
-- policy names it. PostgreSQL does not note what the first superuser of a server owns.
with own as (
    array['own objects']
), noted as (
    select r.oid, r.rolname, r.rolsuper or r.oid = (select datdba from pg_database where datname = current_database()) as trusted,
           bool_or(d.deptype = 'o') as owns, bool_or(d.deptype = 'r') as in_policy
      from pg_shdepend d
      join pg_roles r on d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid
     where d.dbid = (select oid from pg_database where datname = current_database()) and d.deptype in ('o', 'a', 'r')
       and (d.classid::oid, d.objid) not in (select catalog, oid from own)
       and not (d.classid = 'pg_namespace'::regclass and d.objid = coalesce(to_regnamespace('pyreplica'), 0))
       and not exists (select from pg_depend x
                        where x.classid = d.classid and x.objid = d.objid and x.refclassid = 'pg_namespace'::regclass
                          and x.refobjid = to_regnamespace('pyreplica'))
     group by r.oid, r.rolname, r.rolsuper
)
select rolname::text as role, owns and not trusted as matters, in_policy from noted
union all
select rolname::text, false, false from pg_roles where oid = 10 and oid not in (select oid from noted)
