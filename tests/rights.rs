//! The least that the daemon's roles need: no superuser, no owner of anything, exactly the GRANTs that docs/rights.md
//! lists. With the right to set session_replication_role nothing of the slave's own runs; without it constraints are
//! deferred, triggers and cascades run, and that is announced.

use crate::harness::{self, Finished, Pair, Server};
use std::sync::atomic::{AtomicU32, Ordering};

const ANNOUNCEMENT: &str = "the role may not set session_replication_role";

const FAMILY: &str = "create table parent (id int primary key, a text);
     create table child (id int primary key, parent int references parent deferrable, a text);";

/// A role on both servers; what it was granted goes with it.
struct Role {
    name: String,
    places: [(Server, String); 2],
}

impl Role {
    fn new(pair: &Pair) -> Role {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("daemon_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let places = [(pair.master_server().clone(), pair.master_db()), (pair.slave_server().clone(), pair.slave_db())];
        for (server, database) in &places {
            server.connect(database).batch_execute(&format!("create role {name} login")).unwrap();
        }
        Role { name, places }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        for (server, database) in &self.places {
            // The pair goes first and takes the database with it; the rest of the grants are the cluster's.
            let sql = format!("drop owned by {0}; drop role {0}", self.name);
            let dropped = server.try_connect(database).or_else(|_| server.try_connect("postgres"));
            if let Err(error) = dropped.and_then(|mut client| client.batch_execute(&sql)) {
                eprintln!("role {} stays behind: {error}", self.name);
            }
        }
    }
}

/// The block of docs/rights.md that begins like this, for this role.
fn documented(beginning: &str, role: &Role) -> String {
    let page = include_str!("../docs/rights.md");
    let mut blocks = page.split("```sql\n").filter_map(|part| part.split("```").next());
    let block = blocks.find(|block| block.starts_with(beginning)).expect("docs/rights.md has that block");
    block.replace("pyreplica", &role.name)
}

/// A pair whose daemon is a role with nothing but the documented rights. Declared in this order, so that the database
/// goes before the role.
struct Restricted {
    pair: Pair,
    role: Role,
}

impl std::ops::Deref for Restricted {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl Restricted {
    /// `schema` on both sides, triggers on all tables.
    fn new(schema: &str) -> Restricted {
        let mut pair = Pair::new();
        let role = Role::new(&pair);
        pair.exec_both(schema);
        pair.create_triggers();
        pair.run(&documented("SELECT py_log_grant", &role));
        pair.run(&documented("GRANT SELECT ON ALL SEQUENCES", &role));
        pair.run_on_slave(&documented("GRANT USAGE", &role));
        for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
            *dsn = dsn.replace("user=postgres", &format!("user={}", role.name));
        }
        Restricted { pair, role }
    }

    /// The same with everything in a schema that the role may use on the slave only.
    fn in_a_schema(schema: &str, tables: &str) -> Restricted {
        let restricted = Restricted::new("select");
        restricted.exec_both(&format!("create schema {schema}; set search_path = {schema}; {tables}"));
        restricted.create_triggers_in(schema);
        restricted.run_on_slave(
            &documented("GRANT USAGE", &restricted.role).replace("SCHEMA public", &format!("SCHEMA {schema}")),
        );
        restricted
    }

    /// Allows the replica role; false on a server that cannot (before PostgreSQL 15).
    fn allow_replica_role(&self) -> bool {
        if self.on_slave("select current_setting('server_version_num')::int >= 150000") == ["f"] {
            eprintln!("skipped: this server has no GRANT SET ON PARAMETER");
            return false;
        }
        self.run_on_slave(&documented("GRANT SET", &self.role));
        true
    }

    /// Drains without the replica role and without a conflict; both sides are equal then.
    #[track_caller]
    fn falls_back(&self) -> Finished {
        let finished = self.once();
        assert_eq!(finished.count(ANNOUNCEMENT), 1, "{}", finished.output);
        self.assert_equal();
        self.assert_no_prepared();
        finished
    }

    #[track_caller]
    fn falls_back_quietly(&self) {
        let finished = self.falls_back();
        assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    }
}

#[track_caller]
fn assert_says(finished: &Finished, parts: &[&str]) {
    for part in parts {
        assert!(finished.output.contains(part), "no {part:?} in:\n{}", finished.output);
    }
}

// == The rights themselves ==

#[test]
fn with_the_right_to_the_replica_role_nothing_of_the_slaves_own_runs() {
    let pair = Restricted::new(
        "create table parent (id int primary key, a text);
         create table child (id int primary key, parent int references parent on delete cascade);
         create table seen (id serial primary key, what text);
         create function note() returns trigger language plpgsql as
             $$ begin insert into seen (what) values (tg_op); return null; end $$;
         create trigger note after insert or update or delete on parent for each row execute function note()",
    );
    if !pair.allow_replica_role() {
        return;
    }
    pair.run("insert into parent values (1, 'a'), (2, 'b'); insert into child values (1, 1), (2, 1), (3, 2)");
    pair.run("delete from parent where id = 1; update parent set a = 'c'; truncate seen; insert into seen values (7)");
    let finished = pair.once();
    assert_eq!(finished.count(ANNOUNCEMENT) + finished.count("Possible conflict"), 0, "{}", finished.output);
    pair.assert_equal();
    assert_eq!(pair.logged(), 0);
}

#[test]
fn sequences_follow_and_no_grant_is_one_too_many() {
    let pair = Restricted::new(
        "create table t (id serial primary key); create table i (id int generated always as identity primary key)",
    );
    pair.run("insert into t default values; insert into i default values");
    let finished = pair.once();
    assert!(!finished.output.contains("do not follow"), "{}", finished.output);
    assert_eq!(pair.on_slave("select t_id_seq.is_called and i_id_seq.is_called from t_id_seq, i_id_seq"), ["t"]);
    let found = harness::looking::faults(&pair, "");
    assert!(
        !found.iter().any(|check| ["grants", "rights", "sequences"].contains(&check.subject.as_str())),
        "{found:#?}"
    );
}

/// Symptom: a dry run of switchover installed a master's log on the slave, which took the daemon's right to replica_skipped. The daemon did
/// without all of the tables beside it, and a pair that was paused went on replaying.
#[test]
fn a_pause_is_obeyed_whatever_rights_the_role_loses() {
    let pair = Restricted::new("create table t (id int primary key)");
    pair.run("insert into t values (1)");
    pair.once();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/master-install.sql");
    pair.slave_server().psql(&pair.slave_db(), &script);
    let may = format!("select has_table_privilege('{}', 'replica_skipped', 'insert')", pair.role.name);
    assert_eq!(pair.on_slave(&may), ["t"]);
    assert!(pair.verb(&["pause"]).status.success());
    pair.run("insert into t values (2)");
    pair.run_on_slave(&format!("revoke all on replica_skipped from {}", pair.role.name));
    let finished = pair.try_once();
    assert_eq!(finished.code(), 5, "{}", finished.output);
    assert_says(&finished, &["something may be paused", "pyreplica resume"]);
    assert_eq!(pair.on_slave("select id from t"), ["1"]);
}

#[test]
fn the_role_can_neither_write_what_runs_on_the_slave_nor_the_masters_tables() {
    let pair = Restricted::new("create table t (id int primary key)");
    for sql in [
        "insert into replica_log (sql) values ('drop table t')",
        "insert into replica_log (event, relation) values ('T', 'public.t')",
        "update replica_log set sql = 'drop table t'",
        "update replica_log set new = null, event = 'T'",
        "truncate replica_log",
        "select nextval('replica_log_id_seq')",
        "create trigger x after insert on replica_slave for each row execute function py_log_replica('t', 'id')",
        "insert into t values (1)",
        "select * from t",
    ] {
        let mut client = pair.master();
        client.batch_execute(&format!("set session authorization {}", pair.role.name)).unwrap();
        let error = client.batch_execute(sql).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}: {error:?}");
    }
}

#[test]
fn the_daemon_runs_and_listens_as_that_role_and_the_applications_need_no_right_to_the_log() {
    let pair = Restricted::new("create table t (id int primary key, a text)");
    pair.run(&format!("grant insert on t to {}", pair.role.name));
    let mut daemon = pair.start_with("DEBUG_LEVEL=3\n");
    daemon.wait_log("Waiting for 'NOTIFY'");
    pair.run(&format!("set session authorization {}; insert into t values (1, 'a')", pair.role.name));
    pair.wait_caught_up();
    assert_eq!(pair.on_slave("select a from t"), ["a"]);
    daemon.wait_log("Got NOTIFY");
    assert!(daemon.terminate().success());
}

#[test]
fn rights_with_hstore_in_a_schema_of_its_own() {
    let pair = Restricted::new("create table t (id int primary key, a text)");
    pair.run("create schema tools; alter extension hstore set schema tools");
    pair.pair.master_server().psql(&pair.master_db(), &harness::Script::Master.path());
    pair.run(&format!("select py_log_grant('{}')", pair.role.name));
    pair.run("insert into t values (1, 'a')");
    pair.falls_back_quietly();
}

#[test]
fn without_two_phase_commit_the_progress_is_written_as_that_role() {
    let pair = Restricted::new(FAMILY);
    for sql in ["insert into parent values (1, 'a')", "insert into child values (1, 1, 'b')"] {
        pair.run(sql);
        let finished = pair.try_once_by_file("TWO_PHASE=false\n");
        assert_eq!(finished.code(), 0, "{}", finished.output);
    }
    pair.assert_equal();
}

// == The fallback ==

#[test]
fn parents_and_children_arrive_together() {
    let pair = Restricted::new(FAMILY);
    pair.run(
        "insert into parent select i, 'p' from generate_series(1, 50) i;
              insert into child select i, i % 50 + 1, 'c' from generate_series(1, 200) i",
    );
    pair.falls_back_quietly();
    pair.run(
        "delete from child where parent = 7; delete from parent where id = 7;
              update child set parent = 8 where parent = 9; delete from parent where id = 9",
    );
    pair.falls_back_quietly();
}

#[test]
fn constraints_are_checked_when_the_batch_ends() {
    let pair = Restricted::new(FAMILY);
    pair.run(
        "set constraints all deferred; insert into child values (1, 1, 'first'); insert into parent values (1, 'then')",
    );
    pair.falls_back_quietly();
}

#[test]
fn keys_can_be_shifted() {
    let pair = Restricted::new("create table place (id int primary key deferrable, name text unique deferrable)");
    pair.run("insert into place select i, 'p' || i from generate_series(1, 20) i");
    pair.falls_back_quietly();
    pair.run("update place set id = id + 1");
    pair.run("update place set id = 23 - id, name = 'p' || (22 - id)");
    pair.falls_back_quietly();
}

#[test]
fn a_table_is_emptied_although_checks_on_it_are_outstanding() {
    let pair = Restricted::new(FAMILY);
    pair.run("insert into parent values (1, 'a')");
    pair.run("insert into child values (1, 1, 'b')");
    pair.run("truncate child; insert into child values (2, 1, 'c')");
    pair.run("truncate parent, child");
    pair.run("insert into parent values (3, 'd')");
    pair.falls_back_quietly();
}

#[test]
fn cascades_run_on_the_slave_too_and_what_they_did_before_the_log_is_only_a_warning() {
    let pair = Restricted::new(
        "create table parent (id int primary key);
         create table gone (id int primary key, parent int references parent on delete cascade);
         create table moved (id int primary key, parent int references parent on update cascade on delete set null)",
    );
    pair.run("insert into parent values (1), (2); insert into gone values (1, 1), (2, 2); insert into moved values (1, 1), (2, 2)");
    pair.falls_back_quietly();
    pair.run("delete from gone where id = 2; update parent set id = 3 where id = 2");
    let finished = pair.falls_back();
    assert_says(&finished, &["\"parent\": expected '2', found '3'; the master's values were applied"]);
    pair.run("delete from parent where id = 1");
    let finished = pair.falls_back();
    assert_says(&finished, &["the row is missing on the slave", "\"parent\": expected '1', found NULL"]);
    assert_eq!(finished.count("WARNING: Possible conflict"), 2, "{}", finished.output);
}

#[test]
fn conflicts_are_seen_and_the_master_wins() {
    let pair = Restricted::new(FAMILY);
    pair.run("insert into parent values (1, 'a'), (2, 'b')");
    pair.falls_back_quietly();
    pair.run_on_slave("update parent set a = 'elsewhere' where id = 1; delete from parent where id = 2");
    pair.run("update parent set a = 'here' where id = 1; delete from parent where id = 2");
    let finished = pair.falls_back();
    assert_says(&finished, &["expected 'a', found 'elsewhere'", "the row is missing on the slave"]);
}

#[test]
fn a_constraint_that_fails_at_the_end_names_the_transaction_and_leaves_nothing_of_it() {
    let pair = Restricted::new(FAMILY);
    pair.run("insert into parent values (1, 'a'), (2, 'b')");
    pair.falls_back_quietly();
    pair.run_on_slave("delete from parent where id = 2");
    pair.run("insert into child values (1, 1, 'fine')");
    pair.run("insert into parent values (3, 'with it'); insert into child values (2, 2, 'orphan')");
    pair.run("insert into child values (3, 1, 'later')");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 6, "{}", finished.output);
    assert_says(&finished, &["cannot replay transaction", "violates foreign key constraint \"child_parent_fkey\""]);
    pair.assert_no_prepared();
    assert_eq!(pair.on_slave("select id from child order by id"), ["1"]);
    assert_eq!(pair.on_slave("select id from parent order by id"), ["1"]);
    pair.run_on_slave("insert into parent values (2, 'b')");
    pair.falls_back_quietly();
}

#[test]
fn a_trigger_of_the_slave_that_does_the_work_twice_is_an_error_that_says_what_to_do() {
    let pair = Restricted::new(
        "create table item (id int primary key);
         create table copy (id int primary key);
         create function copy() returns trigger language plpgsql as
             $$ begin insert into copy values (new.id); return null; end $$;
         create trigger copy after insert on item for each row execute function copy()",
    );
    pair.run("insert into item values (1)");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 6, "{}", finished.output);
    assert_says(
        &finished,
        &["INSERT INTO \"copy\"", "duplicate key", "hint: did a trigger of the slave do that already?"],
    );
    pair.run_on_slave("alter table item disable trigger user");
    pair.falls_back_quietly();
}

// == Transactions in doubt ==

#[test]
fn what_is_in_doubt_is_settled_by_that_role() {
    for step in ["prepared", "slave-committed"] {
        let pair = Restricted::new(FAMILY);
        pair.run("insert into parent values (1, 'a'); insert into child values (1, 1, 'b')");
        let mut daemon = pair.start_paused_at(step);
        daemon.wait_paused();
        daemon.kill9();
        let finished = pair.try_once_by_file("");
        assert_eq!(finished.code(), 0, "{}", finished.output);
        assert_says(&finished, &["Recovering batch"]);
        pair.assert_equal();
        pair.assert_no_prepared();
    }
}

#[test]
fn what_another_role_prepared_is_not_touched_and_doctor_says_whose_it_is() {
    let pair = Restricted::new(FAMILY);
    pair.run("insert into parent values (1, 'a')");
    let mut daemon = pair.start_paused_at("prepared");
    daemon.wait_paused();
    daemon.kill9();
    let other = Role::new(&pair);
    pair.run(&format!("select py_log_grant('{}')", other.name));
    pair.run_on_slave(&format!("grant all on all tables in schema public to {}", other.name));
    let dsn = |dsn: &str| dsn.replace(&pair.role.name, &other.name);
    let lines = format!("DSN0={}\nDSN1={}\n", dsn(&pair.master_dsn), dsn(&pair.slave_dsn));
    let finished = pair.try_once_by_file(&lines);
    assert!([4, 5].contains(&finished.code()), "{}", finished.output);
    assert_says(&finished, &["lock timeout", "hint: ", "pyreplica doctor"]);
    let looked = pair.verb_by_file("doctor", &lines, &[]);
    let role = &pair.role.name;
    assert_says(
        &looked,
        &[&format!("{role} has prepared"), "which has the name of a batch", "start it once more as that role"],
    );
    assert_eq!(pair.try_once_by_file("").code(), 0);
    pair.assert_equal();
}

// == Row-level security ==

#[test]
fn rows_hidden_by_a_policy_are_an_error_and_not_a_missing_row() {
    let pair = Restricted::new("create table t (id int primary key, a text)");
    pair.run("insert into t values (1, 'a')");
    pair.falls_back_quietly();
    pair.run_on_slave("alter table t enable row level security; create policy half on t using (id > 1)");
    pair.run("update t set a = 'b' where id = 1");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 6, "{}", finished.output);
    assert_says(&finished, &["row-level security policy for table \"t\"", "BYPASSRLS"]);
    assert_eq!(pair.on_slave("select a from t"), ["a"]);
    pair.run_on_slave(&format!("alter role {} bypassrls", pair.role.name));
    pair.falls_back_quietly();
}

/// The daemon sees none of the master's tables, and asked for one of another schema by a function that wants USAGE on it.
#[test]
fn a_schema_that_the_role_may_not_use_on_the_master_is_replicated() {
    let pair = Restricted::in_a_schema("other", "create table t (id int primary key, a text)");
    for change in [
        "insert into other.t values (1, 'one')",
        "update other.t set a = 'two'",
        "alter table other.t add b int",
        "insert into other.t values (2)",
        "delete from other.t where id = 1",
    ] {
        if change.starts_with("alter") {
            pair.exec_both(change)
        } else {
            pair.run(change)
        }
        pair.falls_back_quietly();
    }
}

/// It sees what the owner sees, writes nothing, and keeps its rights when the script runs again.
#[test]
fn a_role_that_only_looks_runs_status_doctor_and_compare() {
    let mut pair = Pair::new();
    let role = Role::new(&pair);
    pair.exec_both("create table t (id int primary key, a text)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'a'), (2, 'b')");
    pair.once();
    let monitored = |block: &str| documented(block, &role).replace("monitor", &role.name);
    pair.run(&monitored("SELECT py_log_grant_monitor").replace(&format!("grant_{}", role.name), "grant_monitor"));
    pair.run_on_slave(&monitored("GRANT SELECT ON replica_progress"));
    pair.exec_both(&format!("grant pg_monitor to {0}; grant select on t to {0}", role.name));
    pair.master_server().psql(&pair.master_db(), &harness::Script::Master.path());
    for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
        *dsn = dsn.replace("user=postgres", &format!("user={}", role.name));
    }
    for verb in ["compare", "status", "doctor"] {
        let finished = pair.verb(&[verb]);
        assert!(!finished.output.contains("permission denied"), "{}", finished.output);
        if verb == "compare" {
            assert!(finished.status.success(), "{}", finished.output);
        }
        if verb == "doctor" {
            let is_about_itself = |line: &&str| line.contains(" rights ") || line.contains(" progress ");
            let failures = finished.output.lines().filter(|line| line.starts_with("failure"));
            assert!(failures.clone().all(|line| is_about_itself(&line)), "{}", finished.output);
        }
    }
    let mut client = pair.master();
    client.batch_execute(&format!("set session authorization {}", role.name)).unwrap();
    for sql in [
        "delete from replica_log",
        "update replica_slave set batch = 0",
        "insert into py_log_filter values ('t', 'INSERT', 'true')",
    ] {
        assert_eq!(client.batch_execute(sql).unwrap_err().code().map(|code| code.code()), Some("42501"), "{sql}");
    }
}

#[test]
fn rows_that_no_key_finds_are_found_with_these_rights() {
    let pair = Restricted::new("create table t (a int, b json); alter table t replica identity full");
    pair.run("insert into t select i / 3, '{}' from generate_series(1, 60) i");
    pair.falls_back_quietly();
    pair.run("delete from t where ctid in (select max(ctid) from t group by a); update t set b = null where a > 9");
    pair.falls_back_quietly();
    if pair.allow_replica_role() {
        pair.run("delete from t where ctid in (select max(ctid) from t group by a); update t set a = -a");
        assert_eq!(pair.once().count("Looking closer"), 0);
        pair.assert_equal();
    }
}
