//! Anybody who can log in may take any advisory lock. So none of them keeps a daemon out, is taken for one, or is waited for.

use crate::harness::looking::status;
use crate::harness::{Daemon, Pair, assert_says, wait_until};
use postgres::Client;

/// The numbers that pyreplica uses, or used once: with 0, with the hash of the slave's column, and with what a pair is called.
const LOCKS: &str = "select pg_advisory_lock(class, object) from generate_series(1887007331, 1887007337) class, \
     unnest(array[0, hashtext('replicated')]) object";

/// A role without any right, on both servers; it goes with this.
struct Tenant<'a> {
    pair: &'a Pair,
    name: String,
}

impl Tenant<'_> {
    fn of(pair: &Pair) -> Tenant<'_> {
        let name = format!("{}_tenant", &pair.name);
        pair.exec_both(&format!("create role \"{name}\" login"));
        Tenant { pair, name }
    }

    fn on_master(&self) -> Client {
        self.pair.master_server().connect_as(&self.pair.master_db(), &self.name)
    }

    fn on_slave(&self) -> Client {
        self.pair.slave_server().connect_as(&self.pair.slave_db(), &self.name)
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        self.pair.exec_both(&format!("drop role \"{}\"", self.name));
    }
}

#[test]
fn whoever_holds_our_locks_keeps_no_daemon_out_and_is_taken_for_none() {
    let pair = Pair::new().with_a_table();
    let tenant = Tenant::of(&pair);
    for shared in ["", "_shared"] {
        let mut holder = tenant.on_master();
        holder.batch_execute(&LOCKS.replace("_lock", &format!("_lock{shared}"))).unwrap();
        // What belongs to the column by its number, as a daemon's lock does.
        holder
            .batch_execute(
                "select pg_advisory_lock(class, (attnum::int << 20) | n) from generate_series(1887007331, 1887007333, 2) class, \
                 generate_series(0, 1000) n, pg_attribute where attrelid = 'replica_log'::regclass and attname = 'replicated'",
            )
            .unwrap();
        let before = status(&pair);
        assert_eq!((&before["daemon_connected"], &before["state"]), (&false.into(), &"stopped".into()), "{before:#}");
        pair.run("insert into t select coalesce(max(id), 0) + 1, 'a' from t");
        pair.once();
        pair.assert_equal();
        assert_says(&pair.verb(&["doctor"]).output, &["no daemon replicates this pair now"]);
        pair.done(&["compare"]);
        let daemon = pair.start();
        pair.run("insert into t select max(id) + 1, 'b' from t");
        pair.wait_caught_up();
        assert_eq!(status(&pair)["daemon_connected"], true);
        assert_eq!(pair.try_once().code(), 7, "two daemons of one slave");
        drop(daemon);
    }
    assert_says(&pair.done(&["copy", "--table", "t", "--truncate"]), &["copied 1 table"]);
}

/// The number is in pg_locks for everybody to see. Who waits for it gets it when the daemon ends.
#[test]
fn whoever_inherits_a_daemons_lock_keeps_the_next_one_out_no_more() {
    let pair = Pair::new().with_a_table();
    let tenant = Tenant::of(&pair);
    let mut daemon = pair.start();
    wait_until("the daemon is connected", || status(&pair)["daemon_connected"] == true);
    let mut watcher = tenant.on_master();
    let numbers = "select classid::int, objid::bigint::int from pg_locks where locktype = 'advisory' and classid = 1887007333 \
                   and database = (select oid from pg_database where datname = current_database())";
    let row = watcher.query_one(numbers, &[]).unwrap();
    let (class, object): (i32, i32) = (row.get(0), row.get(1));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            watcher.batch_execute(&format!("select pg_advisory_lock({class}, {object})")).unwrap();
            watcher
        });
        daemon.kill9();
        let _watcher = waiting.join().unwrap();
        assert_eq!(status(&pair)["daemon_connected"], false);
        pair.run("insert into t values (1, 'a')");
        pair.once();
        pair.assert_equal();
    });
}

#[test]
fn of_daemons_that_start_at_once_one_replicates() {
    let pair = Pair::new().with_a_table();
    let tenant = Tenant::of(&pair);
    let mut holder = tenant.on_master();
    holder.batch_execute(LOCKS).unwrap();
    pair.run("insert into t values (1, 'a')");
    let spawn = |n: i32| {
        let (log, words) = (pair.dir().join(format!("at-once-{n}.log")), ["--once", &pair.master_dsn, &pair.slave_dsn]);
        Daemon::spawn(&log, &words, &[("PYREPLICA_PAUSE_AT", "begun")])
    };
    let mut daemons: Vec<Daemon> = (0..5).map(spawn).collect();
    let mut paused: Vec<Daemon> = Vec::new();
    for mut daemon in daemons.drain(..) {
        match daemon.paused_or_exited() {
            true => paused.push(daemon),
            false => assert_eq!(daemon.wait_exit().code(), Some(7), "{}", daemon.log()),
        }
    }
    assert_eq!(paused.len(), 1);
    paused[0].resume();
    assert!(paused[0].wait_exit().success(), "{}", paused[0].log());
    pair.assert_equal();
}

/// In doubt since the crash, the batch holds the slave's row in replica_slave.
#[test]
fn a_batch_in_doubt_is_settled_whatever_locks_others_hold() {
    let pair = Pair::new().with_a_table();
    let tenant = Tenant::of(&pair);
    let mut holder = tenant.on_master();
    holder.batch_execute(LOCKS).unwrap();
    pair.run("insert into t values (1, 'a')");
    let mut daemon = pair.start_paused_at("prepared");
    daemon.wait_paused();
    daemon.kill9();
    wait_until("the server notices", || status(&pair)["daemon_connected"] == false);
    let said = pair.once().output;
    assert_says(&said, &["Recovering batch"]);
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn rows_are_deleted_and_held_changes_are_replayed_whatever_locks_others_hold() {
    let pair = Pair::new().with_a_table();
    let tenant = Tenant::of(&pair);
    let (mut here, mut there) = (tenant.on_master(), tenant.on_slave());
    here.batch_execute(LOCKS).unwrap();
    there.batch_execute(LOCKS).unwrap();
    pair.run("insert into t values (1, 'a')");
    pair.once();
    // By the name that the slave's tables have of the pair.
    let keys = pair.on_slave("select hashtext(master) from replica_progress");
    for key in keys {
        there.batch_execute(&format!("select pg_advisory_lock(1887007336, {key})")).unwrap();
    }
    pair.done(&["pause", "--table", "t"]);
    pair.run("insert into t values (2, 'b'), (3, 'c')");
    pair.once();
    let began = std::time::Instant::now();
    pair.done(&["resume", "--table", "t"]);
    pair.drain_with("RETENTION=0\n");
    assert_eq!(pair.on_master("select count(*) from replica_log"), ["0"]);
    pair.assert_equal();
    assert!(began.elapsed().as_secs() < 60);
}

/// The log was restored into another cluster, as far as the positions tell; then a slave comes back with an older state.
#[test]
fn positions_are_made_new_and_slaves_go_back_whatever_locks_others_hold() {
    let pair = Pair::new().with_a_table();
    let tenant = Tenant::of(&pair);
    let mut holder = tenant.on_master();
    holder.batch_execute(LOCKS).unwrap();
    pair.run("insert into t values (1, 'a')");
    pair.once();
    pair.run("update replica_slave set identity = 'elsewhere/1'");
    pair.run("insert into t values (2, 'b')");
    assert_says(&pair.once().output, &["is from another master database"]);
    let row = "create table was as select * from replica_progress";
    pair.run_on_slave(row);
    pair.run("insert into t values (3, 'c')");
    pair.once();
    pair.run_on_slave("delete from replica_progress; insert into replica_progress select * from was; drop table was; delete from t where id = 3");
    assert_says(&pair.once().output, &["The slave is behind"]);
    pair.assert_equal();
}
