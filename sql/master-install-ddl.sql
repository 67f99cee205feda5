-- Made from sql/master-ddl/*.sql by sql/make.sh: edit those parts, not this file.

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

-- == The text of a statement ==

-- Installs the functions that find the text of the statement for which an event trigger fires.
--
-- PostgreSQL knows two texts: the whole string that the client has sent, and inside of PL/pgSQL the text that the function
-- executes. A string may hold several statements. They are taken apart as PostgreSQL's own lexer does, and the one that fits the
-- command tag is taken, in order. Where that is not certain, the functions return NULL and nothing travels.

-- Takes the statement that begins at "start". "skeleton" is the statement without comments, the contents of strings, and what
-- stands inside parentheses: patterns search it for keywords. "following" is where the next one begins; NULL at the end of the
-- text. Statement is NULL if the text is not understood.
create or replace function pyreplica.ddl_next(query text, start int, out statement text, out skeleton text, out following int)
    language plpgsql immutable set search_path = pg_catalog, pg_temp
as $ddl_next$
declare
    at int := start;            -- the next character
    base int := start;          -- where the window into the text begins
    block text := substr(query, start, 4000);
    piece text;
    token text;
    before text := '';          -- the last two characters
    shown text := '';
    closing int;
    depth int := 0;
    nested int;
    atomic int := 0;            -- inside of BEGIN ATOMIC ... END
    rest text;
begin
    loop
        if at - base > 2000 then
            block := substr(query, at, 4000);
            base := at;
        end if;
        piece := substr(block, at - base + 1);
        exit when piece = '';
        token := substring(piece from '^[^''"$/;()-]+');
        if token is not null then
            -- A word must not be cut by the end of the window.
            if length(token) = length(piece) and base + length(block) <= length(query) and token ~ '\s' then
                token := substring(token from '^.*\s');
            end if;
            if atomic > 0 then
                atomic := atomic + (select count(*) from regexp_matches(token, '\mcase\M', 'gi'))
                                 - (select count(*) from regexp_matches(token, '\mend\M', 'gi'));
            elsif token ~* '\mbegin\s+atomic\M' and shown || token ~* '^\s*create\s+(or\s+replace\s+)?(function|procedure)\M' then
                atomic := 1 + (select count(*) from regexp_matches(substring(token from '(?i)begin\s+atomic\M(.*)'), '\mcase\M', 'gi'))
                            - (select count(*) from regexp_matches(substring(token from '(?i)begin\s+atomic\M(.*)'), '\mend\M', 'gi'));
            end if;
            shown := shown || case when depth = 0 then token else '' end;
        elsif piece like '''%' then
            -- E'...' has escapes. The e is a word of its own.
            if before ~* '(^|[\x01-#%-/:-@[-^`{-\x7f])e$' then
                rest := substr(query, at);
                token := substring(rest from '^''(?:[^''\\]|''''|\\.)*''');
                -- A string goes on after a line break, with its escapes.
                if token is null or substr(rest, length(token) + 1) ~ '^[[:space:]]*(--[^\n]*\n[[:space:]]*)*''' then
                    return;
                end if;
            else
                token := substring(piece from '^''[^'']*''');
                if token is null then
                    token := substring(substr(query, at) from '^''[^'']*''');
                end if;
            end if;
            shown := shown || case when depth = 0 then '''''' else '' end;
        elsif piece like '"%' then
            token := coalesce(substring(piece from '^"[^"]*"'), substring(substr(query, at) from '^"[^"]*"'));
            shown := shown || case when depth = 0 then token else '' end;
        elsif piece like '--%' then
            token := coalesce(substring(piece from '^--[^\n\r]*[\n\r]'), substring(substr(query, at) from '^--[^\n\r]*[\n\r]?'));
            shown := shown || ' ';
        elsif piece like '/*%' then
            rest := substr(query, at);
            closing := 3;
            nested := 1;
            while nested > 0 loop
                token := substring(substr(rest, closing) from '^(?:[^*/]|\*(?!/)|/(?!\*))*(?:\*/|/\*)');
                if token is null then
                    return;
                end if;
                nested := nested + case when token like '%/*' then 1 else -1 end;
                closing := closing + length(token);
            end loop;
            token := left(rest, closing - 1);
            shown := shown || ' ';
        elsif piece like '$%' then
            if before ~ '[0-9]$' then
                return;
            elsif before ~ '[^\x01-#%-@[-^`{-\x7f]$' then
                token := '$';
            else
                token := substring(piece from '^\$(?:[^[:space:]0-9$''"();/-][^[:space:]$''"();/-]*)?\$');
                if token is null then
                    token := '$';
                else
                    closing := position(token in substr(query, at + length(token)));
                    if closing = 0 then
                        return;
                    end if;
                    token := substr(query, at, 2 * length(token) + closing - 1);
                end if;
            end if;
            shown := shown || case when depth > 0 then '' when token = '$' then '$' else '''''' end;
        elsif piece like ';%' and depth <= 0 and atomic <= 0 then
            following := at + 1;
            exit;
        else
            token := left(piece, 1);
            depth := depth + case token when '(' then 1 when ')' then -1 else 0 end;
            shown := shown || case when depth = 0 or depth = 1 and token = '(' then token else '' end;
        end if;
        if token is null then
            following := null;
            return;
        end if;
        at := at + length(token);
        before := case when piece like '$%' and length(token) > 1 then '' else right(before || right(token, 2), 2) end;
    end loop;
    if depth = 0 and atomic <= 0 then
        skeleton := shown;
        statement := substr(query, start, at - start);
    end if;
end
$ddl_next$;

-- Whether a statement has this command tag, by its first words. For a comment on what belongs to the server no event trigger fires.
create or replace function pyreplica.ddl_fits(skeleton text, tag text) returns boolean language sql immutable
    set search_path = pg_catalog, pg_temp
as $ddl_fits$
    select skeleton ~* case
        when tag = 'SELECT INTO' then '^[\s(]*(select|with)\M'
        when tag = 'CREATE TABLE AS' then pattern.creating || 'table\M'
        when tag = 'COMMENT' then '^\s*comment\s+on\s+(?!(database|role|tablespace|event\s+trigger)\M)'
        when tag like 'CREATE %' then pattern.creating || replace(substr(tag, 8), ' ', '\s+') || '\M'
        else '^\s*' || replace(tag, ' ', '\s+') || '\M' end
      from (values ('^\s*create\s+((or\s+replace|temp|temporary|local|global|unlogged|unique|recursive|constraint|trusted|procedural|default)\s+)*'))
           pattern (creating)
$ddl_fits$;

-- Of a string that the client has sent, the statement whose turn it is. With "goes_on" the next search begins behind it. Setting pyreplica.ddl_place holds which string it is, where the
-- search goes on, and the tags of statements since, which need no text: most strings are never taken apart. A rollback takes the
-- setting back, so a string that rolls back is understood only if one statement alone fits.
create or replace function pyreplica.ddl_place(query text, out mark text, out start int, out tags text[], out is_lost boolean) language plpgsql
    stable set search_path = pg_catalog, pg_temp
as $ddl_place$
declare
    place constant text[] := regexp_match(current_setting('pyreplica.ddl_place', true), '^([0-9.]+/[0-9]+) ([0-9]{1,9}) ([A-Z ,]*)$');
begin
    mark := format('%s/%s', extract(epoch from statement_timestamp()), octet_length(query));
    is_lost := false;
    start := 1;
    tags := '{}';
    if place[1] = mark then
        is_lost := place[2] = '0';
        start := place[2]::int;
        tags := string_to_array(place[3], ',');
    end if;
end
$ddl_place$;

create or replace function pyreplica.ddl_pass(query text, tag text) returns void language plpgsql set search_path = pg_catalog, pg_temp
as $ddl_pass$
declare
    place record := pyreplica.ddl_place(query);
begin
    perform set_config('pyreplica.ddl_place', format('%s %s %s', place.mark, place.start, array_to_string(place.tags || tag, ',')), false);
end
$ddl_pass$;

create or replace function pyreplica.ddl_top(query text, tag text, goes_on boolean, out statement text, out skeleton text) language plpgsql
    set search_path = pg_catalog, pg_temp
as $ddl_top$
declare
    place record := pyreplica.ddl_place(query);
    wanted text[] := place.tags || tag;
    start int := place.start;
    next record;
begin
    -- What is rolled back is forgotten, and what runs without event triggers is never known.
    if query ~* '\m(rollback|abort|event_triggers|event\s+trigger)\M' then
        next := pyreplica.ddl_alone(query, tag);
        statement := next.statement;
        skeleton := next.skeleton;
        return;
    end if;
    while not place.is_lost and cardinality(wanted) > 0 loop
        next := pyreplica.ddl_next(query, start);
        if next.statement is null then
            exit;
        elsif pyreplica.ddl_fits(next.skeleton, wanted[1]) then
            wanted := wanted[2:];
        end if;
        exit when next.following is null and cardinality(wanted) > 0;
        start := coalesce(next.following, octet_length(query) + 1);
    end loop;
    if cardinality(wanted) = 0 then
        statement := next.statement;
        skeleton := next.skeleton;
    else
        start := 0;
    end if;
    if goes_on then
        perform set_config('pyreplica.ddl_place', format('%s %s ', place.mark, start), false);
    end if;
end
$ddl_top$;

-- == The text of a statement inside of a function ==

-- Installs what finds the text that PL/pgSQL executes, and chooses between the two texts.

-- Returns its own context, from which one learns how the server writes such a line in the language of the session.
create or replace function pyreplica.ddl_context() returns text language plpgsql set search_path = pg_catalog, pg_temp
as $ddl_context$
declare
    context text;
begin
    get diagnostics context = pg_context;
    return context;
end
$ddl_context$;

-- The text of the statement for which the trigger fires. "context" is that of the trigger, without its own line.
create or replace function pyreplica.ddl_text(context text, tag text, out statement text, out skeleton text) language plpgsql
    set search_path = pg_catalog, pg_temp
as $ddl_text$
declare
    sample text;
    opening text;
    frame text;
    closing text;
    text_of text := context;
    rest text;
    at int := 0;
    tried text;
    next record;
begin
    if context = '' then
        next := pyreplica.ddl_top(current_query(), tag, true);
        statement := next.statement;
        skeleton := next.skeleton;
        return;
    end if;
    -- How the server writes a line about a statement, and one about a function, in this session.
    execute 'select pyreplica.ddl_context() /*@*/' into sample;
    frame := substring(sample from '^([^\n]*?)pyreplica[.]ddl_context');
    opening := substring(substr(sample, strpos(sample, E'\n') + 1) from '^([^\n]*?)select pyreplica');
    closing := substring(sample from '/\*@\*/([^\n]*)\n');
    if frame is null or opening is null or closing is null or opening = '' or closing = '' or frame = '' or not starts_with(context, opening) then
        return;
    end if;
    text_of := substr(context, length(opening) + 1);
    -- The text ends before the line of the function that executes it. A text may hold such a line itself; so it must be a whole
    -- statement up to there.
    loop
        rest := substr(text_of, at + 1);
        exit when strpos(rest, closing) = 0;
        at := at + strpos(rest, closing) + length(closing) - 1;
        rest := substr(text_of, at + 1);
        continue when rest <> '' and not starts_with(rest, E'\n' || frame);
        tried := left(text_of, at - length(closing));
        next := pyreplica.ddl_alone(tried, tag);
        if next.statement is not null then
            statement := next.statement;
            skeleton := next.skeleton;
            return;
        end if;
    end loop;
end
$ddl_text$;

-- Of a text that a function executes, the one statement that fits. If two do, neither is taken.
create or replace function pyreplica.ddl_alone(query text, tag text, out statement text, out skeleton text) language plpgsql
    set search_path = pg_catalog, pg_temp
as $ddl_alone$
declare
    next record;
    start int := 1;
begin
    loop
        next := pyreplica.ddl_next(query, start);
        if next.statement is null or statement is not null and pyreplica.ddl_fits(next.skeleton, tag) then
            statement := null;
            exit;
        end if;
        if pyreplica.ddl_fits(next.skeleton, tag) then
            statement := next.statement;
            skeleton := next.skeleton;
        end if;
        exit when next.following is null or next.following > length(query);
        start := next.following;
    end loop;
    if statement is null then
        skeleton := null;
    end if;
end
$ddl_alone$;

-- == What is written into the log ==

-- Installs the functions that write a statement from the catalog, and those that describe the shape of an object.

create or replace function pyreplica.ddl_searching(path name[]) returns text language sql immutable set search_path = pg_catalog, pg_temp
as $ddl_searching$
    select format('SET LOCAL search_path TO %s; ',
                  coalesce((select string_agg(quote_ident(p), ', ' order by n) from unnest(path) with ordinality u (p, n)), ''''''))
$ddl_searching$;

-- The settings that a text depends on, as statements in front of it. "path" are the schemas that the session searches.
create or replace function pyreplica.ddl_settings(statement text, path name[]) returns text language sql stable
    set search_path = pg_catalog, pg_temp
as $ddl_settings$
    select pyreplica.ddl_searching(path)
           || coalesce((select string_agg(format('SET LOCAL %s TO %L; ', name, setting), '' order by name)
                          from pg_settings
                         where name in ('DateStyle', 'IntervalStyle', 'TimeZone') and statement ~ '''[^'']*[0-9]'
                            or name in ('xmloption', 'default_table_access_method', 'default_toast_compression', 'transform_null_equals', 'array_nulls')
                               and setting <> boot_val), '')
$ddl_settings$;

-- Whether the text of a statement is needed, or the catalog has all of it. Only the text says whether a trigger was replaced.
create or replace function pyreplica.ddl_needs_text(tag text) returns boolean language sql immutable set search_path = pg_catalog, pg_temp
as $ddl_needs_text$
    select tag not in ('CREATE TABLE AS', 'SELECT INTO', 'CREATE INDEX', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW',
                       'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE RULE', 'CREATE EXTENSION')
$ddl_needs_text$;

-- Writes a statement from the catalog, where the catalog has all of it. NULL otherwise. Everything in it has its schema.
create or replace function pyreplica.ddl_from_catalog(tag text, catalog oid, object oid, alone boolean) returns text language plpgsql stable
    set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1
    set quote_all_identifiers = off
as $ddl_from_catalog$
declare
    relation pg_class := (select c from pg_class c where c.oid = object and catalog = 'pg_class'::regclass);
    options constant text := case when relation.reloptions is null then ''
                                  else format(' WITH (%s)', array_to_string(relation.reloptions, ', ')) end;
    columns text;
begin
    case
    when tag in ('CREATE TABLE AS', 'SELECT INTO') and relation.relkind = 'r' then
        -- Its rows follow in the log, once it has a key.
        select string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                                 case when a.attcollation <> t.typcollation then ' COLLATE ' || a.attcollation::regcollation else '' end),
                          ', ' order by a.attnum) into columns
          from pg_attribute a join pg_type t on t.oid = a.atttypid
         where a.attrelid = object and a.attnum > 0 and not a.attisdropped;
        return format('CREATE %sTABLE %s (%s)%s', case relation.relpersistence when 'u' then 'UNLOGGED ' else '' end,
                      object::regclass, columns, options);
    when tag = 'CREATE INDEX' and relation.relkind in ('i', 'I') then
        -- Without ONLY, except where it was said: then no partition has a part of the index. The index of a partition that is not valid
        -- makes this one so too.
        return case when relation.relkind = 'I' and ((select indisvalid from pg_index where indexrelid = object)
                                                     or exists (select from pg_inherits where inhparent = object))
                    then regexp_replace(pg_get_indexdef(object), '^(CREATE (UNIQUE )?INDEX ("([^"]|"")*"|[^ "]+) ON )ONLY ', '\1')
                    else pg_get_indexdef(object) end;
    when tag = 'CREATE VIEW' and relation.relkind = 'v' then
        select string_agg(quote_ident(attname), ', ' order by attnum) into columns
          from pg_attribute where attrelid = object and attnum > 0;
        return format('CREATE OR REPLACE VIEW %s%s%s AS %s', object::regclass, coalesce(' (' || columns || ')', ''), options,
                      rtrim(pg_get_viewdef(object), ';'));
    when tag = 'CREATE MATERIALIZED VIEW' and relation.relkind = 'm' then
        return format('CREATE MATERIALIZED VIEW %s%s AS %s WITH %sDATA', object::regclass, options,
                      rtrim(pg_get_viewdef(object), ';'), case when relation.relispopulated then '' else 'NO ' end);
    when tag = 'REFRESH MATERIALIZED VIEW' and relation.relkind = 'm' then
        return format('REFRESH MATERIALIZED VIEW %s%s', object::regclass, case when relation.relispopulated then '' else ' WITH NO DATA' end);
    when tag in ('CREATE FUNCTION', 'CREATE PROCEDURE') and (select prokind <> 'a' from pg_proc where oid = object) then
        return rtrim(pg_get_functiondef(object), E' \n');
    when tag = 'CREATE TRIGGER' then
        return pg_get_triggerdef(object);
    when tag = 'CREATE RULE' then
        return regexp_replace(rtrim(pg_get_ruledef(object), ';'), '^CREATE ', 'CREATE OR REPLACE ');
    when tag = 'CREATE SCHEMA' and alone then
        return format('CREATE SCHEMA %s', object::regnamespace);
    when tag = 'CREATE EXTENSION' then
        return (select format('CREATE EXTENSION IF NOT EXISTS %I%s CASCADE', extname,
                              case when extrelocatable then format(' WITH SCHEMA %s', extnamespace::regnamespace) else '' end)
                  from pg_extension where oid = object);
    else
        return null;
    end case;
end
$ddl_from_catalog$;

-- Writes a DROP from what PostgreSQL says it has dropped: what the statement named, by kind.
create or replace function pyreplica.ddl_dropping(objects jsonb, cascades boolean) returns setof text language sql immutable
    set search_path = pg_catalog, pg_temp
as $ddl_dropping$
    -- These kinds allow one name only.
    select format('DROP %s IF EXISTS %s%s', upper(case kind when 'statistics object' then 'statistics' else kind end),
                  string_agg(identity, ', ' order by n), case when cascades then ' CASCADE' else '' end)
      from (select o ->> 'kind' as kind, o ->> 'identity' as identity, n,
                   case when o ->> 'kind' in ('trigger', 'policy', 'rule', 'cast', 'operator class', 'operator family', 'conversion')
                          or o ->> 'kind' like 'text search%' then n end as single
              from jsonb_array_elements(objects) with ordinality u (o, n)) x
     group by kind, single order by kind = 'schema', min(n)
$ddl_dropping$;

-- The shape of an object, as parts that can be compared with those of the slave's object. sql/query/shape.sql has the text.
create or replace function pyreplica.ddl_shape(kind text, names text[], arguments text[]) returns text[] language sql stable
    set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1
    set quote_all_identifiers = off
as $ddl_shape$
-- The shape of an object: what its definition consists of, as parts in no special order. Two objects of the same parts are alike.
-- NULL for kinds of objects whose shape nobody asks for. It fails if there is no such object. What the triggers of pyreplica add is
-- left out, and NOT NULL is said once in all versions.
--   $1  text    the kind of the object, and
--   $2  text[]  its names and
--   $3  text[]  its arguments, as pg_identify_object_as_address says them
select nullif(case a.classid
    when 'pg_class'::regclass then array(
        select 'kind ' || case c.relkind when 'p' then 'r' when 'I' then 'i' else c.relkind::text end from pg_class c where c.oid = a.objid
        union all
        select format('column %I %s%s%s%s%s', t.attname, format_type(t.atttypid, t.atttypmod), case when t.attnotnull then ' not null' end,
                      ' identity ' || nullif(t.attidentity::text, ''), ' generated ' || nullif(t.attgenerated::text, ''),
                      ' default ' || pg_get_expr(d.adbin, d.adrelid))
          from pg_attribute t left join pg_attrdef d on d.adrelid = t.attrelid and d.adnum = t.attnum
         where t.attrelid = a.objid and t.attnum > 0 and not t.attisdropped
        union all
        select format('constraint %I %s', conname, pg_get_constraintdef(oid)) from pg_constraint
         where conrelid = a.objid and contype <> 'n'
        union all
        select pg_get_indexdef(indexrelid) from pg_index where a.objid in (indrelid, indexrelid)
        union all
        select 'view ' || pg_get_viewdef(c.oid) from pg_class c where c.oid = a.objid and c.relkind in ('v', 'm')
        union all
        select 'bound ' || pg_get_expr(c.relpartbound, c.oid) from pg_class c where c.oid = a.objid and c.relispartition)
    when 'pg_type'::regclass then array(
        select format('type %s of %s default %s', t.typtype, format_type(t.typbasetype, t.typtypmod), t.typdefault) from pg_type t where t.oid = a.objid
        union all
        select format('label %L', enumlabel) from pg_enum where enumtypid = a.objid
        union all
        select format('constraint %I %s', conname, pg_get_constraintdef(oid)) from pg_constraint where contypid = a.objid and contype <> 'n'
        union all
        select format('column %I %s', t.attname, format_type(t.atttypid, t.atttypmod))
          from pg_type y join pg_attribute t on t.attrelid = y.typrelid and t.attnum > 0 and not t.attisdropped where y.oid = a.objid)
    when 'pg_proc'::regclass then array(select pg_get_functiondef(oid) from pg_proc where oid = a.objid and prokind <> 'a')
    when 'pg_namespace'::regclass then array['schema']
    when 'pg_extension'::regclass then array['extension']
    when 'pg_trigger'::regclass then array[pg_get_triggerdef(a.objid)]
    when 'pg_rewrite'::regclass then array[pg_get_ruledef(a.objid)]
    when 'pg_policy'::regclass then array(
        select format('%s %s %s using %s check %s', polpermissive, polcmd, polroles = '{0}', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
          from pg_policy where oid = a.objid)
    end, '{}'::text[]) as shape
  from pg_get_object_address($1::text, $2::text[], $3::text[]) a
$ddl_shape$;

-- An earlier version had this.
drop function if exists pyreplica.ddl_write(text, text, oid, oid);

-- Writes a row of the log. With an origin no signal is sent: a transaction with a NOTIFY cannot be prepared.
create or replace function pyreplica.ddl_write(statement text, origin text, tag text, catalog oid, object oid) returns void language plpgsql
    set search_path = pg_catalog, pg_temp
as $ddl_write$
declare
    told public.replica_log.new%type;
    address record;
begin
    if object is not null then
        -- A composite type has an entry as a relation too, under which nobody finds it.
        if (select relkind = 'c' from pg_class where oid = object and catalog = 'pg_class'::regclass) then
            object := (select reltype from pg_class where oid = object);
            catalog := 'pg_type'::regclass;
        end if;
        address := pg_identify_object_as_address(catalog, object, 0);
        told := ('tag'::text operator(pyreplica.~>) tag) operator(pyreplica.||)
                ('type'::text operator(pyreplica.~>) address.type) operator(pyreplica.||)
                ('names'::text operator(pyreplica.~>) address.object_names::text) operator(pyreplica.||)
                ('arguments'::text operator(pyreplica.~>) address.object_args::text) operator(pyreplica.||)
                -- A prefix operator has no address that PostgreSQL would read, and operators have no shape.
                ('shape'::text operator(pyreplica.~>) case when catalog <> 'pg_operator'::regclass then
                     pyreplica.ddl_shape(address.type, address.object_names, address.object_args)::text end) operator(pyreplica.||)
                ('owner'::text operator(pyreplica.~>) (
                     select r.rolname::text from pg_roles r where r.oid = case catalog
                         when 'pg_class'::regclass then (select relowner from pg_class c where c.oid = object)
                         when 'pg_proc'::regclass then (select proowner from pg_proc p where p.oid = object)
                         when 'pg_type'::regclass then (select typowner from pg_type t where t.oid = object)
                         when 'pg_namespace'::regclass then (select nspowner from pg_namespace n where n.oid = object) end));
    end if;
    if origin <> '' then
        insert into public.replica_log (event, sql, new, origin) values ('S', statement, told, origin);
    else
        insert into public.replica_log (sql, new) values (statement, told);
    end if;
end
$ddl_write$;

-- Tells the person, and if it matters there, the slave's operator: a comment in the log, which the daemon shows as a warning. A line
-- break in a name would end the comment.
create or replace function pyreplica.ddl_tell(message text, advice text, origin text, is_remark boolean) returns void language plpgsql
    set search_path = pg_catalog, pg_temp
as $ddl_tell$
begin
    raise warning '%', message using hint = coalesce(advice, 'docs/ddl.md says why.');
    if is_remark then
        perform pyreplica.ddl_write('-- pyreplica: ' || left(regexp_replace(message, '[[:cntrl:]]', ' ', 'g'), 1000), origin, null, null, null);
    end if;
end
$ddl_tell$;

-- == What the slaves do not have ==

-- Installs what remembers which objects did not travel when they were made or renamed. On a slave their names are free, or are those of
-- something else: a DROP of them must not arrive there.

-- Whether nothing that a role makes travels.
create or replace function pyreplica.ddl_is_stranger(role oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_is_stranger$
    select not pyreplica.is_trusted(r.oid) and not exists (select from public.py_log_ddl f where f.travels and r.rolname = f.role)
      from pg_roles r where r.oid = role
$ddl_is_stranger$;

do $install$
begin
    if current_setting('pyreplica.ddl_is_first')::boolean then
        -- From before nobody knows. ALTER of what belongs to such roles does not travel either.
        insert into public.py_log_ddl_absent
        select distinct d.classid, d.objid from pg_shdepend d
         where d.dbid = (select oid from pg_database where datname = current_database()) and d.deptype = 'o' and d.objsubid = 0
           and d.classid <> 'pg_largeobject'::regclass
           and d.refclassid = 'pg_authid'::regclass
           and d.refobjid in (select oid from (select oid from pg_roles offset 0) r where pyreplica.ddl_is_stranger(oid));
    end if;
end
$install$;

-- Fires before a DROP of tables and the like. EXPLAIN ANALYZE CREATE TABLE AS and REINDEX CONCURRENTLY make new ones, and no event trigger
-- fires for them. So this notes what belongs to strangers and is not known to have travelled; afterwards nobody knows the owner.
create or replace function pyreplica.ddl_drop() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
    set quote_all_identifiers = off
as $ddl_drop$
declare
    strangers oid[];
    context text;
begin
    get diagnostics context = pg_context;
    -- What a stranger drops does not travel. In a function it may be somebody else who does.
    if context !~ '\n' and pyreplica.ddl_is_stranger(
        to_regrole(quote_ident(coalesce(nullif(current_setting('role'), 'none'), session_user)))::oid) then
        return;
    end if;
    -- OFFSET keeps the planner from asking for each row of pg_class.
    strangers := array(select relowner from (select distinct relowner from pg_class offset 0) o where pyreplica.ddl_is_stranger(relowner));
    if strangers = '{}' then
        return;
    end if;
    insert into public.py_log_ddl_absent
    select 'pg_class'::regclass, unnest(array_prepend(c.oid, array(select i.indexrelid from pg_index i where i.indrelid = c.oid)))
      from pg_class c
      join pg_class r on r.oid = case when c.relispartition then pg_partition_root(c.oid) else c.oid end
      join pg_namespace n on n.oid = r.relnamespace
      -- As pyreplica.ddl_is_agreed says it for one.
      left join public.replica_table k on k.relation::oid = r.oid and k.name = format('%I.%I', n.nspname, r.relname)
     where c.relowner = any (strangers) and c.relkind in ('r', 'p', 'm') and c.relpersistence <> 't' and k.name is null
       and not exists (select from public.py_log_ddl_table t where t.relation = c.oid)
    on conflict do nothing;
end
$ddl_drop$;

-- Fires before a statement that may run the script of an extension. In a setting, anybody could write that note.
create or replace function pyreplica.ddl_script() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $ddl_script$
begin
    insert into public.py_log_ddl_script as s values (pg_current_xact_id(), 1)
        on conflict (transaction) do update set depth = s.depth + 1;
end
$ddl_script$;

create or replace function pyreplica.ddl_script_ends() returns void language sql set search_path = pg_catalog, pg_temp
as $ddl_script_ends$
    update public.py_log_ddl_script set depth = depth - 1 where transaction = pg_current_xact_id();
    delete from public.py_log_ddl_script where transaction = pg_current_xact_id() and depth = 0
$ddl_script_ends$;

create or replace function pyreplica.ddl_is_script() returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_is_script$
    select exists (select from public.py_log_ddl_script where transaction = pg_current_xact_id_if_assigned())
$ddl_is_script$;

-- Whether a table is replicated under this name: somebody who is trusted has agreed to it, so the slaves have the table.
create or replace function pyreplica.ddl_is_agreed(relation oid, name text) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $ddl_is_agreed$
    select exists (select from public.replica_table k where k.relation::oid = ddl_is_agreed.relation and k.name = ddl_is_agreed.name)
$ddl_is_agreed$;

-- Why a statement that is trusted does not travel all the same: what it changes, or needs, is missing on the slaves. NULL if it may travel.
create or replace function pyreplica.ddl_is_missing(tag text, main jsonb) returns text language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $ddl_is_missing$
declare
    class constant oid := main ->> 'catalog';
    id constant oid := main ->> 'oid';
    relation constant oid := main ->> 'relation';
    owner constant oid := main ->> 'owner';
begin
    if exists (select from pg_depend d
                where d.classid = class and d.objid = id
                  and pg_my_temp_schema() = case d.refclassid when 'pg_class'::regclass then (select relnamespace from pg_class where oid = d.refobjid)
                                                              when 'pg_type'::regclass then (select typnamespace from pg_type where oid = d.refobjid)
                                                              when 'pg_proc'::regclass then (select pronamespace from pg_proc where oid = d.refobjid) end) then
        return 'it depends on a temporary object';
    elsif tag ~ '^CREATE (?!(INDEX|TRIGGER|POLICY|RULE|STATISTICS)$)' then
        return null;
    elsif (select relkind = 'f' from pg_class where oid = relation) then
        return 'foreign tables do not';
    elsif pyreplica.ddl_travels(tag, main ->> 'schema', owner, false) = 'untrusted' then
        return format('it belongs to %s, whose objects do not', owner::regrole);
    elsif tag = 'COMMENT' and pyreplica.ddl_travels('CREATE ' || upper(replace(main ->> 'kind', '-', ' ')), main ->> 'schema', owner, false) = 'no'
          and main ->> 'kind' in ('foreign-data wrapper', 'server', 'publication', 'subscription', 'event trigger', 'access method', 'language',
                                  'transform', 'large object') then
        return format('no %s does', main ->> 'kind');
    elsif exists (select from public.py_log_ddl_absent a where (a.catalog, a.object) in ((class, id), ('pg_class'::regclass, relation))) then
        return 'what it changes did not travel when it was made';
    end if;
    return null;
end
$ddl_is_missing$;

-- Whether CREATE TABLE (LIKE ...) names a temporary table. Its text would mean another one on the slave, or none.
create or replace function pyreplica.ddl_is_like_temporary(statement text) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $ddl_is_like_temporary$
    select exists (select from regexp_matches(statement, '(?i)\mlike\s+((?:pg_temp\s*\.\s*)?("(?:[^"]|"")*"|[[:alpha:]_][^\s,;().]*))(?!\s*\.)', 'g') m
                     join pg_class c on c.relname = pyreplica.ddl_name(m[2]) and c.relnamespace = pg_my_temp_schema())
$ddl_is_like_temporary$;

-- Notes that a statement does not travel which has made these objects, or has given them other names. What is in such a schema, or on
-- such a table, has another name too.
create or replace function pyreplica.ddl_leave_out(objects jsonb) returns void language sql set search_path = pg_catalog, pg_temp
as $ddl_leave_out$
    with recursive objects (catalog, object) as (
        select case when c.relkind = 'c' then 'pg_type'::regclass else o.catalog end::oid, case when c.relkind = 'c' then c.reltype else o.oid end
          from jsonb_to_recordset(ddl_leave_out.objects) o (catalog oid, oid oid)
          left join pg_class c on c.oid = o.oid and o.catalog = 'pg_class'::regclass
         where o.oid is not null
           and not (c.oid is not null and pyreplica.ddl_is_agreed(c.oid, pyreplica.logged_name(c.oid)))
        union
        select d.classid, d.objid
          from objects o join pg_depend d on d.refclassid = o.catalog and d.refobjid = o.object
         where d.objsubid = 0
           and (d.refclassid = 'pg_namespace'::regclass and d.deptype = 'n'
                or d.refclassid = 'pg_class'::regclass
                   and (d.classid in ('pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_rewrite'::regclass)
                        or d.classid = 'pg_class'::regclass and exists (select from pg_index i where i.indexrelid = d.objid)))
    )
    insert into public.py_log_ddl_absent select catalog, object from objects on conflict do nothing
$ddl_leave_out$;

-- What is to be remembered of a statement that travels under no circumstances: what it has dropped is forgotten, and what a stranger has
-- made is absent. If a statement of his could not be handled, this refuses it rather than let it pass.
create or replace function pyreplica.ddl_note(event text, tag text, role oid) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_note$
begin
    if event = 'sql_drop' then
        delete from public.py_log_ddl_absent a using pg_event_trigger_dropped_objects() d
         where a.catalog = d.classid and a.object = d.objid and d.objsubid = 0;
    elsif tag ~ '^(CREATE|ALTER|SELECT INTO)' and coalesce(pyreplica.ddl_origin(), '') = '' and not coalesce(pyreplica.is_trusted(role), false) then
        perform pyreplica.ddl_leave_out(pyreplica.ddl_made(tag));
    end if;
end
$ddl_note$;

-- == Tables that a statement makes or changes ==

-- Installs the functions that create the triggers of new tables, and log rows that no trigger has logged.

-- Whether a table has a trigger that logs its rows, of its own or of the root that it is a part of.
create or replace function pyreplica.ddl_is_logged(relation oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_is_logged$
    select exists (select from pg_trigger t
                    where t.tgrelid = relation and t.tgtype & 1 = 1 and t.tgenabled <> 'D'
                      and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure))
$ddl_is_logged$;

-- Whether the log may hold all rows of a table as they are: a filter or a transform would have to see each of them.
create or replace function pyreplica.ddl_has_special(relation oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_has_special$
    select pyreplica.logged_name(relation) = any (pyreplica.special())
        or (select relname::text from pg_class where oid = relation) = any (pyreplica.special())
        or exists (select from pg_trigger t
                    where t.tgrelid = relation and t.tgtype & 1 = 1
                      and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
                      and split_part(encode(t.tgargs, 'escape'), '\000', 1) = any (pyreplica.special()))
$ddl_has_special$;

-- Whether something identifies the rows of a table, so that it can have a trigger: a key, or the whole row if somebody has said so.
create or replace function pyreplica.ddl_identifies(relation oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_identifies$
    select public.py_log_key(relation) is not null or (select relreplident = 'f' from pg_class where oid = relation)
$ddl_identifies$;

-- Logs the rows of a table as inserted, or, if columns are given, as updated there: a table without a key has its rows replaced. A
-- partitioned table has them in its partitions. Of an inherited table these are its own rows only.
create or replace function pyreplica.ddl_log_rows(source oid, target oid, columns text[], origin text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set row_security = off
as $ddl_log_rows$
declare
    name constant text := pyreplica.logged_name(target);
    keys constant text[] := public.py_log_key(target);
    rows constant text := case when (select relkind from pg_class where oid = source) = 'p' then '' else 'only ' end
                          || source::regclass::text;
    others constant text[] := array(select attname from pg_attribute where attrelid = target and attnum > 0 and not attisdropped
                                       and attgenerated = '' and attname <> all (columns));
    owner constant oid := (select n.nspowner from pg_class c join pg_namespace n on n.oid = c.relnamespace
                            where c.oid = source and c.relkind in ('r', 'p'));
    has_rows boolean := (select sum(pg_relation_size(relid)) > 0 from (select source as relid union select relid from pg_partition_tree(source)) x);
begin
    if not has_rows then
        return;
    elsif not pyreplica.is_trusted(owner) then
        -- The owner of the schema could put a view in the place of the table, whose functions would run with the rights of this one.
        perform pyreplica.ddl_tell(format('the rows of table %s that this statement has made or changed are not in the log, because its schema belongs '
                                          'to %s', name, owner::regrole), 'pyreplica copy --table, or repair, brings them.', origin, true);
        return;
    end if;
    execute format('select exists (select from %s)', rows) into has_rows;
    if not has_rows then
        return;
    elsif pyreplica.ddl_has_special(target) then
        perform pyreplica.ddl_tell(format('the rows of table %s that this statement has made or changed are not in the log, because it has a '
                                          'filter or a transform', name),
                                   'pyreplica copy --table, or repair, brings them.', origin, true);
        return;
    end if;
    if columns is null then
        execute format('insert into public.replica_log (relation, event, new, origin) select %L, ''I'', pyreplica.exact(x.*), %L from %s x',
                       name, nullif(origin, ''), rows);
    elsif columns && keys then
        perform pyreplica.ddl_tell(format('the keys of table %s have got other values on the slave than here', name),
                                   'pyreplica repair makes them equal.', origin, true);
    elsif keys is null and others = '{}' then
        perform pyreplica.ddl_tell(format('the rows of table %s have got other values on the slave than here, and nothing identifies them', name),
                                   'pyreplica repair makes them equal.', origin, true);
    elsif keys is null
       or exists (select from pg_attribute where attrelid = target and attname = any (columns) and attidentity = 'a') then
        -- PostgreSQL refuses to update an identity column. Without a key, the values that both sides have alike find the rows. Rows
        -- that are equal there are all deleted before the first comes back, so it does not matter which is which.
        execute format('insert into public.replica_log (relation, event, old, origin) select %L, ''D'', %s, %L from %s x',
                       name, case when keys is null then format('pyreplica.exact(x.*) operator(pyreplica.&) %L::text[]', others)
                             else 'pyreplica.exact(x.*)' end, nullif(origin, ''), rows);
        execute format('insert into public.replica_log (relation, event, new, origin) select %L, ''I'', pyreplica.exact(x.*), %L from %s x',
                       name, nullif(origin, ''), rows);
    else
        execute format('insert into public.replica_log (relation, event, old, new, origin)
                        select %L, ''U'', x.r operator(pyreplica.&) %L::text[], x.r operator(pyreplica.&) %L::text[], %L
                          from (select pyreplica.exact(x.*) as r from %s x) x', name, keys, keys || columns, nullif(origin, ''), rows);
    end if;
end
$ddl_log_rows$;

-- Creates the trigger of a table that is new, or has got its key now, and logs the rows that it has by then.
create or replace function pyreplica.ddl_capture(relation oid, origin text, hands_on boolean) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_capture$
declare
    entry public.py_log_ddl_table := (select t from public.py_log_ddl_table t where t.relation = ddl_capture.relation);
    shown constant text := relation::regclass;
    said text;
    trigger name;
begin
    if entry is null or not pyreplica.ddl_identifies(relation) then
        return;
    end if;
    said := public.py_log_create_tg(relation::regclass, shown, null);
    if said !~ '^created' then
        perform pyreplica.ddl_tell(said, format('If the slave is to have its rows: SELECT py_log_create_tg(%L, %L), as a role that may, and '
                                                'then pyreplica copy --table.', (select relnamespace::regnamespace from pg_class where oid = relation),
                                                (select relname from pg_class where oid = relation)), origin, true);
        return;
    end if;
    if hands_on then
        for trigger in select tgname from pg_trigger where tgrelid = relation and not tgisinternal and tgname like '!replica\_%' loop
            execute format('alter table %s enable always trigger %I', shown, trigger);
        end loop;
    end if;
    if entry.is_ours then
        perform pyreplica.ddl_log_rows(relation, relation, null, origin);
    end if;
    delete from public.py_log_ddl_table t where t.relation = ddl_capture.relation;
end
$ddl_capture$;

-- A table is new. A partition has the trigger of its root, except the one for TRUNCATE, which PostgreSQL does not copy.
create or replace function pyreplica.ddl_is_new(relation oid, origin text, hands_on boolean) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_is_new$
declare
    root constant oid := (select pg_partition_root(oid) from pg_class where oid = relation and relispartition);
    arguments text;
begin
    if root is null then
        insert into public.py_log_ddl_table values (relation, coalesce(origin, '') = '') on conflict do nothing;
        perform pyreplica.ddl_capture(relation, origin, hands_on);
    elsif pyreplica.ddl_is_logged(root) and has_table_privilege(relation, 'TRIGGER') then
        select string_agg(quote_literal(convert_from(decode(m[1], 'hex'), getdatabaseencoding())), ', ' order by n) into arguments
          from pg_trigger t
         cross join regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
         where t.tgrelid = root and t.tgname = '!replica_truncate_tg';
        if arguments is not null and not exists (select from pg_trigger where tgrelid = relation and tgname = '!replica_truncate_tg') then
            execute format('create trigger "!replica_truncate_tg" after truncate on %s for each statement '
                           'execute function public.py_log_replica(%s)', relation::regclass, arguments);
        end if;
    end if;
end
$ddl_is_new$;

-- After ALTER TABLE: a key or a new name may have come, and a partition may have gone or come. Existing rows may have got values
-- that the slave would not get: the log has them as updates.
create or replace function pyreplica.ddl_altered(relation oid, skeleton text, statement text, path name[], origin text, hands_on boolean)
    returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_altered$
declare
    part constant oid := pyreplica.ddl_relation(substring(skeleton from
        '(?i)\m(?:attach|detach)\s+partition\s+((?:"(?:[^"]|"")*"|[^\s."]+)(?:\s*\.\s*(?:"(?:[^"]|"")*"|[^\s."]+))?)'), path);
    root constant oid := coalesce(pg_partition_root(relation)::oid, relation);
    constant_default constant text := '^(NULL(::.*)?|\(?-?[0-9.]+\)?(::[a-z" .]+)?|true|false|''([^'']|'''')*''(::[a-z_"0-9 .()]+(\[\])*)?)$';
    columns text[];
    child oid;
begin
    perform pyreplica.ddl_capture(relation, origin, hands_on);
    if pyreplica.ddl_is_logged(relation) and relation = root then
        perform pyreplica.register(relation::regclass);
    end if;
    if part is not null and skeleton ~* '\mdetach\s+partition\M' and not pyreplica.ddl_is_logged(part) and pyreplica.ddl_is_logged(root) then
        -- The trigger of the root has gone from it. Both sides have its rows.
        insert into public.py_log_ddl_table values (part, false) on conflict do nothing;
        perform pyreplica.ddl_capture(part, origin, hands_on);
        if not pyreplica.ddl_identifies(part) then
            perform pyreplica.ddl_tell(format('changes of table %s are not in the log from here on: as a partition of %s it needed nothing '
                                              'of its own that identifies its rows', part::regclass, root::regclass),
                                       'Give it a key or a REPLICA IDENTITY, and run pyreplica copy --table.', origin, true);
        end if;
    elsif part is not null and skeleton ~* '\mattach\s+partition\M' and pyreplica.ddl_is_logged(root) then
        if exists (select from public.py_log_ddl_table t where t.relation = part and t.is_ours) and coalesce(origin, '') = '' then
            -- It had no key, so its rows were not logged.
            perform pyreplica.ddl_log_rows(part, root, null, origin);
        end if;
        if coalesce(origin, '') = '' and not exists (select from public.py_log_ddl_table t where t.relation = part)
           and not exists (select from pg_trigger t where t.tgrelid = part and t.tgparentid = 0 and t.tgfoid = 'public.py_log_replica()'::regprocedure
                                                      and t.tgtype & 1 = 1) then
            perform pyreplica.ddl_tell(format('the rows that partition %s had before are not in the log', part::regclass),
                                       'pyreplica repair brings them, if the slave lacks them.', origin, true);
        end if;
        delete from public.py_log_ddl_table t where t.relation = part;
        perform pyreplica.ddl_is_new(part, origin, hands_on);
    end if;
    if origin <> '' and not hands_on then
        return;
    end if;
    -- PostgreSQL calculates a default once for all rows (now()) or for each. Only a constant is the same on both sides. USING may
    -- calculate anything, except when it only casts the column.
    for child in with recursive family (member) as (
                     select relation union select i.inhrelid from family f join pg_inherits i on i.inhparent = f.member)
                 select member from family loop
        continue when not pyreplica.ddl_is_logged(child) or not pyreplica.ddl_identifies(child)
                      or child <> relation and (select relispartition from pg_class where oid = child);
        columns := array(
            select a.attname from pg_attribute a
              left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
              join pg_type t on t.oid = a.atttypid
             where a.attrelid = child and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
               and (a.attidentity <> '' or coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) !~ constant_default
                    or statement ~* '''\s*(now|today|tomorrow|yesterday)\M')
               and a.attname in (select pyreplica.ddl_name(m[1])
                                   from regexp_matches(skeleton, '(?i)(?:^|,|\s)add\s+(?:column\s+)?(?:if\s+not\s+exists\s+)?("(?:[^"]|"")*"|[^\s",;]+)', 'g') m)
            union
            select a.attname from pg_attribute a
             where a.attrelid = child and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
               and a.attname in (select pyreplica.ddl_name(m[1])
                                   from regexp_matches(skeleton, '(?i)\malter\s+(?:column\s+)?("(?:[^"]|"")*"|[^\s",;]+)\s+(?:set\s+data\s+)?type\M[^,]*\musing\M', 'g') m)
               and not coalesce(statement ~* format('\musing\s+\(?\s*%s\s*\)?\s*::\s*[a-z_0-9]+\s*(,|$)', '"?' || regexp_replace(a.attname, '\W', '.', 'g') || '"?'), false));
        if cardinality(columns) > 0 then
            perform pyreplica.ddl_log_rows(child, child, columns, origin);
        end if;
    end loop;
end
$ddl_altered$;

-- An identifier as it is written, without quotes.
create or replace function pyreplica.ddl_name(written text) returns name language sql immutable set search_path = pg_catalog, pg_temp
as $ddl_name$
    select case when written like '"%' then replace(substr(written, 2, length(written) - 2), '""', '"') else lower(written) end::name
$ddl_name$;

-- The table that a name in a statement means.
create or replace function pyreplica.ddl_relation(written text, path name[]) returns oid language sql stable
    set search_path = pg_catalog, pg_temp
as $ddl_relation$
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
     cross join (select array_agg(pyreplica.ddl_name(m[1]) order by i) as names
                   from regexp_matches(written, '("(?:[^"]|"")*"|[^\s."]+)', 'g') with ordinality x (m, i)) w
     where c.relname = w.names[cardinality(w.names)]
       and n.nspname = any (case when cardinality(w.names) = 1 then path else w.names[1:1] end)
     order by array_position(path, n.nspname) limit 1
$ddl_relation$;

-- A schema that is renamed locks no table. So until the transaction ends, nobody may log rows under the former names.
create or replace function pyreplica.ddl_keep_writers_off(tag text, schema oid) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_keep_writers_off$
declare
    tables text;
begin
    if tag = 'ALTER SCHEMA' then
        select string_agg(oid::regclass::text, ', ' order by oid) into tables from pg_class
         where relnamespace = schema and relkind in ('r', 'p') and not relispartition and pyreplica.ddl_is_logged(oid);
        if tables is not null then
            execute format('lock table %s in share row exclusive mode', tables);
        end if;
    end if;
end
$ddl_keep_writers_off$;

-- == The event triggers ==

-- Installs the event triggers and their functions. PostgreSQL fires them in the order of their names, in every role's session.

-- Notes whose rights the statement has, and where its session searches. It runs with these very rights, so it uses nothing but
-- PostgreSQL's own. Its trigger fires right before the next one, which runs with the rights of the log's owner and reads the note.
-- Nothing runs between the two, so nobody can write another role there.
create or replace function pyreplica.ddl_who() returns event_trigger language plpgsql
as $ddl_who$
begin
    perform pg_catalog.set_config('pyreplica.ddl_who', pg_catalog.json_build_array(
        pg_catalog.to_regrole(pg_catalog.quote_ident(current_user))::pg_catalog.oid,
        pg_catalog.current_schemas(false), pg_catalog.current_setting('standard_conforming_strings'))::pg_catalog.text, true);
end
$ddl_who$;

-- Where a change comes from. As for rows: only a role that may flag the log is believed.
create or replace function pyreplica.ddl_origin() returns text language sql stable set search_path = pg_catalog, pg_temp
as $ddl_origin$
    select current_setting('pyreplica.origin', true) where has_column_privilege(session_user, 'public.replica_log', 'txid', 'update')
$ddl_origin$;

-- Handles one firing. who: as pyreplica.ddl_who has noted it.
create or replace function pyreplica.ddl_handle(event text, tag text, context text, who json) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_handle$
declare
    origin constant text := pyreplica.ddl_origin();
    role oid := (who ->> 0)::oid;
    path constant name[] := array(select json_array_elements_text(who -> 1));
    hands_on constant boolean := exists (select from public.py_log_ddl_setting where name = 'replayed' and value = 'yes');
    objects jsonb;
    main jsonb;
    verdict text;
    words record;
    is_script constant boolean := pyreplica.ddl_is_script();
    -- The catalog has only the members of an extension that a script makes, and nothing of what it drops.
    is_passed constant boolean := event = 'ddl_command_end' and context = '' and not is_script;
    absent text;
    why text;
    statement text;
    clauses text;
    line text;
begin
    if origin <> '' then
        -- What a daemon has replayed was trusted where it comes from.
        role := null;
    elsif role is null then
        raise exception 'it is not known whose statement it is';
    elsif current_setting('session_replication_role') = 'replica' then
        if is_passed then
            perform pyreplica.ddl_pass(current_query(), tag);
        end if;
        perform pyreplica.ddl_note(event, tag, role);
        return;
    end if;
    if event = 'sql_drop' then
        if not is_script then
            objects := pyreplica.ddl_dropped(tag);
        end if;
        perform pyreplica.ddl_note(event, tag, role);
    elsif tag not like 'DROP %' then
        -- Temporary tables are made often, and this is cheaper.
        if exists (select from pg_event_trigger_ddl_commands() where schema_name is distinct from 'pg_temp' and not in_extension) then
            objects := pyreplica.ddl_made(tag);
        end if;
    end if;
    main := objects -> -1;
    select null::text as statement, null::text as skeleton into words;
    if main is null or event = 'ddl_command_end' and not pyreplica.ddl_needs_text(tag) then
        -- Nothing of it is needed but that it was there.
        if is_passed then
            perform pyreplica.ddl_pass(current_query(), tag);
        end if;
    elsif event = 'ddl_command_end' then
        words := pyreplica.ddl_text(context, tag);
    elsif context = '' then
        -- ddl_command_end fires next, and passes over it.
        words := pyreplica.ddl_top(current_query(), tag, false);
    else
        words := pyreplica.ddl_text(context, tag);
    end if;
    if main is null then
        return;
    end if;
    verdict := pyreplica.ddl_travels(tag, main ->> 'schema', role, (main ->> 'definer')::boolean);
    if event = 'ddl_command_end'
       and (verdict = 'untrusted' and tag ~ '^(CREATE|ALTER|SELECT INTO)' or verdict in ('definer', 'no') and tag ~ '^(CREATE|SELECT INTO)') then
        perform pyreplica.ddl_leave_out(objects);
    end if;
    if verdict = 'untrusted' then
        perform pyreplica.ddl_tell(format('%s %s does not travel to the slaves: role %s is not trusted with it', tag, main ->> 'identity', role::regrole),
                                   'The owner of the log may admit it: docs/ddl.md.', origin, (main ->> 'logged')::boolean);
        return;
    elsif verdict = 'definer' then
        perform pyreplica.ddl_tell(format('%s %s does not travel to the slaves: there it would run with the daemon''s rights (SECURITY DEFINER)', tag, main ->> 'identity'),
                                   'Create it on the slave, and give it to the right owner there: docs/ddl.md.', origin, true);
        return;
    elsif verdict = 'no' then
        return;
    end if;
    if event = 'sql_drop' then
        absent := (select string_agg(o ->> 'identity', ', ') from jsonb_array_elements(objects) o where (o ->> 'absent')::boolean);
        objects := (select jsonb_agg(o order by n) from jsonb_array_elements(objects) with ordinality u (o, n) where not (o ->> 'absent')::boolean);
        if absent is not null then
            perform pyreplica.ddl_tell(format('%s %s does not travel to the slaves: what has these names did not travel when it got them', tag, absent),
                                       null, origin, false);
        end if;
        if verdict = 'owned' and objects is not null then
            perform pyreplica.ddl_tell(format('%s does not travel to the slaves: what it has dropped is still there', tag),
                                       'Drop it on the slave: docs/ddl.md.', origin, true);
            return;
        end if;
        for line in select pyreplica.ddl_dropping(objects, coalesce(words.skeleton ~* '\mcascade\s*$', (main ->> 'cascades')::boolean)) loop
            if coalesce(origin, '') = '' or hands_on then
                perform pyreplica.ddl_write('SET LOCAL search_path TO pg_catalog; ' || line, origin, tag, null, null);
            end if;
        end loop;
        return;
    end if;
    -- It may be missing on the slave, as it would not have travelled there.
    if role is not null and not (main ->> 'logged')::boolean then
        why := pyreplica.ddl_is_missing(tag, main);
        if why is not null then
            perform pyreplica.ddl_tell(format('%s %s does not travel to the slaves: %s', tag, main ->> 'identity', why), null, origin, false);
            if tag like 'CREATE %' then
                perform pyreplica.ddl_leave_out(objects);
            end if;
            return;
        end if;
    end if;
    -- Where the rows are replayed, the checks of a type run with the daemon's rights.
    if tag like 'CREATE TABLE%' or tag = 'SELECT INTO' or tag = 'ALTER TABLE' then
        begin
            perform pyreplica.check_types((main ->> 'oid')::oid);
        exception when insufficient_privilege then
            perform pyreplica.ddl_tell(format('%s %s does not travel to the slaves: %s', tag, main ->> 'identity', sqlerrm), null, origin, true);
            return;
        end;
    end if;
    statement := pyreplica.ddl_from_catalog(tag, (main ->> 'catalog')::oid, (main ->> 'oid')::oid, jsonb_array_length(objects) = 1);
    if tag = 'CREATE TRIGGER' and words.skeleton ~* '^\s*create\s+or\s+replace\M' then
        statement := regexp_replace(statement, '^CREATE ', 'CREATE OR REPLACE ');
    end if;
    if statement is not null then
        -- Every name in it has its schema. But the functions that it runs may search.
        statement := pyreplica.ddl_searching(case when tag in ('CREATE INDEX', 'CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW')
                                                  then array_remove(path, 'pg_catalog') else '{pg_catalog}' end) || statement;
    else
        if words.skeleton ~* '^\s*alter\s' then
            clauses := regexp_replace(words.skeleton, '"([^"]|"")*"', '""', 'g');
            if clauses ~* '\mowner\s+to\M|\mset\s+tablespace\M|\m(enable|disable)\s+((always|replica)\s+)?(trigger|rule)\M' then
                if clauses !~ ',' then
                    return;
                end if;
                words.statement := null;
            elsif clauses ~* '\mdetach\s+partition\M.*\m(concurrently|finalize)\s*$' then
                words.statement := regexp_replace(words.statement, '\s(concurrently|finalize)\s*$', '', 'i');
            end if;
        end if;
        if tag = 'CREATE TABLE' and pyreplica.ddl_is_like_temporary(words.statement) then
            words.statement := null;
        elsif tag = 'CREATE SCHEMA' then
            -- It has tables and the like in it. The role may be missing on the slave.
            words.statement := regexp_replace(words.statement, '(?i)^(\s*create\s+schema\s+)(if\s+not\s+exists\s+)?(("([^"]|"")*"|[^\s"]+)\s+)?authorization\s+("([^"]|"")*"|[^\s"]+)',
                                              '\1' || replace(main ->> 'identity', '\', '\\'));
        end if;
        if words.statement is null or strpos(words.statement, '\') > 0 and who ->> 2 = 'off' then
            if pyreplica.ddl_raises() then
                raise exception '% % cannot travel to the slaves: its text is not known for certain', tag, main ->> 'identity';
            end if;
            perform pyreplica.ddl_tell(format('%s %s does not travel to the slaves: its text is not known for certain', tag, main ->> 'identity'),
                                       'Run it on the slave, or write it into the log: INSERT INTO replica_log(sql) VALUES (...).', origin, true);
            return;
        end if;
        statement := pyreplica.ddl_settings(words.statement, path) || btrim(words.statement, E' \t\r\n');
    end if;
    perform pyreplica.ddl_keep_writers_off(tag, (main ->> 'oid')::oid);
    if coalesce(origin, '') = '' or hands_on then
        perform pyreplica.ddl_write(statement, origin, tag, (main ->> 'catalog')::oid, (main ->> 'oid')::oid);
    end if;
    if tag like 'CREATE %' then
        -- It may have replaced what was absent.
        delete from public.py_log_ddl_absent a where a.catalog = (main ->> 'catalog')::oid and a.object = (main ->> 'oid')::oid;
    end if;
    perform pyreplica.ddl_after(tag, objects, words.skeleton, words.statement, path, origin, hands_on);
end
$ddl_handle$;

-- What a statement has made or changed, as far as it may travel: without temporary objects, pyreplica's own, and members of
-- extensions. The last one is what the statement names.
create or replace function pyreplica.ddl_made(tag text) returns jsonb language sql stable set search_path = pg_catalog, pg_temp
    set quote_all_identifiers = off
as $ddl_made$
    select jsonb_agg(jsonb_build_object(
               'tag', c.command_tag, 'kind', c.object_type, 'catalog', c.classid, 'oid', c.objid, 'identity', c.object_identity,
               'schema', coalesce(s.nspname, n.nspname, case when c.object_type = 'schema' then z.nspname end),
               'definer', coalesce(p.prosecdef, false), 'logged', coalesce(pyreplica.ddl_is_logged(t.relation), false),
               'relation', t.relation, 'owner', coalesce(r.relowner, p.proowner, y.typowner, z.nspowner))
               -- CREATE TABLE also makes sequences and indexes, and CREATE SCHEMA also tables.
               order by c.command_tag = ddl_made.tag, c.ordinality)
      from pg_event_trigger_ddl_commands() with ordinality c
     cross join lateral (select case c.classid
                 when 'pg_class'::regclass then coalesce((select indrelid from pg_index where indexrelid = c.objid), c.objid)
                 when 'pg_trigger'::regclass then (select tgrelid from pg_trigger where oid = c.objid)
                 when 'pg_policy'::regclass then (select polrelid from pg_policy where oid = c.objid)
                 when 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = c.objid)
                 when 'pg_statistic_ext'::regclass then (select stxrelid from pg_statistic_ext where oid = c.objid)
                 when 'pg_constraint'::regclass then (select conrelid from pg_constraint where oid = c.objid) end as relation) t
      left join pg_class r on r.oid = t.relation
      left join pg_namespace n on n.oid = r.relnamespace
      left join pg_namespace s on s.nspname = c.schema_name
      left join pg_namespace z on z.oid = c.objid and c.classid = 'pg_namespace'::regclass
      left join pg_type y on y.oid = case c.classid when 'pg_type'::regclass then c.objid
                                                    when 'pg_constraint'::regclass then (select contypid from pg_constraint where oid = c.objid) end
      left join pg_proc p on p.oid = c.objid and c.classid = 'pg_proc'::regclass
     where not c.in_extension and c.schema_name is distinct from 'pg_temp' and r.relpersistence is distinct from 't'
       and not pyreplica.ddl_is_own(c.object_identity)
       and not (r.oid is not null and pyreplica.ddl_is_own(format('%I.%I', n.nspname, r.relname)))
$ddl_made$;

-- What a DROP has dropped, as far as it may travel: what it named, not what went with it.
create or replace function pyreplica.ddl_dropped(tag text) returns jsonb language sql stable set search_path = pg_catalog, pg_temp
    set quote_all_identifiers = off
as $ddl_dropped$
    select jsonb_agg(jsonb_build_object(
               'kind', d.object_type, 'identity', d.object_identity, 'definer', false,
               'absent', exists (select from public.py_log_ddl_absent a where a.catalog = d.classid and a.object = d.objid)
                         and not pyreplica.ddl_is_agreed(d.objid, d.object_identity),
               'logged', exists (select from public.replica_table k where k.relation::oid = d.objid),
               'schema', coalesce(d.schema_name, case when d.object_type in ('trigger', 'policy', 'rule') then d.address_names[1] else d.object_name end),
               'cascades', (select bool_or(not x.original and x.normal and x.object_type <> 'default value') from pg_event_trigger_dropped_objects() x))
               order by d.ordinality)
      from pg_event_trigger_dropped_objects() with ordinality d
     where tag like 'DROP %' and d.original and d.objsubid = 0 and not d.is_temporary and not pyreplica.ddl_is_own(d.object_identity)
       and not pyreplica.ddl_is_own(array_to_string(d.address_names, '.'))
       and not (d.object_type in ('trigger', 'policy', 'rule')
                and pyreplica.ddl_is_own(format('%I.%I', d.address_names[1], d.address_names[2])))
$ddl_dropped$;

-- What has to be done here after a statement that travels.
create or replace function pyreplica.ddl_after(tag text, objects jsonb, skeleton text, statement text, path name[], origin text, hands_on boolean)
    returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_after$
declare
    main constant jsonb := objects -> -1;
    relation oid;
begin
    if tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA') then
        for relation in select (o ->> 'oid')::oid from jsonb_array_elements(objects) o
                         where o ->> 'kind' = 'table' and o ->> 'tag' in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') loop
            perform pyreplica.ddl_is_new(relation, origin, hands_on);
        end loop;
        if tag in ('CREATE TABLE AS', 'SELECT INTO') then
            raise notice 'the slaves get the rows of % when it has a primary key or another replica identity', main ->> 'identity';
        end if;
    elsif tag = 'ALTER TABLE' and (main ->> 'catalog')::oid = 'pg_class'::regclass then
        perform pyreplica.ddl_altered((main ->> 'oid')::oid, skeleton, statement, path, origin, hands_on);
    elsif tag = 'ALTER SCHEMA' then
        perform pyreplica.register(c.oid::regclass) from pg_class c
          where c.relnamespace = (main ->> 'oid')::oid and c.relkind in ('r', 'p') and not c.relispartition and pyreplica.ddl_is_logged(c.oid);
    end if;
end
$ddl_after$;

-- Fires at the end of each command, and for what it drops. An error here must not break the change of the application, unless
-- somebody has set that.
create or replace function pyreplica.ddl_end() returns event_trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp set standard_conforming_strings = on
as $ddl_end$
declare
    context text;
begin
    get diagnostics context = pg_context;
    -- Outside of the block: an error in there would leave the note behind.
    if tg_event = 'ddl_command_end' and tg_tag in ('CREATE EXTENSION', 'ALTER EXTENSION') then
        perform pyreplica.ddl_script_ends();
    end if;
    begin
        perform pyreplica.ddl_handle(tg_event, tg_tag, coalesce(substring(context from E'\n(.*)$'), ''),
                                     current_setting('pyreplica.ddl_who', true)::json);
    exception when others then
        if pyreplica.ddl_raises() then
            raise;
        end if;
        -- The rollback has taken back what the search of the string had noted.
        perform set_config('pyreplica.ddl_place', format('%s/%s 0 ', extract(epoch from statement_timestamp()), octet_length(current_query())), false);
        perform pyreplica.ddl_failed(tg_tag, sqlstate, sqlerrm);
        perform pyreplica.ddl_note(tg_event, tg_tag, (current_setting('pyreplica.ddl_who', true)::json ->> 0)::oid);
    end;
end
$ddl_end$;

create or replace function pyreplica.ddl_raises() returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_raises$
    select exists (select from public.py_log_ddl_setting where name = 'on_error' and value = 'raise')
$ddl_raises$;

create or replace function pyreplica.ddl_failed(tag text, state text, message text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp
as $ddl_failed$
begin
    perform pyreplica.ddl_tell(format('%s does not travel to the slaves: %s (%s)', tag, message, state),
                               'Run it on the slave, or write it into the log: INSERT INTO replica_log(sql) VALUES (...).',
                               pyreplica.ddl_origin(), true);
exception when others then
    raise warning 'pyreplica: % does not travel to the slaves, and the log has no remark: % (%)', tag, message, state;
end
$ddl_failed$;

-- Everything belongs to the owner of the log, and nobody else may use it. PostgreSQL asks for no right to the functions of event
-- triggers.
do $owner$
declare
    keeper constant regrole := (select relowner from pg_class where oid = 'public.replica_log'::regclass);
    own record;
begin
    for own in select kind, name from pyreplica.own() where name ~ '[._]ddl' and field is null and kind in ('table', 'function') loop
        execute format('revoke all on %s %s from public', own.kind, own.name);
        execute format('alter %s %s owner to %s', own.kind, own.name, keeper);
    end loop;
end
$owner$;

-- They fire for replayed changes too: a table that a daemon creates needs its triggers, if this database is a master.
create event trigger "!pyreplica_ddl_0_script" on ddl_command_start when tag in ('CREATE EXTENSION', 'ALTER EXTENSION')
    execute function pyreplica.ddl_script();
create event trigger "!pyreplica_ddl_0_drop" on ddl_command_start when tag in ('DROP TABLE', 'DROP MATERIALIZED VIEW', 'DROP INDEX', 'DROP OWNED')
    execute function pyreplica.ddl_drop();
create event trigger "!pyreplica_ddl_1_who" on ddl_command_end execute function pyreplica.ddl_who();
create event trigger "!pyreplica_ddl_1_who_drops" on sql_drop execute function pyreplica.ddl_who();
create event trigger "!pyreplica_ddl_2_drop" on sql_drop execute function pyreplica.ddl_end();
create event trigger "!pyreplica_ddl_3_end" on ddl_command_end execute function pyreplica.ddl_end();
alter event trigger "!pyreplica_ddl_0_script" enable always;
alter event trigger "!pyreplica_ddl_0_drop" enable always;
alter event trigger "!pyreplica_ddl_1_who" enable always;
alter event trigger "!pyreplica_ddl_1_who_drops" enable always;
alter event trigger "!pyreplica_ddl_2_drop" enable always;
alter event trigger "!pyreplica_ddl_3_end" enable always;

commit;
