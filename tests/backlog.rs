//! A backlog that is larger than one read of the log: transactions that lie far apart in it, that are still open while it
//! drains, that depend on each other and that are larger than a batch.

use crate::harness::{End, Pair, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Watchers leave the servers some time for their work.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Rows from `first` on, in transactions of `size` rows each.
fn transactions(client: &mut Client, first: i32, count: i32, size: i32) {
    let sql = format!(
        "do $$ begin
             for i in 0..{count} - 1 loop
                 insert into t select {first} + i * {size} + n, 'short' from generate_series(0, {size} - 1) n;
                 commit;
             end loop;
         end $$"
    );
    client.batch_execute(&sql).unwrap();
}

/// A drain that logs no statement.
#[track_caller]
fn drain(pair: &Pair) {
    let finished = pair.try_once_by_file("DEBUG_LEVEL=1");
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    pair.assert_equal();
    pair.assert_no_prepared();
}

/// The sessions far apart change the same rows in the order of their commits, so every wrong order shows.
#[test]
fn a_backlog_of_several_reads_with_transactions_far_apart_and_open_ones_drains_equal() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t select -i, 'old' from generate_series(1, 20) i");
    let mut short = pair.master();
    let [mut far, mut farther, mut open, mut late] = [(); 4].map(|()| pair.master());
    let run = |client: &mut Client, sql: &str| client.batch_execute(sql).unwrap();

    run(&mut far, "begin; update t set a = 'far' where id in (-1, -2)");
    run(&mut farther, "begin; update t set a = 'farther' where id = -3; insert into t values (-100, 'farther')");
    run(&mut open, "begin; update t set a = 'open' where id = -4; insert into t values (-200, 'open')");
    transactions(&mut short, 0, 300, 40);
    run(&mut late, "begin; update t set a = 'late' where id = -5");
    run(&mut far, "update t set a = a || '!' where id in (-1, -2, -6); commit");
    // Depends on the one that has just ended, and lies before the end of the others.
    run(&mut short, "update t set a = a || ' then short' where id in (-1, -2)");
    transactions(&mut short, 20_000, 20, 1000);
    run(
        &mut farther,
        "update t set a = a || ' after far' where id = -1; savepoint s; delete from t where id between 0 and 9; rollback to s",
    );
    transactions(&mut short, 50_000, 11_000, 1);
    run(&mut farther, "delete from t where id = -100; insert into t values (-100, 'farther again'); commit");
    run(&mut short, "update t set a = a || ' last' where id in (-1, -3, -100)");
    transactions(&mut short, 70_000, 100, 100);
    run(&mut late, "update t set a = a || ' at the end' where id in (-1, -3, -7, 20000, 70000)");
    transactions(&mut short, 90_000, 1, 52_000);
    run(&mut late, "commit");
    run(&mut short, "delete from t where id between 100 and 130 or id = 51000");
    assert!(pair.pending() > 100_000);

    drain(&pair);
    assert_eq!(pair.logged(), 0, "the open transaction's rows are not to be seen yet");
    run(&mut short, "update t set a = a || ' meanwhile' where id in (-1, -2)");
    run(&mut open, "update t set a = a || ' closed' where id in (-1, -4, -200); commit");
    drain(&pair);
    assert_eq!(pair.logged(), 0);
}

/// The usual backlog: each transaction's rows lie close together, also where one read ends and the next one begins.
#[test]
fn a_backlog_of_transactions_that_overlap_a_little_drains_equal() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (-1, ''), (-2, '')");
    let (mut around, mut short) = (pair.master(), pair.master());
    for number in 0..150 {
        around.batch_execute(&format!("begin; insert into t values ({}, 'around')", 100_000 + number)).unwrap();
        transactions(&mut short, 300 * number, 150, 2);
        around.batch_execute("update t set a = md5(a || 'around') where id = -1; commit").unwrap();
        short.batch_execute("update t set a = md5(a || 'short') where id in (-1, -2)").unwrap();
    }
    drain(&pair);
    assert_eq!(pair.logged(), 0);
}

/// Somebody has moved the sequence, for a dump perhaps.
#[test]
fn a_gap_in_the_logs_ids_is_no_backlog() {
    let pair = Pair::new().with_a_table();
    transactions(&mut pair.master(), 0, 600, 10);
    pair.run("select setval('replica_log_id_seq', 1000000000000000)");
    transactions(&mut pair.master(), 6_000, 600, 10);
    drain(&pair);
    assert_eq!(pair.logged(), 0);
}

/// Logs at random: mostly one row follows another, but some belong to a transaction that has a row further up or down.
#[test]
fn what_is_said_to_lie_close_together_does() {
    const BLOCK: i64 = 5;
    let pair = Pair::new();
    let mut master = pair.master();
    let mut answers = [0; 2];
    for round in 0..600 {
        let rows = format!(
            "begin;
             select setseed({round} / 600.0);
             insert into replica_log (id, txid, event)
                 select i, (100 + i + case when random() < 0.05 then {} else 0 end) :: text :: xid8, 'I'
                   from generate_series(11, 90) i where random() < 0.9",
            round % 50 - 25
        );
        master.batch_execute(&rows).unwrap();
        let close = include_str!("../sql/query/close.sql");
        let are_close: bool = master.query_one(close, &[&10_i64, &90_i64, &BLOCK]).unwrap().get(0);
        let widest = "select max(s) from (select max(id) - min(id) as s from replica_log group by txid) s";
        let widest: i64 = master.query_one(widest, &[]).unwrap().get(0);
        assert!(!are_close || widest < 3 * BLOCK, "round {round}: {widest} apart");
        answers[usize::from(are_close)] += 1;
        master.batch_execute("rollback").unwrap();
    }
    assert!(answers.iter().all(|times| *times > 100), "{answers:?}");
}

#[test]
fn the_daemon_drains_a_backlog_while_the_writers_go_on_and_a_transaction_stays_open() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t select -i, 'old' from generate_series(1, 20) i");
    let mut open = pair.master();
    open.batch_execute("begin; update t set a = 'open' where id = -1").unwrap();
    transactions(&mut pair.master(), 0, 1000, 45);
    let mut daemon = pair.start_with("DEBUG_LEVEL=1");
    let (mut first, mut second) = (pair.master(), pair.master());
    thread::scope(|scope| {
        scope.spawn(|| transactions(&mut first, 100_000, 500, 5));
        scope.spawn(|| transactions(&mut second, 200_000, 20, 700));
    });
    open.batch_execute("update t set a = a || '.' where id < 0; commit").unwrap();
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

#[test]
fn a_transaction_larger_than_a_batch_appears_whole() {
    let pair = Pair::new().with_a_table();
    let mut daemon = pair.start_with("DEBUG_LEVEL=1");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut slave = pair.slave();
            let mut seen = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let rows: i64 = slave.query_one("select count(*) from t", &[]).unwrap().get(0);
                if seen.last() != Some(&rows) {
                    seen.push(rows);
                }
                thread::sleep(LOOK_EVERY);
            }
            seen
        });
        let _end = End(&over);
        pair.run("insert into t select i, 'large' from generate_series(1, 35000) i");
        pair.wait_caught_up();
        pair.run("delete from t where id > 5000");
        pair.wait_caught_up();
        over.store(true, Ordering::SeqCst);
        let seen = watcher.join().unwrap();
        assert!(seen.iter().all(|rows| [0, 35_000, 5_000].contains(rows)), "{seen:?}");
    });
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

// == Chains ==

/// The role of the slave's session checks no foreign key, so the watcher looks for children without a parent itself.
#[test]
fn a_child_by_another_session_never_appears_before_its_parent_nor_outlives_it() {
    let pair = Pair::new();
    pair.exec_both(
        "create table parent (id int primary key, a int);
         create table child (id int primary key, parent int references parent on delete cascade)",
    );
    pair.create_triggers();
    let mut daemon = pair.start_with("DEBUG_LEVEL=1");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut slave = pair.slave();
            let orphans = "select count(*) from child c where not exists (select from parent where id = c.parent)";
            while !over.load(Ordering::SeqCst) {
                let found: i64 = slave.query_one(orphans, &[]).unwrap().get(0);
                assert_eq!(found, 0, "children without a parent");
                thread::sleep(LOOK_EVERY);
            }
        });
        let _end = End(&over);
        let (mut one, mut two, mut long) = (pair.master(), pair.master(), pair.master());
        for id in 0..150 {
            let run = |client: &mut Client, sql: String| client.batch_execute(&sql).unwrap();
            run(&mut two, format!("begin; insert into parent values (1000 + {id})"));
            run(&mut one, format!("insert into parent values ({id})"));
            if id % 10 == 0 {
                run(&mut long, format!("begin; insert into child values (2000 + {id}, {id})"));
            }
            run(
                &mut two,
                format!(
                    "insert into child values ({id}, {id}); insert into child values (1000 + {id}, 1000 + {id}); commit"
                ),
            );
            if id % 10 == 5 {
                run(&mut long, format!("update child set parent = {id} where id = 1995 + {id}; commit"));
            }
            if id % 3 == 0 && id % 10 != 0 {
                run(&mut one, format!("delete from parent where id = {id} and id % 10 <> 5"));
            }
        }
        pair.wait_caught_up();
        over.store(true, Ordering::SeqCst);
        watcher.join().unwrap();
    });
    pair.assert_equal();
    assert!(daemon.terminate().success());
}

// == Whose changes ==

#[test]
fn changes_of_the_skipped_user_are_marked_and_not_replayed() {
    let pair = Pair::new().with_a_table();
    let user = format!("skipped_{}", std::process::id());
    pair.run(&format!("create role {user} superuser"));
    let as_user = |sql: &str| pair.run(&format!("set session authorization {user}; {sql}"));
    let skipping = format!("SKIP_USER={user}");
    pair.run("insert into t values (1, 'ours')");
    as_user("insert into t values (2, 'theirs'); update t set a = 'theirs' where id = 1");
    pair.run("insert into t values (3, 'ours')");
    let finished = pair.try_once_by_file(&skipping);
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(pair.on_slave("select id || a from t order by id"), ["1ours", "3ours"]);
    assert_eq!(pair.logged(), 0);

    // Nothing but what is to be skipped, more than a batch of it, with and without two-phase commit.
    as_user("insert into t select i, 'theirs' from generate_series(100, 25000) i");
    assert!(pair.try_once_by_file(&skipping).status.success());
    assert_eq!(pair.logged(), 0);
    as_user("delete from t where id >= 100");
    assert!(pair.try_once_by_file(&format!("{skipping}\nTWO_PHASE=false")).status.success());
    assert_eq!(pair.logged(), 0);
    assert_eq!(pair.on_slave("select count(*) from t"), ["2"]);

    let mut daemon = pair.start_with(&skipping);
    as_user("insert into t values (4, 'theirs')");
    wait_until("the daemon marks it", || pair.logged() == 0);
    pair.run("delete from t; insert into t values (5, 'ours')");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
    pair.run(&format!("drop role {user}"));
}

/// Some of its rows come along with the list of them, some are fetched, some are not for the slave.
#[test]
fn a_long_transaction_may_have_small_rows_large_ones_and_some_to_be_passed_over() {
    let pair = Pair::new().with_a_table();
    let flagged = "(7, 1002, 1003, 14999, 29998)";
    let large = "(select string_agg(md5(i::text || n::text), '') from generate_series(1, 60) n)";
    pair.run(&format!(
        "begin;
         insert into t select i, case when i % 300 = 0 or i between 5000 and 5099 then {large} else 'small' end
           from generate_series(1, 30000) i;
         update t set a = a || '!' where id % 5 = 0;
         delete from t where id % 400 = 1;
         commit;
         update replica_log set replicated = true where (new -> 'id')::int in {flagged};
         set session_replication_role = replica;
         delete from t where id in {flagged}"
    ));
    drain(&pair);
}

/// What has been replayed stays in the log for a while, and lies below whatever comes.
#[test]
fn a_long_transaction_is_read_without_walking_over_what_lies_below_it() {
    let (below, rows) = (200_000, 45_000);
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a int)");
    pair.run("select py_log_create_tg('public', 't', 'statement')");
    pair.run(&format!("insert into t select i, 0 from generate_series(1, {rows}) i"));
    pair.run(&format!("insert into replica_log (event, replicated) select 'S', true from generate_series(1, {below})"));
    // What is open on the server, in other databases too, keeps daemons looking further down.
    let mut starts = rows + 1..;
    wait_until("the floor rises", || {
        pair.run(&format!("insert into t values ({}, 0)", starts.next().unwrap()));
        drain(&pair);
        pair.on_master(&format!("select floor >= {below} from replica_slave")) == ["t"]
    });
    let read = || {
        let sql = "select idx_tup_read from pg_stat_user_indexes where relname = 'replica_log'";
        pair.on_master(sql).remove(0).parse::<i64>().unwrap()
    };
    let before = read();
    pair.run(&format!("update t set a = 1 where id <= {rows}"));
    drain(&pair);
    let read = read() - before;
    assert!(read < 8 * rows, "{read} rows of the log were read for a transaction of {rows}");
}
