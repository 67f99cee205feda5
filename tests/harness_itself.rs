//! The harness keeps its own promises: without that, no other test proves anything.

use crate::harness::{self, Daemon, Forwarder, OwnCluster, Pair, wait_until};

#[test]
fn a_pair_is_two_databases_that_start_equal_and_can_be_told_apart() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text)");
    pair.assert_equal();
    pair.run("insert into t values (1, 'one')");
    pair.assert_different();
    pair.run_on_slave("insert into t values (1, 'one')");
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn repeated_rows_are_counted_when_tables_are_compared() {
    let pair = Pair::new();
    pair.exec_both("create table t (a text)");
    pair.run("insert into t values ('x'), ('x'), ('y')");
    pair.run_on_slave("insert into t values ('x'), ('y'), ('y')");
    pair.assert_different();
}

#[test]
fn a_cluster_comes_back_after_a_crash_on_the_same_port() {
    let mut cluster = OwnCluster::start("own", "max_prepared_transactions = 0", &[]);
    let server = cluster.server().clone();
    server.connect("postgres").batch_execute("create table t ()").unwrap();
    cluster.stop_immediate();
    assert!(server.try_connect("postgres").is_err());
    cluster.start_again();
    let row = server.connect("postgres").query_one("show max_prepared_transactions", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "0");
}

#[test]
fn a_cut_connection_breaks_and_a_frozen_one_waits() {
    let pair = Pair::new();
    let forwarder = Forwarder::to(pair.master_server().port());
    let dsn = harness::Server::dsn_at(forwarder.port(), &pair.master_db());
    let mut client = postgres::Client::connect(&dsn, postgres::NoTls).unwrap();
    client.batch_execute("select 1").unwrap();
    forwarder.freeze();
    let waiting = std::thread::spawn(move || {
        client.batch_execute("select 1").unwrap();
        client
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!waiting.is_finished());
    forwarder.thaw();
    let mut client = waiting.join().unwrap();
    forwarder.cut();
    wait_until("the cut is noticed", || client.batch_execute("select 1").is_err());
    forwarder.refuse();
    assert!(postgres::Client::connect(&dsn, postgres::NoTls).is_err());
    forwarder.accept_again();
    postgres::Client::connect(&dsn, postgres::NoTls).unwrap();
}

#[test]
fn the_end_of_a_program_and_its_output_are_seen() {
    let pair = Pair::new();
    let mut daemon = Daemon::spawn(&pair.dir().join("version"), &["--version"], &[]);
    assert!(daemon.wait_exit().success());
    assert!(daemon.log().starts_with("pyreplica "), "{}", daemon.log());
}
