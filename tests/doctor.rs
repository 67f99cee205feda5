//! `pyreplica doctor`: it finds what is wrong, on either side, and every statement that it prints fixes it as it stands.

use crate::harness::looking::{Check, assert_finds, checks, doctor, faults};
use crate::harness::{OwnCluster, Pair};

/// Runs every statement that is printed, as it is printed.
#[track_caller]
fn apply_fixes(pair: &Pair, checks: &[Check]) {
    for check in checks {
        let mut client = if check.side == "slave" { pair.slave() } else { pair.master() };
        for statement in &check.fixes {
            // The fix of one thing may be part of that of another.
            client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}\n{statement}\n{checks:#?}"));
        }
    }
}

#[test]
fn a_sound_pair_has_nothing_worse_than_a_note() {
    let pair = Pair::new().with_a_table();
    let finished = doctor(&pair, "", &[]);
    assert_eq!(finished.code(), 0, "{}", finished.output);
    for line in ["ok       master  version", "ok       slave   two-phase commit", "note     master  daemon"] {
        assert!(finished.output.contains(line), "{line}: {}", finished.output);
    }
    assert!(finished.output.contains("hint: start it: pyreplica "), "{}", finished.output);
    let brief = doctor(&pair, "", &["--brief"]);
    assert!(!brief.output.contains("\nok "), "{}", brief.output);
}

#[test]
fn whether_a_daemon_runs_is_told() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'one')");
    let mut daemon = pair.start();
    pair.wait_caught_up();
    let running = checks(&doctor(&pair, "", &["--json"]));
    assert_finds(&running, "ok", "master", "daemon", "connected since");
    assert!(running.iter().all(|check| ["ok", "note"].contains(&check.level.as_str())), "{running:#?}");
    daemon.terminate();
    let finished = doctor(&pair, "", &["--json"]);
    assert_eq!(finished.code(), 8, "{}", finished.output);
    assert_finds(&checks(&finished), "warning", "master", "daemon", "no daemon");
}

#[test]
fn before_anything_is_installed_it_says_how_to_install() {
    let mut pair = Pair::new().with_a_table();
    // The slave's database has no log.
    std::mem::swap(&mut pair.master_dsn, &mut pair.slave_dsn);
    let finished = doctor(&pair, "", &["--json"]);
    assert_eq!(finished.code(), 9, "{}", finished.output);
    let found = checks(&finished);
    assert_finds(&found, "failure", "master", "log", "there is no table replica_log");
    let hint = &found.iter().find(|check| check.subject == "log").unwrap().hint;
    let script = format!("{} {}", env!("CARGO_BIN_EXE_pyreplica"), hint.strip_prefix("pyreplica ").unwrap());
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
    std::mem::swap(&mut pair.master_dsn, &mut pair.slave_dsn);
}

#[test]
fn one_side_that_is_down_is_a_finding_and_the_other_is_examined_all_the_same() {
    let mut pair = Pair::new().with_a_table();
    let nowhere = "host=127.0.0.1 port=9 user=postgres dbname=x connect_timeout=2 password=s3cr3t".to_string();
    let slave = std::mem::replace(&mut pair.slave_dsn, nowhere.clone());
    let finished = doctor(&pair, "", &["--json"]);
    assert_eq!(finished.code(), 9);
    let found = checks(&finished);
    assert_finds(&found, "failure", "slave", "connection", "cannot connect to ");
    assert_finds(&found, "ok", "master", "triggers", "all tables");
    pair.slave_dsn = slave;
    pair.master_dsn = nowhere;
    let finished = doctor(&pair, "", &[]);
    assert!(finished.output.contains("failure  master  connection"), "{}", finished.output);
    assert!(finished.output.contains("hint: is the server running there"), "{}", finished.output);
    assert!(finished.output.contains("ok       slave   version"), "{}", finished.output);
    assert!(!finished.output.contains("s3cr3t"), "{}", finished.output);
}

#[test]
fn without_prepared_transactions_the_setting_is_printed_and_is_all_it_takes() {
    let mut small = OwnCluster::start("doctor", "max_prepared_transactions = 0", &[]);
    let server = small.server().clone();
    let pair = Pair::on(&server, &server).with_a_table();
    assert!(faults(&pair, "TWO_PHASE=false").is_empty(), "{:#?}", faults(&pair, "TWO_PHASE=false"));
    let found = faults(&pair, "");
    assert_finds(&found, "failure", "master", "two-phase commit", "max_prepared_transactions is 0");
    assert_finds(&found, "failure", "slave", "two-phase commit", "max_prepared_transactions is 0");
    apply_fixes(&pair, &found);
    small.stop_fast();
    small.start_again();
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
}

#[test]
fn tables_that_do_not_fit_are_told_with_what_makes_them_fit() {
    let pair = Pair::new();
    pair.run(
        "create schema \"Odd \"\"1\";
         create type mood as enum ('good', 'bad');
         create table missing (id bigint generated always as identity, a numeric(10,2) not null, b int[], m text,
                               primary key (id, a));
         create table \"Odd \"\"1\".\"Ta'ble\" (\"K\" int primary key, \"row\" int generated always as (\"K\" * 2) stored);
         create table columns (id int primary key, a varchar(10), b int, gone mood);
         create table keys (a int, b int, primary key (a, b));
         create table parted (id int primary key, a text) partition by range (id);
         create table parted_1 partition of parted for values from (0) to (100);
         create table candidate (id int not null unique, a text);
         create table keyless (a text);",
    );
    pair.run_on_slave(
        "create type mood as enum ('good', 'bad');
         create table columns (id int primary key, a varchar(5), b bigint, own int not null);
         create table keys (a int, b int);
         create table parted (id int primary key, a text);
         create table candidate (id int not null unique, a text);
         create table keyless (a text);",
    );
    let master = "select py_log_create_tg(n.nspname::text, c.relname::text) from pg_class c join pg_namespace n \
                  on n.oid = relnamespace where relkind in ('r', 'p') and relname ~ '^(missing|Ta|columns|keys|parted)'";
    pair.on_master(master);
    let found = faults(&pair, "");
    assert_finds(&found, "failure", "slave", "tables", "public.missing is logged on the master and missing");
    assert_finds(&found, "failure", "slave", "tables", "\"Odd \"\"1\".\"Ta'ble\" is logged");
    assert_finds(&found, "failure", "slave", "columns", "public.columns lacks the column \"gone\"");
    assert_finds(&found, "warning", "slave", "columns", "\"a\" is character varying(5) on the slave");
    assert_finds(&found, "warning", "slave", "columns", "\"b\" is bigint on the slave");
    assert_finds(&found, "failure", "slave", "columns", "\"own\" must not be null");
    assert_finds(&found, "warning", "slave", "keys", "public.keys is not unique");
    assert_finds(&found, "warning", "master", "keys", "public.candidate has no primary key");
    assert_finds(&found, "warning", "master", "keys", "public.keyless has no primary key");
    assert_eq!(found.len(), 9, "{found:#?}");
    // Some would only rid the slave of what is not logged for lack of a key.
    let (keyless, rest): (Vec<Check>, Vec<Check>) =
        found.into_iter().partition(|check| check.text.starts_with("public.keyless"));
    assert!(keyless[0].hint.contains("give it one"), "{keyless:#?}");
    apply_fixes(&pair, &rest);
    let left = faults(&pair, "");
    assert!(
        left.iter().all(|check| check.text.contains("keyless") || check.text.contains("candidate is not unique")),
        "{left:#?}"
    );
    pair.exec_both("drop table keyless");
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
    pair.run(
        "insert into missing (a) values (1.5); insert into \"Odd \"\"1\".\"Ta'ble\" values (1);
              insert into columns values (1, 'long enough', 1, 'good')"
            .replace("'long enough'", "'long'")
            .as_str(),
    );
    pair.run(
        "insert into keys values (1, 2); insert into parted values (1, 'x'); insert into candidate values (1, 'c')",
    );
    let finished = pair.once();
    assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    assert_eq!(pair.pending(), 0);
}

#[test]
fn triggers_that_are_missing_disabled_doubled_or_out_of_order_are_told_and_mended() {
    let pair = Pair::new().with_a_table();
    pair.exec_both(
        "create table u (id int primary key); create table v (id int primary key);
         create table w (id int primary key); create table \"row\" (id int primary key);
         create function nothing() returns trigger language plpgsql as 'begin return null; end'",
    );
    pair.run(
        "select py_log_create_tg('u'); select py_log_create_tg('v');
         alter table t disable trigger \"!replica_tg\";
         create trigger \" first\" after insert on u for each row execute function nothing();
         create trigger replica_hand after insert or update on v for each row execute function py_log_replica('v', 'id');
         create trigger z_hand after insert or update or delete on w for each row execute function py_log_replica('w', 'id');
         create trigger audit after insert on w for each row execute function nothing();",
    );
    let found = faults(&pair, "");
    assert_finds(&found, "failure", "master", "disabled triggers", "\"!replica_tg\" on public.t is disabled");
    assert_finds(&found, "warning", "master", "trigger order", "\" first\" on public.u fires before");
    assert_finds(&found, "warning", "master", "superfluous triggers", "replica_hand on public.v");
    assert_finds(&found, "warning", "master", "trigger order", "audit on public.w fires before z_hand");
    assert_finds(&found, "warning", "master", "triggers", "public.\"row\" has no trigger");
    assert_eq!(found.len(), 5, "{found:#?}");
    apply_fixes(&pair, &found);
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
    for table in ["t", "u", "v", "w", "\"row\""] {
        pair.run(&format!("insert into {table} (id) values (1)"));
    }
    assert_eq!(pair.pending(), 5, "each change is logged once");
    pair.once();
    pair.assert_equal();
}

#[test]
fn a_table_that_a_cascade_would_not_hand_on_is_told() {
    let pair = Pair::new().with_a_table();
    pair.exec_both("create table u (id int primary key)");
    pair.run("select py_log_create_tg('u'); alter table t enable always trigger \"!replica_tg\"");
    let found = faults(&pair, "");
    assert_finds(&found, "warning", "master", "handing on", "public.t is not handed on");
    assert_finds(&found, "warning", "master", "handing on", "public.u is not handed on");
    apply_fixes(&pair, &found);
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
}

#[test]
fn encodings_that_differ_are_told_and_a_warning_only_if_something_may_not_fit() {
    let mut pair = Pair::with_master_encoding("LATIN1");
    let level = |pair: &Pair| {
        let found = checks(&doctor(pair, "", &["--json"]));
        found.into_iter().find(|check| check.subject == "encoding").expect("it is found").level
    };
    assert_eq!(level(&pair), "note");
    std::mem::swap(&mut pair.master_dsn, &mut pair.slave_dsn);
    assert_eq!(level(&pair), "warning");
    std::mem::swap(&mut pair.master_dsn, &mut pair.slave_dsn);
}

#[test]
fn what_fires_on_the_slave_is_told() {
    let pair = Pair::new().with_a_table();
    pair.run_on_slave(
        "create function nothing() returns trigger language plpgsql as 'begin return null; end';
         create trigger ordinary after insert on t for each row execute function nothing();
         create trigger fires after insert on t for each row execute function nothing();
         alter table t enable always trigger fires;
         create rule also as on insert to t do also notify x;
         alter table t enable always rule also;",
    );
    let found = checks(&doctor(&pair, "", &["--json"]));
    assert_finds(&found, "note", "slave", "slave triggers", "trigger fires on public.t");
    assert_finds(&found, "note", "slave", "slave triggers", "rule also on public.t");
    assert!(!found.iter().any(|check| check.text.contains("ordinary")), "{found:#?}");
    let notes: Vec<Check> = found.into_iter().filter(|check| check.subject == "slave triggers").collect();
    apply_fixes(&pair, &notes);
    assert_finds(&checks(&doctor(&pair, "", &["--json"])), "ok", "slave", "slave triggers", "none fires");
}

#[test]
fn sequences_that_are_behind_are_a_note_and_mended() {
    let pair = Pair::new();
    pair.exec_both("create table s (id serial primary key); create sequence \"Down'\" increment -1");
    pair.create_triggers();
    pair.run("insert into s select from generate_series(1, 5); select nextval('\"Down''\"')");
    let found = checks(&doctor(&pair, "", &["--json"]));
    assert_finds(&found, "note", "slave", "sequences", "behind the master's: 2");
    apply_fixes(&pair, &found);
    let found = checks(&doctor(&pair, "", &["--json"]));
    assert_finds(&found, "ok", "slave", "sequences", "none");
    assert_eq!(pair.on_slave("select nextval('s_id_seq')"), ["6"]);
}

#[test]
fn a_role_with_few_rights_is_told_what_it_lacks() {
    let mut pair = Pair::new().with_a_table();
    pair.exec_both("create schema \"S 1\"; create table \"S 1\".t (id int primary key)");
    pair.create_triggers_in("S 1");
    pair.run_on_slave("alter table t enable row level security");
    let role = format!("doctor_{}", std::process::id());
    for mut client in [pair.master(), pair.slave()] {
        client.batch_execute(&format!("create role {role} login")).unwrap();
    }
    let (master, slave) = (pair.master_dsn.clone(), pair.slave_dsn.clone());
    for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
        *dsn = dsn.replace("user=postgres", &format!("user={role}"));
    }
    let found = faults(&pair, "");
    assert_finds(&found, "failure", "master", "rights", "pyreplica's tables");
    assert_finds(&found, "failure", "slave", "rights", "on public.t");
    assert_finds(&found, "failure", "slave", "rights", "on \"S 1\".t");
    assert_finds(&found, "failure", "slave", "rights", "the schema \"S 1\"");
    assert_finds(&found, "warning", "slave", "replica role", "may not set");
    apply_fixes(&pair, &found);
    // Only with the right to use its schema can the role ask about a table.
    apply_fixes(&pair, &faults(&pair, ""));
    let left = faults(&pair, "");
    assert!(left.iter().all(|check| check.subject == "replica role" && check.fixes.is_empty()), "{left:#?}");
    pair.run("insert into t values (1, 'x'); insert into \"S 1\".t values (1)");
    pair.once();
    (pair.master_dsn, pair.slave_dsn) = (master, slave);
    for mut client in [pair.master(), pair.slave()] {
        client.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
    }
}

#[test]
fn what_a_crash_left_in_doubt_is_told_and_so_is_who_settles_it() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'one')");
    let mut daemon = pair.start_paused_at("slave-committed");
    daemon.wait_paused();
    daemon.kill9();
    let found = faults(&pair, "");
    assert_finds(&found, "warning", "", "in-doubt transactions", "committed on the slave: commit on the master");
    let hint = &found.iter().find(|check| check.subject == "in-doubt transactions").unwrap().hint;
    assert!(hint.contains("start the daemon"), "{hint}");
    pair.once();
    assert!(!faults(&pair, "").iter().any(|check| check.subject == "in-doubt transactions"));
}

/// Symptom: the statement failed, because the fence had made the database's sessions read-only too.
#[test]
fn a_fence_on_the_master_is_taken_down_by_the_statements() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'one')");
    pair.once();
    pair.done(&["switchover"]);
    // Somebody forgets who is the master.
    for run in [Pair::run, Pair::run_on_slave] {
        run(&pair, "begin read write; delete from replica_role; commit");
    }
    let found = faults(&pair, "");
    assert_finds(&found, "failure", "master", "fence", "the master's tables refuse every write: public.t");
    apply_fixes(&pair, &found);
    pair.run("insert into t values (2, 'two')");
}

#[test]
fn the_same_database_on_both_sides_and_a_bad_config_file_are_failures() {
    let mut pair = Pair::new().with_a_table();
    pair.slave_dsn = pair.master_dsn.replace("127.0.0.1", "localhost");
    assert_finds(&faults(&pair, ""), "failure", "", "databases", "the same database");
    let finished = doctor(&pair, "", &["/nonexistent/x.conf"]);
    assert_eq!(finished.code(), 9);
    assert!(finished.output.contains("/nonexistent/x.conf: there is no such file"), "{}", finished.output);
}

/// Symptom: doctor and compare gave statements for a standby, which refuses to run them; status failed there.
#[test]
fn statements_for_a_standby_are_said_to_be_for_its_primary() {
    let (mut master, mut slave) = (OwnCluster::start("master", "", &[]), OwnCluster::start("slave", "", &[]));
    if !master.can_back_up() || !slave.can_back_up() {
        eprintln!("skipped: there is no pg_basebackup");
        return;
    }
    let mut pair = Pair::on(master.server(), slave.server()).with_a_table();
    pair.exec_both("create role reader login");
    pair.run("select py_log_grant_monitor('reader')");
    pair.run("insert into t values (1, 'x')");
    pair.once();
    for cluster in [&mut master, &mut slave] {
        cluster.back_up("backup");
        cluster.become_standby("backup");
    }
    let status = pair.verb(&["status"]);
    assert!(status.output.contains("no daemon is connected") && !status.output.contains("cannot"), "{}", status.output);
    assert_eq!(pair.verb(&["compare"]).code(), 0);
    let paused = pair.verb(&["pause"]).output;
    assert!(paused.contains("read-only standby"), "{paused}");

    for dsn in [&mut pair.master_dsn, &mut pair.slave_dsn] {
        *dsn = dsn.replace("user=postgres", "user=reader");
    }
    let place = "on its primary: this server is a standby";
    let found = faults(&pair, "");
    assert_finds(&found, "failure", "master", "recovery", "standby");
    let writes = |text: &String| text.contains("GRANT ");
    let grants: Vec<&Check> =
        found.iter().filter(|check| check.fixes.iter().any(writes) || writes(&check.hint)).collect();
    assert!(
        grants.iter().any(|check| check.side == "master") && grants.iter().any(|check| check.side == "slave"),
        "{grants:#?}"
    );
    assert!(grants.iter().all(|check| check.hint.contains(place)), "{grants:#?}");
    let settings = checks(&doctor(&pair, "", &["--json"])).into_iter().filter(|check| check.subject == "durability");
    assert!(settings.into_iter().all(|check| !check.hint.contains(place)));
    let compared = pair.verb(&["compare"]).output;
    assert!(compared.contains(&format!("GRANT SELECT ON public.t TO ...; ({place})")), "{compared}");
}
