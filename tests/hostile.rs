//! Somebody who may create functions and tables in the schema public, as everybody may before PostgreSQL 15, makes ones that
//! fit pyreplica's calls better than PostgreSQL's own. None is ever called with the rights of an operator or a daemon.

use crate::harness::{Database, Feed, Pair, assert_says};

const INSTALL: &str = "master-install.sql";

/// Functions and operators for just the types that pyreplica calls them with. PostgreSQL's own take those by a conversion, or
/// are for any type at all.
fn traps() -> String {
    let mut traps = String::new();
    for function in [
        "format(text, text)",
        "format(text, name)",
        "format(text, regclass)",
        "format(text, text, text)",
        "format(text, name, name)",
        "array_agg(text)",
        "unnest(text[])",
        "unnest(name[])",
        "unnest(bigint[])",
        "unnest(int2vector)",
        "cardinality(text[])",
        "array_to_string(text[], text)",
        "concat_ws(text, text, text)",
        "concat_ws(text, name, text)",
        "max(xid8)",
        "min(text)",
        "has_table_privilege(regclass, text)",
        "pg_has_role(regrole, text)",
        "set_config(name, text, boolean)",
        "hashtext(name)",
        "to_regclass(name)",
        "pg_get_expr(pg_node_tree, regclass)",
        "py_log_create_tg(oid, text, text)",
        "py_log_refuse_key(regclass, text[])",
        "py_log_can_wake(name)",
    ] {
        traps.push_str(&format!(
            "create function public.{function} returns text language plpgsql as
                 $$ begin raise exception 'trapped as %', current_user; end $$;"
        ));
    }
    for (n, operator) in [
        "= regclass oid",
        "= oid regclass",
        "= regclass regclass",
        "= oid integer",
        "= tid text",
        "= varchar varchar",
        "> varchar varchar",
        "<> varchar varchar",
        "= text[] text[]",
        "|| text[] text[]",
        "|| name[] text[]",
        "|| text name",
        "|| name text",
        "&& bigint[] bigint[]",
        "<@ text[] text[]",
        "@> name[] text[]",
        "@> text[] text[]",
    ]
    .iter()
    .enumerate()
    {
        let [operator, left, right] = operator.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("three words");
        traps.push_str(&format!(
            "create function public.trap_{n}({left}, {right}) returns boolean language plpgsql as
                 $$ begin raise exception 'trapped as %', current_user; end $$;
             create operator public.{operator} (leftarg = {left}, rightarg = {right}, function = public.trap_{n});"
        ));
    }
    traps
}

#[test]
fn what_the_scripts_and_their_functions_call_is_postgresqls_own() {
    let mut database = Database::new();
    let (owner, intruder) = (database.owner(), database.role("intruder"));
    database.run(&format!("grant all on schema public to {owner}, {intruder}"));
    database.run_as(&intruder, &traps());
    for user in [owner.as_str(), "postgres"] {
        database.install(user, INSTALL);
        database.run_as(
            user,
            "create table t (id varchar primary key, a text, n numeric); create table st (id int primary key);
             create schema s; create table s.p (a int, b int, primary key (a, b)) partition by range (a);
             create table s.p1 partition of s.p for values from (0) to (9);
             create sequence numbers",
        );
        for call in [
            "py_log_create_tg('t')",
            "py_log_create_tg('st', 'statement')",
            "py_log_create_tg('s', 'p')",
            "py_log_create_tg('public', 'st', 'row')",
            "py_log_add_slave('second')",
            "py_log_can_wake('second')",
            "py_log_interleave('numbers', 1, 2)",
            &format!("py_log_grant('{owner}')"),
        ] {
            database.run_as(user, &format!("select {call}"));
        }
        database.run_as(
            user,
            "insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.n > 0');
             insert into py_log_transform (relname, field, expression) values ('t', 'a', 'upper(new.a)');
             insert into t values ('a', 'x', 1); update t set n = 2; delete from t; truncate t;
             insert into s.p values (1, 2); insert into replica_log(sql) values ('select 1')",
        );
        let shown = database.column_as(user, "select sql from replica_log_sql");
        assert_eq!(shown.len(), 6, "{shown:?}");
        assert_eq!(shown[0], r#"INSERT INTO "t" ("id", "a", "n") VALUES ('a', 'X', '1')"#);
        database.run_as(user, "select py_log_remove_slave('second')");
        database.install(user, INSTALL);
        database.install(user, "slave-install.sql");
        database.install(user, "slave-copy.sql");
        database.install(user, "master-uninstall.sql");
        database.run_as(user, "drop table t, st; drop schema s cascade; drop sequence numbers");
    }
}

#[test]
fn a_table_that_somebody_else_has_put_there_before_is_not_taken_over() {
    let mut database = Database::new();
    let (owner, intruder) = (database.owner(), database.role("intruder"));
    database.run(&format!("grant all on schema public to {owner}, {intruder}"));
    for (script, tables) in [
        (INSTALL, &["replica_log", "replica_slave", "replica_error", "replica_skipped", "py_log_filter"][..]),
        ("slave-install.sql", &["replica_progress", "replica_hold", "replica_held", "replica_conflict"]),
        ("slave-copy.sql", &["replica_copy"]),
    ] {
        for table in tables {
            let columns = if *table == "replica_log" { "id int, txid xid8, sql text, event text" } else { "id int" };
            database.run_as(&intruder, &format!("create table {table} ({columns}); grant all on {table} to public"));
            for user in [owner.as_str(), "postgres"] {
                let said = database.psql(user, Feed::File, script);
                assert!(said.text.contains(&format!("{table} of {intruder} already")), "{table}: {}", said.text);
            }
            database.run_as(&intruder, &format!("drop table {table}"));
        }
        // Another role's than the one that runs the script: it owns the database.
        database.install(&owner, script);
        database.install("postgres", script);
    }
}

const RULES: &str = "ON_ERROR=quarantine\nCONFLICT=newest(at), d update_differs warn, delete_differs warn\n";

/// Without the harness's own look at the catalog, which is trapped like any other.
#[track_caller]
fn assert_equal(pair: &Pair) {
    for table in ["t", "c", "d"] {
        let rows = format!("select x::text from {table} x order by 1");
        assert_eq!(pair.on_master(&rows), pair.on_slave(&rows), "{table}");
    }
}

/// Keys of types that have no operators of their own, such as varchar: an operator for just that type would be taken.
#[test]
fn what_the_daemon_and_the_verbs_call_is_postgresqls_own() {
    let pair = Pair::new();
    pair.exec_both(
        "create extension citext; create domain code as varchar(9); create type colour as enum ('red', 'green');
         create table t (id varchar primary key, a text[], at varchar, n numeric);
         create table c (id citext, a colour, k code, primary key (id, a));
         create table d (id int primary key, v varchar unique deferrable, at varchar)",
    );
    pair.create_triggers();
    pair.exec_both(&traps());
    pair.run(
        "insert into t select i::text, array['x', null], '1', i from generate_series(1, 50) i;
         insert into c values ('A', 'red', 'x'), ('b', 'green', 'y'); insert into d values (1, 'a', '1'), (2, 'b', '1')",
    );
    let drain = || {
        let finished = pair.try_once_by_file(RULES);
        assert!(finished.status.success() && !finished.output.contains("trapped"), "{}", finished.output);
    };
    drain();
    assert_equal(&pair);
    // Conflicts, single changes, sets, a transaction in quarantine, a paused table.
    pair.run_on_slave("update t set at = '0', n = 0 where id::text in ('1', '2'); update d set at = '7'; insert into c values ('q', 'red', 'z')");
    pair.run("update t set n = n + 1, at = '2' where id < '3'; update d set v = 'c' where id = 1; delete from d where id = 2");
    pair.run("update c set k = 'z'; delete from c where id = 'B'");
    pair.run("insert into c values ('q', 'red', 'y')");
    drain();
    pair.done(&["pause", "--table", "t"]);
    pair.run("update t set n = 100; truncate d; insert into replica_log(sql) values ('alter table d add z int')");
    pair.run("alter table d add z int; insert into d values (5, 'e', '1', 5)");
    drain();
    for words in
        [&["pending"][..], &["status"], &["doctor"], &["retry"], &["resume", "--table", "t"], &["compare"], &["repair"]]
    {
        let said = pair.verb(words);
        assert!(!said.output.contains("trapped"), "{words:?}: {}", said.output);
    }
    let id = pair.on_slave("select id from replica_held").remove(0);
    pair.done(&["skip", &id, "--yes"]);
    pair.run("delete from t where id::text = '7'; update t set id = '700' where id::text = '8'");
    let mut daemon = pair.start_with(RULES);
    pair.wait_caught_up();
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert!(!daemon.log().contains("trapped"), "{}", daemon.log());
    pair.run_on_slave("delete from c where id = 'q'");
    pair.run("delete from c where id = 'q'");
    drain();
    assert_equal(&pair);
}

/// A view would do, too: what it calls runs with the rights of its reader.
#[test]
fn the_daemon_uses_no_table_that_somebody_else_has_put_there() {
    let pair = Pair::new();
    let role = format!("{}_intruder", pair.name);
    pair.run_on_slave(&format!(
        "create role {role}; grant create on schema public to {role}; set role {role};
         create view replica_copy as select ''::text as master"
    ));
    let finished = pair.try_once();
    pair.run_on_slave(&format!("drop owned by {role}; drop role {role}"));
    assert_says(&finished.output, &[&format!("public.replica_copy belongs to {role}"), "hint: "]);
    assert_eq!(finished.code(), 5, "{}", finished.output);
    pair.once();
}
