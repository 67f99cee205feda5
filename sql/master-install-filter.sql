-- pyreplica, master side: filters and transforms in Python, on top of master-install.sql. Those in SQL need none of this.
--
--     psql somedb -U postgres -f master-install-filter.sql
--
-- Needs PL/Python (Debian: postgresql-plpython3-15 or whatever the version is) and a superuser, because Python is not
-- confined in any way: who may write py_log_filter or py_log_transform can then do what the server's own account can.
-- So if these tables belong to somebody else, the last word is left to you, see below. May be run again at any time.
--
-- Afterwards a condition is Python unless its row says language = 'sql':
--
--     INSERT INTO py_log_filter (relname, event, condition) VALUES
--         ('mytable', 'INSERT', 'new["field1"].startswith("Something") or new["field2"]==123');
--
-- new and old are dictionaries as PL/Python has them in TD: int, float, Decimal, bool, bytes and None for what they are, a
-- list for an array, a dictionary for a composite type, str for everything else, dates and times too. old is None in a
-- condition for INSERT, new in one for DELETE. re, datetime, hashlib, Decimal and plpy are at hand.

begin;

set local client_min_messages = warning;
-- No function that others may have put into public.
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

do $check$
begin
    if to_regclass('public.py_log_transform') is null or to_regnamespace('pyreplica') is null then
        raise exception 'run master-install.sql first' using errcode = 'undefined_table';
    end if;
    -- CREATE OR REPLACE would leave the function to its owner, who could then run Python.
    if exists (select from pg_proc p join pg_roles r on r.oid = p.proowner
                where p.oid = to_regprocedure('pyreplica.python(text, text, text, text)') and not r.rolsuper) then
        raise exception 'the function pyreplica.python belongs to a role that is no superuser'
            using errcode = 'insufficient_privilege', hint = 'Drop it, and run this script again.';
    end if;
end
$check$;

create extension if not exists plpython3u;

-- The value of an expression, as the text that the slave casts to its column's type. The rows come as text, with the name
-- of their type: PostgreSQL's own conversion then makes the dictionaries, after ALTER TABLE too. Without a type the
-- expression is only compiled. SD keeps what is compiled for the session, by the expression's text: a changed one is new.
create or replace function pyreplica.python(rowtype text, "old" text, "new" text, expression text) returns text
    language plpython3u
as $python$
COMPILED_AT_MOST = 1000

def compiled():
    codes = SD.setdefault("codes", {})
    if expression not in codes:
        if len(codes) >= COMPILED_AT_MOST:
            codes.clear()
        codes[expression] = compile("(" + expression + "\n)", "<pyreplica>", "eval")
    return codes[expression]

def dictionary(row):
    if row is None:
        return None
    plans = SD.setdefault("plans", {})
    if rowtype not in plans:
        if len(plans) >= COMPILED_AT_MOST:
            plans.clear()
        # PL/Python reads the text by the type's input function. A cast from text might be the table owner's own.
        plans[rowtype] = plpy.prepare("select ($1).*", [rowtype])
    return plpy.execute(plans[rowtype], [row], 1)[0]

code = compiled()
if rowtype is None:
    return None
if "names" not in SD:
    import datetime, decimal, hashlib, re
    SD["names"] = {"datetime": datetime, "Decimal": decimal.Decimal, "hashlib": hashlib, "plpy": plpy, "re": re}
value = eval(code, dict(SD["names"], old=dictionary(old), new=dictionary(new)))
if value is None:
    return None
if isinstance(value, (bytes, bytearray)):
    return "\\x" + value.hex()
if isinstance(value, (list, tuple, dict, set)):
    raise TypeError("a " + type(value).__name__ + " is no column's value: return its text")
return str(value)
$python$;

do $owner$
declare
    function constant regprocedure := 'pyreplica.python(text, text, text, text)';
    owner record;
    other text;
begin
    -- Nobody but the owner of the log keeps what was granted to him.
    for other in
        select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
          from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         where p.oid = function
           and a.grantee not in (p.proowner, (select relowner from pg_class where oid = to_regclass('public.replica_log')))
    loop
        execute format('revoke all on function %s from %s', function, other);
    end loop;
    -- The trigger runs as the owner of py_log_replica.
    select r.oid, r.rolname, r.rolsuper into owner
      from pg_proc p join pg_roles r on r.oid = p.proowner where p.oid = to_regprocedure('public.py_log_replica()');
    if not owner.rolsuper and not has_function_privilege(owner.oid, function, 'execute') then
        raise warning 'the log belongs to %, who is no superuser and may not run Python yet', owner.rolname
            using hint = format('If %1$s may do whatever the server''s own account can: '
                                'GRANT EXECUTE ON FUNCTION %2$s TO %1$I;', owner.rolname, function);
    end if;
end
$owner$;

alter table public.py_log_filter alter column language set default 'python';
alter table public.py_log_transform alter column language set default 'python';

commit;
