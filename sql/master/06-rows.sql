-- == Rows as hstore ==

-- Installs what the triggers need to write a row as text: operators on hstore, a function that writes a row under exact
-- settings, and a function that shortens the old and the new row of an UPDATE.

-- The triggers reach hstore through operators of this schema. An operator keeps its function when somebody renames the
-- schema of hstore, moves the extension, or puts another object in its place. "@hs@" stands for that schema.
--   %%  a row as hstore            -> a column's value         ?  is there such a column?
--   ||  both; the right one wins   -  without a column, or without equal values
--   &   these columns only         ~> a column with a value    =  @>  as in hstore
--   @   the columns' names         #  their values
do $install$
declare
    operator text;
    signature text;
    function text;
begin
    for operator, signature, function in values
        ('%%', 'none, record', 'hstore'), ('->', '@, text', 'fetchval'), ('?', '@, text', 'exist'),
        ('||', '@, @', 'hs_concat'), ('-', '@, text', 'delete'), ('-', '@, @', 'delete'), ('&', '@, text[]', 'slice'),
        ('~>', 'text, text', 'hstore'), ('=', '@, @', 'hstore_eq'), ('@>', '@, @', 'hs_contains'),
        ('@', 'none, @', 'akeys'), ('#', 'none, @', 'avals')
    loop
        signature := replace(signature, '@', current_setting('pyreplica.hstore') || '.hstore');
        if to_regoperator(format('pyreplica.%s (%s)', operator, signature)) is null then
            execute format('create operator pyreplica.%s (function = %s.%s%s, rightarg = %s)', operator,
                           current_setting('pyreplica.hstore'), function,
                           case when signature like 'none,%' then '' else ', leftarg = ' || split_part(signature, ', ', 1) end,
                           split_part(signature, ', ', 2));
        end if;
    end loop;

    -- An earlier version had this.
    execute format('drop function if exists pyreplica.small(%s.hstore, %1$s.hstore, text[], boolean)',
                   current_setting('pyreplica.hstore'));

    execute replace($create$
create or replace function pyreplica.exact(r record) returns @hs@.hstore language plpgsql
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $exact$
begin
    return operator(pyreplica.%%) r;
end
$exact$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));

    -- While a row is small, it is cheapest to log it whole. Of a large row the trigger keeps the key and the columns
    -- that changed. If the key itself changed, it keeps the whole old row: only that tells it from another row which has
    -- taken the same key meanwhile. It also does without a key that is unique, and if a key that was named by hand is
    -- NULL. With "whole" it keeps the whole new row, and the key of the old one.
    execute replace($create$
create or replace function pyreplica.shortened(
    inout before @hs@.hstore, inout after @hs@.hstore, keys text[], whole boolean) language plpgsql immutable
as $shortened$
declare
    key public.replica_log.old%type := before operator(pyreplica.&) keys;
begin
    if pg_catalog.cardinality(keys) operator(pg_catalog.>) 0
       and pg_catalog.cardinality(operator(pyreplica.@) key) operator(pg_catalog.=) pg_catalog.cardinality(keys) then
        if whole then
            before := key;
        elsif after operator(pyreplica.@>) key
              and pg_catalog.array_position(operator(pyreplica.#) key, null::pg_catalog.text) is null then
            after := after operator(pyreplica.-) before;
            before := (before operator(pyreplica.&) (operator(pyreplica.@) after)) operator(pyreplica.||) key;
        end if;
    end if;
end
$shortened$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- Returns a row with the values of its virtual generated columns, which PostgreSQL 18 has, for a table that has some. It
-- computes them only when a query reads them from the table: in a trigger they are NULL. Filters and transforms may ask for
-- them. The expressions of such columns can't call functions of users.
create or replace function pyreplica.computed(relation oid, r record) returns record language plpgsql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
as $computed$
declare
    computed record;
    columns text;
begin
    if r is null then
        return r;
    end if;
    -- Reading the row runs the checks of domains. The filter or transform refuses the types too, and says so.
    begin
        perform pyreplica.check_types(relation);
    exception when insufficient_privilege then
        return r;
    end;
    select string_agg(case a.attgenerated when 'v' then format('(%s) as %I', pg_get_expr(d.adbin, d.adrelid), a.attname)
                                          else format('%I', a.attname) end, ', ' order by a.attnum) into columns
      from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = relation and a.attnum > 0 and not a.attisdropped;
    -- A cast between text and the row might be one that the owner of the table has made. This uses the type's input function.
    execute format('select %s from (select (%L::%s).*) x', columns, textin(record_out(r)), relation::regclass) into computed;
    return computed;
end
$computed$;

-- Returns the columns that tell a large row from all others: the primary key that the table has now, the index of its
-- REPLICA IDENTITY, and the columns that the arguments of the trigger name, which were the key or were named by hand. NULL if
-- two rows may have the same values there, for the time of a transaction if the constraint is deferrable; or if the table
-- has REPLICA IDENTITY FULL, which wants old rows whole. With "whole" neither matters.
create or replace function pyreplica.logged_key(relation pg_catalog.oid, named pg_catalog.text[], whole boolean)
    returns pg_catalog.text[] language plpgsql stable
as $logged_key$
declare
    keys constant pg_catalog.int2[] := array(
        select a.attnum from pg_catalog.pg_attribute a
         where a.attrelid operator(pg_catalog.=) relation and a.attnum operator(pg_catalog.>) 0::pg_catalog.int2
           and not a.attisdropped
           and (a.attname::pg_catalog.text operator(pg_catalog.=) any (named) or a.attnum operator(pg_catalog.=) any (array(
               select pg_catalog.unnest((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts operator(pg_catalog.-) 1::pg_catalog.int2])
                 from pg_catalog.pg_index i
                where i.indrelid operator(pg_catalog.=) relation and (i.indisprimary or i.indisreplident)))));
begin
    if not coalesce(whole, false) and (exists (
        select from pg_catalog.pg_class c
         where c.oid operator(pg_catalog.=) relation
           and case when c.relispartition then (select r.relreplident from pg_catalog.pg_class r
                                                 where r.oid operator(pg_catalog.=) pg_catalog.pg_partition_root(relation)::pg_catalog.oid)
                    else c.relreplident end operator(pg_catalog.=) 'f'::pg_catalog."char") or not exists (
        select from pg_catalog.pg_index i
         where i.indrelid operator(pg_catalog.=) relation and i.indisunique and i.indimmediate and i.indisvalid
           and i.indpred is null and i.indexprs is null
           and (i.indkey::pg_catalog.int2[])[0:i.indnkeyatts operator(pg_catalog.-) 1::pg_catalog.int2] operator(pg_catalog.<@) keys)) then
        return null;
    end if;
    return array(select a.attname::pg_catalog.text from pg_catalog.pg_attribute a
                  where a.attrelid operator(pg_catalog.=) relation and a.attnum operator(pg_catalog.=) any (keys));
end
$logged_key$;

-- Returns a type and all that it is made of: what is beneath a domain, the elements of an array or a range, the columns of a row.
create or replace function pyreplica.parts_of(type oid) returns setof oid language sql stable
    set search_path = pg_catalog, pg_temp
as $parts_of$
    with recursive parts (id) as (
        select type
        union
        select x.id from parts p
          join pg_type t on t.oid = p.id
         cross join lateral (
             select t.typbasetype union all select t.typelem
             union all
             select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
             union all
             -- PostgreSQL 13 has no multiranges.
             select r.rngsubtype from pg_range r
              where t.typtype in ('r', 'm') and t.oid in (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)) x (id)
         where x.id <> 0
    )
    select id from parts
$parts_of$;

-- Says whether the text of a type depends on the search_path: it is one of those that stand for an object, like regclass,
-- or is made of one.
create or replace function pyreplica.is_by_name(type oid) returns boolean language sql stable
    set search_path = pg_catalog, pg_temp
as $is_by_name$
    select exists (select from pyreplica.parts_of(type) p (id)
                    where p.id = any ('{regclass,regproc,regprocedure,regoper,regoperator,regtype,regconfig,regdictionary,
                                        regcollation}'::regtype[]::oid[]))
$is_by_name$;

-- Says whether a table has a column of such a type. A session with a search_path of its own asks this for every row.
do $install$
begin
    execute replace($create$
create or replace function pyreplica.has_names(relation pg_catalog.oid) returns boolean language plpgsql stable
    -- PostgreSQL would plan the queries anew for each row.
    set plan_cache_mode = force_generic_plan
as $has_names$
declare
    type pg_catalog.oid;
begin
    if exists (select from pg_catalog.pg_attribute a
                where a.attrelid operator(pg_catalog.=) relation and a.atttypid operator(pg_catalog.=) any ('@by_name@')
                  and not a.attisdropped) then
        return true;
    end if;
    for type in
        select a.atttypid from pg_catalog.pg_attribute a
         where a.attrelid operator(pg_catalog.=) relation and a.atttypid operator(pg_catalog.>=) 16384::pg_catalog.oid
    loop
        if exists (select from pg_catalog.pg_type t
                    where t.oid operator(pg_catalog.=) type
                      and (t.typelem operator(pg_catalog.<>) 0::pg_catalog.oid
                           or t.typtype operator(pg_catalog.<>) all ('{b,e}')))
           and pyreplica.is_by_name(type) then
            return true;
        end if;
    end loop;
    return false;
end
$has_names$;
    $create$, '@by_name@', array(select oid from pg_type where oid < 16384 and typtype = 'b' and pyreplica.is_by_name(oid))::text);
end
$install$;

-- The name of a table as the log has it, whatever the session has set. quote_ident and the like quote every name if
-- quote_all_identifiers is on.
create or replace function pyreplica.logged_name(relation oid) returns text language sql stable
    set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $logged_name$
    select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = relation
$logged_name$;

-- The parts below put this condition in the place of @exact@: do the settings of the session give text that is exact and
-- unambiguous? Dates must be ISO, floats exact, and money must look as in the C and English locales, which the slave can
-- read. Names must be quoted where they need it only, and be found in public, where the slave looks for them, or say
-- their schema. In a session with other settings the triggers call pyreplica.exact, which is slower and gives the same
-- text. What a search_path may change matters only to a table that has a column of names.
do $settings$
begin
    perform set_config('pyreplica.exact',
        $exact$(pg_catalog.current_setting('datestyle') operator(pg_catalog.=) any ('{"ISO, MDY","ISO, DMY","ISO, YMD"}')
            and pg_catalog.current_setting('intervalstyle') operator(pg_catalog.=) 'postgres'
            and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.=) any ('{1,2,3}')
            and pg_catalog.current_setting('lc_monetary') operator(pg_catalog.=)
                any ('{C,C.UTF-8,en_US.UTF-8,en_US.utf8,C.utf8,POSIX}')
            and pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off'
            and (pg_catalog.current_schemas(false) operator(pg_catalog.=) '{public}' or not pyreplica.has_names(tg_relid)))$exact$, true);
end
$settings$;
