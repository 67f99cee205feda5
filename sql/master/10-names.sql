-- == The names of replicated tables ==

-- Installs the table of the names under which changes are replayed, and the functions that write and read it.

-- Says whether a role may do anyway what the owner of the log may: superusers and members of that role. The owners of the
-- database and of the schema public are trusted too.
create or replace function pyreplica.is_trusted(role oid) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_trusted$
    select pg_has_role(role, (select relowner from pg_class where oid = 'public.replica_log'::regclass), 'member')
        or role in (select datdba from pg_database where datname = current_database() union
                    select nspowner from pg_namespace where nspname = 'public')
$is_trusted$;

-- The names under which the slaves get changes, each with the table that had it when the triggers were created. The owner
-- of a table may give it any name. So the daemon replays the changes of no other name: otherwise he could write to every
-- table of the slave that the master lacks. Former names stay, for changes that are still to be replayed. "gone" says since when
-- there is no such table any more.
create table if not exists public.replica_table (
    name text primary key,
    relation regclass,
    ts timestamptz not null default now(),
    gone timestamptz
);
alter table public.replica_table add column if not exists gone timestamptz;

create or replace function pyreplica.register(relation regclass) returns void language sql
    set search_path = pg_catalog, pg_temp
as $register$
    insert into public.replica_table (name, relation) values (pyreplica.logged_name(relation), relation)
        on conflict (name) do update set relation = excluded.relation, ts = now(), gone = null
        where replica_table.relation is distinct from excluded.relation
$register$;

-- Forgets the names of dropped tables, of which the log has no change any more: all its rows are of later transactions.
create or replace function public.py_log_forget() returns void language sql security definer
    set search_path = pg_catalog, pg_temp
as $py_log_forget$
    update public.replica_table t set gone = now()
     where t.gone is null and t.relation is not null and not exists (select from pg_class c where c.oid = t.relation);
    delete from public.replica_table t
     where t.gone < coalesce((select l.ts from public.replica_log l order by l.id limit 1), 'infinity')
       and not exists (select from pg_class c where c.oid = t.relation);
$py_log_forget$;

-- Says whether a name is in that table, and if a table is given, whether it is this table's name. The first look at a table
-- adds its name if its owner is trusted anyway: with superusers, the owners of the log, of the database and of the schema
-- public. Or if somebody has made its trigger by hand, and named the table so in the first argument.
create or replace function public.py_log_knows(name text, relation oid) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $py_log_knows$
declare
    found oid;
begin
    -- A name from the catalog has the collation "C", for which the index would not do.
    if exists (select from public.replica_table t
                where t.name = $1 collate "default" and ($2 is null or t.relation = $2 or t.relation is null)) then
        return true;
    end if;
    found := (
        select c.oid from pg_class c
          join pg_namespace n on n.oid = c.relnamespace
         where format('%I.%I', n.nspname, c.relname) = $1 and c.oid = coalesce($2, c.oid)
           and exists (
               select from pg_trigger t
                where t.tgrelid = c.oid and t.tgparentid = 0
                  and t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
                  and (pyreplica.is_trusted(c.relowner)
                       or position(convert_to(c.relname, getdatabaseencoding()) || decode('00', 'hex') in t.tgargs) = 1
                          and not exists (select from public.replica_table k where k.relation = c.oid))));
    if found is null then
        return false;
    end if;
    if current_setting('transaction_read_only') = 'off' then
        perform pyreplica.register(found);
    end if;
    return true;
end
$py_log_knows$;

-- Tables that had triggers before there was that table, and those that the log still names: they may be gone by now.
do $register$
begin
    if not exists (select from public.replica_table) then
        insert into public.replica_table (name)
        select distinct format('%I.%I', i[1], i[2])
          from (select distinct relation from public.replica_log
                 where relation ~ '^("([^"]|"")+"|[a-z_][a-z0-9_$]*)[.]("([^"]|"")+"|[a-z_][a-z0-9_$]*)$') l
         cross join parse_ident(l.relation) i
         where cardinality(i) = 2;
    end if;
    perform pyreplica.register(t.tgrelid)
       from pg_trigger t
      where t.tgfoid in ('public.py_log_replica()'::regprocedure, 'pyreplica.by_partition()'::regprocedure)
        and t.tgparentid = 0 and t.tgtype & 1 = 1
        and not exists (select from public.replica_table k where k.relation = t.tgrelid)
      group by t.tgrelid;
end
$register$;
