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
