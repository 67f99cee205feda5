//! `pyreplica copy` beyond the plain case: what it refuses, one table alone, the schema, filters, encodings.

use crate::harness::copying::{can_dump, copy, paused, try_copy};
use crate::harness::{Finished, OwnCluster, Pair, Server, assert_says, shared, wait_until};
use std::time::Duration;

const TABLES: &str =
    "create table t (id int primary key, a text); create table u (id int primary key, t int references t)";

fn filled() -> Pair {
    let pair = Pair::new();
    pair.exec_both(TABLES);
    pair.run("insert into t select i, 'a' || i from generate_series(1, 50) i; insert into u select i, i from generate_series(1, 50) i");
    pair.create_triggers();
    pair
}

#[track_caller]
fn assert_refused(pair: &Pair, options: &[&str], code: i32, words: &[&str]) {
    let finished = try_copy(pair, options);
    assert_eq!(finished.code(), code, "{}", finished.output);
    for word in words {
        assert!(finished.output.contains(word), "no {word:?} in:\n{}", finished.output);
    }
}

#[test]
fn tables_that_hold_something_are_left_alone_unless_told() {
    let pair = filled();
    pair.run_on_slave(
        "insert into t values (1000, 'mine'); insert into u values (1, 1000); \
                       create table other (t int references t); insert into other values (1000)",
    );
    assert_refused(&pair, &[], 5, &["public.t, public.u are not empty", "--truncate"]);
    assert_eq!(pair.on_slave("select a from t"), ["mine"]);
    // Nothing has begun: the daemon may run.
    pair.run("truncate replica_log");
    pair.once();
    copy(&pair, &["--truncate"]);
    pair.run_on_slave("drop table other");
    pair.assert_equal();
}

#[test]
fn what_the_slave_lacks_is_said_before_anything_happens() {
    let pair = filled();
    pair.run("alter table t add b int");
    pair.run_on_slave("drop table u");
    assert_refused(
        &pair,
        &[],
        5,
        &["there is no table public.u", "the table public.t has no column \"b\"", "--schema"],
    );
    assert_eq!(pair.on_slave("select count(*) from replica_copy"), ["0"]);
    assert_refused(&pair, &["--table", "nosuch"], 2, &["cannot find table nosuch: there is none"]);
    pair.run("create schema other; create table other.plain (id int primary key)");
    for table in ["plain", "other.plain"] {
        let refused = try_copy(&pair, &["--table", table]);
        assert_eq!(refused.code(), 4, "{}", refused.output);
        assert_says(&refused.output, &[&format!("no table {table} has the trigger")]);
        let statement = refused.output.split_once("create the trigger first: ").expect("a statement").1.trim();
        assert!(pair.on_master(statement)[0].ends_with("plain (id)"));
        pair.run("drop trigger \"!replica_tg\" on other.plain");
    }
}

#[test]
fn a_running_daemon_is_not_disturbed() {
    let pair = filled();
    let mut daemon = pair.start();
    // The daemon is there once this has come.
    pair.run("insert into t values (51, '')");
    pair.wait_caught_up();
    assert_refused(&pair, &[], 7, &["another daemon replicates", "stop the pair's daemon"]);
    assert_refused(&pair, &["--table", "t"], 5, &["public.t is not empty"]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_load_that_fails_leaves_the_others_loaded_and_says_what_to_do() {
    let pair = filled();
    pair.run_on_slave("alter table t add check (id < 50)");
    assert_refused(&pair, &[], 5, &["cannot copy public.t", "violates check constraint", "1 of 2 tables are loaded"]);
    pair.run_on_slave("alter table t drop constraint t_id_check");
    let again = copy(&pair, &["--json"]);
    assert!(again.output.contains("\"by\": \"a former run\""), "{}", again.output);
    pair.once();
    pair.assert_equal();
}

/// A cancel request travels on a connection of its own, so that it may come when the next table is being loaded.
#[test]
fn a_load_that_fails_does_not_end_the_next_one() {
    let mut pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text); create table u (id int primary key)");
    pair.create_triggers();
    pair.run(
        "insert into t select i, repeat('x', 10000) from generate_series(1, 9) i; insert into u values (1);
         create function takes_long() returns boolean language sql as 'select pg_sleep(1.2) is not null';
         insert into py_log_filter (relname, event, condition) values ('u', 'INSERT', 'public.takes_long()')",
    );
    pair.run_on_slave("alter table t add check (id < 3)");
    let [master, _slave] = pair.put_behind_forwarders();
    // A request that asks for encryption first would be waited for.
    pair.master_dsn += " sslmode=disable";
    master.delay_greetings(Duration::from_millis(50));
    let refused = ["cannot copy public.t: new row", "1 of 2 tables are loaded"];
    assert_refused(&pair, &["--jobs", "1"], 5, &refused);
    // The slave says it in the middle, when the rest of the rows is on its way from the master.
    pair.run(
        "insert into py_log_filter (relname, event, condition)
             values ('t', 'INSERT', 'new.id <> 5 or public.takes_long()')",
    );
    assert_refused(&pair, &["--jobs", "1", "--restart", "--truncate"], 5, &refused);
}

/// Somebody has replicated to the slave since, so the copy that was interrupted fits it no more.
#[test]
fn a_copy_does_not_go_on_if_the_position_has_moved() {
    let pair = filled();
    paused(&pair, &[], "copy-table").kill9();
    pair.run("update replica_slave set batch = batch + 1");
    assert_refused(&pair, &[], 4, &["position has moved", "--restart --truncate"]);
    copy(&pair, &["--restart", "--truncate"]);
    pair.once();
    pair.assert_equal();
}

#[test]
fn one_table_is_copied_again_while_the_others_keep_their_position() {
    let pair = filled();
    copy(&pair, &[]);
    pair.once();
    pair.run("update t set a = 'later' where id < 10; insert into u values (51, 50); insert into t values (51, 'x')");
    pair.run_on_slave("update t set a = 'wrong'");
    assert_refused(&pair, &["--table", "t"], 5, &["public.t is not empty"]);
    copy(&pair, &["--table", "t", "--truncate"]);
    pair.run("update t set a = 'after' where id between 5 and 15; delete from u where id = 1");
    let finished = pair.once();
    assert_eq!(finished.count("onflict"), 0, "{}", finished.output);
    pair.assert_equal();
    // The position passes the table's snapshot with the next batch, and the daemon sees that when it connects.
    pair.run("insert into t values (52, '')");
    pair.once();
    pair.once();
    assert_eq!(pair.on_slave("select count(*) from replica_copy"), ["0"]);
}

#[test]
fn a_paused_table_stays_paused() {
    let pair = filled();
    let daemon = pair.start();
    pair.run("insert into t values (51, '')");
    pair.wait_caught_up();
    pair.done(&["pause", "--table", "t"]);
    assert_refused(&pair, &["--table", "t", "--truncate"], 5, &["public.t is paused", "pyreplica resume --table"]);
    drop(daemon);
    assert_refused(&pair, &["--table", "t", "--truncate"], 5, &["public.t is paused"]);
}

/// One that is killed keeps the daemon away too, until it has been run again.
#[test]
fn one_table_that_is_half_copied_is_not_replicated_to() {
    let pair = filled();
    copy(&pair, &[]);
    pair.exec_both("create table v (id int primary key)");
    pair.run("insert into v values (1); select py_log_create_tg('v'); insert into v values (2); insert into t values (99, '')");
    paused(&pair, &["--table", "v"], "copy-noted").kill9();
    assert!(pair.try_once().output.contains("0 of 1 tables are there"));
    copy(&pair, &["--table", "public.v"]);
    pair.run("insert into v values (3)");
    pair.once();
    pair.assert_equal();
}

/// None where the master is newer than this machine's pg_dump, which is refused: the servers that `tests/versions.sh`
/// downloads come without client programs.
#[track_caller]
fn copy_with_schema(pair: &Pair, options: &[&str]) -> Option<Finished> {
    if can_dump(pair) {
        return Some(copy(pair, options));
    }
    assert_refused(pair, options, 3, &["pg_dump is of version", "install PostgreSQL's client programs"]);
    None
}

/// Three commands from an empty slave to replication. Nothing of pyreplica's own comes with the schema.
#[test]
fn the_schema_comes_along() {
    let pair = Pair::new();
    pair.run(
        "create schema s; create type s.mood as enum ('ok'); create table s.t (id serial primary key, m s.mood, a int);
         create index on s.t (a); create view v as select * from s.t; create table u (id int primary key, t int);
         create function f() returns trigger language plpgsql as 'begin return new; end';
         create trigger mine before insert on u for each row execute function f();
         alter table u add foreign key (t) references s.t;
         insert into s.t (m, a) select 'ok', i from generate_series(1, 10) i; insert into u values (1, 1);
         select py_log_create_tg('s', 't', 'statement'), py_log_create_tg('u');
         create table nokey (a int)",
    );
    pair.run_on_slave("drop table replica_progress");
    let Some(said) = copy_with_schema(&pair, &["--schema"]) else { return };
    assert!(said.output.contains("without a trigger, and so not copied: public.nokey"), "{}", said.output);
    pair.once();
    pair.assert_equal();
    assert_eq!(pair.on_slave("select tgname from pg_trigger where not tgisinternal"), ["mine"]);
    assert_eq!(
        pair.on_slave("select count(*) from pg_class where relname ~ '^(replica_(log|slave|batch)|py_log)'"),
        ["0"]
    );
    assert_eq!(pair.on_slave("select count(*) from pg_proc where proname ~ '^py_log_'"), ["0"]);
    assert_eq!(pair.on_slave("select nextval('s.t_id_seq')"), ["11"]);
    assert_eq!(pair.on_slave("select to_regnamespace('pyreplica') is null"), ["t"]);
    let again = copy(&pair, &["--schema", "--truncate"]);
    assert!(again.output.contains("the schema is left as it is"), "{}", again.output);
}

/// Symptom: an error of pg_restore ended the copy if the slave lacked a tablespace. pg_dump ignores --no-tablespaces in its own format.
#[test]
fn tablespaces_come_along_or_are_named() {
    let (master, slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    if master.server().major_version().min(slave.server().major_version()) < 15 {
        eprintln!("skipped: this server has no tablespaces in place");
        return;
    }
    let create = |server: &Server, name: &str| {
        let create = format!("create tablespace {name} location ''");
        let mut admin = server.connect("postgres");
        admin.batch_execute("set allow_in_place_tablespaces = on").unwrap();
        admin.batch_execute(&create).unwrap();
    };
    ["fast", "\"Slow one\""].iter().for_each(|name| create(master.server(), name));
    create(slave.server(), "fast");
    let where_it_is = "select spcname from pg_class c join pg_tablespace s on s.oid = c.reltablespace
                        where relname in ('t', 'u', 'u_a_idx') order by relname";
    for lacks in [true, false] {
        let pair = Pair::on(master.server(), slave.server());
        pair.run(
            "create table t (id int primary key) tablespace fast; create table u (id int primary key, a int);
             create index on u (a) tablespace \"Slow one\"",
        );
        pair.create_triggers();
        pair.run("insert into t values (1)");
        if !lacks {
            create(slave.server(), "\"Slow one\"");
        }
        let Some(copied) = copy_with_schema(&pair, &["--schema"]) else { return };
        let told = copied
            .output
            .contains("the slave lacks tablespaces, or DSN1's role may not use them: \"Slow one\" (of public.u).");
        assert_eq!(told, lacks, "{}", copied.output);
        assert_eq!(copied.count("lacks tablespaces"), usize::from(lacks));
        let expected: &[&str] = if lacks { &[] } else { &["fast", "Slow one"] };
        assert_eq!(pair.on_slave(where_it_is), expected);
        pair.assert_equal();
    }
}

#[test]
fn a_single_new_table_comes_with_its_schema() {
    let pair = filled();
    copy(&pair, &[]);
    pair.run("create table \"New one\" (id int primary key); select py_log_create_tg('New one'); insert into \"New one\" values (1)");
    if copy_with_schema(&pair, &["--schema", "--table", "New one"]).is_none() {
        return;
    }
    pair.run("insert into \"New one\" values (2)");
    pair.once();
    pair.assert_equal();
}

#[test]
fn filters_and_transforms_count_for_the_copy_too() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, owner text, card text, secret text); create table plain (id int primary key)");
    pair.create_triggers();
    pair.run(
        "insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.id % 2 = 0');
         insert into py_log_transform (relname, field, expression) values ('t', 'card', 'left(new.card, 2)'), ('t', 'secret', null);
         insert into t select i, 'o' || i, '1234' || i, 's' from generate_series(1, 6) i; insert into plain values (1)",
    );
    copy(&pair, &[]);
    pair.run("insert into t values (8, 'o8', '12348', 's'), (9, 'o9', '9', 's')");
    pair.once();
    assert_eq!(
        pair.on_slave("select t::text from t order by id"),
        ["(2,o2,12,)", "(4,o4,12,)", "(6,o6,12,)", "(8,o8,12,)"]
    );
    assert_eq!(pair.on_slave("select count(*) from plain"), ["1"]);
}

#[test]
fn encodings_that_differ_are_converted() {
    let pair = Pair::with_master_encoding("LATIN1");
    pair.exec_both("create table t (id int primary key, a text, b bytea)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'größe', '\\x00ff'), (2, 'ñ', null)");
    copy(&pair, &[]);
    pair.run("insert into t values (3, 'é', null)");
    pair.once();
    pair.assert_equal();
}

/// A column that has another type on the slave, and a table that is divided there only.
#[test]
fn the_slaves_tables_may_be_made_otherwise() {
    let pair = Pair::new();
    pair.run("create table t (id int primary key, n int, gone int generated always as (n * 2) stored); create table p (id int primary key)");
    pair.run_on_slave(
        "create table t (n bigint, more text default 'here', id int primary key);
         create table p (id int primary key) partition by range (id); create table p1 partition of p default",
    );
    pair.create_triggers();
    pair.run("insert into t values (1, 10), (2, null); insert into p select generate_series(1, 5)");
    copy(&pair, &[]);
    assert_eq!(pair.on_slave("select t::text from t order by id"), ["(10,here,1)", "(,here,2)"]);
    assert_eq!(pair.on_slave("select count(*) from p1"), ["5"]);
}

/// Without the replica role triggers and foreign keys of the slave would fire, in whatever order the tables come.
#[test]
fn without_the_replica_role_nothing_may_fire() {
    let slave = OwnCluster::start("slave", "", &[]);
    let mut pair = Pair::on(shared().0, slave.server());
    pair.exec_both(TABLES);
    pair.create_triggers();
    pair.run("insert into t values (1, 'a')");
    pair.run_on_slave(
        "create role modest login; grant all on schema public to modest; grant all on t, u, replica_progress to modest",
    );
    pair.slave_dsn = pair.slave_dsn.replace("user=postgres", "user=modest");
    assert_refused(&pair, &[], 5, &["foreign keys or triggers would fire on", "session_replication_role"]);
    pair.run_on_slave("alter table u drop constraint u_t_fkey");
    copy(&pair, &[]);
    assert_eq!(pair.on_slave("select count(*) from t"), ["1"]);
}

#[test]
fn ctrl_c_ends_a_copy_and_leaves_nothing_half_done() {
    let pair = filled();
    let mut copying = paused(&pair, &["--jobs", "2"], "copy-loading");
    copying.signal("INT");
    copying.resume();
    assert_eq!(copying.wait_exit().code(), Some(130), "{}", copying.log());
    copy(&pair, &[]);
    pair.once();
    pair.assert_equal();
}

/// The slave's server says what it refuses only when a COPY ends; of a large table that would be hours later.
#[test]
fn what_the_slave_refuses_is_known_before_all_rows_are_read() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text)");
    pair.create_triggers();
    pair.run(
        "insert into t select i, repeat('x', 10000) from generate_series(1, 20) i;
         create function stand_still(id int) returns boolean language plpgsql as
             'begin perform pg_sleep(case when id = 19 then 2 else 3600 end); return true; end';
         insert into py_log_filter (relname, event, condition)
             values ('t', 'INSERT', 'new.id < 19 or public.stand_still(new.id)')",
    );
    pair.run_on_slave("alter table t add check (id <> 5)");
    assert_refused(&pair, &[], 5, &["cannot copy public.t", "violates check constraint"]);
    pair.run("delete from py_log_filter");
    pair.run_on_slave("alter table t drop constraint t_id_check");
    copy(&pair, &[]);
    pair.once();
    pair.assert_equal();
}

/// The first session of the copy has the lock already; one that came later would stand behind another that waits for it.
#[test]
fn a_copy_does_not_wait_for_somebody_who_waits_for_it() {
    for jobs in ["1", "2"] {
        let pair = filled();
        let mut waiting = paused(&pair, &["--jobs", jobs], "copy-registered");
        std::thread::scope(|scope| {
            let owners: Vec<_> = ["t", "u"].map(|table| (table, pair.master())).into_iter().collect();
            for (table, mut owner) in owners {
                scope.spawn(move || owner.batch_execute(&format!("alter table {table} alter id type bigint")));
            }
            let waits =
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            wait_until("the owners wait", || pair.on_master(waits) == ["2"]);
            waiting.resume();
            assert!(waiting.wait_exit().success(), "{}", waiting.log());
        });
        pair.once();
        pair.assert_equal();
    }
}

/// The copy of all would lose what the other one puts aside.
#[test]
fn a_single_table_waits_for_a_copy_of_all() {
    let pair = filled();
    let mut all = paused(&pair, &[], "copy-registered");
    assert_refused(
        &pair,
        &["--table", "t", "--truncate"],
        5,
        &["a copy of all tables is unfinished", "wait for its end"],
    );
    all.resume();
    assert!(all.wait_exit().success(), "{}", all.log());
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_single_partitioned_table_comes_with_its_partitions() {
    let pair = filled();
    copy(&pair, &[]);
    pair.run(
        "create table p (id int primary key) partition by range (id);
         create table \"p \"\"1\" partition of p for values from (0) to (100) partition by list (id);
         create table p11 partition of \"p \"\"1\" default; select py_log_create_tg('p'); insert into p values (1), (99)",
    );
    if copy_with_schema(&pair, &["--schema", "--table", "p"]).is_none() {
        return;
    }
    pair.run("insert into p values (2)");
    pair.once();
    pair.assert_equal();
}

/// Symptom: `copy` panicked over a table without columns, and no table was copied.
#[test]
fn tables_without_columns_or_with_generated_ones_only_are_copied() {
    let pair = Pair::new();
    pair.exec_both(
        "create table none (); create table computed (a int generated always as (7) stored); create table t (id int primary key)",
    );
    pair.run("insert into none default values; insert into none default values; insert into computed default values");
    pair.create_triggers();
    for table in ["none", "computed"] {
        pair.run(&format!(
            "create trigger replica_tg after insert or update or delete on {table}
             for each row execute function py_log_replica('{table}')"
        ));
    }
    copy(&pair, &[]);
    assert_eq!(pair.on_slave("select count(*) from none"), ["2"]);
    pair.assert_equal();
    pair.run("insert into none default values; insert into t values (1)");
    pair.once();
    pair.assert_equal();
}

/// Symptom: "new row violates check constraint", for rows that the master has, and that pg_dump restores.
#[test]
fn rows_that_violate_a_check_that_is_not_valid_are_copied_before_the_check() {
    let pair = Pair::new();
    pair.run(
        "create domain d as int; create table t (id int primary key, n int check (n < 100), v d);
         insert into t values (1, -5, 50), (2, 1, 1);
         alter table t add constraint \"n pos\" check (n > 0) not valid; comment on constraint \"n pos\" on t is 'is positive';
         alter domain d add constraint small check (value < 11) not valid; comment on constraint small on domain d is 'is small'",
    );
    pair.create_triggers();
    pair.run_on_slave("drop schema public cascade; create schema public");
    let Some(finished) = copy_with_schema(&pair, &["--schema"]) else { return };
    assert_eq!(finished.count("onflict"), 0, "{}", finished.output);
    pair.assert_equal();
    let checks = "select string_agg(conname || convalidated, ' ' order by conname) from pg_constraint
                   where contype = 'c' and conname ~ 'n pos|small|t_n'";
    assert_eq!(pair.on_slave(checks), pair.on_master(checks));
    pair.run("update t set n = 7, v = 7 where id = 1");
    pair.once();
    pair.assert_equal();
}

#[test]
fn what_is_in_no_table_is_copied_or_named() {
    let pair = filled();
    pair.run(
        "set allow_system_table_mods = on; create sequence lonely; create table of_extension (id int); insert into of_extension values (1);
         update pg_extension set extconfig = array['of_extension'::regclass::oid], extcondition = array['WHERE id > 0']
          where extname = 'hstore';
         select lo_from_bytea(777, decode(repeat('00ff5c0a', 600000), 'hex')), lo_from_bytea(778, ''), lo_from_bytea(779, 'other')",
    );
    pair.run_on_slave("select lo_from_bytea(779, 'mine')");
    let said = copy(&pair, &[]);
    for words in [
        "sequences that are not set: public.lonely: the slave has no such sequence. hint: CREATE SEQUENCE there",
        "3 large objects are copied only with --large-objects",
        "public.of_extension belongs to an extension",
        "'COPY (SELECT * FROM public.of_extension WHERE id > 0) TO STDOUT'",
    ] {
        assert!(said.output.contains(words), "{}", said.output);
    }
    let said = copy(&pair, &["--large-objects", "--truncate"]);
    assert!(said.output.contains("copied 2 large objects; 1 were on the slave already"), "{}", said.output);
    let content =
        "select oid || ' ' || md5(lo_get(oid)) from pg_largeobject_metadata where oid in (777, 778) order by oid";
    assert_eq!(pair.on_slave(content), pair.on_master(content));
    assert_eq!(pair.on_slave("select lo_get(779) = 'mine'"), ["t"]);
    assert_refused(&pair, &["--large-objects", "--table", "t"], 2, &["--large-objects are for a copy of all tables"]);
}
