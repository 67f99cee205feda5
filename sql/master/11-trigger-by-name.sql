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
