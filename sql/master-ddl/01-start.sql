-- pyreplica, master side: schema changes travel. Event triggers write them into the log, in their place among the rows.
--
-- Run it in the master database after master-install.sql, as a superuser (or as the owner of the log, if the server lets that
-- role create event triggers):
--
--     psql somedb -f master-install-ddl.sql
--
-- You may run it again at any time. master-uninstall.sql takes it away. docs/ddl.md says what travels, and what does not.
-- Only statements of trusted roles travel, because the daemon executes
-- them on the slave with its own rights: docs/security.md.

begin;

set local client_min_messages = warning;
set local standard_conforming_strings = on;
set local check_function_bodies = off;
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

-- While this script runs, no earlier version of it logs what it does.
drop event trigger if exists "!pyreplica_ddl_0_script", "!pyreplica_ddl_0_drop", "!pyreplica_ddl_1_who", "!pyreplica_ddl_2_drop", "!pyreplica_ddl_3_end", "!pyreplica_ddl_1_who_drops";

do $check$
begin
    if to_regclass('public.replica_log') is null or to_regprocedure('pyreplica.own()') is null
       or (select prosrc !~ 'pyreplica[.]ddl_script' from pg_proc where oid = to_regprocedure('pyreplica.own()')) then
        raise exception 'master-install.sql of this version has not been run here'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run it first: pyreplica install, or psql -f master-install.sql.';
    end if;
    if not (select pg_has_role(relowner, 'usage') from pg_class where oid = 'public.replica_log'::regclass) then
        raise exception 'the log belongs to another role'
            using errcode = 'insufficient_privilege', hint = 'Run this script as a superuser.';
    end if;
end
$check$;

-- As in master-install.sql: the owner of an object decides what it does.
do $check$
declare
    stranger record;
begin
    select o.kind, o.name, o.owner::regrole as owner into stranger
      from pyreplica.own() o
     where o.owner <> (select relowner from pg_class where oid = 'public.replica_log'::regclass)
       and not (select rolsuper from pg_roles where oid = o.owner) and o.name ~ '[._]ddl' limit 1;
    if not found then
        select 'table', c.relname, c.relowner::regrole into stranger
          from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relname in ('py_log_ddl', 'py_log_ddl_setting', 'py_log_ddl_table', 'py_log_ddl_absent', 'py_log_ddl_script')
           and c.relowner <> (select relowner from pg_class where oid = 'public.replica_log'::regclass)
           and not (select rolsuper from pg_roles where oid = c.relowner) limit 1;
    end if;
    if found then
        raise exception 'there is a % % of % already, who is not known to have installed pyreplica',
                        stranger.kind, stranger.name, stranger.owner
            using errcode = 'insufficient_privilege', hint = 'Drop or rename it.';
    end if;
end
$check$;

-- == What travels ==

-- Exceptions to what travels by default. The row with the highest id that fits decides. The patterns are those of LIKE. tag is
-- PostgreSQL's command tag, for example 'CREATE TABLE' or '% POLICY'; 'SECURITY DEFINER' stands for functions that run with the
-- rights of their owner, which on the slave is the daemon. schema is that of the object, or of its table.
-- role: NULL means the trusted roles. Whoever is named here may have statements executed with the daemon's rights.
create table if not exists public.py_log_ddl (
    id bigint generated always as identity primary key,
    tag text not null default '%',
    schema text not null default '%',
    role text,
    travels boolean not null default true
);

-- on_error: what happens if a schema change cannot be logged. "warn" tells the person and the log; "raise" refuses the change.
-- replayed: whether what a daemon replays in this database is handed on to its own slaves, as in a cascade or a ring: "yes" or
-- "no".
create table if not exists public.py_log_ddl_setting (
    name text primary key check (name in ('on_error', 'replayed')),
    value text not null,
    check (name <> 'on_error' or value in ('warn', 'raise')),
    check (name <> 'replayed' or value in ('yes', 'no'))
);

-- Tables that were created by a statement that travelled, and that have no trigger yet because nothing identifies their rows: on the slave
-- they are empty. is_ours: false if a daemon has replayed the statement, so the rows come from elsewhere.
create table if not exists public.py_log_ddl_table (
    relation oid primary key,
    is_ours boolean not null
);

-- Objects that the slaves lack as far as anybody knows: the statement that has made them, or given them their names, did not travel. On
-- a slave these names are free, or are those of something else, so a DROP must not arrive there.
do $first$
begin
    perform set_config('pyreplica.ddl_is_first', (to_regclass('public.py_log_ddl_absent') is null)::text, true);
end
$first$;
create table if not exists public.py_log_ddl_absent (
    catalog oid,
    object oid,
    primary key (catalog, object)
);

-- The transactions in which the script of an extension runs. The row is there while it runs, so nobody else sees it. A script may have
-- ALTER EXTENSION in it, so the row says how many such statements run.
create table if not exists public.py_log_ddl_script (
    transaction xid8 primary key,
    depth int not null
);

-- Somebody may have made or dropped a table of that name since it was checked, and IF NOT EXISTS says nothing of it. From here on
-- the names are taken.
do $check$
declare
    missing text;
begin
    select t.name into missing
      from unnest(array['py_log_ddl', 'py_log_ddl_setting', 'py_log_ddl_table', 'py_log_ddl_absent', 'py_log_ddl_script']) t (name)
     where not exists (select from pg_class c
                        where c.relnamespace = 'public'::regnamespace and c.relname = t.name and c.relkind = 'r'
                          and (select r.rolsuper or r.oid = l.relowner or r.rolname = current_user
                                 from pg_roles r, pg_class l where r.oid = c.relowner and l.oid = 'public.replica_log'::regclass))
     limit 1;
    if found then
        raise exception 'somebody has made and dropped a table % meanwhile', missing
            using errcode = 'insufficient_privilege', hint = 'Drop what has that name, if it is there, and run the script again.';
    end if;
end
$check$;
insert into public.py_log_ddl_setting values ('on_error', 'warn'), ('replayed', 'no') on conflict do nothing;

-- Says whether a statement travels: 'yes', 'no'; 'untrusted' if it would, had a trusted role run it; 'definer' if it makes a function
-- that runs with the rights of its owner; 'owned' if it drops what belongs to a role. role is NULL if a daemon replays it.
create or replace function pyreplica.ddl_travels(tag text, schema text, role oid, is_definer boolean) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp
as $ddl_travels$
declare
    trusted constant boolean := role is null or pyreplica.is_trusted(role);
    rolename constant text := (select rolname from pg_roles where oid = role);
    by_default constant boolean := (tag ~ '^(ALTER|CREATE|DROP) (AGGREGATE|CAST|COLLATION|CONVERSION|DOMAIN|EXTENSION|FUNCTION|INDEX|MATERIALIZED VIEW|OPERATOR|OPERATOR CLASS|OPERATOR FAMILY|POLICY|PROCEDURE|ROUTINE|RULE|SCHEMA|SEQUENCE|STATISTICS|TABLE|TEXT SEARCH [A-Z]+|TRIGGER|TYPE|VIEW)$'
        or tag in ('CREATE TABLE AS', 'SELECT INTO', 'COMMENT', 'REFRESH MATERIALIZED VIEW'));
    verdict boolean;
begin
    -- A row that admits everything does not admit such functions: only one that names them does.
    select f.travels into verdict from public.py_log_ddl f
     where (ddl_travels.tag like f.tag and not (is_definer and f.travels) or is_definer and f.tag = 'SECURITY DEFINER')
       and coalesce(ddl_travels.schema, '') like f.schema
       and case when f.role is null then trusted else rolename = f.role end
     order by f.id desc limit 1;
    if verdict is not null then
        return case when verdict then 'yes' else 'no' end;
    elsif tag = 'DROP OWNED' and trusted then
        return 'owned';
    elsif not by_default then
        return 'no';
    elsif not trusted then
        return 'untrusted';
    end if;
    return case when is_definer then 'definer' else 'yes' end;
end
$ddl_travels$;

-- Whether an object is pyreplica's own, by its identity: those of both sides, since a slave may be a master too.
create or replace function pyreplica.ddl_is_own(identity text) returns boolean language sql immutable
    set search_path = pg_catalog, pg_temp
as $ddl_is_own$
    select identity ~ '^(pyreplica$|pyreplica[.]|public[.](replica_(log|slave|error|skipped|history|purged|table|batch_seq|progress|hold|held|conflict|copy|role|replayed)|py_log_)|"!replica_)'
$ddl_is_own$;
