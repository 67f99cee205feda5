//! Pairs beside each other, daemons in each other's way, and the signals that end or steer them.

use crate::harness::looking::sessions;
use crate::harness::{Daemon, Pair, Still, assert_says, final_words, wait_until};
use postgres::Client;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const ROW: &str = "insert into t select coalesce(max(id), 0) + 1, 'row' from t";

/// A row from the master arrives.
#[track_caller]
fn assert_replicates(pair: &Pair) {
    pair.run(ROW);
    pair.wait_caught_up();
    pair.assert_equal();
}

// == Several pairs ==

#[test]
fn two_databases_of_one_cluster_are_master_and_slave() {
    let usual = Pair::new();
    let pair = Pair::on(usual.master_server(), usual.master_server()).with_a_table();
    let mut daemon = pair.start();
    for _ in 0..3 {
        assert_replicates(&pair);
    }
    daemon.kill9();
    pair.run(ROW);
    pair.once();
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn pairs_on_one_cluster_replicate_in_one_process_and_one_that_fails_stops_no_other() {
    let usual = Pair::new();
    let server = usual.master_server();
    let pairs = [0, 1].map(|_| Pair::on(server, server).with_a_table());
    let directory = config_directory(&pairs, &[]);
    let broken = format!("[MAIN]\nNAME=broken\nDSN0={}\nDSN1=host=127.0.0.1 port=9 dbname=x\n", pairs[0].master_dsn);
    fs::write(directory.join("broken.conf"), broken).unwrap();
    fs::write(directory.join("nonsense.conf"), "[MAIN]\nNAME\n").unwrap();
    fs::write(directory.join("README"), "not a config file").unwrap();
    let mut daemon = start_directory(&pairs[0], &directory);
    daemon.wait_log_times("broken", 2);
    for pair in &pairs {
        assert_replicates(pair);
    }
    pairs[0].run_on_slave("insert into t values (1000, 'in the way')");
    pairs[0].run("insert into t values (1000, 'new')");
    daemon.wait_log("Key (id)=(1000) already exists");
    assert_replicates(&pairs[1]);
    assert_says(&daemon.log(), &["nonsense.conf"]);
    pairs[0].run_on_slave("delete from t where id = 1000");
    pairs[0].wait_caught_up();
    pairs[0].assert_equal();
    assert!(daemon.terminate().success());
}

/// More pairs than start at once; most of them can't go on.
#[test]
fn pairs_that_are_stuck_at_their_start_keep_no_other_pair_from_starting() {
    let usual = Pair::new();
    let server = usual.master_server();
    let pairs: Vec<Pair> = (0..11).map(|_| Pair::on(server, server).with_a_table()).collect();
    let (stuck, free) = pairs.split_at(9);
    let lockers: Vec<Client> = stuck.iter().map(blocked).collect();
    free.iter().for_each(|pair| pair.run(ROW));
    let mut daemon = start_directory(&pairs[0], &config_directory(&pairs, &[]));
    for pair in free {
        pair.wait_caught_up();
    }
    stuck.iter().for_each(wait_blocked);
    free.iter().for_each(assert_replicates);
    drop(lockers);
    for pair in &pairs {
        pair.wait_caught_up();
        assert_replicates(pair);
    }
    assert!(daemon.terminate().success());
}

#[test]
fn a_backlog_does_not_wait_for_a_session_that_listens() {
    let pair = Pair::new().with_a_table();
    let locker = blocked(&pair);
    let mut daemon = pair.start();
    wait_blocked(&pair);
    let work = format!("pyreplica {}", pair.name);
    assert_eq!(sessions(pair.master_server(), &pair), std::slice::from_ref(&work));
    drop(locker);
    let listener = format!("{work} listener");
    wait_until("it listens", || sessions(pair.master_server(), &pair) == [work.clone(), listener.clone()]);
    assert_replicates(&pair);
    assert!(daemon.terminate().success());
}

fn config_directory(pairs: &[Pair], lines: &[&str]) -> PathBuf {
    let directory = pairs[0].dir().join("conf.d");
    fs::create_dir(&directory).unwrap();
    for pair in pairs {
        fs::copy(pair.config_file(&lines.join("\n")), directory.join(format!("{}.conf", pair.name))).unwrap();
    }
    directory
}

fn start_directory(pair: &Pair, directory: &std::path::Path) -> Daemon {
    Daemon::spawn(&pair.dir().join("directory.log"), &[directory.to_str().unwrap()], &[])
}

// == Two daemons ==

#[test]
fn a_second_daemon_for_one_pair_says_so_and_takes_over_when_the_first_is_gone() {
    let pair = Pair::new().with_a_table();
    let mut first = pair.start();
    assert_replicates(&pair);
    let finished = pair.try_once();
    assert_eq!(finished.code(), 7, "{}", finished.output);
    let expected =
        ["master: cannot replicate: another daemon replicates this master's 'replicated' already", "hint: stop"];
    assert_says(&final_words(&finished), &expected);
    let mut second = pair.start();
    second.wait_log("another daemon replicates this master's 'replicated' already");
    assert_replicates(&pair);
    first.kill9();
    assert_replicates(&pair);
    assert!(second.terminate().success());
}

#[test]
fn a_daemon_that_takes_over_settles_what_the_first_left_in_doubt() {
    let pair = Pair::new().with_a_table();
    pair.run(ROW);
    let mut first = pair.start_paused_at("slave-committed");
    first.wait_paused();
    let mut second = pair.start();
    second.wait_log("another daemon replicates");
    first.kill9();
    second.wait_log("committed on the slave: commit on the master");
    assert_replicates(&pair);
    pair.assert_no_prepared();
    assert!(second.terminate().success());
}

// == Signals ==

#[test]
fn a_stop_in_the_midst_of_a_large_batch_leaves_nothing_prepared_and_nothing_half_done() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t select i, 'bulk' from generate_series(1, 40000) i");
    let mut daemon = pair.start();
    daemon.wait_log_times("Executing", 1000);
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    pair.assert_no_prepared();
    let rows = pair.on_slave("select count(*) from t").remove(0);
    assert!(rows == "0" || rows == "40000", "half a transaction: {rows} rows");
    pair.once();
    pair.assert_equal();
}

/// Holds a lock on the slave's table for which the daemon waits.
fn blocked(pair: &Pair) -> Client {
    let mut locker = pair.slave();
    locker.batch_execute("begin; lock table t in share row exclusive mode").unwrap();
    pair.run(ROW);
    locker
}

#[track_caller]
fn wait_blocked(pair: &Pair) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the daemon waits for a lock", || pair.on_slave(sql) == ["1"]);
}

#[test]
fn a_stop_while_the_slave_waits_for_a_lock_ends_the_wait() {
    let pair = Pair::new().with_a_table();
    let locker = blocked(&pair);
    let mut daemon = pair.start();
    wait_blocked(&pair);
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 1);
    drop(locker);
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_second_signal_ends_the_process_though_a_server_does_not_answer() {
    let pair = Pair::new().with_a_table();
    let _locker = blocked(&pair);
    let mut daemon = pair.start();
    wait_blocked(&pair);
    let sql = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let backend: u32 = pair.on_slave(sql)[0].parse().unwrap();
    let backend = Still::make(backend);
    daemon.signal("TERM");
    daemon.wait_log("Stopping");
    let status = daemon.terminate();
    backend.go_on();
    assert!(status.success(), "{status}");
    assert_says(&daemon.log(), &["second signal: ending at once"]);
}

#[test]
fn a_lock_that_nobody_gives_up_is_named_and_waited_for_again() {
    let pair = Pair::new().with_a_table();
    let locker = blocked(&pair);
    let mut daemon = pair.start();
    daemon.wait_log("lock timeout");
    wait_blocked(&pair);
    drop(locker);
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

#[test]
fn a_hangup_opens_the_log_file_anew() {
    let pair = Pair::new().with_a_table();
    let (config, log) = (pair.config_file(""), pair.dir().join("pyreplica.log"));
    let arguments = ["--log", log.to_str().unwrap(), config.to_str().unwrap()];
    let mut daemon = Daemon::spawn(&pair.dir().join("console.log"), &arguments, &[]);
    assert_replicates(&pair);
    let moved = pair.dir().join("pyreplica.log.1");
    fs::rename(&log, &moved).unwrap();
    daemon.signal("HUP");
    wait_until("a new log file", || log.exists());
    assert_replicates(&pair);
    assert!(daemon.terminate().success());
    let text = |file: &PathBuf| fs::read_to_string(file).unwrap();
    assert_says(&text(&moved), &["Opening origin (master) connection", "'1', 'row'"]);
    assert_says(&text(&log), &["'2', 'row'", "Stopping"]);
    assert!(!text(&moved).contains("'2', 'row'"));
    assert_eq!(daemon.log(), "");
}

// == Idle ==

/// What the daemon's sessions did last, on both sides.
fn activity(pair: &Pair) -> Vec<String> {
    let sql = "select (pid, state, query_start, state_change)::text from pg_stat_activity
                where datname = current_database() and client_port > 0 order by 1";
    pair.on_master(sql).into_iter().chain(pair.on_slave(sql)).collect()
}

#[test]
fn an_idle_daemon_asks_neither_server_anything_between_keepalives() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start_with("KEEPALIVE=true\nTIMEOUT=3600\nDEBUG_LEVEL=3");
    assert_replicates(&pair);
    // The drain after the last notification ends with a look at the log, and then there is silence.
    let mut before = activity(&pair);
    wait_until("silence", || {
        std::thread::sleep(Duration::from_millis(500));
        let former = std::mem::replace(&mut before, activity(&pair));
        former == before
    });
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(activity(&pair), before, "somebody asked something");
    assert_replicates(&pair);
    assert!(daemon.terminate().success());
}

#[test]
fn keepalive_pings_both_servers_at_every_timeout() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start_with("KEEPALIVE=true\nTIMEOUT=1\nDEBUG_LEVEL=3");
    daemon.wait_log_times("Timeout('keepalive')!", 2);
    daemon.wait_log_times("Keepalive0: ", 2);
    daemon.wait_log_times("Keepalive1: ", 2);
    assert!(daemon.terminate().success());
}

#[test]
fn without_keepalive_the_timeout_only_looks_at_the_log() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start_with("TIMEOUT=1\nDEBUG_LEVEL=3");
    daemon.wait_log_times("Timeout('keepalive')!", 2);
    // Nobody is told of these rows.
    pair.run(&format!("set pyreplica.notify = off; {ROW}"));
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("Keepalive0"), "{}", daemon.log());
}

// == Open files ==

#[test]
fn a_soft_limit_of_open_files_is_raised_and_a_hard_one_is_named() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t (id) values (1)");
    let limited = |limit: &str| ["sh", "-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")].map(str::to_string);
    let mut daemon = pair.start_behind(&limited("-S -n 16"), "");
    pair.wait_caught_up();
    daemon.terminate();
    let mut daemon = pair.start_behind(&limited("-n 16"), "");
    daemon.wait_log("this process may have 16 open files");
    daemon.wait_log("let it have more open files: LimitNOFILE= in the unit");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}
