//! Roles that are exchanged where more than two databases, no superuser, or unusual names take part; and databases that
//! contradict each other about who is the master.

use crate::harness::looking::{checks, doctor};
use crate::harness::switching::{
    MODES, master_of, refuses, roles, run_on, session, state, switch, switched, wait_equal,
};
use crate::harness::{End, Finished, OwnCluster, Pair, Server, Still, assert_says, run, wait_until};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

const TABLE: &str = "create table t (id int primary key, a text)";

#[track_caller]
fn pair(lines: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    pair.run("insert into t values (0, 'first')");
    pair.once_with(lines);
    pair
}

// == Who is the master? ==

/// Daemon and verbs end with this, and nothing has changed.
#[track_caller]
fn assert_apart(pair: &Pair, lines: &str, words: &[&str]) {
    let before = state(pair);
    let rows = |pair: &Pair| {
        [pair.on_master("select t::text from t order by id"), pair.on_slave("select t::text from t order by id")]
    };
    let there = rows(pair);
    let finished = pair.try_once_by_file(lines);
    assert_eq!(finished.code(), 9, "{}", finished.output);
    assert_says(&finished.output, words);
    for verb in ["status", "doctor", "switchover"] {
        let finished = pair.verb_by_file(verb, lines, &[]);
        assert_eq!(finished.code(), 9, "{verb}: {}", finished.output);
        assert_says(&finished.output, words);
    }
    assert_eq!(state(pair), before);
    assert_eq!(rows(pair), there, "nothing is replicated");
}

#[test]
fn two_masters_of_one_epoch_are_refused_by_all() {
    let pair = pair("");
    switched(&pair, "", &[]);
    run_on(&pair, 0, "update replica_role set role = 'master'");
    run_on(&pair, 1, "insert into t values (1, 'on the new one')");
    assert_apart(
        &pair,
        "",
        &["both databases say that they are the master, in epoch 2: that of DSN0 since", "that of DSN1 since"],
    );
}

/// Symptom: with the new master's connection string twice, the hint was to make it a former master, which left none.
#[test]
fn one_database_on_both_sides_has_no_other_side() {
    let mut pair = pair("");
    switched(&pair, "", &[]);
    let before = state(&pair);
    let old = std::mem::replace(&mut pair.master_dsn, pair.slave_dsn.clone());
    for words in [
        &["--once"][..],
        &["status"],
        &["doctor"],
        &["compare"],
        &["pause"],
        &["switchover"],
        &["failover", "--force"],
        &["failback"],
        &["protect"],
        &["unprotect"],
    ] {
        let finished = pair.verb(words);
        assert!(!finished.status.success(), "{words:?}: {}", finished.output);
        assert_eq!(finished.count("DSN0 and DSN1 are the same database"), 1, "{words:?}: {}", finished.output);
        assert_eq!(finished.count("former"), 0, "{words:?}: {}", finished.output);
    }
    pair.master_dsn = old;
    assert_eq!(state(&pair), before);
}

/// Symptom: it was said to be restored, and what had been changed there to be on the slave; the way out that was named lost it.
#[test]
fn a_master_where_pyreplica_was_uninstalled_is_not_called_restored() {
    let pair = pair("");
    switched(&pair, "", &[]);
    run_on(&pair, 1, "insert into t values (1, 'replicated')");
    pair.once();
    let done = |words: &[&str]| {
        let finished = run(&pair.dir().join("verb.log"), words, &[]);
        assert!(finished.status.success(), "{words:?}: {}", finished.output);
    };
    done(&["uninstall", "--yes", &pair.slave_dsn]);
    pair.run_on_slave("insert into t values (2, 'the only copy')");
    assert_apart(&pair, "", &["has no log any more: pyreplica was uninstalled there", "copy --install --truncate"]);
    done(&["uninstall", "--yes", &pair.master_dsn]);
    done(&["copy", "--install", "--truncate", &pair.slave_dsn, &pair.master_dsn]);
    done(&["--once", &pair.slave_dsn, &pair.master_dsn]);
    assert_eq!(pair.on_master("select id from t order by id"), ["0", "1", "2"]);
}

struct Servers([OwnCluster; 2]);

impl Servers {
    fn new() -> Option<Servers> {
        let servers = Servers(["master", "slave"].map(|label| OwnCluster::start(label, "", &[])));
        if servers.0[0].can_back_up() {
            return Some(servers);
        }
        eprintln!("skipped: no pg_basebackup here");
        None
    }

    fn pair(&self, lines: &str) -> Pair {
        let pair = Pair::on(self.0[0].server(), self.0[1].server());
        pair.exec_both(TABLE);
        pair.create_triggers();
        pair.run("insert into t values (0, 'first')");
        pair.once_with(lines);
        pair
    }
}

#[test]
fn an_old_master_that_is_restored_from_before_is_fenced_on_sight() {
    let Some(mut servers) = Servers::new() else { return };
    for (number, mode) in MODES.into_iter().enumerate() {
        let pair = servers.pair(mode);
        // With no row at all, and as the master of an older epoch.
        if number == 1 {
            switched(&pair, mode, &[]);
            switched(&pair, mode, &[]);
        }
        let backup = format!("before{number}");
        servers.0[0].back_up(&backup);
        switched(&pair, mode, &[]);
        run_on(&pair, 1, "insert into t values (1, 'on the new one')");
        pair.once_with(mode);
        servers.0[0].restore(&backup);
        if number == 0 {
            // From before it was a master at all.
            run_on(&pair, 0, "drop trigger \"!replica_tg\" on t; drop trigger \"!replica_truncate_tg\" on t");
        }
        run_on(&pair, 0, "insert into t values (2, 'on the old one')");
        run_on(&pair, 1, "insert into t values (3, 'on the new one')");
        for _ in 0..2 {
            let finished = pair.try_once_by_file(mode);
            assert_eq!(finished.code(), 9, "{}", finished.output);
            assert_says(
                &finished.output,
                &["this database was the master before epoch ", "It is fenced", "pyreplica failback"],
            );
            refuses(&pair, 0, "insert into t values (4, 'refused')");
        }
        assert_eq!(roles(&mut pair.master()), ["former"]);
        assert_eq!(pair.on_master("select id from t order by id"), ["0", "2"]);
        assert_eq!(pair.on_slave("select id from t order by id"), ["0", "1", "3"]);
        let finished = switch(&pair, mode, &[]);
        assert_eq!(finished.code(), 9, "{}", finished.output);
        assert_says(&finished.output, &["failback"]);
        run_on(&pair, 1, "insert into t values (5, 'the master goes on')");
        // It is no obstacle that it has not made the batches that the other side had of it.
        let finished = pair.verb_by_file("failback", mode, &["--discard-lost"]);
        assert!(finished.status.success(), "{mode}: {}", finished.output);
        switched(&pair, mode, &[]);
        run_on(&pair, 0, "insert into t values (6, 'on the old one again')");
        pair.once_with(mode);
        wait_equal(&pair);
    }
}

/// The database that became the master is lost, and a backup takes its place in which it is the slave. What it had replicated to
/// the other side since then is there, and not in the backup.
#[test]
fn a_new_master_that_is_restored_from_before_does_not_pass_for_a_switchover_that_was_interrupted() {
    let Some(mut servers) = Servers::new() else { return };
    for (number, mode) in MODES.into_iter().enumerate() {
        let pair = servers.pair(mode);
        // In the second turn both have been masters before.
        if number == 1 {
            switched(&pair, mode, &[]);
            switched(&pair, mode, &[]);
        }
        let backup = format!("slave{number}");
        servers.0[1].back_up(&backup);
        switched(&pair, mode, &[]);
        run_on(&pair, 1, "insert into t values (1, 'on the new one')");
        pair.once_with(mode);
        servers.0[1].restore(&backup);
        let finished = pair.try_once_by_file(mode);
        assert_eq!(finished.code(), 9, "{mode}: {}", finished.output);
        let finished = switch(&pair, mode, &[]);
        assert_eq!(finished.code(), 9, "{mode}: {}", finished.output);
        assert_says(&finished.output, &["knows nothing of it", "failover --force"]);
        assert_eq!(pair.on_master("select id from t order by id"), ["0", "1"]);
        assert_eq!(pair.on_slave("select id from t order by id"), ["0"]);
        // The way out that it names.
        let finished = pair.verb_by_file("failover", mode, &["--force"]);
        assert!(finished.status.success(), "{mode}: {}", finished.output);
        let finished = pair.verb_by_file("failback", mode, &["--discard-lost"]);
        assert!(finished.status.success(), "{mode}: {}", finished.output);
        pair.once_with(mode);
        assert_eq!(pair.on_slave("select id from t order by id"), ["0", "1"]);
    }
}

/// After a failover the former master is fenced. Then the new one is lost, and a backup takes its place that knows nothing of it.
#[test]
fn a_former_master_may_lead_again_if_the_new_one_was_restored() {
    let Some(mut servers) = Servers::new() else { return };
    let pair = servers.pair("");
    servers.0[1].back_up("slave");
    let finished = pair.verb_by_file("failover", "", &["--force"]);
    assert!(finished.status.success(), "{}", finished.output);
    run_on(&pair, 1, "insert into t values (1, 'lost')");
    servers.0[1].restore("slave");
    assert_apart(
        &pair,
        "",
        &["neither database says that it is the master", "If the former one is to be the master again"],
    );
    run_on(&pair, 0, "BEGIN READ WRITE; DELETE FROM replica_role WHERE role = 'former'; COMMIT");
    let checks = checks(&doctor(&pair, "", &["--json"]));
    let fixes: Vec<&String> =
        checks.iter().filter(|check| check.subject == "fence").flat_map(|check| &check.fixes).collect();
    assert_eq!(fixes.len(), 2, "{checks:#?}");
    fixes.into_iter().for_each(|fix| pair.run(fix));
    run_on(&pair, 0, "insert into t values (2, 'leads again')");
    pair.once();
    wait_equal(&pair);
    assert_eq!(pair.on_slave("select id from t order by id"), ["0", "2"]);
}

// == Time ==

/// Symptom: the verb, or a process of the slave, stood still while the tables were locked, and writers waited without end.
#[test]
fn writers_wait_neither_for_a_verb_nor_for_a_slave_that_hangs() {
    for (step, is_slave) in [("switch locked", false), ("switch locked", true), ("switch old prepared", true)] {
        let pair = pair("");
        let at = [("PYREPLICA_PAUSE_AT", step)];
        let mut verb = pair.start_verb("switchover", "", &["--wait", "1"], &at);
        verb.wait_paused();
        let hung = is_slave.then(|| {
            let sessions = "select pid from pg_stat_activity where datname = current_database() and application_name ~ 'switchover'";
            let hung = Still::make(pair.on_slave(sessions).remove(0).parse().unwrap());
            verb.resume();
            hung
        });
        pair.run("set statement_timeout = '60s'; insert into t values (1, 'goes on')");
        drop(hung);
        verb.kill9();
        pair.once();
        wait_equal(&pair);
        assert_eq!(roles(&mut pair.master()), [""; 0], "{step}");
    }
}

/// Symptom: after a switchover neither the daemon nor a verb could connect to the old master any more, since its fence makes transactions
/// read-only there.
#[test]
fn connection_strings_may_ask_for_a_server_that_can_be_written_to() {
    for attribute in ["read-write", "primary"] {
        let pair = pair("");
        let dsn = |dsn: &str| format!("{dsn} target_session_attrs={attribute}");
        let lines = format!("DSN0={}\nDSN1={}", dsn(&pair.master_dsn), dsn(&pair.slave_dsn));
        for new in [1, 0] {
            switched(&pair, &lines, &[]);
            run_on(&pair, new, &format!("insert into t values ({new} + 1, 'new')"));
            pair.once_with(&lines);
            wait_equal(&pair);
        }
    }
}

// == Other slaves ==

/// The first pair's slaves: its own, and the second pair's, in the field slave2.
fn two_slaves() -> (Pair, Pair, String) {
    let (first, other) = (pair(""), Pair::new());
    other.run_on_slave(TABLE);
    first.run("select py_log_add_slave('slave2')");
    let lines = format!("DSN0={}\nSLAVE_FIELD=slave2", first.master_dsn);
    other.run_on_slave("insert into t values (0, 'first')");
    first.run("insert into t values (1, 'for both')");
    first.once_with("");
    other.once_with(&lines);
    (first, other, lines)
}

#[track_caller]
fn wait_third(first: &Pair, side: usize, other: &Pair) {
    let rows = "select count(*) || ' ' || md5(string_agg(t::text, ' ' order by id)) from t";
    let there = if side == 0 { first.on_master(rows) } else { first.on_slave(rows) };
    wait_until("the third database is equal", || other.on_slave(rows) == there);
}

#[test]
fn other_slaves_are_taken_along_without_a_copy() {
    let (first, other, lines) = two_slaves();
    let moved = format!("DSN0={}\nSLAVE_FIELD=slave2", first.slave_dsn);
    let _daemon = first.start();
    for (old, lines, moved) in [(0, &lines, &moved), (1, &moved, &lines)] {
        let new = 1 - old;
        run_on(&first, old, "insert into t select max(id) + 1, 'pending' from t");
        wait_equal(&first);
        let finished = switch(&first, "", &["--take-slaves"]);
        assert_eq!(finished.code(), 3, "{}", finished.output);
        assert_says(&finished.output, &["changes are pending for the slave slave2, which is to be taken along"]);
        other.once_with(lines);
        let said = switched(&first, "", &["--take-slaves"]);
        assert_says(&said, &["slave slave2: taken along. Its DSN0 has to lead to the new master"]);
        run_on(&first, new, "insert into t select max(id) + 1, 'new' from t; update t set a = a || '.'");
        let finished = other.try_once_by_file(lines);
        assert!(!finished.status.success(), "{}", finished.output);
        assert_says(&finished.output, &["DSN0 is not the master any more", "taken along", "nothing has to be copied"]);
        other.once_with(moved);
        wait_third(&first, new, &other);
        wait_equal(&first);
    }
}

#[test]
fn a_slave_whose_daemon_runs_is_taken_along_while_clients_write() {
    let (first, other, lines) = two_slaves();
    let moved = format!("DSN0={}\nSLAVE_FIELD=slave2", first.slave_dsn);
    let _daemon = first.start();
    // From now on the side that is not the master refuses writes.
    switched(&first, "", &["--take-slaves"]);
    let mut own = other.start_with(&moved);
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&end);
        for client in 1..4 {
            let (first, end) = (&first, &end);
            scope.spawn(move || {
                for id in 0.. {
                    if end.load(Ordering::SeqCst) {
                        break;
                    }
                    // Whichever side is the master.
                    for side in [0, 1] {
                        let insert =
                            format!("insert into t values ({}, 'written')", client * 1_000_000 + id * 2 + side as i32);
                        let _ = session(first, side).batch_execute(&insert);
                    }
                }
            });
        }
        for lines in [&lines, &moved] {
            wait_until("it is taken along", || switch(&first, "", &["--take-slaves"]).status.success());
            own.terminate();
            own = other.start_with(lines);
        }
    });
    wait_equal(&first);
    wait_third(&first, 1, &other);
    assert!(own.terminate().success());
}

#[test]
fn a_field_that_a_slave_of_the_slave_uses_is_refused() {
    let (pair, third) = (pair(""), Pair::new());
    let installed = run(&pair.dir().join("install.log"), &["install", &pair.slave_dsn], &[]);
    assert!(installed.status.success(), "{}", installed.output);
    third.run_on_slave(TABLE);
    pair.run_on_slave("insert into t values (1, 'for the third')");
    third.once_with(&format!("DSN0={}", pair.slave_dsn));
    let before = state(&pair);
    let finished = switch(&pair, "", &[]);
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(
        &finished.output,
        &["the slave has a slave of its own with SLAVE_FIELD=replicated", "py_log_add_slave"],
    );
    assert_eq!(state(&pair), before);
    run_what_it_says(&pair, &finished);
    switched(&pair, "", &[]);
}

/// The statement of a hint that ends the use of the field on the slave.
#[track_caller]
fn run_what_it_says(pair: &Pair, finished: &Finished) {
    let (_, update) = finished.output.split_once("on the slave: ").expect("a statement");
    let (update, _) = update.split_once(';').unwrap();
    pair.run_on_slave(update);
}

#[test]
fn one_of_two_masters_does_not_become_a_slave() {
    let pair = pair("");
    let installed = run(&pair.dir().join("install.log"), &["install", &pair.slave_dsn], &[]);
    assert!(installed.status.success(), "{}", installed.output);
    pair.run_on_slave("insert into t values (1, 'the other way')");
    pair.once_with(&format!("DSN0={}\nDSN1={}", pair.slave_dsn, pair.master_dsn));
    let before = state(&pair);
    let finished = switch(&pair, "", &[]);
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(&finished.output, &["it is a master too: another pair with SLAVE_FIELD=replicated has replicated"]);
    assert_eq!(state(&pair), before);
    run_what_it_says(&pair, &finished);
    switched(&pair, "", &[]);
}

/// Symptom: the pair of the other master said that nobody could tell who is the master, and that pair was stopped by this one's switchover.
#[test]
fn a_slave_of_two_masters_does_not_become_one() {
    let (first, other) = (pair(""), Pair::new());
    other.run("create table u (id int primary key)");
    first.run_on_slave("create table u (id int primary key)");
    other.create_triggers();
    other.run("insert into u values (1)");
    other.once_with(&format!("DSN1={}", first.slave_dsn));
    first.run("create table u (id int primary key); select py_log_create_tg('u')");
    let before = state(&first);
    let finished = switch(&first, "", &[]);
    assert_eq!(finished.code(), 3, "{}", finished.output);
    assert_says(
        &finished.output,
        &["the changes of another master under SLAVE_FIELD=replicated", "DELETE FROM replica_progress"],
    );
    assert_eq!(state(&first), before);
}

/// As a dump or pg_upgrade moves it: it has the same rows and is another database.
#[test]
fn a_master_that_is_moved_after_an_exchange_gives_its_role_back() {
    let pair = pair("");
    switched(&pair, "", &[]);
    pair.once();
    let (db, mut admin) = (pair.slave_db(), pair.slave_server().connect("postgres"));
    for sql in [
        format!("create database \"{db} moved\" template \"{db}\""),
        format!("drop database \"{db}\""),
        format!("alter database \"{db} moved\" rename to \"{db}\""),
    ] {
        wait_until("no session is in the way", || admin.batch_execute(&sql).is_ok());
    }
    for new in [0, 1] {
        run_on(&pair, 1 - new, "insert into t select max(id) + 1, 'new' from t");
        pair.once();
        switched(&pair, "", &[]);
        assert_eq!([roles(&mut pair.master()).len(), roles(&mut pair.slave()).len()], [1, 1]);
    }
    pair.once();
    wait_equal(&pair);
}

#[test]
fn a_slave_that_is_left_behind_says_so() {
    let (first, other, lines) = two_slaves();
    let said = switched(&first, "", &[]);
    assert_says(&said, &["slave slave2: left behind"]);
    run_on(&first, 1, "insert into t values (5, 'new')");
    first.once_with("");
    for _ in 0..2 {
        let finished = other.try_once_by_file(&lines);
        assert!(!finished.status.success(), "{}", finished.output);
        assert_says(
            &finished.output,
            &["this slave was not taken along", "py_log_add_slave", "pyreplica copy --truncate"],
        );
    }
    assert_eq!(other.on_slave("select max(id) from t"), ["1"]);
}

/// Symptom: after a failover and a failback, another slave of the old master said "replicating" for ever, and went on with holes when that
/// was the master again. And the doctor of its pair said how to take the fence of the old master down.
#[test]
fn a_slave_of_a_master_that_was_failed_over_says_so() {
    let (first, other, lines) = two_slaves();
    let done = |verb: &str, option: &str| {
        let finished = first.verb_by_file(verb, "", &[option]);
        assert!(finished.status.success(), "{verb}: {}", finished.output);
    };
    let assert_left = |words: &str| {
        let finished = other.try_once_by_file(&lines);
        assert!(!finished.status.success(), "{}", finished.output);
        assert_says(&finished.output, &[words, "not taken along", "pyreplica copy --truncate"]);
        let said = other.verb_by_file("doctor", &lines, &[]).output;
        assert!(!said.contains("!replica_fence") && !said.contains("default_transaction_read_only"), "{said}");
        assert_eq!(other.on_slave("select max(id) from t"), ["1"]);
    };
    done("failover", "--force");
    run_on(&first, 1, "insert into t values (5, 'new')");
    assert_left("is not the master any more");
    // Whoever has taken the fence down by hand: it is put up again.
    run_on(&first, 0, "begin read write; alter table t disable trigger \"!replica_fence\"; commit");
    assert_says(&first.try_once_by_file("").output, &["It is fenced now"]);
    refuses(&first, 0, "insert into t values (6, 'refused')");
    done("failback", "--discard-lost");
    assert_left("is not the master any more");
    first.once();
    switched(&first, "", &[]);
    run_on(&first, 0, "insert into t values (7, 'the old one again')");
    assert_left("is the master again, and was not for a time");
}

/// Symptom: a pair that had exchanged its roles before, in a later epoch, said "replicating" and never got a row again.
#[test]
fn a_slave_that_was_a_master_before_is_left_behind_too() {
    let (first, other, lines) = two_slaves();
    for _ in 0..2 {
        switched(&first, "", &["--take-slaves"]);
    }
    let mut daemon = first.start();
    first.wait_caught_up();
    assert_says(&switched(&other, &lines, &[]), &["slave replicated: left behind"]);
    daemon.wait_log("DSN0 is not the master any more");
    run_on(&other, 1, "insert into t values (5, 'new')");
    for verb in ["status", "doctor"] {
        let finished = first.verb_by_file(verb, "", &[]);
        assert_eq!(finished.code(), 9, "{verb}: {}", finished.output);
        assert_says(&finished.output, &["this slave was not taken along", "pyreplica copy --truncate"]);
        assert_eq!(finished.count("DISABLE TRIGGER"), 0, "{}", finished.output);
    }
    // The other pair goes back. What this slave has missed is in no log.
    switched(&other, &lines, &[]);
    daemon.wait_log("DSN0 is the master again");
    daemon.terminate();
    let said = first.try_once_by_file("").output;
    let (start, end) = (said.find("DELETE").unwrap(), said.find("; and fill").unwrap());
    run_on(&first, 0, &said[start..end]);
    let copied = first.verb_by_file("copy", "", &["--truncate"]);
    assert!(copied.status.success(), "{}", copied.output);
    run_on(&first, 0, "insert into t values (6, 'newer')");
    first.once();
    assert_eq!(first.on_slave("select id from t where id > 1 order by id"), ["5", "6"]);
}

// == Roles ==

/// A role that owns both databases and their tables, and is no superuser. Declared in this order, so that the databases go first.
struct Owned {
    pair: Pair,
    role: Role,
}

struct Role(String, [Server; 2]);

impl Drop for Role {
    fn drop(&mut self) {
        for server in &self.1 {
            let sql = format!("drop owned by {0}; drop role {0}", self.0);
            if let Err(error) = server.try_connect("postgres").and_then(|mut client| client.batch_execute(&sql)) {
                eprintln!("role {} stays behind: {error}", self.0);
            }
        }
    }
}

impl Owned {
    fn new(may_replicate: bool) -> Owned {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let mut pair = Pair::new();
        let role = format!("owner_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let servers = [pair.master_server().clone(), pair.slave_server().clone()];
        for (server, db) in servers.iter().zip([pair.master_db(), pair.slave_db()]) {
            let mut admin = server.connect("postgres");
            for sql in [
                format!("create role {role} login"),
                format!("drop database \"{db}\""),
                format!("create database \"{db}\" owner {role} template template0"),
            ] {
                admin.batch_execute(&sql).unwrap();
            }
            if may_replicate && server.major_version() >= 15 {
                admin.batch_execute(&format!("grant set on parameter session_replication_role to {role}")).unwrap();
            }
            let partitioned = "create table p (id int primary key) partition by range (id);
                create table p1 partition of p for values from (0) to (9)";
            server.connect_as(&db, &role).batch_execute(&format!("{TABLE}; {partitioned}")).unwrap();
        }
        for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
            *dsn = dsn.replace("user=postgres", &format!("user={role}"));
        }
        let installed = run(&pair.dir().join("install.log"), &["install", &pair.master_dsn], &[]);
        assert!(installed.status.success(), "{}", installed.output);
        let role = Role(role, servers);
        Owned { pair, role }
    }
}

#[test]
fn an_owner_that_is_no_superuser_can_do_it() {
    for may_replicate in [true, false] {
        let owned = Owned::new(may_replicate);
        let pair = &owned.pair;
        if may_replicate && pair.version() < 15 {
            continue;
        }
        pair.run("insert into t values (0, 'first'); insert into p values (1)");
        let _daemon = pair.start();
        pair.wait_caught_up();
        for (old, new) in [(0, 1), (1, 0), (0, 1)] {
            switched(pair, "", &[]);
            assert_eq!(master_of(pair), new);
            refuses(pair, old, "insert into t values (-1, 'refused')");
            refuses(pair, old, "insert into p1 values (-1)");
            run_on(
                pair,
                new,
                "insert into t select max(id) + 1, 'new' from t; update t set a = a || '.'; update p set id = id + 1",
            );
            wait_equal(pair);
            // What was replayed is not logged once more.
            // (Before PostgreSQL 15 only a superuser can disable the trigger of a partition. What that logs has an origin.)
            let sent_back = "select count(*) from replica_log where ts::timestamptz > (select max(since) from replica_role)
                                and (relation = 'public.t' or current_setting('server_version_num')::int >= 150000 or origin is null)";
            let count = if old == 0 { pair.on_master(sent_back) } else { pair.on_slave(sent_back) };
            assert_eq!(count, ["0"], "may take the replica role: {may_replicate}");
        }
    }
}

#[test]
fn a_role_that_does_not_own_the_tables_is_told() {
    let owned = Owned::new(true);
    let pair = &owned.pair;
    pair.run("insert into t values (0, 'first')");
    pair.once_with("");
    pair.run_on_slave("alter table t owner to postgres");
    let before = state(pair);
    let finished = switch(pair, "", &[]);
    assert!(!finished.status.success(), "{}", finished.output);
    assert_says(&finished.output, &["t", "owner"]);
    pair.run_on_slave(&format!("alter table t owner to {}", owned.role.0));
    pair.run("alter table p owner to postgres");
    let finished = switch(pair, "", &[]);
    assert!(!finished.status.success(), "{}", finished.output);
    assert_says(&finished.output, &["public.p belongs to postgres", "only its owner"]);
    assert_eq!(state(pair), before);
}

// == Names ==

#[test]
fn names_with_quotes_and_tables_by_statement() {
    for mode in MODES {
        let pair = Pair::new();
        let field = "slave \"two\"; it's";
        let (schema, table) = ("\"my \"\"schema\"\"; x\"", "\"a table's; drop \"\"t\"\"\"");
        pair.exec_both(&format!(
            "create schema {schema}; create table {schema}.{table} (\"the id\" int primary key, a text); {TABLE};
             create table {schema}.p (id int primary key, a text) partition by list (id);
             create table {schema}.\"p's 1\" partition of {schema}.p for values in (1, 2, 3) partition by list (id);
             create table {schema}.\"p;1\" partition of {schema}.\"p's 1\" default"
        ));
        pair.run("select py_log_create_tg('t', 'statement')");
        pair.run("select py_log_create_tg('my \"schema\"; x', 'a table''s; drop \"t\"'), py_log_create_tg('my \"schema\"; x', 'p')");
        pair.run("select py_log_add_slave('slave \"two\"; it''s')");
        let lines = format!("SLAVE_FIELD={field}\n{mode}");
        pair.run("insert into t values (0, 'first')");
        pair.once_with(&lines);
        let mut daemon = pair.start_with(&lines);
        for new in [1, 0] {
            switched(&pair, &lines, &[]);
            refuses(&pair, 1 - new, "insert into t values (5, 'x')");
            refuses(&pair, 1 - new, &format!("insert into {schema}.{table} values (1, 'x')"));
            refuses(&pair, 1 - new, &format!("insert into {schema}.\"p;1\" values (1, 'x')"));
            run_on(
                &pair,
                new,
                &format!(
                    "insert into t select 10 * {new} + i, 'x' from generate_series(1, 9) i; delete from t where id % 3 = 0;
                     insert into {schema}.{table} values ({new}, 'x'); insert into {schema}.p values (2 + {new}, 'x')"
                ),
            );
            wait_equal(&pair);
        }
        assert!(daemon.terminate().success());
    }
}
