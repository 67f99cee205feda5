-- == The functions of filters and transforms ==

-- Installs pyreplica.apply, which generates the functions that py_log_replica calls for filters and transforms, and the
-- triggers that call it when py_log_filter or py_log_transform change.
--
-- pyreplica.special says which tables have any, pyreplica.admit how the slave sees a change, and pyreplica.send what it
-- gets in the place of values. Because they are generated, a condition costs as much as an expression in PL/pgSQL, is
-- compiled once in a session, and takes effect with the commit of its row, without a lock on any table.

-- Returns PL/pgSQL that evaluates the expression of a filter or transform.
create or replace function pyreplica.evaluation(event text, expression text, language text) returns text
    language sql immutable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $evaluation$
    select case when language = 'sql' then format(e'(%s\n)', expression)
                else format('pyreplica.python(pg_typeof(%s)::text, %s, %s, %L)',
                            case event when 'DELETE' then 'old' else 'new' end,
                            -- A cast might be one that the owner of the table has made for its rows.
                            case event when 'INSERT' then 'null' else 'textin(record_out(old))' end,
                            case event when 'DELETE' then 'null' else 'textin(record_out(new))' end, expression) end
$evaluation$;

-- Returns PL/pgSQL that sets the variable "verdict" to what the conditions for an event say, SQL before Python. A
-- condition that fails counts as true. A cached plan expects a column to have the type that it had before, and fails
-- with 42804: then the code discards the plans, once for each session and changed type, and evaluates again.
create or replace function pyreplica.conditions(event text, verdict text) returns text language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
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
                if %L in (relname, relation) then
                    doing := %s;
                    perform pyreplica.check_types(relid);%s
                end if;$table$, f.relname, min(f.id), string_agg(format($condition$
                    doing := %s;
                    pass := pass and (%s)%s is true;$condition$, f.id, pyreplica.evaluation(f.event,
                        case f.language when 'sql' then f.condition else format(e'bool(%s\n)', f.condition) end, f.language),
                        case f.language when 'python' then '::boolean' end),
                    '' order by f.language desc, f.id)) as statements
              from public.py_log_filter f where f.event = $1 group by f.relname) x
     having count(*) > 0
$conditions$;

-- Returns PL/pgSQL that puts the values of all transforms into "row". If an expression fails, the slave gets NULL,
-- because the value itself must not leave the master.
create or replace function pyreplica.replacements() returns text language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $replacements$
    select coalesce(string_agg(case when t.expression is null then format($left_out$
        if %1$L in (relname, relation) then
            "row" := "row" operator(pyreplica.-) %2$L::text;
        end if;$left_out$, t.relname, t.field)
    else format($replaced$
        if %1$L in (relname, relation) then
            begin
                if not "row" operator(pyreplica.?) %2$L::text then
                    raise undefined_column using message = 'the column is gone';
                end if;
                perform pyreplica.check_types(relid);
                "row" := "row" operator(pyreplica.||) (%2$L::text operator(pyreplica.~>) %4$s::text);
            exception when others then
                if sqlstate = '42804' and round = 1 then
                    execute 'discard plans';
                    continue;
                end if;
                "row" := "row" operator(pyreplica.||)
                         (''::text operator(pyreplica.~>) pyreplica.complain('transform', %3$s, sqlstate, sqlerrm));
                if "row" operator(pyreplica.?) %2$L::text then
                    "row" := "row" operator(pyreplica.||) (%2$L::text operator(pyreplica.~>) null::text);
                end if;
            end;
        end if;$replaced$, t.relname, t.field, t.id, pyreplica.evaluation('INSERT', t.expression, t.language))
    end, '' order by t.id), '')
      from public.py_log_transform t
$replacements$;

-- Who changes filters locks this. Anybody could take an advisory lock, and keep it.
create or replace view pyreplica.turn as select 1 as one;

-- Generates pyreplica.special, pyreplica.admit and pyreplica.send.
create or replace function pyreplica.apply() returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $apply$
declare
    hstore constant text := (select format_type(atttypid, null) from pg_attribute
                              where attrelid = 'public.replica_log'::regclass and attname = 'old');
    -- The session of a verb may refuse to read views, but conditions may read some. Not all versions have the setting.
    views constant text := case when exists (select from pg_settings where name = 'restrict_nonsystem_relation_kind')
                                then ' set restrict_nonsystem_relation_kind = ''''' else '' end;
begin
    -- Of two transactions that change filters, the second waits here, and then sees the rows of both.
    lock table pyreplica.turn in exclusive mode;

    execute format('create or replace function pyreplica.special() returns text[] language sql stable as %L',
                   format('select %L::pg_catalog.text[]', array(
                       select relname from public.py_log_filter union select relname from public.py_log_transform)));

    -- The conditions for INSERT say whether a row belongs on the slave. They are evaluated on the new row, and on the
    -- old row as if it were new. The conditions for UPDATE and DELETE say whether the slave gets a change of a row that
    -- belongs.
    execute format($create$
        create or replace function pyreplica.admit(
            relname text, relation text, relid oid, event text, old record, new record) returns text language plpgsql
            set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on
            set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'%s as %L
    $create$, views, format($body$
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
            relname text, relation text, relid oid, "row" %1$s, new record) returns %1$s language plpgsql strict
            set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on
            set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'%3$s as %2$L
    $create$, hstore, format($body$
#variable_conflict use_column
declare
    whole constant public.replica_log.old%%type := "row";
begin
    for round in 1..2 loop
        "row" := whole;%s
        return "row";
    end loop;
end$body$, pyreplica.replacements()), views);
end
$apply$;

create or replace function pyreplica.changed() returns trigger language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
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
    -- Earlier versions had these.
    execute format('drop function if exists pyreplica.replacements(text), pyreplica.admit(text, text, text, record, record),
                    pyreplica.send(text, text, %s.hstore, record), pyreplica.send_exact(text, text, %1$s.hstore, record)',
                   current_setting('pyreplica.hstore'));
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
create or replace function pyreplica.send_exact(relname text, relation text, relid oid, "row" %s.hstore, new record)
    returns %1$s.hstore language plpgsql strict
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
    set quote_all_identifiers = off set standard_conforming_strings = on
as $send_exact$
begin
    return pyreplica.send(relname, relation, relid, "row", new);
end
$send_exact$;
    $create$, current_setting('pyreplica.hstore'));
end
$install$;
