-- == The trigger on a table ==

-- Installs the function that creates the triggers on one table.

drop function if exists public.py_log_create_tg(regclass, text), public.py_log_create_tgs(text, text),
    public.py_log_warn_before(regclass);

-- Puts the trigger on one table, or on the partitioned table it is a part of, and says what it did in one line. level:
-- row or statement; NULL leaves a table that has the trigger already as it is.
create or replace function public.py_log_create_tg(relation regclass, shown text, level text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_create_tg$
declare
    -- A partition is replicated through its root, so that partitions made later need nothing.
    root constant regclass := coalesce(pg_partition_root(relation), relation);
    target regclass := case when public.py_log_key(root) is null then relation else root end;
    keys constant text[] := public.py_log_key(target);
    arguments text;
    obstacle constant text := case
        when exists (select from pg_depend where classid = 'pg_class'::regclass and objid = relation and deptype = 'e')
            then 'belongs to an extension'
        when (select relpersistence from pg_class where oid = relation) = 't' then 'is temporary'
        when relation in ('public.replica_log'::regclass, 'public.replica_slave'::regclass, 'public.replica_error'::regclass,
                          'public.py_log_filter'::regclass, 'public.py_log_transform'::regclass)
             or relation in (to_regclass('public.replica_progress'), to_regclass('public.replica_log_former'),
                             to_regclass('public.replica_hold'), to_regclass('public.replica_held'),
                             to_regclass('public.replica_conflict'), to_regclass('public.replica_skipped'),
                             to_regclass('public.replica_copy'))
             then 'is pyreplica''s own'
        when keys is null then 'has no pk constraint'
        when not has_table_privilege(target, 'TRIGGER') then 'belongs to somebody else'
    end;
    always constant boolean := exists (
        select from pg_trigger where tgrelid = target and tgname = '!replica_tg' and tgenabled = 'A');
    -- Of a partition or a parent a statement shows other rows than are changed in the table itself.
    family constant boolean := (select relkind = 'p' from pg_class where oid = target)
                               or exists (select from pg_inherits where target in (inhrelid, inhparent));
    setting constant text := format('pyreplica.running_%s', replace(gen_random_uuid()::text, '-', ''));
    condition text := '';
    event text;
    rows text;
    former text;
    part regclass;
begin
    if level is null then
        level := case when exists (select from pg_trigger where tgrelid = target and tgname = '!replica_begin_tg')
                      then 'statement' else 'row' end;
    elsif level not in ('row', 'statement') then
        raise exception 'there is no level %', level
            using errcode = 'invalid_parameter_value', hint = 'Changes are logged by row or by statement.';
    end if;
    if obstacle is not null then
        return format('table %s %s (couldn''t be replicated)!', shown, obstacle);
    end if;
    perform public.py_log_refuse_key(target, keys, null::text[]);
    select string_agg(quote_literal(a), ', ' order by n) into arguments
      from unnest((select relname::text from pg_class where oid = target) || keys) with ordinality u(a, n);

    -- Former triggers of ours go first: the one on a partition would collide with the copy that its root hands down, and
    -- one made by hand or by the Python original would log each change a second time. One with a WHEN is left alone.
    for former in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_trigger t
         where (t.tgname in ('!replica_tg', '!replica_truncate_tg', '!replica_begin_tg', '!replica_insert_tg',
                             '!replica_update_tg', '!replica_delete_tg')
                or t.tgqual is null and t.tgfoid = 'public.py_log_replica()'::regprocedure)
           and t.tgparentid = 0
           and (t.tgrelid = target or t.tgrelid in (select relid from pg_partition_tree(target)))
    loop
        execute former;
    end loop;
    for part in select target union select relid from pg_partition_tree(target) loop
        execute format('create trigger "!replica_truncate_tg" after truncate on %s '
                       'for each statement execute function public.py_log_replica(%s)', part, arguments);
        if always then
            execute format('alter table %s enable always trigger "!replica_truncate_tg"', part);
        end if;
    end loop;
    if level = 'statement' and family then
        raise warning 'changes of table % are logged by row', shown
            using detail = 'Inheritance and partitions are for row triggers only.';
    elsif level = 'statement' then
        condition := format('when (coalesce(pg_catalog.current_setting(%L, true), '''') operator(pg_catalog.=) '''')', setting);
        execute format('create trigger "!replica_begin_tg" before insert or update or delete on %s '
                       'for each statement execute function pyreplica.begin_statement(%L, %s)', target, setting, arguments);
        for event, rows in values ('insert', 'new table as new_rows'), ('delete', 'old table as old_rows'),
                                  ('update', 'old table as old_rows new table as new_rows')
        loop
            execute format('create trigger "!replica_%s_tg" after %1$s on %s referencing %s '
                           'for each statement execute function pyreplica.end_statement(%L, %s)',
                           event, target, rows, setting, arguments);
        end loop;
    end if;
    -- The name sorts before any other: a row is logged before triggers of its own write further rows.
    execute format('create trigger "!replica_tg" after insert or update or delete on %s '
                   'for each row %s execute function public.py_log_replica(%s)', target, condition, arguments);
    -- In a cascade or a ring the trigger also runs for replayed changes, and goes on doing so.
    if always then
        execute format('alter table %s enable always trigger "!replica_tg"', target);
    end if;
    perform public.py_log_warn_before(target, shown);
    return format('created trigger on %s (%s)', shown, array_to_string(keys, ','));
end
$py_log_create_tg$;

-- A BEFORE ROW trigger that writes to a row which the same statement changes is logged in the wrong order, whatever the
-- kind of trigger. Whether one does can't be known; one whose body writes to tables is worth a look.
create or replace function public.py_log_warn_before(relation regclass, shown text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp
as $py_log_warn_before$
declare
    suspect record;
begin
    for suspect in
        select t.tgname from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = relation and not t.tgisinternal and t.tgtype & 3 = 3 and t.tgenabled <> 'D'
           and p.prosrc ~* '\m(insert\s+into|update|delete\s+from|merge\s+into)\M\s+["[:alpha:]_]' order by 1
    loop
        raise warning 'trigger % on % runs before each row and seems to write to tables', suspect.tgname, shown
            using detail = 'If it changes a row that the same statement changes too, the older values may be logged last.',
                  hint = 'Make it an AFTER trigger, or make sure that it writes to other tables only.';
    end loop;
end
$py_log_warn_before$;
