//! `pyreplica status`: what it tells about a pair, also while the daemon is down; and what every failure that the crash tests
//! know looks like to the operator, in status and in doctor.

use crate::harness::looking::{assert_explained, checks, doctor, status};
use crate::harness::{self, OwnCluster, Pair, wait_until};
use std::thread::sleep;
use std::time::{Duration, Instant};

// == What it tells ==

#[test]
fn a_pair_that_has_never_run_waits_with_all_its_changes() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t select from generate_series(1, 0); insert into t select n from generate_series(1, 42) n");
    let told = status(&pair);
    assert_eq!((told["state"].as_str(), told["lag"]["changes"].as_u64()), (Some("stopped"), Some(42)), "{told:#}");
    assert!(told["lag"]["seconds"].as_f64().unwrap() > 0.0, "{told:#}");
    assert_eq!(told["lag"]["estimated"], false);
    // Among other files, and one that cannot be used, the hint names this one.
    let (file, bad) = (pair.config_file(""), pair.dir().join("bad.conf"));
    std::fs::write(&bad, "[MAIN]\n").unwrap();
    let finished = pair.verb_by_file("status", "", &[bad.to_str().unwrap()]);
    harness::assert_says(&finished.output, &[&format!("start it: pyreplica {}\n", file.display()), "bad.conf:1: NAME"]);
    assert_explained(
        &pair,
        8,
        &["stopped", "changes that wait: 42", "hint: is it running? start it: pyreplica "],
        &["no daemon"],
    );
}

/// Symptom: PostgreSQL cuts the names of sessions. So status took its own session for a daemon that waits, and said "failing".
#[test]
fn a_long_name_is_not_taken_for_a_daemon() {
    let pair = Pair::new();
    pair.once();
    let lines = format!("NAME={}", "n".repeat(60));
    let finished = pair.verb_by_file("status", &lines, &[]);
    assert_eq!(finished.code(), 8, "{}", finished.output);
    assert!(!finished.output.contains("failing"), "{}", finished.output);
}

#[test]
fn a_running_pair_is_replicating_and_a_stopped_one_tells_what_waits() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start();
    pair.run("insert into t select n from generate_series(1, 10) n");
    pair.wait_caught_up();
    let finished = pair.verb_by_file("status", "", &[]);
    assert_eq!(finished.code(), 0, "{}", finished.output);
    harness::assert_says(&finished.output, &["PAIR ", "replicating", &pair.name]);
    let told = status(&pair);
    assert_eq!((told["lag"]["changes"].as_u64(), told["lag"]["seconds"].as_f64()), (Some(0), Some(0.0)), "{told:#}");
    assert_eq!(told["lag"]["last_replayed"], told["lag"]["last_logged"]);
    assert!(told["lag"]["last_transaction"].is_string(), "{told:#}");
    daemon.terminate();
    pair.run("insert into t values (11, 'late')");
    assert_eq!(status(&pair)["lag"]["changes"], 1);
    pair.once();
    assert_eq!(status(&pair)["lag"]["changes"], 0);
}

/// Its ids are lower than what has been replayed.
#[test]
fn a_transaction_that_ends_late_is_seen_to_wait() {
    let pair = Pair::new().with_a_table();
    let mut late = pair.master();
    late.batch_execute("begin; insert into t values (1, 'late')").unwrap();
    pair.run("insert into t values (2, 'early')");
    pair.once();
    assert_eq!(status(&pair)["lag"]["changes"], 0, "what is not committed does not wait");
    late.batch_execute("commit").unwrap();
    assert_eq!(status(&pair)["lag"]["changes"], 1);
    pair.once();
    assert_eq!(status(&pair)["lag"]["changes"], 0);
}

#[test]
fn a_long_backlog_is_estimated_and_the_estimate_is_close() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t select n from generate_series(1, 150000) n");
    let told = status(&pair);
    assert_eq!(told["lag"]["estimated"], true, "{told:#}");
    let changes = told["lag"]["changes"].as_u64().unwrap();
    assert!((149_000..151_000).contains(&changes), "{told:#}");
}

/// The position stays behind what an open transaction has logged, and what lies between is not looked at.
#[test]
fn what_is_not_looked_at_is_not_said_to_be_counted() {
    let pair = Pair::new().with_a_table();
    pair.run("select py_log_add_slave('another')");
    let mut open = pair.master();
    open.batch_execute("begin; insert into t values (-1, 'open')").unwrap();
    assert_eq!(status(&pair)["open_transactions"], 1);
    pair.run("insert into t select n from generate_series(1, 105000) n");
    assert!(pair.try_once_by_file("DEBUG_LEVEL=1").status.success());
    let told = status(&pair);
    assert_eq!((&told["lag"]["changes"], &told["lag"]["estimated"]), (&0.into(), &true.into()), "{told:#}");
    let said = pair.verb_by_file("status", "", &[]).output;
    assert!(said.contains(" 0 or more ") && !said.contains("about"), "{said}");
    pair.run("insert into t select n from generate_series(200001, 200003) n");
    assert!(pair.verb_by_file("status", "", &[]).output.contains(" 3 or more "));
    open.batch_execute("commit").unwrap();
    assert!(pair.verb_by_file("status", "", &[]).output.contains(" 4 or more "));
    assert_eq!(status(&pair)["open_transactions"], 0);
}

/// The daemon stands still, and its batches are committed in its place: one of a thousand changes every second.
#[test]
fn one_look_tells_how_fast_a_daemon_is_that_has_something_to_do() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (0, 'before')");
    pair.once();
    let mut daemon = pair.start_paused_at("begun");
    pair.run("insert into t select n from generate_series(1, 200) n");
    daemon.wait_paused();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                pair.run("update replica_slave set batch = batch + 1, last = last + 1000, ts = ts + interval '1 s'");
            }
        });
        // Its changes are at places that the position has passed by then, save in its first moment.
        pair.run("update replica_log set id = id + 1000000000");
        let told = status(&pair);
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        let rate = told["rate"].as_f64().unwrap_or_else(|| panic!("{told:#}"));
        assert!((999.0..1001.0).contains(&rate), "{told:#}");
    });
    daemon.kill9();
}

#[test]
fn the_metrics_are_written_for_a_textfile_collector() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'one')");
    let finished = pair.verb_by_file("status", "", &["--prometheus"]);
    let labels = format!("{{pair=\"{}\",field=\"replicated\"", pair.name);
    for line in [
        "# TYPE pyreplica_lag_changes gauge".to_string(),
        format!("pyreplica_lag_changes{labels}}} 1"),
        format!("pyreplica_up{labels}}} 0"),
        format!("pyreplica_reachable{labels},side=\"slave\"}} 1"),
    ] {
        assert!(finished.output.lines().any(|l| l == line), "{line}: {}", finished.output);
    }
}

/// The columns that matter, for a slave whose script has not made the tables.
const ASIDE: &str = "
    create table if not exists replica_hold (master text, relation text, why text);
    create table if not exists replica_held (master text, id bigint, txid xid8, relation text, event text, why text);
    create table if not exists replica_conflict (ts timestamptz default now(), master text, change bigint, txid xid8,
                                                 relation text, kind text, done text);";

#[test]
fn conflicts_and_what_is_put_aside_are_counted_for_this_pair() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'one')");
    assert!(pair.try_once_by_file("TWO_PHASE=false").status.success());
    let master = pair.on_slave("select master from replica_progress").remove(0);
    pair.run_on_slave(ASIDE);
    for master in [&master, "another"] {
        pair.run_on_slave(&format!(
            "insert into replica_conflict (master, change, txid, relation, kind, done)
             values ('{master}', 1, '1', 't', 'update_missing', 'skipped');
             insert into replica_held (master, id, txid, relation, event, why) values ('{master}', 2, '2', 't', 'I', 'paused');
             insert into replica_hold (master, relation, why) values ('{master}', 'public.t', 'paused')",
        ));
    }
    let told = status(&pair);
    assert_eq!((told["conflicts"].as_u64(), told["put_aside"].as_u64()), (Some(1), Some(1)), "{told:#}");
    assert_eq!((told["paused_tables"].as_str(), told["paused"].as_bool()), (Some("public.t"), Some(false)), "{told:#}");
    assert!(pair.verb_by_file("status", "", &[]).output.contains("hint: pyreplica pending "));
    pair.run_on_slave(&format!("insert into replica_hold (master, relation, why) values ('{master}', '', 'paused')"));
    assert_eq!(status(&pair)["state"], "paused");
}

#[test]
fn watching_shows_a_rate_and_ends_by_a_signal_in_good_order() {
    let pair = Pair::new().with_a_table();
    let _daemon = pair.start();
    pair.run("insert into t values (1, 'one')");
    pair.wait_caught_up();
    let file = pair.config_file("");
    let words = ["status", "--watch=1", "--json", file.to_str().unwrap()];
    let mut watch = harness::Daemon::spawn(&pair.dir().join("watch.out"), &words, &[]);
    watch.wait_log("\"rate\": 0.0");
    // Its terminal is gone.
    watch.signal("HUP");
    assert_eq!(watch.wait_exit().code(), Some(0));
}

/// Symptom: after a single run with a mistyped slave the pair was "failing" for good, although the daemon went on replaying.
/// Cause: any process recorded its failure as the pair's, and only a daemon that had failed itself recorded that it was over.
#[test]
fn a_process_that_was_started_by_mistake_is_no_failure_of_the_pair() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start_with("TIMEOUT=1");
    pair.run("insert into t values (1, 'one')");
    pair.wait_caught_up();
    let mistaken = pair.slave_dsn.replace(&pair.slave_db(), "nonesuch");
    let finished = harness::run(&pair.dir().join("typo.log"), &["--once", &pair.master_dsn, &mistaken], &[]);
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_eq!(pair.on_master("select count(*) from replica_error"), ["0"]);
    // One that was recorded before the daemon could tell ends as well.
    let field = "replicated";
    pair.run(&format!("insert into replica_error (field, pair, message) values ('{field}', 'x', 'by mistake')"));
    wait_until("the daemon clears it", || status(&pair)["state"] == "replicating");
    // Without a daemon it is the pair that fails.
    daemon.terminate();
    harness::run(&pair.dir().join("typo.log"), &["--once", &pair.master_dsn, &mistaken], &[]);
    assert_eq!(pair.on_master("select recovered is null from replica_error"), ["t"]);
}

// == Every failure in words ==

#[test]
fn a_master_that_is_down_is_told() {
    let mut pair = Pair::new().with_a_table();
    pair.master_dsn = "host=127.0.0.1 port=9 user=postgres dbname=x connect_timeout=2 password=s3cr3t".to_owned();
    let words = ["master: cannot connect to ", "hint: is the server running there"];
    assert_explained(&pair, 9, &["unknown", words[0], words[1]], &["failure  master  connection", words[1]]);
}

#[test]
fn a_slave_that_is_down_is_told_with_what_waits_and_since_when() {
    let mut own = OwnCluster::start("down", "", &[]);
    let usual = Pair::new();
    let pair = Pair::on(usual.master_server(), own.server()).with_a_table();
    let mut daemon = pair.start_with("TIMEOUT=86400");
    pair.run("insert into t values (1, 'one')");
    pair.wait_caught_up();
    own.stop_fast();
    // Nothing is to be replayed. Status notices by itself, and so does the daemon.
    assert_eq!(status(&pair)["state"], "failing");
    daemon.wait_log("Trying again");
    wait_until("the daemon has recorded it", || status(&pair)["error"]["recovered"].is_null());
    pair.run("insert into t values (2, 'two')");
    let words = ["slave: cannot connect to ", "hint: is the server running there"];
    assert_explained(
        &pair,
        9,
        &["failing", "failing since ", words[0], words[1]],
        &["failure  slave   connection", words[1]],
    );
    assert_eq!(status(&pair)["lag"]["changes"], 1);
    own.start_again();
    pair.wait_caught_up();
    wait_until("status tells that it is over", || status(&pair)["state"] == "replicating");
    let finished = pair.verb_by_file("status", "", &[]);
    assert_eq!(finished.code(), 0, "{}", finished.output);
    assert!(finished.output.contains(": failed from "), "{}", finished.output);
    // After a day nobody needs to be told.
    pair.run("update replica_error set recovered = recovered - interval '25 hours'");
    assert!(!pair.verb_by_file("status", "", &[]).output.contains(": failed from "));
    assert!(status(&pair)["error"].is_null());
}

#[test]
fn a_batch_left_in_doubt_is_told() {
    for step in ["prepared", "slave-committed"] {
        let pair = Pair::new().with_a_table();
        pair.run("insert into t values (1, 'one')");
        let mut daemon = pair.start_paused_at(step);
        daemon.wait_paused();
        daemon.kill9();
        let words = "the daemon settles them when it connects";
        wait_until("the server notices the end of the daemon", || status(&pair)["daemon_connected"] == false);
        assert_explained(
            &pair,
            8,
            &["batches in doubt: 1", words],
            &["batch ", "in doubt", "start the daemon: it settles it"],
        );
        pair.once();
        assert_eq!(status(&pair)["in_doubt"], 0, "{step}");
    }
}

#[test]
fn a_change_that_fails_is_told_with_its_id_and_so_is_the_end_of_it() {
    let pair = Pair::new().with_a_table();
    pair.run_on_slave("insert into t values (1, 'in the way')");
    pair.run("insert into t values (1, 'one')");
    assert_eq!(pair.try_once().code(), 6);
    let told = status(&pair);
    assert_eq!((told["state"].as_str(), told["error"]["change"].as_i64()), (Some("failing"), Some(1)), "{told:#}");
    assert_explained(
        &pair,
        9,
        &["failing since ", "slave: cannot ", "already exists"],
        &["failure  both    last error", "already exists"],
    );
    pair.try_once();
    assert_eq!(status(&pair)["error"]["attempts"], 2);
    pair.run_on_slave("delete from t");
    pair.once();
    let told = status(&pair);
    assert!(told["error"]["recovered"].is_string() && told["state"] == "stopped", "{told:#}");
}

#[test]
fn a_missing_table_is_told_with_the_statement_that_makes_it() {
    let pair = Pair::new().with_a_table();
    pair.run_on_slave("drop table t");
    pair.run("insert into t values (1, 'one')");
    assert!(!pair.try_once().status.success());
    assert_explained(
        &pair,
        9,
        &["failing since ", "on public.t: relation"],
        &["is logged on the master and missing", "slave=> CREATE TABLE public.t "],
    );
}

#[test]
fn a_server_without_prepared_transactions_is_told() {
    let small = OwnCluster::start("unprepared", "max_prepared_transactions = 0", &[]);
    let usual = Pair::new();
    let pair = Pair::on(usual.master_server(), small.server()).with_a_table();
    pair.run("insert into t values (1, 'one')");
    assert_eq!(pair.try_once().code(), 5);
    let words = "ALTER SYSTEM SET max_prepared_transactions = 10;";
    assert_explained(
        &pair,
        9,
        &["failing since ", "max_prepared_transactions is 0", words],
        &[&format!("slave=> {words}")],
    );
}

#[test]
fn a_role_without_rights_is_told_the_grants() {
    let mut pair = Pair::new().with_a_table();
    let role = format!("status_{}", std::process::id());
    pair.run(&format!("create role {role} login"));
    let master = pair.master_dsn.clone();
    pair.master_dsn = master.replace("user=postgres", &format!("user={role}"));
    assert_explained(
        &pair,
        9,
        &["master: cannot ", "permission denied"],
        &["master=> GRANT SELECT ON public.replica_log"],
    );
    pair.master_dsn = master;
    pair.run(&format!("drop role {role}"));
}

#[test]
fn a_wrong_password_is_told_and_never_shown() {
    let mut pair = Pair::new().with_a_table();
    let role = format!("secret_{}", std::process::id());
    let mut slave = pair.slave();
    // cluster.sh lets its members in by password only.
    let _ = slave.batch_execute("create role scram_users");
    slave.batch_execute(&format!("create role {role} login password 'right' in role scram_users")).unwrap();
    pair.slave_dsn = pair.slave_dsn.replace("user=postgres", &format!("user={role} password=s3cr3t"));
    pair.run("insert into t values (1, 'one')");
    assert_eq!(pair.try_once().code(), 5);
    let words = ["password authentication failed", "~/.pgpass"];
    assert_explained(
        &pair,
        9,
        &["failing since ", words[0], words[1]],
        &["failure  slave   connection", words[0], words[1]],
    );
    assert!(!pair.verb_by_file("status", "", &[]).output.contains("s3cr3t"));
    slave.batch_execute(&format!("drop role {role}")).unwrap();
}

/// Symptom: "replicating" for ever, while a COMMIT PREPARED waited for a synchronous standby that was gone.
#[test]
fn status_says_what_a_server_waits_for() {
    let (master, slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    let pair = Pair::on(master.server(), slave.server()).with_a_table();
    let _daemon = pair.start();
    pair.run("insert into t values (1, 'a')");
    pair.wait_caught_up();
    pair.run_on_slave("alter system set synchronous_standby_names = 'gone'");
    pair.run_on_slave("select pg_reload_conf()");
    wait_until("it is set", || pair.on_slave("show synchronous_standby_names") == ["gone"]);
    pair.run("insert into t values (2, 'a')");
    let said = "the slave has not answered the daemon for";
    wait_until("status tells of the wait", || {
        let problems = status(&pair)["problems"].to_string();
        problems.contains(said) && problems.contains("waits for SyncRep (IPC)")
    });
    pair.run_on_slave("alter system reset synchronous_standby_names");
    pair.run_on_slave("select pg_reload_conf()");
    pair.wait_caught_up();
    pair.assert_equal();
}

/// Symptom: "no daemon replicates this pair now", and the advice to start it, while the daemon paused between two tries. One that is
/// gone looked the same for five minutes.
#[test]
fn between_two_tries_a_daemon_is_known_to_wait_and_one_that_is_gone_is_not() {
    let pair = Pair::new().with_a_table();
    pair.run_on_slave("drop table t");
    let mut daemon = pair.start();
    pair.run("insert into t values (1, 'a')");
    daemon.wait_log("cannot replay");
    let found = || {
        let checks = checks(&doctor(&pair, "", &["--json"]));
        checks.into_iter().find(|check| check.subject == "daemon").expect("a finding about the daemon")
    };
    wait_until("it pauses", || {
        let found = found();
        found.level == "note" && found.text.starts_with("it waits for its next try")
    });
    wait_until("status knows it too", || status(&pair)["daemon_waits"] == true);
    // What it has recorded grows old; it is there all the same.
    pair.run("update replica_error set last = last - interval '1 hour'");
    let problems = || status(&pair)["problems"].to_string();
    wait_until("nobody is told to start it", || {
        !problems().contains("start it") && status(&pair)["daemon_waits"] == true
    });
    // Anybody who may log in can send the signal to try again: it ends a pause at once, but not one after the other.
    let tries = || daemon.log().matches("Trying again in ").count();
    let (before, began, mut anybody) = (tries(), Instant::now(), pair.master());
    for _ in 0..100 {
        anybody.batch_execute("notify replica_retry").unwrap();
        sleep(Duration::from_millis(25));
    }
    let most = 3 + began.elapsed().as_secs() as usize;
    assert!((before + 1..=before + most).contains(&tries()), "{}", daemon.log());
    assert!(daemon.log().contains("Trying at once: somebody has signalled"), "{}", daemon.log());
    daemon.kill9();
    wait_until("its end is told", || problems().contains("none has tried since") && problems().contains("start it"));
    wait_until("doctor tells it too", || found().text.starts_with("no daemon replicates this pair now"));
}
