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
-- Everything but one operator and one function lives in the schema public. The trigger names everything with its schema,
-- operators and types too, because it runs with the rights of its owner under whatever search_path the application has
-- set.

begin;

set local client_min_messages = warning;
set local standard_conforming_strings = on;
set local check_function_bodies = off;

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

create extension if not exists hstore;

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

-- == Upgrade from the Python original, first half ==

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

-- == The log ==

create sequence if not exists public.replica_log_id_seq;

-- One row a change. event: I insert, U update, D delete, T truncate, S a free statement. relation is the table's quoted
-- and qualified name when the change was made; old and new hold each column's text under its name.
-- One boolean column a slave, "replicated" for the first; a row that every slave has replayed is deleted.
create table if not exists public.replica_log (
    id bigint not null default nextval('public.replica_log_id_seq'),
    txid xid8 not null default pg_current_xact_id(),
    relation text,
    event "char" not null,
    old text,
    new text,
    sql text,
    username name default session_user,
    origin text,
    ts timestamptz default now(),
    replicated boolean not null default false
);

-- == Upgrade from the Python original, second half ==

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
            execute format('create index on public.replica_log (id) where not %I', field);
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

alter sequence public.replica_log_id_seq owned by public.replica_log.id;

-- The daemon reads and marks through this index alone, so a change costs one index entry and no primary key.
create index if not exists replica_log_replicated on public.replica_log (id) where not replicated;

-- For purging: its ranges are coarse, and it costs next to nothing.
create index if not exists replica_log_ts on public.replica_log using brin (ts) with (autosummarize = on);

-- What each slave has been through: the last batch whose marks were committed here. Recovery compares it with the
-- number of a transaction that it finds prepared on the slave.
create table if not exists public.replica_slave (
    field name primary key,
    batch bigint not null,
    ts timestamptz not null default now()
);

-- Every attempt at a batch draws a number of its own, also one that is rolled back.
create sequence if not exists public.replica_batch_seq;

-- == Free statements ==

-- The event of a row that names none, as in INSERT INTO replica_log(sql) VALUES ('ALTER TABLE ...'): the default is
-- evaluated for such rows only, so they wake the replicas and no other row pays for it.
create or replace function public.py_log_statement() returns "char" language plpgsql as $py_log_statement$
begin
    perform pg_catalog.pg_notify('replicas', '');
    return 'S';
end
$py_log_statement$;

alter table public.replica_log alter column event set default public.py_log_statement();

-- == The trigger ==

-- hstore may be installed in any schema, and the functions call it qualified: its schema is filled in here.
do $install$
declare
    -- Text settings under which a value's text is not exact or not unambiguous. Logged text is ISO and exact; money is
    -- written as the C and English locales do, which the slave reads.
    hs constant text := (select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                          where e.extname = 'hstore');
begin
    -- The columns must have hstore's type, whose schema the CREATE TABLE above could not name.
    if (select atttypid from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attname = 'new') = 'text'::regtype then
        execute format('alter table public.replica_log alter column old type %s.hstore using old::%1$s.hstore,
                                                       alter column new type %1$s.hstore using new::%1$s.hstore', hs);
    end if;

    if to_regoperator('pyreplica.%% (none, record)') is null then
        execute format('create operator pyreplica.%%%% (function = %s.hstore, rightarg = record)', hs);
    end if;

    execute replace($create$
create or replace function pyreplica.exact(r record) returns @hs@.hstore language plpgsql
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
as $exact$
begin
    return operator(pyreplica.%%) r;
end
$exact$;
    $create$, '@hs@', hs);

    execute replace($create$
create or replace function public.py_log_replica() returns trigger language plpgsql security definer
as $py_log_replica$
declare
    -- Types too: pg_temp is searched for them first, and a domain there may have a check that runs whatever it likes.
    relation pg_catalog.text;
    origin pg_catalog.text := pg_catalog.current_setting('pyreplica.origin', true);
    before @hs@.hstore;
    after @hs@.hstore;
    key @hs@.hstore;
begin
    if tg_op operator(pg_catalog.=) 'UPDATE' then
        -- Compares the stored bytes: 1.0 and 1.00 differ, and a type needs no equality operator.
        if old operator(pg_catalog.*=) new then
            return null;
        end if;
    end if;

    -- A trigger on a partitioned table has been copied to the partitions, argument and all. The change is logged for
    -- the whole table: how it is divided is each side's own affair. A renamed table is logged under its new name.
    relation := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
                operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    if tg_nargs operator(pg_catalog.>) 0 and tg_level operator(pg_catalog.=) 'ROW'
       and tg_argv[0] operator(pg_catalog.<>) tg_table_name then
        relation := coalesce((pg_catalog.pg_identify_object(
            'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.pg_partition_root(tg_relid), 0)).identity, relation);
    end if;

    if pg_catalog.current_setting('datestyle') operator(pg_catalog.~~) 'ISO%'
       and pg_catalog.current_setting('intervalstyle') operator(pg_catalog.=) 'postgres'
       and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.~) '^[1-3]'
       and pg_catalog.current_setting('lc_monetary') operator(pg_catalog.~) '^(C|POSIX|en_US)' then
        if tg_op operator(pg_catalog.=) 'INSERT' then
            after := operator(pyreplica.%%) new;
        elsif tg_op operator(pg_catalog.=) 'UPDATE' then
            before := operator(pyreplica.%%) old;
            after := operator(pyreplica.%%) new;
        elsif tg_op operator(pg_catalog.=) 'DELETE' then
            before := operator(pyreplica.%%) old;
        end if;
    else
        if tg_op operator(pg_catalog.=) 'INSERT' then
            after := pyreplica.exact(new);
        elsif tg_op operator(pg_catalog.=) 'UPDATE' then
            before := pyreplica.exact(old);
            after := pyreplica.exact(new);
        elsif tg_op operator(pg_catalog.=) 'DELETE' then
            before := pyreplica.exact(old);
        end if;
    end if;

    -- Both rows whole are cheapest while they are small. Of a large row only the key and what changed is kept, unless
    -- the key itself changed: then the whole old row is what tells it from another that holds the same key meanwhile.
    if tg_op operator(pg_catalog.=) 'UPDATE' and pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000 then
        key := @hs@.slice(before, tg_argv[1:]);
        if tg_nargs operator(pg_catalog.>) 1 and after operator(@hs@.@>) key
           and pg_catalog.cardinality(@hs@.akeys(key)) operator(pg_catalog.=) (tg_nargs operator(pg_catalog.-) 1) then
            after := after operator(@hs@.-) before;
            before := @hs@.slice(before, @hs@.akeys(after)) operator(@hs@.||) key;
        end if;
    end if;

    if origin operator(pg_catalog.<>) '' then
        insert into public.replica_log (relation, event, old, new, origin)
        values (relation, pg_catalog.left(tg_op, 1)::pg_catalog."char", before, after, origin);
    else
        insert into public.replica_log (relation, event, old, new)
        values (relation, pg_catalog.left(tg_op, 1)::pg_catalog."char", before, after);
        -- A transaction with a NOTIFY in it cannot be prepared: applications that use two-phase commit themselves set
        -- pyreplica.notify = off, for a role or a database, and their changes are found at the next keepalive.
        if pg_catalog.current_setting('pyreplica.notify', true) operator(pg_catalog.=) 'off' then
            return null;
        end if;
        perform pg_catalog.pg_notify('replicas', '');
    end if;
    return null;
end
$py_log_replica$;
    $create$, '@hs@', hs);

    -- == The log as SQL ==

    execute replace($create$
create or replace function public.py_log_sql(change public.replica_log) returns text language plpgsql stable
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

-- A row's columns in the table's order; columns the table has no more come last.
create or replace function public.py_log_columns(relation text, "row" @hs@.hstore)
    returns table (key text, value text, n bigint) language sql stable
as $py_log_columns$
    select e.key, e.value, row_number() over (order by a.attnum, e.key)
      from @hs@.each("row") e
      left join pg_attribute a on a.attrelid = to_regclass(relation) and a.attname = e.key
$py_log_columns$;
    $create$, '@hs@', hs);
end
$install$;

create or replace function public.py_log_key(relation regclass) returns text[] language sql stable
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

-- Puts the trigger on one table, or on the partitioned table it is a part of, and says what it did in one line.
create or replace function public.py_log_create_tg(relation regclass, shown text) returns text language plpgsql
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
        when relation in ('public.replica_log'::regclass, 'public.replica_slave'::regclass)
             or relation in (to_regclass('public.replica_progress'), to_regclass('public.replica_log_former'))
            then 'is pyreplica''s own'
        when keys is null then 'has no pk constraint'
        when not has_table_privilege(target, 'TRIGGER') then 'belongs to somebody else'
    end;
    always constant boolean := exists (
        select from pg_trigger where tgrelid = target and tgname = '!replica_tg' and tgenabled = 'A');
    former text;
    part regclass;
begin
    if obstacle is not null then
        return format('table %s %s (couldn''t be replicated)!', shown, obstacle);
    end if;
    select string_agg(quote_literal(a), ', ' order by n) into arguments
      from unnest((select relname::text from pg_class where oid = target) || keys) with ordinality u(a, n);

    -- Former triggers of ours go first: the one on a partition would collide with the copy that its root hands down, and
    -- one made by hand or by the Python original would log each change a second time. One with a WHEN is left alone.
    for former in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_trigger t
         where (t.tgname in ('!replica_tg', '!replica_truncate_tg')
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
    -- The name sorts before any other: a row is logged before triggers of its own write further rows.
    execute format('create trigger "!replica_tg" after insert or update or delete on %s '
                   'for each row execute function public.py_log_replica(%s)', target, arguments);
    -- In a cascade or a ring the trigger also runs for replayed changes, and goes on doing so.
    if always then
        execute format('alter table %s enable always trigger "!replica_tg"', target);
    end if;
    perform public.py_log_warn_before(target);
    return format('created trigger on %s (%s)', shown, array_to_string(keys, ','));
end
$py_log_create_tg$;

-- A BEFORE ROW trigger that writes to a row which the same statement changes is logged in the wrong order, whatever the
-- kind of trigger. Whether one does can't be known; one whose body writes to tables is worth a look.
create or replace function public.py_log_warn_before(relation regclass) returns void language plpgsql
as $py_log_warn_before$
declare
    suspect record;
begin
    for suspect in
        select t.tgname from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = relation and not t.tgisinternal and t.tgtype & 3 = 3 and t.tgenabled <> 'D'
           and p.prosrc ~* '\m(insert\s+into|update|delete\s+from|merge\s+into)\M\s+["[:alpha:]_]' order by 1
    loop
        raise warning 'trigger % on % runs before each row and seems to write to tables', suspect.tgname, relation
            using detail = 'If it changes a row that the same statement changes too, the older values may be logged last.',
                  hint = 'Make it an AFTER trigger, or make sure that it writes to other tables only.';
    end loop;
end
$py_log_warn_before$;

create or replace function public.py_log_create_tg(schemaname text, relname text) returns text language plpgsql
as $py_log_create_tg$
declare
    relation constant regclass := to_regclass(format('%I.%I', schemaname, relname));
begin
    if relation is null then
        raise exception 'table %.% does not exist', quote_ident(schemaname), quote_ident(relname)
            using errcode = 'undefined_table';
    end if;
    return public.py_log_create_tg(relation, relname);
end
$py_log_create_tg$;

-- By name alone, as in the original: every table of that name, whatever its schema; one line for each.
create or replace function public.py_log_create_tg(relname text) returns text language plpgsql
as $py_log_create_tg$
declare
    lines text;
begin
    select string_agg(public.py_log_create_tg(
               c.oid, case when pg_table_is_visible(c.oid) then c.relname::text else format('%I.%I', n.nspname, c.relname) end),
               e'\n' order by pg_table_is_visible(c.oid) desc, n.nspname)
      into lines
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relname = py_log_create_tg.relname and c.relkind in ('r', 'p')
       and n.nspname !~ '^pg_' and n.nspname <> 'information_schema';
    if lines is null then
        raise exception 'table % does not exist', quote_ident(relname) using errcode = 'undefined_table';
    end if;
    return lines;
end
$py_log_create_tg$;

-- == Several slaves ==

-- Gives another slave its column of the log. What is in the log already is not for it: make the slave's copy of the
-- database after this and before the clients write again.
create or replace function public.py_log_add_slave(field text) returns text language plpgsql
as $py_log_add_slave$
begin
    if exists (select from pg_attribute
                where attrelid = 'public.replica_log'::regclass and attname = field and not attisdropped) then
        raise exception 'replica_log has a column % already', quote_ident(field) using errcode = 'duplicate_column';
    end if;
    execute format('alter table public.replica_log add column %I boolean not null default true', field);
    execute format('alter table public.replica_log alter column %I set default false', field);
    execute format('create index on public.replica_log (id) where not %I', field);
    return format('added slave %s: set SLAVE_FIELD=%1$s in its config file', field);
end
$py_log_add_slave$;

-- Forgets a slave, and what only it has not replayed.
create or replace function public.py_log_remove_slave(field text) returns text language plpgsql
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
    return format('removed slave %s', field);
end
$py_log_remove_slave$;

-- == Several masters ==

-- Makes a sequence give out numbers that no other node gives out: node 1 of 3 takes 1, 4, 7, ..., node 2 takes 2, 5, 8, ...
-- above everything that the sequence has given out here.
create or replace function public.py_log_interleave(sequence regclass, node int, nodes int) returns bigint language plpgsql
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

-- == Rights ==

-- What the daemon's role on the master needs and no more, unless it is the owner of the log or a superuser.
create or replace function public.py_log_grant(role name) returns text language plpgsql
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
    execute format('grant select, insert, update on public.replica_slave to %I', role);
    execute format('grant select on public.replica_log_sql to %I', role);
    execute format('grant usage on sequence public.replica_batch_seq to %I', role);
    return format('%s may read and mark the log', quote_ident(role));
end
$py_log_grant$;

-- Everything belongs to the owner of the log, also what a superuser adds later: the trigger runs with its owner's rights.
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
          from (values ('public.replica_slave', 'table'), ('public.replica_log_sql', 'view'),
                       ('public.replica_batch_seq', 'sequence')) o (name, kind)
          join pg_class c on c.oid = o.name::regclass
         where c.relowner <> keeper
        union all
        select format('alter function %s owner to %s', oid::regprocedure, keeper) from pg_proc
         where (pronamespace = 'public'::regnamespace and starts_with(proname, 'py_log_')
                or pronamespace = 'pyreplica'::regnamespace) and proowner <> keeper
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
revoke all on public.replica_log, public.replica_slave, public.replica_log_sql from public;
revoke all on sequence public.replica_log_id_seq, public.replica_batch_seq from public;
revoke all on function public.py_log_replica(), public.py_log_statement(), pyreplica.exact(record) from public;

commit;
