//! Rows that come or go without being logged, and who says so: a crash empties unlogged tables, and a table may have rows when
//! it is attached as a partition.

use crate::harness::looking::{assert_finds, faults};
use crate::harness::{OwnCluster, Pair, wait_until};

#[test]
fn unlogged_tables_are_named_when_they_get_the_trigger_by_doctor_and_after_a_crash() {
    let (mut master, mut slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    let pair = Pair::on(master.server(), slave.server());
    pair.exec_both(
        "create unlogged table u (id int primary key); create table t (id int primary key);
         create table p (id int primary key) partition by range (id);
         create unlogged table p1 partition of p for values from (0) to (100)",
    );
    let told = pair.create_triggers();
    assert!(told.iter().any(|line| line.starts_with("created trigger on u (id); it is unlogged: a crash")), "{told:?}");
    assert!(told.contains(&"created trigger on t (id)".to_string()), "{told:?}");
    pair.run("select py_log_create_tg('p'); insert into u values (1), (2); insert into t values (1); insert into p values (5)");
    pair.once();
    let found = faults(&pair, "");
    for side in ["master", "slave"] {
        assert_finds(&found, "warning", side, "unlogged tables", "public.u is unlogged");
        assert_finds(&found, "warning", side, "unlogged tables", "public.p1 is unlogged");
    }
    assert!(!found.iter().any(|check| check.text.contains("public.t is unlogged")), "{found:#?}");

    // A restart that is no crash empties nothing.
    master.stop_fast();
    master.start_again();
    assert_eq!(pair.once().count("is unlogged"), 0);
    master.stop_immediate();
    master.start_again();
    let finished = pair.once();
    for table in ["public.u", "public.p"] {
        let said = format!("{table} is unlogged, and empty on the master, which was restarted at");
        assert_eq!(finished.count(&said), 1, "{}", finished.output);
    }
    pair.run("insert into t values (2); insert into u values (3); insert into p values (6)");
    pair.once();
    slave.stop_immediate();
    slave.start_again();
    let finished = pair.once();
    assert_eq!(finished.count("public.u is unlogged, and empty on the slave"), 1, "{}", finished.output);
    assert_eq!(pair.verb(&["repair"]).code(), 0);
    pair.assert_equal();
}

/// Symptom: the daemon called a table empty that its role may not read. What such a role can see is the size of the table's files.
#[test]
fn a_table_that_the_daemon_may_not_read_is_called_empty_only_after_a_crash() {
    let (mut master, slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    let mut pair = Pair::on(master.server(), slave.server());
    pair.exec_both("create unlogged table u (id int primary key); create unlogged table none (id int primary key)");
    pair.create_triggers();
    pair.run("create role watcher login; select py_log_grant('watcher'); insert into u values (1), (2)");
    pair.master_dsn = pair.master_dsn.replace("user=postgres", "user=watcher");
    pair.once();
    master.stop_fast();
    master.start_again();
    assert_eq!(pair.once().count("is unlogged"), 0);
    master.stop_immediate();
    master.start_again();
    let finished = pair.once();
    assert_eq!(finished.count("public.u is unlogged, and empty on the master"), 1, "{}", finished.output);
    assert_eq!(finished.count("is unlogged"), 1, "{}", finished.output);
}

/// Symptom: the slave lacked the rows of a table that was attached as a partition, and nothing said so.
#[test]
fn a_table_that_was_attached_with_rows_in_it_is_named() {
    let pair = Pair::new();
    pair.exec_both(
        "create table r (id int, d int, primary key (id, d)) partition by range (d);
         create table own partition of r for values from (0) to (10);
         create table filled (id int not null, d int not null, primary key (id, d));
         create table empty (id int not null, d int not null, primary key (id, d))",
    );
    pair.run("insert into filled values (1, 15); select py_log_create_tg('r')");
    pair.run(
        "alter table r attach partition filled for values from (10) to (20);
         alter table r attach partition empty for values from (20) to (30);
         insert into r values (1, 5), (2, 16), (3, 25)",
    );
    let mut daemon = pair.start();
    pair.run_on_slave("alter table r attach partition filled for values from (10) to (30)");
    wait_until("the logged rows arrive", || pair.on_slave("select count(*) from r") == ["3"]);
    daemon
        .wait_log("WARNING: master: public.filled had rows when it was attached to public.r: they are not in the log");
    assert!(!daemon.log().contains("public.empty") && !daemon.log().contains("public.own"), "{}", daemon.log());
    let found = faults(&pair, "");
    assert_finds(
        &found,
        "warning",
        "master",
        "attached partitions",
        "public.filled had rows when it was attached to public.r",
    );
    assert_eq!(found.iter().filter(|check| check.subject == "attached partitions").count(), 1, "{found:#?}");
    assert_eq!(pair.verb(&["compare"]).code(), 9);
    assert_eq!(pair.verb(&["repair", "--table", "r"]).code(), 0);
    pair.run("select py_log_create_tg('r')");
    assert!(!faults(&pair, "").iter().any(|check| check.subject == "attached partitions"));
}

#[test]
fn what_is_never_replicated_is_counted() {
    let pair = Pair::new().with_a_table();
    pair.run(
        "create materialized view v as select * from t; create materialized view w as select 1; select lo_create(0)",
    );
    let told = pair.verb(&["doctor"]).output;
    let counted = "these are not replicated: 2 materialized views, 1 large objects";
    assert!(told.contains(counted), "{told}");
}
