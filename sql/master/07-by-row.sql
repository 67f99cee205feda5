-- == Capture by row ==

-- Installs py_log_replica, the trigger function that writes each changed row into the log. It also logs TRUNCATE.
--
-- pyreplica.by_partition is the same for the row trigger of a partitioned table. PostgreSQL copies this trigger to each
-- new partition, and asks whether the role that makes the partition may execute the function: so everybody may. But nobody
-- else can make a trigger with it, because that takes its name, and its schema is closed.

-- Says whether the trigger of a partition is to log nothing, because a table further up has a trigger that logs the same
-- change. The partition had its own trigger when it was attached, or is a partition of a table that had one.
create or replace function pyreplica.is_shadowed(relation oid, trigger name) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_shadowed$
    with recursive copies (id, original, relid) as (
        select t.oid, t.tgparentid, t.tgrelid from pg_trigger t where t.tgrelid = relation and t.tgname = trigger
        union all
        select t.oid, t.tgparentid, t.tgrelid from copies c join pg_trigger t on t.oid = c.original
    )
    select exists (
        select from copies c
         cross join pg_partition_ancestors(c.relid) a
          join pg_trigger t on t.tgrelid = a.relid and t.tgparentid = 0 and t.tgenabled <> 'D'
                           and t.tgfoid = 'pyreplica.by_partition()'::regprocedure
         where c.original = 0 and a.relid <> c.relid)
$is_shadowed$;

-- Says whether another row trigger of the table logs the same event already. A trigger made by hand has a name of its own,
-- so a table may have it and one of py_log_create_tg, or a copy of its parent's. The first one by name logs.
create or replace function pyreplica.is_second(relation oid, trigger name, event text) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_second$
    select exists (
        select from pg_trigger t
         where t.tgrelid = relation and t.tgqual is null and t.tgtype & 1 = 1
           and t.tgtype & case event when 'INSERT' then 4 when 'DELETE' then 8 else 16 end <> 0
           and t.tgenabled in ('A', case when current_setting('session_replication_role') <> 'replica' then 'O' else 'R' end)
           and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
           and (t.tgname < trigger
                or t.tgname <> trigger and (select o.tgqual is not null from pg_trigger o
                                             where o.tgrelid = relation and o.tgname = trigger)))
$is_second$;

do $install$
declare
    name text;
    has_virtual constant boolean := current_setting('server_version_num')::int >= 180000;
begin
    foreach name in array array['public.py_log_replica', 'pyreplica.by_partition'] loop
    execute replace(replace(replace(replace($create$
create or replace function @name@() returns trigger language plpgsql security definer
as $py_log_replica$
declare
    -- Types are qualified too: PostgreSQL searches pg_temp for them first, and a domain there may have a check that runs
    -- any function.
    relation pg_catalog.text;
    origin pg_catalog.text;
    letter pg_catalog."char";
    verdict pg_catalog.text;
    transformed boolean;
    whole boolean;
    inexact boolean;
    remark pg_catalog.text;
    before public.replica_log.old%type;
    after public.replica_log.new%type;
    small pg_catalog.record;
begin
    -- Each expression costs the application time, mostly when a transaction evaluates it for the first time. So the usual
    -- path has few expressions, and one of them asks for all rare cases. In a rare case the rows are converted again.
    if tg_op operator(pg_catalog.=) 'INSERT' then
        after := operator(pyreplica.%%) new;
    elsif tg_op operator(pg_catalog.=) 'UPDATE' then
        -- This compares the stored bytes: 1.0 and 1.00 differ, and a type needs no equality operator.
        if old operator(pg_catalog.*=) new then
            return null;
        end if;
        before := operator(pyreplica.%%) old;
        after := operator(pyreplica.%%) new;
        if pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000 then
            small := pyreplica.shortened(before, after, pyreplica.logged_key(tg_relid, tg_argv[1:], false), false);
            before := small.before;
            after := small.after;
        end if;
    elsif tg_op operator(pg_catalog.=) 'DELETE' then
        before := operator(pyreplica.%%) old;
    end if;
    -- special() is an inlined constant. While the database has no filter, the comparison with it costs nothing.
    if pg_catalog.pg_partition_root(tg_relid) is null
       and pg_catalog.starts_with(tg_name::pg_catalog.text, '!replica_')
       and (pyreplica.special() operator(pg_catalog.=) '{}'
            or not tg_argv[0] operator(pg_catalog.=) any (pyreplica.special())
               and not (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.' operator(pg_catalog.||)
                        pg_catalog.quote_ident(tg_table_name)) operator(pg_catalog.=) any (pyreplica.special()))
       and coalesce(pg_catalog.current_setting('pyreplica.origin', true), '') operator(pg_catalog.=) ''
       and @exact@ then
        insert into public.replica_log (relation, event, old, new)
        values (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
                operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name),
                pg_catalog.left(tg_op, 1)::pg_catalog."char", before, after);
        if pyreplica.asleep() then
            perform pg_catalog.pg_notify('replicas', '');
        end if;
        return null;
    end if;

    -- Anybody can set this. A change with an origin is not sent back there, so only a session that may mark the log is
    -- believed, whatever function it calls.
    origin := pg_catalog.current_setting('pyreplica.origin', true);
    if origin operator(pg_catalog.<>) ''
       and not pg_catalog.has_column_privilege(session_user, 'public.replica_log', 'txid', 'update') then
        origin := null;
    end if;
    letter := pg_catalog.left(tg_op, 1);
    before := null;
    after := null;
    if tg_level operator(pg_catalog.=) 'ROW' and not pg_catalog.starts_with(tg_name::pg_catalog.text, '!replica_')
       and pyreplica.is_second(tg_relid, tg_name, tg_op) then
        return null;
    end if;
    -- PostgreSQL has copied the trigger of a partitioned table to its partitions, with its arguments. The change is
    -- logged for the partitioned table, because each side may divide it in its own way. A renamed table is logged under
    -- its new name.
    if pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off' then
        relation := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
                    operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    else
        relation := pyreplica.logged_name(tg_relid);
    end if;
    if tg_level operator(pg_catalog.=) 'ROW' and pg_catalog.pg_partition_root(tg_relid) is not null then
        -- The usual case is found by one look: this trigger is a copy of one of the root.
        if not exists (
               select from pg_catalog.pg_trigger t
                where t.tgrelid operator(pg_catalog.=) pg_catalog.pg_partition_root(tg_relid)::pg_catalog.oid
                  and t.tgname operator(pg_catalog.=) tg_name)
           and pyreplica.is_shadowed(tg_relid, tg_name) then
            return null;
        end if;
        if @copied@ or tg_argv[0] operator(pg_catalog.<>) tg_table_name then
            if pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off' then
                relation := coalesce((pg_catalog.pg_identify_object(
                    'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.pg_partition_root(tg_relid), 0)).identity, relation);
            else
                relation := coalesce(pyreplica.logged_name(pg_catalog.pg_partition_root(tg_relid)), relation);
            end if;
        end if;
    end if;

    -- The daemon asks for the name when it replays the change, and the table may be gone by then.
    if tg_level operator(pg_catalog.=) 'ROW' and not pg_catalog.starts_with(tg_name::pg_catalog.text, '!replica_') then
        perform public.py_log_knows(relation, coalesce(pg_catalog.pg_partition_root(tg_relid)::pg_catalog.oid, tg_relid));
    end if;

    -- A filter decides how the slave sees the change. pyreplica.admit returns the letter of an event (W for an UPDATE
    -- that sets all columns), then + if the table has transforms and - if not, then the error of a condition, if one
    -- failed.
    if letter operator(pg_catalog.<>) 'T'
       and (tg_argv[0] operator(pg_catalog.=) any (pyreplica.special())
            or relation operator(pg_catalog.=) any (pyreplica.special())) then
        if @virtual@ then
            verdict := pyreplica.admit(tg_argv[0], relation, tg_relid, tg_op, pyreplica.computed(tg_relid, old), pyreplica.computed(tg_relid, new));
        else
            verdict := pyreplica.admit(tg_argv[0], relation, tg_relid, tg_op, old, new);
        end if;
        if verdict is null then
            return null;
        end if;
        letter := pg_catalog.left(verdict, 1);
        if letter operator(pg_catalog.=) 'W' then
            whole := true;
            letter := 'U';
        end if;
        transformed := pg_catalog.substr(verdict, 2, 1) operator(pg_catalog.=) '+';
        -- nullif would compare by the = that it finds first in the search_path of the application.
        if pg_catalog.length(verdict) operator(pg_catalog.>) 2 then
            remark := pg_catalog.substr(verdict, 3);
        end if;
    end if;

    if @exact@ then
        if letter operator(pg_catalog.=) 'I' then
            after := operator(pyreplica.%%) new;
        elsif letter operator(pg_catalog.=) 'D' then
            before := operator(pyreplica.%%) old;
        elsif letter operator(pg_catalog.=) 'U' then
            before := operator(pyreplica.%%) old;
            after := operator(pyreplica.%%) new;
        end if;
    else
        if letter operator(pg_catalog.=) 'I' then
            after := pyreplica.exact(new);
        elsif letter operator(pg_catalog.=) 'D' then
            before := pyreplica.exact(old);
        elsif letter operator(pg_catalog.=) 'U' then
            before := pyreplica.exact(old);
            after := pyreplica.exact(new);
        end if;
        inexact := true;
    end if;

    if transformed then
        if @virtual@ and inexact then
            before := pyreplica.send_exact(tg_argv[0], relation, tg_relid, before, pyreplica.computed(tg_relid, old));
            after := pyreplica.send_exact(tg_argv[0], relation, tg_relid, after, pyreplica.computed(tg_relid, new));
        elsif @virtual@ then
            before := pyreplica.send(tg_argv[0], relation, tg_relid, before, pyreplica.computed(tg_relid, old));
            after := pyreplica.send(tg_argv[0], relation, tg_relid, after, pyreplica.computed(tg_relid, new));
        elsif inexact then
            before := pyreplica.send_exact(tg_argv[0], relation, tg_relid, before, old);
            after := pyreplica.send_exact(tg_argv[0], relation, tg_relid, after, new);
        else
            before := pyreplica.send(tg_argv[0], relation, tg_relid, before, old);
            after := pyreplica.send(tg_argv[0], relation, tg_relid, after, new);
        end if;
        -- pyreplica.send returns the error of an expression under the empty name, which no column can have.
        remark := coalesce(remark, after operator(pyreplica.->) ''::pg_catalog.text,
                           before operator(pyreplica.->) ''::pg_catalog.text);
        before := before operator(pyreplica.-) ''::pg_catalog.text;
        after := after operator(pyreplica.-) ''::pg_catalog.text;
        if letter operator(pg_catalog.=) 'U' and whole is null and before operator(pyreplica.=) after then
            return null;
        end if;
    end if;

    if letter operator(pg_catalog.=) 'U'
       and (whole or pg_catalog.pg_column_size(before) operator(pg_catalog.>) 2000) then
        small := pyreplica.shortened(before, after, pyreplica.logged_key(tg_relid, tg_argv[1:], whole), whole);
        before := small.before;
        after := small.after;
    end if;

    if origin operator(pg_catalog.<>) '' then
        insert into public.replica_log (relation, event, old, new, sql, origin)
        values (relation, letter, before, after, remark, origin);
    else
        insert into public.replica_log (relation, event, old, new, sql)
        values (relation, letter, before, after, remark);
        if pyreplica.asleep() then
            perform pg_catalog.pg_notify('replicas', '');
        end if;
    end if;
    return null;
end
$py_log_replica$;
    $create$, '@name@', name), '@copied@', (name = 'pyreplica.by_partition')::text),
                    '@exact@', current_setting('pyreplica.exact')),
                    '@virtual@', case when has_virtual then $virtual$exists (select from pg_catalog.pg_attribute a where
                        a.attrelid operator(pg_catalog.=) tg_relid and a.attgenerated operator(pg_catalog.=) 'v'::pg_catalog."char")$virtual$
                        else 'false' end);
    end loop;
end
$install$;
