//! The master's database is restored in another cluster, whose transactions have other numbers: what the slaves have
//! replayed stays replayed, what waits for them goes out once and in its order, and nothing that is logged later is
//! swallowed because its number once meant something else.

use crate::harness::{self, Daemon, OwnCluster, Pair};
use postgres::Client;
use std::io::{Read, Write};

const TABLES: &str = "create table t (id int primary key, a text);
     create table counter (n int); insert into counter values (0)";

const COUNT: &str =
    "update counter set n = n + 1; insert into replica_log(sql) values ('UPDATE counter SET n = n + 1')";

/// Everything, in a form to compare.
const ALL: &str =
    "select md5(string_agg(t::text, ' ' order by id)) || count(*) || ' ' || (select n from counter) from t";

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

/// What pg_dump and psql do: rows by COPY, the sequence as it was, the triggers at last.
fn restore(from: &Pair, to: &Pair) {
    let (mut from, mut to) = (from.master(), to.master());
    run(&mut to, "create table t (id int primary key, a text); create table counter (n int)");
    run(&mut to, "select py_log_add_slave('slave2')");
    for table in ["replica_log", "replica_slave", "t", "counter"] {
        let mut rows = Vec::new();
        from.copy_out(&format!("copy {table} to stdout")).unwrap().read_to_end(&mut rows).unwrap();
        let mut sink = to.copy_in(&format!("copy {table} from stdin")).unwrap();
        sink.write_all(&rows).unwrap();
        sink.finish().unwrap();
    }
    for sequence in ["replica_log_id_seq", "replica_batch_seq"] {
        let last: i64 = from.query_one(&format!("select last_value from {sequence}"), &[]).unwrap().get(0);
        run(&mut to, &format!("select setval('{sequence}', {last})"));
    }
    run(&mut to, "select py_log_create_tg('t')");
}

/// Single-row transactions, each of which depends on the one before.
fn chain(client: &mut Client, tag: &str, count: u32) {
    run(
        client,
        &format!(
            "do $$ begin
                 for i in 1..{count} loop
                     update t set a = right(a, 100) || '{tag}' || i where id = 0;
                     commit;
                 end loop;
             end $$"
        ),
    );
}

#[test]
fn a_master_restored_in_another_cluster_goes_on_for_every_slave() {
    let (old, new) = (OwnCluster::start("master", "", &[]), OwnCluster::start("master", "", &[]));
    let (_, slaves) = harness::shared();
    let (before, after) = (Pair::on(old.server(), slaves), Pair::on(new.server(), slaves));
    before.exec_both(TABLES);
    after.run_on_slave(TABLES);
    before.run("select py_log_create_tg('t'), py_log_add_slave('slave2')");
    let (mut one, mut two) = (before.master(), before.master());
    run(&mut one, "insert into t values (0, '')");
    // Numbers that the new cluster is going to use for transactions of its own.
    chain(&mut one, "a", 400);
    before.once();
    run(&mut one, "do $$ begin for i in 1..4000 loop perform pg_current_xact_id(); commit; end loop; end $$");
    // Replayed in part by the first slave: 22,000 changes are two batches. Nothing of it by the second one.
    run(&mut two, &format!("begin; insert into t values (-1, 'two'); {COUNT}"));
    for part in 0..11 {
        run(&mut one, &format!("insert into t select {part} * 2000 + i, 'bulk' from generate_series(1, 2000) i"));
        chain(&mut one, "b", 10);
    }
    run(&mut two, "update t set a = a || 'two' where id = 0; commit");
    chain(&mut one, "c", 10);
    let config = before.config_file("DEBUG_LEVEL=1");
    let arguments = ["--once", config.to_str().unwrap()];
    let mut daemon =
        Daemon::spawn(&before.dir().join("dies.log"), &arguments, &[("PYREPLICA_PAUSE_AT", "master-committed")]);
    assert!(daemon.paused_or_exited());
    daemon.kill9();
    let pending = before.on_slave(ALL) != before.on_master(ALL);
    assert!(pending, "it died in its midst");

    restore(&before, &after);
    let mut master = after.master();
    chain(&mut master, "d", 600);
    run(&mut master, COUNT);
    let first = format!("DEBUG_LEVEL=1\nDSN1={}", before.slave_dsn);
    let finished = after.try_once_by_file(&first);
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(finished.count("The position of slave replicated is from another master"), 1, "{}", finished.output);
    assert_eq!(finished.count("The log comes from another cluster"), 1, "{}", finished.output);
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    assert_eq!(before.on_slave(ALL), after.on_master(ALL));

    chain(&mut master, "e", 20);
    let finished = after.try_once_by_file("DEBUG_LEVEL=1\nSLAVE_FIELD=slave2\nRETENTION=0");
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(finished.count("another master") + finished.count("another cluster"), 0, "{}", finished.output);
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    assert_eq!(after.on_slave(ALL), after.on_master(ALL));
    let finished = after.try_once_by_file(&format!("{first}\nRETENTION=0"));
    assert_eq!(finished.count("another master"), 0, "{}", finished.output);
    assert_eq!(before.on_slave(ALL), after.on_master(ALL));
    assert_eq!(after.on_master("select count(*) from replica_log"), ["0"]);
}

/// A copy within the cluster has the same numbers and another identity.
#[test]
fn a_copy_of_the_masters_database_goes_on_too() {
    let (before, after) = (Pair::new(), Pair::new());
    before.exec_both(TABLES);
    before.run("select py_log_create_tg('t')");
    let mut master = before.master();
    run(&mut master, &format!("insert into t values (0, ''); {COUNT}"));
    before.once();
    chain(&mut master, "a", 5);
    run(&mut master, COUNT);
    drop(master);
    let (name, copied) = (before.master_db(), after.master_db());
    let admin = || before.master_server().connect("postgres");
    run(&mut admin(), &format!("drop database \"{copied}\" with (force)"));
    run(&mut admin(), &format!("create database \"{copied}\" template \"{name}\""));
    chain(&mut after.master(), "b", 5);
    let finished = after.try_once_by_file(&format!("DSN1={}", before.slave_dsn));
    assert!(finished.status.success(), "{}", finished.output);
    assert_eq!(finished.count("The position of slave replicated is from another master"), 1, "{}", finished.output);
    assert_eq!(finished.count("The log comes from another cluster"), 0, "{}", finished.output);
    assert_eq!(before.on_slave(ALL), after.on_master(ALL));
}
