-- == The log ==

-- Installs the table replica_log, its sequence and its index. First it renames a log of the Python original; the next
-- part, 03-original.sql, takes over the rows in it.

-- The original's log has the columns id, sql, replicated, username, ts, and a boolean column for each further slave. It
-- becomes replica_log_former with all its rows. The lock waits for transactions that write to it. Triggers that call
-- py_log_replica() go on working until py_log_create_tg replaces them.
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
    -- CREATE OR REPLACE cannot rename parameters, and the original's may have other names.
    drop function if exists public.py_log_create_tg(varchar), public.py_log_create_tg(text);
    perform set_config('pyreplica.upgrading', 'yes', true);
end
$upgrade$;

create sequence if not exists public.replica_log_id_seq;

-- One row for each change. event: I insert, U update, D delete, T truncate, S a free statement. relation is the quoted
-- and qualified name that the table had at the time. old and new hold the text of each column under its name. There is
-- one boolean column for each slave, the first is "replicated". True means that the slave has replayed the change (the
-- daemon sets it shortly after it has written replica_slave), or that the slave must pass over it. A row that is true
-- for every slave is deleted.
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

-- CREATE TABLE above cannot name the schema of hstore, so these columns get their type here.
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

-- The log has no key. In a publication FOR ALL TABLES, PostgreSQL refuses UPDATE and DELETE of such a table unless its whole rows
-- identify themselves. Only with wal_level = logical does this cost anything: old rows are written to the WAL.
do $identity$
begin
    if (select relreplident <> 'f' from pg_class where oid = 'public.replica_log'::regclass) then
        alter table public.replica_log replica identity full;
    end if;
end
$identity$;

-- The daemon relies on this: a transaction gets its number before it draws its first id. An INSERT written by hand
-- evaluates the default of id first, so the default asks for the transaction's number.
-- Every lock of the log makes the application wait, so nothing here locks it that has been done already.
do $id$
begin
    if (select pg_get_expr(adbin, adrelid) !~ 'pg_current_xact_id' from pg_attrdef
         where adrelid = 'public.replica_log'::regclass and adnum = 1) is not false then
        alter table public.replica_log alter column id set default
            nextval(case when pg_current_xact_id() is not null then 'public.replica_log_id_seq'::regclass end);
    end if;
end
$id$;

-- The daemon reads, marks and deletes through this index only. So a change costs one index entry, and there is no
-- primary key. An earlier version had an index for each slave and one for deleting; they go.
do $index$
begin
    if to_regclass('public.replica_log_id') is null then
        create index replica_log_id on public.replica_log (id);
    end if;
end
$index$;
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
