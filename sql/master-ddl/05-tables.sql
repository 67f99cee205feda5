-- == Tables that a statement makes or changes ==

-- Installs the functions that create the triggers of new tables, and log rows that no trigger has logged.

-- Whether a table has a trigger that logs its rows, of its own or of the root that it is a part of.
create or replace function pyreplica.ddl_is_logged(relation oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_is_logged$
    select exists (select from pg_trigger t
                    where t.tgrelid = relation and t.tgtype & 1 = 1 and t.tgenabled <> 'D'
                      and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure))
$ddl_is_logged$;

-- Whether the log may hold all rows of a table as they are: a filter or a transform would have to see each of them.
create or replace function pyreplica.ddl_has_special(relation oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_has_special$
    select pyreplica.logged_name(relation) = any (pyreplica.special())
        or (select relname::text from pg_class where oid = relation) = any (pyreplica.special())
        or exists (select from pg_trigger t
                    where t.tgrelid = relation and t.tgtype & 1 = 1
                      and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
                      and split_part(encode(t.tgargs, 'escape'), '\000', 1) = any (pyreplica.special()))
$ddl_has_special$;

-- Whether something identifies the rows of a table, so that it can have a trigger: a key, or the whole row if somebody has said so.
create or replace function pyreplica.ddl_identifies(relation oid) returns boolean language sql stable set search_path = pg_catalog, pg_temp
as $ddl_identifies$
    select public.py_log_key(relation) is not null or (select relreplident = 'f' from pg_class where oid = relation)
$ddl_identifies$;

-- Logs the rows of a table as inserted, or, if columns are given, as updated there: a table without a key has its rows replaced. A
-- partitioned table has them in its partitions. Of an inherited table these are its own rows only.
create or replace function pyreplica.ddl_log_rows(source oid, target oid, columns text[], origin text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set row_security = off
as $ddl_log_rows$
declare
    name constant text := pyreplica.logged_name(target);
    keys constant text[] := public.py_log_key(target);
    rows constant text := case when (select relkind from pg_class where oid = source) = 'p' then '' else 'only ' end
                          || source::regclass::text;
    others constant text[] := array(select attname from pg_attribute where attrelid = target and attnum > 0 and not attisdropped
                                       and attgenerated = '' and attname <> all (columns));
    owner constant oid := (select n.nspowner from pg_class c join pg_namespace n on n.oid = c.relnamespace
                            where c.oid = source and c.relkind in ('r', 'p'));
    has_rows boolean := (select sum(pg_relation_size(relid)) > 0 from (select source as relid union select relid from pg_partition_tree(source)) x);
begin
    if not has_rows then
        return;
    elsif not pyreplica.is_trusted(owner) then
        -- The owner of the schema could put a view in the place of the table, whose functions would run with the rights of this one.
        perform pyreplica.ddl_tell(format('the rows of table %s that this statement has made or changed are not in the log, because its schema belongs '
                                          'to %s', name, owner::regrole), 'pyreplica copy --table, or repair, brings them.', origin, true);
        return;
    end if;
    execute format('select exists (select from %s)', rows) into has_rows;
    if not has_rows then
        return;
    elsif pyreplica.ddl_has_special(target) then
        perform pyreplica.ddl_tell(format('the rows of table %s that this statement has made or changed are not in the log, because it has a '
                                          'filter or a transform', name),
                                   'pyreplica copy --table, or repair, brings them.', origin, true);
        return;
    end if;
    if columns is null then
        execute format('insert into public.replica_log (relation, event, new, origin) select %L, ''I'', pyreplica.exact(x.*), %L from %s x',
                       name, nullif(origin, ''), rows);
    elsif columns && keys then
        perform pyreplica.ddl_tell(format('the keys of table %s have got other values on the slave than here', name),
                                   'pyreplica repair makes them equal.', origin, true);
    elsif keys is null and others = '{}' then
        perform pyreplica.ddl_tell(format('the rows of table %s have got other values on the slave than here, and nothing identifies them', name),
                                   'pyreplica repair makes them equal.', origin, true);
    elsif keys is null
       or exists (select from pg_attribute where attrelid = target and attname = any (columns) and attidentity = 'a') then
        -- PostgreSQL refuses to update an identity column. Without a key, the values that both sides have alike find the rows. Rows
        -- that are equal there are all deleted before the first comes back, so it does not matter which is which.
        execute format('insert into public.replica_log (relation, event, old, origin) select %L, ''D'', %s, %L from %s x',
                       name, case when keys is null then format('pyreplica.exact(x.*) operator(pyreplica.&) %L::text[]', others)
                             else 'pyreplica.exact(x.*)' end, nullif(origin, ''), rows);
        execute format('insert into public.replica_log (relation, event, new, origin) select %L, ''I'', pyreplica.exact(x.*), %L from %s x',
                       name, nullif(origin, ''), rows);
    else
        execute format('insert into public.replica_log (relation, event, old, new, origin)
                        select %L, ''U'', x.r operator(pyreplica.&) %L::text[], x.r operator(pyreplica.&) %L::text[], %L
                          from (select pyreplica.exact(x.*) as r from %s x) x', name, keys, keys || columns, nullif(origin, ''), rows);
    end if;
end
$ddl_log_rows$;

-- Creates the trigger of a table that is new, or has got its key now, and logs the rows that it has by then.
create or replace function pyreplica.ddl_capture(relation oid, origin text, hands_on boolean) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_capture$
declare
    entry public.py_log_ddl_table := (select t from public.py_log_ddl_table t where t.relation = ddl_capture.relation);
    shown constant text := relation::regclass;
    said text;
    trigger name;
begin
    if entry is null or not pyreplica.ddl_identifies(relation) then
        return;
    end if;
    said := public.py_log_create_tg(relation::regclass, shown, null);
    if said !~ '^created' then
        perform pyreplica.ddl_tell(said, format('If the slave is to have its rows: SELECT py_log_create_tg(%L, %L), as a role that may, and '
                                                'then pyreplica copy --table.', (select relnamespace::regnamespace from pg_class where oid = relation),
                                                (select relname from pg_class where oid = relation)), origin, true);
        return;
    end if;
    if hands_on then
        for trigger in select tgname from pg_trigger where tgrelid = relation and not tgisinternal and tgname like '!replica\_%' loop
            execute format('alter table %s enable always trigger %I', shown, trigger);
        end loop;
    end if;
    if entry.is_ours then
        perform pyreplica.ddl_log_rows(relation, relation, null, origin);
    end if;
    delete from public.py_log_ddl_table t where t.relation = ddl_capture.relation;
end
$ddl_capture$;

-- A table is new. A partition has the trigger of its root, except the one for TRUNCATE, which PostgreSQL does not copy.
create or replace function pyreplica.ddl_is_new(relation oid, origin text, hands_on boolean) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_is_new$
declare
    root constant oid := (select pg_partition_root(oid) from pg_class where oid = relation and relispartition);
    arguments text;
begin
    if root is null then
        insert into public.py_log_ddl_table values (relation, coalesce(origin, '') = '') on conflict do nothing;
        perform pyreplica.ddl_capture(relation, origin, hands_on);
    elsif pyreplica.ddl_is_logged(root) and has_table_privilege(relation, 'TRIGGER') then
        select string_agg(quote_literal(convert_from(decode(m[1], 'hex'), getdatabaseencoding())), ', ' order by n) into arguments
          from pg_trigger t
         cross join regexp_matches(encode(t.tgargs, 'hex'), '((?:[1-9a-f].|0[1-9a-f])*)00', 'g') with ordinality x (m, n)
         where t.tgrelid = root and t.tgname = '!replica_truncate_tg';
        if arguments is not null and not exists (select from pg_trigger where tgrelid = relation and tgname = '!replica_truncate_tg') then
            execute format('create trigger "!replica_truncate_tg" after truncate on %s for each statement '
                           'execute function public.py_log_replica(%s)', relation::regclass, arguments);
        end if;
    end if;
end
$ddl_is_new$;

-- After ALTER TABLE: a key or a new name may have come, and a partition may have gone or come. Existing rows may have got values
-- that the slave would not get: the log has them as updates.
create or replace function pyreplica.ddl_altered(relation oid, skeleton text, statement text, path name[], origin text, hands_on boolean)
    returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_altered$
declare
    part constant oid := pyreplica.ddl_relation(substring(skeleton from
        '(?i)\m(?:attach|detach)\s+partition\s+((?:"(?:[^"]|"")*"|[^\s."]+)(?:\s*\.\s*(?:"(?:[^"]|"")*"|[^\s."]+))?)'), path);
    root constant oid := coalesce(pg_partition_root(relation)::oid, relation);
    constant_default constant text := '^(NULL(::.*)?|\(?-?[0-9.]+\)?(::[a-z" .]+)?|true|false|''([^'']|'''')*''(::[a-z_"0-9 .()]+(\[\])*)?)$';
    columns text[];
    child oid;
begin
    perform pyreplica.ddl_capture(relation, origin, hands_on);
    if pyreplica.ddl_is_logged(relation) and relation = root then
        perform pyreplica.register(relation::regclass);
    end if;
    if part is not null and skeleton ~* '\mdetach\s+partition\M' and not pyreplica.ddl_is_logged(part) and pyreplica.ddl_is_logged(root) then
        -- The trigger of the root has gone from it. Both sides have its rows.
        insert into public.py_log_ddl_table values (part, false) on conflict do nothing;
        perform pyreplica.ddl_capture(part, origin, hands_on);
        if not pyreplica.ddl_identifies(part) then
            perform pyreplica.ddl_tell(format('changes of table %s are not in the log from here on: as a partition of %s it needed nothing '
                                              'of its own that identifies its rows', part::regclass, root::regclass),
                                       'Give it a key or a REPLICA IDENTITY, and run pyreplica copy --table.', origin, true);
        end if;
    elsif part is not null and skeleton ~* '\mattach\s+partition\M' and pyreplica.ddl_is_logged(root) then
        if exists (select from public.py_log_ddl_table t where t.relation = part and t.is_ours) and coalesce(origin, '') = '' then
            -- It had no key, so its rows were not logged.
            perform pyreplica.ddl_log_rows(part, root, null, origin);
        end if;
        if coalesce(origin, '') = '' and not exists (select from public.py_log_ddl_table t where t.relation = part)
           and not exists (select from pg_trigger t where t.tgrelid = part and t.tgparentid = 0 and t.tgfoid = 'public.py_log_replica()'::regprocedure
                                                      and t.tgtype & 1 = 1) then
            perform pyreplica.ddl_tell(format('the rows that partition %s had before are not in the log', part::regclass),
                                       'pyreplica repair brings them, if the slave lacks them.', origin, true);
        end if;
        delete from public.py_log_ddl_table t where t.relation = part;
        perform pyreplica.ddl_is_new(part, origin, hands_on);
    end if;
    if origin <> '' and not hands_on then
        return;
    end if;
    -- PostgreSQL calculates a default once for all rows (now()) or for each. Only a constant is the same on both sides. USING may
    -- calculate anything, except when it only casts the column.
    for child in with recursive family (member) as (
                     select relation union select i.inhrelid from family f join pg_inherits i on i.inhparent = f.member)
                 select member from family loop
        continue when not pyreplica.ddl_is_logged(child) or not pyreplica.ddl_identifies(child)
                      or child <> relation and (select relispartition from pg_class where oid = child);
        columns := array(
            select a.attname from pg_attribute a
              left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
              join pg_type t on t.oid = a.atttypid
             where a.attrelid = child and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
               and (a.attidentity <> '' or coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) !~ constant_default
                    or statement ~* '''\s*(now|today|tomorrow|yesterday)\M')
               and a.attname in (select pyreplica.ddl_name(m[1])
                                   from regexp_matches(skeleton, '(?i)(?:^|,|\s)add\s+(?:column\s+)?(?:if\s+not\s+exists\s+)?("(?:[^"]|"")*"|[^\s",;]+)', 'g') m)
            union
            select a.attname from pg_attribute a
             where a.attrelid = child and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
               and a.attname in (select pyreplica.ddl_name(m[1])
                                   from regexp_matches(skeleton, '(?i)\malter\s+(?:column\s+)?("(?:[^"]|"")*"|[^\s",;]+)\s+(?:set\s+data\s+)?type\M[^,]*\musing\M', 'g') m)
               and not coalesce(statement ~* format('\musing\s+\(?\s*%s\s*\)?\s*::\s*[a-z_0-9]+\s*(,|$)', '"?' || regexp_replace(a.attname, '\W', '.', 'g') || '"?'), false));
        if cardinality(columns) > 0 then
            perform pyreplica.ddl_log_rows(child, child, columns, origin);
        end if;
    end loop;
end
$ddl_altered$;

-- An identifier as it is written, without quotes.
create or replace function pyreplica.ddl_name(written text) returns name language sql immutable set search_path = pg_catalog, pg_temp
as $ddl_name$
    select case when written like '"%' then replace(substr(written, 2, length(written) - 2), '""', '"') else lower(written) end::name
$ddl_name$;

-- The table that a name in a statement means.
create or replace function pyreplica.ddl_relation(written text, path name[]) returns oid language sql stable
    set search_path = pg_catalog, pg_temp
as $ddl_relation$
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
     cross join (select array_agg(pyreplica.ddl_name(m[1]) order by i) as names
                   from regexp_matches(written, '("(?:[^"]|"")*"|[^\s."]+)', 'g') with ordinality x (m, i)) w
     where c.relname = w.names[cardinality(w.names)]
       and n.nspname = any (case when cardinality(w.names) = 1 then path else w.names[1:1] end)
     order by array_position(path, n.nspname) limit 1
$ddl_relation$;

-- A schema that is renamed locks no table. So until the transaction ends, nobody may log rows under the former names.
create or replace function pyreplica.ddl_keep_writers_off(tag text, schema oid) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $ddl_keep_writers_off$
declare
    tables text;
begin
    if tag = 'ALTER SCHEMA' then
        select string_agg(oid::regclass::text, ', ' order by oid) into tables from pg_class
         where relnamespace = schema and relkind in ('r', 'p') and not relispartition and pyreplica.ddl_is_logged(oid);
        if tables is not null then
            execute format('lock table %s in share row exclusive mode', tables);
        end if;
    end if;
end
$ddl_keep_writers_off$;
