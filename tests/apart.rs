//! One of the servers is not the one that the other knows: it was restored from a backup, a standby was promoted in its
//! place, or a connection string leads to another database. Then the daemon replays what the slave lacks, or it refuses
//! to replicate and changes nothing. Most tests run with two-phase commit and without.

use crate::harness::{Finished, OwnCluster, Pair, Still, assert_says, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const MODES: [&str; 2] = ["", "TWO_PHASE=false"];

const TABLES: &str = "create table t (id int primary key, a text);
     create table counter (n int); insert into counter values (0)";

struct Servers {
    master: OwnCluster,
    slave: OwnCluster,
}

/// None if the servers come without pg_basebackup; then the test prints that it is skipped.
fn servers() -> Option<Servers> {
    let [master, slave] = ["master", "slave"].map(|label| OwnCluster::start(label, "", &[]));
    if master.can_back_up() {
        return Some(Servers { master, slave });
    }
    eprintln!("skipped: no pg_basebackup here");
    None
}

impl Servers {
    fn pair(&self) -> Pair {
        let pair = Pair::on(self.master.server(), self.slave.server());
        pair.exec_both(TABLES);
        pair.run("select py_log_create_tg('t')");
        pair
    }
}

/// Runs a few transactions. If one is replayed twice, the counter shows it: on the slave only a free statement changes
/// it.
fn work(pair: &Pair, tag: &str) {
    for _ in 0..3 {
        pair.run(&format!(
            "insert into t select coalesce(max(id), 0) + 1, '{tag}' from t;
             update t set a = a || '{tag}' where id % 3 = 0;
             update counter set n = n + 1;
             insert into replica_log(sql) values ('UPDATE counter SET n = n + 1')"
        ));
    }
}

/// Everything that a refusal must not change.
fn state(pair: &Pair) -> Vec<String> {
    let rows = "select md5(string_agg(t::text, ' ' order by id)) || ' ' || (select n from counter) from t";
    let mut state = pair.on_slave(rows);
    state.extend(pair.on_slave("select p::text from replica_progress p"));
    state.extend(pair.on_master("select s::text from replica_slave s"));
    state.extend(pair.on_master("select h::text from replica_history h order by h"));
    state.extend(pair.on_master("select id || ' ' || replicated from replica_log order by id"));
    for client in [pair.master(), pair.slave()] {
        state.extend(prepared(client));
    }
    state
}

fn prepared(mut client: Client) -> Vec<String> {
    let rows = client.query("select gid from pg_prepared_xacts order by gid", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The daemon refuses with these words, `status` and `doctor` show the first of them too, and nothing has changed.
#[track_caller]
fn assert_refused(pair: &Pair, lines: &str, words: &[&str]) {
    let before = state(pair);
    for _ in 0..2 {
        let finished = pair.try_once_by_file(lines);
        assert_eq!(finished.code(), 9, "{}", finished.output);
        assert_says(&finished.output, words);
    }
    for verb in ["status", "doctor"] {
        let Finished { status, output, .. } = pair.verb_by_file(verb, lines, &[]);
        assert_eq!(status.code(), Some(9), "{verb}: {output}");
        let said = output.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_says(&said, &words[..1]);
    }
    assert_eq!(state(pair), before);
}

#[track_caller]
fn assert_whole(pair: &Pair) {
    pair.assert_equal();
    let counted = "select n from counter";
    assert_eq!(pair.on_slave(counted), pair.on_master(counted), "each change once");
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
}

/// Runs a test in both modes, each time on a pair of new servers that has replayed a few transactions.
fn in_both_modes(test: impl Fn(&mut Servers, &Pair, &str)) {
    for mode in MODES {
        let Some(mut servers) = servers() else { return };
        let pair = servers.pair();
        work(&pair, "a");
        pair.once_with(mode);
        test(&mut servers, &pair, mode);
    }
}

#[test]
fn a_slave_restored_from_an_older_backup_catches_up_by_itself() {
    in_both_modes(|servers, pair, mode| {
        servers.slave.back_up("old");
        for tag in ["b", "c", "d"] {
            work(pair, tag);
            pair.once_with(mode);
        }
        work(pair, "e");
        servers.slave.restore("old");
        let said = pair.once_with(mode);
        assert_says(&said, &["The slave is behind: its last batch is ", "Going back to its own position"]);
        assert_whole(pair);
        let status = pair.verb_by_file("status", mode, &[]);
        assert_says(&status.output, &["the slave came back with an older state", "to replay what it lacked"]);
        work(pair, "f");
        assert!(!pair.once_with(mode).contains("behind"));
        assert_whole(pair);
        // The same backup again: the history of its last batch has ended meanwhile, and the master still knows it.
        servers.slave.restore("old");
        assert_says(&pair.once_with(mode), &["Going back to its own position"]);
        assert_whole(pair);
    });
}

/// The daemon went back to the slave's own position afterwards, and met the rows that the repair had brought.
#[test]
fn a_slave_that_came_back_is_not_repaired_before_it_has_caught_up() {
    in_both_modes(|servers, pair, mode| {
        servers.slave.back_up("old");
        work(pair, "b");
        pair.once_with(mode);
        servers.slave.restore("old");
        let before = state(pair);
        for options in [&["repair"][..], &["repair", "--table", "t"], &["repair", "--dry-run"]] {
            let refused = pair.verb(options);
            assert_eq!(refused.code(), 9, "{}", refused.output);
            assert_says(&refused.output, &["the slave came back with an older state", "hint: start the daemon"]);
        }
        assert_eq!(state(pair), before);
        pair.once_with(mode);
        assert_eq!(pair.verb(&["repair"]).code(), 0);
        assert_whole(pair);
    });
}

/// The daemon runs on, and clients write all the time.
#[test]
fn a_slave_restored_under_load_catches_up_while_clients_write() {
    in_both_modes(|servers, pair, mode| {
        servers.slave.back_up("old");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    work(pair, "x");
                }
            });
            let mut daemon = pair.start_with(&format!("TIMEOUT=2\nDEBUG_LEVEL=1\n{mode}"));
            let count = |sql: &str| pair.on_slave(sql)[0].parse::<u64>().unwrap();
            let rows = "select count(*) from t";
            let (before, enough) = (count(rows), 200);
            wait_until("the slave gets what the clients write", || count(rows) > before + enough);
            servers.slave.restore("old");
            daemon.wait_log("Going back to its own position");
            let restored = count(rows);
            wait_until("the slave goes on", || count(rows) > restored + 2 * enough);
            stop.store(true, Ordering::Relaxed);
            writing.join().unwrap();
            pair.wait_caught_up();
            assert!(daemon.terminate().success(), "{}", daemon.log());
        });
        assert_whole(pair);
    });
}

#[test]
fn a_lagging_standby_of_the_slave_that_is_promoted_catches_up() {
    in_both_modes(|servers, pair, mode| {
        servers.slave.back_up("standby");
        work(pair, "b");
        pair.once_with(mode);
        servers.slave.promote("standby");
        work(pair, "c");
        assert_says(&pair.once_with(mode), &["Going back to its own position"]);
        assert_whole(pair);
    });
}

/// A slave that is restored does not get changes that somebody has skipped.
#[test]
fn what_was_skipped_stays_skipped_when_a_slave_comes_back() {
    let Some(mut servers) = servers() else { return };
    let pair = servers.pair();
    work(&pair, "a");
    pair.once_with("");
    servers.slave.back_up("old");
    pair.run("insert into t values (1000, 'skipped')");
    let id = pair.on_master("select max(id) from replica_log").remove(0);
    assert_eq!(pair.verb(&["skip", &id, "--yes", "--reason", "test"]).code(), 0);
    pair.run("insert into t values (1001, 'skipped by hand'); update replica_log set replicated = true where id > (select max(id) - 1 from replica_log)");
    work(&pair, "b");
    pair.once_with("");
    servers.slave.restore("old");
    assert_says(&pair.once_with(""), &["Going back to its own position"]);
    assert_eq!(pair.on_slave("select id from t where id in (1000, 1001)"), Vec::<String>::new());
    pair.run("delete from t where id in (1000, 1001)");
    pair.once_with("");
    assert_whole(&pair);
}

#[test]
fn a_slave_that_is_behind_what_the_log_still_has_is_refused() {
    in_both_modes(|servers, pair, mode| {
        servers.slave.back_up("old");
        let none_kept = format!("RETENTION=0\n{mode}");
        work(pair, "b");
        pair.once_with(&none_kept);
        assert_eq!(pair.logged(), 0);
        servers.slave.restore("old");
        work(pair, "c");
        let before = state(pair);
        let finished = pair.try_once_by_file(mode);
        assert_eq!(finished.code(), 9, "{}", finished.output);
        assert_says(
            &finished.output,
            &["the slave is behind: its last batch is ", "RETENTION is over", "hint: nothing was changed"],
        );
        assert_eq!(state(pair), before);
    });
}

#[test]
fn an_empty_database_in_the_slaves_place_is_refused() {
    in_both_modes(|servers, pair, mode| {
        // Another database of the same name, which has the tables but no rows.
        let name = pair.slave_db();
        let mut admin = servers.slave.server().connect("postgres");
        admin.batch_execute(&format!("drop database \"{name}\"")).unwrap();
        servers.slave.server().create_database(&name, crate::harness::Script::Slave);
        pair.run_on_slave(TABLES);
        work(pair, "b");
        assert_refused(pair, mode, &["the slave does not know of any batch", "hint: is DSN1 right?"]);
    });
}

#[test]
fn a_master_restored_from_an_older_backup_is_refused() {
    in_both_modes(|servers, pair, mode| {
        servers.master.back_up("old");
        work(pair, "b");
        pair.once_with(mode);
        servers.master.restore("old");
        // Ids and transaction numbers are used again.
        work(pair, "c");
        assert_refused(pair, mode, &["the slave has replayed batches that the master does not know any more"]);
    });
}

/// What the refusal advises if the master is right.
#[test]
fn a_repair_makes_one_pair_of_both_again() {
    in_both_modes(|servers, pair, mode| {
        servers.master.back_up("old");
        work(pair, "b");
        pair.once_with(mode);
        servers.master.restore("old");
        work(pair, "c");
        assert_eq!(pair.try_once_by_file(mode).code(), 9);
        // A repair that is killed sets no position, and has to be run again.
        pair.killed_at("repair-read", &["repair"]);
        assert_eq!(pair.try_once_by_file(mode).code(), 9);
        // A single table is not enough.
        pair.verb(&["repair", "--table", "counter"]);
        assert_eq!(pair.try_once_by_file(mode).code(), 9);
        let repaired = pair.verb(&["repair"]);
        assert_says(&repaired.output, &["the slave's position is set"]);
        // No trigger logs the counter, so the repair does not set it.
        pair.run_on_slave("update counter set n = 6");
        work(pair, "d");
        pair.once_with(mode);
        assert_whole(pair);
    });
}

/// Symptom: a batch that was prepared kept the row that the repair writes at its end, and the daemon refused before it settled the batch.
#[test]
fn a_repair_settles_what_a_restored_master_has_left_prepared() {
    let Some(mut servers) = servers() else { return };
    let pair = servers.pair();
    work(&pair, "a");
    pair.once();
    servers.master.back_up("old");
    work(&pair, "b");
    pair.once();
    let mut daemon = pair.start_paused_at("prepared");
    work(&pair, "c");
    daemon.wait_paused();
    servers.master.restore("old");
    daemon.kill9();
    assert_eq!(prepared(pair.slave()).len(), 1);
    let status = pair.verb_by_file("status", "", &[]);
    assert_eq!(status.code(), 9, "{}", status.output);
    assert_says(&status.output, &["does not know any more", "what puts that right settles them too"]);
    assert_says(&pair.verb(&["repair"]).output, &["the slave's position is set"]);
    pair.run_on_slave("update counter set n = 3");
    work(&pair, "d");
    pair.once();
    assert_whole(&pair);
}

/// Symptom: a clone of the master replicated once to its slave. Then the master took the clone's batch for its own, which was committed on
/// the slave only, and passed over changes of its own.
#[test]
fn the_batch_of_a_clone_is_not_taken_for_the_masters() {
    let pair = Pair::new();
    pair.exec_both(TABLES);
    pair.run("select py_log_create_tg('t')");
    work(&pair, "a");
    pair.once();
    let (server, clone) = (pair.master_server(), format!("{}_clone", pair.master_db()));
    server
        .connect("postgres")
        .batch_execute(&format!("create database {clone} template {}", pair.master_db()))
        .unwrap();
    let mut on_clone = server.connect(&clone);
    on_clone.batch_execute("insert into t select g, 'clone' from generate_series(1001, 1050) g").unwrap();
    drop(on_clone);
    pair.once_with(&format!("DSN0={}", server.dsn(&clone)));
    work(&pair, "b");
    let rows = pair.on_slave("select count(*) from t");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 9, "{}", finished.output);
    assert_eq!(pair.on_slave("select count(*) from t"), rows);
    server.drop_database(&clone);
}

#[test]
fn a_lagging_standby_of_the_master_that_is_promoted_is_refused() {
    in_both_modes(|servers, pair, mode| {
        servers.master.back_up("standby");
        work(pair, "b");
        pair.once_with(mode);
        servers.master.promote("standby");
        assert_refused(pair, mode, &["the slave has replayed batches that the master does not know any more"]);
        work(pair, "c");
        assert_refused(pair, mode, &["the slave has replayed batches that the master does not know any more"]);
    });
}

#[test]
fn a_standby_of_the_master_that_had_everything_goes_on() {
    in_both_modes(|servers, pair, mode| {
        servers.master.back_up("standby");
        work(pair, "b");
        pair.once_with(mode);
        work(pair, "c");
        servers.master.take_over("standby");
        work(pair, "d");
        let said = pair.once_with(mode);
        assert_says(&said, &["The master was promoted: it is on timeline 2 now, and has the same last batch"]);
        assert_whole(pair);
        assert!(!pair.once_with(mode).contains("promoted"));
    });
}

/// Both servers are restored to the same moment, which looks like a crash. Then the slave is restored from a backup
/// that was made after that moment, before the restore. The daemon must not take it for an older state of the present
/// history.
#[test]
fn a_slave_from_a_former_life_of_the_master_is_refused() {
    in_both_modes(|servers, pair, mode| {
        servers.master.back_up("old");
        servers.slave.back_up("old");
        for _ in 0..3 {
            work(pair, "b");
            pair.once_with(mode);
        }
        servers.slave.back_up("former");
        servers.master.restore("old");
        servers.slave.restore("old");
        for _ in 0..9 {
            work(pair, "c");
            pair.once_with(mode);
        }
        assert_whole(pair);
        servers.slave.restore("former");
        work(pair, "d");
        assert_refused(pair, mode, &["the slave has replayed batches that the master does not know any more"]);
    });
}

#[test]
fn a_backup_from_between_prepare_and_commit_replays_nothing_twice() {
    for side in ["master", "slave"] {
        let Some(mut servers) = servers() else { return };
        let pair = servers.pair();
        work(&pair, "a");
        pair.once_with("");
        let mut daemon = pair.start_paused_at("prepared");
        work(&pair, "b");
        daemon.wait_paused();
        match side {
            "master" => servers.master.back_up("prepared"),
            _ => servers.slave.back_up("prepared"),
        }
        daemon.resume();
        pair.wait_caught_up();
        daemon.terminate();
        match side {
            "master" => servers.master.restore("prepared"),
            _ => servers.slave.restore("prepared"),
        }
        let said = pair.once_with("");
        assert_says(
            &said,
            &[if side == "master" { "committed on the slave: commit on the master" } else { "Recovering batch" }],
        );
        assert_whole(&pair);
        work(&pair, "c");
        pair.once_with("");
        assert_whole(&pair);
    }
}

#[test]
fn the_mode_may_change_after_a_crash_at_any_step() {
    let pair = Pair::new();
    pair.exec_both(TABLES);
    pair.run("select py_log_create_tg('t')");
    let steps = [
        ("", "begun"),
        ("", "replayed"),
        ("", "prepared"),
        ("", "slave-committed"),
        ("", "master-committed"),
        ("TWO_PHASE=false", "begun"),
        ("TWO_PHASE=false", "replayed"),
        ("TWO_PHASE=false", "noted"),
        ("TWO_PHASE=false", "slave-committed"),
        ("TWO_PHASE=false", "master-committed"),
    ];
    for (mode, step) in steps {
        work(&pair, "a");
        let mut daemon = pair.start_in(mode, &[("PYREPLICA_PAUSE_AT", step)]);
        daemon.wait_paused();
        daemon.kill9();
        let other = if mode.is_empty() { "TWO_PHASE=false" } else { "" };
        pair.once_with(other);
        assert_whole(&pair);
        work(&pair, "b");
        pair.once_with(mode);
        assert_whole(&pair);
    }
}

/// Symptom: a process of the slave was stopped, or its storage hung: the daemon waited for ever, and status said that it
/// replicates. Cause: nothing limits the wait for an answer while the machine and the network are there.
#[test]
fn a_process_of_the_slave_that_hangs_is_noticed_and_the_pair_goes_on_afterwards() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start_with("TIMEOUT=2\nDEBUG_LEVEL=3");
    daemon.wait_log("Waiting for 'NOTIFY'");
    let sessions = "select pid from pg_stat_activity where datname = current_database() and client_port > 0";
    let hung = Still::make(pair.on_slave(sessions).remove(0).parse().unwrap());
    pair.run("insert into t values (1, 'x')");
    daemon.wait_log("does not read what it was sent");
    let status = pair.verb_by_file("status", "", &[]);
    assert_eq!(status.code(), 9, "{}", status.output);
    assert_says(&status.output, &["failing", "does not read what it was sent"]);
    hung.go_on();
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
}
