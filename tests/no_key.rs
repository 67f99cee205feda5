//! Tables without a primary key: REPLICA IDENTITY USING INDEX, whose columns are the key, and FULL, where the whole old row says
//! which row is meant.

use crate::harness::{Pair, assert_says, drains, drains_at_once, psql, run};
use std::process::Command;
use std::thread;

/// Any type, also some without an operator for equality, which no key could have.
const ANY_TYPE: &str =
    "create type mood as enum ('so so', '\"fine\"', 'it''s'); create domain few as int[] check (cardinality(value) < 4);
     create domain short as varchar(7); create type pair as (a text, b numeric(5,1));
     create table t (n int, words text[], b box, p point, m mood, f few, s short, r pair, c char(5), v varchar(4), j json, jb jsonb,
         x xml, by bytea, num numeric(6,2), d float8, e real, z timestamptz, u uuid, poly polygon, i interval,
         g int generated always as (n * 2) stored);
     alter table t replica identity full";
const INSERT: &str = r#"insert into t select i / 2, array['a,b', null, 'it''s', '"\', '', 'NULL'], '(3,3),(1,1)', '(0.1,-0)', '"fine"',
        array[i / 2, 2], 'it''s', row('x "y" (z', 1.25)::pair, 'ab', 'it''s', '{"k":  "\"\\"}', '{"k": "\"\\"}',
        '<a b="c">d</a>', '\x005c22', i / 2 / 3.0, 0.1 * (i / 2), 'NaN', '2026-03-29 02:30+02', md5((i / 2)::text)::uuid,
        '((0,0),(1,1.5))', '1 mon -3 days'"#;

/// Both sides have this table, without a key, and it is logged.
fn pair_with(table: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(table);
    pair.exec_both("alter table t replica identity full");
    assert_eq!(pair.create_triggers(), ["created trigger on t (replica identity full)"]);
    pair
}

const T: &str = "create table t (a int, b text, c text)";

fn rows(pair: &Pair) -> String {
    pair.on_slave("select count(*) from t").remove(0)
}

#[test]
fn single_changes_find_one_row_each_among_equal_ones_and_nulls() {
    let pair = pair_with(T);
    pair.run(
        "insert into t values (1, 'x', null), (1, 'x', null), (1, 'x', ''), (null, null, null), (null, null, null)",
    );
    drains_at_once(&pair);
    for change in [
        "delete from t where ctid = (select min(ctid) from t where c is null and a = 1)",
        "update t set c = 'new' where ctid = (select min(ctid) from t where a is null)",
        "update t set a = null, b = null where c = ''",
        "update t set a = 7 where a is null and c is null",
        "delete from t where c = 'new'",
        "insert into t values (1, 'x', null)",
        "delete from t where a = 1",
        "truncate t",
    ] {
        pair.run(change);
        drains_at_once(&pair);
    }
}

#[test]
fn rows_of_any_type_are_found() {
    let pair = Pair::new();
    pair.exec_both(ANY_TYPE);
    pair.create_triggers();
    pair.run(&format!("{INSERT} from generate_series(1, 60) i"));
    drains_at_once(&pair);
    // By sets, from another time zone than the one in which the rows were written.
    pair.run("set timezone = 'Asia/Tokyo'; update t set j = '{}', p = '(1,2)', m = 'so so' where n < 20; delete from t where n = 21");
    drains_at_once(&pair);
    pair.run("update t set f = null, x = null, words = '{}', n = n + 100, d = d * 3 where n > 3");
    drains_at_once(&pair);
    for change in
        ["update t set r = null, poly = null where n = 1", "delete from t where n in (0, 2)", "update t set z = now()"]
    {
        pair.run(change);
        drains_at_once(&pair);
    }
    pair.run("delete from t");
    drains_at_once(&pair);
    assert_eq!(rows(&pair), "0");
}

#[test]
fn sets_of_thousands_are_one_statement_each_and_n_equal_rows_are_n_rows() {
    for index in ["", "create index on t (a)", "create index on t (b); create index on t (c)"] {
        let pair = pair_with(T);
        pair.run_on_slave(index);
        pair.run("insert into t select i, 'row ' || i, null from generate_series(1, 3000) i");
        pair.run("insert into t select 5, 'equal', 'x' from generate_series(1, 3000) i");
        drains_at_once(&pair);
        pair.run("update t set b = b || '!', c = a");
        drains_at_once(&pair);
        assert_eq!(pair.on_slave("select count(distinct cmin::text) < 10 from t"), ["t"]);
        pair.run("delete from t where ctid in (select ctid from t where b = 'equal!' limit 1000)");
        pair.run("update t set a = null where ctid in (select ctid from t where b = 'equal!' limit 500)");
        drains_at_once(&pair);
        // What one statement writes is what another row was.
        pair.run("update t set a = coalesce(a, 0) + 1, b = case when a is null then null else b end, c = null");
        pair.run("insert into t select i % 3, null, null from generate_series(1, 1500) i; update t set a = a + 1 where b is null");
        pair.run("delete from t where a % 2 = 0 and b is null");
        drains_at_once(&pair);
        pair.run("delete from t where b is null or b like 'row %'");
        drains_at_once(&pair);
        assert_eq!(rows(&pair), "1500");
        pair.run("delete from t");
        drains_at_once(&pair);
    }
}

#[test]
fn what_happens_to_equal_rows_in_between_comes_to_the_same() {
    let pair = pair_with(T);
    pair.run("insert into t select i % 10, 'x', null from generate_series(1, 100) i");
    drains_at_once(&pair);
    for sql in [
        "update t set a = a + 1",
        "update t set b = 'y' where a = 5",
        "delete from t where ctid in (select ctid from t where a = 5 limit 4)",
        "insert into t select 5, 'y', null from generate_series(1, 3)",
        "update t set a = 6, b = 'x' where a = 5 and b = 'y'",
        "delete from t where ctid in (select ctid from t where a = 6 limit 15)",
        "insert into t select 50, 'short-lived', i::text from generate_series(1, 30) i",
        "update t set c = 'z' where a = 50",
        "delete from t where ctid in (select ctid from t where a = 50 limit 20)",
        "update t set a = -a where a > 8",
        "update t set a = -a where a < 0",
    ] {
        pair.run(sql);
    }
    drains_at_once(&pair);
}

#[test]
fn large_rows_and_values_out_of_line_are_logged_whole() {
    for level in ["row", "statement"] {
        let pair = Pair::new();
        pair.exec_both(&format!(
            "{T}; alter table t alter b set storage external; alter table t replica identity full"
        ));
        let said = pair.on_master(&format!("select py_log_create_tg('t', '{level}')"));
        assert_eq!(said, ["created trigger on t (replica identity full)"]);
        pair.run("insert into t select i / 2, repeat(md5((i / 2)::text), 400), 'c' from generate_series(1, 100) i");
        drains_at_once(&pair);
        pair.run("update t set a = -a; update t set c = null where a = -7");
        assert_eq!(
            pair.on_master("select count(*) from replica_log where not old ?& '{a,b,c}' or not new ?& '{a,b,c}'"),
            ["0"]
        );
        drains_at_once(&pair);
        pair.run("delete from t where ctid in (select max(ctid) from t group by a)");
        drains_at_once(&pair);
        for change in [
            "update t set c = 'e' where a = -9",
            "delete from t where a = -11",
            "update t set b = 'short' where a < -30",
        ] {
            pair.run(change);
            drains_at_once(&pair);
        }
    }
}

#[test]
fn a_row_that_differs_or_is_missing_is_a_conflict_and_the_others_are_replayed() {
    let pair = pair_with(T);
    pair.run("insert into t select i, 'x', null from generate_series(1, 2000) i");
    drains(&pair);
    pair.run_on_slave("delete from t where a = 77; update t set b = 'other' where a = 1500");
    pair.run("update t set c = 'u' where a <= 1000; delete from t where a > 1000 and a <= 1800");
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 2, "{}", finished.output);
    assert_eq!(
        pair.on_slave("select kind || ' ' || (expected ->> 'a') || ' ' || done from replica_conflict order by 1"),
        ["delete_missing 1500 nothing", "update_missing 77 nothing"]
    );
    assert_eq!(pair.on_slave("select count(*) filter (where c = 'u') || ' ' || count(*) from t"), ["999 1200"]);
    // A single one, and an error if the operator wants one.
    pair.run("delete from t where a = 77");
    let refused = pair.try_once_by_file("CONFLICT=public.t delete_missing error\n");
    assert_eq!(refused.code(), 6, "{}", refused.output);
    assert_eq!(
        pair.drain_with("CONFLICT=public.t delete_differs error, public.t delete_missing skip\n")
            .matches("is missing")
            .count(),
        1
    );
}

#[test]
fn an_index_of_the_replica_identity_is_the_key() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (a int, u uuid not null, v text, n int); create unique index by_u on t (u, v) include (n);
         alter table t alter v set not null, replica identity using index by_u",
    );
    assert_eq!(pair.create_triggers(), ["created trigger on t (u,v)"]);
    pair.run("insert into t select 1, md5(i::text)::uuid, repeat('y', 3 * i), 0 from generate_series(1, 1000) i");
    drains_at_once(&pair);
    pair.run("update t set n = n + 1");
    assert_eq!(pair.on_master("select count(*) from replica_log where event = 'U' and not old ? 'a'"), ["361"]);
    drains_at_once(&pair);
    pair.run("update t set v = 'v' where length(v) > 2900; delete from t where length(v) < 30");
    drains(&pair);
    // The index goes: the trigger goes on, and logs whole rows.
    pair.exec_both("drop index by_u");
    pair.run("update t set n = -n; delete from t where length(v) > 2000");
    drains_at_once(&pair);
    assert_eq!(pair.create_triggers(), ["table t has no pk constraint (couldn't be replicated)!"]);
}

#[test]
fn a_key_still_finds_the_row_if_the_identity_is_full_and_old_rows_are_whole() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, b text, c int); alter table t replica identity full");
    assert_eq!(pair.create_triggers(), ["created trigger on t (id)"]);
    pair.run("insert into t select i, repeat('y', 3000), 0 from generate_series(1, 50) i");
    drains_at_once(&pair);
    pair.run_on_slave("update t set b = 'other' where id = 7");
    pair.run("update t set c = 1");
    assert_eq!(pair.on_master("select count(*) from replica_log where old ? 'b' and new ? 'b'"), ["50"]);
    assert_eq!(pair.once().count("Possible conflict"), 0);
    pair.run_on_slave("update t set b = repeat('y', 3000) where id = 7");
    pair.exec_both("alter table t replica identity default");
    pair.run("update t set c = 2");
    assert_eq!(pair.on_master("select count(*) from replica_log where old ? 'b' and new -> 'c' = '2'"), ["0"]);
    drains_at_once(&pair);
}

#[test]
fn a_table_may_change_its_identity_while_changes_wait() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, b text, c int)");
    pair.create_triggers();
    pair.run("insert into t select i, repeat('y', 50 * i), 0 from generate_series(1, 100) i");
    drains_at_once(&pair);
    pair.run("update t set c = 1");
    // The key goes, on the master first; large rows wait that were logged by it.
    pair.run("alter table t drop constraint t_pkey, alter id drop not null, replica identity full");
    pair.run(
        "update t set c = 2; update t set b = left(b, 10), id = id / 2 where id > 90; delete from t where id = 45",
    );
    let refused = pair.try_once();
    assert_eq!(refused.code(), 6, "the slave's key refuses two rows with one id: {}", refused.output);
    pair.run_on_slave("alter table t drop constraint t_pkey, alter id drop not null");
    drains(&pair);
    assert_eq!(pair.create_triggers(), ["created trigger on t (replica identity full)"]);
    pair.run("insert into t select id, b, c from t; update t set c = c + 1 where id < 50");
    pair.run("alter table t replica identity default");
    pair.run("update t set b = 'short' where id between 3 and 30; delete from t where id > 80");
    drains_at_once(&pair);
    pair.run("delete from t where ctid not in (select max(ctid) from t group by id)");
    drains_at_once(&pair);
    pair.run("update t set c = 9 where id = 1; delete from t where id = 2");
    pair.exec_both("alter table t add primary key (id)");
    pair.run("update t set c = 10 where id < 20");
    assert_eq!(pair.create_triggers(), ["created trigger on t (id)"]);
    pair.run("update t set c = 11, id = -id");
    drains(&pair);
}

#[test]
fn the_slave_s_columns_may_differ() {
    let pair = Pair::new();
    pair.run("create table t (a int, b text, twice int generated always as (a * 2) stored); alter table t replica identity full");
    pair.run_on_slave(
        "create table t (b varchar(10), loaded timestamptz default now(), a bigint, twice bigint, own serial primary key,
         thrice bigint generated always as (a * 3) stored)",
    );
    pair.create_triggers();
    let same = |pair: &Pair| {
        pair.once();
        let sql = "select a || coalesce(b, '-') || twice from t order by 1";
        assert_eq!(pair.on_master(sql), pair.on_slave(sql));
    };
    pair.run("insert into t select i / 2, nullif('b' || i / 2, 'b4') from generate_series(1, 200) i");
    same(&pair);
    assert_eq!(
        pair.on_slave("select count(loaded) || ' ' || max(own) || ' ' || sum(thrice) from t"),
        ["200 200 30000"]
    );
    pair.run("update t set b = 'c' where a < 50; delete from t where ctid in (select max(ctid) from t group by a)");
    same(&pair);
    for change in ["update t set b = null where a = 60", "delete from t where a = 61", "update t set a = 9 where a = 4"]
    {
        pair.run(change);
        same(&pair);
    }
    assert_eq!(pair.on_slave("select count(*) from replica_conflict"), ["0"]);
    // An UPDATE leaves alone what only the slave knows.
    assert_eq!(pair.on_slave("select count(distinct loaded) || ' ' || (max(own) <= 200) from t"), ["1 true"]);
    // A column that the slave lacks stops it.
    pair.run("alter table t add d int default 5; delete from t where a = 70");
    let refused = pair.try_once();
    assert!(refused.output.contains("nothing identifies a row"), "{}", refused.output);
    pair.run_on_slave("alter table t add d int default 5");
    same(&pair);
}

#[test]
fn partitioned_tables_are_found_wherever_the_rows_are() {
    let pair = Pair::new();
    pair.run(
        "create table t (a int, b text) partition by list (a); create table t_1 partition of t for values in (1, 2);
         create table t_rest partition of t default; alter table t replica identity full",
    );
    pair.run_on_slave(
        "create table t (a int, b text) partition by hash (b); create table t_0 partition of t for values with (modulus 2, remainder 0);
         create table t_x partition of t for values with (modulus 2, remainder 1)",
    );
    assert_eq!(pair.on_master("select py_log_create_tg('t')"), ["created trigger on t (replica identity full)"]);
    let same = |pair: &Pair| {
        assert_eq!(pair.once().count("Looking closer"), 0);
        let sql = "select row(a, b)::text from t order by 1";
        assert_eq!(pair.on_master(sql), pair.on_slave(sql));
    };
    pair.run("insert into t select i % 4, 'b' || i % 7 from generate_series(1, 500) i");
    same(&pair);
    pair.run("update t set a = a + 1, b = b || a; delete from t where ctid in (select max(ctid) from t group by a, b)");
    same(&pair);
    pair.run("create table t_new (a int, b text); alter table t detach partition t_rest; alter table t attach partition t_new default");
    pair.run("insert into t values (9, 'nine'), (9, 'nine')");
    pair.once();
    pair.run("update t set a = 10 where ctid = (select min(ctid) from t where a = 9)");
    pair.once();
    assert_eq!(pair.on_slave("select a from t where b = 'nine' order by 1"), ["9", "10"]);
}

#[test]
fn a_unique_index_that_allows_nulls_and_an_identity_column_are_no_key() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (a int unique, b int generated always as identity, c text); alter table t replica identity full",
    );
    pair.create_triggers();
    pair.run("insert into t (a, c) select nullif(i % 50, 0), 'c' from generate_series(1, 49) i; insert into t (c) values ('c'), ('c')");
    drains_at_once(&pair);
    pair.run("delete from t where a < 20; insert into t (a, c) select i, 'd' from generate_series(1, 19) i; update t set c = 'e'");
    drains_at_once(&pair);
    pair.run("update t set b = default where a < 30");
    pair.run("update t set a = -a where a > 30; update t set a = null where a = 3");
    drains(&pair);
}

/// What compare says of the only table: its line, and those of its rows.
fn compared(pair: &Pair, words: &[&str]) -> Vec<String> {
    let finished = pair.verb(words);
    let is_progress = |line: &str| line.contains(" rows compared, ");
    let lines = finished.output.lines().filter(|line| line.contains("public.t") && !is_progress(line));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn compare_counts_equal_rows_and_repair_makes_both_sides_equal() {
    let pair = pair_with(T);
    pair.run("insert into t select i, 'row ' || i, null from generate_series(1, 3000) i");
    pair.run("insert into t select 5, 'equal', 'x' from generate_series(1, 50) i");
    drains_at_once(&pair);
    assert_eq!(compared(&pair, &["compare"]), ["public.t equal 3050 0 0 0"]);
    pair.run_on_slave(
        "delete from t where ctid in (select ctid from t where b = 'equal' limit 3); update t set c = '' where a = 70;
         insert into t values (null, null, 'it''s'), (null, null, 'it''s')",
    );
    let lines = compared(&pair, &["compare"]);
    assert_eq!(lines[0], "public.t different 3050 4 3 0");
    let mut rows = lines[1..].to_vec();
    rows.sort();
    assert_eq!(
        rows,
        [
            "public.t \"a\"='5', \"b\"='equal', \"c\"='x' missing (3 rows)",
            "public.t \"a\"='70', \"b\"='row 70', \"c\"='' extra",
            "public.t \"a\"='70', \"b\"='row 70', \"c\"=NULL missing",
            "public.t \"a\"=NULL, \"b\"=NULL, \"c\"='it''s' extra (2 rows)",
        ]
        .map(|line| line.replace("it''s", "it's"))
    );
    // What is pending counts as that, and is left to the daemon.
    pair.run("delete from t where a = 80; insert into t values (9, 'new', null)");
    assert_eq!(
        compared(&pair, &["compare", "--rows", "0"]),
        ["public.t different 3050 4 3 0 2 rows differ and have a change on its way"]
    );
    assert_eq!(pair.verb(&["repair", "--dry-run"]).count("INSERT INTO"), 4);
    assert_eq!(
        compared(&pair, &["repair"])[0],
        "public.t repaired 3050 4 3 0 7 2 rows differ and have a change on its way"
    );
    drains_at_once(&pair);
    assert_eq!(compared(&pair, &["compare"]), ["public.t equal 3050 0 0 0"]);
    // Thousands.
    pair.run_on_slave(
        "delete from t where a % 2 = 0; insert into t select -1, 'extra', null from generate_series(1, 2000)",
    );
    compared(&pair, &["repair"]);
    drains_at_once(&pair);
}

#[test]
fn what_is_copied_is_replicated_from_there_on() {
    let pair = Pair::new();
    pair.run("create table t (a int, b text); alter table t replica identity full; select py_log_create_tg('t')");
    pair.run("insert into t select i % 10, 'x' from generate_series(1, 1000) i");
    pair.run_on_slave("create table t (a int, b text)");
    let finished = pair.verb(&["copy"]);
    assert!(finished.status.success(), "{}", finished.output);
    pair.run("delete from t where ctid in (select ctid from t where a = 3 limit 30); update t set b = 'y' where a = 4");
    drains_at_once(&pair);
    assert_eq!(compared(&pair, &["compare"]), ["public.t equal 970 0 0 0"]);
}

#[test]
fn doctor_and_install_know_the_replica_identity() {
    let pair = Pair::new();
    pair.exec_both(&format!("{T}; create table u (a int not null unique); create table v (a int)"));
    let finished = pair.verb(&["doctor"]);
    for said in [
        "public.t has no primary key: its changes are not replicated",
        "ALTER TABLE public.t REPLICA IDENTITY FULL;",
        "ALTER TABLE public.u REPLICA IDENTITY USING INDEX u_a_key;",
    ] {
        assert!(finished.output.contains(said), "{said}: {}", finished.output);
    }
    pair.exec_both("alter table t replica identity full; alter table u replica identity using index u_a_key");
    assert!(pair.verb(&["doctor"]).output.contains("public.t has no trigger"));
    let installed = |pair: &Pair| run(&pair.dir().join("install.log"), &["install", &pair.master_dsn], &[]).output;
    let said = installed(&pair);
    assert!(
        said.contains("created trigger on t (replica identity full)\ncreated trigger on u (a)\ntable v has no pk"),
        "{said}"
    );
    assert!(said.contains("hint: without a primary key, ALTER TABLE ... REPLICA IDENTITY USING INDEX"), "{said}");
    let said = installed(&pair);
    assert!(said.contains("t has its trigger (replica identity full)\nu has its trigger (a)"), "{said}");
    let said = pair.verb(&["doctor", "--brief"]).output;
    assert!(!said.contains("public.t ") && !said.contains("public.u "), "{said}");
    pair.run("insert into py_log_filter (relname, event, condition) values ('t', 'UPDATE', 'new.a > 5'), ('t', 'INSERT', 'new.a > 0')");
    assert_says(&pair.verb(&["doctor", "--brief"]).output, &["public.t has no key, and a filter on UPDATE: "]);
    pair.run("delete from py_log_filter where event = 'UPDATE'");
    pair.run_on_slave("insert into t select i % 7, 'b' || i, null from generate_series(1, 20000) i; analyze t");
    let said = pair.verb(&["doctor"]).output;
    assert_says(&said, &["public.t has no key and no index that helps", "reads all of its 20000 rows"]);
    assert_says(&said, &["CREATE INDEX ON public.t (b);"]);
    pair.run_on_slave("create index on t (b)");
    let said = pair.verb(&["doctor"]).output;
    assert!(!said.contains("no index that helps") && !said.contains("and a filter on"), "{said}");
    pair.exec_both("alter table t replica identity default");
    assert!(pair.verb(&["doctor"]).output.contains("public.t has lost its key or its REPLICA IDENTITY"));
}

/// Writes of one client, which others may change meanwhile.
fn write(pair: &Pair, seed: usize) {
    let mut client = pair.master();
    for n in 0..40 {
        let (a, b) = ((seed + n) % 7, n % 3);
        let sql = match n % 5 {
            0 => format!("insert into t select {a}, nullif('b{b}', 'b0'), null from generate_series(1, 40)"),
            1 => format!(
                "delete from t where ctid in (select ctid from t where a = {a} limit 15 for update skip locked)"
            ),
            2 => format!(
                "update t set c = '{b}' where ctid in (select ctid from t where a = {a} limit 30 for update skip locked)"
            ),
            3 => format!(
                "insert into t values ({a}, 'one', '{seed}'); update t set a = a + 1 where ctid = (select ctid from t where a = {a} limit 1 for update skip locked)"
            ),
            _ => "delete from t where ctid = (select ctid from t where c is not null limit 1 for update skip locked)"
                .into(),
        };
        client.batch_execute(&sql).expect("the master takes it");
    }
}

#[test]
fn concurrent_writers_and_a_daemon_that_is_killed_leave_equal_rows() {
    for lines in ["", "TWO_PHASE=false\n"] {
        let pair = pair_with(T);
        let mut daemon = pair.start_with(lines);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|n| {
                    scope.spawn({
                        let pair = &pair;
                        move || write(pair, 3 * n)
                    })
                })
                .collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                thread::sleep(std::time::Duration::from_millis(700));
                daemon.kill9();
                daemon = pair.start_with(lines);
            }
        });
        pair.wait_caught_up();
        daemon.terminate();
        pair.assert_equal();
        pair.assert_no_prepared();
        assert_eq!(pair.on_slave("select count(*) from replica_conflict"), ["0"]);
    }
}

#[test]
fn what_is_in_quarantine_keeps_the_changes_of_equal_rows_only() {
    let pair = pair_with("create table t (a int, b text, z timestamptz)");
    pair.run("insert into t select i % 5, 'x', '2026-01-01' from generate_series(1, 25) i");
    drains_at_once(&pair);
    pair.run_on_slave("alter table t add check (b <> 'bad')");
    pair.run("insert into t values (7, 'bad', '2026-01-01 12:00+00')");
    pair.run("set timezone = 'Asia/Tokyo'; update t set b = 'good' where a = 7");
    pair.run("update t set b = 'y' where a = 2; delete from t where a = 3");
    assert_eq!(pair.once_with("ON_ERROR=quarantine\n").matches("in quarantine").count().min(1), 1);
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["2"]);
    assert_eq!(pair.on_slave("select count(*) || ' ' || count(*) filter (where b = 'y') from t"), ["20 5"]);
    pair.run_on_slave("alter table t drop constraint t_b_check");
    assert!(pair.verb(&["retry"]).status.success());
    pair.assert_equal();
}

#[test]
fn casts_and_operators_that_the_owner_of_a_type_has_made_are_not_called() {
    let pair = Pair::new();
    pair.exec_both(
        "create type mood as enum ('sad', 'glad'); create type two as (a int, b text);
         create function shout(mood) returns text language plpgsql as 'begin raise exception ''called''; end';
         create function shout(two) returns text language plpgsql as 'begin raise exception ''called''; end';
         create function whisper(text) returns two language plpgsql as 'begin raise exception ''called''; end';
         create function equal(two, two) returns bool language plpgsql as 'begin raise exception ''called''; end';
         create function equal(mood, mood) returns bool language plpgsql as 'begin raise exception ''called''; end';
         create cast (mood as text) with function shout(mood) as implicit; create cast (two as text) with function shout(two) as implicit;
         create cast (text as two) with function whisper(text) as implicit;
         create operator = (function = equal, leftarg = two, rightarg = two);
         create operator = (function = equal, leftarg = mood, rightarg = mood);
         create table t (m mood, p two, n int); create index on t (m); alter table t replica identity full",
    );
    pair.create_triggers();
    pair.run("insert into t select 'sad', row(i, 'x')::two, i from generate_series(1, 50) i");
    drains_at_once(&pair);
    pair.run("update t set m = 'glad' where n = 3; delete from t where n = 4");
    drains_at_once(&pair);
    pair.run("update t set n = -n where n > 10; delete from t where n = 5");
    drains_at_once(&pair);
    pair.run_on_slave("delete from t where n = 6");
    assert_eq!(compared(&pair, &["compare", "--rows", "0"]), ["public.t different 48 1 0 0"]);
    pair.run("delete from t where n = 7");
    assert_eq!(
        compared(&pair, &["compare", "--rows", "0"]),
        ["public.t pending 47 0 0 0 2 rows differ and have a change on its way"]
    );
    pair.once();
    compared(&pair, &["repair"]);
    drains(&pair);
}

/// Then each change is replayed by itself.
#[test]
fn rows_are_found_where_a_trigger_of_the_slave_sees_each_change() {
    let pair = pair_with(T);
    pair.run_on_slave(
        "create table seen (n bigint generated always as identity, op text);
         create function see() returns trigger language plpgsql as
             'begin insert into public.seen (op) values (tg_op); return null; end';
         create trigger see after insert or update or delete on t for each row execute function see();
         alter table t enable always trigger see",
    );
    pair.run("insert into t select i / 5, 'x', null from generate_series(1, 100) i");
    pair.run("update t set c = 'y' where a < 4; delete from t where ctid in (select max(ctid) from t group by a)");
    pair.run("delete from t where a = 7; insert into t values (1, 'x', null)");
    pair.once();
    assert_eq!(
        pair.on_slave("select op || count(*) from seen group by op order by op"),
        ["DELETE25", "INSERT101", "UPDATE19"]
    );
    let sql = "select row(a, b, c)::text from t order by 1";
    assert_eq!(pair.on_master(sql), pair.on_slave(sql));
}

#[test]
fn without_any_identity_the_hint_names_both_statements() {
    let pair = Pair::new();
    pair.run("create schema \"S\"; create table \"S\".keyless (a int)");
    let mut command = Command::new(psql());
    let output = command.args(["-XAt", "-c", "select py_log_create_tg('S', 'keyless')", &pair.master_dsn]).output();
    let output = output.expect("psql runs");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "table keyless has no pk constraint (couldn't be replicated)!\n");
    for statement in ["USING INDEX ...;", "FULL;"] {
        assert!(told.contains(&format!("ALTER TABLE \"S\".keyless REPLICA IDENTITY {statement}")), "{told}");
    }
}
