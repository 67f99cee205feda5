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
