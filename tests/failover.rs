//! The master dies: the slave becomes the master. It comes back: it is fenced on sight, shows what it had committed and never sent,
//! and becomes the slave. And the fence on an ordinary slave.

use crate::harness::looking::{assert_finds, checks, doctor};
use crate::harness::{Daemon, Finished, OwnCluster, Pair, assert_says, run, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const MODES: [&str; 2] = ["", "TWO_PHASE=false"];

const TABLES: &str = "create table t (id int primary key, a text, n serial);
     create table part (id int, k int, primary key (id, k)) partition by list (k);
     create table part1 partition of part for values in (1)";

/// The master has a server of its own, which a test may stop.
struct Servers {
    master: OwnCluster,
    slave: OwnCluster,
}

impl Servers {
    fn start() -> Servers {
        let [master, slave] = ["master", "slave"].map(|label| OwnCluster::start(label, "", &[]));
        Servers { master, slave }
    }

    fn pair(&self) -> Pair {
        let pair = Pair::on(self.master.server(), self.slave.server());
        pair.exec_both(TABLES);
        pair.create_triggers();
        pair.run("select py_log_create_tg('part')");
        pair
    }
}

/// A session that may write, as far as its own setting goes.
fn session(mut client: Client) -> Client {
    client.batch_execute("set default_transaction_read_only = off").unwrap();
    client
}

#[track_caller]
fn refuses(client: Client, sql: &str) {
    let error = session(client).batch_execute(sql).expect_err(sql);
    let said = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(said.code().code(), "25006", "{said:?}");
}

#[track_caller]
fn done(pair: &Pair, verb: &str, lines: &str, more: &[&str]) -> String {
    let finished = pair.verb_by_file(verb, lines, more);
    assert!(finished.status.success(), "{verb} {more:?}: {}\n{}", finished.status, finished.output);
    finished.output
}

#[track_caller]
fn faulty(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), 9, "{}", finished.output);
    assert_says(&finished.output, words);
}

/// After the roles have settled: DSN1 is the master, changes made there arrive, and nothing is prepared.
#[track_caller]
fn goes_on(pair: &Pair, lines: &str) {
    let mut daemon = pair.start_with(lines);
    session(pair.slave())
        .batch_execute("insert into t values (9999, 'after'); insert into part values (9999, 1)")
        .unwrap();
    wait_until("the new master's changes arrive", || pair.on_master("select a from t where id = 9999") == ["after"]);
    wait_until("both are equal", || pair.verb_by_file("compare", lines, &[]).status.success());
    daemon.terminate();
    pair.assert_equal();
    pair.assert_no_prepared();
    refuses(pair.master(), "insert into t values (7, 'not here')");
}

/// Three ways to decide about what the old master had committed and never sent.
#[test]
fn what_is_lost_is_what_was_pending_and_each_way_back_ends_equal() {
    for lines in MODES {
        let mut servers = Servers::start();
        for way in ["--replay-lost", "--keep-lost", "--discard-lost"] {
            let pair = servers.pair();
            pair.run("insert into t select g, 'sent' from generate_series(1, 20) g; insert into part values (1, 1)");
            pair.once_with(lines);
            pair.run("insert into t values (101, 'lost ''1'''); update t set a = 'lost 2' where id = 1");
            pair.run("delete from t where id = 2; update part set id = 2");
            let pending = pair.pending();
            servers.master.stop_immediate();

            let output = done(&pair, "failover", lines, &[]);
            assert_says(&output, &["in epoch 2", "failback"]);
            assert_eq!(pair.on_slave("insert into t(id, a) values (201, 'new') returning n > 20"), ["t"]);
            let again = pair.verb_by_file("failover", lines, &[]);
            assert_says(&again.output, &["is the master already"]);

            servers.master.start_again();
            let mut daemon = pair.start_with(lines);
            daemon.wait_log("this database was the master before epoch 2");
            daemon.terminate();
            refuses(pair.master(), "insert into t values (301, 'old')");
            refuses(pair.master(), "truncate part1");
            faulty(&pair.verb_by_file("status", lines, &[]), &["was the master before", "failback"]);
            let undecided = pair.verb_by_file("failback", lines, &[]);
            faulty(&undecided, &[&format!("had committed {pending} changes"), "lost ''1''", "--discard-lost"]);

            let file = pair.dir().join("lost.sql");
            let more = match way {
                "--keep-lost" => vec![way, file.to_str().unwrap()],
                _ => vec![way],
            };
            assert_says(&done(&pair, "failback", lines, &more), &["is the slave now"]);
            goes_on(&pair, lines);
            let has = |id: i32| pair.on_slave(&format!("select a from t where id = {id}"));
            match way {
                "--replay-lost" => {
                    assert_eq!((has(101), has(1), has(2)), (vec!["lost '1'".into()], vec!["lost 2".into()], vec![]));
                    assert_eq!(pair.on_slave("select id from part order by id"), ["2", "9999"]);
                }
                _ => assert_eq!((has(101), has(1), has(2)), (vec![], vec!["sent".into()], vec!["sent".into()])),
            }
            if way == "--keep-lost" {
                let text = std::fs::read_to_string(&file).unwrap();
                assert_eq!(text.matches("BEGIN;").count(), 2, "{text}");
                session(pair.slave()).batch_execute(&text).unwrap();
                assert_eq!(has(1), ["lost 2"]);
                let refused = pair.verb_by_file("failback", lines, &["--keep-lost", file.to_str().unwrap()]);
                assert_says(&refused.output, &["neither database is a former master"]);
            }
        }
    }
}

/// The daemon and the master die in the middle of a batch. The slave's half is committed by the failover, the master's by the failback.
#[test]
fn a_batch_in_doubt_is_settled_on_both_sides_by_what_the_slave_has() {
    let mut servers = Servers::start();
    for step in ["replayed", "prepared", "slave-committed"] {
        let pair = servers.pair();
        pair.run("insert into t select g, 'sent' from generate_series(1, 5) g");
        pair.once();
        pair.run("insert into t values (50, 'in doubt')");
        let mut daemon = pair.start_in("", &[("PYREPLICA_PAUSE_AT", step)]);
        daemon.wait_paused();
        daemon.kill9();
        let sessions = format!("select 1 from pg_stat_activity where application_name = 'pyreplica {}'", pair.name);
        wait_until("its sessions have ended", || pair.on_slave(&sessions).is_empty());
        servers.master.stop_immediate();
        let output = done(&pair, "failover", "", &[]);
        let is_there = step != "replayed";
        assert_eq!(output.contains("it was in doubt"), step == "prepared", "{step}: {output}");
        assert_eq!(pair.on_slave("select a from t where id = 50").len(), usize::from(is_there), "{step}");
        servers.master.start_again();
        let failback = pair.verb_by_file("failback", "", &[]);
        match is_there {
            true => assert!(failback.status.success(), "{step}: {}", failback.output),
            false => {
                faulty(&failback, &["had committed 1 change"]);
                done(&pair, "failback", "", &["--replay-lost"]);
            }
        }
        goes_on(&pair, "");
    }
}

/// The old master dies before it has its half of the slave's last batch. It is whole, as its log tells; a log that was restored, in which
/// the same ids may be other changes, does not pass for that.
#[test]
fn a_master_that_died_before_its_half_is_told_from_one_that_was_restored() {
    let mut servers = Servers::start();
    let pair = servers.pair();
    pair.run("insert into t select g, 'sent' from generate_series(1, 5) g");
    pair.once();
    pair.run("insert into t values (50, 'on the slave')");
    let mut daemon = pair.start_paused_at("prepared");
    daemon.wait_paused();
    daemon.kill9();
    let half = pair.on_master("select gid from pg_prepared_xacts where database = current_database()").concat();
    pair.master().batch_execute(&format!("rollback prepared '{half}'")).unwrap();
    pair.run("insert into t values (60, 'lost')");
    servers.master.stop_immediate();
    assert_says(&done(&pair, "failover", "", &[]), &["it was in doubt"]);
    servers.master.start_again();
    let tamper = |sql: &str| session(pair.master()).batch_execute(sql).unwrap();
    tamper("create table kept as select * from replica_log where sql is null and new -> 'id' = '50'");
    for sql in [
        "delete from replica_log l using kept k where l.id = k.id",
        "insert into replica_log select (k #= hstore('ts', now()::text)).* from kept k",
    ] {
        tamper(sql);
        faulty(&pair.verb_by_file("failback", "", &["--replay-lost"]), &["it is not known which changes are lost"]);
    }
    tamper("update replica_log l set ts = k.ts from kept k where l.id = k.id; drop table kept");
    faulty(&pair.verb_by_file("failback", "", &[]), &["had committed 1 change", "'lost'"]);
    done(&pair, "failback", "", &["--replay-lost"]);
    goes_on(&pair, "");
    assert_eq!(pair.on_slave("select a from t where id in (50, 60) order by id"), ["on the slave", "lost"]);
    done(&pair, "switchover", "", &[]);
}

#[test]
fn a_failover_that_is_killed_is_run_again() {
    let mut servers = Servers::start();
    for step in ["failover fenced", "failover settled", "failover noted"] {
        let pair = servers.pair();
        pair.run("insert into t select g, 'sent' from generate_series(1, 5) g");
        pair.once();
        servers.master.stop_immediate();
        let file = pair.config_file("");
        let mut verb = Daemon::spawn(
            &pair.dir().join("verb.log"),
            &["failover", file.to_str().unwrap()],
            &[("PYREPLICA_PAUSE_AT", step)],
        );
        verb.wait_paused();
        verb.kill9();
        done(&pair, "failover", "", &[]);
        servers.master.start_again();
        done(&pair, "failback", "", &[]);
        goes_on(&pair, "");
    }
}

#[test]
fn a_master_that_answers_is_not_failed_over_unless_it_is_forced_and_fenced() {
    let servers = Servers::start();
    let pair = servers.pair();
    let never = pair.verb_by_file("failover", "", &["--force"]);
    assert_says(&never.output, &["never replayed anything"]);
    pair.run("insert into t values (1, 'sent')");
    pair.once();
    pair.run("insert into t values (2, 'lost')");
    let refused = pair.verb_by_file("failover", "", &[]);
    assert_eq!(refused.code(), 4, "{}", refused.output);
    assert_says(&refused.output, &["it answers", "switchover"]);
    assert_eq!(pair.on_slave("select to_regclass('replica_role') is null"), ["t"], "nothing was changed");
    assert_says(&done(&pair, "failover", "", &["--force"]), &["It is fenced"]);
    refuses(pair.master(), "delete from t");
    session(pair.slave()).batch_execute("insert into t values (3, 'new')").unwrap();
    faulty(&pair.verb_by_file("failback", "", &[]), &["had committed 1 change"]);
    done(&pair, "failback", "", &["--replay-lost"]);
    goes_on(&pair, "");
    done(&pair, "switchover", "", &[]);
    assert_eq!(pair.on_master("insert into t values (4, 'back') returning a"), ["back"]);
    pair.once();
    pair.assert_equal();
}

/// Symptom: rows that only the old master had, and that its log did not show as lost, were deleted there without a word.
#[test]
fn what_the_new_master_never_got_is_deleted_only_if_told_so() {
    let servers = Servers::start();
    let pair = servers.pair();
    pair.run("insert into t values (1, 'sent')");
    pair.once();
    done(&pair, "pause", "", &["--table", "t"]);
    pair.run("insert into t values (2, 'held')");
    pair.once();
    let failed_over = pair.verb_by_file("failover", "", &["--force"]);
    assert_eq!(failed_over.code(), 8, "{}", failed_over.output);
    assert_says(&failed_over.output, &["1 change held or in quarantine", "replica_held here"]);
    let words = ["rows that the master of today never got", "1 change held or in quarantine", "--leave-behind"];
    for option in ["--discard-lost", "--replay-lost"] {
        faulty(&pair.verb_by_file("failback", "", &[option]), &words);
    }
    assert_eq!(pair.on_master("select id from t order by id"), ["1", "2"]);
    done(&pair, "failback", "", &["--leave-behind"]);
    assert_eq!(pair.on_master("select id from t order by id"), ["1"]);
    // It does not come back by itself when the roles are as they were.
    assert_eq!(pair.on_slave("select 'held' = any (new) from replica_skipped"), ["t"]);
    assert_eq!(
        pair.on_slave("select (select count(*) from replica_held) + (select count(*) from replica_hold)"),
        ["0"]
    );
    done(&pair, "switchover", "", &[]);
    pair.run("insert into t values (3, 'sent')");
    pair.once();
    pair.assert_equal();
    // What a filter withholds.
    pair.run("insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.id < 10')");
    pair.run("insert into t values (10, 'withheld')");
    pair.once();
    done(&pair, "failover", "", &["--force"]);
    faulty(&pair.verb_by_file("failback", "", &["--discard-lost"]), &["filters or transforms withhold data"]);
    assert_eq!(pair.on_master("select max(id) from t"), ["10"]);
}

/// A database that lacks rows, or serves others, is not made the master by mistake.
#[test]
fn a_failover_that_would_lose_something_has_to_be_forced() {
    let gone = "DSN0=host=127.0.0.1 port=1 dbname=gone connect_timeout=2";
    let refused = |pair: &Pair, option: &[&str], words: &[&str]| {
        let finished = pair.verb_by_file("failover", gone, option);
        assert_eq!(finished.code(), 5, "{}", finished.output);
        assert_says(&finished.output, words);
        assert_eq!(pair.on_slave("select to_regclass('replica_role') is null"), ["t"], "nothing was changed");
    };
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'x')");
    pair.once();
    pair.killed_at("copy-loading", &["copy", "--table", "t", "--truncate"]);
    refused(&pair, &[], &["a copy to this slave is unfinished", "--force"]);
    done(&pair, "copy", "", &["--table", "t", "--truncate"]);
    // A slave of its own, under the same field.
    let third = Pair::new();
    third.run_on_slave("create table t (id int primary key, a text)");
    let installed = run(&pair.dir().join("install.log"), &["install", &pair.slave_dsn], &[]);
    assert!(installed.status.success(), "{}", installed.output);
    pair.run_on_slave("insert into t values (10, 'for the third')");
    third.once_with(&format!("DSN0={}", pair.slave_dsn));
    refused(&pair, &[], &["a slave of its own with SLAVE_FIELD=replicated"]);
    // Another master.
    let other = Pair::new().with_a_table();
    other.run("insert into t values (2, 'y')");
    other.once_with(&format!("DSN1={}", pair.slave_dsn));
    refused(&pair, &["--force"], &["it has replayed the changes of several masters", "replica_progress"]);
}

/// Symptom: other slaves of the master of today never got what the verb replayed there.
#[test]
fn lost_changes_are_not_replayed_past_other_slaves() {
    let servers = Servers::start();
    let pair = servers.pair();
    pair.run("insert into t values (1, 'sent')");
    pair.once();
    pair.run("insert into t values (2, 'lost')");
    done(&pair, "failover", "", &["--force"]);
    session(pair.slave()).batch_execute("select py_log_add_slave('slave2')").unwrap();
    let third = Pair::new();
    third.run_on_slave(TABLES);
    third.run_on_slave("insert into t values (1, 'sent', 1)");
    session(pair.slave()).batch_execute("insert into t values (3, 'new')").unwrap();
    third.once_with(&format!("DSN0={}\nSLAVE_FIELD=slave2", pair.slave_dsn));
    let finished = pair.verb_by_file("failback", "", &["--replay-lost"]);
    assert_says(&finished.output, &["other slaves, which would not get these changes: slave2", "--keep-lost"]);
    assert_eq!(pair.on_slave("select string_agg(id::text, ' ' order by id) from t"), ["1 3"]);
}

/// Under load: every change that the slave lacks is listed, and no other.
#[test]
fn under_load_exactly_what_the_slave_lacks_is_listed() {
    let mut servers = Servers::start();
    let pair = servers.pair();
    let mut daemon = pair.start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (pair, stop) = (&pair, &stop);
            scope.spawn(move || {
                let mut client = pair.master();
                for n in 0.. {
                    let sql = format!("insert into t values ({}, 'w{writer}')", writer * 1_000_000 + n);
                    if stop.load(Ordering::SeqCst) || client.batch_execute(&sql).is_err() {
                        return;
                    }
                }
            });
        }
        // A failed wait must not leave the writers running.
        let loaded = (0..600).any(|_| {
            thread::sleep(std::time::Duration::from_millis(100));
            pair.on_slave("select count(*) > 300 from t") == ["t"]
        });
        daemon.kill9();
        thread::sleep(std::time::Duration::from_millis(300));
        servers.master.stop_immediate();
        stop.store(true, Ordering::SeqCst);
        assert!(loaded, "there was no load");
    });
    done(&pair, "failover", "", &[]);
    servers.master.start_again();
    let lacking: usize = {
        let rows = |client: &mut Client| -> Vec<i32> {
            client.query("select id from t order by id", &[]).unwrap().iter().map(|row| row.get(0)).collect()
        };
        let there = rows(&mut pair.slave());
        rows(&mut pair.master()).iter().filter(|id| there.binary_search(id).is_err()).count()
    };
    assert!(lacking > 0);
    faulty(&pair.verb_by_file("failback", "", &[]), &[&format!("had committed {lacking} changes")]);
    done(&pair, "failback", "", &["--replay-lost"]);
    goes_on(&pair, "");
}

/// The old master's machine is gone for good: an empty database takes its place.
#[test]
fn an_empty_database_in_the_place_of_the_old_master_is_filled_by_copy() {
    let mut servers = Servers::start();
    let mut pair = servers.pair();
    pair.run("insert into t select g, 'sent' from generate_series(1, 5) g");
    pair.once();
    servers.master.stop_immediate();
    done(&pair, "failover", "", &[]);
    servers.master.start_again();
    let fresh = Pair::on(servers.master.server(), servers.slave.server());
    fresh.exec_both(TABLES);
    pair.master_dsn = fresh.master_dsn.clone();
    let refused = pair.try_once_by_file("");
    faulty(&refused, &["DSN1 is the master of another database", "UPDATE replica_role SET peer"]);
    let hint = refused.output.lines().find(|line| line.contains("UPDATE replica_role")).unwrap();
    let start = hint.find("UPDATE").unwrap();
    let update = &hint[start..hint.find(" on DSN1").unwrap()];
    pair.run_on_slave(update);
    done(&pair, "copy", "", &[]);
    let mut daemon = pair.start();
    pair.run_on_slave("insert into t values (77, 'new')");
    let mut filled = servers.master.server().connect(&fresh.master_db());
    wait_until("the new slave follows", || {
        filled.query("select 1 from t where id in (1, 77)", &[]).unwrap().len() == 2
    });
    daemon.terminate();
}

#[test]
fn a_protected_slave_refuses_everybody_but_the_daemon() {
    let pair = Pair::new();
    pair.exec_both(TABLES);
    pair.create_triggers();
    pair.run("select py_log_create_tg('part')");
    assert_finds(&checks(&doctor(&pair, "", &["--json"])), "note", "slave", "fence", "can write to the slave's tables");
    assert_says(&done(&pair, "protect", "", &[]), &["3 tables", "3 of them since now"]);
    for sql in [
        "insert into t values (1)",
        "update t set a = ''",
        "delete from t",
        "truncate t",
        "insert into part1 values (1, 1)",
        "insert into part values (1, 1)",
        "copy t from '/dev/null'",
    ] {
        refuses(pair.slave(), sql);
    }
    pair.run("insert into t values (1, 'one'); insert into part values (1, 1); truncate part; update t set a = 'two'");
    pair.once();
    pair.assert_equal();
    assert_finds(&checks(&doctor(&pair, "", &["--json"])), "ok", "slave", "fence", "nobody but the daemon");
    // A partition that is new is open until the verb runs again.
    pair.exec_both("create table part2 partition of part for values in (2)");
    assert_finds(&checks(&doctor(&pair, "", &["--json"])), "warning", "slave", "fence", "public.part2");
    assert_says(&done(&pair, "protect", "", &[]), &["4 tables", "1 of them since now"]);
    refuses(pair.slave(), "insert into part2 values (2, 2)");
    assert_says(&done(&pair, "unprotect", "", &[]), &["4 tables"]);
    pair.run_on_slave("insert into part2 values (2, 2)");
}

/// Symptom: "The master is ." where a service file says where it is.
#[test]
fn the_fence_names_a_master_that_a_service_file_names() {
    let mut pair = Pair::new().with_a_table();
    let file = pair.dir().join("services");
    let port = pair.master_server().port();
    let service = format!("[here]\nhost=127.0.0.1\nport={port}\ndbname={}\nuser=postgres\n", pair.master_db());
    std::fs::write(&file, service).unwrap();
    pair.master_dsn = "service=here".into();
    let protected = pair.verb_in(&["protect"], &[("PGSERVICEFILE", file.to_str().unwrap())]);
    assert!(protected.status.success(), "{}", protected.output);
    let error = pair.slave().batch_execute("delete from t").unwrap_err();
    let hint = error.as_db_error().and_then(|said| said.hint()).unwrap_or_default();
    assert_eq!(hint, format!("The master is host=127.0.0.1 port={port} dbname={}.", pair.master_db()));
}

/// docs/restore.md, "The slave is right".
#[test]
fn the_slave_of_a_restored_master_becomes_the_master() {
    let mut servers = Servers::start();
    if !servers.master.can_back_up() {
        eprintln!("skipped: no pg_basebackup here");
        return;
    }
    let pair = servers.pair();
    pair.run("insert into t values (1, 'before')");
    pair.once();
    servers.master.back_up("before");
    pair.run("insert into t values (2, 'lost on the master')");
    pair.once();
    servers.master.restore("before");
    pair.run("insert into t values (3, 'lost at the end')");
    faulty(&pair.try_once_by_file(""), &["the master does not know any more", "pyreplica failover --force"]);
    done(&pair, "failover", "", &["--force"]);
    session(pair.slave()).batch_execute("insert into t values (4, 'new')").unwrap();
    faulty(&pair.verb_by_file("failback", "", &[]), &["--discard-lost"]);
    done(&pair, "failback", "", &["--discard-lost"]);
    goes_on(&pair, "");
    assert_eq!(pair.on_master("select id from t order by id"), ["1", "2", "4", "9999"]);
}
