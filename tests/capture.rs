//! What the trigger writes into the log, no matter who changes a row and however hostile their session, and whom it wakes.

use crate::harness::{Database, Pair, drains, wait_until};
use std::time::Duration;

/// A database with pyreplica in it, owned by a role that is no superuser, and a role of an application.
fn installed() -> (Database, String, String) {
    let mut database = Database::new();
    let (owner, application) = (database.owner(), database.role("app"));
    database.install(&owner, "master-install.sql");
    (database, owner, application)
}

// == Rights ==

#[test]
fn an_application_needs_no_right_on_the_log() {
    let (database, owner, application) = installed();
    database.run_as(
        &owner,
        &format!(
            "create table t (id int primary key, a text); select py_log_create_tg('t');
             grant select, insert, update, delete, truncate on t to {application}"
        ),
    );
    for level in ["row", "statement"] {
        database.run_as(&owner, &format!("select py_log_create_tg('t', '{level}')"));
        for style in ["iso", "german"] {
            let load = "insert into t values (1, 'one'); update t set a = 'two'; delete from t; truncate t";
            database.run_as(&application, &format!("set datestyle = {style}; {load}"));
        }
    }
    let user = "select distinct username from replica_log";
    assert_eq!(database.column(user), [application.as_str()], "the log shows who did it");
    assert_eq!(database.column("select count(*) from replica_log"), ["16"]);
}

#[test]
fn nobody_but_the_owner_can_write_the_log_or_have_the_trigger_write_it() {
    let (database, owner, application) = installed();
    database.run(&format!("create schema theirs authorization {application}; grant create on schema public to public"));
    database.run_as(&application, "create table theirs.t (id int primary key)");
    for attempt in [
        "insert into replica_log(sql) values ('DROP DATABASE slave')",
        "insert into replica_log(event, sql) values ('S', 'DROP DATABASE slave')",
        "update replica_log set sql = 'x'",
        "delete from replica_log",
        "truncate replica_log",
        "select * from replica_log",
        "select * from replica_log_sql",
        "update replica_slave set batch = 0",
        "select nextval('replica_log_id_seq')",
        "select nextval('replica_batch_seq')",
        "select py_log_statement()",
        "create trigger forged after insert on theirs.t for each row execute function py_log_replica('secret', 'id')",
        "create function pg_temp.f() returns text language sql as 'select 1'; alter function py_log_replica() reset all",
        "drop table replica_log",
    ] {
        let said = database.refused_as(&application, attempt);
        assert!(said.starts_with("permission denied") || said.starts_with("must be owner"), "{attempt}: {said}");
    }
    // And the owner of a table cannot have it logged: what is logged runs on the slave.
    let call = "select py_log_create_tg('theirs', 't')";
    assert!(database.refused_as(&application, call).starts_with("permission denied for function"));
    database.run_as(&owner, "insert into replica_log(sql) values ('ALTER TABLE t ADD x int')");
}

/// The trigger runs with its owner's rights in a session of anybody. Whatever it does not name with its schema could be
/// somebody else's: a function, an operator, or a type with a check behind it. Types are looked for in pg_temp first,
/// without any search_path being set.
#[test]
fn what_an_application_puts_before_pg_catalog_is_never_called() {
    let (database, owner, application) = installed();
    database.run_as(
        &owner,
        &format!(
            "create table t (id int primary key, a text, b interval); select py_log_create_tg('t');
             create table st (id int primary key, a text, b interval); select py_log_create_tg('st', 'statement');
             create table p (id int primary key, a text) partition by range (id);
             create table p1 partition of p for values from (0) to (9); select py_log_create_tg('p');
             grant select, insert, update, delete, truncate on t, st, p to {application}"
        ),
    );
    // Before PostgreSQL 15 everybody may create functions in public, where ours and hstore's are.
    database.run(&format!(
        "create schema evil authorization {application}; grant create on schema public to {application}"
    ));
    let mut traps = String::from(
        "create function evil.trap() returns bool language plpgsql as
             $$ begin raise exception 'called as %', current_user; end $$;",
    );
    for (name, argument) in [
        ("quote_ident", "text"),
        ("quote_ident", "name"),
        ("pg_notify", "text, text"),
        ("current_setting", "text"),
        ("current_setting", "text, boolean"),
        ("left", "text, int"),
        ("pg_partition_root", "regclass"),
        ("strpos", "text, text"),
        ("substr", "text, int"),
        ("set_config", "text, text, boolean"),
        ("nextval", "regclass"),
        ("pg_current_xact_id", ""),
        ("pg_column_size", "public.hstore"),
        ("cardinality", "text[]"),
        ("hstore", "record"),
        ("slice", "public.hstore, text[]"),
        ("akeys", "public.hstore"),
    ] {
        traps.push_str(&format!(
            "create function evil.{name}({argument}) returns text language plpgsql as 'begin return evil.trap(); end';"
        ));
    }
    for (operator, left, right) in [
        ("=", "text", "text"),
        ("<>", "text", "text"),
        ("<>", "text", "name"),
        ("=", "name", "text"),
        ("||", "text", "text"),
        ("~~", "text", "text"),
        ("~", "text", "text"),
        (">", "int", "int"),
        ("=", "int", "int"),
        ("-", "int", "int"),
        ("-", "public.hstore", "public.hstore"),
        ("||", "public.hstore", "public.hstore"),
        ("@>", "public.hstore", "public.hstore"),
        ("*=", "record", "record"),
        ("<>", "\"char\"", "\"char\""),
        ("=", "\"char\"", "\"char\""),
        ("<>", "name", "name"),
        ("<>", "text[]", "text[]"),
        ("&", "smallint", "smallint"),
        ("=", "oid", "oid"),
        ("=", "bigint", "bigint"),
        ("<=", "int", "int"),
    ] {
        let function = format!("evil.operate_{}({left}, {right})", traps.len());
        let (name, _) = function.split_once('(').unwrap();
        traps.push_str(&format!(
            "create function {function} returns bool language plpgsql as 'begin return evil.trap(); end';
             create operator evil.{operator} (leftarg = {left}, rightarg = {right}, function = {name});"
        ));
    }
    // A function for the very rows of a table is a better match than ours for any record.
    for (name, table) in [("hstore", "t"), ("hstore", "st"), ("hstore", "p1"), ("exact", "t"), ("exact", "p1")] {
        traps.push_str(&format!(
            "create function public.{name}(public.{table}) returns public.hstore language plpgsql
                 as 'begin raise ''called as %'', current_user; end';"
        ));
    }
    for schema in ["evil", "pg_temp"] {
        for name in ["text", "\"char\"", "name", "int4", "record", "bool", "regclass", "hstore"] {
            traps.push_str(&format!("create domain {schema}.{name} as pg_catalog.text check (evil.trap());"));
        }
    }
    for path in ["evil, pg_catalog, public", "pg_catalog, public"] {
        for style in ["iso, mdy", "german"] {
            let load = "
                insert into public.t values (1, repeat('x', 5000), '1 day'); update public.t set b = '2 days';
                update public.t set id = 2; delete from public.t; truncate public.t;
                insert into public.st values (1, repeat('x', 5000), '1 day'); update public.st set b = '2 days';
                with i as (insert into public.st values (7)) update public.st set id = 2; delete from public.st;
                insert into public.p values (1, 'a'); update public.p1 set a = 'b'; delete from public.p";
            let session = format!("begin; {traps} set search_path = {path}; set datestyle = {style}; {load}; rollback");
            let session = session.replace("update public.p1", "update public.p");
            database.run_as(&application, &session);
        }
    }
}

// == Payload ==

#[test]
fn a_small_change_of_a_wide_row_logs_only_key_and_change() {
    let (database, owner, _) = installed();
    database.run_as(
        &owner,
        "create table t (k1 int, k2 text, n int, m int, wide text, primary key (k2, k1)); select py_log_create_tg('t');
         insert into t values (1, 'one', 0, 0, (select string_agg(md5(i::text), '') from generate_series(1, 3200) i))",
    );
    assert_eq!(database.column("select length(wide) > 100000 from t"), ["t"]);
    database.run_as(&owner, "truncate replica_log; update t set n = 1");
    let logged = "select old::text || ' -> ' || new::text from replica_log order by id";
    let expected = r#""n"=>"0", "k1"=>"1", "k2"=>"one" -> "n"=>"1""#;
    assert_eq!(database.column(logged), [expected]);
    assert_eq!(
        database.column("select sql from replica_log_sql"),
        [r#"UPDATE "t" SET "n"='1' WHERE "k2"='one' AND "k1"='1'"#]
    );
    // When the key changes, the whole old row tells it from another that holds the same key meanwhile.
    database.run_as(&owner, "truncate replica_log; update t set k1 = 2");
    assert_eq!(database.column("select length(old -> 'wide') > 100000 from replica_log"), ["t"]);
}

#[test]
fn what_changes_nothing_is_not_logged_and_what_changes_the_text_is() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, n numeric, a text, c char(5), j json, f float8)");
    pair.create_triggers();
    pair.run("insert into t values (1, 1.0, 'a', 'x', '{\"a\":1}', 0)");
    drains(&pair);
    pair.run("update t set n = n, a = a || '', j = j; update t set id = 1, n = '1.0' where id = 1");
    assert_eq!(pair.logged(), 0);
    // Each is equal to the former value, or has no equality at all, and yet is another.
    let changes = ["n = 1.00", "j = '{\"a\": 1}'", "f = '-0'"];
    for (logged, change) in (1..).zip(changes) {
        pair.run(&format!("update t set {change}"));
        assert_eq!(pair.logged(), logged, "{change}");
    }
    drains(&pair);
    assert_eq!(pair.on_slave("select n || ' ' || j::text || ' ' || f::text from t"), ["1.00 {\"a\": 1} -0"]);
}

#[test]
fn the_log_shows_each_change_as_the_instruction_it_stands_for() {
    let (database, owner, _) = installed();
    database.run_as(
        &owner,
        r#"create table "My ""T""" (id int primary key, "A" text, b int); select py_log_create_tg('My "T"');
           insert into "My ""T""" values (1, 'it''s', null), (2, e'back\\slash', 2);
           update "My ""T""" set "A" = null, b = 7 where id = 1;
           update "My ""T""" set id = 3 where id = 2;
           delete from "My ""T""" where id = 3;
           truncate "My ""T""";
           insert into replica_log(sql) values ('ALTER TABLE x ADD y int')"#,
    );
    let expected = [
        r#"INSERT INTO "My ""T""" ("id", "A", "b") VALUES ('1', 'it''s', NULL)"#,
        r#"INSERT INTO "My ""T""" ("id", "A", "b") VALUES ('2',  E'back\\slash', '2')"#,
        r#"UPDATE "My ""T""" SET "A"=NULL, "b"='7' WHERE "id"='1'"#,
        r#"UPDATE "My ""T""" SET "id"='3' WHERE "id"='2'"#,
        r#"DELETE FROM "My ""T""" WHERE "id"='3'"#,
        r#"TRUNCATE "My ""T""""#,
        "ALTER TABLE x ADD y int",
    ];
    let shown = database.column("select sql from replica_log_sql");
    assert_eq!(shown.iter().map(|sql| sql.replace("  E'", " E'")).collect::<Vec<_>>(), {
        expected.map(|sql| sql.replace("  E'", " E'"))
    });
    assert_eq!(database.column("select py_log_sql(l) from replica_log l order by id"), shown);
}

#[test]
fn a_trigger_made_by_hand_replicates_a_table_without_a_key() {
    let pair = Pair::new();
    pair.exec_both("create table tt (id1 int, id2 text, a text, wide text)");
    pair.run(
        "create trigger by_hand after insert or update or delete on tt
         for each row execute function py_log_replica('tt', 'id1', 'id2')",
    );
    pair.run(
        "insert into tt select i % 10, 'x' || i, 'a', repeat('wide ', 1000 * (i % 2)) from generate_series(1, 40) i",
    );
    drains(&pair);
    pair.run(
        "update tt set a = 'b' where id1 < 5; delete from tt where id1 = 7; update tt set id2 = 'y' where id2 = 'x33'",
    );
    drains(&pair);
    pair.run("update tt set wide = null, id1 = id1 + 1; update tt set a = null where id1 = 3");
    drains(&pair);
}

// == Wake-ups ==

#[test]
fn a_free_statement_wakes_the_daemon_at_once() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key)");
    let daemon = pair.start_with("TIMEOUT=3600\nDEBUG_LEVEL=3\n");
    wait_until("the daemon waits", || daemon.log().trim_end().ends_with("Waiting for 'NOTIFY'"));
    pair.run("alter table t add a text; insert into replica_log(sql) values ('ALTER TABLE t ADD a text')");
    pair.wait_caught_up();
    pair.run_on_slave("insert into t(a) select '' where false");
}

#[test]
fn a_session_that_switches_signals_off_sends_none_and_can_prepare() {
    let (database, owner, application) = installed();
    database.run_as(
        &owner,
        &format!(
            "create table t (id int primary key); select py_log_create_tg('t'); grant insert on t to {application}"
        ),
    );
    database.run(&format!("alter role {application} set pyreplica.notify = off"));
    let mut listener = database.connect();
    // As a daemon that sleeps.
    listener.batch_execute("listen replicas; select pg_advisory_lock(1887007335, hashtext('replicated'))").unwrap();
    let gid = format!("application {}", database.name);
    database.run_as(&application, "insert into t values (1)");
    database.run_as(&application, &format!("begin; insert into t values (2); prepare transaction '{gid}'"));
    database.run_as(&application, &format!("commit prepared '{gid}'"));
    let mut loud = database.connect_as(&owner);
    let pid: i32 = loud.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    loud.batch_execute("insert into t values (3), (4)").unwrap();
    // The first that comes is the loud one's: nothing came before.
    let mut notifications = listener.notifications();
    let first = fallible_iterator::FallibleIterator::next(&mut notifications.timeout_iter(Duration::from_secs(60)));
    assert_eq!(first.unwrap().expect("a notification").process_id(), pid);
    assert_eq!(database.column("select count(*) from replica_log"), ["4"]);
    // Elsewhere PostgreSQL itself refuses, as long as the daemon sleeps.
    let refused = database.refused_as(&owner, &format!("begin; insert into t values (5); prepare transaction '{gid}'"));
    assert!(
        refused.starts_with("cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"),
        "{refused}"
    );
}

/// Symptom: each change of a partition was logged twice, and the second one stopped the pair.
/// Cause: somebody had made the root's trigger by hand, and the partition had one of py_log_create_tg.
#[test]
fn a_change_is_logged_once_however_many_triggers_a_table_has() {
    let (database, owner, _) = installed();
    let by_hand = |name: &str, table: &str| {
        format!(
            "create trigger {name} after insert or update or delete on {table}
             for each row execute function py_log_replica('{table}', 'id')"
        )
    };
    database.run_as(
        &owner,
        "create table r (id int, d int) partition by range (d);
         create table r1 partition of r (primary key (id)) for values from (1) to (10);
         create table t (id int primary key)",
    );
    database.run_as(&owner, &by_hand("replica_tg", "r"));
    assert_eq!(
        database.column_as(&owner, "select py_log_create_tg('r1')"),
        ["table r1 is replicated through public.r, by a trigger made by hand (couldn't be replicated)!"]
    );
    database.run_as(&owner, "insert into r values (2, 1); update r set d = 2; delete from r");
    let logged = "select string_agg(event::text, '' order by id) from replica_log where relation ~ 'r'";
    assert_eq!(database.column(logged), ["IUD"]);
    // The other way round, and two of them by hand.
    database.run_as(&owner, "drop trigger replica_tg on r; select py_log_create_tg('r1'), py_log_create_tg('t')");
    database.run_as(&owner, &[by_hand("a", "r"), by_hand("b", "t"), by_hand("c", "t")].join(";"));
    database.run("truncate replica_log");
    database
        .run_as(&owner, "insert into r values (2, 1); insert into t values (1); update t set id = 2; delete from t");
    assert_eq!(database.column("select count(*) from replica_log"), ["4"]);
    database.run_as(&owner, "alter table t disable trigger \"!replica_tg\"; insert into t values (1)");
    assert_eq!(database.column("select count(*) from replica_log"), ["5"]);
}

/// Symptom: the daemon could not mark what it had replayed: "cannot update table replica_log because it does not have a replica
/// identity and publishes updates".
#[test]
fn a_publication_for_all_tables_is_not_in_the_way() {
    let pair = Pair::new().with_a_table();
    pair.run("create publication everything for all tables");
    pair.run_on_slave("create publication everything for all tables");
    let _daemon = pair.start_with("RETENTION=3600\n");
    pair.run("insert into t values (1, 'a')");
    pair.wait_caught_up();
    wait_until("the change is flagged", || {
        pair.on_master("select count(*) from replica_log where replicated") == ["1"]
    });
    assert_eq!(pair.on_slave("select a from t"), ["a"]);
}
