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
@shape@
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
