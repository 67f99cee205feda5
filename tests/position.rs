//! What a slave has replayed is one position: a drain that dies in its midst goes on where it was, flags follow by
//! themselves, and a position never means another cluster's transactions.

use crate::harness::{self, Daemon, Pair};
use postgres::Client;
use std::collections::HashSet;

/// The counter has no trigger: a free statement counts on the slave, so a transaction that is lost or replayed a second
/// time shows.
const TABLES: &str = "create table t (id int primary key, a text);
     create table counter (n int); insert into counter values (0)";

const COUNT: &str =
    "update counter set n = n + 1; insert into replica_log(sql) values ('UPDATE counter SET n = n + 1')";

fn pair_with_tables() -> Pair {
    let pair = Pair::new();
    pair.exec_both(TABLES);
    pair.run("select py_log_create_tg('t')");
    pair
}

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

/// Transactions of `size` rows each. Every hundredth is counted; as for the others, no row can be inserted twice.
fn transactions(client: &mut Client, first: i32, count: i32, size: i32) {
    run(
        client,
        &format!(
            "do $$ begin
                 for i in 0..{count} - 1 loop
                     insert into t select {first} + i * {size} + n, 'short' from generate_series(0, {size} - 1) n;
                     if i % 100 = 0 then
                         {COUNT};
                     end if;
                     commit;
                 end loop;
             end $$"
        ),
    );
}

/// Drains until the step and is killed there; false if it came to its end before.
fn dies_at(pair: &Pair, lines: &str, step: &str) -> bool {
    let config = pair.config_file(&format!("DEBUG_LEVEL=1\n{lines}"));
    let arguments = ["--once", config.to_str().unwrap()];
    let mut daemon = Daemon::spawn(&pair.dir().join("dies.log"), &arguments, &[("PYREPLICA_PAUSE_AT", step)]);
    let paused = daemon.paused_or_exited();
    if paused {
        daemon.kill9();
    }
    paused
}

#[track_caller]
fn drain(pair: &Pair, lines: &str) {
    let finished = pair.try_once_by_file(&format!("DEBUG_LEVEL=1\n{lines}"));
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    pair.assert_equal();
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
}

/// A backlog of several reads, with transactions far apart that end where others begin. Some commit only after the first
/// death: they are none of the interrupted drain's business, whatever their ids.
fn die_in_mid_drain_and_go_on(lines: &str, steps: &[&str]) {
    let pair = pair_with_tables();
    pair.run("insert into t select -i, 'old' from generate_series(1, 20) i");
    let mut short = pair.master();
    let [mut far, mut open, mut late] = [(); 3].map(|()| pair.master());
    run(&mut far, "begin; update t set a = 'far' where id = -1");
    run(&mut open, "begin; update t set a = 'open' where id = -2");
    transactions(&mut short, 0, 300, 40);
    run(&mut late, "begin; update t set a = 'late' where id = -3");
    run(&mut far, &format!("update t set a = a || '!' where id = -1; {COUNT}; commit"));
    run(&mut short, "update t set a = a || ' then short' where id = -1");
    transactions(&mut short, 20_000, 20_000, 1);
    run(&mut late, &format!("update t set a = a || ' at the end' where id in (-1, -3, 20000); {COUNT}; commit"));
    transactions(&mut short, 50_000, 200, 50);
    for (death, step) in steps.iter().enumerate() {
        assert!(dies_at(&pair, lines, step), "{step}");
        run(&mut short, &format!("update t set a = a || ' {death}' where id in (-1, 20001, 50001); {COUNT}"));
        if death == 1 {
            run(&mut open, &format!("update t set a = a || ' closed' where id in (-1, -2); {COUNT}; commit"));
        }
    }
    drain(&pair, lines);
}

#[test]
fn a_long_drain_that_is_killed_time_and_again_goes_on_where_it_was() {
    let steps = ["slave-committed", "prepared", "replayed:2", "begun", "master-committed"];
    die_in_mid_drain_and_go_on("", &steps);
}

#[test]
fn so_does_one_that_deletes_what_it_has_replayed() {
    die_in_mid_drain_and_go_on("RETENTION=0", &["slave-committed:3", "prepared:1", "prepared:2", "replayed"]);
}

#[test]
fn so_does_one_without_two_phase_commit() {
    die_in_mid_drain_and_go_on("TWO_PHASE=false", &["master-committed:2", "slave-committed:2", "noted:2", "begun:2"]);
}

/// Here no transaction spreads far, and every read ends in the midst of some.
#[test]
fn so_does_one_of_short_transactions_that_overlap() {
    for (lines, steps) in [
        ("", ["slave-committed", "prepared:2", "replayed:1", "master-committed:2"]),
        ("RETENTION=0", ["slave-committed:2", "begun:2", "prepared", "slave-committed"]),
    ] {
        let pair = pair_with_tables();
        pair.run("insert into t select -i, 'old' from generate_series(1, 20) i");
        let (mut around, mut short) = (pair.master(), pair.master());
        for number in 0..150 {
            run(&mut around, "begin; update t set a = md5(a || 'around') where id = -1");
            transactions(&mut short, 400 * number, 40, 10);
            run(&mut around, &format!("update t set a = md5(a || 'around') where id = -2; {COUNT}; commit"));
            run(&mut short, "update t set a = md5(a || 'short') where id in (-1, -2)");
        }
        for (death, step) in steps.iter().enumerate() {
            assert!(dies_at(&pair, lines, step), "{step}");
            run(&mut short, &format!("update t set a = a || ' {death}' where id in (-1, 10, 30000); {COUNT}"));
        }
        drain(&pair, lines);
    }
}

// == Flags ==

#[test]
fn a_change_whose_flag_is_set_by_hand_is_passed_over() {
    let pair = pair_with_tables();
    pair.run(
        "insert into t values (1, 'wanted'); insert into t values (2, 'unwanted'); insert into t values (3, 'wanted')",
    );
    pair.run("update replica_log set replicated = true where new -> 'a' = 'unwanted'");
    pair.once();
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "3"]);
    assert_eq!(pair.pending(), 0);
}

/// The last rows of a transaction are flagged while a drain that has not come to it yet is interrupted. Its place in the
/// order must not change by that, or it would be taken for one that has been replayed.
#[test]
fn a_flag_set_in_mid_drain_does_not_take_the_rest_of_its_transaction_along() {
    let pair = pair_with_tables();
    let mut spread = pair.master();
    run(&mut spread, "begin; insert into t values (-1, 'first')");
    transactions(&mut pair.master(), 0, 250, 100);
    run(&mut spread, "insert into t values (-2, 'last'); commit");
    assert!(dies_at(&pair, "", "slave-committed"));
    pair.run("update replica_log set replicated = true where new -> 'id' = '-2'");
    pair.once();
    assert_eq!(pair.on_slave("select id from t where id < 0"), ["-1"]);
    assert_eq!(pair.on_slave("select n from counter"), ["3"]);
}

#[test]
fn flags_that_somebody_holds_hold_up_nothing_and_are_set_later() {
    let pair = pair_with_tables();
    pair.run("insert into t select i, 'new' from generate_series(1, 10) i");
    let mut operator = pair.master();
    run(&mut operator, "begin; update replica_log set ts = ts where id = 5");
    pair.once();
    pair.assert_equal();
    assert_eq!(pair.pending(), 10, "they are set together");
    run(&mut operator, "rollback");
    pair.run("insert into t values (11, 'new')");
    drain(&pair, "");
}

#[test]
fn without_retention_the_log_becomes_empty_also_of_what_was_kept_before() {
    let pair = pair_with_tables();
    transactions(&mut pair.master(), 0, 120, 100);
    drain(&pair, "");
    assert_eq!(pair.on_master("select count(*) from replica_log"), ["12002"]);
    transactions(&mut pair.master(), 20_000, 10, 100);
    drain(&pair, "RETENTION=0");
    assert_eq!(pair.on_master("select count(*) from replica_log"), ["0"]);
}

#[test]
fn of_three_slaves_one_may_be_away() {
    let pairs = [(); 3].map(|()| Pair::new());
    let [first, second, away] = &pairs;
    first.exec_both(TABLES);
    for other in [second, away] {
        other.run_on_slave(TABLES);
    }
    first.run("select py_log_create_tg('t'), py_log_add_slave('slave2'), py_log_add_slave('slave3')");
    let lines = |field: &str| format!("DSN0={}\nSLAVE_FIELD={field}\nRETENTION=0", first.master_dsn);
    let mut daemons = vec![first.start_with("RETENTION=0"), second.start_with(&lines("slave2"))];
    transactions(&mut first.master(), 0, 60, 30);
    first.wait_caught_up();
    let waiting = |condition: &str| first.on_master(&format!("select count(*) from replica_log where {condition}"));
    harness::wait_until("the second slave has caught up", || waiting("not slave2") == ["0"]);
    assert_eq!(waiting("not slave3"), ["1801"]);
    daemons.push(away.start_with(&lines("slave3")));
    harness::wait_until("the log is empty", || waiting("true") == ["0"]);
    let sum = "select count(*) || ' ' || (select n from counter) from t";
    for slave in &pairs {
        harness::wait_until("all have the same", || slave.on_slave(sum) == first.on_master(sum));
    }
}

/// As with the original, which passes over a NULL. Whatever is false is replayed.
#[test]
fn a_column_made_by_hand_gets_what_is_false_in_it() {
    let (first, other) = (pair_with_tables(), Pair::new());
    other.run_on_slave(TABLES);
    let lines = format!("DSN0={}\nSLAVE_FIELD=\"Slave 2\"", first.master_dsn).replace('"', "");
    first.run("insert into t values (1, 'before')");
    drain(&first, "");
    first.run("alter table replica_log add \"Slave 2\" boolean");
    first.run("insert into t values (2, 'a NULL')");
    first.run("alter table replica_log alter \"Slave 2\" set default false");
    first.run("insert into t values (3, 'after')");
    let finished = other.try_once_by_file(&lines);
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(other.on_slave("select id from t"), ["3"]);
    drain(&first, "RETENTION=0");
    assert_eq!(first.on_master("select count(*) from replica_log"), ["0"], "a NULL is nobody's to wait for");
}

// == Long transactions ==

/// Symptom: while a transaction stayed open on the master, every look at the log walked over all that had been logged since
/// it began. Rows that were read are counted here, which no clock can blur.
#[test]
fn a_long_transaction_makes_no_look_walk_over_what_was_logged_since() {
    let pair = pair_with_tables();
    let mut daemon = pair.start_with("DEBUG_LEVEL=1");
    let mut long = pair.master();
    run(&mut long, "begin; insert into t values (-1, 'long')");
    transactions(&mut pair.master(), 0, 200, 50);
    pair.wait_caught_up();
    assert!(daemon.terminate().success());
    pair.run("select pg_stat_reset()");
    let mut daemon = pair.start_with("DEBUG_LEVEL=1");
    for round in 0..40 {
        pair.run(&format!("insert into t values ({}, 'short')", 20_000 + round));
        pair.wait_caught_up();
    }
    run(&mut long, "insert into t values (-2, 'long'); commit");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and application_name not in ('pyreplica test', '')";
    harness::wait_until("the daemon's sessions have ended", || pair.on_master(sessions) == ["0"]);
    let read = "select idx_tup_fetch from pg_stat_user_tables where relname = 'replica_log'";
    let read: i64 = pair.on_master(read)[0].parse().unwrap();
    // It is walked over when the daemon comes, and when the long transaction ends.
    assert!(read < 12 * 10_200, "{read} rows were read");
}

/// Symptom: after a backlog, and once after each start, the daemon read all that the log keeps for RETENTION before it replayed
/// a change. It does so above the floor, and as often again if a drain is under way.
#[test]
fn a_new_connection_does_not_read_again_what_was_replayed() {
    let pair = pair_with_tables();
    let on_row = |sql: &str| pair.on_master(&format!("select {sql} from replica_slave"));
    let under_way = "concat_ws(' ', current is not null, last = highest)";
    transactions(&mut pair.master(), 0, 100, 200);
    // The floor stays behind what is open on the server, in other databases too. Then each start tries it anew.
    let mut starts = 0..;
    harness::wait_until("the floor rises", || {
        pair.run(&format!("insert into t values ({}, 'short')", 30_000 + starts.next().unwrap()));
        pair.once();
        on_row("floor >= 20000") == ["t"]
    });
    // Killed right behind its last commit it has no time to write anything more.
    pair.run("insert into t values (-1, 'short')");
    assert!(dies_at(&pair, "", "slave-committed"));
    assert_eq!(on_row(under_way), ["f t"]);
    pair.run("insert into t values (-2, 'short')");
    pair.run_on_slave("insert into t values (-3, 'in the way')");
    pair.run("insert into t values (-3, 'fails')");
    assert!(!pair.try_once_by_file("").status.success());
    assert_eq!(on_row(under_way), ["t f"], "the drain that failed is not over");
    pair.run_on_slave("delete from t where id = -3");
    drain(&pair, "");
}

// == The position, asked in SQL ==

/// Each query that asks whether a row has been replayed, with the types of its parameters. Those for slaves' keys have none.
const QUESTIONS: &[(&str, &str)] = &[
    (include_str!("../sql/query/due.sql"), "bigint, bigint, bigint, text, text, bigint, text[]"),
    (include_str!("../sql/query/stuck.sql"), "bigint, text, text, bigint, bigint"),
    (include_str!("../sql/query/go_back.sql"), "bigint, text, text, bigint, text"),
    (include_str!("../sql/query/passed.sql"), "text"),
    (include_str!("../sql/query/unpassed.sql"), "text, text[], text"),
    (include_str!("../sql/query/skippable.sql"), "text, bigint[], bigint[]"),
    (include_str!("../sql/query/waiting.sql"), "text, name, text, bigint, bigint, text"),
    (include_str!("../sql/query/status/lag.sql"), "text, bigint"),
];

/// PostgreSQL puts the function's text in the place of the call, for the daemon's role too; a function with a SET, or one that
/// names an argument twice that takes long, would be called for each row.
#[test]
fn the_question_what_is_replayed_is_answered_without_a_call_and_by_the_index() {
    let pair = pair_with_tables();
    let role = format!("asks_{}", pair.name);
    pair.run(&format!("create role {role}; select py_log_grant('{role}')"));
    for (number, (query, types)) in QUESTIONS.iter().enumerate() {
        let nulls = vec!["null"; types.split(", ").count()].join(", ");
        // As the daemon's sessions are set up.
        let plan = pair.on_master(&format!(
            "set role {role}; set search_path = pg_catalog, pg_temp; set enable_seqscan = off;
             set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan;
             prepare question_{number} ({types}) as {query}; explain (verbose, costs off) execute question_{number} ({nulls})"
        ));
        let plan = plan.join("\n");
        assert!(plan.contains("Index Scan using replica_log_id on public.replica_log l"), "{plan}");
        assert!(!plan.contains("py_log_is_replayed") && plan.contains("COALESCE(pg_visible_in_snapshot("), "{plan}");
    }
    pair.run(&format!("drop owned by {role}; drop role {role}"));
}

/// The ids of the rows of t that the view says a slave has, or lacks.
fn viewed(master: &Pair, field: &str, replayed: bool) -> Vec<String> {
    master.on_master(&format!(
        "select (l.new -> 'id')::int as row from replica_replayed r join replica_log l using (id, txid)
         where r.field = '{field}' and r.replayed = {replayed} and l.relation = 'public.t' order by row"
    ))
}

#[track_caller]
fn assert_the_view_is_right(master: &Pair, field: &str, slave: &Pair, moment: &str) {
    let there = slave.on_slave("select id from t order by id");
    assert!(viewed(master, field, true) == there, "{moment}: {field} has {} rows", there.len());
    let mut lacking = master.on_master("select id from t order by id");
    let there: HashSet<String> = there.into_iter().collect();
    lacking.retain(|id| !there.contains(id));
    assert!(viewed(master, field, false) == lacking, "{moment}: {field} lacks {} rows", lacking.len());
}

/// The rows of one transaction lie around all others, and another one is open meanwhile.
#[test]
fn the_view_says_of_every_row_what_is_on_which_slave_at_any_moment() {
    let (first, second) = (pair_with_tables(), Pair::new());
    second.run_on_slave(TABLES);
    first.run("select py_log_add_slave('slave2')");
    let second_lines = |more: &str| format!("DSN0={}\nSLAVE_FIELD=slave2\n{more}", first.master_dsn);
    let (mut around, mut open) = (first.master(), first.master());
    run(&mut around, "begin; insert into t values (-1, 'around')");
    run(&mut open, "begin; insert into t values (-3, 'open')");
    transactions(&mut first.master(), 0, 300, 40);
    run(&mut around, "insert into t values (-2, 'around'); commit");
    let right = |moment: &str| {
        assert_the_view_is_right(&first, "replicated", &first, moment);
        assert_the_view_is_right(&first, "slave2", &second, moment);
    };
    right("nothing is replayed");
    assert!(second.try_once_by_file(&second_lines("FLAGS=false")).status.success());
    right("one slave has all");
    run(&mut open, "insert into t values (-4, 'open'); commit");
    transactions(&mut first.master(), 20_000, 400, 100);
    right("an open transaction has ended");
    let mut midway = 0;
    for step in ["slave-committed", "prepared", "slave-committed", "master-committed"] {
        for (pair, field, lines) in [(&first, "replicated", String::new()), (&second, "slave2", second_lines(""))] {
            assert!(dies_at(pair, &lines, step), "{step}");
            if step == "slave-committed" {
                let gids = format!(
                    "select gid from pg_prepared_xacts where database = current_database() and gid like '%:{field}:%'"
                );
                let gids = first.on_master(&gids);
                assert_eq!(gids.len(), 1, "the master's half");
                first.run(&format!("commit prepared '{}'", gids[0]));
            }
            right(step);
            // As a query that looks at single rows would not know.
            let early = "select count(*) from replica_log l join replica_replayed r using (id) join replica_slave s using (field)
                         where field = '{}' and not replayed
                           and py_log_is_replayed(l.id, l.txid, s.base, s.current, s.last)";
            midway += first.on_master(&early.replace("{}", field))[0].parse::<i32>().unwrap();
        }
    }
    assert!(midway > 0, "the interrupted drains were in the midst of a transaction");
    let monitor = format!("monitor_{}", first.name);
    first.run(&format!("create role {monitor}; grant select on replica_replayed to {monitor}"));
    first.run(&format!("set role {monitor}; select count(*) from replica_replayed where not replayed"));
    first.run(&format!("drop owned by {monitor}; drop role {monitor}"));
    drain(&first, "");
    assert!(second.try_once_by_file(&second_lines("FLAGS=false")).status.success());
    right("all is replayed");
    assert_eq!(first.on_master("select count(*) from replica_replayed where not replayed"), ["0"]);
    // A position from another cluster says nothing, and the flags alone count.
    first.run("update replica_slave set identity = 'another/1'");
    let by_flags = "select count(*) from replica_replayed r join replica_log l using (id) \
                    where r.field = 'slave2' and r.replayed is distinct from l.slave2";
    assert_eq!(first.on_master(by_flags), ["0"]);
    assert_ne!(first.on_master("select count(*) from replica_replayed where not replayed"), ["0"]);
}
