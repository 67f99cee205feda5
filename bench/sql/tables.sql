-- The tables that everything but TPC-B is measured with, and the procedures that write to them. Both sides run this, and
-- what it fills in is the same on both.

create table narrow (
    id integer primary key,
    a integer not null,
    b text,
    c numeric(12, 2),
    d timestamptz
);

create table wide (
    id integer primary key,
    kind smallint not null,
    amount numeric(14, 4),
    ratio double precision,
    name text,
    note varchar(200),
    day date,
    at timestamptz,
    active boolean,
    code uuid,
    document jsonb,
    tags text[]
);

-- The table that is replicated.
create table t (
    id bigint primary key,
    a integer not null,
    b text,
    c numeric(12, 2),
    d timestamptz
);
insert into t
select i, i % 1000, 'row text number ' || md5(i::text), i % 1000000 / 100.0, timestamptz '2024-01-01' + i * interval '1 second'
  from generate_series(1, 50000) i;

-- Single-row statements in one loop, inside of the server, so that nothing but the server's work is measured.
create procedure write_single(tab text, operation text, n integer) language plpgsql as $$
declare
    i integer;
begin
    case tab || ' ' || operation
    when 'narrow insert' then
        for i in 1 .. n loop
            insert into narrow values (i, i % 1000, 'row text number ' || i, i / 100.0, now());
        end loop;
    when 'narrow update' then
        for i in 1 .. n loop
            update narrow set a = a + 1, d = clock_timestamp() where id = i;
        end loop;
    when 'narrow delete' then
        for i in 1 .. n loop
            delete from narrow where id = i;
        end loop;
    when 'wide insert' then
        for i in 1 .. n loop
            insert into wide values (i, i % 100, i / 7.0, i / 3.0, 'name of row ' || i, 'it''s a note of some length, as they are',
                date '2024-01-01' + i % 1000, now(), i % 2 = 0, md5(i::text)::uuid,
                jsonb_build_object('number', i, 'list', '[1, 2, 3]'::jsonb, 'text', 'value'), array['red', 'green', i::text]);
        end loop;
    when 'wide update' then
        for i in 1 .. n loop
            update wide set amount = amount + 1, at = clock_timestamp(), active = not active where id = i;
        end loop;
    when 'wide delete' then
        for i in 1 .. n loop
            delete from wide where id = i;
        end loop;
    end case;
end
$$;

-- The same rows, one statement for all.
create procedure write_bulk(tab text, operation text, n integer) language plpgsql as $$
begin
    case tab || ' ' || operation
    when 'narrow insert' then
        insert into narrow select i, i % 1000, 'row text number ' || i, i / 100.0, now() from generate_series(1, n) i;
    when 'narrow update' then
        update narrow set a = a + 1, d = clock_timestamp();
    when 'narrow delete' then
        delete from narrow;
    when 'wide insert' then
        insert into wide
        select i, i % 100, i / 7.0, i / 3.0, 'name of row ' || i, 'it''s a note of some length, as they are',
               date '2024-01-01' + i % 1000, now(), i % 2 = 0, md5(i::text)::uuid,
               jsonb_build_object('number', i, 'list', '[1, 2, 3]'::jsonb, 'text', 'value'), array['red', 'green', i::text]
          from generate_series(1, n) i;
    when 'wide update' then
        update wide set amount = amount + 1, at = clock_timestamp(), active = not active;
    when 'wide delete' then
        delete from wide;
    end case;
end
$$;

-- A backlog for one table: n changes (50% insert, 40% update, 10% delete), so many a transaction, the same ones whoever
-- replicates them. Inserted ids count up from a million; updated are rows that are there, deleted the oldest inserted ones.
create procedure write_backlog(n integer, per_transaction integer) language plpgsql as $$
declare
    inserted bigint := (select greatest(max(id), 1000000) from t);
    deleted bigint := coalesce((select min(id) - 1 from t where id > 1000000), 1000000);
    i integer;
begin
    for i in 1 .. n loop
        case
        when i % 10 in (1, 3, 5, 7, 9) then
            inserted := inserted + 1;
            insert into t values (inserted, i % 1000, 'row text number ' || md5(i::text), i % 1000000 / 100.0, now());
        when i % 10 = 0 then
            deleted := deleted + 1;
            delete from t where id = deleted;
        else
            update t set a = a + 1, c = i % 1000000 / 100.0, d = now() where id = 1 + i::bigint * 7919 % 50000;
        end case;
        if i % per_transaction = 0 then
            commit;
        end if;
    end loop;
end
$$;

-- A backlog for the tables t1 to t<tables>: n changes, half of them inserts, one transaction for ten. `before`, an even number: how many
-- such changes there are already.
create procedure write_many_tables(n integer, tables integer, before integer default 0) language plpgsql as $$
declare
    i integer;
begin
    for i in before + 1 .. before + n loop
        if i % 2 = 1 then
            execute format('insert into t%s values ($1, $1, ''row text number'', 1.5, now())', 1 + i / 2 % tables) using i;
        else
            execute format('update t%s set a = a + 1 where id = $1', 1 + (i - 1) / 2 % tables) using i - 1;
        end if;
        if i % 10 = 0 then
            commit;
        end if;
    end loop;
end
$$;
