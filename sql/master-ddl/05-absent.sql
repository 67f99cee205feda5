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
