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
