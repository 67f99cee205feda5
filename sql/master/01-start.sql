-- pyreplica, master side: the log, the triggers that write it, and py_log_create_tg, which creates them on a table.
--
-- Run it in the master database, as the owner of the database or as a superuser:
--
--     psql somedb -f master-install.sql
--
-- then create the triggers on every table:
--
--     SELECT py_log_create_tg(relname::text) FROM pg_class
--      WHERE relname::text !~ '^(pg_|sql_)' AND relkind = 'r' AND relname != 'replica_log';
--
-- You may run it again at any time; running a newer version upgrades. It needs PostgreSQL 13 or later and the extension
-- hstore, which it creates and which comes with PostgreSQL (Debian: postgresql-contrib).
--
-- What people use is in the schema public, the rest in the schema pyreplica. The trigger functions run with the rights
-- of their owner under any search_path that the application has set. So they qualify every name, also operators and
-- types.

begin;

set local client_min_messages = warning;
set local standard_conforming_strings = on;
set local check_function_bodies = off;

-- Other roles may be able to create functions in public. One of theirs could match a call better than PostgreSQL's own
-- function, and would run with the rights of the role that runs this script. So the script, and the functions that
-- people use, search PostgreSQL's own schema only.
do $path$
begin
    perform pg_catalog.set_config('pyreplica.path', pg_catalog.current_setting('search_path'), true);
    perform pg_catalog.set_config('pyreplica.upgrading', '', true);
end
$path$;
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

do $check$
begin
    if current_setting('server_version_num')::int < 130000 then
        raise exception 'pyreplica needs PostgreSQL 13 or later on the master' using errcode = 'feature_not_supported';
    end if;
    if to_regnamespace('public') is null then
        raise exception 'pyreplica lives in the schema public, which this database lacks'
            using errcode = 'invalid_schema_name', hint = 'CREATE SCHEMA public;';
    end if;
    -- The Python original's language is for superusers only, so a superuser has created its functions.
    if exists (select from pg_proc where oid = to_regprocedure('public.py_log_replica()')
                                     and not pg_has_role(proowner, 'usage')) then
        raise exception 'the function py_log_replica() belongs to another role'
            using errcode = 'insufficient_privilege',
                  hint = 'Run this script as that role or as a superuser; what it makes belongs to the owner of replica_log.';
    end if;
end
$check$;

-- CREATE OR REPLACE and IF NOT EXISTS leave an object to the role that owns it already, and the owner of an object decides
-- what it does. So the script refuses what an untrusted role owns under one of these names. It trusts superusers, the
-- owners of the database and of the schema public, the role that runs it, and, if that is no superuser, the roles that it
-- is a member of.
do $check$
begin
    perform set_config('pyreplica.trusted', array(
        select r.oid from pg_roles r
         where r.rolsuper or r.rolname = current_user
            or r.oid in (select datdba from pg_database where datname = current_database() union
                         select nspowner from pg_namespace where nspname = 'public')
            or not (select rolsuper from pg_roles where rolname = current_user) and pg_has_role(r.oid, 'usage'))::text, true);
end
$check$;

do $check$
declare
    trusted constant oid[] := current_setting('pyreplica.trusted')::oid[];
    stranger record;
begin
    select x.relname, x.owner::regrole as owner into stranger
      from (select relname, relowner as owner from pg_class where relnamespace = 'public'::regnamespace
            union all
            select typname, typowner from pg_type where typnamespace = 'public'::regnamespace) x
     where x.relname in ('replica_log', 'replica_log_former', 'replica_slave', 'replica_error', 'replica_skipped',
                         'py_log_filter', 'py_log_transform', 'replica_table', 'replica_log_sql', 'replica_replayed', 'replica_log_id_seq',
                         'replica_batch_seq', 'replica_log_id')
       and x.owner <> all (trusted)
     limit 1;
    if found then
        raise exception 'there is a % of % already, who is not known to have installed pyreplica', stranger.relname, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop or rename it. If it is what it should be, run the script as %s, or give all of it to the owner '
                                'of the database, since a single table is not enough: REASSIGN OWNED BY %1$s TO ...;', stranger.owner);
    end if;
end
$check$;

-- The extension goes where the search_path of this session says, as with any CREATE EXTENSION.
do $path$
begin
    perform set_config('search_path', current_setting('pyreplica.path'), true);
end
$path$;
create extension if not exists hstore;
set local search_path = pg_catalog, pg_temp;

-- PostgreSQL resolves a call that takes a row of any table for the type of that very table. A function that somebody has
-- created for this type in the same schema would match better. Many roles may create functions in public and in the
-- schema of hstore, but only the owner may in this one.
do $schema$
begin
    if (select nspowner <> current_user::regrole
               and nspowner is distinct from (select relowner from pg_class where oid = to_regclass('public.replica_log'))
          from pg_namespace where nspname = 'pyreplica') then
        raise exception 'the schema pyreplica belongs to somebody else'
            using errcode = 'insufficient_privilege', hint = 'Rename it; the trigger needs a schema of that name.';
    end if;
end
$schema$;
do $schema$
begin
    perform set_config('pyreplica.former', (to_regnamespace('pyreplica') is not null)::text, true);
end
$schema$;
create schema if not exists pyreplica;

do $check$
declare
    stranger record;
begin
    select x.name, x.owner::regrole as owner into stranger
      from (select 'function ' || oid::regprocedure, proowner from pg_proc where pronamespace = 'pyreplica'::regnamespace
            union all
            select 'operator ' || oid::regoperator, oprowner from pg_operator where oprnamespace = 'pyreplica'::regnamespace
            union all
            select 'relation ' || oid::regclass, relowner from pg_class where relnamespace = 'pyreplica'::regnamespace
            union all
            select 'type ' || oid::regtype, typowner from pg_type where typnamespace = 'pyreplica'::regnamespace) x (name, owner)
     where x.owner <> all (current_setting('pyreplica.trusted')::oid[])
     limit 1;
    if found then
        raise exception 'there is a % of %, who is not known to have installed pyreplica', stranger.name, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop it. If it is what it should be, run the script as %s.', stranger.owner);
    end if;
end
$check$;

-- The owner of a schema can rename it and put other objects in the place of those of the extension.
do $check$
declare
    place record;
begin
    select n.nspname, n.nspowner::regrole as owner into place
      from pg_extension e join pg_namespace n on n.oid = e.extnamespace
     where e.extname = 'hstore' and n.nspowner <> all (current_setting('pyreplica.trusted')::oid[]);
    if found then
        raise exception 'the extension hstore is in the schema % of %, who is not known to have installed pyreplica',
                        quote_ident(place.nspname), place.owner
            using errcode = 'insufficient_privilege',
                  hint = 'Move it: ALTER EXTENSION hstore SET SCHEMA public; or give the schema to the owner of the database.';
    end if;
end
$check$;

-- hstore may be installed in any schema, and the functions qualify its names. The parts below put its schema in the
-- place of @hs@.
do $hstore$
begin
    perform set_config('pyreplica.hstore',
                       (select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                         where e.extname = 'hstore'), true);
end
$hstore$;
