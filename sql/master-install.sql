-- Made from sql/master/*.sql by sql/make.sh: edit those parts, not this file.

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

-- == What is pyreplica's own ==

-- Installs pyreplica.own, refuses what belongs to somebody else, and remembers the rights that others have.

-- Returns all that this script installs, as far as it is there: what it is, its name, its owner and its rights. "open"
-- says that everybody may execute a function: it runs with the rights of its caller, or is pyreplica.by_partition,
-- pyreplica.flags or py_log_knows. Functions are named by their exact signatures, because anybody may have made another function of the same
-- name.
do $install$
begin
    execute replace($create$
create or replace function pyreplica.own() returns table (kind text, name text, open boolean, owner oid, acl aclitem[], field name)
    language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $own$
    with relations as (
        select c.oid, c.relkind, c.relnamespace, c.relname, c.relowner, c.relacl from pg_class c
         where c.relnamespace = 'public'::regnamespace
           and (c.relname in ('replica_log', 'replica_slave', 'replica_error', 'replica_skipped', 'replica_history',
                              'replica_purged', 'replica_table', 'py_log_filter', 'py_log_transform', 'py_log_ddl', 'py_log_ddl_setting',
                              'py_log_ddl_table', 'py_log_ddl_absent', 'py_log_ddl_script') and c.relkind in ('r', 'p')
                or c.relname in ('replica_log_sql', 'replica_replayed') and c.relkind = 'v'
                or c.relname in ('replica_log_id_seq', 'replica_batch_seq') and c.relkind = 'S')
            or c.relnamespace = 'pyreplica'::regnamespace and c.relname = 'turn'
    ), sequences as (
        -- Those that number the rows of such a table.
        select s.oid, s.relkind, s.relnamespace, s.relname, s.relowner, s.relacl
          from pg_depend d
          join pg_class s on s.oid = d.objid and s.relkind = 'S'
         where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
           and d.refobjid in (select oid from relations)
    ), all_relations as (
        select * from relations union select * from sequences
    )
    select 'schema', 'pyreplica', false, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)), null::name
      from pg_namespace n where n.nspname = 'pyreplica'
    union all
    select case r.relkind when 'S' then 'sequence' else 'table' end, format('%s.%I', r.relnamespace::regnamespace, r.relname), false, r.relowner,
           coalesce(r.relacl, acldefault(case r.relkind when 'S' then 's' else 'r' end::"char", r.relowner)), null
      from all_relations r
    union all
    select 'table', format('%s.%I', r.relnamespace::regnamespace, r.relname), false, r.relowner, a.attacl, a.attname
      from all_relations r
      join pg_attribute a on a.attrelid = r.oid and a.attacl is not null
    union all
    select 'function', p.oid::regprocedure::text,
           not p.prosecdef and p.pronamespace = 'public'::regnamespace or s.signature ~ '^(pyreplica[.](by_partition|flags)|public[.]py_log_knows)[(]', p.proowner,
           coalesce(p.proacl, acldefault('f', p.proowner)), null
      from unnest(array[
               'public.py_log_replica()', 'public.py_log_statement()', 'public.py_log_can_wake(text)',
               case when to_regtype('public.replica_log') is not null then 'public.py_log_sql(public.replica_log)' end,
               'public.py_log_is_replayed(bigint, xid8, pg_snapshot, pg_snapshot, bigint)',
               'public.py_log_knows(text, oid)', 'public.py_log_forget()', 'public.py_log_columns(text, @hs@.hstore)', 'public.py_log_key(regclass)',
               'public.py_log_create_tg(text)', 'public.py_log_create_tg(text, text)', 'public.py_log_create_tg(text, text, text)',
               'public.py_log_create_tg(regclass, text, text)', 'public.py_log_create_tgs(text, text, name[])',
               'public.py_log_warn_before(regclass, text)', 'public.py_log_refuse_key(regclass, text[], text[])',
               'public.py_log_add_slave(text)', 'public.py_log_remove_slave(text)',
               'public.py_log_interleave(regclass, int, int)', 'public.py_log_interleave(text, int, int)',
               'public.py_log_grant(name)', 'public.py_log_grant(text)', 'public.py_log_grant_monitor(text)',
               -- Those of the Python original and of earlier versions.
               'public.py_log_create_tg(varchar)', 'public.py_log_create_tg(regclass, text)',
               'public.py_log_create_tgs(text, text)', 'public.py_log_warn_before(regclass)',
               'pyreplica.by_partition()', 'pyreplica.is_shadowed(oid, name)', 'pyreplica.is_second(oid, name, text)',
               'pyreplica.computed(oid, record)',
               case when to_regtype('public.replica_log') is not null then 'pyreplica.flags(public.replica_log)' end,
               'pyreplica.own()', 'pyreplica.asleep()', 'pyreplica.asleep_body()', 'pyreplica.apply_slaves()',
               'pyreplica.exact(record)', 'pyreplica.is_by_name(oid)', 'pyreplica.parts_of(oid)', 'pyreplica.has_names(oid)', 'pyreplica.logged_name(oid)',
               'pyreplica.logged_key(oid, text[], boolean)', 'pyreplica.shortened(@hs@.hstore, @hs@.hstore, text[], boolean)',
               'pyreplica.begin_statement()', 'pyreplica.end_statement()', 'pyreplica.tables(text)',
               'pyreplica.check_expression(text, text, text, text, text, text)', 'pyreplica.check_filter()',
               'pyreplica.check_transform()', 'pyreplica.complain(text, bigint, text, text)',
               'pyreplica.evaluation(text, text, text)', 'pyreplica.conditions(text, text)', 'pyreplica.replacements()',
               'pyreplica.check_types(oid)', 'pyreplica.register(regclass)', 'pyreplica.is_trusted(oid)',
               -- Those of master-install-ddl.sql.
               'pyreplica.ddl_travels(text, text, oid, boolean)', 'pyreplica.ddl_is_own(text)', 'pyreplica.ddl_next(text, int)',
               'pyreplica.ddl_fits(text, text)', 'pyreplica.ddl_top(text, text, boolean)', 'pyreplica.ddl_place(text)',
               'pyreplica.ddl_pass(text, text)', 'pyreplica.ddl_needs_text(text)', 'pyreplica.ddl_context()', 'pyreplica.ddl_text(text, text)',
               'pyreplica.ddl_alone(text, text)', 'pyreplica.ddl_settings(text, name[])', 'pyreplica.ddl_from_catalog(text, oid, oid, boolean)',
               'pyreplica.ddl_dropping(jsonb, boolean)', 'pyreplica.ddl_shape(text, text[], text[])', 'pyreplica.ddl_write(text, text, text, oid, oid)',
               'pyreplica.ddl_tell(text, text, text, boolean)', 'pyreplica.ddl_is_logged(oid)', 'pyreplica.ddl_has_special(oid)',
               'pyreplica.ddl_log_rows(oid, oid, text[], text)', 'pyreplica.ddl_capture(oid, text, boolean)',
               'pyreplica.ddl_is_new(oid, text, boolean)', 'pyreplica.ddl_altered(oid, text, text, name[], text, boolean)',
               'pyreplica.ddl_keep_writers_off(text, oid)', 'pyreplica.ddl_name(text)', 'pyreplica.ddl_relation(text, name[])', 'pyreplica.ddl_who()',
               'pyreplica.ddl_handle(text, text, text, json)', 'pyreplica.ddl_made(text)', 'pyreplica.ddl_dropped(text)',
               'pyreplica.ddl_after(text, jsonb, text, text, name[], text, boolean)', 'pyreplica.ddl_end()', 'pyreplica.ddl_raises()',
               'pyreplica.ddl_failed(text, text, text)', 'pyreplica.ddl_origin()', 'pyreplica.ddl_identifies(oid)',
               'pyreplica.ddl_is_stranger(oid)', 'pyreplica.ddl_drop()', 'pyreplica.ddl_script()', 'pyreplica.ddl_script_ends()',
               'pyreplica.ddl_is_script()', 'pyreplica.ddl_is_agreed(oid, text)', 'pyreplica.ddl_leave_out(jsonb)',
               'pyreplica.ddl_note(text, text, oid)', 'pyreplica.ddl_searching(name[])', 'pyreplica.ddl_is_missing(text, jsonb)',
               'pyreplica.ddl_is_like_temporary(text)',
               'pyreplica.apply()', 'pyreplica.changed()', 'pyreplica.special()',
               'pyreplica.admit(text, text, oid, text, record, record)',
               'pyreplica.send(text, text, oid, @hs@.hstore, record)',
               'pyreplica.send_exact(text, text, oid, @hs@.hstore, record)']) s (signature)
      join pg_proc p on p.oid = to_regprocedure(s.signature)
$own$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

do $check$
declare
    stranger record;
begin
    select o.kind, o.name, o.owner::regrole as owner into stranger
      from pyreplica.own() o where o.owner <> all (current_setting('pyreplica.trusted')::oid[]) limit 1;
    if found then
        raise exception 'there is a % % of % already, who is not known to have installed pyreplica',
                        stranger.kind, stranger.name, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop it. If it is what it should be, run the script as %s.', stranger.owner);
    end if;
end
$check$;

-- Who once had the right to make triggers on these tables may have made one. It runs with the rights of who writes there.
do $check$
declare
    stranger record;
begin
    select format('trigger %I on %s', t.tgname, o.name) as name, p.proowner::regrole as owner into stranger
      from pyreplica.own() o
      join pg_trigger t on t.tgrelid = to_regclass(o.name) and not t.tgisinternal
      join pg_proc p on p.oid = t.tgfoid
     where o.kind = 'table' and p.proowner <> all (current_setting('pyreplica.trusted')::oid[])
     limit 1;
    if found then
        raise exception 'there is a % with a function of %', stranger.name, stranger.owner
            using errcode = 'insufficient_privilege', hint = format('DROP %s;', upper(left(stranger.name, 7)) || substr(stranger.name, 8));
    end if;
end
$check$;

-- The last part takes all rights back, and grants anew what py_log_grant has granted. For that the script remembers the
-- rights that it finds on what was here before.
do $rights$
begin
    perform set_config('pyreplica.rights', coalesce((
        select jsonb_agg(to_jsonb(x)) from (
            select o.kind, o.name, a.grantee::bigint as grantee,
                   a.privilege_type || coalesce(' (' || quote_ident(o.field) || ')', '') as privilege
              from pyreplica.own() o cross join aclexplode(o.acl) a
             where a.grantee not in (o.owner, 0)
               and o.name <> 'pyreplica.own()'
               and (o.kind <> 'schema' or current_setting('pyreplica.former')::boolean)) x), '[]')::text, true);
end
$rights$;

-- == The log ==

-- Installs the table replica_log, its sequence and its index. First it renames a log of the Python original; the next
-- part, 03-original.sql, takes over the rows in it.

-- The original's log has the columns id, sql, replicated, username, ts, and a boolean column for each further slave. It
-- becomes replica_log_former with all its rows. The lock waits for transactions that write to it. Triggers that call
-- py_log_replica() go on working until py_log_create_tg replaces them.
do $upgrade$
declare
    former constant regclass := to_regclass('public.replica_log');
    columns constant text[] := (select array_agg(attname) from pg_attribute
                                 where attrelid = former and attnum > 0 and not attisdropped);
    numbers text;
begin
    if former is null or 'txid' = any (columns) then
        return;
    end if;
    if not columns @> array['id', 'sql', 'replicated', 'username', 'ts'] then
        raise exception 'there is a table replica_log that neither pyreplica nor the Python original of 1.0.4 or later made'
            using errcode = 'duplicate_table', hint = 'Rename it.';
    end if;
    lock table public.replica_log in access exclusive mode;
    numbers := pg_get_serial_sequence('public.replica_log', 'id');
    alter table public.replica_log rename to replica_log_former;
    alter table public.replica_log_former alter column id drop default;
    if numbers is not null then
        execute format('alter sequence %s owned by none', numbers);
    end if;
    -- CREATE OR REPLACE cannot rename parameters, and the original's may have other names.
    drop function if exists public.py_log_create_tg(varchar), public.py_log_create_tg(text);
    perform set_config('pyreplica.upgrading', 'yes', true);
end
$upgrade$;

create sequence if not exists public.replica_log_id_seq;

-- One row for each change. event: I insert, U update, D delete, T truncate, S a free statement. relation is the quoted
-- and qualified name that the table had at the time. old and new hold the text of each column under its name. There is
-- one boolean column for each slave, the first is "replicated". True means that the slave has replayed the change (the
-- daemon sets it shortly after it has written replica_slave), or that the slave must pass over it. A row that is true
-- for every slave is deleted.
create table if not exists public.replica_log (
    id bigint not null default nextval('public.replica_log_id_seq'),
    txid xid8 not null default pg_current_xact_id(),
    relation text,
    event "char" not null,
    old text,
    new text,
    sql text,
    username text default session_user,
    origin text,
    ts timestamptz default now(),
    replicated boolean not null default false
);

-- CREATE TABLE above cannot name the schema of hstore, so these columns get their type here.
do $install$
begin
    if (select atttypid from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attname = 'new') = 'text'::regtype then
        execute format('alter table public.replica_log alter column old type %s.hstore using old::%1$s.hstore,
                                                       alter column new type %1$s.hstore using new::%1$s.hstore',
                       current_setting('pyreplica.hstore'));
    end if;
end
$install$;

-- The log has no key. In a publication FOR ALL TABLES, PostgreSQL refuses UPDATE and DELETE of such a table unless its whole rows
-- identify themselves. Only with wal_level = logical does this cost anything: old rows are written to the WAL.
do $identity$
begin
    if (select relreplident <> 'f' from pg_class where oid = 'public.replica_log'::regclass) then
        alter table public.replica_log replica identity full;
    end if;
end
$identity$;

-- The daemon relies on this: a transaction gets its number before it draws its first id. An INSERT written by hand
-- evaluates the default of id first, so the default asks for the transaction's number.
-- Every lock of the log makes the application wait, so nothing here locks it that has been done already.
do $id$
begin
    if (select pg_get_expr(adbin, adrelid) !~ 'pg_current_xact_id' from pg_attrdef
         where adrelid = 'public.replica_log'::regclass and adnum = 1) is not false then
        alter table public.replica_log alter column id set default
            nextval(case when pg_current_xact_id() is not null then 'public.replica_log_id_seq'::regclass end);
    end if;
end
$id$;

-- The daemon reads, marks and deletes through this index only. So a change costs one index entry, and there is no
-- primary key. An earlier version had an index for each slave and one for deleting; they go.
do $index$
begin
    if to_regclass('public.replica_log_id') is null then
        create index replica_log_id on public.replica_log (id);
    end if;
end
$index$;
do $indexes$
declare
    former regclass;
begin
    for former in
        select indexrelid::regclass from pg_index
         where indrelid = 'public.replica_log'::regclass
           and (indexrelid = to_regclass('public.replica_log_ts')
                or pg_get_expr(indpred, indrelid) in (
                    select format('(NOT %I)', attname) from pg_attribute
                     where attrelid = indrelid and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype))
    loop
        execute format('drop index %s', former);
    end loop;
end
$indexes$;

-- == Upgrade from the Python original ==

-- Takes over the rows that the original's daemon has not replayed, and the original's table of filters. In any other
-- database this part only makes the sequence belong to the log.

-- Rows that a slave has not replayed become free statements in the new log, in their old order. Each is a transaction of
-- its own, because the old log does not say which belonged together. Their transaction numbers must be lower than those
-- of all later transactions. If there are too few such numbers, neighbouring rows share one.
do $upgrade$
declare
    former constant regclass := to_regclass('public.replica_log_former');
    owner regrole;
    fields text;
    flags text;
    field name;
    rest text;
    -- The original wrote backslashes into string literals. A server reads them as escapes if standard_conforming_strings
    -- is off.
    escapes constant boolean := (select reset_val = 'off' from pg_settings where name = 'standard_conforming_strings');
    pending bigint;
    numbers constant bigint := pg_current_xact_id()::text::bigint - 1;
begin
    if coalesce(current_setting('pyreplica.upgrading', true), '') <> 'yes' then
        return;
    end if;
    perform set_config('pyreplica.upgrading', '', true);
    owner := (select relowner from pg_class where oid = former);
    for field in
        select attname from pg_attribute
         where attrelid = former and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype order by attnum
    loop
        if field <> 'replicated' then
            execute format('alter table public.replica_log add column %I boolean not null default false', field);
        end if;
        fields := concat_ws(', ', fields, quote_ident(field));
        -- The original's daemon passes over a row whose flag is NULL.
        flags := concat_ws(', ', flags, format('coalesce(%I, true)', field));
        rest := concat_ws(' or ', rest, format('not %I', field));
    end loop;

    execute format('select count(*) from public.replica_log_former where %s', rest) into pending;
    execute format('insert into public.replica_log (id, txid, event, sql, username, ts, %s)
                    select id, (1 + (row_number() over (order by id) - 1) * least($1, $2) / $1)::text::xid8, ''S'',
                           case when $3 and position(e''\\'' in sql) > 0 then
                               format(''do %%L'', format(''begin set local standard_conforming_strings = off; ''
                                                         ''set local escape_string_warning = off; execute %%L; end'', sql))
                           else sql end, username, ts, %s
                      from public.replica_log_former where %s', fields, flags, rest)
      using pending, numbers, escapes;

    alter sequence public.replica_log_id_seq as bigint no maxvalue;
    perform setval('public.replica_log_id_seq',
                   greatest((select max(id) from public.replica_log_former),
                            (select last_value from public.replica_log_id_seq)));
    -- The original let applications write to the log. But the slave runs what the log says, so they lose that right.
    for field in
        select distinct rolname from pg_class, aclexplode(relacl) join pg_roles r on r.oid = grantee
         where pg_class.oid = 'public.replica_log_id_seq'::regclass and grantee <> relowner
    loop
        execute format('revoke all on sequence public.replica_log_id_seq from %I', field);
    end loop;
    execute format('alter table public.replica_log owner to %s', owner);
    raise warning 'the log of the Python original is now replica_log_former; % of its statements wait in the new log',
                  pending
        using hint = 'Run SELECT py_log_create_tg(...) for all tables again. DROP TABLE replica_log_former when you will.';
end
$upgrade$;

-- PostgreSQL wants a table and its sequence to have the same owner, so this comes after the table got its owner.
do $owned$
begin
    if not exists (select from pg_depend
                    where classid = 'pg_class'::regclass and objid = 'public.replica_log_id_seq'::regclass and deptype = 'a'
                      and refobjid = 'public.replica_log'::regclass) then
        alter sequence public.replica_log_id_seq owned by public.replica_log.id;
    end if;
end
$owned$;

-- The original's filters are conditions in Python. They stay as they are.
do $takeover$
begin
    if to_regclass('public.py_log_filter') is not null and not exists (
        select from pg_attribute where attrelid = to_regclass('public.py_log_filter') and attname = 'language') then
        alter table public.py_log_filter add column language text not null default 'python',
            add column on_error text not null default 'replicate' check (on_error in ('replicate', 'raise')),
            add column id bigint generated always as identity;
        alter table public.py_log_filter alter column language set default 'sql';
    end if;
end
$takeover$;

-- == What the daemon keeps ==

-- Installs the tables that the daemon and the verbs write on the master: the position of each slave, its last error, and
-- the changes that somebody has skipped.

-- One row for each slave: the last batch that the master has committed, and the position after it. After a crash the
-- daemon compares the batch number with that of a transaction which it finds prepared on the slave.
create table if not exists public.replica_slave (
    field name primary key,
    batch bigint not null,
    ts timestamptz not null default now()
);

-- The slave has replayed all transactions that the snapshot "base" shows. Of those that only "current" shows, it has
-- replayed the ones whose last id is at most "last". No id of theirs is above "highest". No row up to "floor" is still
-- to be replayed or marked. "identity" names the database that these transaction numbers belong to. Without base and
-- current, the slave's column of the log says what it has replayed.
alter table public.replica_slave
    add column if not exists identity text,
    add column if not exists base pg_snapshot,
    add column if not exists current pg_snapshot,
    add column if not exists last bigint,
    add column if not exists highest bigint,
    add column if not exists floor bigint;

-- Which batch that was, so that a server that was restored, or a slave in its place, is noticed. "token" is drawn for
-- each batch and written on both servers: replica_progress on the slave has the same one. "slave" names the database that
-- has it. "history" is an id that the daemon draws when the master may have begun another life, and "life" tells lives
-- apart: the timeline, and when the server was started. "announced" is drawn when TWO_PHASE=false writes here what it is
-- about to replay. Flags are set up to "flagged".
alter table public.replica_slave
    add column if not exists token text,
    add column if not exists slave text,
    add column if not exists history text,
    add column if not exists life text,
    add column if not exists announced text,
    add column if not exists flagged bigint;

-- The former histories of each slave, and up to which batch the master still has each. A slave that was restored is
-- behind if its last batch is in one of them, and has changes that the master lacks otherwise.
create table if not exists public.replica_history (
    field name not null,
    history text not null,
    up_to bigint not null,
    why text not null,
    ended timestamptz not null default now(),
    primary key (field, history)
);

-- What has been deleted from the log: no deleted row has a higher id or transaction number. A slave that needs one of
-- them can't catch up.
create table if not exists public.replica_purged (
    only_row boolean primary key default true check (only_row),
    id bigint not null,
    txid xid8 not null,
    ts timestamptz not null default now()
);

-- The last error of each slave's daemon, which pyreplica status shows. since: when the first of a row of failures
-- happened. recovered: when the daemon went on.
create table if not exists public.replica_error (
    field name primary key,
    pair text not null,
    since timestamptz not null default now(),
    last timestamptz not null default now(),
    attempts bigint not null default 1,
    side text,
    message text not null,
    hint text,
    change bigint,
    recovered timestamptz
);

-- The changes that somebody has skipped, with role and reason. master names the log and the slave, as in the table of
-- this name on the slave, which is for changes that were in replica_held there.
create table if not exists public.replica_skipped (
    place bigint generated always as identity primary key,
    master text not null,
    id bigint not null,
    txid xid8 not null,
    relation text,
    event text not null,
    old text[],
    new text[],
    sql text,
    error text,
    who text not null default session_user,
    reason text,
    ts timestamptz not null default now()
);

-- Each attempt at a batch draws a number of its own, even if the attempt is rolled back.
create sequence if not exists public.replica_batch_seq;

-- == Wake-ups ==

-- Installs what the triggers ask before they signal the daemon, and the default that lets free statements signal it.
--
-- A transaction with a NOTIFY takes a lock at its commit for which all such commits of the server wait. So a trigger
-- signals only while a daemon sleeps. A sleeping daemon holds the advisory lock of its slave. A transaction that writes
-- a change tries this lock in shared mode and keeps it to its end. If it gets the lock, it need not signal: the daemon
-- is awake, and before it falls asleep it looks at the log after the end of this transaction. If it does not get the
-- lock, it signals.

-- Returns the body of pyreplica.asleep, with one lock for each slave, that is for each boolean column of the log.
-- 1887007335 is 0x70797267, "pyrg".
create or replace function pyreplica.asleep_body() returns text language sql stable set search_path = pg_catalog, pg_temp
as $asleep_body$
    select format($body$
    select not (%s)
           and coalesce(pg_catalog.current_setting('pyreplica.notify', true) operator(pg_catalog.<>) 'off', true)
$body$,
                  coalesce(string_agg(format('pg_catalog.pg_try_advisory_xact_lock_shared(1887007335, %L::pg_catalog.int4)',
                                             hashtext(attname::text)), ' and ' order by attnum), 'true'))
      from pg_attribute
     where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype
$asleep_body$;

-- Generates pyreplica.asleep, which says whether to signal. It consists of plain calls, so the planner can inline it: it
-- costs the lock, but no call of a function of pyreplica. A transaction with a NOTIFY cannot be prepared. So an
-- application that uses two-phase commit sets pyreplica.notify = off for its role or database, and the daemon finds its
-- changes at the next TIMEOUT. A transaction must write to the log before it calls pyreplica.asleep. Then it either
-- knows the locks of all slaves, or the transaction that adds a slave waits for it.
--
-- Generates pyreplica.flags too, which returns a row of the log as one row for each slave. A NULL counts as set. The view
-- replica_replayed uses it, and so does not depend on the slaves' columns.
create or replace function pyreplica.apply_slaves() returns void language plpgsql set search_path = pg_catalog, pg_temp
as $apply_slaves$
declare
    fields constant text := (
        select string_agg(quote_ident(attname), ', ') from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype);
    daemon regrole;
begin
    lock table public.replica_log in share row exclusive mode;
    -- The daemons' roles may flag the rows, and renumber transactions. py_log_grant has granted that.
    for daemon in
        select x.grantee from pg_attribute a cross join aclexplode(a.attacl) x
         where a.attrelid = 'public.replica_log'::regclass and a.attname = 'txid' and x.privilege_type = 'UPDATE' and x.grantee <> 0
    loop
        execute format('grant update (%s) on public.replica_log to %s', fields, daemon);
    end loop;
    execute format('create or replace function pyreplica.asleep() returns boolean language sql as %L', pyreplica.asleep_body());
    execute format('create or replace function pyreplica.flags(change public.replica_log)
                        returns table (field name, is_flagged boolean) language sql immutable parallel safe as %L', (
        select 'values ' || string_agg(format('(%L::pg_catalog.name, coalesce(($1).%I, true))', attname, attname), ', ' order by attnum)
          from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype));
end
$apply_slaves$;

-- The daemon calls this before it sleeps for the first time: does the trigger know its slave? Somebody may have added or
-- renamed a column of the log by hand. Then this function generates pyreplica.asleep anew, but only if no transaction is
-- writing to the log, so that nobody waits for it.
create or replace function public.py_log_can_wake(field text) returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $py_log_can_wake$
begin
    if (select prosrc from pg_proc where oid = 'pyreplica.asleep()'::regprocedure) <> pyreplica.asleep_body() then
        lock table public.replica_log in share row exclusive mode nowait;
        perform pyreplica.apply_slaves();
    end if;
    return exists (select from pg_attribute where attrelid = 'public.replica_log'::regclass and attname = field);
exception when lock_not_available then
    return false;
end
$py_log_can_wake$;

-- == Free statements ==

-- Returns the event of a row that names none, as in INSERT INTO replica_log(sql) VALUES ('ALTER TABLE ...'). PostgreSQL
-- evaluates the default of the column for such rows only, so they signal the daemon, and other rows do not pay for it.
create or replace function public.py_log_statement() returns "char" language plpgsql security definer
as $py_log_statement$
begin
    if pyreplica.asleep() then
        perform pg_catalog.pg_notify('replicas', '');
    end if;
    return 'S';
end
$py_log_statement$;

do $event$
begin
    if not exists (select from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
                    where d.adrelid = 'public.replica_log'::regclass and a.attname = 'event'
                      and pg_get_expr(d.adbin, d.adrelid) ~ 'py_log_statement') then
        alter table public.replica_log alter column event set default public.py_log_statement();
    end if;
end
$event$;

do $install$
begin
    if (select prosrc from pg_proc where oid = to_regprocedure('pyreplica.asleep()')) is distinct from pyreplica.asleep_body()
       or to_regprocedure('pyreplica.flags(public.replica_log)') is null then
        perform pyreplica.apply_slaves();
    end if;
end
$install$;

-- == What has been replayed ==

-- Installs py_log_is_replayed, the one place that says what a position in replica_slave means for a row of the log, and the view
-- replica_replayed, which answers that for each row and slave.

-- Has a slave with this position replayed the row? A transaction is replayed whole, when the turn of its last row has come.
-- So the answer is exact for that row, which "id" may name in the place of any other row of its transaction. Of a row before
-- "last" whose transaction goes on beyond it, the answer is yes too early; the transaction has been replayed if it has no row of
-- which the answer is no. The function looks at its arguments only, so everybody may call it, and PostgreSQL puts its text in
-- the place of the call.
create or replace function public.py_log_is_replayed(id bigint, txid xid8, base pg_snapshot, current pg_snapshot, last bigint)
    returns boolean language sql immutable parallel safe
as $py_log_is_replayed$
    select coalesce(pg_catalog.pg_visible_in_snapshot(txid, base), false)
           or coalesce(pg_catalog.pg_visible_in_snapshot(txid, current) and id operator(pg_catalog.<=) last, false)
$py_log_is_replayed$;

-- Which slave has replayed, or passed over, which row: by its position, or because its flag is set. This is exact at any moment,
-- and the flags in replica_log follow later or, with FLAGS=false, not at all. A batch that the master has committed counts, also
-- if a crash has left the slave's half prepared.
create or replace view public.replica_replayed as
    select l.id, l.txid, f.field,
           f.is_flagged or e.txid is null and public.py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last) as replayed
      from public.replica_log l
     cross join lateral pyreplica.flags(l) f
      -- In another cluster the transaction numbers of a position mean something else.
      left join public.replica_slave s on s.field = f.field and s.identity = (
               select (select c.system_identifier from pg_control_system() c) || '/' || d.oid
                 from pg_database d where d.datname = current_database())
      -- Transactions of a drain in progress whose last row's turn has not come.
      left join (select distinct b.field, m.txid
                   from public.replica_slave b
                   join public.replica_log m on m.id > b.last
                    and not public.py_log_is_replayed(m.id, m.txid, b.base, b.current, b.last)
                  where b.current is not null) e on e.field = f.field and e.txid = l.txid;

-- == Rows as hstore ==

-- Installs what the triggers need to write a row as text: operators on hstore, a function that writes a row under exact
-- settings, and a function that shortens the old and the new row of an UPDATE.

-- The triggers reach hstore through operators of this schema. An operator keeps its function when somebody renames the
-- schema of hstore, moves the extension, or puts another object in its place. "@hs@" stands for that schema.
--   %%  a row as hstore            -> a column's value         ?  is there such a column?
--   ||  both; the right one wins   -  without a column, or without equal values
--   &   these columns only         ~> a column with a value    =  @>  as in hstore
--   @   the columns' names         #  their values
do $install$
declare
    operator text;
    signature text;
    function text;
begin
    for operator, signature, function in values
        ('%%', 'none, record', 'hstore'), ('->', '@, text', 'fetchval'), ('?', '@, text', 'exist'),
        ('||', '@, @', 'hs_concat'), ('-', '@, text', 'delete'), ('-', '@, @', 'delete'), ('&', '@, text[]', 'slice'),
        ('~>', 'text, text', 'hstore'), ('=', '@, @', 'hstore_eq'), ('@>', '@, @', 'hs_contains'),
        ('@', 'none, @', 'akeys'), ('#', 'none, @', 'avals')
    loop
        signature := replace(signature, '@', current_setting('pyreplica.hstore') || '.hstore');
        if to_regoperator(format('pyreplica.%s (%s)', operator, signature)) is null then
            execute format('create operator pyreplica.%s (function = %s.%s%s, rightarg = %s)', operator,
                           current_setting('pyreplica.hstore'), function,
                           case when signature like 'none,%' then '' else ', leftarg = ' || split_part(signature, ', ', 1) end,
                           split_part(signature, ', ', 2));
        end if;
    end loop;

    -- An earlier version had this.
    execute format('drop function if exists pyreplica.small(%s.hstore, %1$s.hstore, text[], boolean)',
                   current_setting('pyreplica.hstore'));

    execute replace($create$
create or replace function pyreplica.exact(r record) returns @hs@.hstore language plpgsql
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $exact$
begin
    return operator(pyreplica.%%) r;
end
$exact$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));

    -- While a row is small, it is cheapest to log it whole. Of a large row the trigger keeps the key and the columns
    -- that changed. If the key itself changed, it keeps the whole old row: only that tells it from another row which has
    -- taken the same key meanwhile. It also does without a key that is unique, and if a key that was named by hand is
    -- NULL. With "whole" it keeps the whole new row, and the key of the old one.
    execute replace($create$
create or replace function pyreplica.shortened(
    inout before @hs@.hstore, inout after @hs@.hstore, keys text[], whole boolean) language plpgsql immutable
as $shortened$
declare
    key public.replica_log.old%type := before operator(pyreplica.&) keys;
begin
    if pg_catalog.cardinality(keys) operator(pg_catalog.>) 0
       and pg_catalog.cardinality(operator(pyreplica.@) key) operator(pg_catalog.=) pg_catalog.cardinality(keys) then
        if whole then
            before := key;
        elsif after operator(pyreplica.@>) key
              and pg_catalog.array_position(operator(pyreplica.#) key, null::pg_catalog.text) is null then
            after := after operator(pyreplica.-) before;
            before := (before operator(pyreplica.&) (operator(pyreplica.@) after)) operator(pyreplica.||) key;
        end if;
    end if;
end
$shortened$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- Returns a row with the values of its virtual generated columns, which PostgreSQL 18 has, for a table that has some. It
-- computes them only when a query reads them from the table: in a trigger they are NULL. Filters and transforms may ask for
-- them. The expressions of such columns can't call functions of users.
create or replace function pyreplica.computed(relation oid, r record) returns record language plpgsql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
as $computed$
declare
    computed record;
    columns text;
begin
    if r is null then
        return r;
    end if;
    -- Reading the row runs the checks of domains. The filter or transform refuses the types too, and says so.
    begin
        perform pyreplica.check_types(relation);
    exception when insufficient_privilege then
        return r;
    end;
    select string_agg(case a.attgenerated when 'v' then format('(%s) as %I', pg_get_expr(d.adbin, d.adrelid), a.attname)
                                          else format('%I', a.attname) end, ', ' order by a.attnum) into columns
      from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = relation and a.attnum > 0 and not a.attisdropped;
    -- A cast between text and the row might be one that the owner of the table has made. This uses the type's input function.
    execute format('select %s from (select (%L::%s).*) x', columns, textin(record_out(r)), relation::regclass) into computed;
    return computed;
end
$computed$;

-- Returns the columns that tell a large row from all others: the primary key that the table has now, the index of its
-- REPLICA IDENTITY, and the columns that the arguments of the trigger name, which were the key or were named by hand. NULL if
-- two rows may have the same values there, for the time of a transaction if the constraint is deferrable; or if the table
-- has REPLICA IDENTITY FULL, which wants old rows whole. With "whole" neither matters.
create or replace function pyreplica.logged_key(relation pg_catalog.oid, named pg_catalog.text[], whole boolean)
    returns pg_catalog.text[] language plpgsql stable
as $logged_key$
declare
    keys constant pg_catalog.int2[] := array(
        select a.attnum from pg_catalog.pg_attribute a
         where a.attrelid operator(pg_catalog.=) relation and a.attnum operator(pg_catalog.>) 0::pg_catalog.int2
           and not a.attisdropped
           and (a.attname::pg_catalog.text operator(pg_catalog.=) any (named) or a.attnum operator(pg_catalog.=) any (array(
               select pg_catalog.unnest((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts operator(pg_catalog.-) 1::pg_catalog.int2])
                 from pg_catalog.pg_index i
                where i.indrelid operator(pg_catalog.=) relation and (i.indisprimary or i.indisreplident)))));
begin
    if not coalesce(whole, false) and (exists (
        select from pg_catalog.pg_class c
         where c.oid operator(pg_catalog.=) relation
           and case when c.relispartition then (select r.relreplident from pg_catalog.pg_class r
                                                 where r.oid operator(pg_catalog.=) pg_catalog.pg_partition_root(relation)::pg_catalog.oid)
                    else c.relreplident end operator(pg_catalog.=) 'f'::pg_catalog."char") or not exists (
        select from pg_catalog.pg_index i
         where i.indrelid operator(pg_catalog.=) relation and i.indisunique and i.indimmediate and i.indisvalid
           and i.indpred is null and i.indexprs is null
           and (i.indkey::pg_catalog.int2[])[0:i.indnkeyatts operator(pg_catalog.-) 1::pg_catalog.int2] operator(pg_catalog.<@) keys)) then
        return null;
    end if;
    return array(select a.attname::pg_catalog.text from pg_catalog.pg_attribute a
                  where a.attrelid operator(pg_catalog.=) relation and a.attnum operator(pg_catalog.=) any (keys));
end
$logged_key$;

-- Returns a type and all that it is made of: what is beneath a domain, the elements of an array or a range, the columns of a row.
create or replace function pyreplica.parts_of(type oid) returns setof oid language sql stable
    set search_path = pg_catalog, pg_temp
as $parts_of$
    with recursive parts (id) as (
        select type
        union
        select x.id from parts p
          join pg_type t on t.oid = p.id
         cross join lateral (
             select t.typbasetype union all select t.typelem
             union all
             select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
             union all
             -- PostgreSQL 13 has no multiranges.
             select r.rngsubtype from pg_range r
              where t.typtype in ('r', 'm') and t.oid in (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)) x (id)
         where x.id <> 0
    )
    select id from parts
$parts_of$;

-- Says whether the text of a type depends on the search_path: it is one of those that stand for an object, like regclass,
-- or is made of one.
create or replace function pyreplica.is_by_name(type oid) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_by_name$
    select exists (select from pyreplica.parts_of(type) p (id)
                    where p.id = any ('{regclass,regproc,regprocedure,regoper,regoperator,regtype,regconfig,regdictionary,
                                        regcollation}'::regtype[]::oid[]))
$is_by_name$;

-- Says whether a table has a column of such a type. A session with a search_path of its own asks this for every row.
do $install$
begin
    execute replace($create$
create or replace function pyreplica.has_names(relation pg_catalog.oid) returns boolean language plpgsql stable
    -- PostgreSQL would plan the queries anew for each row.
    set plan_cache_mode = force_generic_plan
as $has_names$
declare
    type pg_catalog.oid;
begin
    if exists (select from pg_catalog.pg_attribute a
                where a.attrelid operator(pg_catalog.=) relation and a.atttypid operator(pg_catalog.=) any ('@by_name@')
                  and not a.attisdropped) then
        return true;
    end if;
    for type in
        select a.atttypid from pg_catalog.pg_attribute a
         where a.attrelid operator(pg_catalog.=) relation and a.atttypid operator(pg_catalog.>=) 16384::pg_catalog.oid
    loop
        if exists (select from pg_catalog.pg_type t
                    where t.oid operator(pg_catalog.=) type
                      and (t.typelem operator(pg_catalog.<>) 0::pg_catalog.oid
                           or t.typtype operator(pg_catalog.<>) all ('{b,e}')))
           and pyreplica.is_by_name(type) then
            return true;
        end if;
    end loop;
    return false;
end
$has_names$;
    $create$, '@by_name@', array(select oid from pg_type where oid < 16384 and typtype = 'b' and pyreplica.is_by_name(oid))::text);
end
$install$;

-- The name of a table as the log has it, whatever the session has set. quote_ident and the like quote every name if
-- quote_all_identifiers is on.
create or replace function pyreplica.logged_name(relation oid) returns text language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $logged_name$
    select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = relation
$logged_name$;

-- The parts below put this condition in the place of @exact@: do the settings of the session give text that is exact and
-- unambiguous? Dates must be ISO, floats exact, and money must look as in the C and English locales, which the slave can
-- read. Names must be quoted where they need it only, and be found in public, where the slave looks for them, or say
-- their schema. In a session with other settings the triggers call pyreplica.exact, which is slower and gives the same
-- text. What a search_path may change matters only to a table that has a column of names.
do $settings$
begin
    perform set_config('pyreplica.exact',
        $exact$(pg_catalog.current_setting('datestyle') operator(pg_catalog.=) any ('{"ISO, MDY","ISO, DMY","ISO, YMD"}')
            and pg_catalog.current_setting('intervalstyle') operator(pg_catalog.=) 'postgres'
            and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.=) any ('{1,2,3}')
            and pg_catalog.current_setting('lc_monetary') operator(pg_catalog.=)
                any ('{C,C.UTF-8,en_US.UTF-8,en_US.utf8,C.utf8,POSIX}')
            and pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off'
            and (pg_catalog.current_schemas(false) operator(pg_catalog.=) '{public}' or not pyreplica.has_names(tg_relid)))$exact$, true);
end
$settings$;

-- == Capture by row ==

-- Installs py_log_replica, the trigger function that writes each changed row into the log. It also logs TRUNCATE.
--
-- pyreplica.by_partition is the same for the row trigger of a partitioned table. PostgreSQL copies this trigger to each
-- new partition, and asks whether the role that makes the partition may execute the function: so everybody may. But nobody
-- else can make a trigger with it, because that takes its name, and its schema is closed.

-- Says whether the trigger of a partition is to log nothing, because a table further up has a trigger that logs the same
-- change. The partition had its own trigger when it was attached, or is a partition of a table that had one.
create or replace function pyreplica.is_shadowed(relation oid, trigger name) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_shadowed$
    with recursive copies (id, original, relid) as (
        select t.oid, t.tgparentid, t.tgrelid from pg_trigger t where t.tgrelid = relation and t.tgname = trigger
        union all
        select t.oid, t.tgparentid, t.tgrelid from copies c join pg_trigger t on t.oid = c.original
    )
    select exists (
        select from copies c
         cross join pg_partition_ancestors(c.relid) a
          join pg_trigger t on t.tgrelid = a.relid and t.tgparentid = 0 and t.tgenabled <> 'D'
                           and t.tgfoid = 'pyreplica.by_partition()'::regprocedure
         where c.original = 0 and a.relid <> c.relid)
$is_shadowed$;

-- Says whether another row trigger of the table logs the same event already. A trigger made by hand has a name of its own,
-- so a table may have it and one of py_log_create_tg, or a copy of its parent's. The first one by name logs.
create or replace function pyreplica.is_second(relation oid, trigger name, event text) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_second$
    select exists (
        select from pg_trigger t
         where t.tgrelid = relation and t.tgqual is null and t.tgtype & 1 = 1
           and t.tgtype & case event when 'INSERT' then 4 when 'DELETE' then 8 else 16 end <> 0
           and t.tgenabled in ('A', case when current_setting('session_replication_role') <> 'replica' then 'O' else 'R' end)
           and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
           and (t.tgname < trigger
                or t.tgname <> trigger and (select o.tgqual is not null from pg_trigger o
                                             where o.tgrelid = relation and o.tgname = trigger)))
$is_second$;

do $install$
declare
    name text;
    has_virtual constant boolean := current_setting('server_version_num')::int >= 180000;
begin
    foreach name in array array['public.py_log_replica', 'pyreplica.by_partition'] loop
    execute replace(replace(replace(replace($create$
create or replace function @name@() returns trigger language plpgsql security definer
as $py_log_replica$
declare
    -- Types are qualified too: PostgreSQL searches pg_temp for them first, and a domain there may have a check that runs
    -- any function.
    relation pg_catalog.text;
    origin pg_catalog.text;
    letter pg_catalog."char";
    verdict pg_catalog.text;
    transformed boolean;
    whole boolean;
    inexact boolean;
    remark pg_catalog.text;
    before public.replica_log.old%type;
    after public.replica_log.new%type;
    small pg_catalog.record;
begin
    -- Each expression costs the application time, mostly when a transaction evaluates it for the first time. So the usual
    -- path has few expressions, and one of them asks for all rare cases. In a rare case the rows are converted again.
    if tg_op operator(pg_catalog.=) 'INSERT' then
        after := operator(pyreplica.%%) new;
    elsif tg_op operator(pg_catalog.=) 'UPDATE' then
        -- This compares the stored bytes: 1.0 and 1.00 differ, and a type needs no equality operator.
        if old operator(pg_catalog.*=) new then
            return null;
        end if;
        before := operator(pyreplica.%%) old;
        after := operator(pyreplica.%%) new;
        if pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000 then
            small := pyreplica.shortened(before, after, pyreplica.logged_key(tg_relid, tg_argv[1:], false), false);
            before := small.before;
            after := small.after;
        end if;
    elsif tg_op operator(pg_catalog.=) 'DELETE' then
        before := operator(pyreplica.%%) old;
    end if;
    -- special() is an inlined constant. While the database has no filter, the comparison with it costs nothing.
    if pg_catalog.pg_partition_root(tg_relid) is null
       and pg_catalog.starts_with(tg_name::pg_catalog.text, '!replica_')
       and (pyreplica.special() operator(pg_catalog.=) '{}'
            or not tg_argv[0] operator(pg_catalog.=) any (pyreplica.special())
               and not (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.' operator(pg_catalog.||)
                        pg_catalog.quote_ident(tg_table_name)) operator(pg_catalog.=) any (pyreplica.special()))
       and coalesce(pg_catalog.current_setting('pyreplica.origin', true), '') operator(pg_catalog.=) ''
       and @exact@ then
        insert into public.replica_log (relation, event, old, new)
        values (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
                operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name),
                pg_catalog.left(tg_op, 1)::pg_catalog."char", before, after);
        if pyreplica.asleep() then
            perform pg_catalog.pg_notify('replicas', '');
        end if;
        return null;
    end if;

    -- Anybody can set this. A change with an origin is not sent back there, so only a session that may mark the log is
    -- believed, whatever function it calls.
    origin := pg_catalog.current_setting('pyreplica.origin', true);
    if origin operator(pg_catalog.<>) ''
       and not pg_catalog.has_column_privilege(session_user, 'public.replica_log', 'txid', 'update') then
        origin := null;
    end if;
    letter := pg_catalog.left(tg_op, 1);
    before := null;
    after := null;
    if tg_level operator(pg_catalog.=) 'ROW' and not pg_catalog.starts_with(tg_name::pg_catalog.text, '!replica_')
       and pyreplica.is_second(tg_relid, tg_name, tg_op) then
        return null;
    end if;
    -- PostgreSQL has copied the trigger of a partitioned table to its partitions, with its arguments. The change is
    -- logged for the partitioned table, because each side may divide it in its own way. A renamed table is logged under
    -- its new name.
    if pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off' then
        relation := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
                    operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    else
        relation := pyreplica.logged_name(tg_relid);
    end if;
    if tg_level operator(pg_catalog.=) 'ROW' and pg_catalog.pg_partition_root(tg_relid) is not null then
        -- The usual case is found by one look: this trigger is a copy of one of the root.
        if not exists (
               select from pg_catalog.pg_trigger t
                where t.tgrelid operator(pg_catalog.=) pg_catalog.pg_partition_root(tg_relid)::pg_catalog.oid
                  and t.tgname operator(pg_catalog.=) tg_name)
           and pyreplica.is_shadowed(tg_relid, tg_name) then
            return null;
        end if;
        if @copied@ or tg_argv[0] operator(pg_catalog.<>) tg_table_name then
            if pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off' then
                relation := coalesce((pg_catalog.pg_identify_object(
                    'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.pg_partition_root(tg_relid), 0)).identity, relation);
            else
                relation := coalesce(pyreplica.logged_name(pg_catalog.pg_partition_root(tg_relid)), relation);
            end if;
        end if;
    end if;

    -- The daemon asks for the name when it replays the change, and the table may be gone by then.
    if tg_level operator(pg_catalog.=) 'ROW' and not pg_catalog.starts_with(tg_name::pg_catalog.text, '!replica_') then
        perform public.py_log_knows(relation, coalesce(pg_catalog.pg_partition_root(tg_relid)::pg_catalog.oid, tg_relid));
    end if;

    -- A filter decides how the slave sees the change. pyreplica.admit returns the letter of an event (W for an UPDATE
    -- that sets all columns), then + if the table has transforms and - if not, then the error of a condition, if one
    -- failed.
    if letter operator(pg_catalog.<>) 'T'
       and (tg_argv[0] operator(pg_catalog.=) any (pyreplica.special())
            or relation operator(pg_catalog.=) any (pyreplica.special())) then
        if @virtual@ then
            verdict := pyreplica.admit(tg_argv[0], relation, tg_relid, tg_op, pyreplica.computed(tg_relid, old), pyreplica.computed(tg_relid, new));
        else
            verdict := pyreplica.admit(tg_argv[0], relation, tg_relid, tg_op, old, new);
        end if;
        if verdict is null then
            return null;
        end if;
        letter := pg_catalog.left(verdict, 1);
        if letter operator(pg_catalog.=) 'W' then
            whole := true;
            letter := 'U';
        end if;
        transformed := pg_catalog.substr(verdict, 2, 1) operator(pg_catalog.=) '+';
        -- nullif would compare by the = that it finds first in the search_path of the application.
        if pg_catalog.length(verdict) operator(pg_catalog.>) 2 then
            remark := pg_catalog.substr(verdict, 3);
        end if;
    end if;

    if @exact@ then
        if letter operator(pg_catalog.=) 'I' then
            after := operator(pyreplica.%%) new;
        elsif letter operator(pg_catalog.=) 'D' then
            before := operator(pyreplica.%%) old;
        elsif letter operator(pg_catalog.=) 'U' then
            before := operator(pyreplica.%%) old;
            after := operator(pyreplica.%%) new;
        end if;
    else
        if letter operator(pg_catalog.=) 'I' then
            after := pyreplica.exact(new);
        elsif letter operator(pg_catalog.=) 'D' then
            before := pyreplica.exact(old);
        elsif letter operator(pg_catalog.=) 'U' then
            before := pyreplica.exact(old);
            after := pyreplica.exact(new);
        end if;
        inexact := true;
    end if;

    if transformed then
        if @virtual@ and inexact then
            before := pyreplica.send_exact(tg_argv[0], relation, tg_relid, before, pyreplica.computed(tg_relid, old));
            after := pyreplica.send_exact(tg_argv[0], relation, tg_relid, after, pyreplica.computed(tg_relid, new));
        elsif @virtual@ then
            before := pyreplica.send(tg_argv[0], relation, tg_relid, before, pyreplica.computed(tg_relid, old));
            after := pyreplica.send(tg_argv[0], relation, tg_relid, after, pyreplica.computed(tg_relid, new));
        elsif inexact then
            before := pyreplica.send_exact(tg_argv[0], relation, tg_relid, before, old);
            after := pyreplica.send_exact(tg_argv[0], relation, tg_relid, after, new);
        else
            before := pyreplica.send(tg_argv[0], relation, tg_relid, before, old);
            after := pyreplica.send(tg_argv[0], relation, tg_relid, after, new);
        end if;
        -- pyreplica.send returns the error of an expression under the empty name, which no column can have.
        remark := coalesce(remark, after operator(pyreplica.->) ''::pg_catalog.text,
                           before operator(pyreplica.->) ''::pg_catalog.text);
        before := before operator(pyreplica.-) ''::pg_catalog.text;
        after := after operator(pyreplica.-) ''::pg_catalog.text;
        if letter operator(pg_catalog.=) 'U' and whole is null and before operator(pyreplica.=) after then
            return null;
        end if;
    end if;

    if letter operator(pg_catalog.=) 'U'
       and (whole or pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000) then
        small := pyreplica.shortened(before, after, pyreplica.logged_key(tg_relid, tg_argv[1:], whole), whole);
        before := small.before;
        after := small.after;
    end if;

    if origin operator(pg_catalog.<>) '' then
        insert into public.replica_log (relation, event, old, new, sql, origin)
        values (relation, letter, before, after, remark, origin);
    else
        insert into public.replica_log (relation, event, old, new, sql)
        values (relation, letter, before, after, remark);
        if pyreplica.asleep() then
            perform pg_catalog.pg_notify('replicas', '');
        end if;
    end if;
    return null;
end
$py_log_replica$;
    $create$, '@name@', name), '@copied@', (name = 'pyreplica.by_partition')::text),
                    '@exact@', current_setting('pyreplica.exact')),
                    '@virtual@', case when has_virtual then $virtual$exists (select from pg_catalog.pg_attribute a where
                        a.attrelid operator(pg_catalog.=) tg_relid and a.attgenerated operator(pg_catalog.=) 'v'::pg_catalog."char")$virtual$
                        else 'false' end);
    end loop;
end
$install$;

-- == Capture by statement ==

-- Installs the two trigger functions that write all rows of a statement into the log at once. py_log_create_tg creates
-- their triggers on a table if its level is statement.
--
-- Before a statement, begin_statement decides whether its rows are logged by row or at once. For "at once" it adds a
-- letter to a setting of the transaction, one letter for each statement that is running. The first argument of the
-- triggers names the setting. While it is not empty, the WHEN of the row trigger is false, and after the statement
-- end_statement logs the rows from the transition tables. This is correct only if nothing else can write to the table
-- between the rows and the end of the statement.
--
-- Anybody can set these settings. What a session has set before a statement changes nothing: begin_statement decides anew,
-- and refuses a statement that it would log by row. If a function in the statement itself sets them, its rows may be logged
-- twice or not at all; end_statement refuses the statement if it can tell.
do $install$
begin
    execute replace($create$
create or replace function pyreplica.begin_statement() returns trigger language plpgsql security definer
as $begin_statement$
declare
    running pg_catalog.text := pg_catalog.current_setting(tg_argv[0], true);
    at_once pg_catalog.bool;
begin
    at_once := @exact@
          and not tg_argv[1] operator(pg_catalog.=) any (pyreplica.special())
          and not (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.' operator(pg_catalog.||)
                   pg_catalog.quote_ident(tg_table_name)) operator(pg_catalog.=) any (pyreplica.special())
          -- The triggers of pyreplica, checks of foreign keys and of deferrable constraints write nothing to the table.
          and not exists (
              select from pg_catalog.pg_trigger t
               where t.tgrelid operator(pg_catalog.=) tg_relid and t.tgenabled operator(pg_catalog.<>) 'D'
                 and (t.tgtype operator(pg_catalog.&) 1::pg_catalog.int2) operator(pg_catalog.=) 1
                 and t.tgname operator(pg_catalog.<>) '!replica_tg'
                 and not (t.tgisinternal and t.tgfoid operator(pg_catalog.=) any (array[
                     'pg_catalog."RI_FKey_check_ins"', 'pg_catalog."RI_FKey_check_upd"',
                     'pg_catalog."RI_FKey_noaction_del"', 'pg_catalog."RI_FKey_noaction_upd"',
                     'pg_catalog."RI_FKey_restrict_del"', 'pg_catalog."RI_FKey_restrict_upd"',
                     'pg_catalog.unique_key_recheck']::pg_catalog.regproc[]::pg_catalog.oid[])))
          -- The transition tables of a parent hold the rows of its children, without the columns that only these have.
          and not exists (
              select from pg_catalog.pg_inherits i
               where i.inhparent operator(pg_catalog.=) tg_relid or i.inhrelid operator(pg_catalog.=) tg_relid);
    if running operator(pg_catalog.<>) '' then
        if not at_once then
            raise exception 'a change of table % cannot be logged', tg_relid::pg_catalog.regclass
                using errcode = 'object_not_in_prerequisite_state',
                      detail = 'The setting ' operator(pg_catalog.||) tg_argv[0] operator(pg_catalog.||)
                               ' says that a statement is running whose rows are logged at once.',
                      hint = 'Only pyreplica sets it: RESET it. A function that a statement calls must not change DateStyle '
                             'and the like, and write to the same table.';
        end if;
        -- A function in an expression of the running statement writes to the same table. The row trigger does not run
        -- for these rows either, so this statement is logged at once, too. The setting "..._early" is about statements
        -- that have ended, so it is cleared.
        if pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) '' then
            running := pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early', '', true);
            running := pg_catalog.current_setting(tg_argv[0]);
        end if;
        running := pg_catalog.set_config(tg_argv[0], running operator(pg_catalog.||) pg_catalog.left(tg_op, 1), true);
    elsif at_once then
        running := pg_catalog.set_config(tg_argv[0], pg_catalog.left(tg_op, 1), true)
                   operator(pg_catalog.||) case when pg_catalog.current_setting(
                       tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) ''
                   then pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early', '', true) end;
    end if;
    return null;
end
$begin_statement$;
    $create$, '@exact@', current_setting('pyreplica.exact'));
end
$install$;

do $install$
begin
    execute replace($create$
create or replace function pyreplica.end_statement() returns trigger language plpgsql security definer
    -- The planner expects so many pairs of rows for a large UPDATE that it would compile the query, for a third of a
    -- second. And once it has planned the query for a few rows, it keeps the plan: a nested loop over many rows would
    -- take hours.
    set jit = off
    set enable_nestloop = off
as $end_statement$
<<ours>>
declare
    target pg_catalog.text;
    origin pg_catalog.text;
    letter pg_catalog.text := pg_catalog.left(tg_op, 1);
    running pg_catalog.text := pg_catalog.current_setting(tg_argv[0], true);
    place pg_catalog.int4 := pg_catalog.strpos(running, letter);
    early pg_catalog.int8;
    first pg_catalog.int8;
    blocked boolean;
begin
    if running is null or place operator(pg_catalog.=) 0 then
        if running operator(pg_catalog.<>) '' then
            raise exception 'the changes of table % have not been logged', tg_relid::pg_catalog.regclass
                using errcode = 'object_not_in_prerequisite_state',
                      detail = 'Something in the statement has set ' operator(pg_catalog.||) tg_argv[0] operator(pg_catalog.||) '.',
                      hint = 'Only pyreplica sets it.';
        end if;
        return null;
    end if;
    running := pg_catalog.left(running, place operator(pg_catalog.-) 1)
               operator(pg_catalog.||) pg_catalog.substr(running, place operator(pg_catalog.+) 1);
    running := pg_catalog.set_config(tg_argv[0], running, true);

    -- MERGE and INSERT ON CONFLICT call this in the order that the slave needs: DELETE, UPDATE, INSERT. The parts of a
    -- WITH call it in the order in which they end. So an INSERT may come before the DELETE that has freed its key. No
    -- statement changes a row that it has written itself, so the part that takes keys may always come after the parts
    -- that free them. If rows were logged too early, they get new ids. The setting "..._early" holds the id from which
    -- on this is so.
    blocked := letter operator(pg_catalog.<>) 'D' and pg_catalog.strpos(running, 'D') operator(pg_catalog.>) 0
               or letter operator(pg_catalog.=) 'I' and pg_catalog.strpos(running, 'U') operator(pg_catalog.>) 0;
    if letter operator(pg_catalog.<>) 'I'
       and pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) '' then
        early := pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early');
    end if;
    if blocked or early is not null then
        first := pg_catalog.nextval('public.replica_log_id_seq');
    end if;

    -- So it was when the statement began.
    if not @exact@ then
        raise exception 'the changes of table % cannot be logged', tg_relid::pg_catalog.regclass
            using errcode = 'object_not_in_prerequisite_state',
                  detail = 'A function that the statement has called has changed DateStyle, the search_path or the like.';
    end if;
    target := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
              operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    -- As in py_log_replica.
    if pg_catalog.current_setting('pyreplica.origin', true) operator(pg_catalog.<>) ''
       and pg_catalog.has_column_privilege(session_user, 'public.replica_log', 'txid', 'update') then
        origin := pg_catalog.current_setting('pyreplica.origin');
    end if;
    -- "x.*" names the rows and the block's label the variables, because a plain name could be a column's. The n-th old
    -- row belongs to the n-th new row. The ids are drawn in the order of the rows: the slave needs it when an UPDATE
    -- shifts keys.
    if letter operator(pg_catalog.=) 'I' then
        insert into public.replica_log (relation, event, new, origin)
        select ours.target, 'I', operator(pyreplica.%%) x.*, ours.origin from new_rows x;
    elsif letter operator(pg_catalog.=) 'D' then
        insert into public.replica_log (relation, event, old, origin)
        select ours.target, 'D', operator(pyreplica.%%) x.*, ours.origin from old_rows x;
    else
        -- PostgreSQL asks for the key once, and only if there is a large row.
        insert into public.replica_log (relation, event, old, new, origin)
        select target, 'U',
               case when pg_catalog.pg_column_size(x.before) operator(pg_catalog.<=) 2000 then x.before
                    else (pyreplica.shortened(x.before, y.after, (select pyreplica.logged_key(tg_relid, tg_argv[2:], false)), null)).before end,
               case when pg_catalog.pg_column_size(x.before) operator(pg_catalog.<=) 2000 then y.after
                    else (pyreplica.shortened(x.before, y.after, (select pyreplica.logged_key(tg_relid, tg_argv[2:], false)), null)).after end,
               origin
          from (select operator(pyreplica.%%) x.* as before, (x.*)::pg_catalog.record as bytes,
                       pg_catalog.row_number() over () as n from old_rows x) x
          join (select operator(pyreplica.%%) x.* as after, (x.*)::pg_catalog.record as bytes,
                       pg_catalog.row_number() over () as n from new_rows x) y on x.n operator(pg_catalog.=) y.n
         where not x.bytes operator(pg_catalog.*=) y.bytes
         order by x.n;
    end if;

    if early is not null then
        -- With nested loops the planner uses the index of the log. Without, it would read the whole log.
        perform pg_catalog.set_config('enable_nestloop', 'on', true);
        update public.replica_log l set id = later.id
          from (select c.id as former, pg_catalog.nextval('public.replica_log_id_seq') as id
                  from (select c.id from public.replica_log c
                         where c.id operator(pg_catalog.>=) early and c.id operator(pg_catalog.<) first
                           and c.txid operator(pg_catalog.=) pg_catalog.pg_current_xact_id()
                           and c.relation operator(pg_catalog.=) target order by c.id) c) later
         where l.id operator(pg_catalog.=) later.former;
    end if;
    if first is not null then
        running := pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early',
                                         case when blocked then first::pg_catalog.text else '' end, true);
    elsif not found then
        return null;
    end if;

    if origin is null then
        if pyreplica.asleep() then
            perform pg_catalog.pg_notify('replicas', '');
        end if;
    end if;
    return null;
end
$end_statement$;
    $create$, '@exact@', current_setting('pyreplica.exact'));
end
$install$;

-- == The log as SQL ==

-- Installs the view replica_log_sql, which shows each change as a statement, and the functions behind it.

-- Returns a change as a statement, for people to read: the daemon replays the columns, not this text.
create or replace function public.py_log_sql(change public.replica_log) returns text language plpgsql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_sql$
declare
    name text[];
    target text;
    keys text[];
    -- Not by the operators of hstore: their schema may be renamed. These casts go by the type.
    before constant jsonb := change.old::jsonb;
    shown text;
    condition text;
begin
    if change.event = 'S' then
        return change.sql;
    end if;
    name := parse_ident(change.relation);
    target := case when name[1] <> 'public' then '"' || replace(name[1], '"', '""') || '".' else '' end
              || '"' || replace(name[2], '"', '""') || '"';
    keys := coalesce(public.py_log_key(to_regclass(change.relation)), array(select jsonb_object_keys(before)));
    select string_agg(format('"%s"%s', replace(k, '"', '""'),
                             case when v is null then ' IS NULL' else '=' || quote_literal(v) end), ' AND ')
      into condition
      from (select k, before ->> k as v from unnest(keys) with ordinality u(k, n) order by n) x;
    case change.event
        when 'I' then
            select format('INSERT INTO %s (%s) VALUES (%s)', target,
                          string_agg('"' || replace(key, '"', '""') || '"', ', ' order by n),
                          string_agg(quote_nullable(value), ', ' order by n))
              into shown
              from public.py_log_columns(change.relation, change.new);
        when 'U' then
            select format('UPDATE %s SET %s WHERE %s', target,
                          string_agg(format('"%s"=%s', replace(key, '"', '""'), quote_nullable(value)), ', ' order by n),
                          condition)
              into shown
              from public.py_log_columns(change.relation, change.new)
             where not before ? key or value is distinct from before ->> key;
        when 'D' then
            shown := format('DELETE FROM %s WHERE %s', target, condition);
        when 'T' then
            shown := format('TRUNCATE %s', target);
    end case;
    return shown;
end
$py_log_sql$;

-- The columns of a row in the order of the table. Columns that the table no longer has come last.
do $install$
begin
    execute replace($create$
create or replace function public.py_log_columns(relation text, "row" @hs@.hstore)
    returns table (key text, value text, n bigint) language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_columns$
    select e.key, e.value, row_number() over (order by a.attnum, e.key)
      from jsonb_each_text("row"::jsonb) e
      left join pg_attribute a on a.attrelid = to_regclass(relation) and a.attname = e.key
$py_log_columns$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- The columns of the key of a table, in its order: those of the index that REPLICA IDENTITY USING INDEX names, or of the
-- primary key. NULL if it has neither.
create or replace function public.py_log_key(relation regclass) returns text[] language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_key$
    select array_agg(a.attname::text order by k.n)
      from (select i.indrelid, i.indkey, i.indnkeyatts from pg_index i
             where i.indrelid = relation and (i.indisprimary or i.indisreplident)
             order by i.indisreplident desc limit 1) i
      cross join unnest(i.indkey) with ordinality k(attnum, n)
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
$py_log_key$;

create or replace view public.replica_log_sql as
    select id, txid, public.py_log_sql(l) as sql, username, origin, ts from public.replica_log l order by id;

-- == The names of replicated tables ==

-- Installs the table of the names under which changes are replayed, and the functions that write and read it.

-- Says whether a role may do anyway what the owner of the log may: superusers and members of that role. The owners of the
-- database and of the schema public are trusted too.
create or replace function pyreplica.is_trusted(role oid) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_trusted$
    select pg_has_role(role, (select relowner from pg_class where oid = 'public.replica_log'::regclass), 'member')
        or role in (select datdba from pg_database where datname = current_database() union
                    select nspowner from pg_namespace where nspname = 'public')
$is_trusted$;

-- The names under which the slaves get changes, each with the table that had it when the triggers were created. The owner
-- of a table may give it any name. So the daemon replays the changes of no other name: otherwise he could write to every
-- table of the slave that the master lacks. Former names stay, for changes that are still to be replayed. "gone" says since when
-- there is no such table any more.
create table if not exists public.replica_table (
    name text primary key,
    relation regclass,
    ts timestamptz not null default now(),
    gone timestamptz
);
alter table public.replica_table add column if not exists gone timestamptz;

create or replace function pyreplica.register(relation regclass) returns void language sql
    set search_path = pg_catalog, pg_temp
as $register$
    insert into public.replica_table (name, relation) values (pyreplica.logged_name(relation), relation)
        on conflict (name) do update set relation = excluded.relation, ts = now(), gone = null
        where replica_table.relation is distinct from excluded.relation
$register$;

-- Forgets the names of dropped tables, of which the log has no change any more: all its rows are of later transactions.
create or replace function public.py_log_forget() returns void language sql security definer
    set search_path = pg_catalog, pg_temp
as $py_log_forget$
    update public.replica_table t set gone = now()
     where t.gone is null and t.relation is not null and not exists (select from pg_class c where c.oid = t.relation);
    delete from public.replica_table t
     where t.gone < coalesce((select l.ts from public.replica_log l order by l.id limit 1), 'infinity')
       and not exists (select from pg_class c where c.oid = t.relation);
$py_log_forget$;

-- Says whether a name is in that table, and if a table is given, whether it is this table's name. The first look at a table
-- adds its name if its owner is trusted anyway: with superusers, the owners of the log, of the database and of the schema
-- public. Or if somebody has made its trigger by hand, and named the table so in the first argument.
create or replace function public.py_log_knows(name text, relation oid) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_knows$
declare
    found oid;
begin
    -- A name from the catalog has the collation "C", for which the index would not do.
    if exists (select from public.replica_table t
                where t.name = $1 collate "default" and ($2 is null or t.relation = $2 or t.relation is null)) then
        return true;
    end if;
    found := (
        select c.oid from pg_class c
          join pg_namespace n on n.oid = c.relnamespace
         where format('%I.%I', n.nspname, c.relname) = $1 and c.oid = coalesce($2, c.oid)
           and exists (
               select from pg_trigger t
                where t.tgrelid = c.oid and t.tgparentid = 0
                  and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
                  and (pyreplica.is_trusted(c.relowner)
                       or position(convert_to(c.relname, getdatabaseencoding()) || decode('00', 'hex') in t.tgargs) = 1
                          and not exists (select from public.replica_table k where k.relation = c.oid))));
    if found is null then
        return false;
    end if;
    if current_setting('transaction_read_only') = 'off' then
        perform pyreplica.register(found);
    end if;
    return true;
end
$py_log_knows$;

-- Tables that had triggers before there was that table, and those that the log still names: they may be gone by now.
do $register$
begin
    if not exists (select from public.replica_table) then
        insert into public.replica_table (name)
        select distinct format('%I.%I', i[1], i[2])
          from (select distinct relation from public.replica_log
                 where relation ~ '^("([^"]|"")+"|[a-z_][a-z0-9_$]*)[.]("([^"]|"")+"|[a-z_][a-z0-9_$]*)$') l
         cross join parse_ident(l.relation) i
         where cardinality(i) = 2;
    end if;
    perform pyreplica.register(t.tgrelid)
       from pg_trigger t
      where t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
        and t.tgparentid = 0 and t.tgtype & 1 = 1
        and not exists (select from public.replica_table k where k.relation = t.tgrelid)
      group by t.tgrelid;
end
$register$;

-- == The trigger on a table ==

-- Installs the function that creates the triggers on one table, and one that warns of triggers which spoil the order.

-- Earlier versions had these.
drop function if exists public.py_log_create_tg(regclass, text), public.py_log_create_tgs(text, text),
    public.py_log_warn_before(regclass);

-- Creates the triggers on one table, or on the partitioned table that it is a partition of, and returns one line that
-- says so. level: row or statement. NULL keeps the level that the table has, or is row.
-- A session that makes triggers on thousands of tables plans its queries while pg_trigger is small, where it would not use an index.
create or replace function public.py_log_create_tg(relation regclass, shown text, level text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set enable_seqscan = off
as $py_log_create_tg$
declare
    -- A partition is replicated through its root, so partitions that are created later need no call.
    root constant regclass := coalesce(pg_partition_root(relation), relation);
    target regclass := case when public.py_log_key(root) is null and (select relreplident <> 'f' from pg_class where oid = root)
                            then relation else root end;
    keys constant text[] := public.py_log_key(target);
    -- Without a key the whole row identifies it, if somebody has said so.
    full_row constant boolean := keys is null and (select relreplident = 'f' from pg_class where oid = target);
    arguments text;
    obstacle constant text := case
        when exists (select from pg_depend where classid = 'pg_class'::regclass and objid = relation and deptype = 'e')
            then 'belongs to an extension'
        when (select relpersistence from pg_class where oid = relation) = 't' then 'is temporary'
        when relation in ('public.replica_log'::regclass, 'public.replica_slave'::regclass, 'public.replica_error'::regclass,
                          'public.py_log_filter'::regclass, 'public.py_log_transform'::regclass)
             or relation in (to_regclass('public.replica_progress'), to_regclass('public.replica_log_former'),
                             to_regclass('public.replica_hold'), to_regclass('public.replica_held'),
                             to_regclass('public.replica_conflict'), to_regclass('public.replica_skipped'),
                             to_regclass('public.replica_copy'), to_regclass('public.replica_copy_schema'),
                             to_regclass('public.replica_history'),
                             to_regclass('public.replica_purged'), 'public.replica_table'::regclass,
                             to_regclass('public.py_log_ddl'), to_regclass('public.py_log_ddl_setting'),
                             to_regclass('public.py_log_ddl_table'), to_regclass('public.py_log_ddl_absent'),
                             to_regclass('public.py_log_ddl_script'))
             then 'is pyreplica''s own'
        when keys is null and not full_row then 'has no pk constraint'
        when target <> root and exists (
            select from pg_partition_ancestors(target) a join pg_trigger t on t.tgrelid = a.relid
             where a.relid <> target and t.tgparentid = 0 and t.tgqual is null and t.tgtype & 1 = 1
               and t.tgfoid = 'public.py_log_replica()'::regprocedure)
            then format('is replicated through %s, by a trigger made by hand', root)
        when not has_table_privilege(target, 'TRIGGER') then 'belongs to somebody else'
    end;
    -- Not by its name, which fails for a role that may not use the schema.
    copied constant oid := (select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                             where n.nspname = 'pyreplica' and p.proname = 'by_partition');
    -- A table that has its own trigger may become a partition only if the copy of the root's has another name. A root may
    -- become a partition, too, so each root's has a name of its own.
    by_partition constant boolean := (select relkind = 'p' from pg_class where oid = target);
    trigger constant name := case when by_partition then coalesce(
        (select tgname from pg_trigger
          where tgrelid = target and tgfoid = copied and tgparentid = 0 limit 1),
        ('!replica_tg_' || left(md5(gen_random_uuid()::text), 8))::name) else '!replica_tg' end;
    always constant boolean := exists (
        select from pg_trigger where tgrelid = target and tgname in ('!replica_tg', trigger) and tgenabled = 'A');
    -- The transition tables of a partition or a parent hold other rows than those that changed in the table itself.
    family constant boolean := by_partition or exists (select from pg_inherits where inhrelid = target or inhparent = target);
    setting constant text := format('pyreplica.running_%s', replace(gen_random_uuid()::text, '-', ''));
    condition text := '';
    event text;
    rows text;
    former text;
    part regclass;
begin
    if level is null then
        level := case when exists (select from pg_trigger where tgrelid = target and tgname = '!replica_begin_tg')
                      then 'statement' else 'row' end;
    elsif level not in ('row', 'statement') then
        raise exception 'there is no level %', level
            using errcode = 'invalid_parameter_value', hint = 'Changes are logged by row or by statement.';
    end if;
    if obstacle = 'has no pk constraint' then
        raise notice 'nothing identifies a row of table %', shown
            using hint = format('Without a primary key: ALTER TABLE %s REPLICA IDENTITY USING INDEX ...; for a unique index whose '
                                'columns are NOT NULL, or ALTER TABLE %1$s REPLICA IDENTITY FULL; if the whole row identifies it. '
                                'Then call py_log_create_tg again.', root);
    end if;
    if obstacle is not null then
        return format('table %s %s (couldn''t be replicated)!', shown, obstacle);
    end if;
    perform public.py_log_refuse_key(target, keys, null::text[]);
    select string_agg(quote_literal(a), ', ' order by n) into arguments
      from unnest((select relname::text from pg_class where oid = target) || keys) with ordinality u(a, n);

    -- First it drops the former triggers, those of the partitions too. One made by hand or by the Python original would log each change a second time; but one made by hand with a
    -- WHEN stays.
    for former in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_trigger t
         where (t.tgname in ('!replica_tg', '!replica_truncate_tg', '!replica_begin_tg', '!replica_insert_tg',
                             '!replica_update_tg', '!replica_delete_tg')
                or t.tgfoid = copied
                or t.tgqual is null and t.tgfoid = 'public.py_log_replica()'::regprocedure)
           and t.tgparentid = 0
           and t.tgrelid = any (array(select target::oid union select relid from pg_partition_tree(target)))
    loop
        execute former;
    end loop;
    for part in select target union select relid from pg_partition_tree(target) loop
        execute format('create trigger "!replica_truncate_tg" after truncate on %s '
                       'for each statement execute function public.py_log_replica(%s)', part, arguments);
        if always then
            execute format('alter table %s enable always trigger "!replica_truncate_tg"', part);
        end if;
    end loop;
    if level = 'statement' and family then
        raise warning 'changes of table % are logged by row', shown
            using detail = 'Inheritance and partitions are for row triggers only.';
    elsif level = 'statement' then
        condition := format('when (coalesce(pg_catalog.current_setting(%L, true), '''') operator(pg_catalog.=) '''')', setting);
        execute format('create trigger "!replica_begin_tg" before insert or update or delete on %s '
                       'for each statement execute function pyreplica.begin_statement(%L, %s)', target, setting, arguments);
        for event, rows in values ('insert', 'new table as new_rows'), ('delete', 'old table as old_rows'),
                                  ('update', 'old table as old_rows new table as new_rows')
        loop
            execute format('create trigger "!replica_%s_tg" after %1$s on %s referencing %s '
                           'for each statement execute function pyreplica.end_statement(%L, %s)',
                           event, target, rows, setting, arguments);
        end loop;
    end if;
    -- Triggers fire in the order of their names. "!" sorts first, so a row is logged before another trigger writes
    -- further rows.
    execute format('create trigger %I after insert or update or delete on %s for each row %s execute function %s(%s)',
                   trigger, target, condition,
                   case when by_partition then 'pyreplica.by_partition' else 'public.py_log_replica' end, arguments);
    -- In a cascade or a ring the trigger also fires for replayed changes. The new trigger goes on with that.
    if always then
        execute format('alter table %s enable always trigger %I', target, trigger);
    end if;
    perform pyreplica.register(target);
    perform public.py_log_warn_before(target, shown);
    return format('created trigger on %s (%s)', shown, coalesce(array_to_string(keys, ','), 'replica identity full')) || case
        when exists (select from pg_class where relpersistence = 'u' and (oid = target or relkind = 'r')
                        and oid = any (array(select target::oid union select relid from pg_partition_tree(target))))
        then '; it is unlogged: a crash of this server empties it, which nothing logs' else '' end;
end
$py_log_create_tg$;

-- Warns of row triggers that seem to change further rows of the statement that has fired them: those changes are logged in the wrong
-- order, by row and by statement alike. That is a BEFORE trigger that writes to any table, or an AFTER trigger that writes to its own.
-- Nobody can know that from the catalog, so it searches the text of the function.
create or replace function public.py_log_warn_before(relation regclass, shown text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_warn_before$
declare
    -- Its name as the text of a function may write it, as a pattern.
    own constant text := (select '("?' || regexp_replace(nspname, '\W', '.', 'g') || '"?\s*[.]\s*)?"?' || regexp_replace(relname, '\W', '.', 'g') || '("|\M)'
                            from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation);
    writes constant text := '\m(insert\s+into|update|delete\s+from|merge\s+into)\M\s+(only\s+)?';
    suspect record;
begin
    for suspect in
        select t.tgname, t.tgtype & 2 = 2 as is_before from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = relation and not t.tgisinternal and t.tgtype & 1 = 1 and t.tgenabled <> 'D'
           and p.prosrc ~* (writes || case when t.tgtype & 2 = 2 then '["[:alpha:]_]' else own end) order by 1
    loop
        raise warning 'trigger % on % runs % each row and seems to write to %', suspect.tgname, shown,
                      case when suspect.is_before then 'before' else 'after' end, case when suspect.is_before then 'tables' else 'this table' end
            using detail = 'If it changes a row that the same statement changes too, the older values may be logged last.',
                  hint = 'Make it an AFTER trigger FOR EACH STATEMENT, or let it change no row that its statement changes. pyreplica compare '
                         'finds the rows that differ.';
    end loop;
end
$py_log_warn_before$;

-- == The trigger on a table, by its name ==

-- Installs the functions py_log_create_tg that people call: with a table's name, and if they want with a schema and a
-- level.

-- Takes all three, so the table is known.
create or replace function public.py_log_create_tg(schemaname text, relname text, level text)
    returns text language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_create_tg$
declare
    relation constant regclass := to_regclass(format('%I.%I', schemaname, relname));
begin
    if relation is null then
        raise exception 'table %.% does not exist', quote_ident(schemaname), quote_ident(relname)
            using errcode = 'undefined_table';
    end if;
    return public.py_log_create_tg(relation, relname, level);
end
$py_log_create_tg$;

-- Takes schema and table, or table and level. The search_path of the caller decides how the answer names the table.
create or replace function public.py_log_create_tg(schemaname text, relname text) returns text language plpgsql
as $py_log_create_tg$
begin
    return public.py_log_create_tgs(schemaname, relname, pg_catalog.current_schemas(true));
end
$py_log_create_tg$;

-- Takes the name alone, as in the original.
create or replace function public.py_log_create_tg(relname text) returns text language plpgsql
as $py_log_create_tg$
begin
    return public.py_log_create_tgs(null::pg_catalog.text, relname, pg_catalog.current_schemas(true));
end
$py_log_create_tg$;

-- Takes a schema and a table in it; or a table in any schema, with a level or none. Returns one line for each table. If
-- there is a table that is called "row" or "statement", the word means the table.
create or replace function public.py_log_create_tgs(first text, second text, path name[]) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_create_tgs$
declare
    is_level constant boolean := first is not null and second in ('row', 'statement');
    name constant text := case when is_level then first else second end;
    relation constant regclass := case when first is not null then to_regclass(format('%I.%I', first, second)) end;
    seen oid;
    lines text;
begin
    if is_level and relation is not null
       and exists (select from pg_class c where c.relname = first and c.relkind in ('r', 'p')) then
        raise exception '% may be a table''s schema or a table', quote_ident(first)
            using errcode = 'ambiguous_parameter', hint = 'Give schema, table and level.';
    elsif first is not null and (relation is not null or not is_level) then
        return public.py_log_create_tg(first, second, null::text);
    end if;
    seen := (select c.oid from unnest(path) with ordinality p (schema, n) join pg_namespace s on s.nspname = p.schema
               join pg_class c on c.relnamespace = s.oid and c.relname = name order by p.n limit 1);
    select string_agg(public.py_log_create_tg(
               c.oid::regclass, case when c.oid = seen then c.relname::text else format('%I.%I', n.nspname, c.relname) end,
               case when is_level then second end), e'\n' order by c.oid is not distinct from seen desc, n.nspname)
      into lines
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relname = name and c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema';
    if lines is null then
        raise exception 'table % does not exist', quote_ident(name) using errcode = 'undefined_table';
    end if;
    return lines;
end
$py_log_create_tgs$;

-- == Several slaves, several masters ==

-- Installs what adds and removes a slave, and what keeps the sequences of several masters apart.

-- Adds a slave, that is its column of the log. The slave does not get what the log holds already. So copy the database
-- to the slave after this, and before clients write again.
create or replace function public.py_log_add_slave(field text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_add_slave$
begin
    if exists (select from pg_attribute
                where attrelid = 'public.replica_log'::regclass and attname = field and not attisdropped) then
        raise exception 'replica_log has a column % already', quote_ident(field) using errcode = 'duplicate_column';
    end if;
    execute format('alter table public.replica_log add column %I boolean not null default true', field);
    execute format('alter table public.replica_log alter column %I set default false', field);
    perform pyreplica.apply_slaves();
    return format('added slave %s: set SLAVE_FIELD=%1$s in its config file', field);
end
$py_log_add_slave$;

-- Removes a slave: its column, its position and its histories. What the log kept for it goes later: the daemons of the other
-- slaves delete what all slaves that are left have replayed. So the log is locked for a moment only, however much that is.
create or replace function public.py_log_remove_slave(field text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_remove_slave$
declare
    prepared constant text := (
        select string_agg(quote_literal(gid), ', ') from pg_prepared_xacts
         where database = current_database() and split_part(gid, ':', 1) = 'pyreplica'
           and split_part(gid, ':', 3) = field and split_part(gid, ':', 4) = 'master');
begin
    if not exists (select from pg_attribute where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped
                                              and atttypid = 'boolean'::regtype and attname <> field) then
        raise exception 'slave % is the only one', field
            using errcode = 'object_in_use', hint = 'To end replication altogether run master-uninstall.sql.';
    end if;
    if prepared is not null then
        raise exception 'slave % has in-doubt transactions: %', field, prepared using errcode = 'object_in_use',
            hint = 'Start its daemon once more, it settles them; if the slave is lost, ROLLBACK PREPARED each of them.';
    end if;
    -- These come before the lock, since they may wait for a batch of the slave.
    delete from public.replica_slave s where s.field = py_log_remove_slave.field;
    delete from public.replica_history h where h.field = py_log_remove_slave.field;
    delete from public.replica_error e where e.field = py_log_remove_slave.field;
    execute format('alter table public.replica_log drop column %I', field);
    perform pyreplica.apply_slaves();
    return format('removed slave %s', field);
end
$py_log_remove_slave$;

-- Makes a sequence give numbers that no other node gives: of 3 nodes, node 1 takes 1, 4, 7, ..., and node 2 takes 2, 5,
-- 8, ... All are above the numbers that the sequence has given here before.
--
-- Its owner may give the sequence another name at any moment, and its name to something else. So it is read by its number:
-- what a view of that name calls would run with the rights of the caller.
create or replace function public.py_log_interleave(sequence regclass, node int, nodes int) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_interleave$
declare
    last bigint;
    first bigint;
begin
    if nodes < 1 or node not between 1 and nodes then
        raise exception 'node % of % does not exist', node, nodes using errcode = 'invalid_parameter_value',
            hint = 'Nodes are counted from 1.';
    end if;
    -- This keeps the sequence as it is to the end of the transaction.
    execute format('alter sequence %s increment by %s', sequence, nodes);
    if not exists (select from pg_sequence where seqrelid = sequence and seqincrement = nodes) then
        raise exception 'the sequence % has got another name meanwhile', sequence using errcode = 'object_in_use',
            hint = 'Try again.';
    end if;
    -- A sequence that has given no number yet gives its first.
    last := coalesce(pg_sequence_last_value(sequence), nextval(sequence));
    -- The next number above the last one that has the remainder of this node.
    first := last + 1 + ((node - (last + 1)) % nodes + nodes) % nodes;
    perform setval(sequence, first, false);
    return first;
end
$py_log_interleave$;

-- Takes the name of a sequence. PostgreSQL prefers text for a literal, so that a call as the documentation shows it cannot
-- mean a function of somebody else.
create or replace function public.py_log_interleave(sequence text, node int, nodes int) returns bigint language plpgsql
as $py_log_interleave$
begin
    return public.py_log_interleave(sequence::pg_catalog.regclass, node, nodes);
end
$py_log_interleave$;

-- == Filters and transforms ==

-- Installs the tables py_log_filter and py_log_transform, and the functions that check what somebody writes there.

-- Conditions on the changes of a table. Those of one table and event are combined by AND. relname: the name of a table
-- in any schema, or schema and table as replica_log writes them. docs/filters.md says what the conditions of each event
-- decide.
create table if not exists public.py_log_filter (
    relname text not null,
    event text not null check (event in ('INSERT', 'UPDATE', 'DELETE')),
    condition text not null,
    language text not null default 'sql' check (language in ('sql', 'python')),
    on_error text not null default 'replicate' check (on_error in ('replicate', 'raise')),
    id bigint generated always as identity
);

-- What the slave gets in the place of a column: an expression over new, the row that is sent. NULL leaves the column
-- out.
create table if not exists public.py_log_transform (
    relname text not null,
    field text not null,
    expression text,
    language text not null default 'sql' check (language in ('sql', 'python')),
    on_error text not null default 'null' check (on_error in ('null', 'raise')),
    id bigint generated always as identity,
    unique (relname, field)
);

-- The tables that a relname of a filter or transform means.
create or replace function pyreplica.tables(relname text) returns setof regclass language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $tables$
    select c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
       and $1 in (c.relname, quote_ident(n.nspname) || '.' || quote_ident(c.relname))
$tables$;

-- Refuses a table with a column whose type belongs to a role that is not trusted. The owner of a type decides what its
-- casts, operators and checks do, and a condition or expression runs with the rights of the log's owner. The types of the
-- columns can't change while the caller has a lock on the table. The caller has set the search_path.
create or replace function pyreplica.check_types(relid oid) returns void language plpgsql stable
as $check_types$
declare
    stranger record;
begin
    -- The types of PostgreSQL itself have lower numbers.
    if not exists (select from pg_attribute a where a.attrelid = relid and a.atttypid >= 16384 and not a.attisdropped) then
        return;
    end if;
    select a.attname as field, t.oid::regtype as type, t.typowner::regrole as owner into stranger
      from pg_attribute a
     cross join pyreplica.parts_of(a.atttypid) p (id)
      join pg_type t on t.oid = p.id
     where a.attrelid = relid and a.atttypid >= 16384 and not a.attisdropped and t.oid >= 16384
       and t.typcategory <> 'A' and not pyreplica.is_trusted(t.typowner) limit 1;
    if found then
        raise exception 'column % of table % is of type %, which belongs to %',
                        quote_ident(stranger.field), relid::regclass, stranger.type, stranger.owner
            using errcode = 'insufficient_privilege',
                  detail = 'The owner of a type decides what its casts and checks do, and the condition or expression would '
                           'run them with the rights of the log''s owner.',
                  hint = format('Give the type to a role that you trust: ALTER TYPE %s OWNER TO ...', stranger.type);
    end if;
end
$check_types$;

-- Raises an error if an expression cannot work, at once, while its author can correct it. PostgreSQL plans the
-- expression but does not evaluate it.
create or replace function pyreplica.check_expression(
    relname text, expression text, language text, declarations text, wanted text, shown text)
    returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $check_expression$
declare
    relation regclass;
begin
    if not exists (select from pyreplica.tables(relname)) then
        raise warning 'there is no table %', relname
            using hint = 'A name is given as it is or, for one schema only, as replica_log has it: schema.table.';
    end if;
    if language = 'python' then
        if to_regproc('pyreplica.python') is null then
            raise exception '% is Python, which master-install-filter.sql provides', shown
                using errcode = 'feature_not_supported';
        end if;
        perform pyreplica.python(null, null, null, expression);
        return;
    end if;
    for relation in select t from pyreplica.tables(relname) t loop
        -- Planning it locks the table, without a right on it, so that nobody changes the types meanwhile.
        execute format('prepare pyreplica_lock as select from only %s', relation);
        deallocate pyreplica_lock;
        perform pyreplica.check_types(relation);
        begin
            execute format('do %L', format($body$
                #variable_conflict use_column
                declare
                    %s;
                begin
                    perform (%s
                    )%s where false;
                end$body$, replace(declarations, '@', relation::text), expression, wanted));
        exception when others then
            raise exception '% does not fit table %: %', shown, relation, sqlerrm using errcode = sqlstate,
                hint = 'SQL names a column as new.column or old.column, as far as the event has them; what is not '
                       'built in needs its schema. Python needs language = ''python''.';
        end;
    end loop;
end
$check_expression$;

create or replace function pyreplica.check_filter() returns trigger language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $check_filter$
begin
    perform pyreplica.check_expression(
        new.relname, new.condition, new.language,
        case new.event when 'INSERT' then 'new @' when 'DELETE' then 'old @' else 'new @; old @' end, ' is true',
        format('condition %s', new.condition));
    return new;
end
$check_filter$;

create or replace function pyreplica.check_transform() returns trigger language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $check_transform$
declare
    relation regclass;
begin
    for relation in select t from pyreplica.tables(new.relname) t loop
        if not exists (select from pg_attribute where attrelid = relation and attname = new.field and attnum > 0
                                                      and not attisdropped) then
            raise exception 'table % has no column %', relation, quote_ident(new.field)
                using errcode = 'undefined_column';
        end if;
        perform public.py_log_refuse_key(relation, public.py_log_key(relation), array[new.field]::text[]);
    end loop;
    if new.expression is not null then
        perform pyreplica.check_expression(new.relname, new.expression, new.language, 'new @', '::text',
                                               format('expression %s', new.expression));
    end if;
    return new;
end
$check_transform$;

-- Refuses transforms of key columns, because the slave finds a row by its key. The arguments of a trigger that was made
-- by hand name its key. Where the whole row identifies it, old values are transformed too, as the new ones once were.
create or replace function public.py_log_refuse_key(relation regclass, keys text[], fields text[] default null)
    returns void language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_refuse_key$
declare
    field text;
    by_hand constant text[] := (
        select array_agg(convert_from(decode(m[1], 'hex'), getdatabaseencoding()))
          from pg_trigger t
          cross join regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
         where n > 1 and t.tgrelid = relation and t.tgfoid = to_regproc('public.py_log_replica')
           and t.tgname !~ '^!replica_');
    primary_key constant text[] := array(
        select a.attname::text from pg_index i
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
         where i.indrelid = relation and i.indisprimary);
begin
    for field in
        select unnest(fields) union
        select t.field from public.py_log_transform t
         where fields is null and relation in (select pyreplica.tables(t.relname))
    loop
        if field = any (keys || by_hand || primary_key) then
            raise exception 'column % is part of the key of table %', quote_ident(field), relation
                using errcode = 'invalid_column_reference',
                      hint = 'The key finds the row on the slave; it can''t be transformed or left out.';
        end if;
    end loop;
end
$py_log_refuse_key$;

-- Handles the error of a condition or an expression. The statement of the application goes on unless on_error says
-- raise. The text that it returns is logged with the change, for the operator of the slave. It holds no value of the
-- row: the message of the error may show one that must not leave the master.
create or replace function pyreplica.complain(kind text, failed bigint, state text, message text) returns text
    language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $complain$
declare
    entry record;
begin
    if kind = 'filter' then
        select f.relname, f.condition as shown, f.on_error, 'the change is replicated' as consequence into entry
          from public.py_log_filter f where f.id = failed;
    else
        select t.relname, coalesce(t.expression, t.field) as shown, t.on_error,
               format('NULL is sent for %s', quote_ident(t.field)) as consequence into entry
          from public.py_log_transform t where t.id = failed;
    end if;
    if entry.on_error = 'raise' then
        raise exception '% % of table % failed: %', kind, failed, entry.relname, message using errcode = state;
    end if;
    raise log 'pyreplica: % % of table % (%) failed: %', kind, failed, entry.relname, entry.shown, message;
    return format('%s %s of table %s failed with SQLSTATE %s, %s: %s (the master''s log says more)',
                  kind, failed, entry.relname, state, entry.consequence, entry.shown);
end
$complain$;

-- == The functions of filters and transforms ==

-- Installs pyreplica.apply, which generates the functions that py_log_replica calls for filters and transforms, and the
-- triggers that call it when py_log_filter or py_log_transform change.
--
-- pyreplica.special says which tables have any, pyreplica.admit how the slave sees a change, and pyreplica.send what it
-- gets in the place of values. Because they are generated, a condition costs as much as an expression in PL/pgSQL, is
-- compiled once in a session, and takes effect with the commit of its row, without a lock on any table.

-- Returns PL/pgSQL that evaluates the expression of a filter or transform.
create or replace function pyreplica.evaluation(event text, expression text, language text) returns text
    language sql immutable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $evaluation$
    select case when language = 'sql' then format(e'(%s\n)', expression)
                else format('pyreplica.python(pg_typeof(%s)::text, %s, %s, %L)',
                            case event when 'DELETE' then 'old' else 'new' end,
                            -- A cast might be one that the owner of the table has made for its rows.
                            case event when 'INSERT' then 'null' else 'textin(record_out(old))' end,
                            case event when 'DELETE' then 'null' else 'textin(record_out(new))' end, expression) end
$evaluation$;

-- Returns PL/pgSQL that sets the variable "verdict" to what the conditions for an event say, SQL before Python. A
-- condition that fails counts as true. A cached plan expects a column to have the type that it had before, and fails
-- with 42804: then the code discards the plans, once for each session and changed type, and evaluates again.
create or replace function pyreplica.conditions(event text, verdict text) returns text language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $conditions$
    select coalesce(format($block$
            begin
                pass := true;%s
                %s := pass;
            exception when others then
                if sqlstate = '42804' and round = 1 then
                    execute 'discard plans';
                    continue;
                end if;
                remark := pyreplica.complain('filter', doing, sqlstate, sqlerrm);
            end;$block$, string_agg(x.statements, '' order by x.relname), verdict), '')
      from (select f.relname, format($table$
                if %L in (relname, relation) then
                    doing := %s;
                    perform pyreplica.check_types(relid);%s
                end if;$table$, f.relname, min(f.id), string_agg(format($condition$
                    doing := %s;
                    pass := pass and (%s)%s is true;$condition$, f.id, pyreplica.evaluation(f.event,
                        case f.language when 'sql' then f.condition else format(e'bool(%s\n)', f.condition) end, f.language),
                        case f.language when 'python' then '::boolean' end),
                    '' order by f.language desc, f.id)) as statements
              from public.py_log_filter f where f.event = $1 group by f.relname) x
     having count(*) > 0
$conditions$;

-- Returns PL/pgSQL that puts the values of all transforms into "row". If an expression fails, the slave gets NULL,
-- because the value itself must not leave the master.
create or replace function pyreplica.replacements() returns text language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $replacements$
    select coalesce(string_agg(case when t.expression is null then format($left_out$
        if %1$L in (relname, relation) then
            "row" := "row" operator(pyreplica.-) %2$L::text;
        end if;$left_out$, t.relname, t.field)
    else format($replaced$
        if %1$L in (relname, relation) then
            begin
                if not "row" operator(pyreplica.?) %2$L::text then
                    raise undefined_column using message = 'the column is gone';
                end if;
                perform pyreplica.check_types(relid);
                "row" := "row" operator(pyreplica.||) (%2$L::text operator(pyreplica.~>) %4$s::text);
            exception when others then
                if sqlstate = '42804' and round = 1 then
                    execute 'discard plans';
                    continue;
                end if;
                "row" := "row" operator(pyreplica.||)
                         (''::text operator(pyreplica.~>) pyreplica.complain('transform', %3$s, sqlstate, sqlerrm));
                if "row" operator(pyreplica.?) %2$L::text then
                    "row" := "row" operator(pyreplica.||) (%2$L::text operator(pyreplica.~>) null::text);
                end if;
            end;
        end if;$replaced$, t.relname, t.field, t.id, pyreplica.evaluation('INSERT', t.expression, t.language))
    end, '' order by t.id), '')
      from public.py_log_transform t
$replacements$;

-- Who changes filters locks this. Anybody could take an advisory lock, and keep it.
create or replace view pyreplica.turn as select 1 as one;

-- Generates pyreplica.special, pyreplica.admit and pyreplica.send.
create or replace function pyreplica.apply() returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $apply$
declare
    hstore constant text := (select format_type(atttypid, null) from pg_attribute
                              where attrelid = 'public.replica_log'::regclass and attname = 'old');
    -- The session of a verb may refuse to read views, but conditions may read some. Not all versions have the setting.
    views constant text := case when exists (select from pg_settings where name = 'restrict_nonsystem_relation_kind')
                                then ' set restrict_nonsystem_relation_kind = ''''' else '' end;
begin
    -- Of two transactions that change filters, the second waits here, and then sees the rows of both.
    lock table pyreplica.turn in exclusive mode;

    execute format('create or replace function pyreplica.special() returns text[] language sql stable as %L',
                   format('select %L::pg_catalog.text[]', array(
                       select relname from public.py_log_filter union select relname from public.py_log_transform)));

    -- The conditions for INSERT say whether a row belongs on the slave. They are evaluated on the new row, and on the
    -- old row as if it were new. The conditions for UPDATE and DELETE say whether the slave gets a change of a row that
    -- belongs.
    execute format($create$
        create or replace function pyreplica.admit(
            relname text, relation text, relid oid, event text, old record, new record) returns text language plpgsql
            set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on
            set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'%s as %L
    $create$, views, format($body$
#variable_conflict use_column
declare
    doing bigint;
    was boolean;
    now boolean;
    matters boolean;
    pass boolean;
    letter text;
    remark text;
begin
    for round in 1..2 loop
        was := event <> 'INSERT';
        now := event <> 'DELETE';
        matters := true;
        remark := '';
        if now then%s
        end if;
        if was then
            declare new record := old; begin%s
            end;
        end if;
        if was and now then
            letter := case when %L && array[relname, relation] then 'W' else 'U' end;%s
        elsif now then
            letter := 'I';
        elsif was then
            letter := 'D';
            if event = 'DELETE' then%s
            end if;
        else
            return null;
        end if;
        if not matters then
            return null;
        end if;
        return letter || case when %L && array[relname, relation] then '+' else '-' end || remark;
    end loop;
end$body$,
        pyreplica.conditions('INSERT', 'now'), pyreplica.conditions('INSERT', 'was'),
        array(select distinct f.relname from public.py_log_filter f where f.event = 'UPDATE'),
        pyreplica.conditions('UPDATE', 'matters'), pyreplica.conditions('DELETE', 'matters'),
        array(select t.relname from public.py_log_transform t)));

    execute format($create$
        create or replace function pyreplica.send(
            relname text, relation text, relid oid, "row" %1$s, new record) returns %1$s language plpgsql strict
            set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on
            set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'%3$s as %2$L
    $create$, hstore, format($body$
#variable_conflict use_column
declare
    whole constant public.replica_log.old%%type := "row";
begin
    for round in 1..2 loop
        "row" := whole;%s
        return "row";
    end loop;
end$body$, pyreplica.replacements()), views);
end
$apply$;

create or replace function pyreplica.changed() returns trigger language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $changed$
begin
    perform pyreplica.apply();
    return null;
end
$changed$;

do $install$
declare
    kind text;
begin
    -- Earlier versions had these.
    execute format('drop function if exists pyreplica.replacements(text), pyreplica.admit(text, text, text, record, record),
                    pyreplica.send(text, text, %s.hstore, record), pyreplica.send_exact(text, text, %1$s.hstore, record)',
                   current_setting('pyreplica.hstore'));
    foreach kind in array array['filter', 'transform'] loop
        execute replace('drop trigger if exists py_log_check on public.py_log_@', '@', kind);
        execute replace('drop trigger if exists py_log_changed on public.py_log_@', '@', kind);
        execute replace('create trigger py_log_check before insert or update on public.py_log_@ for each row
                         execute function pyreplica.check_@()', '@', kind);
        execute replace('create trigger py_log_changed after insert or update or delete or truncate on public.py_log_@
                         for each statement execute function pyreplica.changed()', '@', kind);
    end loop;
    perform pyreplica.apply();
    execute format($create$
create or replace function pyreplica.send_exact(relname text, relation text, relid oid, "row" %s.hstore, new record)
    returns %1$s.hstore language plpgsql strict
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
    set quote_all_identifiers = off set standard_conforming_strings = on
as $send_exact$
begin
    return pyreplica.send(relname, relation, relid, "row", new);
end
$send_exact$;
    $create$, current_setting('pyreplica.hstore'));
end
$install$;

-- == Rights ==

-- Installs py_log_grant, gives everything to the owner of the log, revokes the rights of all others, and commits.

-- An earlier version had this.
drop function if exists public.py_log_grant(name);

-- Grants the role of the daemon what it needs on the master. The owner of the log and superusers need no grants. PostgreSQL
-- prefers text for a literal. If this took a name, a function of somebody else that takes text would be called instead.
create or replace function public.py_log_grant(role text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_grant$
declare
    schema name;
begin
    for schema in
        select 'public' union select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                               where e.extname = 'hstore'
    loop
        if not has_schema_privilege(role::name, schema, 'usage') then
            execute format('grant usage on schema %I to %I', schema, role);
        end if;
    end loop;
    execute format('grant select, delete, update (txid, %s) on public.replica_log to %I', (
        select string_agg(quote_ident(attname), ', ') from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype),
        role);
    execute format('grant select, insert, update on public.replica_slave, public.replica_error, public.replica_purged to %I',
                   role);
    execute format('grant select, insert, update, delete on public.replica_history to %I', role);
    execute format('grant select on public.replica_log_sql, public.replica_replayed to %I', role);
    execute format('grant select, insert on public.replica_skipped to %I', role);
    execute format('grant usage on sequence public.replica_batch_seq to %I', role);
    execute format('grant execute on function public.py_log_can_wake(text), public.py_log_forget() to %I', role);
    return format('%s may read and mark the log', quote_ident(role));
end
$py_log_grant$;

-- Grants a role what "pyreplica status", "doctor" and "compare" read on the master, and nothing that writes. To see what
-- sessions wait for, it should be a member of pg_monitor too.
create or replace function public.py_log_grant_monitor(role text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_grant_monitor$
declare
    relations constant text := 'public.replica_log, public.replica_slave, public.replica_history, public.replica_purged, '
        'public.replica_table, public.replica_error, public.replica_skipped, public.replica_log_sql, public.replica_replayed, '
        'public.py_log_filter, public.py_log_transform';
begin
    execute format('grant select on %s to %I', relations, role);
    return format('%s may read what status, doctor and compare need', quote_ident(role));
end
$py_log_grant_monitor$;

-- Everything belongs to the owner of the log, also what a superuser adds later, because the trigger runs with its
-- owner's rights. Only the function that runs Python stays with the role that created it: nothing limits what Python can
-- do.
do $owner$
declare
    keeper constant regrole := (select relowner from pg_class where oid = 'public.replica_log'::regclass);
    statement text;
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        return;
    end if;
    for statement in
        -- A sequence that numbers the rows of a table follows the table.
        select format('alter %s %s owner to %s', kind, name, keeper) from pyreplica.own()
         where owner <> keeper and field is null and (kind <> 'sequence' or name = 'public.replica_batch_seq')
        union all
        select format('alter operator %s owner to %s', oid::regoperator, keeper) from pg_operator
         where oprnamespace = 'pyreplica'::regnamespace and oprowner <> keeper
    loop
        execute statement;
    end loop;
end
$owner$;

-- The slave runs what the log says, and filters run with the rights of the log's owner. So only the owner may write these
-- tables, or let the trigger functions write them. Whatever the rights come from, ALTER DEFAULT PRIVILEGES or a GRANT ON
-- ALL TABLES: they are taken from everybody. Then the roles get theirs back that had them from py_log_grant: they may
-- execute py_log_can_wake, and may not add to the log. If another role loses something that it had before this script
-- ran, a warning says so. The binary shows the warnings, too, which it finds in the setting pyreplica.told.
do $rights$
declare
    former constant jsonb := current_setting('pyreplica.rights')::jsonb;
    daemon regrole;
    monitor name;
    statement text;
    loss record;
    told jsonb := '[]';
begin
    for statement in
        select distinct format('revoke all on %s %s from %s cascade', o.kind, o.name,
                               case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
          from pyreplica.own() o cross join aclexplode(o.acl) a
         where a.grantee <> o.owner and not (o.open and a.grantee = 0)
           -- A slave has this table too, and its daemon needs it.
           and not (o.name = 'public.replica_skipped' and a.grantee <> 0
                    and coalesce(has_table_privilege(a.grantee, to_regclass('public.replica_progress')::oid, 'update'), false))
    loop
        execute statement;
    end loop;
    -- Default privileges may have taken it.
    grant execute on function pyreplica.by_partition(), pyreplica.flags(public.replica_log), public.py_log_knows(text, oid),
        public.py_log_is_replayed(bigint, xid8, pg_snapshot, pg_snapshot, bigint) to public;
    for daemon in
        select r.oid from pg_roles r
         where exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                        where f.grantee = r.oid and f.name = 'public.py_log_can_wake(text)')
           and not exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                            where f.grantee = r.oid and f.name = 'public.replica_log' and f.privilege ~ '^INSERT')
    loop
        perform public.py_log_grant(rolname::text) from pg_roles where oid = daemon;
        -- On a slave that is a master too, the same table is the daemon's of the slave.
        for statement in
            select format('grant %s on public.replica_skipped to %s', f.privilege, daemon)
              from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
             where f.grantee = daemon and f.name = 'public.replica_skipped'
               and f.privilege in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
        loop
            execute statement;
        end loop;
    end loop;
    -- Only py_log_grant_monitor grants this, and a role that could write does not get it back.
    for monitor in
        select r.rolname from pg_roles r
         where exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                        where f.grantee = r.oid and f.name = 'public.replica_table' and f.privilege = 'SELECT')
           and not exists (select from jsonb_to_recordset(former) f (name text, grantee oid, privilege text)
                            where f.grantee = r.oid and f.name in ('public.replica_table', 'public.replica_log', 'public.py_log_filter')
                              and f.privilege !~ '^SELECT')
    loop
        perform public.py_log_grant_monitor(monitor::text);
    end loop;
    for loss in
        select r.rolname, f.kind, f.name, string_agg(distinct f.privilege, ', ') as privileges
          from jsonb_to_recordset(former) f (kind text, name text, grantee oid, privilege text)
          join pg_roles r on r.oid = f.grantee
         where not exists (select from pyreplica.own() o cross join aclexplode(o.acl) a
                            where o.name = f.name and a.grantee = f.grantee
                              and a.privilege_type || coalesce(' (' || quote_ident(o.field) || ')', '') = f.privilege)
           and f.name not in (select o.name from pyreplica.own() o where o.open)
           -- An earlier version granted the daemon all columns.
           and not (f.name = 'public.replica_log' and f.privilege = 'UPDATE'
                    and has_function_privilege(r.oid, 'public.py_log_can_wake(text)', 'execute'))
         group by r.rolname, f.kind, f.name order by r.rolname, f.name
    loop
        raise warning '% is no longer granted to % on %', loss.privileges, loss.rolname, loss.name
            using hint = format('If it is wanted: GRANT %s ON %s %s TO %I;',
                                loss.privileges, upper(loss.kind), loss.name, loss.rolname);
        told := told || to_jsonb(format('%s is no longer granted to %s on %s. If it is wanted: GRANT %1$s ON %4$s %3$s TO %5$I;',
                               loss.privileges, loss.rolname, loss.name, upper(loss.kind), loss.rolname));
    end loop;
    perform set_config('pyreplica.told', told::text, false);
end
$rights$;

-- Somebody may have made an object of such a name while this script ran, and IF NOT EXISTS and OR REPLACE leave it to him.
do $check$
declare
    stranger record;
begin
    select o.kind, o.name, o.owner::regrole as owner into stranger
      from pyreplica.own() o where o.owner <> all (current_setting('pyreplica.trusted')::oid[]) limit 1;
    if found then
        raise exception 'there is a % % of % now, who is not known to have installed pyreplica', stranger.kind, stranger.name, stranger.owner
            using errcode = 'insufficient_privilege', hint = 'Drop or rename it, and run the script again.';
    end if;
end
$check$;

commit;
