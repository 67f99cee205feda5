//! Several slaves of one master: each at its own pace, none in another's way, and a log that does not outgrow them.

use crate::harness::{Pair, wait_until};

const TABLE: &str = "create table t (id int primary key, a int)";

/// Config lines for a second slave of the first pair's master.
fn second(first: &Pair, more: &str) -> String {
    format!("DSN0={}\nSLAVE_FIELD=slave2\n{more}", first.master_dsn)
}

/// A master with two slaves: the first pair's own, and the second pair's. The second pair's master is not used.
fn two_slaves() -> (Pair, Pair) {
    let (first, other) = (Pair::new(), Pair::new());
    first.exec_both(TABLE);
    other.run_on_slave(TABLE);
    first.create_triggers();
    first.run("select py_log_add_slave('slave2')");
    (first, other)
}

fn log(pair: &Pair) -> Vec<String> {
    pair.on_master("select count(*) from replica_log")
}

#[test]
fn each_slave_replays_at_its_own_pace_and_the_last_one_empties_the_log() {
    let (first, other) = two_slaves();
    first.run("insert into t select i, i from generate_series(1, 100) i; update t set a = a + 1 where id < 50");
    assert!(first.try_once_by_file("RETENTION=0").status.success());
    first.assert_equal();
    assert_eq!(log(&first), ["149"], "slave2 has replayed nothing yet");
    assert_eq!(other.on_slave("select count(*) from t"), ["0"]);

    assert!(other.try_once_by_file(&second(&first, "RETENTION=0")).status.success());
    assert_eq!(other.on_slave("select count(*), sum(a) from t"), ["100"]);
    assert_eq!(log(&first), ["0"]);
}

#[test]
fn two_slaves_that_replay_at_the_same_time_leave_nothing_behind() {
    let (first, other) = two_slaves();
    let _one = first.start_with("RETENTION=0");
    let _two = other.start_with(&second(&first, "RETENTION=0"));
    for round in 0..30 {
        first.run(&format!(
            "insert into t select i, 0 from generate_series({0}, {0} + 9) i; update t set a = a + 1",
            round * 10
        ));
    }
    wait_until("both slaves have replayed everything", || log(&first) == ["0"]);
    first.wait_caught_up();
    let sum = "select sum(a)::text from t";
    wait_until("the second slave has committed", || other.on_slave(sum) == first.on_master(sum));
    first.assert_equal();
}

#[test]
fn a_slave_added_later_gets_what_comes_later() {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    let daemon = pair.start_with("RETENTION=0");
    pair.run("insert into t values (1, 1)");
    pair.wait_caught_up();
    // The running daemon must notice that it is not the last slave any more, or it would delete what slave2 needs.
    assert_eq!(
        pair.on_master("select py_log_add_slave('slave2')"),
        ["added slave slave2: set SLAVE_FIELD=slave2 in its config file"]
    );
    pair.run("insert into t values (2, 2)");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_eq!(pair.on_master("select new -> 'id' from replica_log where not slave2"), ["2"]);

    assert_eq!(pair.on_master("select py_log_remove_slave('slave2')"), ["removed slave slave2"]);
    pair.run("insert into t values (3, 3)");
    wait_until("only what was kept for slave2 is left", || log(&pair) == ["1"]);
    pair.assert_equal();
    drop(daemon);
    assert!(pair.try_once_by_file("RETENTION=0").status.success());
    assert_eq!(log(&pair), ["0"]);
}

/// A dead slave's backlog may be large, and who removes the slave has the log locked against all writers.
#[test]
fn what_was_kept_for_a_removed_slave_is_deleted_by_the_daemons_of_the_others() {
    let (first, other) = two_slaves();
    first.run("insert into t select i, i from generate_series(1, 20000) i");
    assert!(other.try_once_by_file(&second(&first, "")).status.success());
    first.run("update t set a = a + 1 where id <= 12000");
    let mut daemon = first.start_with("FLAGS=false\nDEBUG_LEVEL=2");
    let caught_up = "select count(*) from replica_replayed where field = 'replicated' and not replayed";
    wait_until("the first slave has caught up", || first.on_master(caught_up) == ["0"]);
    // A batch of slave2 would hold this row. Writers of the log must not wait for it as well.
    let mut writer = first.master();
    writer.batch_execute("begin; select 1 from replica_slave where field = 'slave2' for update").unwrap();
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| first.on_master("select py_log_remove_slave('slave2')"));
        let waits =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                     and query like 'select py_log_remove_slave%'";
        wait_until("it waits for the slave's batch", || first.on_master(waits) == ["1"]);
        first.run("set lock_timeout = '5s'; insert into t values (-1, 0)");
        writer.batch_execute("commit").unwrap();
        assert_eq!(removing.join().unwrap(), ["removed slave slave2"]);
    });
    assert_eq!(log(&first), ["32001"], "none of it was deleted under the lock");
    let left = "select field from replica_slave union select field from replica_history";
    assert_eq!(first.on_master(left), ["replicated"]);
    first.run("update replica_log set ts = ts - interval '2 days' where id <= 32000");
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    assert!(first.try_once_by_file("").status.success());
    assert_eq!(log(&first), ["1"], "the others' daemons delete by RETENTION");
    assert!(first.try_once_by_file("RETENTION=0").status.success());
    assert_eq!(log(&first), ["0"]);
    first.assert_equal();
}

#[test]
fn the_only_slave_cannot_be_removed() {
    let pair = Pair::new();
    let error = pair.master().batch_execute("select py_log_remove_slave('replicated')").unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("is the only one"), "{error}");
}

/// What it holds is its own row, and nobody else's.
#[test]
fn a_slave_that_died_in_doubt_is_in_nobodys_way() {
    let (first, other) = two_slaves();
    let lines = second(&first, "RETENTION=0");
    let mut dying = other.start_in(&lines, &[("PYREPLICA_PAUSE_AT", "prepared")]);
    first.run("insert into t values (1, 1), (2, 2)");
    dying.wait_paused();
    dying.kill9();
    assert_eq!(first.on_master("select count(*) from pg_prepared_xacts where database = current_database()"), ["1"]);

    let finished = first.try_once_by_file("RETENTION=0");
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!((first.pending(), log(&first)), (0, vec!["2".to_string()]));
    first.assert_equal();
    first.run("select py_log_add_slave('slave3')");
    assert_eq!(first.on_master("select count(*) from pg_prepared_xacts where database = current_database()"), ["1"]);

    let back = other.start_with(&lines);
    wait_until("slave2 has replayed it", || other.on_slave("select sum(a) from t") == ["3"]);
    wait_until("the log is empty", || log(&first) == ["0"]);
    other.assert_no_prepared();
    drop(back);
}

#[test]
fn replayed_changes_stay_for_the_retention_and_are_purged_then() {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    pair.run("insert into t select i, i from generate_series(1, 20000) i");
    pair.once();
    assert_eq!(log(&pair), ["20000"]);
    assert_eq!(pair.pending(), 0);
    pair.run("update replica_log set ts = ts - interval '2 days' where id <= 15000");
    pair.once();
    assert_eq!(log(&pair), ["5000"]);
}

#[test]
fn a_log_that_grows_too_large_names_the_slave_that_is_away() {
    let (first, _other) = two_slaves();
    first.run("alter table t add b text");
    first.run_on_slave("alter table t add b text");
    first.run("insert into t select i, i, repeat(md5(i::text), 20) from generate_series(1, 5000) i");
    let mut daemon = first.start_with("LOG_WARNING=1");
    daemon.wait_log("replica_log has grown to");
    daemon.wait_log("slave2 has not replayed changes since");
    assert!(!daemon.log().contains("replicated has not replayed"), "{}", daemon.log());
}

#[test]
fn a_missing_index_is_named() {
    let pair = Pair::new();
    pair.run("drop index replica_log_id");
    let said = pair.once();
    assert!(said.output.contains("CREATE INDEX ON replica_log (id);"), "{}", said.output);
}
