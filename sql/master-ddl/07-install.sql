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
