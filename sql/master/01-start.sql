-- pyreplica, master side: the log, the triggers that write it, and py_log_create_tg, which creates them on a table.
--
-- Run it in the master database, as the owner of the database or as a superuser:
--
--     psql somedb -f master-install.sql
--
-- then create the triggers on every table:
--
--     SELECT py_log_create_tg(relname::text) FROM pg_class
--      WHERE relname !~ '^(pg_|sql_)' AND relkind = 'r' AND relname != 'replica_log';
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
end
$path$;
set local search_path = pg_catalog, pg_temp;

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

-- The script refuses a table that an untrusted role has created under one of these names: the owner of a table decides
-- which triggers run when somebody writes to it. It trusts superusers, the owners of the database and of the schemas
-- public and pyreplica, and, if you are no superuser, the roles that you are a member of.
do $check$
declare
    stranger record;
begin
    select c.relname, c.relowner::regrole as owner into stranger
      from pg_class c join pg_roles r on r.oid = c.relowner
     where c.relnamespace = 'public'::regnamespace
       and c.relname in ('replica_log', 'replica_log_former', 'replica_slave', 'replica_error', 'replica_skipped',
                         'py_log_filter', 'py_log_transform', 'replica_log_sql', 'replica_log_id_seq', 'replica_batch_seq')
       and not r.rolsuper and r.rolname <> current_user
       and c.relowner not in (select datdba from pg_database where datname = current_database() union
                              select nspowner from pg_namespace where nspname in ('public', 'pyreplica'))
       and ((select rolsuper from pg_roles where rolname = current_user) or not pg_has_role(c.relowner, 'usage'))
     limit 1;
    if found then
        raise exception 'there is a % of % already, who is not known to have installed pyreplica', stranger.relname, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop or rename it; or, if it is what it should be: ALTER TABLE public.%I OWNER TO ..., '
                                'the owner of the database.', stranger.relname);
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
create schema if not exists pyreplica;
revoke all on schema pyreplica from public;

-- hstore may be installed in any schema, and the functions qualify its names. The parts below put its schema in the
-- place of @hs@.
do $hstore$
begin
    perform set_config('pyreplica.hstore',
                       (select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                         where e.extname = 'hstore'), true);
end
$hstore$;
