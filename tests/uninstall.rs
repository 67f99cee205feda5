//! `pyreplica uninstall` leaves nothing of pyreplica, and everything else.

use crate::harness::{Finished, Pair, assert_says, run};

/// Whatever has one of our names, extensions aside.
const OURS: &str = "
    select c.relname::text from pg_class c where relnamespace = 'public'::regnamespace and relname ~ '^(replica_|py_log_)'
    union all
    select proname::text from pg_proc p where pronamespace = 'public'::regnamespace
       and not exists (select from pg_depend where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e')
       and proname <> 'mine'
    union all select tgname::text from pg_trigger where not tgisinternal and tgname <> 'mine'
    union all select evtname::text from pg_event_trigger
    union all select nspname::text from pg_namespace where nspname = 'pyreplica'
    union all select unnest(setconfig) from pg_db_role_setting
               where setdatabase = (select oid from pg_database where datname = current_database()) and setrole = 0
    order by 1";

fn uninstall(pair: &Pair, dsn: &str, more: &[&str]) -> Finished {
    run(&pair.dir().join("uninstall.log"), &[&["uninstall"], more, &[dsn]].concat(), &[])
}

/// A pair whose roles were exchanged, so that both sides have all there is.
fn exchanged() -> Pair {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key, a text); create schema s; create table s.u (id int primary key) partition by range (id);
         create table s.u1 partition of s.u for values from (0) to (9);
         create function mine() returns trigger language plpgsql as 'begin return new; end';
         create trigger mine before insert on t for each row execute function mine()",
    );
    pair.create_triggers();
    pair.create_triggers_in("s");
    pair.run("insert into t values (1, 'one'); insert into s.u values (1)");
    pair.once();
    for dsn in [&pair.master_dsn, &pair.slave_dsn] {
        let finished = run(&pair.dir().join("install.log"), &["install", "--ddl", dsn], &[]);
        assert_eq!(finished.code(), 0, "{}", finished.output);
    }
    pair.done(&["switchover"]);
    pair
}

#[test]
fn nothing_of_pyreplica_is_left_on_either_side_and_all_else_is() {
    let pair = exchanged();
    for (dsn, is_slave) in [(&pair.master_dsn, false), (&pair.slave_dsn, true)] {
        let ask = |sql: &str| if is_slave { pair.on_slave(sql) } else { pair.on_master(sql) };
        assert!(ask(OURS).len() > 20, "{:?}", ask(OURS));
        // Nobody can be asked here, so nothing happens.
        let finished = uninstall(&pair, dsn, &[]);
        assert_eq!(finished.code(), 2, "{}", finished.output);
        assert_says(&finished.output, &["cannot ask for confirmation here", "--yes"]);
        assert!(ask(OURS).len() > 20);

        let finished = uninstall(&pair, dsn, &["--yes"]);
        assert_eq!(finished.code(), 0, "{}", finished.output);
        assert_says(
            &finished.output,
            &["  triggers: ", "public.replica_log", "schemas: 1 (pyreplica)", "removed\nleft as they are"],
        );
        assert_eq!(ask(OURS), [""; 0], "{}", finished.output);
        assert_eq!(ask("select t::text from t"), ["(1,one)"]);
        assert_eq!(ask("select count(*) from s.u"), ["1"]);
        assert_eq!(ask("select tgname::text from pg_trigger where not tgisinternal"), ["mine"]);

        let finished = uninstall(&pair, dsn, &["--yes"]);
        assert_says(&finished.output, &["nothing of pyreplica is there"]);
        assert_eq!(finished.code(), 0);

        // For programs there is one document, of installing too.
        let parsed = |output: &str| serde_json::from_str::<serde_json::Value>(output).unwrap();
        let installed = run(&pair.dir().join("install.log"), &["install", "--json", dsn], &[]).output;
        assert_eq!(parsed(&installed)["installed"], true, "{installed}");
        for expected in [true, false] {
            let document = parsed(&uninstall(&pair, dsn, &["--yes", "--json"]).output);
            let removed = document["removed"].as_array().unwrap();
            assert_eq!(removed.iter().any(|one| one["name"] == "public.replica_log"), expected, "{document}");
        }
    }
    pair.run("insert into t values (2, 'not logged')");
    pair.run_on_slave("insert into t values (3, 'not fenced')");
}

#[test]
fn a_working_daemon_or_an_object_of_somebody_else_keeps_everything_as_it_is() {
    let pair = Pair::new().with_a_table();
    let daemon = pair.start();
    pair.run("insert into t values (1, 'one')");
    pair.wait_caught_up();
    for dsn in [&pair.master_dsn, &pair.slave_dsn] {
        let finished = uninstall(&pair, dsn, &["--yes"]);
        assert_eq!(finished.code(), 7, "{}", finished.output);
        assert_says(&finished.output, &["is at work", "stop the daemon first"]);
    }
    drop(daemon);
    let stranger = format!("{}_stranger", pair.name);
    pair.run_on_slave(&format!(
        "drop table replica_hold; create role {stranger}; create table replica_hold (id int); alter table replica_hold owner to {stranger}"
    ));
    let finished = uninstall(&pair, &pair.slave_dsn, &["--yes"]);
    pair.run_on_slave("drop table replica_hold");
    pair.run_on_slave(&format!("drop role {stranger}"));
    assert_eq!(finished.code(), 4, "{}", finished.output);
    assert_says(&finished.output, &["public.replica_hold belongs to", "who is not known to have installed pyreplica"]);
    assert_eq!(pair.on_slave("select count(*) from replica_progress"), ["1"]);
}

/// Anybody may prepare a transaction under a name that looks like ours.
#[test]
fn a_strangers_prepared_transaction_keeps_nothing_from_being_uninstalled() {
    let pair = Pair::new().with_a_table();
    pair.run("insert into t values (1, 'a')");
    pair.once();
    let stranger = format!("{}_stranger", pair.name);
    for (mut session, dsn) in [(pair.slave(), &pair.slave_dsn), (pair.master(), &pair.master_dsn)] {
        let mut run = |sql: &str| session.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        run(&format!("create role {stranger}"));
        run(&format!("set role {stranger}"));
        run("begin; select txid_current()");
        run("prepare transaction 'pyreplica:db:replicated:slave:1:0:0'");
        run("reset role; set application_name = 'test'");
        let finished = uninstall(&pair, dsn, &["--yes"]);
        run("rollback prepared 'pyreplica:db:replicated:slave:1:0:0'");
        run(&format!("drop role {stranger}"));
        assert!(finished.status.success(), "{}", finished.output);
    }
}
