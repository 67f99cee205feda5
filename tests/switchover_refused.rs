//! What keeps a switchover from happening: it is named with what helps, nothing has changed, and writers go on.

use crate::harness::switching::{assert_fenced, master_of, run_on, session, state, switch, switched, wait_equal};
use crate::harness::{Finished, OwnCluster, Pair, Still, acquainted_pair, assert_says, wait_until};
use std::fs;
use std::thread;

/// It is refused with these words, nobody's role has changed, and the master takes writes.
#[track_caller]
fn refused(pair: &Pair, lines: &str, options: &[&str], words: &[&str]) -> Finished {
    let before = state(pair);
    let finished = switch(pair, lines, options);
    assert!(![0, 1, 8].contains(&finished.code()), "{options:?}: {}", finished.output);
    assert_says(&finished.output, words);
    assert_unchanged(pair, &before);
    finished
}

#[track_caller]
fn assert_unchanged(pair: &Pair, before: &[String]) {
    // A daemon may have a batch in progress at this moment.
    wait_until("everything is as it was", || state(pair) == before);
    let write =
        "set lock_timeout = '5s'; set default_transaction_read_only = off; update t set how = how || '.' where id = 0";
    pair.master().batch_execute(write).expect("the master takes writes");
}

/// It goes on with this option, and says what was left behind.
#[track_caller]
fn leaves_behind(pair: &Pair, words: &[&str]) {
    let finished = switch(pair, "", &["--leave-behind"]);
    assert_eq!(finished.code(), 8, "{}", finished.output);
    assert_says(&finished.output, words);
    assert_eq!(master_of(pair), 1);
}

fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, how text)");
    pair.create_triggers();
    pair.run("insert into t values (0, 'replayed')");
    pair.once();
    pair
}

/// A writer that has not committed is in the verb's way.
#[track_caller]
fn wait_for_the_verb(pair: &Pair) {
    let waits = "select count(*) from pg_locks where mode = 'ShareRowExclusiveLock' and relation = 't'::regclass and not granted
                  and database = (select oid from pg_database where datname = current_database())";
    wait_until("the verb waits for the writer", || pair.on_master(waits) == ["1"]);
}

#[test]
fn a_table_without_a_key_or_with_a_filter_stays_behind_only_on_request() {
    let pair = acquainted_pair();
    pair.run("insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'true')");
    let words = [
        "not replicated, so they would be left behind: public.counter (give each a primary key",
        "filters or transforms withhold data from the slave: ",
        "hint: nothing was changed. Do what the brackets say; or go on all the same: --leave-behind",
    ];
    refused(&pair, "", &[], &words);
    leaves_behind(&pair, &["note: not replicated, so they would be left behind: public.counter", "note: filters or"]);
}

#[test]
fn objects_that_the_slave_lacks_are_named() {
    let pair = pair();
    pair.run(
        "create extension citext; create schema \"Other one\"; create index on t (how); create view v as select * from t;
         create function f(int) returns int language sql as 'select 1'; create sequence s;
         create function noted() returns trigger language plpgsql as 'begin return null; end';
         create trigger noted after insert on t for each row execute function noted()",
    );
    let words = [
        "the slave lacks 8 objects of the master: ",
        "extension citext",
        "schema \"Other one\"",
        "index ON public.t USING btree (how)",
        "view public.v",
        "function public.f(integer)",
        "sequence public.s",
        "trigger noted on public.t",
        "on the slave: CREATE EXTENSION \"citext\";",
        "--leave-behind",
    ];
    refused(&pair, "", &[], &words);
    leaves_behind(&pair, &["note: the slave lacks 8 objects of the master"]);
    wait_equal(&pair);
}

#[test]
fn changes_that_the_slave_lacks_and_several_masters_are_refused() {
    let pair = pair();
    refused(&pair, "SKIP_USER=postgres", &[], &["SKIP_USER is set: this pair has several masters"]);
    pair.run_on_slave("insert into t values (20, 'in the way')");
    pair.run("insert into t values (20, 'new')");
    pair.once_with("ON_ERROR=quarantine\n");
    let words = ["the slave lacks 1 change held or in quarantine", "pyreplica pending shows them"];
    refused(&pair, "", &[], &words);
    refused(&pair, "", &["--leave-behind"], &words);
    pair.run_on_slave("delete from t where id = 20");
    pair.done(&["retry"]);
    pair.done(&["pause", "--table", "t"]);
    refused(&pair, "", &[], &["on hold: ", "pyreplica resume"]);
    pair.done(&["resume", "--table", "t"]);
    switched(&pair, "", &[]);
}

#[test]
fn rows_that_differ_are_refused_if_they_are_compared() {
    let pair = pair();
    pair.run_on_slave("insert into t values (5, 'surplus')");
    refused(&pair, "", &["--verify"], &["the two sides differ: ", "(1 row)", "pyreplica compare shows the rows"]);
}

#[test]
fn a_slave_that_cannot_prepare_transactions_is_refused_unless_nothing_is_prepared() {
    let slave = OwnCluster::start("slave", "max_prepared_transactions = 0", &[]);
    let pair = Pair::on(crate::harness::shared().0, slave.server());
    pair.exec_both("create table t (id int primary key, how text)");
    pair.create_triggers();
    pair.run("insert into t values (0, 'replayed')");
    pair.once_with("TWO_PHASE=false");
    refused(&pair, "", &[], &["max_prepared_transactions", "TWO_PHASE=false"]);
    for _ in 0..2 {
        switched(&pair, "TWO_PHASE=false", &[]);
    }
    assert_eq!(master_of(&pair), 0);
}

#[test]
fn who_keeps_a_table_locked_is_named() {
    let pair = pair();
    let mut holder = session(&pair, 0);
    holder.batch_execute("begin; update t set how = 'held' where id = 0").unwrap();
    let pid: i32 = holder.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let before = state(&pair);
    let finished = switch(&pair, "", &["--wait", "1"]);
    assert_eq!(finished.code(), 4, "{}", finished.output);
    assert_says(&finished.output, &[&format!("server process {pid} (client backend, postgres, idle in transaction")]);
    assert_says(&finished.output, &["on public.t", "pg_terminate_backend", "nothing was changed"]);
    holder.batch_execute("prepare transaction 'an application''s own'").unwrap();
    let finished = switch(&pair, "", &["--wait", "1"]);
    assert_says(&finished.output, &["the prepared transaction 'an application's own' (postgres, for"]);
    holder.batch_execute("rollback prepared 'an application''s own'").unwrap();
    // The fence is made from now on, and the lock itself is in the way.
    switched(&pair, "", &["--dry-run"]);
    holder.batch_execute("begin; lock table t in share update exclusive mode").unwrap();
    let finished = switch(&pair, "", &["--wait", "1"]);
    assert_says(&finished.output, &["vacuum, create indexes or change tables", &format!("server process {pid}")]);
    // As vacuum does; it would keep the verb from its end, when writers wait already.
    holder.batch_execute("rollback; begin; lock table replica_log in share update exclusive mode").unwrap();
    let finished = switch(&pair, "", &["--wait", "1"]);
    assert_says(&finished.output, &[&format!("server process {pid}"), "on public.replica_log"]);
    holder.batch_execute("rollback; begin; delete from t").unwrap();
    let finished = switch(&pair, "", &["--wait", "1"]);
    assert_says(&finished.output, &["others write to the tables", &format!("server process {pid}")]);
    holder.batch_execute("rollback").unwrap();
    assert_unchanged(&pair, &before);
    switched(&pair, "", &[]);
}

#[test]
fn writers_wait_no_longer_than_they_may_if_the_daemon_stands_still() {
    let pair = pair();
    let mut daemon = pair.start();
    daemon.wait_log("Encoding for this connections");
    // The fence is made, and is not what waits.
    switched(&pair, "", &["--dry-run"]);
    let mut writer = session(&pair, 0);
    writer.batch_execute("begin; insert into t values (1, 'late')").unwrap();
    let before = state(&pair);
    let mut verb = pair.start_verb("switchover", "", &["--wait", "3"], &[]);
    wait_for_the_verb(&pair);
    // It is seen at the next attempt.
    let still = Still::make(daemon.pid());
    writer.batch_execute("commit").unwrap();
    assert!(!verb.wait_exit().success());
    assert_says(&verb.log(), &["cannot replay what was left", "--wait"]);
    assert_unchanged(&pair, &before);
    still.go_on();
    wait_equal(&pair);
    switched(&pair, "", &[]);
}

#[test]
fn a_table_that_comes_while_the_exchange_is_prepared_is_noticed() {
    let pair = pair();
    let _daemon = pair.start();
    switched(&pair, "", &["--dry-run"]);
    let mut writer = session(&pair, 0);
    writer.batch_execute("begin; insert into t values (1, 'late')").unwrap();
    let before = state(&pair);
    let mut verb = pair.start_verb("switchover", "", &["--wait", "30"], &[]);
    wait_for_the_verb(&pair);
    pair.exec_both("create table late (id int primary key)");
    pair.run("select py_log_create_tg('late'); insert into late values (1)");
    writer.batch_execute("commit").unwrap();
    assert!(!verb.wait_exit().success());
    assert_says(&verb.log(), &["public.late has come while the exchange was prepared", "Run the verb again"]);
    assert_unchanged(&pair, &before);
    switched(&pair, "", &[]);
    assert_fenced(&session(&pair, 0).batch_execute("delete from late").unwrap_err(), &pair.slave_db());
    run_on(&pair, 1, "insert into late values (2)");
    wait_equal(&pair);
}

#[test]
fn a_hook_decides_as_long_as_writers_wait() {
    let pair = pair();
    let _daemon = pair.start();
    refused(
        &pair,
        "",
        &["--on-fenced", "echo hook says no; exit 3"],
        &["hook says no", "--on-fenced", "exit status: 3"],
    );
    // What the shell has started ends too, and does nothing later.
    let late = pair.dir().join("late");
    let hanging = format!("(sleep 3; touch {}) & sleep 1000", late.display());
    refused(&pair, "", &["--wait", "2", "--on-fenced", &hanging], &["it did not end within", "sleep 1000"]);
    wait_until("the rest of the command is gone", || {
        let processes = fs::read_dir("/proc").expect("Linux lists its processes").flatten();
        let is_of_it = |line: Vec<u8>| String::from_utf8_lossy(&line).contains(late.to_str().expect("a name"));
        !processes.flat_map(|process| fs::read(process.path().join("cmdline"))).any(is_of_it)
    });
    assert!(!late.exists());
    let shown = pair.dir().join("shown");
    let command = format!("echo \"$PYREPLICA_PAIR $PYREPLICA_EPOCH $PYREPLICA_NEW_MASTER\" >> {}", shown.display());
    let finished = switch(&pair, "", &["--on-fenced", &command, "--on-switched", &format!("{command}; exit 7")]);
    assert_eq!(finished.code(), 8, "{}", finished.output);
    assert_says(&finished.output, &["note: ", "--on-switched", "exit status: 7"]);
    let line =
        format!("{} 2 host=127.0.0.1 port={} dbname={}\n", pair.name, pair.slave_server().port(), pair.slave_db());
    assert_eq!(fs::read_to_string(&shown).unwrap(), line.repeat(2));
    assert_eq!(master_of(&pair), 1);
}

/// A password on the command line is hidden from ps, in a variable.
#[test]
fn a_hook_gets_no_password() {
    let pair = pair();
    let shown = pair.dir().join("shown");
    let command = format!("env > {}", shown.display());
    let secret = [("PYREPLICA_PASSWORD9", "password=hunter2")];
    assert!(pair.verb_in(&["switchover", "--on-fenced", &command], &secret).status.success());
    let shown = fs::read_to_string(&shown).unwrap();
    assert!(shown.contains("PYREPLICA_PAIR=") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn who_stops_the_verb_lets_the_writers_go_on() {
    let pair = pair();
    let _daemon = pair.start();
    let before = state(&pair);
    for (options, point) in [(&[][..], "switch locked"), (&["--on-fenced", "exec sleep 1000"], "")] {
        let mut verb = pair.start_verb("switchover", "", options, &[("PYREPLICA_PAUSE_AT", point)]);
        if point.is_empty() {
            let locked = "select count(*) from pg_locks where mode = 'ShareRowExclusiveLock' and granted
                           and relation = 'replica_log'::regclass
                           and database = (select oid from pg_database where datname = current_database())";
            wait_until("the hook runs", || pair.on_master(locked) == ["1"]);
        } else {
            verb.wait_paused();
        }
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut writer = session(&pair, 0);
                writer.batch_execute("set application_name = 'waits'; update t set how = how || '+'")
            });
            let waits =
                "select count(*) from pg_stat_activity where application_name = 'waits' and wait_event_type = 'Lock'";
            wait_until("a writer waits", || pair.on_master(waits) == ["1"]);
            verb.signal("INT");
            verb.resume();
            writer.join().unwrap().expect("the writer goes on");
        });
        assert_eq!(verb.wait_exit().code(), Some(130), "{}", verb.log());
        assert_unchanged(&pair, &before);
    }
    wait_equal(&pair);
}

#[test]
fn a_dry_run_changes_nothing_even_if_it_is_killed() {
    for mode in crate::harness::switching::MODES {
        let pair = pair();
        let daemon = pair.start_with(mode);
        let before = state(&pair);
        let said = switched(&pair, mode, &["--dry-run"]);
        assert_says(&said, &["everything would work: 1 table.", "it was rolled back"]);
        assert_unchanged(&pair, &before);
        let json = switched(&pair, mode, &["--dry-run", "--json"]);
        assert_says(&json, &["\"switched\": false"]);
        let mut verb = pair.start_verb("switchover", mode, &["--dry-run"], &[("PYREPLICA_PAUSE_AT", "switch noted")]);
        verb.wait_paused();
        verb.kill9();
        assert_unchanged(&pair, &before);
        drop(daemon);
        let _daemon = pair.start_with(mode);
        wait_equal(&pair);
        switched(&pair, mode, &[]);
        let error = session(&pair, 0).batch_execute("delete from t").unwrap_err();
        assert_fenced(&error, &pair.slave_db());
        run_on(&pair, 1, "insert into t values (9, 'new')");
        wait_equal(&pair);
    }
}
