//! A few changes that come alone, to a daemon that knows their tables: one message to each server, at the same time, with two-phase
//! commit and without it. Whatever is unusual, and no matter who dies meanwhile, it comes out as it does the ordinary way.

use crate::harness::{Daemon, OwnCluster, Pair, wait_until};
use postgres::Client;

const SCHEMA: &str = "create table t (id int primary key, n int, note text);
     create table other (id int primary key, n int unique deferrable initially deferred);
     create table counted (id int primary key, serial int generated always as identity, n int)";

/// With and without two-phase commit: every step that such a batch comes to. The first batch of a daemon is none: the tables are not
/// known yet.
const WAYS: [(&str, [&str; 4]); 2] = [
    (TRACE, ["begun:2", "prepared:2", "slave-committed:2", "master-committed:2"]),
    (ONE_PHASE, ["begun:2", "noted:2", "slave-committed:2", "master-committed:2"]),
];

/// Sessions that have a transaction open.
const OPEN: &str = "select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle' \
     and pid <> pg_backend_pid()";

const TRACE: &str = "DEBUG_LEVEL=3";
const ONE_PHASE: &str = "DEBUG_LEVEL=3\nTWO_PHASE=false";

fn with_tables(pair: Pair) -> Pair {
    pair.exec_both(SCHEMA);
    pair.create_triggers();
    pair
}

fn pair() -> Pair {
    with_tables(Pair::new())
}

/// A daemon that has replayed a change of each table, and falls asleep.
fn acquainted(pair: &Pair, lines: &str, step: &str) -> Daemon {
    let mut daemon = pair.start_in(lines, &[("PYREPLICA_PAUSE_AT", step)]);
    pair.run(
        "truncate t, other, counted;
         insert into t select i, 0, 'row ' || i from generate_series(1, 3) i;
         insert into other select i, i from generate_series(1, 3) i;
         insert into counted (id, n) select i, i from generate_series(1, 3) i",
    );
    pair.wait_caught_up();
    daemon.wait_log("Waiting for 'NOTIFY'");
    daemon
}

fn prepared(client: &mut Client) -> i64 {
    let sql = "select count(*) from pg_prepared_xacts where database = current_database()";
    client.query_one(sql, &[]).unwrap().get(0)
}

#[track_caller]
fn assert_settled(pair: &Pair) {
    pair.wait_caught_up();
    pair.assert_equal();
    pair.assert_no_prepared();
}

#[test]
fn all_of_it_goes_out_in_one_message() {
    for (lines, _) in WAYS {
        goes_out_in_one_message(lines);
    }
}

fn goes_out_in_one_message(lines: &str) {
    let pair = pair();
    let mut daemon = acquainted(&pair, lines, "begun:2");
    pair.run(
        "insert into t values (4, 4, 'it''s'); update t set n = n + 1 where id = 1; delete from t where id = 2;
         insert into counted (id, n) values (4, 4)",
    );
    daemon.wait_paused();
    assert_eq!(pair.on_slave(OPEN), ["0"], "the slave's transaction begins with the message that ends it");
    daemon.resume();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("Looking closer"), "{}", daemon.log());
    assert!(daemon.log().contains("Executing: UPDATE \"t\" SET \"n\"='1' WHERE \"id\"='1'"), "{}", daemon.log());
}

#[test]
fn what_comes_behind_a_long_batch_is_taken_from_the_reader() {
    let pair = pair();
    pair.run(
        "do $$ begin
             for i in 1..4701 loop
                 insert into t select i * 5 + n, 0, '' from generate_series(0, 4) n;
                 commit;
             end loop;
         end $$",
    );
    let mut daemon = pair.start_in(TRACE, &[("PYREPLICA_PAUSE_AT", "begun:3")]);
    daemon.wait_paused();
    assert_eq!(pair.on_slave("select count(*) from t"), ["23500"]);
    assert_eq!(pair.on_slave(OPEN), ["1"]);
    daemon.resume();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
}

/// Runs to every step and lets `fault` happen there. It leaves a daemon that is to catch up.
#[track_caller]
fn sweep(pair: &Pair, mut fault: impl FnMut(Daemon, &str) -> Daemon) {
    for (lines, steps) in WAYS {
        for step in steps {
            let mut daemon = acquainted(pair, lines, step);
            pair.run("update t set n = n + 1 where id = 1");
            daemon.wait_paused();
            eprintln!("-- at {step}, {lines}");
            let mut daemon = fault(daemon, lines);
            pair.run("update t set n = n + 1 where id = 1");
            assert_settled(pair);
            assert!(daemon.terminate().success(), "{step}");
            // A second replay would find the row with the new value already.
            assert!(!daemon.log().contains("Possible conflict"), "{step}: {}", daemon.log());
        }
    }
}

#[test]
fn the_daemon_may_be_killed_at_every_step() {
    let pair = pair();
    sweep(&pair, |mut daemon, lines| {
        daemon.kill9();
        pair.start_with(lines)
    });
}

#[test]
fn the_connections_may_break_at_every_step() {
    let mut pair = pair();
    let forwarders = pair.put_behind_forwarders();
    for forwarder in &forwarders {
        sweep(&pair, |daemon, _| {
            forwarder.cut();
            daemon.resume();
            daemon
        });
    }
}

#[test]
fn both_servers_may_crash_at_every_step() {
    let mut master = OwnCluster::start("master", "", &[]);
    let mut slave = OwnCluster::start("slave", "", &[]);
    let pair = with_tables(Pair::on(master.server(), slave.server()));
    sweep(&pair, |daemon, _| {
        slave.stop_immediate();
        master.stop_immediate();
        daemon.resume();
        slave.start_again();
        master.start_again();
        daemon
    });
}

/// Somebody holds a row that the slave is to write.
fn blocked(pair: &Pair) -> Client {
    let mut holder = pair.slave();
    holder.batch_execute("begin; select from t where id = 1 for update").unwrap();
    pair.run("update t set n = n + 1 where id = 1");
    holder
}

#[test]
fn a_slave_that_prepares_after_its_daemon_has_died_is_rolled_back() {
    let pair = pair();
    let mut daemon = acquainted(&pair, TRACE, "");
    let mut holder = blocked(&pair);
    wait_until("the master has prepared", || prepared(&mut pair.master()) == 1);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the slave waits for the row", || pair.on_slave(waits) == ["1"]);
    daemon.kill9();
    let mut daemon = pair.start();
    daemon.wait_log("prepared on the master only: roll it back");
    holder.batch_execute("rollback").unwrap();
    // Recovery comes after the new attempt's wait for the row, at the latest.
    daemon.wait_log("not committed on the master: roll back on the slave");
    assert_settled(&pair);
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("Possible conflict"), "{}", daemon.log());
}

#[test]
fn a_slave_that_waits_too_long_leaves_nothing_to_recover() {
    let pair = pair();
    let mut daemon = acquainted(&pair, TRACE, "");
    let mut holder = blocked(&pair);
    daemon.wait_log("lock timeout");
    wait_until("nothing is prepared", || prepared(&mut pair.master()) == 0);
    holder.batch_execute("rollback").unwrap();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("Recovering"), "{}", daemon.log());
}

#[test]
fn a_slave_whose_session_is_ended_meanwhile_gets_the_change_by_the_next_one() {
    let pair = pair();
    let mut daemon = acquainted(&pair, TRACE, "");
    let mut holder = blocked(&pair);
    let end = "select pg_terminate_backend(pid)::text from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the waiting session is ended", || pair.on_slave(end) == ["true"]);
    holder.batch_execute("rollback").unwrap();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
}

/// What is unusual about the slave, the change on the master, what the daemon says of it, and what the slave has then.
struct Unusual {
    on_slave: &'static str,
    on_master: &'static str,
    told: &'static str,
    found: &'static str,
    expected: &'static str,
}

/// The refusal of the message's check.
const MAY_HAVE_CHANGED: &str = "Looking closer: a table has changed, or has new statistics";

const UNUSUAL: [Unusual; 11] = [
    Unusual {
        on_slave: "update t set n = 7 where id = 1",
        on_master: "update t set n = 1 where id = 1",
        told: "\"n\": expected '0', found '7'",
        found: "select n from t where id = 1",
        expected: "1",
    },
    Unusual {
        on_slave: "delete from t where id = 1",
        on_master: "update t set n = 1 where id = 1",
        told: "Possible conflict (0 rows affected): UPDATE",
        found: "select count(*) from t where id = 1",
        expected: "0",
    },
    Unusual {
        on_slave: "delete from t where id = 1",
        on_master: "delete from t where id = 1; insert into t values (5, 5, '')",
        told: "Possible conflict (0 rows affected): DELETE",
        found: "select count(*) from t where id = 5",
        expected: "1",
    },
    Unusual {
        on_slave: "insert into t values (5, 5, 'own')",
        on_master: "insert into t values (5, 6, '')",
        told: "Key (id)=(5) already exists",
        found: "select note from t where id = 5",
        expected: "own",
    },
    Unusual {
        on_slave: "create function swallow() returns trigger language plpgsql as 'begin return null; end';
                   create trigger swallow before insert on t for each row execute function swallow();
                   alter table t enable always trigger swallow",
        on_master: "insert into t values (5, 5, '')",
        told: "the slave did not take the row",
        found: "select count(*) from t where id = 5",
        expected: "0",
    },
    Unusual {
        on_slave: "create rule aside as on insert to t do instead nothing; alter table t enable always rule aside",
        on_master: "insert into t values (5, 5, '')",
        told: "the slave did not take the row",
        found: "select count(*) from t where id = 5",
        expected: "0",
    },
    Unusual {
        on_slave: "alter table t alter n type numeric(5, 1)",
        on_master: "update t set n = 1 where id = 1",
        told: "Looking closer",
        found: "select n from t where id = 1",
        expected: "1.0",
    },
    Unusual {
        on_slave: "alter table t rename n to former; alter table t add n int default 0",
        on_master: "update t set n = 1 where id = 1",
        told: "Looking closer",
        found: "select n || ' ' || former from t where id = 1",
        expected: "1 0",
    },
    Unusual {
        on_slave: "",
        on_master: "begin; update other set n = 2 where id = 1; update other set n = 1 where id = 2; commit",
        told: "UPDATE \"other\" SET \"n\"='1' WHERE \"id\"='2'",
        found: "select n from other where id = 1",
        expected: "2",
    },
    Unusual {
        on_slave: "insert into other values (9, 9)",
        on_master: "insert into other values (4, 9)",
        told: "violates a deferrable unique constraint",
        found: "select count(*) from other where n = 9",
        expected: "1",
    },
    Unusual {
        on_slave: "",
        on_master: "update counted set serial = default, n = 9 where id = 1",
        told: "SET \"serial\"='4', \"n\"='9'",
        found: "select serial || ' ' || n from counted where id = 1",
        expected: "4 9",
    },
];

/// What changes the definition of a table and what only seems to, and what the daemon says of it.
const CHANGED: [Unusual; 5] = [
    Unusual {
        on_slave: "alter table t rename to former; create table t (like former including all)",
        on_master: "insert into t values (5, 5, '')",
        told: MAY_HAVE_CHANGED,
        found: "select (select count(*) from t) || ' ' || (select count(*) from former)",
        expected: "1 3",
    },
    Unusual {
        on_slave: "alter schema public rename to former; create schema public;
                   create table public.t (like former.t including all);
                   do $$ declare t text; begin
                       for t in select relname from pg_class where relnamespace = 'former'::regnamespace
                                and relkind = 'r' and relname like 'replica%' loop
                           execute format('alter table former.%I set schema public', t);
                       end loop;
                   end $$",
        on_master: "insert into t values (5, 5, '')",
        told: MAY_HAVE_CHANGED,
        found: "select (select count(*) from public.t) || ' ' || (select count(*) from former.t)",
        expected: "1 3",
    },
    Unusual {
        on_slave: "alter table t drop constraint t_pkey, add unique (n, id), alter n set not null",
        on_master: "update t set note = 'new' where id = 1",
        told: MAY_HAVE_CHANGED,
        found: "select note from t where id = 1",
        expected: "new",
    },
    Unusual {
        on_slave: "alter table t alter note type char(9)",
        on_master: "insert into t values (5, 5, 'a')",
        told: MAY_HAVE_CHANGED,
        found: "select octet_length(note) from t where id = 5",
        expected: "9",
    },
    Unusual {
        on_slave: "analyze t",
        on_master: "update t set n = 1 where id = 1",
        told: MAY_HAVE_CHANGED,
        found: "select n from t where id = 1",
        expected: "1",
    },
];

#[test]
fn whatever_is_unusual_comes_out_as_it_does_the_ordinary_way() {
    for (lines, _) in WAYS {
        for unusual in &UNUSUAL {
            comes_out(unusual, lines, false);
        }
    }
}

#[test]
fn a_table_that_changes_after_a_message_is_read_again() {
    for unusual in UNUSUAL.iter().filter(|unusual| unusual.on_slave.contains("alter")).chain(&CHANGED) {
        comes_out(unusual, TRACE, true);
    }
}

/// `is_known`: messages for the tables have gone out already.
fn comes_out(Unusual { on_slave, on_master, told, found, expected }: &Unusual, lines: &str, is_known: bool) {
    let pair = pair();
    let mut daemon = acquainted(&pair, lines, "");
    if is_known {
        pair.run("insert into t values (9, 9, ''); delete from t where id = 9");
        pair.wait_caught_up();
        daemon.wait_log("Waiting for 'NOTIFY'");
        assert!(!daemon.log().contains("Looking closer"), "{}", daemon.log());
    }
    pair.run_on_slave(on_slave);
    pair.run(on_master);
    eprintln!("-- {on_slave}: {on_master}");
    daemon.wait_log(told);
    wait_until(found, || pair.on_slave(found) == [*expected]);
    wait_until("nothing is left prepared", || prepared(&mut pair.master()) == 0 && prepared(&mut pair.slave()) == 0);
    daemon.terminate();
    assert!(!daemon.log().contains("Recovering"), "{}", daemon.log());
    pair.assert_no_prepared();
}

#[test]
fn a_table_that_is_vacuumed_makes_one_change_go_the_ordinary_way() {
    let pair = pair();
    // The message after the vacuum is refused, and its change takes another step.
    let mut daemon = acquainted(&pair, TRACE, "begun:5");
    pair.run("update t set n = 1 where id = 1");
    pair.wait_caught_up();
    pair.run_on_slave("vacuum analyze t");
    pair.run("update t set n = 2 where id = 1");
    pair.wait_caught_up();
    daemon.wait_log(MAY_HAVE_CHANGED);
    pair.run("update t set n = 3 where id = 1");
    daemon.wait_paused();
    assert_eq!(pair.on_slave(OPEN), ["0"], "the slave's transaction begins with the message that ends it");
    daemon.resume();
    assert_settled(&pair);
    assert!(daemon.terminate().success());
}

#[test]
fn what_is_on_hold_is_put_aside() {
    let pair = pair();
    let mut daemon = acquainted(&pair, TRACE, "");
    pair.done(&["pause", "--table", "public.t"]);
    pair.run("update t set n = 1 where id = 1; update counted set n = 10 where id = 1");
    wait_until("the other table goes on", || pair.on_slave("select n from counted where id = 1") == ["10"]);
    assert_eq!(pair.on_slave("select n from t where id = 1"), ["0"]);
    pair.done(&["resume", "--table", "public.t"]);
    assert_settled(&pair);
    assert!(daemon.terminate().success());
}

#[test]
fn a_change_that_was_flagged_by_hand_is_not_replayed() {
    let pair = pair();
    let mut daemon = acquainted(&pair, TRACE, "");
    pair.run(
        "begin; update t set n = 1 where id = 1; update t set n = 1 where id = 2; \
              update replica_log set replicated = true where new->'id' = '1'; commit",
    );
    pair.wait_caught_up();
    assert_eq!(pair.on_slave("select n from t where id < 3 order by id"), ["0", "1"]);
    assert!(daemon.terminate().success());
}
