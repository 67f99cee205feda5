//! A server that does its last word of a batch late: after its daemon has died, while or after another one looks.

use crate::harness::{Daemon, Pair, Still, acquainted_pair, wait_until};
use postgres::Client;
use std::fs;

/// How each row came to the slave.
fn slave_rows(pair: &Pair) -> Vec<String> {
    pair.on_slave("select id || ' ' || how from t where id > 0 order by id")
}

#[track_caller]
fn assert_settled(pair: &Pair) {
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
}

// == By two-phase commit ==

/// The daemon's session on the slave: process and client port.
fn slave_backend(pair: &Pair) -> (u32, u16) {
    let sql = "select pid || ' ' || client_port from pg_stat_activity
                where datname = current_database() and client_port > 0";
    // The session of an earlier daemon may still be ending.
    wait_until("the daemon's session is the only one", || pair.on_slave(sql).len() == 1);
    let found = pair.on_slave(sql).remove(0);
    let (pid, port) = found.split_once(' ').unwrap();
    (pid.parse().unwrap(), port.parse().unwrap())
}

/// Has the server's end of this connection got bytes that nobody has read yet? Linux tells.
fn has_unread_bytes(server_port: u16, client_port: u16) -> bool {
    let text = fs::read_to_string("/proc/net/tcp").expect("Linux lists its connections");
    text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 4
            && words[1].ends_with(&format!(":{server_port:04X}"))
            && words[2].ends_with(&format!(":{client_port:04X}"))
            && !words[4].ends_with(":00000000")
    })
}

/// A daemon that dies right after it has sent the slave's last word of a batch, to a backend that stands still. Returns
/// the backend: it will do as it was told, but later.
fn die_while_the_slave_is_slow(pair: &Pair, mut daemon: Daemon) -> Still {
    daemon.wait_paused();
    let (pid, client_port) = slave_backend(pair);
    let backend = Still::make(pid);
    daemon.resume();
    wait_until("the daemon has sent its command", || has_unread_bytes(pair.slave_server().port(), client_port));
    daemon.kill9();
    backend
}

/// The same, at the moment when the master has prepared the batch and the slave is still to.
fn die_while_the_slave_prepares(pair: &Pair) -> Still {
    let mut daemon = pair.start_paused_at("replayed");
    daemon.wait_paused();
    let backend = Still::make(slave_backend(pair).0);
    daemon.resume();
    wait_until("the master has prepared", || prepared(&mut pair.master()) == 1);
    daemon.kill9();
    backend
}

const LOAD: &str = "insert into t values (1, 'replayed');
     update counter set n = n + 1;
     insert into replica_log(sql) values ('UPDATE counter SET n = n + 1')";

#[test]
fn a_prepare_that_comes_after_its_batch_was_rolled_back_is_rolled_back_too() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let backend = die_while_the_slave_prepares(&pair);
    let mut daemon = pair.start();
    daemon.wait_log("prepared on the master only: roll it back");
    backend.go_on();
    daemon.wait_log("not committed on the master: roll back on the slave");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
}

#[test]
fn a_prepare_that_comes_before_anybody_looks_is_completed() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let backend = die_while_the_slave_prepares(&pair);
    backend.go_on();
    wait_until("the slave has prepared", || prepared(&mut pair.slave()) == 1);
    let output = pair.once_with("");
    assert!(output.contains("prepared on both sides: commit both"), "{output}");
    pair.assert_equal();
    assert_settled(&pair);
}

/// It held no lock when it died. By the time that the server reads its last message, another batch has written the slave's row.
#[test]
fn a_late_batch_prepares_nothing_after_another_one() {
    let pair = acquainted_pair();
    pair.run_on_slave("delete from t");
    pair.run("delete from t");
    let backend = die_while_the_slave_prepares(&pair);
    let output = pair.once_with("");
    assert!(output.contains("prepared on the master only: roll it back"), "{output}");
    backend.go_on();
    let sessions = "select pid from pg_stat_activity where datname = current_database() and client_port > 0";
    wait_until("the late session has ended", || pair.on_slave(sessions).is_empty());
    assert_eq!(prepared(&mut pair.slave()), 0);
    let output = pair.once_with("");
    assert!(!output.contains("Recovering"), "{output}");
    pair.assert_equal();
    assert_settled(&pair);
}

#[test]
fn a_master_that_prepares_after_the_slave_and_its_daemon_is_waited_for() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let mut daemon = pair.start_paused_at("replayed");
    daemon.wait_paused();
    let replicates = "select pid from pg_locks where locktype = 'advisory' and classid = 1887007333
                       and database = (select oid from pg_database where datname = current_database())";
    let backend = Still::make(pair.on_master(replicates).remove(0).parse().unwrap());
    daemon.resume();
    wait_until("the slave has prepared", || prepared(&mut pair.slave()) == 1);
    daemon.kill9();
    // What it does not know yet cannot be decided: it keeps every other daemon out.
    assert_eq!(pair.try_once().code(), 7);
    backend.go_on();
    wait_until("the master has prepared", || prepared(&mut pair.master()) == 1);
    let output = pair.once_with("");
    assert!(output.contains("prepared on both sides: commit both"), "{output}");
    pair.assert_equal();
    assert_settled(&pair);
}

fn prepared(client: &mut Client) -> i64 {
    let sql = "select count(*) from pg_prepared_xacts where database = current_database()";
    client.query_one(sql, &[]).unwrap().get(0)
}

// == Without two-phase commit ==

const ONE_PHASE: &str = "TWO_PHASE=false";

#[test]
fn a_slave_that_is_ahead_has_its_position_noted_and_nothing_replayed() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let mut daemon = pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", "slave-committed")]);
    daemon.wait_paused();
    daemon.kill9();
    assert_ne!(pair.pending(), 0);
    let finished = pair.try_once_by_file(ONE_PHASE);
    assert!(finished.output.contains("committed on the slave: note it on the master"), "{}", finished.output);
    assert!(finished.status.success(), "{}", finished.output);
    pair.assert_equal();
    assert_settled(&pair);
}

#[test]
fn a_commit_that_comes_while_the_next_daemon_is_at_work_is_waited_for_and_seen() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let paused = pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", "noted")]);
    let backend = die_while_the_slave_is_slow(&pair, paused);
    let mut daemon = pair.start_with(ONE_PHASE);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the new daemon waits for the old one's row", || pair.on_slave(waits) == ["1"]);
    backend.go_on();
    daemon.wait_log("committed on the slave: note it on the master");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

#[test]
fn a_commit_that_comes_before_anybody_looks_is_seen() {
    let pair = acquainted_pair();
    pair.run(LOAD);
    let backend = die_while_the_slave_is_slow(&pair, pair.start_in(ONE_PHASE, &[("PYREPLICA_PAUSE_AT", "noted")]));
    backend.go_on();
    wait_until("the slave has committed", || slave_rows(&pair) == ["1 replayed"]);
    let finished = pair.try_once_by_file(ONE_PHASE);
    assert!(finished.output.contains("committed on the slave: note it on the master"), "{}", finished.output);
    pair.assert_equal();
    assert_settled(&pair);
}
