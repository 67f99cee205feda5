-- == Several slaves, several masters ==

-- Installs what adds and removes a slave, and what keeps the sequences of several masters apart.

-- Adds a slave, that is its column of the log. The slave does not get what the log holds already. So copy the database
-- to the slave after this, and before clients write again.
create or replace function public.py_log_add_slave(field text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_add_slave$
begin
    if exists (select from pg_attribute
                where attrelid = 'public.replica_log'::regclass and attname = field and not attisdropped) then
        raise exception 'replica_log has a column % already', quote_ident(field) using errcode = 'duplicate_column';
    end if;
    execute format('alter table public.replica_log add column %I boolean not null default true', field);
    execute format('alter table public.replica_log alter column %I set default false', field);
    perform pyreplica.apply_slaves();
    return format('added slave %s: set SLAVE_FIELD=%1$s in its config file', field);
end
$py_log_add_slave$;

-- Removes a slave: its column, its position and its histories. What the log kept for it goes later: the daemons of the other
-- slaves delete what all slaves that are left have replayed. So the log is locked for a moment only, however much that is.
create or replace function public.py_log_remove_slave(field text) returns text language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_remove_slave$
declare
    prepared constant text := (
        select string_agg(quote_literal(gid), ', ') from pg_prepared_xacts
         where database = current_database() and split_part(gid, ':', 1) = 'pyreplica'
           and split_part(gid, ':', 3) = field and split_part(gid, ':', 4) = 'master');
begin
    if not exists (select from pg_attribute where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped
                                              and atttypid = 'boolean'::regtype and attname <> field) then
        raise exception 'slave % is the only one', field
            using errcode = 'object_in_use', hint = 'To end replication altogether run master-uninstall.sql.';
    end if;
    if prepared is not null then
        raise exception 'slave % has in-doubt transactions: %', field, prepared using errcode = 'object_in_use',
            hint = 'Start its daemon once more, it settles them; if the slave is lost, ROLLBACK PREPARED each of them.';
    end if;
    -- These come before the lock, since they may wait for a batch of the slave.
    delete from public.replica_slave s where s.field = py_log_remove_slave.field;
    delete from public.replica_history h where h.field = py_log_remove_slave.field;
    delete from public.replica_error e where e.field = py_log_remove_slave.field;
    execute format('alter table public.replica_log drop column %I', field);
    perform pyreplica.apply_slaves();
    return format('removed slave %s', field);
end
$py_log_remove_slave$;

-- Makes a sequence give numbers that no other node gives: of 3 nodes, node 1 takes 1, 4, 7, ..., and node 2 takes 2, 5,
-- 8, ... All are above the numbers that the sequence has given here before.
--
-- Its owner may give the sequence another name at any moment, and its name to something else. So it is read by its number:
-- what a view of that name calls would run with the rights of the caller.
create or replace function public.py_log_interleave(sequence regclass, node int, nodes int) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_interleave$
declare
    last bigint;
    first bigint;
begin
    if nodes < 1 or node not between 1 and nodes then
        raise exception 'node % of % does not exist', node, nodes using errcode = 'invalid_parameter_value',
            hint = 'Nodes are counted from 1.';
    end if;
    -- This keeps the sequence as it is to the end of the transaction.
    execute format('alter sequence %s increment by %s', sequence, nodes);
    if not exists (select from pg_sequence where seqrelid = sequence and seqincrement = nodes) then
        raise exception 'the sequence % has got another name meanwhile', sequence using errcode = 'object_in_use',
            hint = 'Try again.';
    end if;
    -- A sequence that has given no number yet gives its first.
    last := coalesce(pg_sequence_last_value(sequence), nextval(sequence));
    -- The next number above the last one that has the remainder of this node.
    first := last + 1 + ((node - (last + 1)) % nodes + nodes) % nodes;
    perform setval(sequence, first, false);
    return first;
end
$py_log_interleave$;

-- Takes the name of a sequence. PostgreSQL prefers text for a literal, so that a call as the documentation shows it cannot
-- mean a function of somebody else.
create or replace function public.py_log_interleave(sequence text, node int, nodes int) returns bigint language plpgsql
as $py_log_interleave$
begin
    return public.py_log_interleave(sequence::pg_catalog.regclass, node, nodes);
end
$py_log_interleave$;
