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
