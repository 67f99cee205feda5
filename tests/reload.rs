//! SIGHUP reads the config files again: pairs start, end and change their settings, and the others never notice.

use crate::harness::{Daemon, Pair, wait_until};
use std::fs;
use std::path::Path;

fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key)");
    pair.create_triggers();
    pair
}

/// A config file in a directory that several pairs share.
fn write(directory: &Path, pair: &Pair, lines: &str) {
    fs::create_dir_all(directory).unwrap();
    let file = directory.join(format!("{}.conf", pair.name));
    fs::copy(pair.config_file(lines), file).unwrap();
}

fn replicates(pair: &Pair, id: i32) {
    pair.run(&format!("insert into t values ({id})"));
    pair.wait_caught_up();
    pair.assert_equal();
}

fn reload(daemon: &mut Daemon, times: usize) {
    daemon.signal("HUP");
    daemon.wait_log_times("Reading the config files again", times);
}

#[test]
fn pairs_come_and_go_and_change_while_the_others_are_left_alone() {
    let (stays, changes, comes) = (pair(), pair(), pair());
    let directory = stays.dir().join("conf.d");
    write(&directory, &stays, "");
    write(&directory, &changes, "");
    let mut daemon = Daemon::spawn(&stays.dir().join("reload.log"), &[directory.to_str().unwrap()], &[]);
    replicates(&stays, 1);
    replicates(&changes, 1);
    let session = "select string_agg(pid::text, ' ' order by pid) from pg_stat_activity where datname = current_database() \
                   and application_name like 'pyreplica%' and application_name not like '%watchdog' and pid <> pg_backend_pid()";
    let (of_stays, of_changes) = (stays.on_slave(session), changes.on_slave(session));

    write(&directory, &changes, "DEBUG_LEVEL=3\n");
    write(&directory, &comes, "");
    reload(&mut daemon, 1);
    replicates(&comes, 1);
    daemon.wait_log("Restarting: the config file has changed");
    wait_until("the changed pair has a new session", || {
        let now = changes.on_slave(session);
        !now[0].is_empty() && now != of_changes
    });
    replicates(&changes, 2);
    replicates(&stays, 2);
    assert_eq!(stays.on_slave(session), of_stays);

    // A file that is bad by now takes nothing down; one that is gone does.
    write(&directory, &changes, "DEBUG_LEVEL=9\n");
    fs::remove_file(directory.join(format!("{}.conf", comes.name))).unwrap();
    reload(&mut daemon, 2);
    daemon.wait_log("Keeping the old settings: the config file has an error");
    daemon.wait_log(".conf:5: DEBUG_LEVEL: must be 0 to 3");
    daemon.wait_log("Ending: ");
    wait_until("the removed pair has no session", || comes.on_slave(session) == [""]);
    replicates(&changes, 3);
    replicates(&stays, 3);
    assert_eq!(stays.on_slave(session), of_stays);
    assert!(daemon.terminate().success(), "{}", daemon.log());
}

#[test]
fn a_pair_in_the_middle_of_a_batch_is_started_anew_without_loss() {
    let pair = pair();
    let directory = pair.dir().join("conf.d");
    write(&directory, &pair, "");
    let pause = [("PYREPLICA_PAUSE_AT", "prepared")];
    let mut daemon = Daemon::spawn(&pair.dir().join("reload.log"), &[directory.to_str().unwrap()], &pause);
    pair.run("insert into t select generate_series(1, 100)");
    daemon.wait_paused();
    write(&directory, &pair, "TIMEOUT=30\n");
    daemon.signal("HUP");
    daemon.resume();
    daemon.wait_log("Restarting");
    replicates(&pair, 1000);
    pair.assert_no_prepared();
    assert!(daemon.terminate().success(), "{}", daemon.log());
}

/// Symptom: the pair of the last config file went on when the file was removed.
/// Cause: a directory without config files is an error, and a pair whose files have an error goes on.
#[test]
fn the_pair_of_the_last_file_ends_too() {
    let pair = pair();
    let directory = pair.dir().join("conf.d");
    write(&directory, &pair, "");
    let mut daemon = Daemon::spawn(&pair.dir().join("reload.log"), &[directory.to_str().unwrap()], &[]);
    replicates(&pair, 1);
    fs::remove_file(directory.join(format!("{}.conf", pair.name))).unwrap();
    reload(&mut daemon, 1);
    daemon.wait_log("Ending: ");
    daemon.wait_log("Ending: no config file that can be used is left, so there is nothing to replicate");
    assert!(daemon.wait_exit().success(), "{}", daemon.log());
}
