//! What a tenant of either database can do with the help of what pyreplica installs: nothing. A tenant may log in, perhaps owns
//! a table, and perhaps may create functions in the schema public. docs/security.md says what is promised to whom.

use crate::harness::looking::{assert_finds, faults};
use crate::harness::{Database, Feed, Pair};

const INSTALL: &str = "master-install.sql";
const SLAVE_INSTALL: &str = "slave-install.sql";
const SLAVE_COPY: &str = "slave-copy.sql";

/// Every right on what the scripts make that a role has got from somewhere, apart from the daemons'.
fn rights(database: &Database, role: &str) -> Vec<String> {
    database.column(&format!(
        "select x.name || ' ' || a.privilege_type from (
             select relname, relacl from pg_class where relname ~ '^(replica_|py_log_)'
             union all select relname, attacl from pg_class c join pg_attribute on attrelid = c.oid
                        where relname ~ '^(replica_|py_log_)'
             union all select proname, proacl from pg_proc where proname ~ '^py_log_' or pronamespace = to_regnamespace('pyreplica')
             union all select nspname, nspacl from pg_namespace where nspname = 'pyreplica') x (name, acl)
         cross join aclexplode(x.acl) a where a.grantee = '{role}'::regrole order by 1"
    ))
}

// == Installing ==

/// A function of the name, but of another signature, was given to the log's owner with all that it does.
#[test]
fn a_function_of_a_tenant_stays_his_whatever_its_name() {
    let mut database = Database::new();
    let (owner, tenant) = (database.owner(), database.role("tenant"));
    database.run(&format!("grant all on schema public to {owner}, {tenant}"));
    for user in [owner.as_str(), "postgres"] {
        database.run_as(
            &tenant,
            "create or replace function public.py_log_x() returns text language sql security definer as 'select current_user::text';
             create or replace function public.py_log_replica(int) returns text language sql security definer as 'select current_user::text'",
        );
        database.install(user, INSTALL);
        assert_eq!(
            database.column_as(&tenant, "select py_log_x() union all select py_log_replica(1)"),
            [&*tenant, &*tenant]
        );
    }
}

#[test]
fn what_a_tenant_has_put_where_the_scripts_put_theirs_is_refused() {
    let mut database = Database::new();
    let (owner, tenant) = (database.owner(), database.role("tenant"));
    database.run(&format!(
        "grant all on schema public to {owner}, {tenant}; create extension hstore; grant create on database {} to {tenant}",
        database.name
    ));
    let body = "returns text language plpgsql security definer as 'begin return current_user; end'";
    for (script, name, made, gone) in [
        (INSTALL, "py_log_grant(text)", format!("function py_log_grant(text) {body}"), "function py_log_grant(text)"),
        (
            INSTALL,
            "py_log_add_slave(text)",
            format!("function py_log_add_slave(text) {body}"),
            "function py_log_add_slave(text)",
        ),
        (
            INSTALL,
            "py_log_create_tg(text,text)",
            format!("function py_log_create_tg(text, text) {body}"),
            "function py_log_create_tg(text, text)",
        ),
        (
            INSTALL,
            "py_log_columns(text,",
            format!("function py_log_columns(text, hstore) {body}"),
            "function py_log_columns(text, hstore)",
        ),
        (INSTALL, "replica_batch_seq", "sequence replica_batch_seq".into(), "sequence replica_batch_seq"),
        (INSTALL, "replica_log_id", "view replica_log_id as select 1".into(), "view replica_log_id"),
        (INSTALL, "replica_log_sql", "view replica_log_sql as select 1".into(), "view replica_log_sql"),
        (INSTALL, "replica_slave", "domain replica_slave as int".into(), "domain replica_slave"),
        (INSTALL, "py_log_filter", "type py_log_filter as enum ('a')".into(), "type py_log_filter"),
        // Its owner was trusted.
        (
            INSTALL,
            "replica_log",
            "schema pyreplica; create table public.replica_log (id int, txid int)".into(),
            "schema pyreplica; drop table replica_log",
        ),
        (
            SLAVE_INSTALL,
            "replica_held_relation",
            "view replica_held_relation as select 1".into(),
            "view replica_held_relation",
        ),
        (
            SLAVE_INSTALL,
            "replica_hold",
            "materialized view replica_hold as select 1".into(),
            "materialized view replica_hold",
        ),
        (
            SLAVE_INSTALL,
            "replica_held",
            "schema pyreplica; create view replica_held as select 1 as a".into(),
            "schema pyreplica; drop view replica_held",
        ),
        (SLAVE_COPY, "replica_copy", "domain replica_copy as text".into(), "domain replica_copy"),
    ] {
        database.run_as(&tenant, &format!("create {made}"));
        for user in [owner.as_str(), "postgres"] {
            let said = database.psql(user, Feed::File, script);
            assert!(said.text.contains("ERROR:") && said.text.contains(name), "{name}: {}", said.text);
            assert_eq!(database.column("select to_regclass('replica_error')"), [""], "{name}");
        }
        database.run_as(&tenant, &format!("drop {gone}"));
    }
}

/// Made when its owner had the right to, by default privileges perhaps.
#[test]
fn a_trigger_of_a_tenant_on_our_tables_is_refused() {
    let mut database = Database::new();
    let tenant = database.role("tenant");
    for script in [INSTALL, SLAVE_INSTALL, SLAVE_COPY] {
        database.install("postgres", script);
    }
    database.run(&format!(
        "create schema ten authorization {tenant}; grant trigger on replica_log, replica_held, replica_copy to {tenant}"
    ));
    let function = "create function ten.f() returns trigger language plpgsql as 'begin return null; end'";
    database.run_as(&tenant, function);
    for (script, table) in [(INSTALL, "replica_log"), (SLAVE_INSTALL, "replica_held"), (SLAVE_COPY, "replica_copy")] {
        let trigger = format!("create trigger x after insert on {table} for each row execute function ten.f()");
        database.run_as(&tenant, &trigger);
        let said = database.psql("postgres", Feed::File, script).text;
        assert!(said.contains("trigger x on ") && said.contains(&format!("with a function of {tenant}")), "{said}");
        let hint = said.lines().find_map(|line| line.strip_prefix("HINT:  ")).expect("a hint");
        database.run(hint);
        database.psql("postgres", Feed::File, script);
    }
    database.run(&format!("drop owned by {tenant} cascade"));
}

/// Usual, so that an application can use the tables that are made later.
#[test]
fn default_privileges_give_nobody_a_right_to_the_log() {
    let mut database = Database::new();
    let (owner, tenant) = (database.owner(), database.role("tenant"));
    database.run(&format!("grant all on schema public to {owner}"));
    for user in [owner.as_str(), "postgres"] {
        database.run_as(
            user,
            &format!(
                "alter default privileges grant all on tables to {tenant}; alter default privileges grant all on sequences to {tenant};
                 alter default privileges grant execute on functions to {tenant}; alter default privileges grant all on schemas to {tenant}"
            ),
        );
    }
    for script in [INSTALL, SLAVE_INSTALL, SLAVE_COPY] {
        database.install(&owner, script);
        database.install("postgres", script);
        assert_eq!(rights(&database, &tenant), [""; 0], "{script}");
    }
    let attempt = "insert into replica_log (id, event, sql) values (1, 'S', 'select 1')";
    assert_eq!(database.refused_as(&tenant, attempt), "permission denied for table replica_log");
}

#[test]
fn installing_again_takes_back_what_others_were_granted_and_says_so() {
    let mut database = Database::new();
    let (owner, daemon) = (database.owner(), database.role("daemon"));
    let (monitor, tenant) = (database.role("monitor"), database.role("tenant"));
    database.run(&format!("grant all on schema public to {owner}"));
    database.install(&owner, INSTALL);
    database.run_as(
        &owner,
        &format!(
            "select py_log_grant('{daemon}'); grant select on replica_slave to {monitor};
             grant insert (sql), select on replica_log to {tenant} with grant option;
             grant execute on function py_log_replica(), py_log_can_wake(text) to {tenant}; grant usage on schema pyreplica to {tenant};
             grant all on replica_slave, py_log_filter to public"
        ),
    );
    // Another's grant depends on that of the owner.
    database.run_as(&tenant, &format!("grant select on replica_log to {monitor}"));
    let of_daemon = rights(&database, &daemon);
    assert_eq!(of_daemon.len(), 24, "{of_daemon:?}");
    let said = database.psql(&owner, Feed::File, INSTALL).text;
    for line in [
        format!("WARNING:  SELECT is no longer granted to {monitor} on public.replica_slave"),
        format!("HINT:  If it is wanted: GRANT SELECT ON TABLE public.replica_slave TO {monitor};"),
        format!("WARNING:  INSERT (sql), SELECT is no longer granted to {tenant} on public.replica_log"),
        format!("USAGE is no longer granted to {tenant} on pyreplica"),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert_eq!(rights(&database, &daemon), of_daemon);
    assert_eq!(rights(&database, &tenant), [""; 0]);
    assert_eq!(rights(&database, &monitor), [""; 0]);
    assert_eq!(database.refused_as(&tenant, "table replica_slave"), "permission denied for table replica_slave");
    database.install(&owner, INSTALL);
}

/// The script cannot know there which role the daemon has.
#[test]
fn the_slaves_tables_keep_what_the_daemon_was_granted_and_nothing_that_runs_something() {
    let mut database = Database::new();
    let (owner, daemon) = (database.owner(), database.role("daemon"));
    database.run(&format!("grant all on schema public to {owner}"));
    database.install(&owner, SLAVE_INSTALL);
    database.run_as(
        &owner,
        &format!(
            "grant select, insert, update, delete on replica_held to {daemon} with grant option;
             grant trigger, references on replica_held to {daemon}; grant select on replica_hold to public"
        ),
    );
    database.install(&owner, SLAVE_INSTALL);
    let kept = ["DELETE", "INSERT", "SELECT", "UPDATE"].map(|right| format!("replica_held {right}"));
    assert_eq!(rights(&database, &daemon), kept);
    assert_eq!(database.refused_as(&daemon, "table replica_hold"), "permission denied for table replica_hold");
}

#[test]
fn doctor_names_who_owns_and_who_may_use_what_he_should_not() {
    let pair = Pair::new().with_a_table();
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
    let role = format!("{}_tenant", pair.name);
    pair.run(&format!(
        "create role {role} login; grant insert on replica_log to {role}; grant update on py_log_filter to public;
         grant execute on function py_log_replica() to {role}; alter function py_log_add_slave(text) owner to {role}"
    ));
    pair.run_on_slave(&format!(
        "do $$ begin if to_regrole('{role}') is null then create role {role}; end if; end $$;
         grant insert on replica_held to {role}"
    ));
    let found = faults(&pair, "");
    assert_finds(
        &found,
        "failure",
        "master",
        "grants",
        &format!("{role} may use or write public.py_log_replica(), public.replica_log"),
    );
    assert_finds(&found, "failure", "master", "grants", "PUBLIC may use or write public.py_log_filter");
    assert_finds(
        &found,
        "failure",
        "master",
        "owners",
        &format!("public.py_log_add_slave(field text) belongs to {role}"),
    );
    assert_finds(&found, "warning", "slave", "grants", &format!("{role} may use or write public.replica_held"));
    for check in &found {
        let mut client = if check.side == "slave" { pair.slave() } else { pair.master() };
        check.fixes.iter().for_each(|statement| client.batch_execute(statement).unwrap());
    }
    pair.run("alter function py_log_add_slave(text) owner to postgres");
    assert!(faults(&pair, "").is_empty(), "{:#?}", faults(&pair, ""));
    pair.run(&format!("drop role {role}"));
    pair.run_on_slave(&format!("drop role if exists {role}"));
}

/// Whatever a new version adds must be in pyreplica.own(), or nobody looks whose it is.
#[test]
fn all_that_the_script_makes_is_known_as_pyreplicas_own() {
    let database = Database::new();
    database.install("postgres", INSTALL);
    let unknown = database.column(
        "set search_path = pg_catalog;
         select x.name from (
             select p.oid::regprocedure::text from pg_proc p
              where p.pronamespace in ('public'::regnamespace, 'pyreplica'::regnamespace)
                and not exists (select from pg_depend where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e')
             union all
             select format('%s.%I', relnamespace::regnamespace, relname) from pg_class
              where relnamespace in ('public'::regnamespace, 'pyreplica'::regnamespace) and relkind in ('r', 'v', 'S')) x (name)
          where x.name not in (select name from pyreplica.own())",
    );
    assert_eq!(unknown, [""; 0]);
}

/// An advisory lock is anybody's.
#[test]
fn nobody_keeps_the_scripts_and_the_filters_waiting() {
    let mut database = Database::new();
    let (owner, tenant) = (database.owner(), database.role("tenant"));
    database.run(&format!("grant all on schema public to {owner}"));
    let mut holder = database.connect_as(&tenant);
    let locks = "select pg_advisory_lock(1887007334, 0), pg_advisory_lock(hashtext('pyreplica slave-install'))";
    holder.batch_execute(locks).unwrap();
    for user in [owner.as_str(), "postgres", owner.as_str()] {
        database.install(user, INSTALL);
        database.run_as(user, "set statement_timeout = '20s'; insert into py_log_filter (relname, event, condition) values ('replica_error', 'INSERT', 'true')");
    }
    database.install(&owner, SLAVE_INSTALL);
    database.install(&owner, SLAVE_COPY);
    let attempt = "begin; lock table pyreplica.turn in exclusive mode";
    assert_eq!(database.refused_as(&tenant, attempt), "permission denied for schema pyreplica");
}

// == Partitions ==

/// PostgreSQL asks the role that makes a partition whether it may execute the function of the trigger that is copied there.
#[test]
fn the_owner_of_a_table_makes_and_attaches_partitions_and_can_not_use_the_function_otherwise() {
    let mut database = Database::new();
    let (owner, tenant) = (database.owner(), database.role("tenant"));
    database.install(&owner, INSTALL);
    database.run(&format!("create schema ten authorization {tenant}"));
    database.run_as(
        &tenant,
        "create table ten.p (id int primary key, a text) partition by range (id);
         create table ten.p1 partition of ten.p for values from (0) to (10);
         create table ten.other (id int primary key)",
    );
    assert_eq!(database.column("select py_log_create_tg('ten', 'p')"), ["created trigger on p (id)"]);
    database.install(&owner, INSTALL);
    database.run_as(
        &tenant,
        "create table ten.p2 partition of ten.p for values from (10) to (20);
         create table ten.p3 (id int primary key, a text); alter table ten.p attach partition ten.p3 for values from (20) to (30);
         insert into ten.p values (1, 'a'), (11, 'b'), (21, 'c')",
    );
    let logged = database.column("select relation || (new -> 'id') from replica_log order by id");
    assert_eq!(logged, ["ten.p1", "ten.p11", "ten.p21"]);
    for function in ["pyreplica.by_partition('accounts', 'id')", "public.py_log_replica('accounts', 'id')"] {
        for table in ["ten.other", "ten.p", "ten.p1"] {
            let attempt = format!("create trigger x after insert on {table} for each row execute function {function}");
            let said = database.refused_as(&tenant, &attempt);
            assert!(said.starts_with("permission denied for "), "{attempt}: {said}");
        }
    }
    database.run(&format!("drop owned by {tenant} cascade"));
}

/// Both have a trigger, whose names collided.
#[test]
fn a_table_that_is_replicated_becomes_a_partition_of_one_that_is_and_leaves_it_again() {
    let pair = Pair::new();
    pair.exec_both(
        "create schema a; create table p (id int primary key, v text) partition by range (id);
         create table p1 partition of p for values from (0) to (10);
         create table own (id int primary key, v text);
         create table bulk (id int primary key, v text);
         create table sub (id int primary key, v text) partition by range (id);
         create table sub1 partition of sub for values from (30) to (40);
         create table sub2 partition of sub for values from (40) to (50);
         -- The name of its root.
         create table a.p partition of p for values from (50) to (60)",
    );
    for call in ["'p'", "'own'", "'bulk', 'statement'", "'sub'"] {
        pair.on_master(&format!("select py_log_create_tg({call})"));
    }
    pair.run("insert into own values (11, 'before'); insert into bulk values (21, 'before'); insert into sub values (31, 'before')");
    pair.once();
    pair.exec_both(
        "alter table p attach partition own for values from (10) to (20);
         alter table p attach partition bulk for values from (20) to (30);
         alter table p attach partition sub for values from (30) to (50)",
    );
    let logged = || {
        pair.on_master("select relation || ' ' || event::text || (coalesce(new, old) -> 'id') from replica_log where not replicated order by id")
    };
    pair.run("insert into p select i, 'x' from generate_series(2, 52, 10) i");
    pair.run("update own set v = 'y'; update bulk set v = 'y'; insert into bulk values (25, 'z'); delete from sub1 where id = 32");
    let each = ["I2", "I12", "I22", "I32", "I42", "I52", "U11", "U12", "U21", "U22", "I25", "D32"];
    assert_eq!(logged(), each.map(|change| format!("public.p {change}")));
    pair.once();
    pair.assert_equal();
    // Before PostgreSQL 15 the copies keep the former name.
    let trigger =
        pair.on_master("select tgname from pg_trigger where tgrelid = 'p'::regclass and tgtype & 1 = 1").remove(0);
    pair.run(&format!("alter trigger \"{trigger}\" on p rename to \"!replica_tg_other\"; update p set v = 'renamed'"));
    assert_eq!(pair.on_master("select distinct relation from replica_log where not replicated"), ["public.p"]);
    pair.once();
    pair.assert_equal();
    // By the trigger that each has kept.
    pair.exec_both(
        "alter table p detach partition own; alter table p detach partition bulk; alter table p detach partition sub",
    );
    pair.run("update own set v = 'own'; update bulk set v = 'bulk'; update sub set v = 'sub'; update p set v = 'p'");
    let relations = pair.on_master("select distinct relation from replica_log where not replicated order by 1");
    assert_eq!(relations, ["public.bulk", "public.own", "public.p", "public.sub"]);
    pair.once();
    pair.assert_equal();
    let found = faults(&pair, "");
    assert!(found.iter().all(|check| check.subject == "daemon"), "{found:#?}");
}

// == Calls that the documentation shows ==

/// Functions of the names of ours, with other parameters: each of the first with each of the rest.
fn overloads(first: &str, rest: &str) -> String {
    format!(
        "do $$
         declare
             name text;
             a text;
             b text;
         begin
             foreach name in array array['py_log_grant', 'py_log_add_slave', 'py_log_remove_slave', 'py_log_create_tg',
                                         'py_log_can_wake', 'py_log_forget', 'py_log_interleave', 'py_log_sql', 'py_log_key'] loop
                 foreach a in array array[{first}] loop
                     foreach b in array array[{rest}] loop
                         begin
                             execute format('create function public.%I(%s%s) returns text language plpgsql as '
                                            '''begin raise exception ''''trapped as %%'''', current_user; end''', name, a, b);
                         -- Ours, or nothing that a function may have.
                         exception when duplicate_function or invalid_function_definition or feature_not_supported
                                        or insufficient_privilege then null;
                         end;
                     end loop;
                 end loop;
             end loop;
         end $$"
    )
}

/// Everything that a literal or a number could mean.
const TYPES: &str =
    "'text', 'varchar', 'name', 'bpchar', '\"char\"', 'regclass', 'oid', 'json', 'public.words', 'public.citext',
     'anyelement', 'int', 'bigint', 'numeric'";
const FURTHER: &str = "'', ', text', ', varchar', ', name', ', regclass', ', public.words', ', public.citext', ', text, text',
     ', text, varchar', ', varchar, text', ', int, int', ', bigint, bigint', ', int, bigint', ', anyelement, anyelement', ', numeric, numeric'";

/// For a name and a pattern PostgreSQL has an operator of name and text only.
const OPERATORS: &str = "create function public.trapped(name, name) returns boolean language plpgsql as
         $$ begin raise exception 'trapped as %', current_user; end $$;
     create operator public.!~ (leftarg = name, rightarg = name, function = public.trapped);
     create operator public.~ (leftarg = name, rightarg = name, function = public.trapped)";

#[test]
fn a_call_as_the_documentation_shows_it_means_ours_whatever_others_have_made() {
    let mut database = Database::new();
    let (owner, tenant) = (database.owner(), database.role("tenant"));
    database.run(&format!("grant all on schema public to {owner}, {tenant}; create extension citext"));
    database.install(&owner, INSTALL);
    database.run_as(&tenant, &format!("create domain words as text; {OPERATORS}; {}", overloads(TYPES, FURTHER)));
    let made = "select count(*) > 500 from pg_proc where proname::text ~ '^py_log_' and proowner <> 10";
    assert_eq!(database.column(made), ["t"]);
    for user in [owner.as_str(), "postgres"] {
        database.run_as(
            user,
            "create table t (id serial primary key, a text); create table article (id int primary key); create schema s;
             create table s.article (id int primary key)",
        );
        let grant = format!("py_log_grant('{owner}')");
        let calls = [
            grant.as_str(),
            "py_log_add_slave('slave2')",
            "py_log_remove_slave('slave2')",
            "public.py_log_add_slave('slave2')",
            "py_log_remove_slave('slave2')",
            "py_log_create_tg('t')",
            "py_log_create_tg('t', 'statement')",
            "py_log_create_tg('t', 'row')",
            "py_log_create_tg('public', 'article', 'statement')",
            "public.py_log_create_tg('s', 'article')",
            "public.py_log_create_tg('s', 'article', null)",
            "py_log_interleave('t_id_seq', 1, 3)",
            "py_log_interleave(pg_get_serial_sequence('t', 'id'), 2, 3)",
            "py_log_interleave('t_id_seq'::regclass, 3, 3)",
            "py_log_can_wake('replicated')",
            "py_log_forget()",
        ];
        calls.iter().for_each(|call| database.run_as(user, &format!("select {call}")));
        // docs/install.md and docs/upgrade.md.
        for page in [
            include_str!("../docs/install.md"),
            include_str!("../docs/upgrade.md"),
            include_str!("../sql/master-install.sql"),
        ] {
            let start =
                page.find("SELECT py_log_create_tg(relname::text) FROM pg_class").expect("the page has the call");
            let statement = page[start..].split_once(';').unwrap().0;
            let statement = statement.lines().map(|line| line.trim_start_matches("somedb->").trim_start_matches("--"));
            database.run_as(user, &statement.collect::<Vec<_>>().join("\n"));
        }
        database.run_as(user, "insert into t (a) values ('x')");
        assert_eq!(database.column_as(user, "select sql from replica_log_sql where sql ~ '\"t\"'").len(), 1);
        // With defaults and the like PostgreSQL can't choose, which is an error.
        database.run("drop table if exists functions; create table functions as select oid as id from pg_proc");
        let (first, rest) = (
            "'text', 'text default null', 'variadic text[]', 'variadic \"any\"'",
            "'', ', int default 0', ', text default null', ', variadic int[]', ', int, int, int default 0', ', text, text default null'",
        );
        database.run_as(&tenant, &overloads(first, rest));
        for call in calls {
            if let Err(error) = database.connect_as(user).batch_execute(&format!("select {call}")) {
                let message = error.as_db_error().unwrap().message();
                assert!(message.contains("is not unique") || message.contains("column"), "{call}: {message}");
            }
        }
        let added =
            database.column("select oid::regprocedure from pg_proc where oid not in (select id from functions)");
        assert!(added.len() > 20, "{added:?}");
        added.iter().for_each(|function| database.run(&format!("drop function {function}")));
        let end = "drop table t, article; drop schema s cascade; delete from replica_log; alter table replica_log drop column if exists slave2";
        database.run_as(user, end);
    }
}

// == Sequences ==

/// The owner of a sequence gives its name to a view, whose functions would run with the rights of its reader, and whose
/// text was written into a statement.
#[test]
fn a_view_in_the_place_of_a_sequence_is_not_read_by_the_copy() {
    let pair = Pair::new();
    let role = format!("{}_tenant", pair.name);
    pair.exec_both(
        "create schema ten; create table ten.t (id int primary key); create sequence ten.a; create sequence ten.z",
    );
    pair.run(&format!(
        "create role {role} login; alter schema ten owner to {role}; alter sequence ten.a owner to {role}; alter sequence ten.z owner to {role};
         create sequence ten.fresh start 77; select setval('ten.a', 41), nextval('ten.z')"
    ));
    pair.run_on_slave("create sequence ten.fresh");
    pair.on_master("select py_log_create_tg('ten', 't')");
    let mut tenant = pair.master();
    tenant
        .batch_execute(&format!(
            "set session authorization {role}; begin; alter sequence ten.a rename to b; alter sequence ten.b rename to a"
        ))
        .unwrap();
    let said = std::thread::scope(|scope| {
        let copying = scope.spawn(|| pair.verb(&["copy"]));
        let waits =
            "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                       and application_name ~ '^pyreplica'";
        while pair.on_master(waits) != ["t"] {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        tenant
            .batch_execute(
                "alter sequence ten.z rename to former;
                 create view ten.z as select '1, true); create table trapped (); --'::text as last_value, true as is_called; commit",
            )
            .unwrap();
        copying.join().unwrap()
    });
    assert_eq!(said.code(), 0, "{}", said.output);
    assert_eq!(pair.on_slave("select to_regclass('public.trapped')"), [""]);
    assert_eq!(pair.on_slave("select last_value from ten.a union all select last_value from ten.fresh"), ["41", "77"]);
    drop(tenant);
    pair.run(&format!("drop owned by {role} cascade; drop role {role}"));
}

#[test]
fn a_sequence_is_interleaved_by_itself_and_not_by_its_name() {
    let mut database = Database::new();
    let tenant = database.role("tenant");
    database.install("postgres", INSTALL);
    database.run(&format!("create schema ten authorization {tenant}"));
    database.run_as(
        &tenant,
        "create sequence ten.s; create function ten.f() returns bigint language plpgsql as $$ begin raise exception 'trapped'; end $$;
         create view ten.v as select ten.f() as last_value",
    );
    let said = database.refused_as("postgres", "select py_log_interleave('ten.v', 1, 3)");
    assert!(!said.contains("trapped"), "{said}");
    // A name that is swapped while ALTER SEQUENCE waits for it.
    let mut holder = database.connect_as(&tenant);
    holder.batch_execute("begin; alter sequence ten.s rename to former; create sequence ten.s").unwrap();
    let said = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| database.psql_command("postgres", "select py_log_interleave('ten.s', 1, 3)"));
        let waits =
            "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while database.column(waits) != ["t"] {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        holder.batch_execute("commit").unwrap();
        waiting.join().unwrap()
    });
    assert!(!said.success || said.text == "4\n", "{}", said.text);
    assert_eq!(database.column("select seqincrement from pg_sequence where seqrelid = 'ten.former'::regclass"), ["1"]);
    drop(holder);
    database.run(&format!("drop owned by {tenant} cascade"));
}

// == Settings that anybody can set ==

/// A change that came from the slave is not sent back to it: a role that could claim that would keep its changes from it, and those
/// of a function that runs with the rights of somebody else.
#[test]
fn only_a_session_that_may_mark_the_log_is_believed_where_a_change_comes_from() {
    let pair = Pair::new();
    let role = format!("{}_tenant", pair.name);
    pair.exec_both("create table t (id int primary key, a text); create table st (id int primary key, a text)");
    pair.on_master("select py_log_create_tg('t')");
    pair.on_master("select py_log_create_tg('st', 'statement')");
    pair.run(&format!(
        "create role {role} login; grant select, insert, update on t, st to {role};
         create function ours(int) returns void language sql security definer as
             'insert into public.t values ($1, ''o''); insert into public.st values ($1, ''o''), ($1 + 10, ''o'')'"
    ));
    let slave = "select system_identifier || '/' || (select oid from pg_database where datname = current_database()) from pg_control_system()";
    let slave = pair.on_slave(slave).remove(0);
    let changes = format!(
        "set pyreplica.origin = '{slave}'; insert into t values (1, 'a'); insert into st values (1, 'a'), (2, 'b');
         select ours(3); update t set a = 'c' where id = 1"
    );
    let mut tenant = pair.master();
    tenant.batch_execute(&format!("set session authorization {role}; {changes}")).unwrap();
    assert_eq!(pair.on_master("select count(*) from replica_log"), ["7"]);
    assert_eq!(pair.on_master("select count(*) from replica_log where origin is not null"), ["0"]);
    pair.once();
    pair.assert_equal();
    pair.run(&format!("select py_log_grant('{role}')"));
    tenant.batch_execute("select ours(5)").unwrap();
    assert_eq!(pair.on_master("select count(*) from replica_log where origin is not null"), ["3"]);
    drop(tenant);
    pair.run(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn nobody_hides_what_others_write_by_the_settings_of_a_statement_nor_passes_by_a_filter() {
    let mut database = Database::new();
    let tenant = database.role("tenant");
    database.install("postgres", INSTALL);
    database.run(&format!(
        "create table st (id int primary key, secret text); select py_log_create_tg('st', 'statement');
         grant insert, update, select on st to {tenant};
         create function ours(int) returns void language sql security definer as
             'insert into public.st select $1 + i, ''s'' from generate_series(1, 3) i; update public.st set secret = ''t'' where id > $1'"
    ));
    let setting = database
        .column("select substring(encode(tgargs, 'escape') from 'pyreplica.running_[0-9a-f]+') from pg_trigger where tgname = '!replica_begin_tg'")
        .remove(0);
    for (n, value) in ["x", "I", "IUD", "UUU"].iter().enumerate() {
        database.run("delete from replica_log");
        let call = format!("set {setting} = '{value}'; set {setting}_early = '1'; select ours({})", 10 * n);
        database.run_as(&tenant, &call);
        let logged =
            database.column("select string_agg(event::text || (new -> 'id'), ' ' order by id) from replica_log");
        let (a, b, c) = (10 * n + 1, 10 * n + 2, 10 * n + 3);
        assert_eq!(logged, [format!("I{a} I{b} I{c} U{a} U{b} U{c}")], "{value}");
    }
    // His own, by an expression of the statement.
    let attempt = format!("insert into st select 100 where set_config('{setting}', 'x', true) is not null");
    assert_eq!(
        database.refused_as(&tenant, &attempt),
        "the changes of table public.st have not been logged".replace("public.", "")
    );
    database.run(
        "insert into py_log_transform (relname, field, expression) values ('st', 'secret', '''x''');
         insert into py_log_filter (relname, event, condition) values ('st', 'INSERT', 'new.id < 1000'); delete from replica_log",
    );
    let attempt = format!("set {setting} = 'I'; select ours(1000)");
    assert_eq!(database.refused_as(&tenant, &attempt), "a change of table st cannot be logged");
    database.run_as(&tenant, "select ours(500)");
    assert_eq!(database.column("select distinct new -> 'secret' from replica_log"), ["x"]);
    assert_eq!(database.column("select count(*) from replica_log"), ["3"], "the transform makes the updates none");
}
