//! Capture by statement: the same log as by row, and by row wherever the rows of a statement can't be logged all at once.

use crate::harness::{Pair, drains};
use postgres::SimpleQueryMessage;

/// A pair with `schema` on both sides, and every table captured at the level.
fn pair_with(schema: &str, level: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(schema);
    pair.create_triggers();
    capture(&pair, level);
    pair
}

/// Captures every table that has triggers at the level.
fn capture(pair: &Pair, level: &str) {
    pair.run(&format!(
        "select py_log_create_tg(relname, '{level}') from pg_class
          where oid in (select tgrelid from pg_trigger where tgname = '!replica_tg') and not relispartition"
    ));
}

/// Whether the statement is captured row by row. It is taken back.
fn by_row(pair: &Pair, statement: &str) -> bool {
    let explained = pair.master().simple_query(&format!("begin; explain (analyze, costs off) {statement}; rollback"));
    let explained: Vec<String> = explained
        .unwrap()
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
            _ => None,
        })
        .collect();
    let by_row = explained.iter().any(|line| line.starts_with("Trigger !replica_tg"));
    let at_once =
        explained.iter().any(|line| line.starts_with("Trigger !replica_") && !line.contains("_tg: time=0.000"));
    assert!(by_row || at_once, "captured at all: {explained:#?}");
    by_row
}

/// The log without what two runs need not have in common, as the place of a row in its table.
fn log(pair: &Pair) -> Vec<String> {
    pair.on_master("select concat_ws(' | ', relation, event, old, new, sql, origin) from replica_log order by 1")
}

// == The same log ==

const SCHEMA: &str = r#"
    create table t (id int primary key, gone int, n numeric, x text, before int default 5, "after" float8, old_name text);
    alter table t drop column gone;
    create table "Odd ""name" (x int, n int, relation text, target text, twice int generated always as (n * 2) stored,
        number int generated always as identity, primary key (n, x));
    create table child (id serial primary key, t int references t, later int unique deferrable initially deferred);
    create table wide (id int primary key, a text, b text, c int)"#;

const LOAD: &[&str] = &[
    "insert into t(id, n, x, old_name) select i, i / 7.0, 'x' || i, null from generate_series(1, 300) i",
    "insert into t values (301, 'NaN', e'a\"=>\\'b\\\\', null, '-0', ''), (302, 1.0, null, 1, 0.1::float8 + 0.2, 'x')",
    "update t set id = id - 1 where id <= 300",
    "update t set n = n + 1, after = id / 3.0 where id % 3 = 0",
    "update t set n = n; update t set n = 1.00 where id = 302; update t set x = 'none' where false",
    "update t set x = null, before = null where id < 9",
    "delete from t where id > 250; delete from t where id > 250",
    "insert into t(id) values (1), (9001) on conflict do nothing",
    "insert into t(id) values (0), (9002) on conflict (id) do update set id = 9100 + t.id, x = excluded.x || 'y'",
    "insert into t(id) values (9003), (1), (9004) on conflict (id) do update set id = 9200",
    "with d as (delete from t where id = 2 returning *) insert into t(id, x) select id, 'again' from d",
    "with u as (update t set x = 'with' where id between 3 and 5 returning id) update t set n = 0 where id > 9000",
    "insert into t(id) select id + 10000 from t where id < 50",
    "copy t(id) from program 'seq 20001 20100'",
    "insert into \"Odd \"\"name\"(x, n) select i, i + 1 from generate_series(1, 20) i",
    "update \"Odd \"\"name\" set n = n - 1, x = x + 1; delete from \"Odd \"\"name\" where x % 2 = 0",
    "insert into child(t, later) select id, id from t where id < 100 order by id; update child set later = 101 - later",
    "update child set t = null where id < 10; delete from child where id > 90",
    "insert into wide select i, (select string_agg(md5(j::text), '') from generate_series(i, i + 90) j), 'b', 0
       from generate_series(1, 3) i",
    "update wide set c = c + 1; update wide set id = id - 1, b = null; update wide set a = a || a where id = 1",
    "alter table t rename old_name to new_name",
    "update t set new_name = 'renamed' where id < 20; alter table t add column added date default '2024-02-29'",
    "set datestyle = german; update t set added = added + 1 where id < 5",
    "set pyreplica.origin = 'elsewhere'; update t set added = added + 1 where id < 5",
    "truncate child, t",
];

#[test]
fn both_levels_log_the_same_rows() {
    let pairs = ["row", "statement"].map(|level| pair_with(SCHEMA, level));
    for load in LOAD {
        for pair in &pairs {
            pair.run(load);
        }
        let [by_row, at_once] = [log(&pairs[0]), log(&pairs[1])];
        for (one, other) in by_row.iter().zip(&at_once) {
            assert_eq!(one, other, "{load}");
        }
        assert_eq!(by_row.len(), at_once.len(), "{load}");
    }
    assert!(by_row(&pairs[0], "insert into wide values (9)"));
    for statement in ["insert into wide values (9)", "update t set x = 'y'", "delete from child"] {
        assert!(!by_row(&pairs[1], statement), "{statement}");
    }
}

#[test]
fn what_is_logged_at_once_is_replayed() {
    let pair = pair_with(SCHEMA, "statement");
    for load in LOAD.iter().filter(|load| !load.contains("alter") && !load.contains("added")) {
        pair.run(&load.replace("new_name", "old_name"));
        drains(&pair);
    }
}

#[test]
fn the_rows_of_a_large_statement_pair_up() {
    let pair = pair_with("create table t (id int primary key, v int, pad text)", "statement");
    pair.run("insert into t select i, i, repeat('x', 50) from generate_series(1, 30000) i order by random()");
    drains(&pair);
    pair.run("set work_mem = '64kB'; update t set id = id + 1000000, v = v + 1");
    let wrong = "select count(*) from replica_log where event = 'U' and not (new @> hstore(array['id', 'v'],
                 array[((old -> 'id')::int + 1000000)::text, ((old -> 'v')::int + 1)::text]))";
    assert_eq!(pair.on_master(wrong), ["0"]);
    drains(&pair);
}

#[test]
fn merge_is_logged_so_that_a_key_is_free_before_it_is_taken() {
    for level in ["row", "statement"] {
        let pair = pair_with("create table t (id int primary key, a text)", level);
        if pair.version() < 15 {
            return;
        }
        pair.run("insert into t select i, 'first' from generate_series(1, 9) i");
        drains(&pair);
        pair.run(
            "merge into t using (values (1, 'd', 0), (20, 'i', 1), (2, 'u', 10), (21, 'i', 2), (10, 'i', 10)) s (id, a, k)
                on t.id = s.id
              when matched and s.a = 'd' then delete
              when matched then update set id = 30, a = 'merged'
              when not matched then insert values (s.k, 'new')",
        );
        drains(&pair);
    }
}

/// The INSERT takes a key that the DELETE, which ends after it, has freed a moment before.
#[test]
fn parts_of_a_with_that_run_side_by_side_are_logged_so_that_they_fit() {
    for level in ["row", "statement"] {
        let pair = pair_with("create table t (id int primary key, a text)", level);
        pair.run("insert into t values (1, 'old'), (2, 'old'), (3, 'old')");
        drains(&pair);
        let with = "with i as (insert into t select v, 'new' from (values (7), (1)) v(v) returning id)";
        let on = "from (select id, case id when 7 then 1 else -1 end as k from i offset 0) i where t.id = i.k";
        pair.run(&format!(
            "set enable_hashjoin = off; set enable_mergejoin = off; {with} delete from t using {}",
            &on[5..]
        ));
        assert_eq!(pair.on_master("select a from t where id = 1"), ["new"]);
        drains(&pair);
        pair.run(&format!(
            "set enable_hashjoin = off; set enable_mergejoin = off;
             delete from t where id = 7; {} update t set id = 40 {on}; delete from t where id = 40",
            with
        ));
        assert_eq!(pair.on_master("select a from t where id = 1"), ["new"]);
        drains(&pair);
    }
}

// == By row where it must be ==

const PARENTS: &str = "create table t (id int primary key, v int, up int); create table c (id int primary key, t int)";

/// What is added to the tables later, on the master alone, and a load for which at once would be wrong.
const HAZARDS: &[(&str, &str, &str)] = &[
    (
        "an AFTER ROW trigger that writes to the same rows",
        "create function f() returns trigger language plpgsql as
             'begin update t set v = v + 100 where id = new.id; return null; end';
         create trigger z after insert on t for each row execute function f()",
        "insert into t values (101, 1), (102, 2); update t set v = 0 where id = 101",
    ),
    (
        "a BEFORE ROW trigger that makes room",
        "create function f() returns trigger language plpgsql as
             'begin delete from t where id = new.id; return new; end';
         create trigger a before insert on t for each row execute function f()",
        "insert into t select i, -i from generate_series(1, 5) i",
    ),
    (
        "a BEFORE ROW trigger that writes to another table",
        "create function f() returns trigger language plpgsql as
             'begin insert into c values (new.id, new.id) on conflict (id) do update set t = null; return new; end';
         create trigger a before insert or update on t for each row execute function f()",
        "insert into t values (101, 1), (102, 2); update t set v = v + 1",
    ),
    (
        "a foreign key with a cascade",
        "alter table c add foreign key (t) references t on delete cascade on update cascade",
        "delete from t where id = 1; update t set id = id + 50; delete from t where id > 57",
    ),
    (
        "a foreign key of the table to itself",
        "alter table t add foreign key (up) references t on delete cascade on update cascade",
        "update t set up = id - 1 where id > 1; update t set id = id + 100 where id = 1; delete from t where id = 4",
    ),
];

#[test]
fn what_is_added_to_a_table_later_never_breaks_the_order() {
    for level in ["row", "statement"] {
        for (hazard, addition, load) in HAZARDS {
            let pair = pair_with(PARENTS, level);
            let mut session = pair.master();
            let filling = "insert into t select i, i from generate_series(1, 9) i; insert into c select id, id from t";
            session.batch_execute(filling).unwrap();
            assert_eq!(by_row(&pair, "update t set v = 0"), level == "row", "{hazard}");
            drains(&pair);
            // In the session that has all plans, and in the transaction that has already written to the table.
            session.batch_execute(&format!("begin; update t set v = v + 1; {addition}; {load}; commit")).unwrap();
            assert!(by_row(&pair, "insert into t values (1001)"), "{hazard}");
            drains(&pair);
        }
    }
}

#[test]
fn filters_and_transforms_apply_from_the_next_statement_on() {
    let pair = pair_with(PARENTS, "statement");
    pair.run("insert into t select i, i from generate_series(1, 9) i");
    drains(&pair);
    pair.run("insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.v < 100')");
    pair.run("insert into py_log_transform (relname, field, expression) values ('public.c', 't', 'new.t + 1')");
    pair.run("update t set v = 100 where id < 3; insert into t values (20, 200); insert into c values (1, 1), (2, 2)");
    pair.once();
    assert_eq!(pair.on_slave("select string_agg(id::text, ' ' order by id) from t"), ["3 4 5 6 7 8 9"]);
    assert_eq!(pair.on_slave("select string_agg(t::text, ' ' order by id) from c"), ["2 3"]);
}

#[test]
fn statements_inside_a_statement_are_logged_each() {
    for level in ["row", "statement"] {
        let pair = pair_with(PARENTS, level);
        pair.run("insert into t select i, i from generate_series(1, 9) i");
        drains(&pair);
        pair.run(
            "create function more(i int) returns int language plpgsql as
                 $$ begin insert into t values (i + 100, 0); update t set up = i where id = i + 100; return i; end $$;
             update t set v = more(id) + 1 where id < 6; update t set v = 3 where id = 101;
             delete from t where id in (2, 3) and more(id + 10) > 0; insert into t select more(50)",
        );
        drains(&pair);
    }
}

#[test]
fn what_is_rolled_back_inside_a_transaction_leaves_no_trace() {
    let pair = pair_with(PARENTS, "statement");
    pair.run(
        "begin; insert into t select i, i from generate_series(1, 9) i;
         do $$ begin
             begin update t set v = 100 / (5 - id); exception when division_by_zero then null; end;
             begin update t set id = 1; exception when unique_violation then null; end;
             begin insert into t values (10); raise unique_violation; exception when unique_violation then null; end;
             update t set v = -1 where id = 9;
         end $$;
         savepoint a; update t set v = v + 1; rollback to a; delete from t where id = 8;
         declare cur cursor for select * from t where id = 7 for update; fetch cur; update t set v = 70 where current of cur;
         commit",
    );
    assert_eq!(pair.logged(), 9 + 3);
    assert!(!by_row(&pair, "update t set v = 0"));
    drains(&pair);
}

#[test]
fn children_partitions_and_hand_made_triggers_go_by_row() {
    let pair = pair_with(
        "create table t (id int primary key, v int); create table plain (id int primary key, v int)",
        "statement",
    );
    pair.run("insert into t select i, i from generate_series(1, 9) i; insert into plain values (1, 1)");
    pair.exec_both("create table child (more text, primary key (id)) inherits (t)");
    pair.create_triggers();
    pair.run("insert into child values (100, 0, 'more'); update t set v = v + 1; delete from t where id in (1, 100)");
    drains(&pair);
    pair.exec_both("create table p (id int primary key, v int) partition by range (id)");
    pair.exec_both("create table p1 partition of p for values from (0) to (1000)");
    assert_eq!(pair.on_master("select py_log_create_tg('p', 'statement')"), ["created trigger on p (id)"]);
    pair.run("insert into p select i, i from generate_series(1, 9) i; update p1 set v = 0");
    drains(&pair);
    assert!(by_row(&pair, "update p set v = 1"));
}

/// As in a ring: what a daemon replays there is logged, too. In its role only triggers run that do ALWAYS.
#[test]
fn a_trigger_that_is_enabled_always_logs_what_is_replayed() {
    let pair = pair_with(PARENTS, "statement");
    pair.run("alter table t enable always trigger \"!replica_tg\"");
    pair.run(
        "insert into t values (1, 1), (2, 2); set session_replication_role = replica; update t set v = 3;
         set session_replication_role = origin; update t set v = 4 where id = 1",
    );
    assert_eq!(pair.logged(), 5);
    capture(&pair, "row");
    pair.run("set session_replication_role = replica; update t set v = 5");
    drains(&pair);
}

// == Choosing a level ==

#[test]
fn a_level_is_chosen_by_table_and_kept() {
    let pair = Pair::new();
    pair.run(
        "create table t (id int primary key); create schema t; create table t.row (id int primary key);
         create schema s; create table s.t2 (id int primary key); create table s.row (id int primary key);
         create table none (id int)",
    );
    let level = |table: &str| {
        let triggers =
            format!("select count(*) from pg_trigger where tgrelid = '{table}'::regclass and not tgisinternal");
        match pair.on_master(&triggers)[0].as_str() {
            "2" => "row",
            "6" => "statement",
            _ => "none",
        }
    };
    let say = |arguments: &str| pair.on_master(&format!("select py_log_create_tg({arguments})"))[0].clone();
    assert_eq!(say("'t'"), "created trigger on t (id)");
    assert_eq!(level("public.t"), "row");
    assert_eq!(say("'t', 'statement'"), "created trigger on t (id)");
    assert_eq!(level("public.t"), "statement");
    assert_eq!(say("'t'"), "created trigger on t (id)");
    assert_eq!(level("public.t"), "statement");
    assert_eq!(say("'public', 't', 'row'"), "created trigger on t (id)");
    assert_eq!(level("public.t"), "row");
    assert_eq!(say("'none', 'statement'"), "table none has no pk constraint (couldn't be replicated)!");
    // Schema and table, of which there is no other reading.
    assert_eq!(say("'s', 'row'"), "created trigger on row (id)");
    assert_eq!((level("s.row"), level("t.row")), ("row", "none"));
    assert_eq!(say("'s', 't2', 'statement'"), "created trigger on t2 (id)");
    assert_eq!(level("s.t2"), "statement");
    for (arguments, said) in [
        ("'t', 'row'", "t may be a table's schema or a table"),
        ("'public', 't', 'column'", "there is no level column"),
        ("'t', 'rows'", "table t.rows does not exist"),
    ] {
        let error = pair.master().batch_execute(&format!("select py_log_create_tg({arguments})")).unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), said);
    }
}

/// Symptom: an UPDATE of 100,000 rows took half an hour in a session that had updated single rows before.
/// Cause: the trigger's query stays planned as it was for one row, each old row compared to each new one.
#[test]
fn a_large_update_after_a_small_one_compares_no_row_to_all_others() {
    let pair = pair_with("create table t (id int primary key, a int)", "statement");
    let mut client = pair.master();
    client.batch_execute("insert into t select i, 0 from generate_series(1, 60000) i; truncate replica_log").unwrap();
    for _ in 0..7 {
        client.batch_execute("update t set a = a + 1 where id = 1").unwrap();
    }
    // Some two hundred times as long as it takes.
    client.batch_execute("set statement_timeout = '100s'; update t set a = a + 1").unwrap();
    assert_eq!(pair.logged(), 60007);
}
