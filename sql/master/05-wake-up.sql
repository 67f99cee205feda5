-- == Wake-ups ==

-- A NOTIFY takes a lock that makes all commits of the server wait for each other, so the trigger signals only while a
-- daemon sleeps. A sleeping daemon holds an advisory lock of its slave's; whoever writes a change tries the same lock in
-- shared mode and keeps it to the end of the transaction. Whoever gets it is silent: the daemon is awake, and can't fall
-- asleep without a look at the log after this transaction's end. Whoever doesn't get it NOTIFYs.

-- The body of pyreplica.asleep, with a lock for each slave: a boolean column of the log, whoever added it. 0x70797267 is
-- "pyrg".
create or replace function pyreplica.asleep_body() returns text language sql stable set search_path = pg_catalog, pg_temp
as $asleep_body$
    select format($body$
    select not (%s)
           and coalesce(pg_catalog.current_setting('pyreplica.notify', true) operator(pg_catalog.<>) 'off', true)
$body$,
                  coalesce(string_agg(format('pg_catalog.pg_try_advisory_xact_lock_shared(1887007335, %L::pg_catalog.int4)',
                                             hashtext(attname::text)), ' and ' order by attnum), 'true'))
      from pg_attribute
     where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype
$asleep_body$;

-- Generates pyreplica.asleep: whether to NOTIFY. It consists of plain calls, which the planner puts in the caller's place:
-- that costs the lock, and no call of a function of ours. A transaction with a NOTIFY in it can't be prepared, so
-- applications that use two-phase commit themselves set pyreplica.notify = off for a role or a database; what they write
-- while the daemon sleeps is found at its next TIMEOUT.
-- A writer must lock the log before it asks: then it knows every slave's lock, or whoever adds one waits for its end.
create or replace function pyreplica.apply_slaves() returns void language plpgsql set search_path = pg_catalog, pg_temp
as $apply_slaves$
begin
    lock table public.replica_log in share row exclusive mode;
    execute format('create or replace function pyreplica.asleep() returns boolean language sql as %L', pyreplica.asleep_body());
end
$apply_slaves$;

-- The daemon asks, before it sleeps for the first time, whether the trigger knows its slave: a column of the log may have
-- been added or renamed by hand. If not, the trigger learns it, in a moment in which nobody writes: nobody is made to wait.
create or replace function public.py_log_can_wake(field text) returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp
as $py_log_can_wake$
begin
    if (select prosrc from pg_proc where oid = 'pyreplica.asleep()'::regprocedure) <> pyreplica.asleep_body() then
        lock table public.replica_log in share row exclusive mode nowait;
        perform pyreplica.apply_slaves();
    end if;
    return exists (select from pg_attribute where attrelid = 'public.replica_log'::regclass and attname = field);
exception when lock_not_available then
    return false;
end
$py_log_can_wake$;

-- == Free statements ==

-- The event of a row that names none, as in INSERT INTO replica_log(sql) VALUES ('ALTER TABLE ...'): the default is
-- evaluated for such rows only, so they wake the replicas and no other row pays for it.
create or replace function public.py_log_statement() returns "char" language plpgsql security definer
as $py_log_statement$
begin
    if pyreplica.asleep() then
        perform pg_catalog.pg_notify('replicas', '');
    end if;
    return 'S';
end
$py_log_statement$;

alter table public.replica_log alter column event set default public.py_log_statement();

do $install$
begin
    perform pyreplica.apply_slaves();
end
$install$;
