//! Filters and transforms in SQL: what the slave gets to see is decided on the master, row by row, as the tables
//! py_log_filter and py_log_transform say. tests/filter_python.rs has the same in Python.

use crate::harness::{Pair, Script, quietly, refusal, refused, told};
use std::path::Path;

const GOODS: &str = "create table goods (id int primary key, name text, price numeric)";

/// Ids and prices on the slave.
const SOLD: &str = "select id || ':' || price from goods order by id";

fn goods() -> Pair {
    let pair = Pair::new();
    pair.exec_both(GOODS);
    pair.create_triggers();
    pair
}

fn filter(pair: &Pair, relname: &str, event: &str, condition: &str) {
    let condition = condition.replace('\'', "''");
    let values = format!("('{relname}', '{event}', '{condition}')");
    pair.run(&format!("insert into py_log_filter (relname, event, condition) values {values}"));
}

fn transform(pair: &Pair, relname: &str, field: &str, expression: &str) {
    let expression = expression.replace('\'', "''");
    let values = format!("('{relname}', '{field}', '{expression}')");
    pair.run(&format!("insert into py_log_transform (relname, field, expression) values {values}"));
}

// == Filters ==

#[test]
fn a_condition_for_insert_keeps_other_rows_off_the_slave() {
    let pair = goods();
    filter(&pair, "goods", "INSERT", "new.price > 10");
    pair.run(
        "insert into goods select i, 'x', i * 5 from generate_series(1, 4) i; insert into goods values (5, 'y', null)",
    );
    assert_eq!(pair.logged(), 2);
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["3:15", "4:20"]);
    pair.run("update goods set name = 'changed'; delete from goods where id in (1, 3)");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id || name from goods"), ["4changed"]);
}

#[test]
fn an_update_into_the_filter_inserts_and_one_out_of_it_deletes() {
    let pair = goods();
    filter(&pair, "goods", "INSERT", "new.price > 10");
    pair.run("insert into goods values (1, 'in', 11), (2, 'out', 1)");
    quietly(&pair);
    pair.run("update goods set price = 12 - price");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id || name || price from goods"), ["2out11"]);
    pair.run(
        "update goods set price = 5; update goods set price = 50, id = id + 10; update goods set id = 3 where id = 11",
    );
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["3:50", "12:50"]);
}

#[test]
fn a_condition_for_update_withholds_changes_until_one_passes_with_the_whole_row() {
    let pair = goods();
    filter(&pair, "goods", "UPDATE", "new.name = 'final' and old.price is not null");
    pair.run("insert into goods values (1, 'draft', 1), (2, 'draft', 2)");
    pair.run("update goods set price = price + 10");
    pair.run("update goods set name = 'better'");
    quietly(&pair);
    assert_eq!(pair.on_slave("select name || price from goods order by id"), ["draft1", "draft2"]);
    pair.run("update goods set name = 'final' where id = 2");
    quietly(&pair);
    assert_eq!(pair.on_slave("select name || price from goods order by id"), ["draft1", "final12"]);
}

#[test]
fn a_condition_for_delete_lets_the_slave_keep_rows() {
    let pair = goods();
    filter(&pair, "goods", "DELETE", "old.price < 10");
    pair.run("insert into goods values (1, 'cheap', 1), (2, 'dear', 20); delete from goods");
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["2:20"]);
    pair.run("truncate goods");
    quietly(&pair);
    assert_eq!(pair.on_slave("select count(*) from goods"), ["0"]);
}

#[test]
fn conditions_of_one_table_and_event_are_anded() {
    let pair = goods();
    pair.exec_both("create schema other; create table other.goods (id int primary key, price numeric)");
    pair.create_triggers_in("other");
    filter(&pair, "goods", "INSERT", "new.price > 10");
    filter(&pair, "goods", "INSERT", "new.id <> 2 -- a remark");
    filter(&pair, "other.goods", "INSERT", "new.price < 100");
    pair.run("insert into goods values (1, '', 5), (2, '', 50), (3, '', 500)");
    pair.run("insert into other.goods values (1, 5), (2, 50), (3, 50), (4, 500)");
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["3:500"]);
    assert_eq!(pair.on_slave("select id from other.goods"), ["3"]);
    pair.run("delete from py_log_filter where condition !~ 'price > 10'; insert into goods values (4, '', 20)");
    pair.run("truncate py_log_filter; insert into goods values (5, '', 0)");
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["3:500", "4:20", "5:0"]);
}

#[test]
fn a_condition_may_look_into_other_tables() {
    let pair = goods();
    pair.run("create table wanted (relname text, key int); insert into wanted values ('goods', 2)");
    filter(&pair, "goods", "INSERT", "new.id in (select key from public.wanted where relname = 'goods')");
    pair.run("insert into goods values (1, '', 1), (2, '', 2)");
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["2:2"]);
}

#[test]
fn a_condition_that_fails_replicates_the_row_and_says_so_on_the_slaves_side() {
    let pair = goods();
    filter(&pair, "goods", "INSERT", "100 / new.price > 10");
    pair.run("insert into goods values (1, 'in', 5), (2, 'fails', 0), (3, 'out', 50), (4, 'fails', 0)");
    let finished = told(&pair);
    assert_eq!(finished.count("failed with SQLSTATE 22012, the change is replicated"), 1, "{}", finished.output);
    assert_eq!(finished.count("2 changes from"), 1, "{}", finished.output);
    assert_eq!(pair.on_slave(SOLD), ["1:5", "2:0", "4:0"]);
    assert!(pair.master_server().log().contains("of table goods (100 / new.price > 10) failed: division by zero"));
    // A row that was not there arrives, whatever the statement was.
    pair.run("update goods set price = 0 where id = 3");
    told(&pair);
    assert_eq!(pair.on_slave(SOLD), ["1:5", "2:0", "3:0", "4:0"]);
    pair.run("update py_log_filter set on_error = 'raise'");
    refused(&pair, "insert into goods values (9, '', 0)", "division by zero");
    pair.run("insert into goods values (9, '', 1)");
}

#[test]
fn what_cannot_be_a_condition_is_refused_when_it_is_written() {
    let pair = goods();
    let refuses = |event: &str, condition: &str, reason: &str| {
        let values = format!("('goods', '{event}', '{condition}')");
        refused(&pair, &format!("insert into py_log_filter (relname, event, condition) values {values}"), reason);
    };
    refuses("INSERT", "new.price >", "syntax error");
    refuses("INSERT", "new.nonsense > 1", "nonsense");
    refuses("INSERT", "price > 1", "price");
    refuses("INSERT", "new.price", "must be type boolean");
    refuses("INSERT", "old.price > 1", "old");
    refuses("DELETE", "new.price > 1", "new");
    refuses("TRUNCATE", "true", "check constraint");
    refuses("INSERT", "new[\"price\"] > 1", "does not fit table");
    assert_eq!(pair.on_master("select count(*) from py_log_filter"), ["0"]);
}

#[test]
fn filters_follow_alter_table_in_sessions_that_are_open() {
    let pair = goods();
    filter(&pair, "goods", "INSERT", "new.price > 10");
    filter(&pair, "goods", "UPDATE", "new.price <> old.price");
    transform(&pair, "goods", "name", "upper(new.name) || new.price");
    let mut session = pair.master();
    let mut run = |sql: &str| session.batch_execute(sql).unwrap();
    run("insert into goods values (1, 'a', 11), (2, 'a', 1)");
    run("update goods set price = 12 where id = 1");
    for sql in [
        "alter table goods alter price type float8",
        "alter table goods add extra int",
        "alter table goods alter name type varchar(20)",
    ] {
        pair.exec_both(sql);
        run("insert into goods values (3, 'b', 12.5), (4, 'b', 2.5)");
        run("update goods set price = 20.5 where id = 3; update goods set name = 'c' where id = 3");
        run("delete from goods where id > 2");
    }
    run("insert into goods values (3, 'b', 13.5, 7)");
    pair.exec_both("alter table goods drop extra");
    run("update goods set price = 21.5 where id = 3");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id || name || price from goods order by id"), ["1A1212", "3B21.521.5"]);
}

#[test]
fn partitions_are_filtered_by_the_name_of_the_whole_table() {
    let pair = Pair::new();
    pair.exec_both(
        "create table p (id int primary key, a text) partition by range (id);
         create table p1 partition of p for values from (0) to (10)",
    );
    pair.run("select py_log_create_tg('p')");
    filter(&pair, "p", "INSERT", "new.a <> 'no'");
    transform(&pair, "public.p", "a", "upper(new.a)");
    pair.exec_both(
        "create table p2 (a text, id int primary key); alter table p attach partition p2 for values from (10) to (20)",
    );
    pair.run(
        "insert into p values (1, 'yes'), (2, 'no'), (11, 'yes'), (12, 'no');
         update p set a = 'also' where id in (2, 11)",
    );
    quietly(&pair);
    assert_eq!(pair.on_slave("select id || a from p order by id"), ["1YES", "2ALSO", "11ALSO"]);
}

#[test]
fn a_trigger_made_by_hand_is_filtered_too() {
    let pair = Pair::new();
    filter(&pair, "later", "INSERT", "new.a > 10");
    pair.exec_both("create table later (k int, a int)");
    pair.run(
        "create trigger t after insert or update or delete on later
         for each row execute function py_log_replica('later', 'k')",
    );
    pair.run(
        "insert into later values (1, 1), (2, 20), (3, 3);
         update later set a = 11 where k = 3; delete from later where k = 1",
    );
    quietly(&pair);
    assert_eq!(pair.on_slave("select k from later order by 1"), ["2", "3"]);
    refused(
        &pair,
        "insert into py_log_transform (relname, field, expression) values ('later', 'k', '1')",
        "part of the key",
    );
}

// == Transforms ==

#[test]
fn values_are_replaced_and_columns_left_out_on_their_way() {
    let pair = Pair::new();
    pair.exec_both("create table people (id int primary key, email text, paid numeric(10,4), born date)");
    pair.run("alter table people add secret text");
    pair.create_triggers();
    transform(&pair, "people", "email", "regexp_replace(new.email, '^[^@]*', 'x')");
    transform(&pair, "people", "paid", "round(new.paid)");
    transform(&pair, "people", "born", "date_trunc('year', new.born)::date");
    pair.run("insert into py_log_transform (relname, field) values ('people', 'secret')");
    pair.run("insert into people values (1, 'ada@a.org', 12.34, '1815-12-10', 's'), (2, null, null, null, null)");
    quietly(&pair);
    let rows = "select concat_ws(' ', id, email, paid, born) from people order by id";
    assert_eq!(pair.on_slave(rows), ["1 x@a.org 12.0000 1815-01-01", "2"]);
    // What the slave doesn't see changing isn't logged; what it does see is compared by what was sent before.
    pair.run("update people set email = 'other@a.org', secret = 't', paid = 12.0001 where id = 1");
    assert_eq!(pair.logged(), 0);
    pair.run(
        "set datestyle = 'German';
         update people set email = 'b@b.org', paid = 99.9, born = '11.11.1911'; delete from people where id = 2",
    );
    quietly(&pair);
    assert_eq!(pair.on_slave(rows), ["1 x@b.org 100.0000 1911-01-01"]);
    pair.run("update people set email = repeat('y', 5000) || '@c.org'");
    pair.run("update people set born = '2000-02-02'");
    quietly(&pair);
    assert_eq!(pair.on_slave(rows), ["1 x@c.org 100.0000 2000-01-01"]);
}

#[test]
fn a_key_is_not_transformed() {
    let pair = goods();
    refused(
        &pair,
        "insert into py_log_transform (relname, field, expression) values ('goods', 'id', '1')",
        "part of the key",
    );
    refused(&pair, "insert into py_log_transform (relname, field) values ('goods', 'id')", "part of the key");
    refused(&pair, "insert into py_log_transform (relname, field) values ('goods', 'nonsense')", "has no column");
    pair.run("insert into py_log_transform (relname, field) values ('later', 'id')");
    pair.run("create table later (id int primary key)");
    refused(&pair, "select py_log_create_tg('later')", "part of the key");
}

#[test]
fn a_value_whose_transform_fails_does_not_leave_the_master() {
    let pair = goods();
    transform(&pair, "goods", "name", "new.name::int * 2");
    pair.run("insert into goods values (1, '4', 1), (2, 'secret', 2)");
    let finished = told(&pair);
    assert_eq!(finished.count("failed with SQLSTATE 22P02, NULL is sent for name"), 1, "{}", finished.output);
    assert_eq!(finished.count("secret"), 0, "{}", finished.output);
    assert_eq!(pair.on_slave("select coalesce(name, 'nothing') from goods order by id"), ["8", "nothing"]);
    // A renamed column is not sent under the name that nobody protects.
    pair.run("update py_log_transform set on_error = 'raise'; alter table goods rename name to nick");
    refused(&pair, "insert into goods values (3, '4', 1)", "transform");
}

// == Whose rights ==

#[test]
fn only_the_owner_writes_filters_and_no_search_path_bends_them() {
    let pair = goods();
    filter(&pair, "goods", "INSERT", "new.price > 10");
    let role = format!("{}_app", pair.name);
    pair.run(&format!(
        "create role \"{role}\"; grant insert on goods to \"{role}\"; create schema evil authorization \"{role}\""
    ));
    for table in ["py_log_filter", "py_log_transform"] {
        refused(&pair, &format!("set role \"{role}\"; delete from {table}"), "permission denied");
        refused(&pair, &format!("set role \"{role}\"; select * from {table}"), "permission denied");
    }
    pair.run(&format!(
        "set role \"{role}\";
         create function evil.gt(numeric, numeric) returns boolean language plpgsql as
             'begin raise exception ''as %'', current_user; end';
         create operator evil.> (leftarg = numeric, rightarg = numeric, function = evil.gt);
         create function evil.eq(text, text) returns boolean language plpgsql as
             'begin raise exception ''as %'', current_user; end';
         create operator evil.= (leftarg = text, rightarg = text, function = evil.eq);
         set search_path = evil, pg_catalog;
         insert into public.goods values (1, 'in', 11), (2, 'out', 1)"
    ));
    quietly(&pair);
    assert_eq!(pair.on_slave(SOLD), ["1:11"]);
    pair.run(&format!("drop owned by \"{role}\"; drop role \"{role}\""));
}

// == Installing ==

#[test]
fn installing_again_keeps_filters_and_uninstalling_removes_them() {
    let pair = goods();
    filter(&pair, "goods", "INSERT", "new.price > 10");
    let (server, db) = (pair.master_server(), pair.master_db());
    server.psql(&db, &Script::Master.path());
    pair.run("insert into goods values (1, 'in', 11), (2, 'out', 1)");
    assert_eq!(pair.logged(), 1);
    assert_eq!(
        pair.on_master("select py_log_create_tg('py_log_filter')"),
        ["table py_log_filter is pyreplica's own (couldn't be replicated)!"]
    );
    server.psql(&db, &Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/master-uninstall.sql"));
    pair.run("insert into goods values (3, '', 3)");
    let left = "select proname from pg_proc where proname ~ '^py_log'
         union all select relname from pg_class where relname ~ '^(py_log|replica)_'";
    assert!(pair.on_master(left).is_empty(), "{:?}", pair.on_master(left));
}

/// Symptom: a filter on such a column withheld every row, and a slave that does not compute the column got NULL silently.
/// Cause: PostgreSQL computes it when a query reads the table, not for triggers.
#[test]
fn a_virtual_generated_column_has_its_value_in_filters_and_is_not_taken_for_null() {
    let pair = Pair::new();
    if pair.version() < 18 {
        return;
    }
    pair.exec_both(
        "create table t (a int primary key, b int generated always as (a * 2) virtual, c text);
         create table u (a int primary key, b int generated always as (a * 2) virtual)",
    );
    pair.create_triggers();
    pair.run(
        "insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.b > 10');
         insert into py_log_transform (relname, field, expression) values ('t', 'c', 'new.c || new.b')",
    );
    pair.run("insert into t (a, c) values (2, 'x'), (3000, 'y'); insert into u values (1)");
    pair.run("update t set a = 7 where a = 2; update t set a = 1 where a = 3000");
    quietly(&pair);
    assert_eq!(pair.on_slave("select c || b from t"), ["x1414"]);
    pair.run_on_slave("alter table u drop b; alter table u add b int");
    pair.run("insert into u values (2)");
    let said = refusal(&pair);
    assert!(said.contains("the master computes the column b of \"u\" when it is read"), "{said}");
    pair.run_on_slave("alter table u drop b; alter table u add b int generated always as (a * 2) virtual");
    pair.once();
    assert_eq!(pair.on_slave("select sum(b) from u"), ["6"]);
}

/// Symptom: who wrote a row with standard_conforming_strings off, or with another DateStyle, decided what a filter and a transform read.
#[test]
fn a_session_does_not_decide_how_filters_and_transforms_are_read() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, phone text, day date)");
    pair.create_triggers();
    pair.run(
        "insert into py_log_transform (relname, field, expression) values ('t', 'phone', 'regexp_replace(new.phone, ''\\d'', ''x'', ''g'')');
         insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.day::text like ''2026%''')",
    );
    pair.run("set standard_conforming_strings = off; set datestyle = 'German'; insert into t values (1, '555', '01.02.2026'), (2, '1', '01.02.2025')");
    pair.once();
    assert_eq!(pair.on_slave("select id || phone from t"), ["1xxx"]);
}
