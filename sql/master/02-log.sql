-- == The log ==

-- Installs the table replica_log, its sequence and its index. A log of the Python original is renamed first;
-- 03-original.sql takes over what it holds.

-- Its log (id, sql, replicated, username, ts, and a boolean column for each further slave) becomes replica_log_former,
-- history and all. The lock waits for whoever is writing to it. Triggers that call py_log_replica() go on working;
-- py_log_create_tg puts the new ones in their place.
do $upgrade$
declare
    former constant regclass := to_regclass('public.replica_log');
    columns constant text[] := (select array_agg(attname) from pg_attribute
                                 where attrelid = former and attnum > 0 and not attisdropped);
    numbers text;
begin
    if former is null or 'txid' = any (columns) then
        return;
    end if;
    if not columns @> array['id', 'sql', 'replicated', 'username', 'ts'] then
        raise exception 'there is a table replica_log that neither pyreplica nor the Python original of 1.0.4 or later made'
            using errcode = 'duplicate_table', hint = 'Rename it.';
    end if;
    lock table public.replica_log in access exclusive mode;
    numbers := pg_get_serial_sequence('public.replica_log', 'id');
    alter table public.replica_log rename to replica_log_former;
    alter table public.replica_log_former alter column id drop default;
    if numbers is not null then
        execute format('alter sequence %s owned by none', numbers);
    end if;
    -- They may have other names of parameters.
    drop function if exists public.py_log_create_tg(varchar), public.py_log_create_tg(text);
    perform set_config('pyreplica.upgrading', 'yes', true);
end
$upgrade$;

create sequence if not exists public.replica_log_id_seq;

-- One row a change. event: I insert, U update, D delete, T truncate, S a free statement. relation is the table's quoted
-- and qualified name when the change was made; old and new hold each column's text under its name.
-- One boolean column a slave, "replicated" for the first: what it has replayed, a moment behind replica_slave, or what is
-- to be passed over. A row that every slave has replayed is deleted.
create table if not exists public.replica_log (
    id bigint not null default nextval('public.replica_log_id_seq'),
    txid xid8 not null default pg_current_xact_id(),
    relation text,
    event "char" not null,
    old text,
    new text,
    sql text,
    username text default session_user,
    origin text,
    ts timestamptz default now(),
    replicated boolean not null default false
);

-- The columns must have hstore's type, whose schema CREATE TABLE can't name.
do $install$
begin
    if (select atttypid from pg_attribute
         where attrelid = 'public.replica_log'::regclass and attname = 'new') = 'text'::regtype then
        execute format('alter table public.replica_log alter column old type %s.hstore using old::%1$s.hstore,
                                                       alter column new type %1$s.hstore using new::%1$s.hstore',
                       current_setting('pyreplica.hstore'));
    end if;
end
$install$;

-- The daemon takes it that ids drawn by a transaction are higher than all that were drawn before it had its number. A row
-- written by hand draws its id first, so the number is asked for here.
alter table public.replica_log alter column id set default
    nextval(case when pg_current_xact_id() is not null then 'public.replica_log_id_seq'::regclass end);

-- The daemon reads, marks and purges through this index alone, so a change costs one index entry and no primary key. An
-- earlier version had an index for each slave, and one for purging.
create index if not exists replica_log_id on public.replica_log (id);
do $indexes$
declare
    former regclass;
begin
    for former in
        select indexrelid::regclass from pg_index
         where indrelid = 'public.replica_log'::regclass
           and (indexrelid = to_regclass('public.replica_log_ts')
                or pg_get_expr(indpred, indrelid) in (
                    select format('(NOT %I)', attname) from pg_attribute
                     where attrelid = indrelid and attnum > 0 and not attisdropped and atttypid = 'boolean'::regtype))
    loop
        execute format('drop index %s', former);
    end loop;
end
$indexes$;
