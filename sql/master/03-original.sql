-- == Upgrade from the Python original ==

-- Takes over the rows that the original's daemon has not replayed, and the original's table of filters. In any other
-- database this part only makes the sequence belong to the log.

-- Rows that a slave has not replayed become free statements in the new log, in their old order. Each is a transaction of
-- its own, because the old log does not say which belonged together. Their transaction numbers must be lower than those
-- of all later transactions. If there are too few such numbers, neighbouring rows share one.
do $upgrade$
declare
    former constant regclass := to_regclass('public.replica_log_former');
    owner regrole;
    fields text;
    flags text;
    field name;
    rest text;
    -- The original wrote backslashes into string literals. A server reads them as escapes if standard_conforming_strings
    -- is off.
    escapes constant boolean := (select reset_val = 'off' from pg_settings where name = 'standard_conforming_strings');
    pending bigint;
    numbers constant bigint := pg_current_xact_id()::text::bigint - 1;
begin
    if coalesce(current_setting('pyreplica.upgrading', true), '') <> 'yes' then
        return;
    end if;
    perform set_config('pyreplica.upgrading', '', true);
    owner := (select relowner from pg_class where oid = former);
    for field in
        select attname from pg_attribute
         where attrelid = former and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype order by attnum
    loop
        if field <> 'replicated' then
            execute format('alter table public.replica_log add column %I boolean not null default false', field);
        end if;
        fields := concat_ws(', ', fields, quote_ident(field));
        -- The original's daemon passes over a row whose flag is NULL.
        flags := concat_ws(', ', flags, format('coalesce(%I, true)', field));
        rest := concat_ws(' or ', rest, format('not %I', field));
    end loop;

    execute format('select count(*) from public.replica_log_former where %s', rest) into pending;
    execute format('insert into public.replica_log (id, txid, event, sql, username, ts, %s)
                    select id, (1 + (row_number() over (order by id) - 1) * least($1, $2) / $1)::text::xid8, ''S'',
                           case when $3 and position(e''\\'' in sql) > 0 then
                               format(''do %%L'', format(''begin set local standard_conforming_strings = off; ''
                                                         ''set local escape_string_warning = off; execute %%L; end'', sql))
                           else sql end, username, ts, %s
                      from public.replica_log_former where %s', fields, flags, rest)
      using pending, numbers, escapes;

    alter sequence public.replica_log_id_seq as bigint no maxvalue;
    perform setval('public.replica_log_id_seq',
                   greatest((select max(id) from public.replica_log_former),
                            (select last_value from public.replica_log_id_seq)));
    -- The original let applications write to the log. But the slave runs what the log says, so they lose that right.
    for field in
        select distinct rolname from pg_class, aclexplode(relacl) join pg_roles r on r.oid = grantee
         where pg_class.oid = 'public.replica_log_id_seq'::regclass and grantee <> relowner
    loop
        execute format('revoke all on sequence public.replica_log_id_seq from %I', field);
    end loop;
    execute format('alter table public.replica_log owner to %s', owner);
    raise warning 'the log of the Python original is now replica_log_former; % of its statements wait in the new log',
                  pending
        using hint = 'Run SELECT py_log_create_tg(...) for all tables again. DROP TABLE replica_log_former when you will.';
end
$upgrade$;

-- PostgreSQL wants a table and its sequence to have the same owner, so this comes after the table got its owner.
do $owned$
begin
    if not exists (select from pg_depend
                    where classid = 'pg_class'::regclass and objid = 'public.replica_log_id_seq'::regclass and deptype = 'a'
                      and refobjid = 'public.replica_log'::regclass) then
        alter sequence public.replica_log_id_seq owned by public.replica_log.id;
    end if;
end
$owned$;

-- The original's filters are conditions in Python. They stay as they are.
do $takeover$
begin
    if to_regclass('public.py_log_filter') is not null and not exists (
        select from pg_attribute where attrelid = to_regclass('public.py_log_filter') and attname = 'language') then
        alter table public.py_log_filter add column language text not null default 'python',
            add column on_error text not null default 'replicate' check (on_error in ('replicate', 'raise')),
            add column id bigint generated always as identity;
        alter table public.py_log_filter alter column language set default 'sql';
    end if;
end
$takeover$;
