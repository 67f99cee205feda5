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
