-- pyreplica, master side: the log, the trigger that fills it, and py_log_create_tg that puts the trigger on a table.
--
-- Run it in the master database, as the owner of the database or as a superuser:
--
--     psql somedb -f master-install.sql
--
-- then put the trigger on every table:
--
--     SELECT py_log_create_tg(relname::text) FROM pg_class
--      WHERE relname !~ '^(pg_|sql_)' AND relkind = 'r' AND relname != 'replica_log';
--
-- It may be run again at any time, which is also how it is upgraded. Needs PostgreSQL 13 or later and the extension
-- hstore, which comes with it (Debian: postgresql-contrib) and which the script creates.
--
-- What is for use lives in the schema public, the rest in pyreplica. The trigger names everything with its schema,
-- operators and types too, because it runs with the rights of its owner under whatever search_path the application has
-- set.

begin;

set local client_min_messages = warning;
set local standard_conforming_strings = on;
set local check_function_bodies = off;

-- Where others may create functions in public, one of theirs may fit a call better than PostgreSQL's own, and would run with
-- the rights of whoever runs this. So only PostgreSQL's own are looked at, here and in what is for use.
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
    -- The Python original's functions were made by a superuser, since its language is only for superusers.
    if exists (select from pg_proc where oid = to_regprocedure('public.py_log_replica()')
                                     and not pg_has_role(proowner, 'usage')) then
        raise exception 'the function py_log_replica() belongs to another role'
            using errcode = 'insufficient_privilege',
                  hint = 'Run this script as that role or as a superuser; what it makes belongs to the owner of replica_log.';
    end if;
end
$check$;

-- Nor is a table taken over that somebody else may have put there before: its owner could do whatever is done by it. Those
-- who may create schemas in the database, which pyreplica's own is one of, and of course superusers are trusted.
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

-- Where whoever runs this would put it.
do $path$
begin
    perform set_config('search_path', current_setting('pyreplica.path'), true);
end
$path$;
create extension if not exists hstore;
set local search_path = pg_catalog, pg_temp;

-- What takes a row of any table is resolved for that very table's type, and a function that somebody has made for it in
-- the same schema would be the better match. Many may create functions in public, and in the schema of hstore; nobody
-- but the owner may in this one.
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

-- hstore may be installed in any schema, and the functions call it qualified: the parts that follow fill its schema in for @hs@.
do $hstore$
begin
    perform set_config('pyreplica.hstore',
                       (select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                         where e.extname = 'hstore'), true);
end
$hstore$;
