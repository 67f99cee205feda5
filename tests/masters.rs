//! Several masters: both directions at once, rings and cascades. No loop, no lost change, no failed PREPARE.

use crate::harness::{Daemon, Pair, wait_until};
use std::thread;

const TABLE: &str = "create table t (id int primary key, a text)";

/// Databases that are masters and slaves of each other; each is the master database of a pair.
fn nodes(count: usize) -> Vec<Pair> {
    let nodes: Vec<Pair> = (0..count).map(|_| Pair::new()).collect();
    for node in &nodes {
        node.run(TABLE);
        node.create_triggers();
    }
    nodes
}

/// A daemon that replicates from one node to another.
fn replicate(from: &Pair, to: &Pair, more: &str) -> Daemon {
    from.start_with(&format!("DSN1={}\nTIMEOUT=3600\n{more}", to.master_dsn))
}

fn rows(node: &Pair) -> Vec<String> {
    node.on_master("select coalesce(string_agg(t::text, ' ' order by id), '') from t")
}

fn settled(nodes: &[Pair]) -> bool {
    nodes.iter().all(|node| node.pending() == 0) && nodes.windows(2).all(|two| rows(&two[0]) == rows(&two[1]))
}

/// Writes on every node at once, each in its own range of keys.
fn write_everywhere(nodes: &[Pair]) {
    thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..40 {
                    let id = number * 1000 + round;
                    node.run(&format!(
                        "insert into t values ({id}, 'new'); update t set a = 'old' where id = {id} - 1"
                    ));
                }
                node.run(&format!("delete from t where id = {}", number * 1000));
            });
        }
    });
}

fn assert_healthy(daemons: &[Daemon]) {
    for daemon in daemons {
        let log = daemon.log();
        assert!(!log.contains("conflict") && !log.contains("ERROR"), "{log}");
    }
}

#[test]
fn two_masters_that_write_at_the_same_time_end_equal() {
    let nodes = nodes(2);
    let daemons = [replicate(&nodes[0], &nodes[1], ""), replicate(&nodes[1], &nodes[0], "")];
    write_everywhere(&nodes);
    wait_until("both masters are equal", || settled(&nodes));
    assert_healthy(&daemons);
}

/// As in the original: the daemons are a user of their own, and what that user changes is not sent back.
#[test]
fn skip_user_keeps_changes_from_going_back() {
    let nodes = nodes(2);
    for node in &nodes {
        // Triggers run for replayed changes too: only SKIP_USER, or the origin, stops them.
        node.run("alter table t enable always trigger \"!replica_tg\"");
    }
    let skip = "SKIP_USER=postgres";
    let daemons = [replicate(&nodes[0], &nodes[1], skip), replicate(&nodes[1], &nodes[0], "")];
    nodes[0].run("insert into t values (1, 'by the user that is skipped')");
    nodes[1].run("insert into t values (2, 'by the same user, where nobody is skipped')");
    wait_until("the second master's row arrives", || rows(&nodes[0]).concat().contains("nobody"));
    wait_until("everything is marked", || nodes.iter().all(|node| node.pending() == 0));
    assert!(!rows(&nodes[1]).concat().contains("skipped)"), "{:?}", rows(&nodes[1]));
    assert_eq!(nodes[1].on_master("select count(*) from t"), ["1"]);
    assert_healthy(&daemons);
}

#[test]
fn in_a_ring_of_three_every_change_goes_round_once() {
    let nodes = nodes(3);
    for node in &nodes {
        node.run("alter table t enable always trigger \"!replica_tg\"");
    }
    let daemons = [0, 1, 2].map(|n| replicate(&nodes[n], &nodes[(n + 1) % 3], ""));
    write_everywhere(&nodes);
    wait_until("the ring is equal", || settled(&nodes));
    // Many at once, on a table whose changes are replayed one by one because something watches them.
    for node in &nodes {
        node.run(
            "create function watch() returns trigger language plpgsql as 'begin return null; end';
             create trigger watch after insert on t for each row execute function watch();
             alter table t enable always trigger watch",
        );
    }
    nodes[0].run("insert into t select n, 'all round' from generate_series(100001, 100100) n");
    wait_until("the ring is equal", || settled(&nodes) && rows(&nodes[2]).concat().contains("100100"));
    assert_healthy(&daemons);
}

#[test]
fn in_a_mesh_of_three_every_master_sends_its_own_changes() {
    let nodes = nodes(3);
    for node in &nodes {
        node.run("select py_log_add_slave('slave2')");
    }
    let mut daemons = Vec::new();
    for (from, (to, other)) in [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))] {
        daemons.push(replicate(&nodes[from], &nodes[to], ""));
        daemons.push(replicate(&nodes[from], &nodes[other], "SLAVE_FIELD=slave2"));
    }
    write_everywhere(&nodes);
    wait_until("the mesh is equal", || {
        settled(&nodes)
            && nodes.iter().all(|n| n.on_master("select count(*) from replica_log where not slave2") == ["0"])
    });
    assert_healthy(&daemons);
}

#[test]
fn a_cascade_hands_changes_on() {
    let nodes = nodes(3);
    nodes[1].run("alter table t enable always trigger \"!replica_tg\", enable always trigger \"!replica_truncate_tg\"");
    let daemons = [replicate(&nodes[0], &nodes[1], ""), replicate(&nodes[1], &nodes[2], "")];
    nodes[0]
        .run("insert into t values (1, 'x'), (2, 'y'); update t set a = 'z' where id = 1; delete from t where id = 2");
    wait_until("the cascade is equal", || settled(&nodes) && rows(&nodes[2]) == ["(1,z)"]);
    nodes[0].run("truncate t");
    wait_until("the cascade is empty", || settled(&nodes) && rows(&nodes[2]) == [""]);
    // Installing again, as an upgrade does, keeps the trigger as it was.
    nodes[1].create_triggers();
    nodes[0].run("insert into t values (3, 'again')");
    wait_until("the cascade still works", || settled(&nodes) && rows(&nodes[2]) == ["(3,again)"]);
    assert_healthy(&daemons);
}

#[test]
fn interleaved_sequences_never_give_out_the_same_number() {
    let pair = Pair::new();
    pair.run("create sequence s; create table i (id int generated always as identity primary key, a int)");
    pair.run("select nextval('s') from generate_series(1, 10)");
    assert_eq!(pair.on_master("select py_log_interleave('s', 2, 3)"), ["11"]);
    assert_eq!(pair.on_master("select string_agg(nextval('s')::text, ' ') from generate_series(1, 3)"), ["11 14 17"]);
    assert_eq!(pair.on_master("select py_log_interleave('s', 3, 3)"), ["18"]);
    assert_eq!(pair.on_master("select py_log_interleave(pg_get_serial_sequence('i', 'id'), 1, 2)"), ["3"]);
    assert!(pair.master().batch_execute("select py_log_interleave('s', 4, 3)").is_err());
}

#[test]
fn polling_needs_no_notification() {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    pair.run(&format!("alter database \"{}\" set pyreplica.notify = off", pair.master_db()));
    let mut daemon = pair.start_with("POLL=1\nTIMEOUT=3600");
    daemon.wait_log("Encoding for this connections");
    pair.run("insert into t values (1, 'polled')");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_eq!(pair.on_master("select count(*) from pg_stat_activity where application_name ~ ' listener$' and datname = current_database()"), ["0"]);
}
