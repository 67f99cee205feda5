//! What happens to a row on the master happens to it on the slave, whatever kind of statement did it. Each test does
//! something on the master, drains the log by the real binary, and compares all tables.

use crate::harness::{Pair, drains, replays, replays_each};

const PEOPLE: &str = "create table people (id int primary key, name text, age int, note text)";

/// Ten people on both sides, by replication.
const TEN: &str = "insert into people select i, 'person ' || i, 20 + i, null from generate_series(1, 10) i";

// == Statements ==

#[test]
fn an_insert_is_replayed() {
    let pair = replays(PEOPLE, "insert into people values (1, 'Ada', 36, 'first')");
    assert_eq!(pair.on_slave("select name from people"), ["Ada"]);
}

#[test]
fn an_update_and_a_delete_are_replayed() {
    replays_each(
        PEOPLE,
        &[TEN, "update people set age = 99, note = 'old' where id = 3", "delete from people where id = 4"],
    );
}

#[test]
fn statements_on_many_rows_are_replayed_row_by_row() {
    replays_each(PEOPLE, &[TEN, "update people set age = age * 2 where id > 3", "delete from people where id % 3 = 0"]);
}

#[test]
fn the_same_row_is_changed_many_times_in_one_transaction() {
    let load = "insert into people values (1, 'a', 1, '');
         update people set age = 2; update people set age = 3, name = 'b';
         delete from people; insert into people values (1, 'c', 4, null);
         update people set note = ''";
    replays(PEOPLE, load);
}

#[test]
fn a_row_that_came_and_went_leaves_nothing() {
    let pair = replays(PEOPLE, "insert into people values (1, 'a', 1, ''); delete from people");
    assert_eq!(pair.on_slave("select count(*) from people"), ["0"]);
}

#[test]
fn copy_is_replayed() {
    use std::io::Write;
    let pair = Pair::new();
    pair.exec_both(PEOPLE);
    pair.create_triggers();
    let mut master = pair.master();
    let mut copy = master.copy_in("copy people from stdin").unwrap();
    copy.write_all(b"1\tAda\t36\t\\N\n2\ttab\\there\t7\tback\\\\slash\n3\t\t\\N\tline\\nbreak\n").unwrap();
    assert_eq!(copy.finish().unwrap(), 3);
    drains(&pair);
    assert_eq!(pair.on_slave("select note from people where id = 2"), ["back\\slash"]);
}

#[test]
fn insert_on_conflict_is_replayed_as_what_it_did() {
    replays_each(
        PEOPLE,
        &[
            TEN,
            "insert into people select i, 'again', 0, 'upsert' from generate_series(6, 15) i
             on conflict (id) do update set note = excluded.note || people.age",
            "insert into people select i, 'never', 0, '' from generate_series(10, 20) i on conflict do nothing",
        ],
    );
}

#[test]
fn merge_is_replayed_as_what_it_did() {
    let pair = Pair::new();
    if pair.master_server().major_version() < 15 {
        return eprintln!("skipped: MERGE came with PostgreSQL 15");
    }
    pair.exec_both(PEOPLE);
    pair.create_triggers();
    pair.run(TEN);
    pair.run(
        "merge into people p using generate_series(5, 15) s(i) on p.id = s.i
         when matched and p.id % 2 = 0 then delete
         when matched then update set note = 'merged'
         when not matched then insert values (s.i, 'new', 0, null)",
    );
    drains(&pair);
}

#[test]
fn common_table_expressions_that_write_are_replayed() {
    replays_each(
        &format!("{PEOPLE}; create table archive (id int primary key, name text)"),
        &[
            TEN,
            "with gone as (delete from people where id > 5 returning id, name),
                  kept as (insert into archive select * from gone returning id)
             update people set note = (select string_agg(id::text, ',') from kept) where id = 1",
        ],
    );
}

#[test]
fn an_update_that_changes_nothing_is_not_logged() {
    let pair = replays_each(PEOPLE, &[TEN]);
    pair.run("update people set age = age, name = name || ''");
    assert_eq!(pair.logged(), 0);
    pair.run("update people set age = age + (id = 5)::int");
    assert_eq!(pair.logged(), 1);
    drains(&pair);
}

#[test]
fn rolled_back_transactions_and_savepoints_leave_nothing() {
    let pair = Pair::new();
    pair.exec_both(PEOPLE);
    pair.create_triggers();
    pair.run("begin; insert into people values (1, 'no', 1, ''); rollback");
    pair.run(
        "begin; insert into people values (2, 'yes', 1, '');
         savepoint a; insert into people values (3, 'no', 1, ''); update people set age = 5;
         savepoint b; delete from people; rollback to a;
         insert into people values (4, 'yes', 1, ''); savepoint c; update people set note = 'c' where id = 4;
         release c; commit",
    );
    drains(&pair);
    assert_eq!(pair.on_slave("select id || note from people order by id"), ["2", "4c"]);
}

#[test]
fn an_exception_block_that_fails_leaves_nothing() {
    replays(
        PEOPLE,
        "do $$ begin
             insert into people values (1, 'a', 1, '');
             begin
                 insert into people values (2, 'b', 1, ''); insert into people values (1, 'twice', 1, '');
             exception when unique_violation then
                 insert into people values (3, 'c', 1, '');
             end;
         end $$",
    );
}

#[test]
fn nulls_empty_strings_and_awkward_characters_arrive_unchanged() {
    let awkward = [
        "",
        " ",
        "'",
        "''",
        "\"",
        "\\",
        "\\\\",
        "\\n",
        "\n",
        "\r\n",
        "\t",
        "NULL",
        "null",
        "\"NULL\"",
        "=>",
        "a=>b",
        ",",
        "{}",
        "{\"a\"}",
        "(,)",
        "$1",
        "$$",
        "$body$",
        "%",
        "%s",
        "é",
        "日本語",
        "𝄞",
        "\u{feff}",
        "\u{1}\u{7f}",
        "--",
        "/*",
        ";",
        "E'\\n'",
        "U&'\\0041'",
        "\u{202e}abc",
        " leading",
        "trailing ",
    ];
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text, b text)");
    pair.exec_both("create table by_text (id text primary key, a text)");
    pair.create_triggers();
    let mut master = pair.master();
    for (i, text) in (0..).zip(awkward) {
        master.execute("insert into t values ($1, $2, null)", &[&i, &text]).unwrap();
        master.execute("insert into by_text values ($1, null)", &[&text]).unwrap();
    }
    drains(&pair);
    pair.run("update t set b = a, a = null; update by_text set a = id");
    drains(&pair);
    pair.run("update t set a = b, b = ''; update by_text set id = id || 'x'");
    drains(&pair);
    pair.run("update t set a = '' where a is not null; delete from by_text");
    drains(&pair);
}

#[test]
fn rows_of_many_megabytes_are_replayed() {
    replays_each(
        PEOPLE,
        &[
            "insert into people select i, repeat('quote '' and \\ ', 400000), i, null from generate_series(1, 3) i",
            "update people set note = name",
            "delete from people where id = 2",
        ],
    );
}

#[test]
fn a_transaction_of_many_rows_is_replayed_whole() {
    replays_each(
        PEOPLE,
        &[
            "insert into people select i, 'person ' || i, i % 90, null from generate_series(1, 30000) i",
            "update people set age = age + 1; delete from people where id % 7 = 0",
        ],
    );
}

// == TRUNCATE ==

#[test]
fn truncate_empties_the_table_on_the_slave() {
    replays_each(PEOPLE, &[TEN, "truncate people; insert into people values (1, 'after', 1, null)"]);
}

#[test]
fn truncate_cascade_empties_the_referencing_tables_too() {
    replays_each(
        "create table parent (id int primary key);
         create table child (id int primary key, parent int references parent)",
        &[
            "insert into parent select generate_series(1, 5); insert into child select i, i from generate_series(1, 5) i",
            "truncate parent cascade",
            "insert into parent values (7); insert into child values (7, 7)",
        ],
    );
}

#[test]
fn truncate_of_several_tables_that_refer_to_each_other_is_replayed() {
    replays_each(
        "create table parent (id int primary key);
         create table child (id int primary key, parent int references parent)",
        &[
            "insert into parent values (1); insert into child values (1, 1)",
            "truncate child, parent",
            "insert into parent values (2)",
        ],
    );
}

#[test]
fn truncate_restart_identity_keeps_both_sides_equal() {
    replays_each(
        "create table t (id int generated by default as identity primary key, a text)",
        &["insert into t(a) values ('a'), ('b')", "truncate t restart identity", "insert into t(a) values ('c')"],
    );
}
