//! The master becomes the slave and the slave the master, and back again, while clients work: what each side accepts, refuses
//! and replicates afterwards.

use crate::harness::http::{free_port, get, sample};
use crate::harness::switching::{MODES, assert_fenced, master_of, refuses, run_on, session, switched, wait_equal};
use crate::harness::{MailServer, Pair, assert_says, wait_until};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const TABLES: &str = "create table t (id int primary key, a text);
     create table p (id int, a text, primary key (id)) partition by range (id);
     create table \"p 1\" partition of p for values from (0) to (1000);
     create table p2 partition of p for values from (1000) to (2000);";

/// A table and a partitioned one, which a daemon has replicated.
#[track_caller]
fn pair(lines: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(TABLES);
    pair.run("select py_log_create_tg('t'), py_log_create_tg('p')");
    pair.run("insert into t values (0, 'first'); insert into p values (0, 'first'), (1000, 'first')");
    pair.once_with(lines);
    pair
}

/// A row in each table on this side, and the next free ids.
fn write(pair: &Pair, side: usize) {
    run_on(
        pair,
        side,
        "insert into t select max(id) + 1, 'new' from t; update t set a = a || '.' where id % 2 = 0;
         insert into p select max(id) + 1, 'new' from \"p 1\"; delete from p2; insert into p2 values (1500, 'again')",
    );
}

#[test]
fn there_and_back_again_with_a_daemon_and_its_config_file() {
    for mode in MODES {
        let pair = pair(mode);
        let port = free_port();
        let mut daemon = pair.start_with(&format!("{mode}\nMETRICS=127.0.0.1:{port}"));
        daemon.wait_log("Encoding for this");
        for (turn, old) in [0, 1, 0].into_iter().enumerate() {
            let new = 1 - old;
            write(&pair, old);
            let said = switched(&pair, mode, &[]);
            let db = [pair.master_db(), pair.slave_db()];
            assert_says(&said, &[&format!("dbname={} now, in epoch {}", db[new], turn + 2), "3 tables"][..1]);
            assert_eq!(master_of(&pair), new);
            assert!(pair.is_equal(), "nothing was pending at the exchange");
            refuses(&pair, old, "insert into t values (-1, 'refused')");
            write(&pair, new);
            wait_equal(&pair);
            let labels = format!("{{pair=\"{}\",field=\"replicated\"", pair.name);
            wait_until("the metrics follow", || {
                let scrape = get(port, "/metrics");
                let value = |name: &str, more: &str| sample(&scrape, &format!("pyreplica_{name}{labels}{more}}}"));
                let roles = [0, 1].map(|side| value("role", &format!(",side=\"DSN{side}\"")));
                let wanted = [0, 1].map(|side| Some(if side == new { 1.0 } else { 0.0 }));
                roles == wanted && value("epoch", "") == Some((turn + 2) as f64) && value("up", "") == Some(1.0)
            });
        }
        daemon.wait_log_times("The roles were exchanged", 3);
        assert!(daemon.terminate().success());
    }
}

/// The verb by JSON, the log and a mail of the daemon, and the status: who is the master, and in which epoch.
#[test]
fn an_exchange_is_told_to_people_and_programs() {
    let pair = pair("");
    let server = MailServer::start(pair.dir(), &[]);
    let lines = format!(
        "[SMTP]\nSERVER=127.0.0.1:{}\nFROM_ADDR=pyreplica@example.com\nTO_ADDRS=dba@example.com\nWARNING_SUBJECT=Warning\n",
        server.port()
    );
    let mut daemon = pair.start_with(&lines);
    let output = switched(&pair, "", &["--json"]);
    let document = &output[output.find("{\n").expect("a document")..];
    let said = serde_json::Deserializer::from_str(document).into_iter::<Value>().next().expect("one").expect("JSON");
    assert_eq!((&said["switched"], &said["epoch"]), (&Value::from(true), &Value::from(2)), "{said}");
    assert!(said["new_master"].as_str().is_some_and(|at| at.contains(&pair.slave_db())), "{said}");
    let mail = server.wait_for("Warning").body;
    let expected = format!("dbname={} -> ", pair.slave_db());
    assert!(mail.contains("The roles were exchanged: replicating ") && mail.contains(&expected), "{mail}");
    wait_equal(&pair);
    let status = pair.verb_by_file("status", "", &["--json"]);
    let status: Value = serde_json::from_str(&status.output).expect("one document");
    let (first, db) = (&status["pairs"][0], pair.slave_db());
    assert_eq!(first["epoch"], 2, "{status}");
    assert!(first["master"].as_str().is_some_and(|at| at.contains(&db)), "{status}");
    assert!(first["roles_since"].is_string(), "{status}");
    let text = pair.verb_by_file("status", "", &[]).output;
    assert_says(&text, &["in epoch 2, since ", "the master is ", &format!("dbname={db}")]);
    assert!(daemon.terminate().success());
}

#[test]
fn the_old_master_refuses_every_way_to_write() {
    let pair = pair("");
    let mut daemon = pair.start();
    let there = pair.slave_db();
    let mut old = session(&pair, 0);
    let insert = old.prepare("insert into t values ($1, 'prepared')").unwrap();
    for id in 100..110 {
        old.execute(&insert, &[&id]).unwrap();
    }
    let mut verb = pair.start_verb("switchover", "", &[], &[("PYREPLICA_PAUSE_AT", "switch drained")]);
    verb.wait_paused();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut writer = session(&pair, 0);
            writer.batch_execute("set application_name = 'waits'").unwrap();
            writer.batch_execute("insert into t values (200, 'waited')").expect_err("it meets the fence")
        });
        let in_root = scope.spawn(|| {
            let mut writer = session(&pair, 0);
            writer.batch_execute("set application_name = 'waits'").unwrap();
            writer.batch_execute("update p set a = 'waited'").expect_err("it meets the fence")
        });
        let waiters =
            "select count(*) from pg_stat_activity where application_name = 'waits' and wait_event_type = 'Lock'";
        wait_until("two writers wait", || pair.on_master(waiters) == ["2"]);
        for side in [0, 1] {
            session(&pair, side)
                .batch_execute("select * from t; select * from p; select * from \"p 1\" for update")
                .ok();
            session(&pair, side).batch_execute("select count(*) from t; select count(*) from p").unwrap();
        }
        verb.resume();
        assert_fenced(&waiting.join().unwrap(), &there);
        assert_fenced(&in_root.join().unwrap(), &there);
    });
    assert!(verb.wait_exit().success());

    assert_fenced(&old.execute(&insert, &[&111]).unwrap_err(), &there);
    for sql in [
        "insert into t values (300, 'new')",
        "update t set a = 'new'",
        "delete from t where false",
        "truncate t",
        "insert into p values (300, 'new')",
        "insert into \"p 1\" values (300, 'new')",
        "delete from p2",
        "truncate p2",
        "truncate p",
        "with gone as (delete from t returning *) select count(*) from gone",
        "update only t set a = ''",
        "copy t from program 'echo 300'",
    ] {
        refuses(&pair, 0, sql);
    }
    if pair.version() >= 15 {
        refuses(&pair, 0, "merge into t using (values (1)) v (id) on v.id = t.id when matched then delete");
    }
    // Who has not asked to write gets PostgreSQL's own error, which sends clients with several hosts to the other one.
    let error = pair.master().batch_execute("delete from t").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25006");
    assert_eq!(pair.on_master("show default_transaction_read_only"), ["on"]);
    assert_eq!(pair.on_slave("show default_transaction_read_only"), ["off"]);

    run_on(&pair, 1, "insert into t values (500, 'on the new one')");
    wait_equal(&pair);
    switched(&pair, "", &[]);
    assert_eq!(old.execute(&insert, &[&112]).unwrap(), 1, "the same prepared statement works again");
    wait_equal(&pair);
    assert_eq!(pair.on_slave("show default_transaction_read_only"), ["on"]);
    assert_eq!(pair.on_master("show default_transaction_read_only"), ["off"]);
    assert!(daemon.terminate().success());
}

#[test]
fn readers_go_on_on_both_sides() {
    let pair = pair("");
    let _daemon = pair.start();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = crate::harness::End(&ended);
        for side in [0, 1] {
            let (ended, pair) = (&ended, &pair);
            scope.spawn(move || {
                let mut reader = session(pair, side);
                // Who has read in a transaction of his own keeps the lock of a reader until its end.
                while !ended.load(Ordering::SeqCst) {
                    reader.batch_execute("set statement_timeout = '20s'; begin; select count(*) from t").unwrap();
                    for _ in 0..20 {
                        reader.batch_execute("select count(*) from p join t using (id)").unwrap();
                    }
                    reader.batch_execute("commit").unwrap();
                }
            });
        }
        // A reader that never ends.
        let mut idle = [session(&pair, 0), session(&pair, 1)];
        idle.iter_mut().for_each(|reader| reader.batch_execute("begin; select * from t, p").unwrap());
        for new in [1, 0] {
            switched(&pair, "", &[]);
            write(&pair, new);
        }
    });
    wait_equal(&pair);
}

#[test]
fn without_a_daemon_the_verb_replays_what_is_pending_and_all_verbs_follow() {
    for mode in MODES {
        let pair = pair(mode);
        write(&pair, 0);
        let said = switched(&pair, mode, &["--verify"]);
        assert_says(&said, &["no daemon is connected: replaying what is pending", "rows were compared before"]);
        assert!(pair.is_equal());
        write(&pair, 1);
        assert!(!pair.is_equal());
        let pending = pair.verb_by_file("pending", mode, &[]);
        assert_says(&pending.output, &["6 changes wait", "INSERT INTO \"t\""]);
        pair.once_with(mode);
        wait_equal(&pair);
        // A second run finds nothing to do.
        pair.once_with(mode);

        let mut daemon = pair.start_with(mode);
        write(&pair, 1);
        wait_equal(&pair);
        let status = pair.verb_by_file("status", mode, &[]);
        assert_eq!(status.code(), 0, "{}", status.output);
        let doctor = pair.verb_by_file("doctor", mode, &["--brief"]);
        assert!([0, 8].contains(&doctor.code()), "{}", doctor.output);
        let compare = pair.verb_by_file("compare", mode, &[]);
        assert_eq!(compare.code(), 0, "{}", compare.output);

        // What is wrong on the slave of today is repaired there.
        run_on(
            &pair,
            0,
            "set session_replication_role = replica; delete from t where id = 0; update p set a = 'wrong'",
        );
        let compare = pair.verb_by_file("compare", mode, &[]);
        assert_eq!(compare.code(), 9, "{}", compare.output);
        let repair = pair.verb_by_file("repair", mode, &[]);
        assert_eq!(repair.code(), 0, "{}", repair.output);
        assert!(pair.is_equal());
        assert_eq!(pair.on_slave("select count(*) from t where id = 0"), ["1"]);

        let filled = pair.verb_by_file("copy", mode, &["--table", "p"]);
        assert!(!filled.status.success(), "the daemon runs: {}", filled.output);

        let paused = pair.verb_by_file("pause", mode, &[]);
        assert!(paused.status.success(), "{}", paused.output);
        write(&pair, 1);
        daemon.wait_log("Waiting: ");
        assert!(!pair.is_equal());
        let resumed = pair.verb_by_file("resume", mode, &[]);
        assert!(resumed.status.success(), "{}", resumed.output);
        wait_equal(&pair);
        assert!(daemon.terminate().success());
        run_on(&pair, 0, "set session_replication_role = replica; delete from p");
        let filled = pair.verb_by_file("copy", mode, &["--truncate", "--table", "p"]);
        assert!(filled.status.success(), "{}", filled.output);
        assert!(pair.is_equal());
        // Whoever exchanges the strings in the file as well means the same.
        let turned = format!("DSN0={}\nDSN1={}\n{mode}", pair.slave_dsn, pair.master_dsn);
        write(&pair, 1);
        pair.once_with(&turned);
        assert!(pair.is_equal());
        switched(&pair, &turned, &[]);
        assert_eq!(master_of(&pair), 0);
        write(&pair, 0);
        pair.once_with(mode);
        assert!(pair.is_equal());
    }
}

#[test]
fn a_change_that_fails_is_skipped_in_the_direction_in_force() {
    let pair = pair("");
    switched(&pair, "", &[]);
    run_on(&pair, 0, "set session_replication_role = replica; insert into t values (7, 'in the way')");
    run_on(&pair, 1, "insert into t values (7, 'refused')");
    let finished = pair.try_once_by_file("CONFLICT=error");
    assert_eq!(finished.code(), 6, "{}", finished.output);
    let id = pair.on_slave("select max(id) from replica_log").remove(0);
    pair.done(&["skip", &id, "--yes", "--reason", "a test"]);
    run_on(&pair, 1, "insert into t values (8, 'goes on')");
    pair.once_with("");
    assert_eq!(pair.on_master("select a from t where id > 6 order by id"), ["in the way", "goes on"]);
}
