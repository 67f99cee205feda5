//! A server's process that does not answer, though its machine and the network are there. Symptom: the daemon waited for an
//! answer for ever; it told so, and did nothing. Now it closes such a connection, gets an error that says what was not answered,
//! and reconnects. What the server works on, and a missing synchronous standby, it waits for.

use crate::harness::{Daemon, OwnCluster, Pair, Server, Still, wait_until};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The daemon reports after a second and closes after five; a process that shows no sign of work gets twenty.
const CONFIG: &str = "TIMEOUT=1\nDEBUG_LEVEL=3";

const CLOSED: &str = "the daemon has closed the connection";

/// One of the daemon's processes, by how the name of its session ends.
#[track_caller]
fn process(server: &Server, pair: &Pair, suffix: &str) -> u32 {
    let name = format!("pyreplica {}{suffix}", pair.name);
    let named = "select pid from pg_stat_activity where application_name = $1";
    let pid: i32 = server.connect("postgres").query_one(named, &[&name]).expect("one session of that name").get(0);
    pid.try_into().unwrap()
}

/// The daemon says which side has not answered, and why it has closed the connection.
#[track_caller]
fn wait_closed(daemon: &Daemon, side: &str, why: &str) {
    wait_until(&format!("the connection to the {side} is closed, because {why}"), || {
        let log = daemon.log();
        log.lines().any(|line| {
            line.contains(&format!("ERROR: {side}: cannot ")) && line.contains(why) && line.contains(CLOSED)
        })
    });
}

#[track_caller]
fn wait_ended(server: &Server, pid: u32) {
    let mut client = server.connect("postgres");
    let there = format!("select from pg_stat_activity where pid = {pid}");
    wait_until("the former process ends", || client.query(&there, &[]).unwrap().is_empty());
}

/// Both servers by their Unix sockets.
fn by_sockets(mut pair: Pair) -> Pair {
    let dsn = |server: &Server, database: String| {
        format!("host={} port={} user=postgres dbname={database}", server.dir().display(), server.port())
    };
    pair.master_dsn = dsn(pair.master_server(), pair.master_db());
    pair.slave_dsn = dsn(pair.slave_server(), pair.slave_db());
    pair
}

/// Started, and waiting for the first change.
fn start_idle(pair: &Pair) -> Daemon {
    started(pair.start_with(CONFIG))
}

fn started(mut daemon: Daemon) -> Daemon {
    daemon.wait_log("Waiting for 'NOTIFY'");
    daemon
}

#[track_caller]
fn goes_on(pair: &Pair, row: i32) {
    pair.run(&format!("insert into t values ({row}, 'x')"));
    pair.wait_caught_up();
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn a_process_that_does_not_read_loses_its_connection_and_the_pair_goes_on_without_it() {
    loses_its_connection(&Pair::new().with_a_table());
}

/// Symptom: nothing could close such a connection, so the pair waited until somebody let the process go on.
#[test]
fn a_process_behind_a_unix_socket_loses_its_connection_too() {
    loses_its_connection(&by_sockets(Pair::new().with_a_table()));
}

#[track_caller]
fn loses_its_connection(pair: &Pair) {
    let mut daemon = start_idle(pair);
    let mut row = 0;
    let sides = [
        (pair.slave_server(), "", "slave"),
        (pair.master_server(), "", "master"),
        (pair.master_server(), " listener", "master"),
    ];
    for (server, suffix, side) in sides {
        let pid = process(server, pair, suffix);
        let hung = Still::make(pid);
        row += 1;
        pair.run(&format!("insert into t values ({row}, 'while it hangs')"));
        wait_closed(&daemon, side, &format!("server process {pid} does not read what it was sent"));
        // Everything arrives while the process still hangs.
        row += 1;
        goes_on(pair, row);
        hung.go_on();
        wait_ended(server, pid);
        row += 1;
        goes_on(pair, row);
        wait_until("status shows no failure", || pair.verb_by_file("status", "", &[]).status.success());
    }
    assert!(daemon.terminate().success());
}

/// What the former process still does, when it goes on, is undone.
#[test]
fn a_process_that_stops_in_the_middle_of_a_transaction_is_replaced_and_nothing_is_lost_or_doubled() {
    let pair = Pair::new().with_a_table();
    pair.exec_both("create table counter (n int); insert into counter values (0)");
    let mut daemon = start_idle(&pair);
    pair.run(
        "insert into t values (1, 'locked'); update counter set n = n + 1;
         insert into replica_log (sql) values ('update counter set n = n + 1'), ('select pg_sleep(5)')",
    );
    let pid = process(pair.slave_server(), &pair, "");
    let sleeps = format!("select from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'");
    let mut watcher = pair.slave_server().connect("postgres");
    wait_until("the statement is executed", || !watcher.query(&sleeps, &[]).unwrap().is_empty());
    let hung = Still::make(pid);
    daemon.wait_log("does not react to a cancel request");
    daemon.wait_log(CLOSED);
    // Its transaction still locks the row; the next attempt says so.
    daemon.wait_log("lock timeout");
    hung.go_on();
    wait_ended(pair.slave_server(), pid);
    goes_on(&pair, 2);
    assert_eq!(pair.on_slave("select n from counter"), ["1"]);
    assert!(daemon.terminate().success());
}

/// Nobody can tell such a statement from a process that was stopped, so the daemon cancels it, once: then it gets more time.
#[test]
fn a_long_statement_without_any_sign_of_work_is_replayed_in_the_end() {
    let pair = Pair::new().with_a_table();
    let mut daemon = start_idle(&pair);
    pair.run("insert into t values (1, 'x'); insert into replica_log (sql) values ('select pg_sleep(26)')");
    daemon.wait_log("has shown no sign of work");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(!daemon.log().contains(CLOSED));
    assert_eq!(daemon.log().matches("has shown no sign of work").count(), 1);
    assert!(daemon.terminate().success());
}

#[test]
fn a_server_to_which_a_second_connection_gets_no_answer_either_loses_the_first() {
    let mut pair = Pair::new().with_a_table();
    let [master, slave] = pair.put_behind_forwarders();
    let mut daemon = start_idle(&pair);
    for (row, forwarder, side) in [(1, &slave, "slave"), (3, &master, "master")] {
        forwarder.freeze();
        pair.run(&format!("insert into t values ({row}, 'while it hangs')"));
        wait_closed(&daemon, side, "a second connection fails");
        forwarder.thaw();
        goes_on(&pair, row + 1);
    }
    assert!(daemon.terminate().success());
}

/// Without TCP the daemon cannot close such a connection. It reports the process, and the server ends it as soon as it goes on.
#[test]
fn a_process_behind_a_unix_socket_is_reported_and_replaced_when_it_goes_on_where_loopback_is_down() {
    let apart = ["unshare", "--net"];
    if !Command::new(apart[0]).args([apart[1], "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespaces here");
        return;
    }
    let pair = by_sockets(Pair::new().with_a_table());
    let mut daemon = started(pair.start_behind(&apart.map(String::from), CONFIG));
    assert_eq!(daemon.log().matches("cannot connect to itself by TCP").count(), 1);
    let pid = process(pair.slave_server(), &pair, "");
    let hung = Still::make(pid);
    pair.run("insert into t values (1, 'while it hangs')");
    daemon.wait_log(&format!("server process {pid} does not read what it was sent"));
    // A connection by TCP would have been closed by then.
    thread::sleep(Duration::from_secs(8));
    assert!(!daemon.log().contains(CLOSED));
    hung.go_on();
    wait_ended(pair.slave_server(), pid);
    goes_on(&pair, 2);
    // Whether the server's last message arrives before the end of the connection is chance.
    daemon.wait_log_times("Opening replica", 2);
    assert!(daemon.terminate().success());
}

/// The transaction is committed already, and another connection would wait too.
#[test]
fn a_missing_synchronous_standby_is_reported_and_waited_for() {
    let (master, slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    let pair = Pair::on(master.server(), slave.server()).with_a_table();
    let mut daemon = start_idle(&pair);
    pair.run_on_slave("alter system set synchronous_standby_names = 'nowhere'");
    pair.run_on_slave("select pg_reload_conf()");
    let set = || slave.server().connect("postgres").query_one("show synchronous_standby_names", &[]).unwrap();
    wait_until("the server waits for a standby", || set().get::<_, &str>(0) == "nowhere");
    pair.run("insert into t values (1, 'x')");
    daemon.wait_log("the server waits for SyncRep");
    // Any other answer that does not come would have been given up by then.
    thread::sleep(Duration::from_secs(8));
    assert!(!daemon.log().contains(CLOSED) && !daemon.log().contains("no sign of work"));
    let mut client = slave.server().connect("postgres");
    client.batch_execute("set synchronous_commit = local").unwrap();
    client.batch_execute("alter system reset synchronous_standby_names").unwrap();
    client.batch_execute("select pg_reload_conf()").unwrap();
    goes_on(&pair, 2);
    daemon.wait_log("the answer has come");
    assert_eq!(daemon.log().matches("Opening replica").count(), 1);
    assert!(daemon.terminate().success());
}
