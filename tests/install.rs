//! The SQL scripts as an operator runs them: by psql, by file or by standard input, twice, as a superuser or as the plain
//! owner of the database; and py_log_create_tg with whatever table it is given.

use crate::harness::{self, Database, Feed};
use std::path::Path;

const INSTALL: &str = "master-install.sql";
const UNINSTALL: &str = "master-uninstall.sql";

/// The SELECT that the documentation gives for all tables at once.
const CREATE_TRIGGERS: &str = "SELECT py_log_create_tg(relname::text) FROM pg_class \
     WHERE relname::text !~ '^(pg_|sql_)' AND relkind = 'r' AND relname != 'replica_log' ORDER BY 1";

/// What the scripts make in a database, extensions aside.
const OWN_OBJECTS: &str = "
    select c.oid::regclass::text from pg_class c where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'S')
    union all
    select p.oid::regprocedure::text from pg_proc p where pronamespace = 'public'::regnamespace
       and not exists (select from pg_depend where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e')
    union all
    select tgname || tgrelid::regclass from pg_trigger where not tgisinternal
    union all
    select nspname from pg_namespace where nspname = 'pyreplica'
    order by 1";

/// A database with pyreplica in it, installed by the superuser.
fn installed() -> Database {
    let database = Database::new();
    database.install("postgres", INSTALL);
    database
}

// == The scripts ==

#[test]
fn each_script_runs_twice_by_file_and_by_input_for_a_superuser_and_for_an_owner() {
    for feed in [Feed::File, Feed::Input] {
        for as_owner in [false, true] {
            let mut database = Database::new();
            let user = if as_owner { database.owner() } else { "postgres".into() };
            let run = |script| {
                let said = database.psql(&user, feed, script);
                assert!(said.success && said.text.is_empty(), "{script} by {feed:?} as {user}: {said:?}");
            };
            run(INSTALL);
            database.run_as(&user, "create schema s; create table s.t (id int primary key, a text)");
            database.run_as(&user, "select py_log_create_tg('s', 't'); insert into s.t values (1, 'one')");
            let made = database.column(OWN_OBJECTS);
            run(INSTALL);
            assert_eq!(database.column(OWN_OBJECTS), made);
            assert_eq!(
                database.column("select count(*) from replica_log"),
                ["1"],
                "a second run keeps what is pending"
            );
            database.run_as(&user, "update s.t set a = 'two'; delete from s.t");
            assert_eq!(database.column_as(&user, "select event from replica_log order by id"), ["I", "U", "D"]);

            run(UNINSTALL);
            assert_eq!(database.column(OWN_OBJECTS), [""; 0]);
            database.run_as(&user, "insert into s.t values (2, 'not logged')");
            run(UNINSTALL);
            run("slave-install.sql");
            run("slave-install.sql");
            let of_the_slave = [
                "replica_conflict",
                "replica_conflict_id_seq",
                "replica_held",
                "replica_held_place_seq",
                "replica_hold",
                "replica_progress",
                "replica_skipped",
                "replica_skipped_place_seq",
            ];
            assert_eq!(database.column(OWN_OBJECTS), of_the_slave);
            // And back again.
            run(INSTALL);
            database.run_as(&user, "select py_log_create_tg('s', 't'); delete from s.t");
            assert_eq!(database.column_as(&user, "select sql from replica_log_sql").len(), 1);
        }
    }
}

#[test]
fn hstore_may_be_in_any_schema() {
    let mut database = Database::new();
    let owner = database.owner();
    database.run_as(&owner, "create schema \"Our Extensions\"; create extension hstore schema \"Our Extensions\"");
    database.install(&owner, INSTALL);
    database.run_as(&owner, "create table t (id int primary key, a text); select py_log_create_tg('t')");
    database.run_as(&owner, "insert into t values (1, 'one'); update t set a = 'two'; delete from t");
    let expected = [
        r#"INSERT INTO "t" ("id", "a") VALUES ('1', 'one')"#,
        r#"UPDATE "t" SET "a"='two' WHERE "id"='1'"#,
        r#"DELETE FROM "t" WHERE "id"='1'"#,
    ];
    assert_eq!(database.column_as(&owner, "select sql from replica_log_sql"), expected);
    // It is moved: the script is to be run again.
    database.run_as("postgres", "alter extension hstore set schema public");
    database.install(&owner, INSTALL);
    assert_eq!(database.column_as(&owner, "select sql from replica_log_sql"), expected);
    database.run_as(&owner, "insert into t values (1, repeat('wide', 5000)); update t set a = 'narrow'");
    assert_eq!(database.column("select count(*) from replica_log"), ["5"]);
    database.install(&owner, UNINSTALL);
    assert_eq!(database.column("select count(*) from pg_extension where extname = 'hstore'"), ["1"]);
}

#[test]
fn uninstalling_refuses_while_a_transaction_is_in_doubt() {
    let database = installed();
    database.run("create table t (id int primary key); select py_log_create_tg('t'); insert into t values (1)");
    let gid = format!("pyreplica:{}:replicated:master:1:0000000000000abc", database.name);
    // Not a replica's: the script has no business with it.
    let other = format!("of an application in {}", database.name);
    database.run(&format!("begin; create table mine (); prepare transaction '{other}'"));
    database.run(&format!("begin; delete from replica_log; prepare transaction '{gid}'"));
    let said = database.psql("postgres", Feed::File, UNINSTALL);
    let expected = format!("in-doubt transactions of a replica: {gid}\nHINT:  Start pyreplica once more");
    assert!(said.text.contains(&expected) && !said.text.contains(&other), "{}", said.text);
    assert_eq!(database.column("select count(*) from replica_log_sql"), ["1"], "everything is still there");
    database.run(&format!("rollback prepared '{gid}'"));
    database.install("postgres", UNINSTALL);
    assert_eq!(database.column(OWN_OBJECTS), ["t"]);
}

#[test]
fn the_binary_installs_too_and_leaves_alone_what_is_there() {
    let mut database = Database::new();
    let owner = database.owner();
    database.run_as(
        &owner,
        "create table tt (id1 int, id2 int, a text, primary key (id1, id2)); create table nokey (a text);
         create schema s; create table s.\"Odd\" (\"Key\" int primary key);
         create table p (id int primary key) partition by range (id);
         create table p1 partition of p for values from (0) to (10)",
    );
    let dsn = database.server().dsn(&database.name).replace("user=postgres", &format!("user={owner}"));
    // In the order of schemas and names; partitions come with their root.
    let nokey = "table nokey has no pk constraint (couldn't be replicated)!\n";
    let hint = "hint: without a primary key, ALTER TABLE ... REPLICA IDENTITY USING INDEX ...; names a unique index whose columns \
                identify a row (they must be NOT NULL), and ALTER TABLE ... REPLICA IDENTITY FULL; says that the whole row does. \
                Then run pyreplica install again\n";
    let first = format!(
        "{nokey}created trigger on p (id)\ncreated trigger on tt (id1,id2)\ncreated trigger on Odd (Key)\n{hint}"
    );
    let second =
        format!("p has its trigger (id)\ntt has its trigger (id1,id2)\nOdd has its trigger (Key)\n{nokey}{hint}");
    // A trigger that is not as it should be is created again.
    let changed = second
        .replace("tt has its trigger (id1,id2)\n", "")
        .replace(hint, &format!("created trigger on tt (id2,id1)\n{hint}"));
    let triggers = "select string_agg(oid::text, ' ' order by oid) from pg_trigger where tgname ~ '^!replica'";
    let mut before = Vec::new();
    for (turn, expected) in [("first", first), ("second", second), ("third", changed)] {
        if turn == "third" {
            assert_eq!(database.column(triggers), before);
            database.run_as(&owner, "alter table tt drop constraint tt_pkey, add primary key (id2, id1)");
        }
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{turn}", database.name));
        let finished = harness::run(&log, &["install", &dsn], &[]);
        assert!(finished.status.success(), "{}", finished.output);
        assert_eq!(finished.output, expected, "{turn} run");
        before = database.column(triggers);
        std::fs::remove_file(&log).unwrap();
    }
}

#[test]
fn a_schema_of_somebody_else_where_the_trigger_would_call_is_refused() {
    let mut database = Database::new();
    let (owner, other) = (database.owner(), database.role("other"));
    database.run(&format!("create schema pyreplica authorization {other}"));
    for user in [owner.as_str(), "postgres"] {
        let said = database.psql(user, Feed::File, INSTALL);
        assert!(said.text.contains("ERROR:  the schema pyreplica belongs to somebody else"), "{}", said.text);
        assert_eq!(database.column("select to_regclass('replica_log')"), [""]);
    }
    database.run("alter schema pyreplica rename to theirs");
    database.install(&owner, INSTALL);
    // The superuser may run it again for the owner.
    database.install("postgres", INSTALL);
    let attempt = "create function pyreplica.f() returns int language sql as 'select 1'";
    assert_eq!(database.refused_as(&other, attempt), "permission denied for schema pyreplica");
}

// == py_log_create_tg ==

#[test]
fn the_lines_are_the_originals_in_both_signatures_and_every_time() {
    let database = installed();
    database.run(
        "create table tt (id2 int, a text, id1 int, primary key (id1, id2)); create table t (a text);
         create schema s; create table s.u (id int primary key)",
    );
    let created = "created trigger on tt (id1,id2)";
    let no_key = "table t has no pk constraint (couldn't be replicated)!";
    for _ in 0..2 {
        assert_eq!(database.column("select py_log_create_tg('tt')"), [created]);
        assert_eq!(database.column("select py_log_create_tg('public', 'tt')"), [created]);
        assert_eq!(database.column("select py_log_create_tg('t')"), [no_key]);
        assert_eq!(database.column("select py_log_create_tg('public', 't')"), [no_key]);
        assert_eq!(database.column("select py_log_create_tg('s', 'u')"), ["created trigger on u (id)"]);
    }
    let triggers = "select tgrelid::regclass || ' ' || tgname from pg_trigger where tgname ~ '^!replica' order by 1";
    let one_each = ["s.u !replica_tg", "s.u !replica_truncate_tg", "tt !replica_tg", "tt !replica_truncate_tg"];
    assert_eq!(database.column(triggers), one_each);
    for (call, message) in [("'nil'", "table nil does not exist"), ("'s', 'nil'", "table s.nil does not exist")] {
        assert_eq!(database.refused_as("postgres", &format!("select py_log_create_tg({call})")), message);
    }
}

#[test]
fn the_documented_select_takes_all_tables_and_leaves_pyreplicas_own_alone() {
    let database = installed();
    database.install("postgres", "slave-install.sql");
    database.run("create table t (id int primary key); create table u (a text)");
    let own = [
        "py_log_filter",
        "py_log_transform",
        "replica_conflict",
        "replica_error",
        "replica_held",
        "replica_history",
        "replica_hold",
        "replica_progress",
        "replica_purged",
        "replica_skipped",
        "replica_slave",
        "replica_table",
    ];
    let mut expected = vec!["created trigger on t (id)".to_string()];
    expected.extend(own.map(|table| format!("table {table} is pyreplica's own (couldn't be replicated)!")));
    expected.push("table u has no pk constraint (couldn't be replicated)!".to_string());
    assert_eq!(database.column(CREATE_TRIGGERS), expected);
    let own = "table replica_log is pyreplica's own (couldn't be replicated)!";
    assert_eq!(database.column("select py_log_create_tg('replica_log')"), [own]);
}

#[test]
fn tables_of_one_name_in_two_schemas_are_told_apart() {
    let database = installed();
    database.run(
        "create schema s; create schema r; create table public.t (id int primary key);
         create table s.t (k1 int, k2 int, primary key (k1, k2)); create table r.t (a text)",
    );
    let lines = "created trigger on t (id)\n\
                 table r.t has no pk constraint (couldn't be replicated)!\n\
                 created trigger on s.t (k1,k2)";
    assert_eq!(database.column("select py_log_create_tg('t')"), [lines]);
    database.run("insert into s.t values (1, 2); insert into public.t values (3); update s.t set k2 = 4");
    let logged = [
        r#"INSERT INTO "s"."t" ("k1", "k2") VALUES ('1', '2')"#,
        r#"INSERT INTO "t" ("id") VALUES ('3')"#,
        r#"UPDATE "s"."t" SET "k2"='4' WHERE "k1"='1' AND "k2"='2'"#,
    ];
    assert_eq!(database.column("select sql from replica_log_sql"), logged);
}

#[test]
fn a_partition_is_replicated_through_its_root() {
    let database = installed();
    database.run(
        "create table p (id int primary key, a text) partition by range (id);
         create table p1 partition of p for values from (0) to (100) partition by range (id);
         create table p11 partition of p1 for values from (0) to (50);
         create table p2 partition of p for values from (100) to (200)",
    );
    for table in ["p11", "p", "p1", "p2"] {
        let call = format!("select py_log_create_tg('{table}')");
        assert_eq!(database.column(&call), [format!("created trigger on {table} (id)")]);
    }
    database.run("insert into p values (1, 'a'); insert into p2 values (101, 'b'); update p11 set a = 'c'");
    database.run("create table p3 partition of p for values from (200) to (300); insert into p3 values (201, 'd')");
    let logged = database.column("select relation || ' ' || event::text from replica_log order by id");
    assert_eq!(logged, ["public.p I", "public.p I", "public.p U", "public.p I"]);
}

#[test]
fn tables_that_cannot_be_replicated_are_named_with_the_reason() {
    let mut database = Database::new();
    let (owner, other) = (database.owner(), database.role("other"));
    database.install(&owner, INSTALL);
    database.run("create table of_hstore (id int primary key); alter extension hstore add table of_hstore");
    database.run(&format!("create table theirs (id int primary key); alter table theirs owner to {other}"));
    let line = |table: &str, why: &str| format!("table {table} {why} (couldn't be replicated)!");
    let said = |call: &str| database.column_as(&owner, &format!("select py_log_create_tg({call})"));
    assert_eq!(said("'of_hstore'"), [line("of_hstore", "belongs to an extension")]);
    assert_eq!(said("'theirs'"), [line("theirs", "belongs to somebody else")]);
    let temporary = "create temp table passing (id int primary key); select py_log_create_tg('pg_temp', 'passing')";
    assert_eq!(database.column_as(&owner, temporary), [line("passing", "is temporary")]);
    // One bad table does not spoil the SELECT for all of them.
    database.run_as(&owner, "create table mine (id int primary key)");
    assert_eq!(database.column_as(&owner, CREATE_TRIGGERS)[0], "created trigger on mine (id)");
    // With the right to, somebody else's table is no obstacle.
    database.run(&format!("grant trigger on theirs to {owner}"));
    assert_eq!(said("'theirs'"), ["created trigger on theirs (id)"]);
    database.run_as(&other, "insert into theirs values (1)");
    assert_eq!(database.column("select sql from replica_log_sql").len(), 1);
}

#[test]
fn a_row_trigger_that_may_write_to_rows_of_its_statement_is_warned_of() {
    let database = installed();
    database.run(
        "create table t (id int primary key, a text); create table other (id int primary key);
         create function writes() returns trigger language plpgsql as
             $$ begin update other set id = id where false; return new; end $$;
         create function stamps() returns trigger language plpgsql as $$ begin new.a := 'x'; return new; end $$;
         create trigger harmless before insert on t for each row execute function stamps();
         create trigger also_harmless after insert on t for each row execute function writes()",
    );
    let quiet = database.psql_command("postgres", "select py_log_create_tg('t')");
    assert_eq!(quiet.text, "created trigger on t (id)\n");
    database.run("create trigger suspect before update on t for each row execute function writes()");
    let said = database.psql_command("postgres", "select py_log_create_tg('t')");
    assert!(said.success && said.text.contains("created trigger on t (id)"), "{}", said.text);
    let warning = "WARNING:  trigger suspect on t runs before each row and seems to write to tables";
    assert_eq!(said.text.matches("WARNING:").count(), 1, "{}", said.text);
    assert!(
        said.text.contains(warning) && said.text.contains("HINT:  Make it an AFTER trigger FOR EACH STATEMENT"),
        "{}",
        said.text
    );
    // After the row only what it writes to the same table matters.
    database.run(
        "drop trigger suspect on t; create table \"A t\" (id int primary key);
         create function writes_here() returns trigger language plpgsql as $$ begin delete from public.t where false; return null; end $$;
         create function writes_there() returns trigger language plpgsql as
             $$ begin update only \"A t\" set id = id where false; update t2 set a = 1; return null; end $$;
         create trigger suspect after insert on t for each row execute function writes_here();
         create trigger alike after insert on t for each row execute function writes_there();
         create trigger whole after insert on t for each statement execute function writes_here();
         create trigger quoted after insert on \"A t\" for each row execute function writes_there()",
    );
    for (table, suspect) in [("t", "suspect on t"), ("A t", "quoted on A t")] {
        let said = database.psql_command("postgres", &format!("select py_log_create_tg('{table}')"));
        let warning = format!("WARNING:  trigger {suspect} runs after each row and seems to write to this table");
        assert_eq!(said.text.matches("WARNING:").count(), 1, "{}", said.text);
        assert!(said.text.contains(&warning), "{}", said.text);
    }
}

/// The daemons of several masters may come to a new slave at the same moment.
#[test]
fn the_slaves_script_may_run_many_times_at_once() {
    for _ in 0..3 {
        let database = Database::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| database.install("postgres", "slave-install.sql"));
            }
        });
    }
}

/// Symptom: one long writer, and everybody who wrote to any table waited behind the installation, which then failed.
/// Cause: it created the triggers of all tables in one transaction, and waited for each lock with the locks of the others.
#[test]
fn the_binary_makes_nobody_wait_for_a_table_that_somebody_else_has_locked() {
    let mut database = Database::new();
    let owner = database.owner();
    database.run_as(
        &owner,
        "create table a (id int primary key); create table b (id int primary key); create table c (id int primary key)",
    );
    // No trigger for b.
    database.run(
        "create function refuse() returns event_trigger language plpgsql as $$ begin
             if exists (select from pg_event_trigger_ddl_commands() where object_identity ~ 'on public.b$') then
                 raise exception 'not on b';
             end if;
         end $$;
         create event trigger refuse on ddl_command_end when tag in ('CREATE TRIGGER') execute function refuse()",
    );
    let dsn = database.server().dsn(&database.name).replace("user=postgres", &format!("user={owner}"));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-locked", database.name));
    let mut writer = database.connect();
    writer.batch_execute("begin; insert into a values (1)").unwrap();
    let mut installing = harness::Daemon::spawn(&log, &["install", &dsn], &[]);
    installing.wait_log("created trigger on c (id)");
    database.run("insert into c values (1); insert into b values (1)");
    assert_eq!(database.column("select relation || event::text from replica_log"), ["public.cI"]);
    writer.batch_execute("commit").unwrap();
    installing.wait_log("created trigger on a (id)");
    let status = installing.wait_exit();
    assert_eq!(status.code(), Some(4), "{}", installing.log());
    harness::assert_says(
        &installing.log(),
        &[
            "table a waits for its turn: canceling statement due to lock timeout",
            "table b gets no trigger: not on b",
            "1 of the tables have none: b",
        ],
    );
    database.run("drop event trigger refuse");
    // A transaction that has written to the log keeps nobody from installing again.
    let mut writer = database.connect();
    writer.batch_execute("begin; insert into c values (2)").unwrap();
    let finished = harness::run(&log, &["install", &dsn], &[]);
    assert!(finished.status.success() && finished.output.contains("c has its trigger (id)"), "{}", finished.output);
    std::fs::remove_file(&log).unwrap();
}
