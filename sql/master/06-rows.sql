-- == Rows as hstore ==

-- Installs what the triggers need to write a row as text: an operator that makes a row an hstore, the function that does it
-- under exact settings, and the one that shortens an UPDATE of a large row.

do $install$
begin
    if to_regoperator('pyreplica.%% (none, record)') is null then
        execute format('create operator pyreplica.%%%% (function = %s.hstore, rightarg = record)',
                       current_setting('pyreplica.hstore'));
    end if;

    execute replace($create$
create or replace function pyreplica.exact(r record) returns @hs@.hstore language plpgsql
    set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set extra_float_digits = 1 set lc_monetary = 'C'
as $exact$
begin
    return operator(pyreplica.%%) r;
end
$exact$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));

    -- Both rows whole are cheapest while they are small. Of a large row only the key and what changed is kept, unless the
    -- key itself changed: then the whole old row is what tells it from another that holds the same key meanwhile.
    execute replace($create$
create or replace function pyreplica.small(before @hs@.hstore, after @hs@.hstore, keys text[], whole boolean)
    returns @hs@.hstore[] language plpgsql immutable
as $small$
declare
    key @hs@.hstore := @hs@.slice(before, keys);
begin
    if pg_catalog.cardinality(keys) operator(pg_catalog.>) 0
       and pg_catalog.cardinality(@hs@.akeys(key)) operator(pg_catalog.=) pg_catalog.cardinality(keys) then
        if whole then
            before := key;
        elsif after operator(@hs@.@>) key then
            after := after operator(@hs@.-) before;
            before := @hs@.slice(before, @hs@.akeys(after)) operator(@hs@.||) key;
        end if;
    end if;
    return array[before, after];
end
$small$;
    $create$, '@hs@', current_setting('pyreplica.hstore'));
end
$install$;

-- Text settings under which a value's text is exact and unambiguous. Logged text is ISO and exact; money is written as
-- the C and English locales do, which the slave reads. Whoever has others takes the slower way, to the same text.
do $settings$
begin
    perform set_config('pyreplica.exact',
        $exact$(pg_catalog.current_setting('datestyle') operator(pg_catalog.=) any ('{"ISO, MDY","ISO, DMY","ISO, YMD"}')
            and pg_catalog.current_setting('intervalstyle') operator(pg_catalog.=) 'postgres'
            and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.=) any ('{1,2,3}')
            and pg_catalog.current_setting('lc_monetary') operator(pg_catalog.=)
                any ('{C,C.UTF-8,en_US.UTF-8,en_US.utf8,C.utf8,POSIX}'))$exact$, true);
end
$settings$;
