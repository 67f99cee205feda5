//! A pair, or a table of it, held back for a while: what others change goes on, what was held is replayed in order, once.

use crate::harness::{Pair, assert_says};
use std::process::Command;

fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(
        r#"create table t (id int primary key, a text); create table u (id int primary key, a text);
           create schema "odd one";
           create table "odd one"."Ta""ble" (id int generated always as identity primary key, a text, b text generated always as (a || '!') stored);
           create table parts (id int primary key, a text) partition by range (id);
           create table parts_1 partition of parts for values from (0) to (100)"#,
    );
    pair.create_triggers();
    pair.create_triggers_in("odd one");
    pair.run("select py_log_create_tg('parts')");
    pair
}

#[test]
fn a_paused_pair_replays_nothing_until_it_is_resumed_and_the_daemon_hears_of_both() {
    let pair = pair();
    let mut daemon = pair.start();
    pair.run("insert into t values (1, 'before')");
    pair.wait_caught_up();
    assert_says(&pair.done(&["pause"]), &[": paused"]);
    assert_says(&pair.done(&["pause"]), &["was on hold already"]);
    pair.run("insert into t values (2, 'while')");
    daemon.wait_log("Waiting: the pair is paused since ");
    assert_eq!(pair.on_slave("select id from t"), ["1"]);
    // It lasts over a restart.
    assert!(daemon.terminate().success());
    let mut daemon = pair.start();
    daemon.wait_log("Waiting: the pair is paused since ");
    pair.run("insert into t values (3, 'while')");
    assert_eq!(pair.on_slave("select id from t"), ["1"]);
    assert_says(&pair.done(&["resume"]), &["goes on"]);
    pair.wait_caught_up();
    daemon.wait_log("Going on");
    pair.assert_equal();
    assert_says(&pair.done(&["resume"]), &["was not paused"]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_drain_of_a_paused_pair_says_so() {
    let pair = pair();
    pair.done(&["pause"]);
    pair.run("insert into t values (1, 'x')");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 7, "{}", finished.output);
    assert_says(&finished.output, &["the pair is paused since", "hint: pyreplica resume"]);
    pair.done(&["resume"]);
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_program_learns_which_pairs_are_paused_although_another_one_cannot_be() {
    let pair = pair();
    let good = pair.config_file("");
    let bad = pair.dir().join("bad.conf");
    std::fs::write(&bad, "[MAIN]\nNAME=bad\nDSN0=host=127.0.0.1 port=9\nDSN1=host=127.0.0.1 port=9 dbname=d\n")
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pyreplica")).args(["pause", "--json"]).args([&good, &bad]).output();
    let output = output.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &document["exit_code"]), (Some(4), &serde_json::json!(4)), "{document}");
    assert_eq!(document["results"][0]["outcome"], "paused", "{document}");
    assert_eq!(document["error"]["side"], "master", "{document}");
    pair.done(&["resume"]);
}

#[test]
fn a_paused_table_waits_while_the_others_go_on() {
    let pair = pair();
    let tables = ["--table", "t", "--table", r#""odd one"."Ta""ble""#, "--table", "parts_1"];
    pair.done(&[&["pause"], &tables[..]].concat());
    let mut daemon = pair.start();
    pair.run(
        r#"insert into t select i, 'new' from generate_series(1, 30) i; insert into u values (1, 'u');
           insert into "odd one"."Ta""ble" (a) values ('it''s "\'), (null); insert into parts values (1, 'p')"#,
    );
    pair.run(
        "update t set a = 'later', id = -id where id > 20; delete from t where id < 5; insert into u values (2, 'u')",
    );
    pair.run(r#"update "odd one"."Ta""ble" set a = '{}' where id = 1"#);
    pair.wait_caught_up();
    assert_eq!(pair.on_slave("select count(*) from u"), ["2"]);
    let empty = pair.on_slave(r#"select (select count(*) from t) + (select count(*) from parts) + (select count(*) from "odd one"."Ta""ble")"#);
    assert_eq!(empty, ["0"]);
    daemon.wait_log("Holding the changes of public.t: it is paused");
    assert_says(&pair.done(&["resume"]), &["was not paused"]);
    let said = pair.done(&[&["resume"], &tables[..]].concat());
    assert_says(&said, &["public.t: goes on, 54 changes replayed", "public.parts: goes on, 1 change"]);
    pair.assert_equal();
    pair.run("truncate t; insert into parts values (2, 'p')");
    pair.wait_caught_up();
    daemon.wait_log("Going on with public.t: its pause has ended");
    pair.assert_equal();
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"]);
    assert!(daemon.terminate().success());
}

#[test]
fn a_table_may_be_resumed_and_the_verb_killed_at_any_point_while_its_changes_arrive() {
    let pair = pair();
    // A change that is replayed twice would show.
    pair.exec_both("create table counter (id int primary key, n int); insert into counter values (1, 0)");
    pair.run("select py_log_create_tg('counter')");
    pair.run_on_slave(
        "create function note() returns trigger language plpgsql as $$ begin insert into seen values (new.n); return null; end $$;
         create table seen (n int);
         create trigger seen after update on counter for each row execute function note();
         alter table counter enable always trigger seen",
    );
    let mut daemon = pair.start();
    let mut changes = 0;
    let mut load = || {
        changes += 700;
        pair.run("do $$ begin for i in 1..700 loop update counter set n = n + 1; end loop; end $$");
        changes
    };
    for point in ["release-done:1", "release-committed:1", "release-done:2", "release-committed:2", "release-done:3"] {
        pair.done(&["pause", "--table", "counter"]);
        load();
        load();
        pair.wait_caught_up();
        // resume locks, replays and commits two pieces and then what is left.
        pair.killed_at(point, &["resume", "--table", "counter"]);
        load();
        pair.wait_caught_up();
        pair.done(&["resume", "--table", "counter"]);
        pair.wait_caught_up();
        pair.assert_no_prepared();
        assert_eq!(pair.on_slave("select n from counter"), pair.on_master("select n from counter"), "{point}");
    }
    let expected = [changes.to_string()];
    assert_eq!(pair.on_slave("select count(*) from seen"), expected);
    assert_eq!(pair.on_slave("select count(distinct n) from seen"), expected);
    assert!(daemon.terminate().success());
}

#[test]
fn a_table_that_does_not_exist_is_not_paused() {
    let pair = pair();
    let finished = pair.verb(&["pause", "--table", "nowhere"]);
    assert_eq!(finished.code(), 2, "{}", finished.output);
    assert_says(&finished.output, &["master: cannot find the table: there is no table 'nowhere'", "hint: "]);
}
