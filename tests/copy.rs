//! `pyreplica copy`: a slave is filled while the master works, and what comes later is replayed, nothing twice.

use crate::harness::copying::{copy, paused, try_copy};
use crate::harness::{OwnCluster, Pair, shared, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

/// Clients that go on changing the bank's tables until this is dropped.
struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    transactions: Arc<AtomicU32>,
}

const BANK: &str = "create table branch (id int primary key, balance int not null);
    create table account (id int primary key, branch int references branch, balance int not null, filler text);
    create table history (id bigserial primary key, account int references account, delta int, at timestamptz default now())";

impl Load {
    fn start(pair: &Pair) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let transactions = Arc::new(AtomicU32::new(0));
        let clients = (0..3).map(|number| {
            let mut client = pair.master();
            let (is_over, transactions) = (is_over.clone(), transactions.clone());
            thread::spawn(move || {
                for turn in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    let account = (turn * 37 + number * 11) % 2000 + 1;
                    let sql = format!(
                        "update account set balance = balance + 1 where id = {account};
                         update branch set balance = balance + 1 where id = {account} % 5 + 1;
                         insert into history (account, delta) values ({account}, {turn});
                         delete from history where id % 7 = {number} and id < currval('history_id_seq') - 50"
                    );
                    client.batch_execute(&sql).expect("the load runs");
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect();
        let load = Load { is_over, clients, transactions };
        load.go_on();
        load
    }

    /// Waits until some more transactions have been committed.
    fn go_on(&self) {
        let before = self.transactions.load(Ordering::Relaxed);
        wait_until("the load goes on", || self.transactions.load(Ordering::Relaxed) > before + 20);
    }

    fn stop(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| client.join().expect("the load runs"));
    }
}

/// A bank, filled on the master only.
fn bank(pair: Pair) -> Pair {
    pair.exec_both(BANK);
    pair.run(
        "insert into branch select i, 0 from generate_series(1, 5) i;
         insert into account select i, i % 5 + 1, 0, repeat('x', i % 300) from generate_series(1, 2000) i",
    );
    pair.create_triggers();
    pair
}

/// Everything later is replayed, and nothing that was copied already: an INSERT would fail, an UPDATE or DELETE warn.
#[track_caller]
fn assert_catches_up(pair: &Pair) {
    let finished = pair.once();
    assert_eq!(finished.count("onflict"), 0, "{}", finished.output);
    pair.assert_equal();
    pair.assert_no_prepared();
    assert_eq!(pair.pending(), 0);
}

#[test]
fn a_slave_is_filled_under_load_and_every_change_reaches_it_once() {
    let pair = bank(Pair::new());
    let load = Load::start(&pair);
    // Open and prepared when the snapshot is taken, committed later.
    let mut open = pair.master();
    open.batch_execute("begin; insert into branch values (100, 1)").unwrap();
    pair.run(&format!("begin; insert into branch values (101, 1); prepare transaction '{}'", pair.name));
    let mut waiting = paused(&pair, &["--jobs", "2"], "copy-registered");
    load.go_on();
    open.batch_execute("commit").unwrap();
    pair.run(&format!("commit prepared '{}'", pair.name));
    load.go_on();
    waiting.resume();
    assert!(waiting.wait_exit().success(), "{}", waiting.log());
    assert!(!pair.on_slave("select id from branch").contains(&"100".to_string()));
    load.go_on();
    load.stop();
    assert_catches_up(&pair);
    assert_eq!(pair.on_slave("select count(*) from branch where id in (100, 101)"), ["2"]);
    assert_eq!(pair.on_slave("select count(*) from replica_copy"), ["0"]);
}

/// At each step, and with the load going on all the time.
#[test]
fn a_copy_that_is_killed_anywhere_goes_on_where_it_was() {
    let pair = bank(Pair::new());
    let steps = ["copy-registered", "copy-loading:2", "copy-noted:3", "copy-table:2", "copy-loaded", "copy-positioned"];
    for step in steps {
        eprintln!("-- at {step}");
        let load = Load::start(&pair);
        let mut dying = paused(&pair, &["--restart", "--truncate"], step);
        load.go_on();
        dying.kill9();
        // Until it is finished no daemon replays into half of the tables.
        let refused = pair.try_once();
        assert_eq!(refused.code(), 5, "{}", refused.output);
        assert!(refused.output.contains("a copy to this slave is unfinished"), "{}", refused.output);
        load.go_on();
        let again = copy(&pair, &[]);
        let is_first = step == "copy-registered";
        assert_eq!(again.output.contains("by a former run"), !is_first, "{step}: {}", again.output);
        load.go_on();
        load.stop();
        assert_catches_up(&pair);
    }
    // What was copied from a later snapshot than the position is passed over as long as necessary, and no longer.
    pair.once();
    assert_eq!(pair.on_slave("select count(*) from replica_copy"), ["0"]);
}

/// The others' changes go on arriving; those of the table are put aside, and what the copy has brought of them is dropped.
#[test]
fn a_table_is_copied_again_while_the_daemon_replicates_and_is_killed_anywhere() {
    let pair = bank(Pair::new());
    copy(&pair, &["--jobs", "3"]);
    let mut daemon = pair.start_with("DEBUG_LEVEL=1");
    // It is there once this has come.
    pair.run("update branch set balance = balance + 1");
    pair.wait_caught_up();
    let load = Load::start(&pair);
    let wishes: &[&str] = &["--table", "history", "--table", "public.account", "--truncate"];
    for step in ["copy-held", "copy-loading", "copy-noted:2", "copy-loaded", "release-committed:4"] {
        eprintln!("-- at {step}");
        // A row that only the slave has, and that nobody else touches.
        pair.run_on_slave("insert into account values (100000, 1, 0, 'wrong') on conflict do nothing");
        let mut dying = paused(&pair, wishes, step);
        load.go_on();
        let branches = pair.on_slave("select sum(balance) from branch");
        wait_until("other tables go on", || pair.on_slave("select sum(balance) from branch") != branches);
        dying.kill9();
        load.go_on();
        let again = copy(&pair, wishes);
        assert!(again.output.contains("the daemon goes on with them"), "{}", again.output);
    }
    // A daemon that is started in the midst of it goes by what is held, too.
    let mut waiting = paused(&pair, wishes, "copy-loading");
    assert!(daemon.terminate().success());
    load.go_on();
    let daemon = pair.start_with("DEBUG_LEVEL=1");
    waiting.resume();
    assert!(waiting.wait_exit().success(), "{}", waiting.log());
    load.stop();
    pair.wait_caught_up();
    assert_eq!(daemon.log().matches("onflict").count(), 0, "{}", daemon.log());
    pair.assert_equal();
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"]);
    assert_eq!(pair.on_slave("select count(*) from replica_hold"), ["0"]);
}

#[test]
fn a_copy_whose_slave_stops_goes_on_afterwards() {
    let mut slave = OwnCluster::start("slave", "", &[]);
    let pair = bank(Pair::on(shared().0, slave.server()));
    let mut copying = paused(&pair, &["--jobs", "2"], "copy-loading:2");
    slave.stop_immediate();
    copying.resume();
    assert_eq!(copying.wait_exit().code(), Some(5), "{}", copying.log());
    slave.start_again();
    pair.run("update account set balance = 7 where id < 10");
    copy(&pair, &["--jobs", "2"]);
    assert_catches_up(&pair);
}

#[test]
fn tables_of_every_kind_arrive_as_they_are() {
    let pair = Pair::new();
    pair.exec_both(
        r#"create schema "Odd ""Schema""";
         create table "Odd ""Schema"""."it's a ""table""" ("primary" int primary key, "Größe" text, "a b" numeric);
         create table identity (id int generated always as identity primary key, a int,
                                doubled int generated always as (a * 2) stored);
         create table parts (id int, at date, note text, primary key (id, at)) partition by range (at);
         create table parts_old partition of parts for values from (minvalue) to ('2020-01-01');
         create table chicken (id int primary key, egg int);
         create table egg (id int primary key, chicken int references chicken);
         alter table chicken add foreign key (egg) references egg;
         create type mood as enum ('sad', 'ok');
         create table kinds (id int primary key, m mood, ms mood[], ts timestamptz, iv interval, f float8, fs float4[],
                             j jsonb, b bytea, n numeric(30, 10), r int4range, x xml, u uuid, bits bit(5), c "char");
         create table wide (id int primary key, t text, b bytea);
         create table empty (id int primary key);
         create sequence loose; create sequence backwards increment -1"#,
    );
    // Each side divides its table as it likes.
    pair.run("create table parts_new partition of parts for values from ('2020-01-01') to (maxvalue)");
    pair.run_on_slave("create table parts_rest partition of parts default");
    pair.run(
        r#"insert into "Odd ""Schema"""."it's a ""table""" values (1, e'tab\there\\ and\nthere', 1.50), (2, null, 'NaN');
         insert into identity (a) select i from generate_series(1, 100) i; delete from identity where id > 90;
         insert into parts select i, date '2019-12-01' + i, 'n' from generate_series(1, 60) i;
         begin; alter table chicken disable trigger all; insert into chicken values (1, 1);
         alter table chicken enable trigger all; insert into egg values (1, 1); commit;
         insert into kinds values (1, 'ok', '{sad,null}', '2024-02-29 12:00+02', '1 mon -1 day', 0.1::float8 + 0.2, '{0.1}',
             '{"a": [1, null]}', '\x00ff', 1.5, '[1,5)', '<a/>', gen_random_uuid(), '10101', 'c');
         insert into kinds values (2);
         insert into wide select 1, repeat('wide ', 2000000), decode(repeat('00ff5c0a', 2000000), 'hex');
         select nextval('loose') from generate_series(1, 42); select nextval('backwards')"#,
    );
    pair.create_triggers();
    pair.run("select py_log_create_tg('parts')");
    let said = copy(&pair, &["--jobs", "4"]);
    assert!(said.output.contains("copied 8 tables") && said.output.contains("3 sequences"), "{}", said.output);
    for table in
        [r#""Odd ""Schema"""."it's a ""table""""#, "identity", "parts", "chicken", "egg", "kinds", "wide", "empty"]
    {
        let rows = format!("select md5(string_agg(x::text, ' ' order by x::text collate \"C\")) from {table} x");
        assert_eq!(pair.on_slave(&rows), pair.on_master(&rows), "{table}");
    }
    assert_eq!(pair.on_slave("select nextval('loose')"), ["43"]);
    assert_eq!(pair.on_slave("select nextval('backwards')"), ["-2"]);
    pair.run_on_slave("insert into identity (a) values (1)");
    assert_eq!(pair.on_slave("select max(id) from identity"), ["101"]);
}

/// Without the first session's locks a table may look empty to the snapshot, since it has been rewritten.
#[test]
fn a_copy_does_not_go_on_without_the_session_that_keeps_the_tables() {
    let pair = Pair::new();
    let tables: Vec<String> = (1..=6).map(|n| format!("t{n}")).collect();
    for table in &tables {
        pair.exec_both(&format!("create table {table} (id int primary key, n int)"));
        pair.run(&format!("insert into {table} select i, i from generate_series(1, 2000) i"));
    }
    pair.create_triggers();
    let mut copying = paused(&pair, &["--jobs", "2"], "copy-loading");
    pair.run(
        "select pg_terminate_backend(pid) from pg_locks where relation = 't6'::regclass and mode = 'AccessShareLock'
            and database = (select oid from pg_database where datname = current_database())",
    );
    for table in &tables {
        // One that is being read by the other session is still locked by that.
        let rewrite = format!("set lock_timeout = '100ms'; alter table {table} alter n type bigint");
        let _ = pair.master().batch_execute(&rewrite);
    }
    copying.resume();
    assert!(!copying.wait_exit().success(), "{}", copying.log());
    copy(&pair, &["--jobs", "2"]);
    pair.once();
    pair.assert_equal();
}

/// The numbers that a crash of the master brings back are in the snapshot that the table was copied with.
#[test]
fn changes_after_a_crash_of_the_master_are_not_taken_for_copied() {
    let mut master = OwnCluster::start("master", "wal_writer_delay = 10s", &[]);
    let pair = Pair::on(master.server(), shared().1);
    pair.exec_both("create table t (id int primary key, a text)");
    pair.create_triggers();
    pair.run("insert into t values (1, '')");
    let _daemon = pair.start();
    pair.wait_caught_up();
    let mut client = pair.master();
    for _ in 0..200 {
        client.batch_execute("begin; select pg_current_xact_id(); rollback").unwrap();
    }
    drop(client);
    copy(&pair, &["--table", "t", "--truncate"]);
    master.stop_immediate();
    master.start_again();
    for n in 2..30 {
        pair.run(&format!("insert into t values ({n}, 'after')"));
    }
    pair.wait_caught_up();
    pair.assert_equal();
}

#[test]
fn from_two_servers_to_verified_replication_it_takes_three_commands() {
    let pair = Pair::new();
    pair.run(include_str!("../sql/master-uninstall.sql"));
    assert_eq!(try_copy(&pair, &[]).code(), 4);
    pair.run(BANK);
    pair.run("insert into branch values (1, 10); insert into account select i, 1, i from generate_series(1, 100) i");
    let copied = copy(&pair, &["--install", "--schema"]);
    assert!(copied.output.contains("created trigger on account (id)"), "{}", copied.output);
    let _daemon = pair.start();
    pair.run("update account set balance = 0 where id = 7");
    let compared = pair.verb(&["compare"]);
    assert_eq!(compared.code(), 0, "{}", compared.output);
    assert_eq!(pair.on_slave("select count(*) from account"), ["100"]);
}

/// A part that was committed before a crash would be there twice otherwise.
#[test]
fn a_large_table_is_loaded_in_parts_that_are_killed_anywhere() {
    let pair = Pair::new();
    if pair.master_server().major_version() < 14 {
        return;
    }
    pair.exec_both("create table t (id int primary key, n int, filler text); create table u (id int primary key)");
    pair.create_triggers();
    pair.run(
        "insert into t select i, i, repeat('x', 1000) from generate_series(1, 50000) i; insert into u values (1);
         delete from t where id % 10 = 0; update t set n = -n where id % 100 = 1",
    );
    for step in ["copy-part", "copy-part:3"] {
        let mut dying = paused(&pair, &["--jobs", "2", "--restart", "--truncate"], step);
        pair.run("update t set n = n + 1 where id in (1, 49999); insert into t select max(id) + 1, 0, '' from t");
        dying.kill9();
        let again = copy(&pair, &["--jobs", "2"]);
        assert!(again.output.contains("public.t: 45,00"), "{}", again.output);
        assert_catches_up(&pair);
    }
    let parts = copy(&pair, &["--jobs", "3", "--truncate"]);
    assert!(parts.output.contains("public.t: 45,002 rows"), "{}", parts.output);
    assert_catches_up(&pair);
}
