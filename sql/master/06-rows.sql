-- == Rows as hstore ==

-- Installs what the triggers need to write a row as text: an operator that converts a row to hstore, a function that
-- does so under exact settings, and a function that shortens the old and the new row of an UPDATE.

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

    -- While a row is small, it is cheapest to log it whole. Of a large row the trigger keeps the key and the columns
    -- that changed. If the key itself changed, it keeps the whole old row: only that tells it from another row which has
    -- taken the same key meanwhile. With "whole" it keeps the whole new row, and the key of the old one.
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

-- The parts below put this condition in the place of @exact@: do the settings of the session give text that is exact and
-- unambiguous? Dates must be ISO, floats exact, and money must look as in the C and English locales, which the slave can
-- read. In a session with other settings the triggers call pyreplica.exact, which is slower and gives the same text.
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
