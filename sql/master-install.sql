-- Made from sql/master/*.sql by sql/make.sh: edit those parts, not this file.

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

-- == The log ==

-- Installs the table replica_log, its sequence and its index. A log of the Python original is renamed first;
-- 03-original.sql takes over what it holds.

-- Its log (id, sql, replicated, username, ts, and a boolean column for each further slave) becomes replica_log_former,
-- history and all. The lock waits for whoever is writing to it. Triggers that call py_log_replica() go on working;
-- py_log_create_tg puts the new ones in their place.
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
    -- They may have other names of parameters.
    drop function if exists public.py_log_create_tg(varchar), public.py_log_create_tg(text);
    perform set_config('pyreplica.upgrading', 'yes', true);
end
$upgrade$;

create sequence if not exists public.replica_log_id_seq;

-- One row a change. event: I insert, U update, D delete, T truncate, S a free statement. relation is the table's quoted
-- and qualified name when the change was made; old and new hold each column's text under its name.
-- One boolean column a slave, "replicated" for the first: what it has replayed, a moment behind replica_slave, or what is
-- to be passed over. A row that every slave has replayed is deleted.
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

-- The columns must have hstore's type, whose schema CREATE TABLE can't name.
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

-- The daemon takes it that ids drawn by a transaction are higher than all that were drawn before it had its number. A row
-- written by hand draws its id first, so the number is asked for here.
alter table public.replica_log alter column id set default
    nextval(case when pg_current_xact_id() is not null then 'public.replica_log_id_seq'::regclass end);

-- The daemon reads, marks and purges through this index alone, so a change costs one index entry and no primary key. An
-- earlier version had an index for each slave, and one for purging.
create index if not exists replica_log_id on public.replica_log (id);
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

-- Takes over the rows that the original's daemon has not replayed, and its table of filters. In any other
-- database it only makes the sequence part of the log.

-- What a slave has not replayed yet moves to the new log, as free statements in their old order, each a transaction of
-- its own: the old log does not tell which belonged together. Their transaction numbers are lower than any that is still
-- to come, so there may be too few of them; then neighbours share one.
do $upgrade$
declare
    former constant regclass := to_regclass('public.replica_log_former');
    owner regrole;
    fields text;
    flags text;
    field name;
    rest text;
    -- Python wrote backslashes into its strings, which servers read as escapes until version 9.1, or as set up since.
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
        -- The original's daemon passes over a NULL.
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
    -- The original let the applications write to the log. What stands in it runs on the slave.
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

-- Not before the table has its owner: PostgreSQL wants the sequence to have the same.
alter sequence public.replica_log_id_seq owned by public.replica_log.id;

-- The original's table, taken over as it is: its conditions are Python.
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

-- Installs what the daemon and its verbs write on the master: each slave's position, its last error, and the changes that
-- somebody skipped.

-- What each slave has replayed: the last batch that was committed here, and the position that it led to. Recovery
-- compares the number with that of a transaction which it finds prepared on the slave.
create table if not exists public.replica_slave (
    field name primary key,
    batch bigint not null,
    ts timestamptz not null default now()
);

-- Replayed is what base shows, and of what current shows beyond it the transactions whose last id is "last" at most. No
-- id above "highest" is among them; no row at or below "floor" is waiting for anything. The transaction numbers are those
-- of the database identity. Without base and current the flags say what has been replayed.
alter table public.replica_slave
    add column if not exists identity text,
    add column if not exists base pg_snapshot,
    add column if not exists current pg_snapshot,
    add column if not exists last bigint,
    add column if not exists highest bigint,
    add column if not exists floor bigint;

-- The last failure of each slave's daemon, for pyreplica status; "since" is when it began to fail without a success between,
-- "recovered" when it went on.
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

-- Changes that somebody had passed over instead of replayed, by whom and why. `master` names log and slave as on the slave,
-- which has such a table too, for what had been put aside there.
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

-- Every attempt at a batch draws a number of its own, also one that is rolled back.
create sequence if not exists public.replica_batch_seq;

-- == Wake-ups ==

-- A NOTIFY takes a lock that makes all commits of the server wait for each other, so the trigger signals only while a
-- daemon sleeps. A sleeping daemon holds an advisory lock of its slave's; whoever writes a change tries the same lock in
-- shared mode and keeps it to the end of the transaction. Whoever gets it is silent: the daemon is awake, and can't fall
-- asleep without a look at the log after this transaction's end. Whoever doesn't get it NOTIFYs.

-- The body of pyreplica.asleep, with a lock for each slave: a boolean column of the log, whoever added it. 0x70797267 is
-- "pyrg".
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

-- Generates pyreplica.asleep: whether to NOTIFY. It consists of plain calls, which the planner puts in the caller's place:
-- that costs the lock, and no call of a function of ours. A transaction with a NOTIFY in it can't be prepared, so
-- applications that use two-phase commit themselves set pyreplica.notify = off for a role or a database; what they write
-- while the daemon sleeps is found at its next TIMEOUT.
-- A writer must lock the log before it asks: then it knows every slave's lock, or whoever adds one waits for its end.
create or replace function pyreplica.apply_slaves() returns void language plpgsql set search_path = pg_catalog, pg_temp
as $apply_slaves$
begin
    lock table public.replica_log in share row exclusive mode;
    execute format('create or replace function pyreplica.asleep() returns boolean language sql as %L', pyreplica.asleep_body());
end
$apply_slaves$;

-- The daemon asks, before it sleeps for the first time, whether the trigger knows its slave: a column of the log may have
-- been added or renamed by hand. If not, the trigger learns it, in a moment in which nobody writes: nobody is made to wait.
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

-- The event of a row that names none, as in INSERT INTO replica_log(sql) VALUES ('ALTER TABLE ...'): the default is
-- evaluated for such rows only, so they wake the replicas and no other row pays for it.
create or replace function public.py_log_statement() returns "char" language plpgsql security definer
as $py_log_statement$
begin
    if pyreplica.asleep() then
        perform pg_catalog.pg_notify('replicas', '');
    end if;
    return 'S';
end
$py_log_statement$;

alter table public.replica_log alter column event set default public.py_log_statement();

do $install$
begin
    perform pyreplica.apply_slaves();
end
$install$;

-- == Rows as hstore ==

-- Installs what the triggers need to write a row as text: an operator that makes a row an hstore, the function that does it
-- under exact settings, and the one that shortens an UPDATE of a large row.

do $install$
begin
    if to_regoperator('pyreplica.%% (none, record)') is null then
        execute format('create operator pyreplica.%%%% (function = %s.hstore, rightarg = record)',
                       current_setting('pyreplica.hstore'));
    end if;

    execute replace($create$
create or replace function pyreplica.exact(r record) returns @hs@.hstore language plpgsql
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
as $exact$
begin
    return operator(pyreplica.%%) r;
end
$exact$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));

    -- Both rows whole are cheapest while they are small. Of a large row only the key and what changed is kept, unless the
    -- key itself changed: then the whole old row is what tells it from another that holds the same key meanwhile.
    execute replace($create$
create or replace function pyreplica.small(before @hs@.hstore, after @hs@.hstore, keys text[], whole boolean)
    returns @hs@.hstore[] language plpgsql immutable
as $small$
declare
    key @hs@.hstore := @hs@.slice(before, keys);
begin
    if pg_catalog.cardinality(keys) operator(pg_catalog.>) 0
       and pg_catalog.cardinality(@hs@.akeys(key)) operator(pg_catalog.=) pg_catalog.cardinality(keys) then
        if whole then
            before := key;
        elsif after operator(@hs@.@>) key then
            after := after operator(@hs@.-) before;
            before := @hs@.slice(before, @hs@.akeys(after)) operator(@hs@.||) key;
        end if;
    end if;
    return array[before, after];
end
$small$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- Text settings under which a value's text is exact and unambiguous. Logged text is ISO and exact; money is written as
-- the C and English locales do, which the slave reads. Whoever has others takes the slower way, to the same text.
do $settings$
begin
    perform set_config('pyreplica.exact',
        $exact$(pg_catalog.current_setting('datestyle') operator(pg_catalog.=) any ('{"ISO, MDY","ISO, DMY","ISO, YMD"}')
            and pg_catalog.current_setting('intervalstyle') operator(pg_catalog.=) 'postgres'
            and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.=) any ('{1,2,3}')
            and pg_catalog.current_setting('lc_monetary') operator(pg_catalog.=)
                any ('{C,C.UTF-8,en_US.UTF-8,en_US.utf8,C.utf8,POSIX}'))$exact$, true);
end
$settings$;

-- == Capture by row ==

-- Installs py_log_replica, the trigger function that writes each changed row into the log. It also logs TRUNCATE.

do $install$
begin
    execute replace(replace($create$
create or replace function public.py_log_replica() returns trigger language plpgsql security definer
as $py_log_replica$
declare
    -- Types too: pg_temp is searched for them first, and a domain there may have a check that runs whatever it likes.
    relation pg_catalog.text;
    origin pg_catalog.text;
    letter pg_catalog."char";
    verdict pg_catalog.text;
    transformed boolean;
    whole boolean;
    inexact boolean;
    remark pg_catalog.text;
    before @hs@.hstore;
    after @hs@.hstore;
    small @hs@.hstore[];
begin
    -- Each expression costs the application time, most of it at its first use in a transaction. So there are few on the
    -- usual path, and what is rare is asked for in one of them; then the values are made again.
    if tg_op operator(pg_catalog.=) 'INSERT' then
        after := operator(pyreplica.%%) new;
    elsif tg_op operator(pg_catalog.=) 'UPDATE' then
        -- Compares the stored bytes: 1.0 and 1.00 differ, and a type needs no equality operator.
        if old operator(pg_catalog.*=) new then
            return null;
        end if;
        before := operator(pyreplica.%%) old;
        after := operator(pyreplica.%%) new;
        if pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000 then
            small := pyreplica.small(before, after, tg_argv[1:], false);
            before := small[1];
            after := small[2];
        end if;
    elsif tg_op operator(pg_catalog.=) 'DELETE' then
        before := operator(pyreplica.%%) old;
    end if;
    -- The comparison of special() is one of constants: it costs nothing while there is no filter in the database.
    if pg_catalog.pg_partition_root(tg_relid) is null
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

    origin := pg_catalog.current_setting('pyreplica.origin', true);
    letter := pg_catalog.left(tg_op, 1);
    before := null;
    after := null;
    -- A trigger on a partitioned table has been copied to the partitions, argument and all. The change is logged for
    -- the whole table: how it is divided is each side's own affair. A renamed table is logged under its new name.
    relation := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
                operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    if tg_nargs operator(pg_catalog.>) 0 and tg_level operator(pg_catalog.=) 'ROW'
       and tg_argv[0] operator(pg_catalog.<>) tg_table_name then
        relation := coalesce((pg_catalog.pg_identify_object(
            'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.pg_partition_root(tg_relid), 0)).identity, relation);
    end if;

    -- A filter decides what the slave is to see of the change: pyreplica.admit answers with the letter of an event, W for
    -- an UPDATE that sets all columns, then + if there are transforms, then what went wrong, if something did.
    if letter operator(pg_catalog.<>) 'T'
       and (tg_argv[0] operator(pg_catalog.=) any (pyreplica.special())
            or relation operator(pg_catalog.=) any (pyreplica.special())) then
        verdict := pyreplica.admit(tg_argv[0], relation, tg_op, old, new);
        if verdict is null then
            return null;
        end if;
        letter := pg_catalog.left(verdict, 1);
        if letter operator(pg_catalog.=) 'W' then
            whole := true;
            letter := 'U';
        end if;
        transformed := pg_catalog.substr(verdict, 2, 1) operator(pg_catalog.=) '+';
        -- No nullif: it compares by whatever = the application's search_path finds first.
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
        if inexact then
            before := pyreplica.send_exact(tg_argv[0], relation, before, old);
            after := pyreplica.send_exact(tg_argv[0], relation, after, new);
        else
            before := pyreplica.send(tg_argv[0], relation, before, old);
            after := pyreplica.send(tg_argv[0], relation, after, new);
        end if;
        -- pyreplica.send keeps what went wrong under the name that no column can have.
        remark := coalesce(remark, after operator(@hs@.->) ''::pg_catalog.text,
                           before operator(@hs@.->) ''::pg_catalog.text);
        before := @hs@.delete(before, ''::pg_catalog.text);
        after := @hs@.delete(after, ''::pg_catalog.text);
        if letter operator(pg_catalog.=) 'U' and whole is null and before operator(@hs@.=) after then
            return null;
        end if;
    end if;

    if letter operator(pg_catalog.=) 'U'
       and (whole or pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000) then
        small := pyreplica.small(before, after, tg_argv[1:], whole);
        before := small[1];
        after := small[2];
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
    $create$, '@hs@', current_setting('pyreplica.hstore')), '@exact@', current_setting('pyreplica.exact'));
end
$install$;

-- == Capture by statement ==

-- Installs the two trigger functions that write all rows of a statement into the log at once.

-- For tables on which py_log_create_tg was told so. Before a statement the first function decides whether its rows will
-- be logged all at once, by the second, which sees them as tables, or one by one: the row trigger has a WHEN that asks
-- for the setting named in these triggers' first argument. It holds a letter for each statement that is under way.
-- At once is right only if nothing else can write to the table between the rows and the end of the statement.
do $install$
begin
    execute replace(replace($create$
create or replace function pyreplica.begin_statement() returns trigger language plpgsql security definer
as $begin_statement$
declare
    running pg_catalog.text := pg_catalog.current_setting(tg_argv[0], true);
begin
    if running operator(pg_catalog.<>) '' then
        -- A function in the statement's own expressions writes to the same table: the row trigger is silent for it, too. What
        -- is kept in the other setting is about statements that began before and have ended.
        if pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) '' then
            running := pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early', '', true);
            running := pg_catalog.current_setting(tg_argv[0]);
        end if;
        running := pg_catalog.set_config(tg_argv[0], running operator(pg_catalog.||) pg_catalog.left(tg_op, 1), true);
    elsif @exact@
          and not tg_argv[1] operator(pg_catalog.=) any (pyreplica.special())
          and not (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.' operator(pg_catalog.||)
                   pg_catalog.quote_ident(tg_table_name)) operator(pg_catalog.=) any (pyreplica.special())
          -- Triggers of ours, checks of foreign keys and of deferrable constraints write nothing.
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
          -- A parent's statement shows its children's rows, without the columns that only they have.
          and not exists (
              select from pg_catalog.pg_inherits i
               where i.inhparent operator(pg_catalog.=) tg_relid or i.inhrelid operator(pg_catalog.=) tg_relid) then
        running := pg_catalog.set_config(tg_argv[0], pg_catalog.left(tg_op, 1), true);
    end if;
    return null;
end
$begin_statement$;
    $create$, '@hs@', current_setting('pyreplica.hstore')), '@exact@', current_setting('pyreplica.exact'));
end
$install$;

do $install$
begin
    execute replace($create$
create or replace function pyreplica.end_statement() returns trigger language plpgsql security definer
    -- Of a large UPDATE the planner expects so many pairs of rows that it would compile the query for a third of a second. Once
    -- planned for a few rows, the query stays so planned: each row compared to each, that of many would take hours.
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
        return null;
    end if;
    running := pg_catalog.left(running, place operator(pg_catalog.-) 1)
               operator(pg_catalog.||) pg_catalog.substr(running, place operator(pg_catalog.+) 1);
    running := pg_catalog.set_config(tg_argv[0], running, true);

    -- MERGE and ON CONFLICT come here in an order that suits the slave: deleted, updated, inserted. The parts of a WITH come
    -- in the order in which they end, and an INSERT may have put in a key that a DELETE still under way had freed. No
    -- statement changes a row that it has itself written, so a part that takes keys may always follow those that free
    -- them: what was logged too early, from the id kept in a setting on, is given ids anew.
    blocked := letter operator(pg_catalog.<>) 'D' and pg_catalog.strpos(running, 'D') operator(pg_catalog.>) 0
               or letter operator(pg_catalog.=) 'I' and pg_catalog.strpos(running, 'U') operator(pg_catalog.>) 0;
    if letter operator(pg_catalog.<>) 'I'
       and pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) '' then
        early := pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early');
    end if;
    if blocked or early is not null then
        first := pg_catalog.nextval('public.replica_log_id_seq');
    end if;

    target := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
              operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    if pg_catalog.current_setting('pyreplica.origin', true) operator(pg_catalog.<>) '' then
        origin := pg_catalog.current_setting('pyreplica.origin');
    end if;
    -- The rows are named by "x.*", and variables by the block, since a plain name could be a column's. The n-th old row belongs to the
    -- n-th new one; the ids are drawn in the order of the rows, on which the slave depends when keys move up.
    if letter operator(pg_catalog.=) 'I' then
        insert into public.replica_log (relation, event, new, origin)
        select ours.target, 'I', operator(pyreplica.%%) x.*, ours.origin from new_rows x;
    elsif letter operator(pg_catalog.=) 'D' then
        insert into public.replica_log (relation, event, old, origin)
        select ours.target, 'D', operator(pyreplica.%%) x.*, ours.origin from old_rows x;
    else
        insert into public.replica_log (relation, event, old, new, origin)
        select target, 'U',
               case when pg_catalog.pg_column_size(x.before) operator(pg_catalog.<=) 2000 then x.before
                    else (pyreplica.small(x.before, y.after, tg_argv[2:], null))[1] end,
               case when pg_catalog.pg_column_size(x.before) operator(pg_catalog.<=) 2000 then y.after
                    else (pyreplica.small(x.before, y.after, tg_argv[2:], null))[2] end,
               origin
          from (select operator(pyreplica.%%) x.* as before, (x.*)::pg_catalog.record as bytes,
                       pg_catalog.row_number() over () as n from old_rows x) x
          join (select operator(pyreplica.%%) x.* as after, (x.*)::pg_catalog.record as bytes,
                       pg_catalog.row_number() over () as n from new_rows x) y on x.n operator(pg_catalog.=) y.n
         where not x.bytes operator(pg_catalog.*=) y.bytes
         order by x.n;
    end if;

    if early is not null then
        -- By the log's index, or else it would be read as a whole.
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
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- == The log as SQL ==

-- Installs the view replica_log_sql, which shows each change as a statement, and the functions behind it.

do $install$
begin
    execute replace($create$
create or replace function public.py_log_sql(change public.replica_log) returns text language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $py_log_sql$
declare
    name text[];
    target text;
    keys text[];
    shown text;
    condition text;
begin
    if change.event = 'S' then
        return change.sql;
    end if;
    name := parse_ident(change.relation);
    target := case when name[1] <> 'public' then '"' || replace(name[1], '"', '""') || '".' else '' end
              || '"' || replace(name[2], '"', '""') || '"';
    keys := coalesce(public.py_log_key(to_regclass(change.relation)), @hs@.akeys(change.old));
    select string_agg(format('"%s"%s', replace(k, '"', '""'),
                             case when v is null then ' IS NULL' else '=' || quote_literal(v) end), ' AND ')
      into condition
      from (select k, change.old operator(@hs@.->) k as v from unnest(keys) with ordinality u(k, n) order by n) x;
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
              from public.py_log_columns(change.relation, change.new operator(@hs@.-) change.old);
        when 'D' then
            shown := format('DELETE FROM %s WHERE %s', target, condition);
        when 'T' then
            shown := format('TRUNCATE %s', target);
    end case;
    return shown;
end
$py_log_sql$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- A row's columns in the table's order; columns the table has no more come last.
do $install$
begin
    execute replace($create$
create or replace function public.py_log_columns(relation text, "row" @hs@.hstore)
    returns table (key text, value text, n bigint) language sql stable set search_path = pg_catalog, pg_temp
as $py_log_columns$
    select e.key, e.value, row_number() over (order by a.attnum, e.key)
      from @hs@.each("row") e
      left join pg_attribute a on a.attrelid = to_regclass(relation) and a.attname = e.key
$py_log_columns$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

create or replace function public.py_log_key(relation regclass) returns text[] language sql stable
    set search_path = pg_catalog, pg_temp
as $py_log_key$
    select array_agg(a.attname::text order by k.n)
      from pg_index i
      cross join unnest(i.indkey) with ordinality k(attnum, n)
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.n <= i.indnkeyatts
     where i.indrelid = relation and i.indisprimary
$py_log_key$;

create or replace view public.replica_log_sql as
    select id, txid, public.py_log_sql(l) as sql, username, origin, ts from public.replica_log l order by id;

-- == The trigger on a table ==

-- Installs the function that creates the triggers on one table.

drop function if exists public.py_log_create_tg(regclass, text), public.py_log_create_tgs(text, text),
    public.py_log_warn_before(regclass);

-- Puts the trigger on one table, or on the partitioned table it is a part of, and says what it did in one line. level:
-- row or statement; NULL leaves a table that has the trigger already as it is.
create or replace function public.py_log_create_tg(relation regclass, shown text, level text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_create_tg$
declare
    -- A partition is replicated through its root, so that partitions made later need nothing.
    root constant regclass := coalesce(pg_partition_root(relation), relation);
    target regclass := case when public.py_log_key(root) is null then relation else root end;
    keys constant text[] := public.py_log_key(target);
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
                             to_regclass('public.replica_copy'))
             then 'is pyreplica''s own'
        when keys is null then 'has no pk constraint'
        when not has_table_privilege(target, 'TRIGGER') then 'belongs to somebody else'
    end;
    always constant boolean := exists (
        select from pg_trigger where tgrelid = target and tgname = '!replica_tg' and tgenabled = 'A');
    -- Of a partition or a parent a statement shows other rows than are changed in the table itself.
    family constant boolean := (select relkind = 'p' from pg_class where oid = target)
                               or exists (select from pg_inherits where target in (inhrelid, inhparent));
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
    if obstacle is not null then
        return format('table %s %s (couldn''t be replicated)!', shown, obstacle);
    end if;
    perform public.py_log_refuse_key(target, keys, null::text[]);
    select string_agg(quote_literal(a), ', ' order by n) into arguments
      from unnest((select relname::text from pg_class where oid = target) || keys) with ordinality u(a, n);

    -- Former triggers of ours go first: the one on a partition would collide with the copy that its root hands down, and
    -- one made by hand or by the Python original would log each change a second time. One with a WHEN is left alone.
    for former in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_trigger t
         where (t.tgname in ('!replica_tg', '!replica_truncate_tg', '!replica_begin_tg', '!replica_insert_tg',
                             '!replica_update_tg', '!replica_delete_tg')
                or t.tgqual is null and t.tgfoid = 'public.py_log_replica()'::regprocedure)
           and t.tgparentid = 0
           and (t.tgrelid = target or t.tgrelid in (select relid from pg_partition_tree(target)))
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
    -- The name sorts before any other: a row is logged before triggers of its own write further rows.
    execute format('create trigger "!replica_tg" after insert or update or delete on %s '
                   'for each row %s execute function public.py_log_replica(%s)', target, condition, arguments);
    -- In a cascade or a ring the trigger also runs for replayed changes, and goes on doing so.
    if always then
        execute format('alter table %s enable always trigger "!replica_tg"', target);
    end if;
    perform public.py_log_warn_before(target, shown);
    return format('created trigger on %s (%s)', shown, array_to_string(keys, ','));
end
$py_log_create_tg$;

-- A BEFORE ROW trigger that writes to a row which the same statement changes is logged in the wrong order, whatever the
-- kind of trigger. Whether one does can't be known; one whose body writes to tables is worth a look.
create or replace function public.py_log_warn_before(relation regclass, shown text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_warn_before$
declare
    suspect record;
begin
    for suspect in
        select t.tgname from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = relation and not t.tgisinternal and t.tgtype & 3 = 3 and t.tgenabled <> 'D'
           and p.prosrc ~* '\m(insert\s+into|update|delete\s+from|merge\s+into)\M\s+["[:alpha:]_]' order by 1
    loop
        raise warning 'trigger % on % runs before each row and seems to write to tables', suspect.tgname, shown
            using detail = 'If it changes a row that the same statement changes too, the older values may be logged last.',
                  hint = 'Make it an AFTER trigger, or make sure that it writes to other tables only.';
    end loop;
end
$py_log_warn_before$;

-- == The trigger on a table, by its name ==

-- Installs the py_log_create_tg that people call: with a table's name, and optionally its schema and a level.

create or replace function public.py_log_create_tg(schemaname text, relname text, level text)
    returns text language plpgsql set search_path = pg_catalog, pg_temp
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

-- Schema and table, or table and level. How a table is called in the answer depends on what the caller sees.
create or replace function public.py_log_create_tg(schemaname text, relname text) returns text language plpgsql
as $py_log_create_tg$
begin
    return public.py_log_create_tgs(schemaname, relname, pg_catalog.current_schemas(true));
end
$py_log_create_tg$;

-- By name alone, as in the original.
create or replace function public.py_log_create_tg(relname text) returns text language plpgsql
as $py_log_create_tg$
begin
    return public.py_log_create_tgs(null::pg_catalog.text, relname, pg_catalog.current_schemas(true));
end
$py_log_create_tg$;

-- A schema and its table; or a table, whatever its schema, and a level or nothing: one line for each. A table that is called
-- "row" or "statement" is a table.
create or replace function public.py_log_create_tgs(first text, second text, path name[]) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
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

-- Gives another slave its column of the log. What is in the log already is not for it: make the slave's copy of the
-- database after this and before the clients write again.
create or replace function public.py_log_add_slave(field text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
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

-- Forgets a slave, and what only it has not replayed.
create or replace function public.py_log_remove_slave(field text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_remove_slave$
declare
    others constant text[] := array(
        select quote_ident(attname) from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped
           and atttypid = 'boolean'::regtype and attname <> field);
    prepared constant text := (
        select string_agg(quote_literal(gid), ', ') from pg_prepared_xacts
         where database = current_database() and split_part(gid, ':', 1) = 'pyreplica'
           and split_part(gid, ':', 3) = field and split_part(gid, ':', 4) = 'master');
begin
    if cardinality(others) = 0 then
        raise exception 'slave % is the only one', field
            using errcode = 'object_in_use', hint = 'To end replication altogether run master-uninstall.sql.';
    end if;
    if prepared is not null then
        raise exception 'slave % has in-doubt transactions: %', field, prepared using errcode = 'object_in_use',
            hint = 'Start its daemon once more, it settles them; if the slave is lost, ROLLBACK PREPARED each of them.';
    end if;
    execute format('alter table public.replica_log drop column %I', field);
    execute format('delete from public.replica_log where %s', array_to_string(others, ' and '));
    delete from public.replica_slave s where s.field = py_log_remove_slave.field;
    delete from public.replica_error e where e.field = py_log_remove_slave.field;
    perform pyreplica.apply_slaves();
    return format('removed slave %s', field);
end
$py_log_remove_slave$;

-- Makes a sequence give out numbers that no other node gives out: node 1 of 3 takes 1, 4, 7, ..., node 2 takes 2, 5, 8, ...
-- above everything that the sequence has given out here.
create or replace function public.py_log_interleave(sequence regclass, node int, nodes int) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_interleave$
declare
    last bigint;
    first bigint;
begin
    if nodes < 1 or node not between 1 and nodes then
        raise exception 'node % of % does not exist', node, nodes using errcode = 'invalid_parameter_value',
            hint = 'Nodes are counted from 1.';
    end if;
    execute format('alter sequence %s increment by %s', sequence, nodes);
    execute format('select last_value from %s', sequence) into last;
    -- The next number above the last one that leaves the node's remainder.
    first := last + 1 + ((node - (last + 1)) % nodes + nodes) % nodes;
    perform setval(sequence, first, false);
    return first;
end
$py_log_interleave$;

-- == Filters and transforms ==

-- Installs the tables py_log_filter and py_log_transform, and the triggers' functions that check what is written there.

-- Conditions on a table's changes; those of one table and event are ANDed. relname: a table's name, in whatever schema,
-- or schema and table as replica_log writes them. See sql/README.md for what an event's conditions decide.
create table if not exists public.py_log_filter (
    relname text not null,
    event text not null check (event in ('INSERT', 'UPDATE', 'DELETE')),
    condition text not null,
    language text not null default 'sql' check (language in ('sql', 'python')),
    on_error text not null default 'replicate' check (on_error in ('replicate', 'raise')),
    id bigint generated always as identity
);

-- What is sent in a column's place: an expression over new, the row that is being sent; NULL leaves the column out.
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
    set search_path = pg_catalog, pg_temp
as $tables$
    select c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
       and $1 in (c.relname, quote_ident(n.nspname) || '.' || quote_ident(c.relname))
$tables$;

-- Refuses what can't work as soon as it is written, while its author is looking. The expression is planned, not run.
create or replace function pyreplica.check_expression(
    relname text, expression text, language text, declarations text, wanted text, shown text)
    returns void language plpgsql
    set search_path = pg_catalog, pg_temp
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

create or replace function pyreplica.check_filter() returns trigger language plpgsql set search_path = pg_catalog, pg_temp
as $check_filter$
begin
    perform pyreplica.check_expression(
        new.relname, new.condition, new.language,
        case new.event when 'INSERT' then 'new @' when 'DELETE' then 'old @' else 'new @; old @' end, ' is true',
        format('condition %s', new.condition));
    return new;
end
$check_filter$;

create or replace function pyreplica.check_transform() returns trigger language plpgsql set search_path = pg_catalog, pg_temp
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

-- A slave finds its row by the key as it is. A trigger made by hand names its key in its arguments.
create or replace function public.py_log_refuse_key(relation regclass, keys text[], fields text[] default null)
    returns void language plpgsql security definer set search_path = pg_catalog, pg_temp
as $py_log_refuse_key$
declare
    field text;
    by_hand constant text[] := (
        select array_agg(convert_from(decode(m[1], 'hex'), getdatabaseencoding()))
          from pg_trigger t
          cross join regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
         where n > 1 and t.tgrelid = relation and t.tgfoid = to_regproc('public.py_log_replica')
           and t.tgname !~ '^!replica_');
begin
    for field in
        select unnest(fields) union
        select t.field from public.py_log_transform t
         where fields is null and relation in (select pyreplica.tables(t.relname))
    loop
        if field = any (keys || by_hand) then
            raise exception 'column % is part of the key of table %', quote_ident(field), relation
                using errcode = 'invalid_column_reference',
                      hint = 'The key finds the row on the slave; it can''t be transformed or left out.';
        end if;
    end loop;
end
$py_log_refuse_key$;

-- A condition or an expression has failed. The application's statement goes on unless on_error says otherwise. What the
-- slave's operator reads goes with the change and names no value: the message may hold one that was not to leave here.
create or replace function pyreplica.complain(kind text, failed bigint, state text, message text) returns text
    language plpgsql set search_path = pg_catalog, pg_temp
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

-- Installs pyreplica.apply, which generates the three functions that the capture trigger calls for filters and transforms,
-- and the triggers that call it whenever one of the two tables changes.

-- The trigger asks pyreplica.special whether a table has any, then pyreplica.admit what the slave is to see of a change,
-- then pyreplica.send what of its values. All three are generated whenever the tables change: conditions cost what PL/pgSQL
-- expressions cost, are compiled once a session, and take effect with the commit, without a lock on any table.

-- PL/pgSQL that evaluates an entry's expression.
create or replace function pyreplica.evaluation(event text, expression text, language text) returns text
    language sql immutable set search_path = pg_catalog, pg_temp
as $evaluation$
    select case when language = 'sql' then format(e'(%s\n)', expression)
                else format('pyreplica.python(pg_typeof(%s)::text, %s, %s, %L)',
                            case event when 'DELETE' then 'old' else 'new' end,
                            case event when 'INSERT' then 'null' else 'old::text' end,
                            case event when 'DELETE' then 'null' else 'new::text' end, expression) end
$evaluation$;

-- PL/pgSQL that sets "verdict" to what the conditions for an event say, the cheap ones first. One that fails counts as
-- true. A cached plan knows a column by the type that it had (42804): once per session and changed type, all is planned
-- anew.
create or replace function pyreplica.conditions(event text, verdict text) returns text language sql stable
    set search_path = pg_catalog, pg_temp
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
                if %L in (relname, relation) then%s
                end if;$table$, f.relname, string_agg(format($condition$
                    doing := %s;
                    pass := pass and (%s)%s is true;$condition$, f.id, pyreplica.evaluation(f.event,
                        case f.language when 'sql' then f.condition else format(e'bool(%s\n)', f.condition) end, f.language),
                        case f.language when 'python' then '::boolean' end),
                    '' order by f.language desc, f.id)) as statements
              from public.py_log_filter f where f.event = $1 group by f.relname) x
     having count(*) > 0
$conditions$;

-- PL/pgSQL that puts the values of all transforms into "row". One that fails sends NULL: better nothing than the value.
create or replace function pyreplica.replacements(hs text) returns text language sql stable
    set search_path = pg_catalog, pg_temp
as $replacements$
    select coalesce(string_agg(case when t.expression is null then format($left_out$
        if %2$L in (relname, relation) then
            "row" := %1$s.delete("row", %3$L::text);
        end if;$left_out$, hs, t.relname, t.field)
    else format($replaced$
        if %2$L in (relname, relation) then
            begin
                if not %1$s.exist("row", %3$L::text) then
                    raise undefined_column using message = 'the column is gone';
                end if;
                "row" := "row" operator(%1$s.||) %1$s.hstore(%3$L::text, %5$s::text);
            exception when others then
                if sqlstate = '42804' and round = 1 then
                    execute 'discard plans';
                    continue;
                end if;
                "row" := "row" operator(%1$s.||)
                         %1$s.hstore(''::text, pyreplica.complain('transform', %4$s, sqlstate, sqlerrm));
                if %1$s.exist("row", %3$L::text) then
                    "row" := "row" operator(%1$s.||) %1$s.hstore(%3$L::text, null::text);
                end if;
            end;
        end if;$replaced$, hs, t.relname, t.field, t.id, pyreplica.evaluation('INSERT', t.expression, t.language))
    end, '' order by t.id), '')
      from public.py_log_transform t
$replacements$;

-- Generates the three functions.
create or replace function pyreplica.apply() returns void language plpgsql set search_path = pg_catalog, pg_temp
as $apply$
declare
    hs constant text := (select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                          where e.extname = 'hstore');
begin
    -- Whoever comes second generates from what both have written.
    perform pg_advisory_xact_lock(1887007334, 0);

    execute format('create or replace function pyreplica.special() returns text[] language sql stable as %L',
                   format('select %L::pg_catalog.text[]', array(
                       select relname from public.py_log_filter union select relname from public.py_log_transform)));

    -- INSERT's conditions say whether a row belongs on the slave: the new one, and the old one as if it were new. The
    -- others say whether it matters there that a row which belongs has changed.
    execute format($create$
        create or replace function pyreplica.admit(
            relname text, relation text, event text, old record, new record) returns text language plpgsql
            set search_path = pg_catalog, pg_temp as %L
    $create$, format($body$
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
            relname text, relation text, "row" %1$s.hstore, new record) returns %1$s.hstore language plpgsql strict
            set search_path = pg_catalog, pg_temp as %2$L
    $create$, hs, format($body$
#variable_conflict use_column
declare
    whole constant %s.hstore := "row";
begin
    for round in 1..2 loop
        "row" := whole;%s
        return "row";
    end loop;
end$body$, hs, pyreplica.replacements(hs)));
end
$apply$;

create or replace function pyreplica.changed() returns trigger language plpgsql set search_path = pg_catalog, pg_temp
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
create or replace function pyreplica.send_exact(relname text, relation text, "row" %s.hstore, new record)
    returns %1$s.hstore language plpgsql strict
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
as $send_exact$
begin
    return pyreplica.send(relname, relation, "row", new);
end
$send_exact$;
    $create$, current_setting('pyreplica.hstore'));
end
$install$;

-- == Rights ==

-- Installs py_log_grant, gives everything to the owner of the log, takes all rights from everybody else, and commits.

-- What the daemon's role on the master needs and no more, unless it is the owner of the log or a superuser.
create or replace function public.py_log_grant(role name) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_grant$
declare
    schema name;
begin
    for schema in
        select 'public' union select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                               where e.extname = 'hstore'
    loop
        if not has_schema_privilege(role, schema, 'usage') then
            execute format('grant usage on schema %I to %I', schema, role);
        end if;
    end loop;
    execute format('grant select, update, delete on public.replica_log to %I', role);
    execute format('grant select, insert, update on public.replica_slave, public.replica_error to %I', role);
    execute format('grant select on public.replica_log_sql to %I', role);
    execute format('grant select, insert on public.replica_skipped to %I', role);
    execute format('grant usage on sequence public.replica_batch_seq to %I', role);
    execute format('grant execute on function public.py_log_can_wake(text) to %I', role);
    return format('%s may read and mark the log', quote_ident(role));
end
$py_log_grant$;

-- Everything belongs to the owner of the log, also what a superuser adds later: the trigger runs with its owner's rights.
-- Only what runs Python stays with whoever made it: nothing confines that.
do $owner$
declare
    keeper constant regrole := (select relowner from pg_class where oid = 'public.replica_log'::regclass);
    statement text;
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        return;
    end if;
    for statement in
        select format('alter %s %s owner to %s', kind, c.oid::regclass, keeper)
          from (values ('public.py_log_filter', 'table'), ('public.py_log_transform', 'table'),
                       ('public.replica_slave', 'table'), ('public.replica_error', 'table'),
                       ('public.replica_skipped', 'table'),
                       ('public.replica_log_sql', 'view'),
                       ('public.replica_batch_seq', 'sequence')) o (name, kind)
          join pg_class c on c.oid = o.name::regclass
         where c.relowner <> keeper
        union all
        select format('alter function %s owner to %s', oid::regprocedure, keeper) from pg_proc
         where (pronamespace = 'public'::regnamespace and starts_with(proname, 'py_log_')
                or pronamespace = 'pyreplica'::regnamespace and proname <> 'python') and proowner <> keeper
        union all
        select format('alter operator pyreplica.%s (none, record) owner to %s', oprname, keeper) from pg_operator
         where oprnamespace = 'pyreplica'::regnamespace and oprowner <> keeper
        union all
        select format('alter schema pyreplica owner to %s', keeper) from pg_namespace
         where nspname = 'pyreplica' and nspowner <> keeper
    loop
        execute statement;
    end loop;
end
$owner$;

-- What stands in the log runs on the slave: nobody but the owner may write it or have the trigger write it.
revoke all on public.replica_log, public.replica_slave, public.replica_error, public.replica_skipped, public.replica_log_sql
    from public;
revoke all on public.py_log_filter, public.py_log_transform from public;
revoke all on sequence public.replica_log_id_seq, public.replica_batch_seq from public;
revoke all on function public.py_log_replica(), public.py_log_statement(), public.py_log_can_wake(text),
    pyreplica.exact(record), pyreplica.begin_statement(), pyreplica.end_statement() from public;

commit;
