//! CONFLICT: who wins, per table and kind, and the rows of replica_conflict that tell of it.

use crate::harness::{Daemon, Pair, assert_says, wait_until};
use std::thread;

/// Three rows on both sides, by replication.
fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, a text, at int); create table u (id int primary key, a text unique)",
    );
    pair.create_triggers();
    pair.run("insert into t select i, 'row ' || i, 1 from generate_series(1, 3) i");
    pair.once();
    pair
}

#[track_caller]
fn drain(pair: &Pair, rules: &str) -> String {
    let finished = pair.try_once_by_file(&format!("CONFLICT={rules}\n"));
    assert!(finished.status.success(), "{}", finished.output);
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
    finished.output
}

#[track_caller]
fn refused(pair: &Pair, rules: &str) -> String {
    let finished = pair.try_once_by_file(&format!("CONFLICT={rules}\n"));
    assert_eq!(finished.code(), 6, "{}", finished.output);
    finished.output
}

fn conflicts(pair: &Pair) -> Vec<String> {
    pair.on_slave("select kind || ' ' || (key->>'id') || ' ' || done from replica_conflict order by id")
}

#[test]
fn every_conflict_is_a_row_with_what_was_expected_found_and_new() {
    let pair = pair();
    pair.run_on_slave("update t set a = 'slave''s' where id = 1; delete from t where id in (2, 3)");
    pair.run("update t set a = 'new' where id < 3; delete from t where id = 3");
    let said = drain(&pair, "warn");
    assert_eq!(said.matches("Possible conflict").count(), 3, "{said}");
    assert_eq!(
        conflicts(&pair),
        ["update_differs 1 the master's values were applied", "update_missing 2 nothing", "delete_missing 3 nothing"]
    );
    assert_eq!(
        pair.on_slave(
            "select concat_ws(' ', relation, expected->>'a', found->>'a', new->>'a', txid is not null, change > 0) \
             from replica_conflict where kind = 'update_differs'"
        ),
        ["public.t row 1 slave's new t t"]
    );
}

#[test]
fn a_failed_batch_leaves_no_conflict_behind_and_none_is_written_where_none_is_to_be_kept() {
    let pair = pair();
    pair.run_on_slave("update t set a = 'x' where id = 1; insert into t values (9)");
    pair.run("update t set a = 'new' where id = 1; insert into t values (9)");
    refused(&pair, "warn");
    assert_eq!(conflicts(&pair), [""; 0]);
    pair.run_on_slave("delete from t where id = 9");
    drain(&pair, "warn\nCONFLICTS_KEPT=0");
    assert_eq!(conflicts(&pair), [""; 0]);
    pair.assert_equal();
}

#[test]
fn with_skip_the_slave_keeps_what_it_has() {
    let pair = pair();
    pair.run_on_slave("update t set a = 'x' where id = 1; insert into t values (9, 'x'), (3000, 'x')");
    pair.run("update t set a = 'new' where id < 3; insert into t values (9, 'y')");
    let said = drain(&pair, "skip");
    assert_eq!(said.matches("Possible conflict").count(), 2, "{said}");
    assert_eq!(pair.on_slave("select id || a from t order by id"), ["1x", "2new", "3row 3", "9x", "3000x"]);
    assert_eq!(
        conflicts(&pair),
        ["update_differs 1 the slave's row was kept", "insert_exists 9 the slave's row was kept"]
    );
    // Among many that are replayed as sets, too.
    pair.run("insert into t select i, 'bulk' from generate_series(2001, 3500) i");
    drain(&pair, "skip");
    assert_eq!(pair.on_slave("select count(*) from t where a = 'bulk'"), ["1499"]);
}

#[test]
fn with_error_the_change_fails_and_a_rule_may_be_for_a_table_or_a_kind() {
    let pair = pair();
    pair.run_on_slave("update t set a = 'x' where id = 1; delete from t where id = 2; insert into t values (9, 'x')");
    pair.run("update t set a = 'new' where id = 1");
    let said = refused(&pair, "error, public.u warn");
    assert_says(
        &said,
        &["the row is not what it was on the master: \"a\": expected 'row 1', found 'x'", "hint: CONFLICT"],
    );
    drain(&pair, "error, t warn");
    pair.run("delete from t where id = 2");
    assert_says(&refused(&pair, "delete_missing error"), &["the row is missing on the slave"]);
    drain(&pair, "delete_missing error, delete_missing skip");
    pair.run("insert into t values (9, 'y', 5)");
    refused(&pair, "warn");
    drain(&pair, "public.t insert_exists warn");
    pair.assert_equal();
}

#[test]
fn a_deleted_row_is_compared_where_a_rule_names_that() {
    let pair = pair();
    pair.run_on_slave("update t set a = 'x' where id < 3");
    pair.run("delete from t where id <> 2");
    drain(&pair, "delete_differs skip");
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "2"]);
    assert_eq!(conflicts(&pair), ["delete_differs 1 the slave's row was kept"]);
    pair.run("delete from t where id = 2");
    assert_says(&refused(&pair, "t delete_differs error"), &["expected 'row 2', found 'x'"]);
    drain(&pair, "t delete_differs warn");
    assert_eq!(pair.on_slave("select id from t"), ["1"]);
}

#[test]
fn an_update_into_another_rows_unique_value_is_an_error_or_skipped() {
    let pair = pair();
    pair.run("insert into u values (1, 'a')");
    pair.once();
    pair.run_on_slave("insert into u values (2, 'b')");
    pair.run("update u set a = 'b' where id = 1");
    refused(&pair, "update_exists warn");
    drain(&pair, "update_exists skip");
    assert_eq!(conflicts(&pair), ["update_exists 1 the slave's row was kept"]);
}

/// The row is found to differ first; that its new value is taken shows when the master's values are applied all the same.
#[test]
fn an_update_of_a_row_that_differs_meets_another_rows_unique_value_too() {
    let pair = pair();
    pair.run("insert into u values (1, 'a')");
    pair.once();
    pair.run_on_slave("update u set a = 'x' where id = 1; insert into u values (2, 'b')");
    pair.run("update u set a = 'b' where id = 1");
    refused(&pair, "warn");
    drain(&pair, "update_exists skip");
    assert_eq!(conflicts(&pair), ["update_exists 1 the slave's row was kept"]);
    assert_eq!(pair.on_slave("select a from u order by id"), ["x", "b"]);
}

/// Whichever of the two sides decides, whatever its TimeZone, it comes to the same winner.
#[test]
fn rows_of_equal_age_come_to_the_same_winner_on_both_sides() {
    let nodes: Vec<Pair> = (0..2).map(|_| Pair::new()).collect();
    for (node, zone) in nodes.iter().zip(["UTC", "Europe/Berlin"]) {
        node.run(&format!(
            "create table n (id int primary key, a jsonb, at numeric);
             create table s (id int primary key, a bytea, at timestamptz, due timestamptz);
             select py_log_create_tg('n'), py_log_create_tg('s');
             alter database \"{}\" set timezone = '{zone}'",
            node.master_db()
        ));
    }
    // In Berlin the later of the two due times reads as the earlier one: the clocks go back between them.
    nodes[0].run(
        "insert into n values (1, '{\"a\": null}', 1.0), (2, 'null', 'NaN'), (3, null, null), (4, '1', 2);
         insert into s values (1, '\\xff00', 'infinity', null), (2, null, '-infinity', null), (3, null, '2026-01-01 00:00+00', '2026-10-25 00:30+00')",
    );
    nodes[1].run(
        "insert into n values (1, '{\"a\": 1}', 1.00), (2, '[]', 'NaN'), (3, '3', null), (4, '2', 1);
         insert into s values (1, '\\x00', 'infinity', null), (2, '\\x27', null, null), (3, null, '2026-01-01 00:00+00', '2026-10-25 01:10+00')",
    );
    for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        let finished = nodes[from].try_once_by_file(&format!("DSN1={}\nCONFLICT=newest(at)\n", nodes[to].master_dsn));
        assert!(finished.status.success(), "{}", finished.output);
    }
    for table in ["n", "s"] {
        let rows =
            |node: &Pair| node.on_master(&format!("set timezone = 'UTC'; select t::text from {table} t order by id"));
        assert_eq!(rows(&nodes[0]), rows(&nodes[1]));
    }
    assert_eq!(nodes[0].on_master("select a from n where id = 4"), ["1"]);
}

#[test]
fn the_newest_row_wins_with_all_its_values_and_null_is_oldest() {
    let pair = pair();
    pair.run_on_slave("update t set a = 'newer', at = 9 where id = 1; update t set at = null, a = 'x' where id = 2");
    pair.run("update t set at = 5");
    drain(&pair, "newest(at)");
    assert_eq!(pair.on_slave("select id || a || at from t order by id"), ["1newer9", "2row 25", "3row 35"]);
    let said = refused_column(&pair);
    assert_says(&said, &["there is no column \"when\" for newest() to compare"]);
}

/// Of a large row the log holds only what an UPDATE changed.
#[test]
fn an_update_that_leaves_the_newest_rows_column_out_of_the_log_fails_and_says_so() {
    let pair = pair();
    pair.run("insert into t select 9, string_agg(md5(i::text), ''), 1 from generate_series(1, 500) i");
    pair.once();
    pair.run_on_slave("update t set a = 'x' where id = 9");
    pair.run("update t set a = 'y' || a where id = 9");
    let said = refused(&pair, "newest(at)");
    assert_says(&said, &["the log leaves \"at\" out", "every UPDATE has to change it"]);
    assert!(!said.contains("there is no column"), "{said}");
    drain(&pair, "warn");
    pair.assert_equal();
}

fn refused_column(pair: &Pair) -> String {
    pair.run_on_slave("update t set a = 'y' where id = 3");
    pair.run("update t set a = 'z' where id = 3");
    refused(pair, "newest(when)")
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_its_line() {
    let pair = pair();
    let finished = pair.try_once_by_file("CONFLICT=newest\n");
    assert_eq!(finished.code(), 3, "{}", finished.output);
    assert_says(&finished.output, &[":6: CONFLICT: a rule ends with warn, skip, error or newest(COLUMN)"]);
}

#[test]
fn two_masters_that_change_the_same_rows_at_random_end_equal() {
    let nodes: Vec<Pair> = (0..2).map(|_| Pair::new()).collect();
    for node in &nodes {
        node.run("create table t (id int primary key, a text, b text, at int); select py_log_create_tg('t')");
    }
    let replicate = |from: &Pair, to: &Pair| -> Daemon {
        from.start_with(&format!("DSN1={}\nTIMEOUT=3600\nCONFLICT=newest(at)\nDEBUG_LEVEL=1\n", to.master_dsn))
    };
    let mut daemons = [replicate(&nodes[0], &nodes[1]), replicate(&nodes[1], &nodes[0])];
    // A clock of few ticks, which only grows with each change of a row: many rows are of the same age.
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(move || {
                let mut session = node.master();
                for round in 0..100 {
                    let sql = "insert into t select i, random()::text, null, 0 from generate_series(1, 12) i where random() < 0.3
                             on conflict (id) do update set a = excluded.a, at = t.at + 1;
                         update t set a = md5(random()::text), at = at + 1 where random() < 0.3;
                         update t set b = md5(random()::text), at = at + 1 where random() < 0.2";
                    // A deadlock with the replay of the other side's changes is the application's to retry, as any other.
                    while let Err(error) = session.batch_execute(sql) {
                        assert_eq!(error.code().map(|code| code.code()), Some("40P01"), "{error}");
                    }
                    if round == 50 {
                        session.batch_execute("delete from t where id = 12").expect("a delete");
                    }
                }
            });
        }
    });
    let rows =
        |node: &Pair| node.on_master("select coalesce(string_agg(t::text, ' ' order by id), '') from t where id < 12");
    wait_until("both masters are equal", || {
        nodes.iter().all(|node| node.pending() == 0) && rows(&nodes[0]) == rows(&nodes[1])
    });
    let met = nodes[0].on_master("select count(*) > 0 from replica_conflict");
    assert_eq!(met, ["t"], "nothing was put to the test");
    for daemon in &mut daemons {
        assert!(daemon.terminate().success(), "{}", daemon.log());
    }
}

/// Each change that meets a conflict by itself may leave a prepared statement, which takes the server some 20 kB.
#[test]
fn thousands_of_conflicts_in_one_transaction_do_not_fill_the_memory_of_the_slave_s_process() {
    let pair = pair();
    pair.run_on_slave("insert into t select i, 'slave', 1 from generate_series(4, 6000) i");
    pair.run("insert into t select i, 'master', 1 from generate_series(4, 6000) i");
    let mut daemon = pair.start_with("CONFLICT=skip\nFLAGS=false\nTIMEOUT=3600\nDEBUG_LEVEL=3");
    daemon.wait_log("Waiting for 'NOTIFY'");
    let named = format!("select pid from pg_stat_activity where application_name = 'pyreplica {}'", pair.name);
    let pid = pair.on_slave(&named).remove(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let private = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line RssAnon").trim();
    let kb: u64 = private.trim_end_matches(" kB").parse().unwrap();
    assert!(kb < 40_000, "the process has {kb} kB of its own");
    assert_eq!(pair.on_slave("select count(*) from t where a = 'slave'"), ["5997"]);
    assert!(daemon.terminate().success());
}
