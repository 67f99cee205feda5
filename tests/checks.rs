//! What replication needs and does not find: one clear line says what, on which side, and what to do; the exit code says
//! whose fault it is; no password shows anywhere. Where the hint is a command, it is run as it stands.

use crate::harness::{self, Finished, OwnCluster, Pair, Server, assert_says, drains, final_words, refusal, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn pair_with_a_change() -> Pair {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'one')");
    pair
}

const PASSWORD: &str = "s3cr3t 'and' $long";

/// The run failed with this code, and its last words hold the parts.
#[track_caller]
fn assert_fails(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code(), code, "{}", finished.output);
    let words = final_words(finished);
    assert_says(&words, parts);
    assert_eq!(words.lines().filter(|line| line.starts_with("pyreplica: ")).count(), 1, "one line: {words}");
    assert!(!finished.output.contains("s3cr3t"), "{}", finished.output);
}

/// The statements in the hint, between this word and the last semicolon.
fn hinted<'a>(words: &'a str, first: &str) -> &'a str {
    let hint = words.split_once("hint: ").expect("a hint").1;
    let start = hint.find(first).unwrap_or_else(|| panic!("no {first} in {hint}"));
    &hint[start..=hint.rfind(';').expect("a statement ends")]
}

/// A role on both servers; it goes with everything it got when the test is over.
struct Role {
    name: String,
    places: [(Server, String); 2],
}

impl Role {
    fn new(pair: &Pair, attributes: &str) -> Role {
        let digits: String = pair.name.chars().filter(char::is_ascii_digit).collect();
        let places = [(pair.master_server().clone(), pair.master_db()), (pair.slave_server().clone(), pair.slave_db())];
        let role = Role { name: format!("Role {digits}"), places };
        for (server, database) in &role.places {
            server.connect(database).batch_execute(&format!("create role \"{}\" {attributes}", role.name)).unwrap();
        }
        role
    }

    /// Both connection strings of the pair name this role from now on.
    fn take_over(&self, pair: &mut Pair) {
        for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
            *dsn = dsn.replace("user=postgres", &format!("user='{}'", self.name));
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        for (server, database) in &self.places {
            let sql = format!("drop owned by \"{0}\"; drop role \"{0}\"", self.name);
            if let Err(error) = server.connect(database).batch_execute(&sql) {
                eprintln!("role {} stays behind: {error}", self.name);
            }
        }
    }
}

// == Settings ==

#[test]
fn without_prepared_transactions_the_side_and_the_setting_are_named() {
    let small = OwnCluster::start("small", "max_prepared_transactions = 0", &[]);
    let usual = Pair::new();
    let usual = usual.master_server();
    let (on_master, on_slave) = (Pair::on(small.server(), usual), Pair::on(usual, small.server()));
    for (pair, side, code) in [(on_master, "master", 4), (on_slave, "slave", 5)] {
        let expected = format!(
            "pyreplica: {side}: cannot use two-phase commit: max_prepared_transactions is 0\n\
             hint: on the {side}: ALTER SYSTEM SET max_prepared_transactions = 10; and restart that server. \
             Without two-phase commit: TWO_PHASE=false in the config file"
        );
        let finished = pair.try_once();
        assert_fails(&finished, code, &[&expected]);
        let pair = pair.with_a_table();
        pair.run("insert into t values (1, 'one')");
        let finished = pair.try_once_by_file("TWO_PHASE=false");
        assert!(finished.status.success(), "{}", finished.output);
        pair.assert_equal();
    }
}

#[test]
fn the_hinted_setting_is_all_it_takes() {
    let mut small = OwnCluster::start("small", "max_prepared_transactions = 0", &[]);
    let server: Server = small.server().clone();
    let pair = Pair::on(&server, &server);
    let finished = pair.try_once();
    let command = hinted(&final_words(&finished), "ALTER SYSTEM").to_owned();
    pair.run(&command);
    small.stop_fast();
    small.start_again();
    pair.once();
}

#[test]
fn without_the_progress_table_its_script_is_named() {
    let pair = pair_with_a_change();
    pair.run_on_slave("drop table replica_progress");
    // Who may create it gets it.
    let mut modest = pair_with_a_change();
    modest.run_on_slave("drop table replica_progress; revoke create on schema public from public");
    let (role, master_dsn) = (Role::new(&modest, "login"), modest.master_dsn.clone());
    role.take_over(&mut modest);
    modest.master_dsn = master_dsn;
    for mode in ["", "TWO_PHASE=false"] {
        let finished = modest.try_once_by_file(mode);
        assert_fails(&finished, 5, &["slave: cannot ", "replica_progress", "hint: ", "slave-install.sql"]);
    }
    pair.once();
    pair.assert_equal();
}

// == The log ==

#[test]
fn without_the_log_the_installation_is_named() {
    let mut pair = pair_with_a_change();
    std::mem::swap(&mut pair.master_dsn, &mut pair.slave_dsn);
    let finished = pair.try_once();
    assert_fails(&finished, 4, &["master: cannot read the log: there is no table replica_log", "master-install.sql"]);
    std::mem::swap(&mut pair.master_dsn, &mut pair.slave_dsn);
}

/// An older script's trigger would not know the daemon's lock, and a newer one's would not signal without it.
#[test]
fn a_log_that_another_version_made_is_refused() {
    let pair = pair_with_a_change();
    pair.run("drop function py_log_forget()");
    let finished = pair.try_once();
    assert_fails(&finished, 4, &["replica_log was made by another version of pyreplica", "master-install.sql"]);
    pair.master_server().psql(&pair.master_db(), &harness::Script::Master.path());
    assert!(pair.try_once().status.success());
}

#[test]
fn without_the_slaves_column_the_statement_that_makes_it_is_named() {
    let pair = pair_with_a_change();
    for (id, field) in [(2, "slave2"), (3, "Slave \"Zwei\"")] {
        let by_file = || pair.try_once_by_file(&format!("SLAVE_FIELD={field}"));
        let finished = by_file();
        let quoted = format!("\"{}\"", field.replace('"', "\"\""));
        assert_fails(&finished, 4, &[&format!("no boolean column {quoted}, which SLAVE_FIELD names")]);
        pair.run(hinted(&final_words(&finished), "SELECT"));
        pair.run(&format!("insert into t values ({id}, 'after it')"));
        let finished = by_file();
        assert!(finished.status.success(), "{}", finished.output);
        assert_eq!(pair.on_slave(&format!("select a from t where id = {id}")), ["after it"]);
    }
}

#[test]
fn the_same_database_on_both_sides_is_refused() {
    let mut pair = pair_with_a_change();
    pair.slave_dsn = pair.master_dsn.replace("127.0.0.1", "localhost");
    assert_fails(&pair.try_once(), 3, &["DSN0 and DSN1 are the same database", "hint: DSN0 is the master"]);
    assert_eq!(pair.pending(), 1);
}

// == Rights ==

#[test]
fn a_role_without_rights_is_told_the_grants_and_works_with_them() {
    let mut pair = pair_with_a_change();
    let role = Role::new(&pair, "login");
    role.take_over(&mut pair);
    let finished = pair.try_once();
    assert_fails(&finished, 4, &["master: cannot ", "lacks rights", "hint: as their owner: GRANT "]);
    pair.run(hinted(&final_words(&finished), "GRANT"));

    let finished = pair.try_once();
    assert_fails(&finished, 5, &["slave: cannot ", "replica_progress", "hint: as its owner: GRANT "]);
    pair.run_on_slave(hinted(&final_words(&finished), "GRANT"));
    // On the slave it needs nothing else but the tables.
    let finished = pair.try_once();
    assert_fails(
        &finished,
        6,
        &["slave: cannot replay change ", "permission denied for table t", "the right to write it"],
    );
    pair.run_on_slave(&format!("grant select, insert, update, delete, truncate on t to \"{}\"", role.name));
    let finished = pair.once();
    assert!(finished.output.contains("may not set session_replication_role"), "{}", finished.output);
    pair.assert_equal();

    for change in ["update t set a = 'two'", "delete from t", "insert into t values (3, 'three')", "truncate t"] {
        pair.run(change);
        let finished = pair.once();
        assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
        pair.assert_equal();
    }
    pair.assert_no_prepared();
    assert_eq!(pair.logged(), 0);
    let grant = format!("grant set on parameter session_replication_role to \"{}\"", role.name);
    if pair.on_slave("select current_setting('server_version_num')::int >= 150000") == ["t"] {
        pair.run_on_slave(&grant);
        let finished = pair.once();
        assert!(!finished.output.contains("may not set session_replication_role"), "{}", finished.output);
    }
}

#[test]
fn the_right_to_write_the_progress_is_named_too() {
    let mut pair = pair_with_a_change();
    let (role, master_dsn) = (Role::new(&pair, "login"), pair.master_dsn.clone());
    role.take_over(&mut pair);
    pair.master_dsn = master_dsn;
    pair.run_on_slave(&format!("grant select, insert, update, delete on t to \"{}\"", role.name));
    let finished = pair.try_once_by_file("TWO_PHASE=false");
    assert_fails(&finished, 5, &["slave: cannot ", "replica_progress", "hint: as its owner: GRANT "]);
    pair.run_on_slave(hinted(&final_words(&finished), "GRANT"));
    let finished = pair.try_once_by_file("TWO_PHASE=false");
    assert!(finished.status.success(), "{}", finished.output);
    pair.assert_equal();
}

// == Logins ==

/// A pair whose connection strings name a role that must give a password, and do not hold it.
fn pair_with_password() -> (Pair, Role) {
    let mut pair = pair_with_a_change();
    for server in [pair.master_server(), pair.slave_server()] {
        // The first test that needs it makes it; cluster.sh lets its members in by password only.
        let _ = server.connect("postgres").batch_execute("create role scram_users");
    }
    let quoted = PASSWORD.replace('\'', "''");
    let role = Role::new(&pair, &format!("superuser login password '{quoted}' in role scram_users"));
    role.take_over(&mut pair);
    (pair, role)
}

#[test]
fn a_login_without_or_with_a_wrong_password_says_where_passwords_come_from() {
    let (mut pair, _role) = pair_with_password();
    let nowhere = pair.dir().to_str().unwrap().to_owned();
    let without = pair.try_once_with(&[("HOME", &nowhere)]);
    assert_fails(&without, 4, &["master: cannot connect to ", "password", "PGPASSWORD", "~/.pgpass"]);
    let wrong = pair.try_once_with(&[("PGPASSWORD", "s3cr3t but wrong")]);
    assert_fails(&wrong, 4, &["master: cannot connect to ", "password authentication failed", "~/.pgpass"]);
    pair.master_dsn.push_str(&format!(" password='{}'", PASSWORD.replace('\'', "\\'")));
    pair.slave_dsn.push_str(" password='s3cr3t but wrong'");
    let wrong = pair.try_once_with(&[]);
    assert_fails(&wrong, 5, &["slave: cannot connect to ", "password authentication failed"]);
}

#[test]
fn the_password_comes_from_the_connection_string_a_variable_or_pgpass_and_never_shows() {
    let (mut pair, _role) = pair_with_password();
    let assert_works = |pair: &Pair, env: &[(&str, &str)]| {
        pair.run("update t set a = a || '.'");
        let finished = pair.try_once_with(env);
        assert!(finished.status.success(), "{}", finished.output);
        assert!(!finished.output.contains("s3cr3t"), "{}", finished.output);
        pair.assert_equal();
    };
    assert_works(&pair, &[("PGPASSWORD", PASSWORD)]);

    let file = pair.dir().join(".pgpass");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    fs::write(&file, format!("# logins\nelsewhere:*:*:*:no\n127.0.0.1:*:*:*:{escaped}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_works(&pair, &[("HOME", pair.dir().to_str().unwrap())]);
    assert_works(&pair, &[("PGPASSFILE", file.to_str().unwrap())]);

    let quoted = format!(" password='{}'", PASSWORD.replace('\'', "\\'"));
    pair.master_dsn.push_str(&quoted);
    pair.slave_dsn.push_str(&quoted);
    assert_works(&pair, &[]);

    pair.run("update t set a = a || '.'");
    let finished = pair.try_once_by_file("DEBUG_LEVEL=3");
    assert!(finished.status.success(), "{}", finished.output);
    assert!(!finished.output.contains("s3cr3t"), "{}", finished.output);
}

#[test]
fn a_password_is_not_in_the_list_of_processes_longer_than_it_takes_to_read_it() {
    let mut pair = pair_with_a_change();
    pair.master_dsn.push_str(" password=s3cr3t");
    let mut daemon = harness::Daemon::spawn(&pair.dir().join("argv.log"), &[&pair.master_dsn, &pair.slave_dsn], &[]);
    pair.wait_caught_up();
    let shown = fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    let shown = String::from_utf8_lossy(&shown);
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(daemon.terminate().success());
}

// == Servers ==

#[test]
fn a_server_that_cannot_be_reached_is_named_with_its_side() {
    let mut pair = pair_with_a_change();
    // The discard port: nothing listens there.
    let unreachable = "host=127.0.0.1 port=9 user=postgres dbname=x connect_timeout=2".to_owned();
    let master = std::mem::replace(&mut pair.master_dsn, unreachable.clone());
    assert_fails(&pair.try_once(), 4, &["master: cannot connect to ", "refused", "hint: is the server running there"]);
    pair.master_dsn = master;
    pair.slave_dsn = unreachable;
    assert_fails(&pair.try_once(), 5, &["slave: cannot connect to ", "refused", "hint: is the server running there"]);
    pair.slave_dsn = "host=no-such-host.invalid dbname=x user=postgres".to_owned();
    assert_fails(&pair.try_once(), 5, &["slave: cannot connect to ", "no-such-host.invalid"]);
}

#[test]
fn a_database_or_a_role_that_does_not_exist_is_named() {
    let mut pair = pair_with_a_change();
    let slave = pair.slave_dsn.clone();
    pair.slave_dsn = slave.replace(&pair.slave_db(), "no_such_database");
    assert_fails(&pair.try_once(), 5, &["slave: cannot connect to ", "database \"no_such_database\" does not exist"]);
    pair.slave_dsn = slave.replace("user=postgres", "user=nobody_here");
    assert_fails(&pair.try_once(), 5, &["slave: cannot connect to ", "role \"nobody_here\" does not exist"]);
}

#[test]
fn installing_where_it_is_not_allowed_says_why() {
    let pair = pair_with_a_change();
    let role = Role::new(&pair, "login");
    let dsn = pair.slave_dsn.replace("postgres", &format!("'{}'", role.name));
    let finished = run(&pair.dir().join("install.log"), &["install", &dsn], &[]);
    assert_fails(&finished, 4, &["master: cannot ", "permission denied"]);
}

/// Symptom: "value for domain violates check constraint", for a row that the master could update, and compare gave up.
/// Cause: the old value was cast to the domain, whose check was NOT VALID when the value came.
#[test]
fn an_old_value_may_violate_a_check_of_its_domain() {
    let pair = Pair::new();
    pair.exec_both(
        "create domain d as int; create domain e as d; create table t (id int primary key, v e, w varchar(3)[]);
         create table k (id d primary key, a text); insert into t select g, 55 from generate_series(1, 60) g;
         insert into k select g, 'a' from generate_series(40, 80) g;
         alter domain d add constraint small check (value < 11) not valid",
    );
    pair.create_triggers();
    pair.run("update t set v = 10 where id = 1; update k set a = 'b' where id = 55; delete from k where id = 56");
    drains(&pair);
    // As sets, too.
    pair.run("update t set v = 5; update k set a = 'c'; delete from k where id > 70");
    drains(&pair);
    assert_eq!(pair.verb(&["compare"]).code(), 0);
    // What is written is checked.
    pair.run_on_slave("alter domain d add constraint tiny check (value < 8) not valid");
    pair.run("update t set v = 9 where id = 2");
    assert!(refusal(&pair).contains("violates check constraint \"tiny\""));
}
