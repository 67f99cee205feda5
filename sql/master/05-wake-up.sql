-- == Wake-ups ==

-- Installs what the triggers ask before they signal the daemon, and the default that lets free statements signal it.
--
-- A transaction with a NOTIFY takes a lock at its commit for which all such commits of the server wait. So a trigger
-- signals only while a daemon sleeps. A sleeping daemon holds the advisory lock of its slave. A transaction that writes
-- a change tries this lock in shared mode and keeps it to its end. If it gets the lock, it need not signal: the daemon
-- is awake, and before it falls asleep it looks at the log after the end of this transaction. If it does not get the
-- lock, it signals.

-- Returns the body of pyreplica.asleep, with one lock for each slave, that is for each boolean column of the log.
-- 1887007335 is 0x70797267, "pyrg".
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

-- Generates pyreplica.asleep, which says whether to signal. It consists of plain calls, so the planner can inline it: it
-- costs the lock, but no call of a function of pyreplica. A transaction with a NOTIFY cannot be prepared. So an
-- application that uses two-phase commit sets pyreplica.notify = off for its role or database, and the daemon finds its
-- changes at the next TIMEOUT. A transaction must write to the log before it calls pyreplica.asleep. Then it either
-- knows the locks of all slaves, or the transaction that adds a slave waits for it.
--
-- Generates pyreplica.flags too, which returns a row of the log as one row for each slave. A NULL counts as set. The view
-- replica_replayed uses it, and so does not depend on the slaves' columns.
create or replace function pyreplica.apply_slaves() returns void language plpgsql set search_path = pg_catalog, pg_temp
as $apply_slaves$
declare
    fields constant text := (
        select string_agg(quote_ident(attname), ', ') from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype);
    daemon regrole;
begin
    lock table public.replica_log in share row exclusive mode;
    -- The daemons' roles may flag the rows, and renumber transactions. py_log_grant has granted that.
    for daemon in
        select x.grantee from pg_attribute a cross join aclexplode(a.attacl) x
         where a.attrelid = 'public.replica_log'::regclass and a.attname = 'txid' and x.privilege_type = 'UPDATE' and x.grantee <> 0
    loop
        execute format('grant update (%s) on public.replica_log to %s', fields, daemon);
    end loop;
    execute format('create or replace function pyreplica.asleep() returns boolean language sql as %L', pyreplica.asleep_body());
    execute format('create or replace function pyreplica.flags(change public.replica_log)
                        returns table (field name, is_flagged boolean) language sql immutable parallel safe as %L', (
        select 'values ' || string_agg(format('(%L::pg_catalog.name, coalesce(($1).%I, true))', attname, attname), ', ' order by attnum)
          from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype));
end
$apply_slaves$;

-- The daemon calls this before it sleeps for the first time: does the trigger know its slave? Somebody may have added or
-- renamed a column of the log by hand. Then this function generates pyreplica.asleep anew, but only if no transaction is
-- writing to the log, so that nobody waits for it.
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

-- Returns the event of a row that names none, as in INSERT INTO replica_log(sql) VALUES ('ALTER TABLE ...'). PostgreSQL
-- evaluates the default of the column for such rows only, so they signal the daemon, and other rows do not pay for it.
create or replace function public.py_log_statement() returns "char" language plpgsql security definer
as $py_log_statement$
begin
    if pyreplica.asleep() then
        perform pg_catalog.pg_notify('replicas', '');
    end if;
    return 'S';
end
$py_log_statement$;

do $event$
begin
    if not exists (select from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
                    where d.adrelid = 'public.replica_log'::regclass and a.attname = 'event'
                      and pg_get_expr(d.adbin, d.adrelid) ~ 'py_log_statement') then
        alter table public.replica_log alter column event set default public.py_log_statement();
    end if;
end
$event$;

do $install$
begin
    if (select prosrc from pg_proc where oid = to_regprocedure('pyreplica.asleep()')) is distinct from pyreplica.asleep_body()
       or to_regprocedure('pyreplica.flags(public.replica_log)') is null then
        perform pyreplica.apply_slaves();
    end if;
end
$install$;
