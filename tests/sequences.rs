//! The sequences of the slave follow those of the master: never backwards, never one with numbers of its own, and exactly at the
//! end of each burst.

use crate::harness::looking::{assert_finds, checks, doctor, faults, status};
use crate::harness::{Daemon, Pair, wait_until};
use pyreplica::for_tests::{Dsn, Occasion, Side, Why, connect, set_exactly};

/// How a sequence stands.
fn place(name: &str) -> String {
    format!("select concat(last_value, is_called) from {name}")
}

/// A daemon that looks at the sequences each second.
fn follow(pair: &Pair) -> Daemon {
    pair.start_with("SEQUENCES=1")
}

#[track_caller]
fn assert_same(pair: &Pair, names: &[&str]) {
    for name in names {
        assert_eq!(pair.on_slave(&place(name)), pair.on_master(&place(name)), "{name}");
    }
}

#[track_caller]
fn wait_same(pair: &Pair, names: &[&str]) {
    wait_until("the sequences have followed", || {
        names.iter().all(|name| pair.on_slave(&place(name)) == pair.on_master(&place(name)))
    });
}

#[test]
fn sequences_of_every_kind_follow() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key); create table serial (id serial primary key);
         create table identity (id smallint generated always as identity primary key);
         create schema \"S 1\"; create sequence \"S 1\".\"it's \"\"odd\"\"\";
         create sequence falls increment -7 minvalue -1000 maxvalue 500 start 500;
         create sequence circle minvalue 1 maxvalue 10 cycle; create sequence fresh; create sequence small as smallint;
         create sequence top; create sequence later",
    );
    pair.create_triggers();
    pair.run(
        r#"insert into serial select from generate_series(1, 5); insert into identity select from generate_series(1, 6);
           select nextval('"S 1"."it''s ""odd"""'), nextval('falls'), nextval('falls'), setval('circle', 9),
                  setval('fresh', 70, false), setval('small', 32767), setval('top', 9223372036854775807);
           alter sequence later restart with 12"#,
    );
    let names = [
        "serial_id_seq",
        "identity_id_seq",
        r#""S 1"."it's ""odd""""#,
        "falls",
        "circle",
        "fresh",
        "small",
        "top",
        "later",
    ];
    pair.once();
    assert_same(&pair, &names);
    // Around the circle, and those that had not given a number give their first.
    pair.run(
        "select nextval('circle'), nextval('circle'), nextval('circle'), nextval('fresh'), nextval('falls'), nextval('later');
         insert into t values (1)",
    );
    pair.once();
    assert_same(&pair, &names);
    assert_eq!(pair.on_slave("select nextval('circle')"), ["3"]);
    assert_eq!(pair.on_slave("select nextval('falls')"), ["479"]);
    assert_eq!(pair.on_slave("select nextval('fresh')"), ["71"]);
}

#[test]
fn a_sequence_never_goes_backwards() {
    let pair = Pair::new();
    pair.exec_both("create table t (id serial primary key); create sequence falls increment -1");
    pair.create_triggers();
    pair.run_on_slave("select setval('t_id_seq', 100); select setval('falls', -100)");
    pair.run("insert into t default values; select nextval('falls')");
    pair.once();
    assert_eq!(
        pair.on_slave("select t_id_seq.last_value || ' ' || falls.last_value from t_id_seq, falls"),
        ["100 -100"]
    );
    // Nor where the master's does.
    pair.run("select setval('t_id_seq', 200), setval('falls', -200); insert into t values (7)");
    pair.once();
    pair.run("select setval('t_id_seq', 150), setval('falls', -150); insert into t values (8)");
    pair.once();
    assert_eq!(
        pair.on_slave("select t_id_seq.last_value || ' ' || falls.last_value from t_id_seq, falls"),
        ["200 -200"]
    );
    let found = checks(&doctor(&pair, "", &["--json"]));
    assert_finds(&found, "ok", "slave", "sequences", "none is behind");
}

/// The rows of a burst arrive, and at most SEQUENCES later the sequences are where the master's are, with nothing to wake the
/// daemon but its own clock.
#[test]
fn a_burst_ends_with_the_sequences_right() {
    let pair = Pair::new();
    pair.exec_both("create table t (id serial primary key)");
    pair.create_triggers();
    let daemon = pair.start_with("SEQUENCES=2\nTIMEOUT=3600");
    for _ in 0..50 {
        pair.run("insert into t default values");
    }
    pair.wait_caught_up();
    wait_same(&pair, &["t_id_seq"]);
    assert_eq!(pair.on_slave("select last_value from t_id_seq"), ["50"]);
    drop(daemon);
    pair.assert_equal();
}

/// Who stops the daemon to use the slave finds the sequences right, however long SEQUENCES is.
#[test]
fn a_daemon_that_is_stopped_looks_once_more() {
    let pair = Pair::new();
    pair.exec_both("create table t (id serial primary key)");
    pair.create_triggers();
    let mut daemon = pair.start_with("SEQUENCES=3600\nTIMEOUT=3600");
    for _ in 0..3 {
        pair.run("insert into t default values");
        pair.wait_caught_up();
    }
    assert!(daemon.terminate().success());
    assert_same(&pair, &["t_id_seq"]);
}

/// What the moment needs when the slave becomes the master.
#[test]
fn all_can_be_made_equal_at_once_also_backwards() {
    let pair = Pair::new().with_a_table();
    pair.exec_both(
        "create sequence ahead; create sequence wide increment 50; create sequence fresh; create sequence small",
    );
    pair.run_on_slave(
        "drop sequence small; create sequence small as smallint; select setval('ahead', 9), setval('fresh', 9)",
    );
    pair.run("create sequence lacking; select setval('ahead', 5), setval('wide', 1000), setval('small', 40000)");
    let session = |side, dsn: &str| connect(side, &Dsn::parse(dsn).unwrap(), "test").unwrap();
    let (mut master, mut slave) = (session(Side::Master, &pair.master_dsn), session(Side::Slave, &pair.slave_dsn));
    let mut outcome = set_exactly(&mut master, &mut slave, None, Occasion::Switchover).unwrap();
    outcome.set.sort();
    outcome.not_set.sort();
    assert_eq!(outcome.set, ["public.ahead", "public.fresh", "public.wide"]);
    let left = [(Why::Missing, "public.lacking".to_string()), (Why::OutOfBounds, "public.small".to_string())];
    assert_eq!(outcome.not_set, left);
    assert_same(&pair, &["ahead", "wide", "fresh"]);
    let again = set_exactly(&mut master, &mut slave, None, Occasion::Switchover).unwrap();
    assert_eq!((again.same, again.set.len()), (3, 0));
}

#[test]
fn sequences_come_and_go_while_the_daemon_runs() {
    let pair = Pair::new().with_a_table();
    pair.exec_both("create sequence gone; create sequence stays");
    pair.run("select nextval('gone'), nextval('stays')");
    let mut daemon = follow(&pair);
    wait_same(&pair, &["gone", "stays"]);
    pair.run_on_slave("drop sequence gone");
    pair.run("select nextval('gone'), nextval('stays'); create sequence here; select nextval('here'); insert into t values (1)");
    wait_same(&pair, &["stays"]);
    pair.run_on_slave("create sequence here; create sequence \"new\"");
    pair.run("drop sequence gone; create sequence \"new\"; select setval('new', 5), nextval('here'); insert into t values (2)");
    wait_same(&pair, &["stays", "here", "\"new\""]);
    // A name that now means another sequence.
    pair.run("drop sequence here; create sequence here start 1000; select nextval('here'); insert into t values (3)");
    wait_same(&pair, &["here"]);
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(!log.contains("WARNING") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_sequence_with_other_numbers_or_bounds_stays_as_it_is() {
    let pair = Pair::new().with_a_table();
    pair.exec_both("create sequence step; create sequence bounded; create sequence lacking");
    pair.run_on_slave(
        "alter sequence step increment 3; drop sequence lacking, bounded; create sequence bounded as smallint",
    );
    pair.run("select nextval('step'), nextval('lacking'), setval('bounded', 32768); insert into t values (1)");
    let said = pair.once().output;
    let told = "sequences that do not follow: public.bounded: its number is beyond the bounds of the slave's sequence";
    assert!(said.contains(told), "{said}");
    assert_eq!(pair.on_slave(&place("step")), ["1f"]);
    assert_eq!(pair.on_slave(&place("bounded")), ["1f"]);
    let found = checks(&doctor(&pair, "", &["--json"]));
    assert_finds(&found, "note", "slave", "sequences", "the slave has no such sequence: public.lacking");
    assert_finds(&found, "note", "slave", "sequences", "its increment differs on the slave: public.step");
    assert_finds(&found, "warning", "slave", "sequences", "beyond the bounds of the slave's sequence: public.bounded");
    pair.run("select setval('bounded', 32767); insert into t values (2)");
    pair.once();
    assert_same(&pair, &["bounded"]);
}

/// Interleaved: the increments are the same on both, but not the numbers.
#[test]
fn interleaved_sequences_of_a_slave_that_may_be_a_master_stay_apart() {
    let (pair, other) = (Pair::new(), Pair::new());
    for (node, number) in [(&pair, 1), (&other, 2)] {
        node.run("create table t (id serial primary key)");
        node.create_triggers();
        node.on_master(&format!("select py_log_interleave('t_id_seq', {number}, 2)"));
    }
    let before = other.on_master(&place("t_id_seq"));
    pair.run("insert into t select from generate_series(1, 5)");
    pair.once_with(&format!("DSN1={}", other.master_dsn));
    assert_eq!(other.on_master("select count(*) from t"), ["5"]);
    assert_eq!(other.on_master(&place("t_id_seq")), before);
}

#[test]
fn off_means_that_no_sequence_follows() {
    let pair = Pair::new();
    pair.exec_both("create table t (id serial primary key)");
    pair.create_triggers();
    pair.run("insert into t default values");
    pair.once_with("SEQUENCES=off");
    assert_eq!(pair.on_slave(&place("t_id_seq")), ["1f"]);
    let found = checks(&doctor(&pair, "SEQUENCES=off", &["--json"]));
    assert_finds(&found, "note", "slave", "sequences", "SEQUENCES=off");
    assert_finds(&found, "note", "slave", "sequences", "behind the master's: 1");
    pair.once_with("");
    assert_same(&pair, &["t_id_seq"]);
}

/// Each of two masters has a range of numbers, which the other must not move.
#[test]
fn masters_that_feed_each_other_keep_their_sequences() {
    let nodes = [Pair::new(), Pair::new()];
    for (node, start) in nodes.iter().zip([1, 1_000_001]) {
        node.run(&format!(
            "create sequence s start {start}; create table t (id bigint primary key default nextval('s'))"
        ));
        node.create_triggers();
    }
    let replicate = |from: &Pair, to: &Pair| from.start_with(&format!("DSN1={}\nSEQUENCES=1", to.master_dsn));
    // Until it has a slave, its sequences are those of a slave, and would be set. The other's are further in any case.
    let first = replicate(&nodes[0], &nodes[1]);
    wait_until("it has a slave", || {
        nodes[0].on_master("select count(*) from replica_slave where history is not null") == ["1"]
    });
    let daemons = [first, replicate(&nodes[1], &nodes[0])];
    for _ in 0..3 {
        nodes.iter().for_each(|node| node.run("insert into t default values"));
        wait_until("both are equal", || {
            let rows = |node: &Pair| node.on_master("select string_agg(id::text, ' ' order by id) from t");
            nodes.iter().all(|node| node.pending() == 0) && rows(&nodes[0]) == rows(&nodes[1])
        });
    }
    drop(daemons);
    assert_eq!(nodes[0].on_master(&place("s")), ["3t"]);
    assert_eq!(nodes[1].on_master(&place("s")), ["1000003t"]);
    let file = nodes[0].verb_by_file("doctor", &format!("DSN1={}", nodes[1].master_dsn), &["--json"]);
    assert_finds(&checks(&file), "note", "slave", "sequences", "the slave is a master for this master");
}

/// The second of two masters is set up while the first one's daemon runs, and has seen a slave that is no master.
#[test]
fn a_slave_that_becomes_a_master_keeps_its_sequences_from_then_on() {
    let nodes = [Pair::new(), Pair::new()];
    for node in &nodes {
        node.run("create sequence s; create sequence witness; create table t (id int primary key)");
        node.create_triggers();
    }
    let replicate = |from: &Pair, to: &Pair| from.start_with(&format!("DSN1={}\nSEQUENCES=1", to.master_dsn));
    let mut first = replicate(&nodes[0], &nodes[1]);
    nodes[0].run("select nextval('witness'); insert into t values (1)");
    wait_until("the slave's sequences follow", || nodes[1].on_master(&place("witness")) == ["1t"]);
    let _second = replicate(&nodes[1], &nodes[0]);
    wait_until("the slave is a master", || {
        nodes[1].on_master("select count(*) from replica_slave where history is not null") == ["1"]
    });
    nodes[0].run("select setval('s', 70); insert into t values (2)");
    first.wait_log("The slave is a master for this master: each keeps its own sequences");
    assert_eq!(nodes[1].on_master(&place("s")), ["1f"]);
}

/// What a slave that hands changes on gets, its own slave gets too.
#[test]
fn in_a_cascade_sequences_go_all_the_way() {
    let nodes = [Pair::new(), Pair::new(), Pair::new()];
    for node in &nodes {
        node.run("create table t (id serial primary key)");
        node.create_triggers();
    }
    nodes[1].run("alter table t enable always trigger \"!replica_tg\"");
    let replicate = |from: &Pair, to: &Pair| from.start_with(&format!("DSN1={}\nSEQUENCES=1", to.master_dsn));
    let _daemons = [replicate(&nodes[0], &nodes[1]), replicate(&nodes[1], &nodes[2])];
    wait_until("the sequences have gone all the way", || {
        nodes[0].run("insert into t default values");
        nodes[1..].iter().all(|node| node.on_master(&place("t_id_seq")) != ["1f"])
    });
}

/// A role that may replay but not set sequences: one warning, and everything else goes on.
#[test]
fn rights_that_are_missing_stop_nothing_and_are_named() {
    let mut pair = Pair::new();
    pair.exec_both("create table t (id serial primary key); create table u (id serial primary key)");
    pair.create_triggers();
    let role = format!("{}_daemon", pair.name);
    for mut client in [pair.master(), pair.slave()] {
        client
            .batch_execute(&format!("create role {role} login; grant all on all tables in schema public to {role}"))
            .unwrap();
    }
    pair.on_master(&format!("select py_log_grant('{role}')"));
    pair.run(&format!(
        "grant select on sequence t_id_seq to {role}; insert into t default values; insert into u default values"
    ));
    let dsns = [pair.master_dsn.clone(), pair.slave_dsn.clone()];
    for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
        *dsn = dsn.replace("user=postgres", &format!("user={role}"));
    }
    let mut daemon = follow(&pair);
    pair.wait_caught_up();
    daemon.wait_log("sequences that do not follow: public.u_id_seq: DSN0's role may not read it");
    daemon.wait_log("sequences that do not follow: public.t_id_seq: DSN1's role may not read and set it");
    pair.run("insert into t default values");
    pair.wait_caught_up();
    assert!(daemon.terminate().success());
    assert_eq!(daemon.log().matches("sequences that do not follow").count(), 2, "{}", daemon.log());
    let shown = status(&pair)["sequences"]["not_following"].clone();
    assert_eq!(shown.as_array().map(Vec::len), Some(2), "{shown}");
    let said = pair.verb_by_file("status", "", &[]).output;
    assert!(
        said.contains("sequences: 0 follow, 0 are behind; 1: DSN0's role may not read it (public.u_id_seq)"),
        "{said}"
    );
    for _ in 0..2 {
        for check in faults(&pair, "").iter().filter(|check| check.subject == "sequences") {
            assert!(!check.fixes.is_empty(), "{check:?}");
            let on_master = check.side == "master";
            check.fixes.iter().for_each(|fix| if on_master { pair.run(fix) } else { pair.run_on_slave(fix) });
        }
    }
    assert!(!faults(&pair, "").iter().any(|check| check.subject == "sequences"));
    pair.once();
    assert_same(&pair, &["t_id_seq", "u_id_seq"]);
    [pair.master_dsn, pair.slave_dsn] = dsns;
}

/// Somebody who alters a sequence holds it locked: the others follow meanwhile, and it follows afterwards.
#[test]
fn a_sequence_that_somebody_has_locked_holds_nobody_up() {
    let pair = Pair::new().with_a_table();
    pair.exec_both("create sequence locked; create sequence there; create sequence free");
    pair.run("select nextval('locked'), nextval('there'), nextval('free')");
    let (mut on_master, mut on_slave) = (pair.master(), pair.slave());
    on_master.batch_execute("begin; alter sequence locked cache 2").unwrap();
    on_slave.batch_execute("begin; alter sequence there cache 2").unwrap();
    let mut daemon = follow(&pair);
    pair.run("insert into t values (1)");
    wait_same(&pair, &["free"]);
    pair.wait_caught_up();
    on_master.batch_execute("rollback").unwrap();
    on_slave.batch_execute("rollback").unwrap();
    wait_same(&pair, &["locked", "there"]);
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("WARNING"), "{}", daemon.log());
}

/// The owner of a sequence on the master gives it the name of one that belongs to somebody else on the slave.
#[test]
fn a_tenant_does_not_move_the_sequence_of_another_role() {
    let pair = Pair::new().with_a_table();
    let (tenant, other) = (format!("{}_tenant", pair.name), format!("{}_other", pair.name));
    for mut client in [pair.master(), pair.slave()] {
        client
            .batch_execute(&format!(
                "create role {tenant}; create role {other}; create schema s; grant all on schema s to {tenant}, {other}"
            ))
            .unwrap();
    }
    let own = format!(
        "set session authorization {tenant}; create sequence s.own; create table s.rows (id serial primary key);
         create table s.decoy (id serial primary key)"
    );
    pair.exec_both(&own);
    pair.run_on_slave(&format!(
        "alter table s.rows owner to {other};
         set session authorization {other}; create sequence s.theirs; create table s.bait (id serial primary key)"
    ));
    pair.create_triggers_in("s");
    pair.run(&format!(
        "set session authorization {tenant}; create sequence s.theirs;
         alter table s.decoy rename to bait; alter sequence s.decoy_id_seq rename to bait_id_seq;
         select setval('s.theirs', 900), setval('s.own', 900), setval('s.bait_id_seq', 900), setval('s.rows_id_seq', 900)"
    ));
    pair.run("insert into t values (1)");
    let said = pair.once().output;
    assert!(said.contains("it belongs to another role on the slave"), "{said}");
    // The column of a replicated table, whoever has it on the slave.
    assert_same(&pair, &["s.own", "s.rows_id_seq"]);
    assert_eq!(pair.on_slave(&place("s.theirs")), ["1f"]);
    assert_eq!(pair.on_slave(&place("s.bait_id_seq")), ["1f"]);
    let found = faults(&pair, "");
    assert_finds(&found, "warning", "slave", "sequences", "belongs to another role");
    for mut client in [pair.master(), pair.slave()] {
        client.batch_execute(&format!("drop owned by {tenant}, {other} cascade; drop role {tenant}, {other}")).unwrap();
    }
}

#[test]
fn five_thousand_sequences_follow() {
    let pair = Pair::new().with_a_table();
    let create = "do $$ begin for i in 1..5000 loop execute format('create sequence s%s', i); if i % 1000 = 0 then commit; end if; end loop; end $$";
    let draw = "do $$ begin for i in 1..5000 loop perform nextval('s' || i); if i % 1000 = 0 then commit; end if; end loop; end $$";
    for mut client in [pair.master(), pair.slave()] {
        client.batch_execute(create).unwrap();
    }
    let mut daemon = follow(&pair);
    pair.master().batch_execute(draw).unwrap();
    pair.run("insert into t values (1)");
    let drawn = "select count(*) from pg_class c where relkind = 'S' and relname ~ '^s[0-9]+$' and oid::bigint % 10 = 0
                   and pg_sequence_last_value(oid) is null";
    wait_until("all have followed", || pair.on_slave(drawn) == ["0"]);
    assert!(daemon.terminate().success());
    assert_same(&pair, &["s1", "s2500", "s5000"]);
    assert!(!daemon.log().contains("WARNING"), "{}", daemon.log());
    assert_eq!(status(&pair)["sequences"]["following"], 5000);
}
