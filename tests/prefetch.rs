//! A long backlog is read ahead by a session of its own: what happens when that is lost, when something that was read
//! ahead is not to be replayed, and when the pair is stopped.

use crate::harness::{self, Pair, assert_says};

/// More than one read of the log, hence several batches and windows.
const BACKLOG: i32 = 60_000;

const READER: &str = "select pid from pg_stat_activity where datname = current_database() \
     and application_name like 'pyreplica % reader'";

fn pair_with_backlog() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text)");
    pair.create_triggers();
    pair.run(&format!(
        "do $$ begin
             for i in 1..{BACKLOG} / 30 loop
                 insert into t select i * 30 + n, 'new' from generate_series(0, 29) n;
                 update t set a = 'changed ' || i where id = i * 30;
                 commit;
             end loop;
         end $$"
    ));
    pair
}

#[track_caller]
fn assert_replayed(pair: &Pair) {
    pair.assert_equal();
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
}

#[test]
fn a_reader_that_is_lost_costs_a_new_connection_and_nothing_else() {
    let pair = pair_with_backlog();
    let mut daemon = pair.start_in("DEBUG_LEVEL=1", &[("PYREPLICA_PAUSE_AT", "prepared:2")]);
    daemon.wait_paused();
    assert_eq!(pair.on_master(READER).len(), 1, "it reads ahead");
    pair.run(&format!("select pg_terminate_backend(pid) from ({READER}) r"));
    daemon.resume();
    pair.wait_caught_up();
    daemon.wait_log("Trying again");
    assert_replayed(&pair);
    harness::wait_until("the reader goes when there is nothing to read", || pair.on_master(READER).is_empty());
    assert!(daemon.terminate().success(), "{}", daemon.log());
}

#[test]
fn what_was_read_behind_a_change_that_fails_is_not_replayed_before_it() {
    let pair = pair_with_backlog();
    pair.run_on_slave("insert into t values (45000, 'in the way')");
    let failed = pair.try_once_by_file("DEBUG_LEVEL=1");
    assert_eq!(failed.code(), 6, "{}", failed.output);
    assert_says(&failed.output, &["(INSERT INTO \"t\"): duplicate key value violates unique constraint \"t_pkey\""]);
    assert_eq!(
        pair.on_slave("select concat_ws(' ', min(id), max(id), count(*)) from t where id <> 45000"),
        ["30 44999 44970"]
    );
    pair.assert_no_prepared();
    pair.run_on_slave("delete from t where id = 45000");
    assert!(pair.try_once_by_file("DEBUG_LEVEL=1").status.success());
    assert_replayed(&pair);
}

#[test]
fn quarantine_in_the_middle_of_what_was_read_ahead_lets_the_rest_go_on() {
    let pair = pair_with_backlog();
    pair.run_on_slave("insert into t values (45000, 'in the way')");
    let finished = pair.try_once_by_file("DEBUG_LEVEL=1\nON_ERROR=quarantine");
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["31"]);
    assert_eq!(pair.on_slave("select count(*) from t"), [(BACKLOG - 29).to_string()]);
    pair.run_on_slave("delete from t where id = 45000");
    pair.done(&["retry"]);
    assert_replayed(&pair);
}

#[test]
fn a_stop_does_not_wait_for_what_is_being_read_ahead() {
    let pair = pair_with_backlog();
    let mut daemon = pair.start_in("DEBUG_LEVEL=1", &[("PYREPLICA_PAUSE_AT", "begun:2")]);
    daemon.wait_paused();
    daemon.signal("TERM");
    daemon.resume();
    assert!(daemon.wait_exit().success(), "{}", daemon.log());
    pair.assert_no_prepared();
    let finished = pair.try_once_by_file("DEBUG_LEVEL=1");
    assert!(finished.status.success(), "{}", finished.output);
    assert_replayed(&pair);
}
