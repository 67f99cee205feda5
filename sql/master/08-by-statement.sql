-- == Capture by statement ==

-- Installs the two trigger functions that write all rows of a statement into the log at once. py_log_create_tg creates
-- their triggers on a table if its level is statement.
--
-- Before a statement, begin_statement decides whether its rows are logged by row or at once. For "at once" it adds a
-- letter to a setting of the transaction, one letter for each statement that is running. The first argument of the
-- triggers names the setting. While it is not empty, the WHEN of the row trigger is false, and after the statement
-- end_statement logs the rows from the transition tables. This is correct only if nothing else can write to the table
-- between the rows and the end of the statement.
--
-- Anybody can set these settings. What a session has set before a statement changes nothing: begin_statement decides anew,
-- and refuses a statement that it would log by row. If a function in the statement itself sets them, its rows may be logged
-- twice or not at all; end_statement refuses the statement if it can tell.
do $install$
begin
    execute replace($create$
create or replace function pyreplica.begin_statement() returns trigger language plpgsql security definer
as $begin_statement$
declare
    running pg_catalog.text := pg_catalog.current_setting(tg_argv[0], true);
    at_once pg_catalog.bool;
begin
    at_once := @exact@
          and not tg_argv[1] operator(pg_catalog.=) any (pyreplica.special())
          and not (pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.' operator(pg_catalog.||)
                   pg_catalog.quote_ident(tg_table_name)) operator(pg_catalog.=) any (pyreplica.special())
          -- The triggers of pyreplica, checks of foreign keys and of deferrable constraints write nothing to the table.
          and not exists (
              select from pg_catalog.pg_trigger t
               where t.tgrelid operator(pg_catalog.=) tg_relid and t.tgenabled operator(pg_catalog.<>) 'D'
                 and (t.tgtype operator(pg_catalog.&) 1::pg_catalog.int2) operator(pg_catalog.=) 1
                 and t.tgname operator(pg_catalog.<>) '!replica_tg'
                 and not (t.tgisinternal and t.tgfoid operator(pg_catalog.=) any (array[
                     'pg_catalog."RI_FKey_check_ins"', 'pg_catalog."RI_FKey_check_upd"',
                     'pg_catalog."RI_FKey_noaction_del"', 'pg_catalog."RI_FKey_noaction_upd"',
                     'pg_catalog."RI_FKey_restrict_del"', 'pg_catalog."RI_FKey_restrict_upd"',
                     'pg_catalog.unique_key_recheck']::pg_catalog.regproc[]::pg_catalog.oid[])))
          -- The transition tables of a parent hold the rows of its children, without the columns that only these have.
          and not exists (
              select from pg_catalog.pg_inherits i
               where i.inhparent operator(pg_catalog.=) tg_relid or i.inhrelid operator(pg_catalog.=) tg_relid);
    if running operator(pg_catalog.<>) '' then
        if not at_once then
            raise exception 'a change of table % cannot be logged', tg_relid::pg_catalog.regclass
                using errcode = 'object_not_in_prerequisite_state',
                      detail = 'The setting ' operator(pg_catalog.||) tg_argv[0] operator(pg_catalog.||)
                               ' says that a statement is running whose rows are logged at once.',
                      hint = 'Only pyreplica sets it: RESET it. A function that a statement calls must not change DateStyle '
                             'and the like, and write to the same table.';
        end if;
        -- A function in an expression of the running statement writes to the same table. The row trigger does not run
        -- for these rows either, so this statement is logged at once, too. The setting "..._early" is about statements
        -- that have ended, so it is cleared.
        if pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) '' then
            running := pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early', '', true);
            running := pg_catalog.current_setting(tg_argv[0]);
        end if;
        running := pg_catalog.set_config(tg_argv[0], running operator(pg_catalog.||) pg_catalog.left(tg_op, 1), true);
    elsif at_once then
        running := pg_catalog.set_config(tg_argv[0], pg_catalog.left(tg_op, 1), true)
                   operator(pg_catalog.||) case when pg_catalog.current_setting(
                       tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) ''
                   then pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early', '', true) end;
    end if;
    return null;
end
$begin_statement$;
    $create$, '@exact@', current_setting('pyreplica.exact'));
end
$install$;

do $install$
begin
    execute replace($create$
create or replace function pyreplica.end_statement() returns trigger language plpgsql security definer
    -- The planner expects so many pairs of rows for a large UPDATE that it would compile the query, for a third of a
    -- second. And once it has planned the query for a few rows, it keeps the plan: a nested loop over many rows would
    -- take hours.
    set jit = off
    set enable_nestloop = off
as $end_statement$
<<ours>>
declare
    target pg_catalog.text;
    origin pg_catalog.text;
    letter pg_catalog.text := pg_catalog.left(tg_op, 1);
    running pg_catalog.text := pg_catalog.current_setting(tg_argv[0], true);
    place pg_catalog.int4 := pg_catalog.strpos(running, letter);
    early pg_catalog.int8;
    first pg_catalog.int8;
    blocked boolean;
begin
    if running is null or place operator(pg_catalog.=) 0 then
        if running operator(pg_catalog.<>) '' then
            raise exception 'the changes of table % have not been logged', tg_relid::pg_catalog.regclass
                using errcode = 'object_not_in_prerequisite_state',
                      detail = 'Something in the statement has set ' operator(pg_catalog.||) tg_argv[0] operator(pg_catalog.||) '.',
                      hint = 'Only pyreplica sets it.';
        end if;
        return null;
    end if;
    running := pg_catalog.left(running, place operator(pg_catalog.-) 1)
               operator(pg_catalog.||) pg_catalog.substr(running, place operator(pg_catalog.+) 1);
    running := pg_catalog.set_config(tg_argv[0], running, true);

    -- MERGE and INSERT ON CONFLICT call this in the order that the slave needs: DELETE, UPDATE, INSERT. The parts of a
    -- WITH call it in the order in which they end. So an INSERT may come before the DELETE that has freed its key. No
    -- statement changes a row that it has written itself, so the part that takes keys may always come after the parts
    -- that free them. If rows were logged too early, they get new ids. The setting "..._early" holds the id from which
    -- on this is so.
    blocked := letter operator(pg_catalog.<>) 'D' and pg_catalog.strpos(running, 'D') operator(pg_catalog.>) 0
               or letter operator(pg_catalog.=) 'I' and pg_catalog.strpos(running, 'U') operator(pg_catalog.>) 0;
    if letter operator(pg_catalog.<>) 'I'
       and pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early', true) operator(pg_catalog.<>) '' then
        early := pg_catalog.current_setting(tg_argv[0] operator(pg_catalog.||) '_early');
    end if;
    if blocked or early is not null then
        first := pg_catalog.nextval('public.replica_log_id_seq');
    end if;

    -- So it was when the statement began.
    if not @exact@ then
        raise exception 'the changes of table % cannot be logged', tg_relid::pg_catalog.regclass
            using errcode = 'object_not_in_prerequisite_state',
                  detail = 'A function that the statement has called has changed DateStyle, the search_path or the like.';
    end if;
    target := pg_catalog.quote_ident(tg_table_schema) operator(pg_catalog.||) '.'
              operator(pg_catalog.||) pg_catalog.quote_ident(tg_table_name);
    -- As in py_log_replica.
    if pg_catalog.current_setting('pyreplica.origin', true) operator(pg_catalog.<>) ''
       and pg_catalog.has_column_privilege(session_user, 'public.replica_log', 'txid', 'update') then
        origin := pg_catalog.current_setting('pyreplica.origin');
    end if;
    -- "x.*" names the rows and the block's label the variables, because a plain name could be a column's. The n-th old
    -- row belongs to the n-th new row. The ids are drawn in the order of the rows: the slave needs it when an UPDATE
    -- shifts keys.
    if letter operator(pg_catalog.=) 'I' then
        insert into public.replica_log (relation, event, new, origin)
        select ours.target, 'I', operator(pyreplica.%%) x.*, ours.origin from new_rows x;
    elsif letter operator(pg_catalog.=) 'D' then
        insert into public.replica_log (relation, event, old, origin)
        select ours.target, 'D', operator(pyreplica.%%) x.*, ours.origin from old_rows x;
    else
        -- PostgreSQL asks for the key once, and only if there is a large row.
        insert into public.replica_log (relation, event, old, new, origin)
        select target, 'U',
               case when pg_catalog.pg_column_size(x.before) operator(pg_catalog.<=) 2000 then x.before
                    else (pyreplica.shortened(x.before, y.after, (select pyreplica.logged_key(tg_relid, tg_argv[2:], false)), null)).before end,
               case when pg_catalog.pg_column_size(x.before) operator(pg_catalog.<=) 2000 then y.after
                    else (pyreplica.shortened(x.before, y.after, (select pyreplica.logged_key(tg_relid, tg_argv[2:], false)), null)).after end,
               origin
          from (select operator(pyreplica.%%) x.* as before, (x.*)::pg_catalog.record as bytes,
                       pg_catalog.row_number() over () as n from old_rows x) x
          join (select operator(pyreplica.%%) x.* as after, (x.*)::pg_catalog.record as bytes,
                       pg_catalog.row_number() over () as n from new_rows x) y on x.n operator(pg_catalog.=) y.n
         where not x.bytes operator(pg_catalog.*=) y.bytes
         order by x.n;
    end if;

    if early is not null then
        -- With nested loops the planner uses the index of the log. Without, it would read the whole log.
        perform pg_catalog.set_config('enable_nestloop', 'on', true);
        update public.replica_log l set id = later.id
          from (select c.id as former, pg_catalog.nextval('public.replica_log_id_seq') as id
                  from (select c.id from public.replica_log c
                         where c.id operator(pg_catalog.>=) early and c.id operator(pg_catalog.<) first
                           and c.txid operator(pg_catalog.=) pg_catalog.pg_current_xact_id()
                           and c.relation operator(pg_catalog.=) target order by c.id) c) later
         where l.id operator(pg_catalog.=) later.former;
    end if;
    if first is not null then
        running := pg_catalog.set_config(tg_argv[0] operator(pg_catalog.||) '_early',
                                         case when blocked then first::pg_catalog.text else '' end, true);
    elsif not found then
        return null;
    end if;

    if origin is null then
        if pyreplica.asleep() then
            perform pg_catalog.pg_notify('replicas', '');
        end if;
    end if;
    return null;
end
$end_statement$;
    $create$, '@exact@', current_setting('pyreplica.exact'));
end
$install$;
