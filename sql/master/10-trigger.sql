-- == The trigger on a table ==

-- Installs the function that creates the triggers on one table, and one that warns of triggers which spoil the order.

-- Earlier versions had these.
drop function if exists public.py_log_create_tg(regclass, text), public.py_log_create_tgs(text, text),
    public.py_log_warn_before(regclass);

-- Creates the triggers on one table, or on the partitioned table that it is a partition of, and returns one line that
-- says so. level: row or statement. NULL keeps the level that the table has, or is row.
-- A session that makes triggers on thousands of tables plans its queries while pg_trigger is small, where it would not use an index.
create or replace function public.py_log_create_tg(relation regclass, shown text, level text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set enable_seqscan = off
as $py_log_create_tg$
declare
    -- A partition is replicated through its root, so partitions that are created later need no call.
    root constant regclass := coalesce(pg_partition_root(relation), relation);
    target regclass := case when public.py_log_key(root) is null and (select relreplident <> 'f' from pg_class where oid = root)
                            then relation else root end;
    keys constant text[] := public.py_log_key(target);
    -- Without a key the whole row identifies it, if somebody has said so.
    full_row constant boolean := keys is null and (select relreplident = 'f' from pg_class where oid = target);
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
                             to_regclass('public.replica_copy'), to_regclass('public.replica_copy_schema'),
                             to_regclass('public.replica_history'),
                             to_regclass('public.replica_purged'), 'public.replica_table'::regclass,
                             to_regclass('public.py_log_ddl'), to_regclass('public.py_log_ddl_setting'),
                             to_regclass('public.py_log_ddl_table'), to_regclass('public.py_log_ddl_absent'),
                             to_regclass('public.py_log_ddl_script'))
             then 'is pyreplica''s own'
        when keys is null and not full_row then 'has no pk constraint'
        when target <> root and exists (
            select from pg_partition_ancestors(target) a join pg_trigger t on t.tgrelid = a.relid
             where a.relid <> target and t.tgparentid = 0 and t.tgqual is null and t.tgtype & 1 = 1
               and t.tgfoid = 'public.py_log_replica()'::regprocedure)
            then format('is replicated through %s, by a trigger made by hand', root)
        when not has_table_privilege(target, 'TRIGGER') then 'belongs to somebody else'
    end;
    -- Not by its name, which fails for a role that may not use the schema.
    copied constant oid := (select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                             where n.nspname = 'pyreplica' and p.proname = 'by_partition');
    -- A table that has its own trigger may become a partition only if the copy of the root's has another name. A root may
    -- become a partition, too, so each root's has a name of its own.
    by_partition constant boolean := (select relkind = 'p' from pg_class where oid = target);
    trigger constant name := case when by_partition then coalesce(
        (select tgname from pg_trigger
          where tgrelid = target and tgfoid = copied and tgparentid = 0 limit 1),
        ('!replica_tg_' || left(md5(gen_random_uuid()::text), 8))::name) else '!replica_tg' end;
    always constant boolean := exists (
        select from pg_trigger where tgrelid = target and tgname in ('!replica_tg', trigger) and tgenabled = 'A');
    -- The transition tables of a partition or a parent hold other rows than those that changed in the table itself.
    family constant boolean := by_partition or exists (select from pg_inherits where inhrelid = target or inhparent = target);
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
    if obstacle = 'has no pk constraint' then
        raise notice 'nothing identifies a row of table %', shown
            using hint = format('Without a primary key: ALTER TABLE %s REPLICA IDENTITY USING INDEX ...; for a unique index whose '
                                'columns are NOT NULL, or ALTER TABLE %1$s REPLICA IDENTITY FULL; if the whole row identifies it. '
                                'Then call py_log_create_tg again.', root);
    end if;
    if obstacle is not null then
        return format('table %s %s (couldn''t be replicated)!', shown, obstacle);
    end if;
    perform public.py_log_refuse_key(target, keys, null::text[]);
    select string_agg(quote_literal(a), ', ' order by n) into arguments
      from unnest((select relname::text from pg_class where oid = target) || keys) with ordinality u(a, n);

    -- First it drops the former triggers, those of the partitions too. One made by hand or by the Python original would log each change a second time; but one made by hand with a
    -- WHEN stays.
    for former in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_trigger t
         where (t.tgname in ('!replica_tg', '!replica_truncate_tg', '!replica_begin_tg', '!replica_insert_tg',
                             '!replica_update_tg', '!replica_delete_tg')
                or t.tgfoid = copied
                or t.tgqual is null and t.tgfoid = 'public.py_log_replica()'::regprocedure)
           and t.tgparentid = 0
           and t.tgrelid = any (array(select target::oid union select relid from pg_partition_tree(target)))
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
    -- Triggers fire in the order of their names. "!" sorts first, so a row is logged before another trigger writes
    -- further rows.
    execute format('create trigger %I after insert or update or delete on %s for each row %s execute function %s(%s)',
                   trigger, target, condition,
                   case when by_partition then 'pyreplica.by_partition' else 'public.py_log_replica' end, arguments);
    -- In a cascade or a ring the trigger also fires for replayed changes. The new trigger goes on with that.
    if always then
        execute format('alter table %s enable always trigger %I', target, trigger);
    end if;
    perform pyreplica.register(target);
    perform public.py_log_warn_before(target, shown);
    return format('created trigger on %s (%s)', shown, coalesce(array_to_string(keys, ','), 'replica identity full')) || case
        when exists (select from pg_class where relpersistence = 'u' and (oid = target or relkind = 'r')
                        and oid = any (array(select target::oid union select relid from pg_partition_tree(target))))
        then '; it is unlogged: a crash of this server empties it, which nothing logs' else '' end;
end
$py_log_create_tg$;

-- Warns of row triggers that seem to change further rows of the statement that has fired them: those changes are logged in the wrong
-- order, by row and by statement alike. That is a BEFORE trigger that writes to any table, or an AFTER trigger that writes to its own.
-- Nobody can know that from the catalog, so it searches the text of the function.
create or replace function public.py_log_warn_before(relation regclass, shown text) returns void language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_warn_before$
declare
    -- Its name as the text of a function may write it, as a pattern.
    own constant text := (select '("?' || regexp_replace(nspname, '\W', '.', 'g') || '"?\s*[.]\s*)?"?' || regexp_replace(relname, '\W', '.', 'g') || '("|\M)'
                            from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation);
    writes constant text := '\m(insert\s+into|update|delete\s+from|merge\s+into)\M\s+(only\s+)?';
    suspect record;
begin
    for suspect in
        select t.tgname, t.tgtype & 2 = 2 as is_before from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = relation and not t.tgisinternal and t.tgtype & 1 = 1 and t.tgenabled <> 'D'
           and p.prosrc ~* (writes || case when t.tgtype & 2 = 2 then '["[:alpha:]_]' else own end) order by 1
    loop
        raise warning 'trigger % on % runs % each row and seems to write to %', suspect.tgname, shown,
                      case when suspect.is_before then 'before' else 'after' end, case when suspect.is_before then 'tables' else 'this table' end
            using detail = 'If it changes a row that the same statement changes too, the older values may be logged last.',
                  hint = 'Make it an AFTER trigger FOR EACH STATEMENT, or let it change no row that its statement changes. pyreplica compare '
                         'finds the rows that differ.';
    end loop;
end
$py_log_warn_before$;
