//! Whatever breaks, and at whichever step of the protocol: while it is broken, `status` and `doctor` say what failed, on
//! which side, and what to do now.

use crate::harness::copying::paused;
use crate::harness::looking::{explained, status};
use crate::harness::{OwnCluster, Pair, assert_says, wait_until};
use pyreplica::for_tests::Step;

const CHANGE: &str = "insert into t select coalesce(max(id), 0) + 1, 'new' from t";

/// Two servers that a test may stop.
fn own() -> (OwnCluster, OwnCluster, Pair) {
    let (master, slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    let pair = Pair::on(master.server(), slave.server()).with_a_table();
    (master, slave, pair)
}

/// The transactions that are prepared on each side.
fn prepared(pair: &Pair) -> [Vec<String>; 2] {
    let ours = "select gid from pg_prepared_xacts where database = current_database()";
    [pair.on_master(ours), pair.on_slave(ours)]
}

#[test]
fn a_daemon_that_died_at_any_step_is_told_with_one_server_down_or_none() {
    let (mut master, mut slave, pair) = own();
    pair.run(CHANGE);
    pair.once();
    for step in Step::ALL {
        let mut daemon = pair.start_paused_at(&step.to_string());
        pair.run(CHANGE);
        daemon.wait_paused();
        daemon.kill9();
        wait_until("the server notices the end of the daemon", || status(&pair)["daemon_connected"] == false);
        let [there, here] = prepared(&pair);

        let told = explained(&pair, "");
        assert_eq!(told.state, "stopped", "{step}");
        assert_says(
            &told.status,
            &["no daemon is connected to the master; changes that wait: ", "start it: pyreplica "],
        );
        assert_says(&told.doctor, &["no daemon replicates this pair now", "start it: pyreplica "]);
        for (side, gids) in [("master", &there), ("slave", &here)] {
            gids.iter().for_each(|gid| told.assert_says(&[&format!("'{gid}' on the {side}"), "the daemon"]));
            gids.iter().for_each(|gid| {
                assert_says(&told.doctor, &[&format!("on the {side}: "), &format!("PREPARED '{gid}';")])
            });
        }

        slave.stop_immediate();
        let told = explained(&pair, "");
        assert_says(&told.status, &["slave: cannot connect to ", "hint: is the server running there"]);
        assert_says(&told.doctor, &["failure  slave   connection", "hint: is the server running there"]);
        there.iter().for_each(|gid| told.assert_says(&[gid, "hint: don't settle", "by hand"]));
        slave.start_again();

        master.stop_immediate();
        let told = explained(&pair, "");
        assert_eq!(told.state, "unknown", "{step}");
        assert_says(&told.status, &["master: cannot connect to ", "hint: is the server running there"]);
        assert_says(&told.doctor, &["failure  master  connection", "hint: is the server running there"]);
        here.iter().for_each(|gid| told.assert_says(&[gid, "hint: don't settle", "by hand"]));
        master.start_again();

        pair.once();
        pair.assert_equal();
        assert_eq!(status(&pair)["in_doubt"], 0, "{step}");
    }
}

#[test]
fn a_batch_in_doubt_can_be_settled_by_hand_as_the_doctor_says() {
    for (step, lost) in [
        (Step::Prepared, "slave"),
        (Step::Prepared, "master"),
        (Step::Prepared, "neither"),
        (Step::SlaveCommitted, "neither"),
    ] {
        let pair = Pair::new().with_a_table();
        pair.run(CHANGE);
        let mut daemon = pair.start_paused_at(&step.to_string());
        daemon.wait_paused();
        daemon.kill9();
        // One side may not have come so far.
        let undo = |gid: &String| format!("rollback prepared '{gid}'");
        let [there, here] = prepared(&pair);
        match lost {
            "slave" => pair.run_on_slave(&undo(&here[0])),
            "master" => pair.run(&undo(&there[0])),
            _ => {}
        }
        let told = explained(&pair, "").doctor;
        let steps = told.split_once("If it cannot: ").expect("what to do").1.lines().next().unwrap();
        for step in steps.split(" and then ") {
            match step.split_once(": ").expect("side and statement") {
                ("on the master", statement) => pair.run(statement),
                ("on the slave", statement) => pair.run_on_slave(statement),
                other => panic!("{other:?}"),
            }
        }
        pair.assert_no_prepared();
        let arrived = pair.on_slave("select count(*) from t") == ["1"];
        assert_eq!(arrived, lost == "neither", "{step}, lost on {lost}");
        pair.once();
        pair.assert_equal();
    }
}

#[test]
fn a_slave_that_stops_at_any_step_of_a_living_daemon_is_told_and_so_is_its_return() {
    let (_master, mut slave, pair) = own();
    for step in Step::ALL {
        let mut daemon = pair.start_paused_at(&step.to_string());
        pair.run(CHANGE);
        daemon.wait_paused();
        slave.stop_immediate();
        daemon.resume();
        // A daemon that has just gone to sleep looks after it within five seconds.
        wait_until("the daemon tells the failure", || {
            let problems = status(&pair)["problems"].to_string();
            status(&pair)["state"] == "failing" && problems.contains("failing since ")
        });
        let told = explained(&pair, "");
        assert_says(&told.status, &["failing since ", "slave: cannot ", "hint: is the server "]);
        assert_says(&told.doctor, &["failure  slave   connection", "hint: is the server running there"]);
        slave.start_again();
        pair.wait_caught_up();
        wait_until("status tells that it is over", || status(&pair)["state"] == "replicating");
        assert!(daemon.terminate().success());
        pair.assert_equal();
    }
}

#[test]
fn servers_that_have_no_place_for_another_prepared_transaction_are_told() {
    let small = OwnCluster::start("full", "max_prepared_transactions = 1", &[]);
    let usual = Pair::new();
    for (pair, side, code) in [
        (Pair::on(small.server(), usual.slave_server()), "master", 4),
        (Pair::on(usual.master_server(), small.server()), "slave", 5),
    ] {
        let pair = pair.with_a_table();
        pair.run(CHANGE);
        let prepare = format!("begin; create table of_others (); prepare transaction '{}'", pair.name);
        if side == "master" {
            pair.run(&prepare)
        } else {
            pair.run_on_slave(&prepare)
        }
        let finished = pair.try_once();
        assert_eq!(finished.code(), code, "{}", finished.output);
        let told = explained(&pair, "");
        assert_eq!(told.state, "failing", "{}", told.status);
        let words = format!("{side}: cannot prepare transaction batch ");
        told.assert_says(&[&words, "max_prepared_transactions are in use", "SELECT * FROM pg_prepared_xacts"]);
        assert_says(
            &told.doctor,
            &["1 of the 1 prepared transactions", "ALTER SYSTEM SET max_prepared_transactions = 2;"],
        );
        let settle = format!("rollback prepared '{}'", pair.name);
        if side == "master" {
            pair.run(&settle)
        } else {
            pair.run_on_slave(&settle)
        }
        // Until the batch is prepared on both sides, each takes one place.
        pair.once();
        pair.assert_equal();
    }
}

#[test]
fn who_keeps_a_lock_on_the_slave_is_named() {
    let pair = Pair::new().with_a_table();
    pair.run(CHANGE);
    let mut client = pair.slave();
    client.batch_execute("begin; lock table t").unwrap();
    assert_eq!(pair.try_once().code(), 5);
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let told = explained(&pair, "");
    assert_eq!(told.state, "failing");
    told.assert_says(&["slave: cannot ", "hint: another session holds a lock there: pyreplica doctor names it"]);
    assert_says(
        &told.doctor,
        &[
            &format!("process {pid} (postgres, "),
            "on public.t, for which",
            &format!("slave=> SELECT pg_terminate_backend({pid});"),
        ],
    );
    client.batch_execute("rollback").unwrap();
    pair.once();
    pair.assert_equal();
}

/// Nobody can see of a daemon that stands still what it waits for, save that it does nothing.
#[test]
fn a_daemon_that_stands_still_is_told_and_whoever_keeps_another_one_out_is_named() {
    let pair = Pair::new().with_a_table();
    pair.run(CHANGE);
    pair.once();
    pair.run(CHANGE);
    let mut daemon = pair.start_paused_at("begun");
    daemon.wait_paused();
    let finished = pair.try_once();
    assert_eq!(finished.code(), 7, "{}", finished.output);
    let session = "select pid from pg_locks where locktype = 'advisory' and classid = 1887007333 \
                   and database = (select oid from pg_database where datname = current_database())";
    let pid = pair.on_master(session).remove(0);
    let end = format!("SELECT pg_terminate_backend({pid});");
    assert_says(&finished.output, &[&format!("already (server process {pid}, from 127.0.0.1, as "), &end]);
    pair.run("update replica_slave set ts = now() - interval '1 hour'; update replica_log set ts = now() - interval '1 hour'");
    let finished = pair.verb_by_file("status", "", &[]);
    assert_eq!(finished.code(), 9, "{}", finished.output);
    let words = format!(
        "a daemon is connected (server process {pid} on the master, from 127.0.0.1) and has committed nothing for 36"
    );
    assert_says(&finished.output, &[&words, &end]);
    daemon.resume();
    pair.wait_caught_up();
    assert!(daemon.terminate().success());
}

#[test]
fn a_daemon_that_failed_and_was_not_seen_since_is_told_to_be_gone() {
    let pair = Pair::new().with_a_table();
    pair.run_on_slave("insert into t values (1, 'in the way')");
    pair.run(CHANGE);
    assert_eq!(pair.try_once().code(), 6);
    let told = explained(&pair, "");
    told.assert_says(&["failing since ", "hint: fix the slave by hand", "pyreplica skip"]);
    assert!(!told.status.contains("start it"), "it may try again at any moment: {}", told.status);
    pair.run("update replica_error set since = since - interval '2 hours', last = last - interval '1 hour'");
    let told = explained(&pair, "");
    assert_says(&told.status, &["failing since ", "none has tried since ", "start it: pyreplica "]);
}

#[test]
fn a_log_that_has_grown_too_large_is_told_with_the_slave_that_it_is_kept_for() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t select n, repeat('x', 100) from generate_series(1, 10000) n");
    let told = explained(&pair, "LOG_WARNING=1");
    assert_says(&told.status, &["the master's log has grown to ", "LOG_WARNING", "hint: pyreplica doctor "]);
    assert_says(
        &told.doctor,
        &["more than LOG_WARNING: replicated has not replayed changes since ", "py_log_remove_slave"],
    );
}

#[test]
fn a_copy_that_is_under_way_or_was_interrupted_is_told() {
    let pair = Pair::new().with_a_table();
    pair.exec_both("create table u (id int primary key)");
    pair.create_triggers();
    pair.run(CHANGE);
    let mut copy = paused(&pair, &[], "copy-table:2");
    let [told, for_doctor] = ["status", "doctor"].map(|verb| pair.verb_by_file(verb, "", &[]));
    assert_eq!((told.code(), for_doctor.code()), (8, 0), "{} {}", told.output, for_doctor.output);
    let words = "a copy to this slave has been in progress since ";
    assert_says(&told.output, &[" copying ", words, "hint: when it has ended, start the daemon"]);
    assert!(!told.output.contains("no daemon is connected"), "{}", told.output);
    let daemon = [
        "note     master  daemon",
        "none: a copy to the slave is in progress (server process ",
        "note     slave   copy ",
        words,
    ];
    assert_says(&for_doctor.output, &daemon);
    copy.kill9();
    wait_until("the server notices the end of the copy", || status(&pair)["copying"] == false);
    for state in ["stopped", "failing"] {
        let told = explained(&pair, "");
        assert_eq!(told.state, state, "{}", told.status);
        let words = ["a copy to this slave is unfinished since ", "of 2 tables are there", "run pyreplica copy "];
        told.assert_says(&words);
        assert_says(&told.doctor, &["failure  slave   copy "]);
        assert_eq!(status(&pair)["unfinished_copy"]["tables"], 2);
        assert_eq!(pair.try_once().code(), 5);
    }
    // A daemon that waits for that tries at once.
    let mut daemon = pair.start();
    daemon.wait_log_times("Trying again in", 7);
    pair.done(&["copy"]);
    daemon.wait_log("Trying at once");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
    assert_eq!(status(&pair)["unfinished_copy"], serde_json::Value::Null);
}

#[test]
fn a_copy_that_is_given_up_as_the_documentation_says_leaves_a_slave_that_replicates() {
    let pair = Pair::new().with_a_table();
    pair.run(CHANGE);
    pair.killed_at("copy-loaded", &["copy"]);
    pair.run_on_slave("truncate t");
    pair.run_on_slave("delete from replica_copy where state in ('wanted', 'loaded')");
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_table_whose_copy_is_under_way_or_was_interrupted_is_told() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start();
    pair.run(CHANGE);
    pair.wait_caught_up();
    let again = ["--table", "t", "--truncate"];
    let mut copy = paused(&pair, &again, "copy-held");
    let told = explained(&pair, "");
    assert_eq!(told.state, "replicating", "{}", told.status);
    assert_says(&told.status, &["tables that are being copied, ", "held on the slave until the copy ends: public.t"]);
    assert_says(&told.doctor, &["warning  slave   copy ", "being copied, ", "public.t"]);
    copy.kill9();
    wait_until("the server notices the end of the copy", || status(&pair)["copying"] == false);
    let told = explained(&pair, "");
    assert_says(&told.status, &["a copy was interrupted", "slave: public.t", "run it again: pyreplica copy --table "]);
    assert_says(&told.doctor, &["public.t", "run it again: pyreplica copy --table "]);
    pair.run(CHANGE);
    pair.done(&[&["copy"], &again[..]].concat());
    pair.wait_caught_up();
    pair.assert_equal();
    assert_eq!(pair.verb_by_file("status", "", &[]).code(), 0);
    assert!(daemon.terminate().success());
}
