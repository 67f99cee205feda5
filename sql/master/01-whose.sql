-- == What is pyreplica's own ==

-- Installs pyreplica.own, refuses what belongs to somebody else, and remembers the rights that others have.

-- Returns all that this script installs, as far as it is there: what it is, its name, its owner and its rights. "open"
-- says that everybody may execute a function: it runs with the rights of its caller, or is pyreplica.by_partition,
-- pyreplica.flags or py_log_knows. Functions are named by their exact signatures, because anybody may have made another function of the same
-- name.
do $install$
begin
    execute replace($create$
create or replace function pyreplica.own() returns table (kind text, name text, open boolean, owner oid, acl aclitem[], field name)
    language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $own$
    with relations as (
        select c.oid, c.relkind, c.relnamespace, c.relname, c.relowner, c.relacl from pg_class c
         where c.relnamespace = 'public'::regnamespace
           and (c.relname in ('replica_log', 'replica_slave', 'replica_error', 'replica_skipped', 'replica_history',
                              'replica_purged', 'replica_table', 'py_log_filter', 'py_log_transform', 'py_log_ddl', 'py_log_ddl_setting',
                              'py_log_ddl_table', 'py_log_ddl_absent', 'py_log_ddl_script') and c.relkind in ('r', 'p')
                or c.relname in ('replica_log_sql', 'replica_replayed') and c.relkind = 'v'
                or c.relname in ('replica_log_id_seq', 'replica_batch_seq') and c.relkind = 'S')
            or c.relnamespace = 'pyreplica'::regnamespace and c.relname = 'turn'
    ), sequences as (
        -- Those that number the rows of such a table.
        select s.oid, s.relkind, s.relnamespace, s.relname, s.relowner, s.relacl
          from pg_depend d
          join pg_class s on s.oid = d.objid and s.relkind = 'S'
         where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
           and d.refobjid in (select oid from relations)
    ), all_relations as (
        select * from relations union select * from sequences
    )
    select 'schema', 'pyreplica', false, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)), null::name
      from pg_namespace n where n.nspname = 'pyreplica'
    union all
    select case r.relkind when 'S' then 'sequence' else 'table' end, format('%s.%I', r.relnamespace::regnamespace, r.relname), false, r.relowner,
           coalesce(r.relacl, acldefault(case r.relkind when 'S' then 's' else 'r' end::"char", r.relowner)), null
      from all_relations r
    union all
    select 'table', format('%s.%I', r.relnamespace::regnamespace, r.relname), false, r.relowner, a.attacl, a.attname
      from all_relations r
      join pg_attribute a on a.attrelid = r.oid and a.attacl is not null
    union all
    select 'function', p.oid::regprocedure::text,
           not p.prosecdef and p.pronamespace = 'public'::regnamespace or s.signature ~ '^(pyreplica[.](by_partition|flags)|public[.]py_log_knows)[(]', p.proowner,
           coalesce(p.proacl, acldefault('f', p.proowner)), null
      from unnest(array[
               'public.py_log_replica()', 'public.py_log_statement()', 'public.py_log_can_wake(text)',
               case when to_regtype('public.replica_log') is not null then 'public.py_log_sql(public.replica_log)' end,
               'public.py_log_is_replayed(bigint, xid8, pg_snapshot, pg_snapshot, bigint)',
               'public.py_log_knows(text, oid)', 'public.py_log_forget()', 'public.py_log_columns(text, @hs@.hstore)', 'public.py_log_key(regclass)',
               'public.py_log_create_tg(text)', 'public.py_log_create_tg(text, text)', 'public.py_log_create_tg(text, text, text)',
               'public.py_log_create_tg(regclass, text, text)', 'public.py_log_create_tgs(text, text, name[])',
               'public.py_log_warn_before(regclass, text)', 'public.py_log_refuse_key(regclass, text[], text[])',
               'public.py_log_add_slave(text)', 'public.py_log_remove_slave(text)',
               'public.py_log_interleave(regclass, int, int)', 'public.py_log_interleave(text, int, int)',
               'public.py_log_grant(name)', 'public.py_log_grant(text)', 'public.py_log_grant_monitor(text)',
               -- Those of the Python original and of earlier versions.
               'public.py_log_create_tg(varchar)', 'public.py_log_create_tg(regclass, text)',
               'public.py_log_create_tgs(text, text)', 'public.py_log_warn_before(regclass)',
               'pyreplica.by_partition()', 'pyreplica.is_shadowed(oid, name)', 'pyreplica.is_second(oid, name, text)',
               'pyreplica.computed(oid, record)',
               case when to_regtype('public.replica_log') is not null then 'pyreplica.flags(public.replica_log)' end,
               'pyreplica.own()', 'pyreplica.asleep()', 'pyreplica.asleep_body()', 'pyreplica.apply_slaves()',
               'pyreplica.exact(record)', 'pyreplica.is_by_name(oid)', 'pyreplica.parts_of(oid)', 'pyreplica.has_names(oid)', 'pyreplica.logged_name(oid)',
               'pyreplica.logged_key(oid, text[], boolean)', 'pyreplica.shortened(@hs@.hstore, @hs@.hstore, text[], boolean)',
               'pyreplica.begin_statement()', 'pyreplica.end_statement()', 'pyreplica.tables(text)',
               'pyreplica.check_expression(text, text, text, text, text, text)', 'pyreplica.check_filter()',
               'pyreplica.check_transform()', 'pyreplica.complain(text, bigint, text, text)',
               'pyreplica.evaluation(text, text, text)', 'pyreplica.conditions(text, text)', 'pyreplica.replacements()',
               'pyreplica.check_types(oid)', 'pyreplica.register(regclass)', 'pyreplica.is_trusted(oid)',
               -- Those of master-install-ddl.sql.
               'pyreplica.ddl_travels(text, text, oid, boolean)', 'pyreplica.ddl_is_own(text)', 'pyreplica.ddl_next(text, int)',
               'pyreplica.ddl_fits(text, text)', 'pyreplica.ddl_top(text, text, boolean)', 'pyreplica.ddl_place(text)',
               'pyreplica.ddl_pass(text, text)', 'pyreplica.ddl_needs_text(text)', 'pyreplica.ddl_context()', 'pyreplica.ddl_text(text, text)',
               'pyreplica.ddl_alone(text, text)', 'pyreplica.ddl_settings(text, name[])', 'pyreplica.ddl_from_catalog(text, oid, oid, boolean)',
               'pyreplica.ddl_dropping(jsonb, boolean)', 'pyreplica.ddl_shape(text, text[], text[])', 'pyreplica.ddl_write(text, text, text, oid, oid)',
               'pyreplica.ddl_tell(text, text, text, boolean)', 'pyreplica.ddl_is_logged(oid)', 'pyreplica.ddl_has_special(oid)',
               'pyreplica.ddl_log_rows(oid, oid, text[], text)', 'pyreplica.ddl_capture(oid, text, boolean)',
               'pyreplica.ddl_is_new(oid, text, boolean)', 'pyreplica.ddl_altered(oid, text, text, name[], text, boolean)',
               'pyreplica.ddl_keep_writers_off(text, oid)', 'pyreplica.ddl_name(text)', 'pyreplica.ddl_relation(text, name[])', 'pyreplica.ddl_who()',
               'pyreplica.ddl_handle(text, text, text, json)', 'pyreplica.ddl_made(text)', 'pyreplica.ddl_dropped(text)',
               'pyreplica.ddl_after(text, jsonb, text, text, name[], text, boolean)', 'pyreplica.ddl_end()', 'pyreplica.ddl_raises()',
               'pyreplica.ddl_failed(text, text, text)', 'pyreplica.ddl_origin()', 'pyreplica.ddl_identifies(oid)',
               'pyreplica.ddl_is_stranger(oid)', 'pyreplica.ddl_drop()', 'pyreplica.ddl_script()', 'pyreplica.ddl_script_ends()',
               'pyreplica.ddl_is_script()', 'pyreplica.ddl_is_agreed(oid, text)', 'pyreplica.ddl_leave_out(jsonb)',
               'pyreplica.ddl_note(text, text, oid)', 'pyreplica.ddl_searching(name[])', 'pyreplica.ddl_is_missing(text, jsonb)',
               'pyreplica.ddl_is_like_temporary(text)',
               'pyreplica.apply()', 'pyreplica.changed()', 'pyreplica.special()',
               'pyreplica.admit(text, text, oid, text, record, record)',
               'pyreplica.send(text, text, oid, @hs@.hstore, record)',
               'pyreplica.send_exact(text, text, oid, @hs@.hstore, record)']) s (signature)
      join pg_proc p on p.oid = to_regprocedure(s.signature)
$own$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

do $check$
declare
    stranger record;
begin
    select o.kind, o.name, o.owner::regrole as owner into stranger
      from pyreplica.own() o where o.owner <> all (current_setting('pyreplica.trusted')::oid[]) limit 1;
    if found then
        raise exception 'there is a % % of % already, who is not known to have installed pyreplica',
                        stranger.kind, stranger.name, stranger.owner
            using errcode = 'insufficient_privilege',
                  hint = format('Drop it. If it is what it should be, run the script as %s.', stranger.owner);
    end if;
end
$check$;

-- Who once had the right to make triggers on these tables may have made one. It runs with the rights of who writes there.
do $check$
declare
    stranger record;
begin
    select format('trigger %I on %s', t.tgname, o.name) as name, p.proowner::regrole as owner into stranger
      from pyreplica.own() o
      join pg_trigger t on t.tgrelid = to_regclass(o.name) and not t.tgisinternal
      join pg_proc p on p.oid = t.tgfoid
     where o.kind = 'table' and p.proowner <> all (current_setting('pyreplica.trusted')::oid[])
     limit 1;
    if found then
        raise exception 'there is a % with a function of %', stranger.name, stranger.owner
            using errcode = 'insufficient_privilege', hint = format('DROP %s;', upper(left(stranger.name, 7)) || substr(stranger.name, 8));
    end if;
end
$check$;

-- The last part takes all rights back, and grants anew what py_log_grant has granted. For that the script remembers the
-- rights that it finds on what was here before.
do $rights$
begin
    perform set_config('pyreplica.rights', coalesce((
        select jsonb_agg(to_jsonb(x)) from (
            select o.kind, o.name, a.grantee::bigint as grantee,
                   a.privilege_type || coalesce(' (' || quote_ident(o.field) || ')', '') as privilege
              from pyreplica.own() o cross join aclexplode(o.acl) a
             where a.grantee not in (o.owner, 0)
               and o.name <> 'pyreplica.own()'
               and (o.kind <> 'schema' or current_setting('pyreplica.former')::boolean)) x), '[]')::text, true);
end
$rights$;
