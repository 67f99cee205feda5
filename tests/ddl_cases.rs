//! Schema changes: what is taken back, what is told, what the slave refuses, and who may have something executed there.

use crate::ddl::{arrives, assert_same_schema, install, pair};
use crate::harness::{Pair, assert_says, drains, refusal};

/// The log's statements in their order, without the settings in front of them.
fn logged(pair: &Pair) -> Vec<String> {
    pair.on_master(
        "select regexp_replace(coalesce(sql, event::text || ' ' || relation), '^(SET LOCAL [^;]*; )*', '') from replica_log
          where not replicated order by id",
    )
}

// == Which statement ==

/// Text, tag, and the statement that is taken, if any.
#[test]
fn a_string_is_taken_apart_as_the_server_does() {
    let pair = pair();
    for (text, tag, taken) in [
        (
            "select 1; create table a (x text default ';'); select 2",
            "CREATE TABLE",
            "create table a (x text default ';')",
        ),
        (
            "create table a (x int) -- ; create table b (x int)\n; select 1",
            "CREATE TABLE",
            "create table a (x int) -- ; create table b (x int)",
        ),
        (
            "/* create table b (x int); /* ; */ ; */ create table a (x int)",
            "CREATE TABLE",
            "/* create table b (x int); /* ; */ ; */ create table a (x int)",
        ),
        ("select 'it''s; create table b (x int)'; create table a ()", "CREATE TABLE", "create table a ()"),
        ("select e'\\'; create table b (x int); \\\\'; create table a ()", "CREATE TABLE", "create table a ()"),
        ("select E'''; create table b ()', 1; create table a ()", "CREATE TABLE", "create table a ()"),
        (
            "select date'2001-01-01;', U&'\\0041;', b'1', x'f;', n';'; create table a ()",
            "CREATE TABLE",
            "create table a ()",
        ),
        ("select \"a;\"\"; create table b ()\"; create table a ()", "CREATE TABLE", "create table a ()"),
        ("select $$;$a$;$$, $a$;$$;$b$;$a$; create table a ()", "CREATE TABLE", "create table a ()"),
        ("select a$b$ from c$d$; create table a (); select $1", "CREATE TABLE", "create table a ()"),
        ("select $1; create table a (); select $1", "CREATE TABLE", "create table a ()"),
        (
            "create rule r as on insert to t do (select 1; select 2); create table a ()",
            "CREATE TABLE",
            "create table a ()",
        ),
        (
            "create function f() returns int begin atomic select case when true then 1 end; select 2; end; create table a ()",
            "CREATE TABLE",
            "create table a ()",
        ),
        (
            "create function f() returns int begin atomic select 1; end; create table a ()",
            "CREATE FUNCTION",
            "create function f() returns int begin atomic select 1; end",
        ),
        (
            "create or replace procedure f() begin atomic select case a when 1 then case when b then 1 end end from t; end",
            "CREATE PROCEDURE",
            "create or replace procedure f() begin atomic select case a when 1 then case when b then 1 end end from t; end",
        ),
        (
            "create table begin_atomic (\"begin\" int, atomic int); create index on a (b)",
            "CREATE INDEX",
            "create index on a (b)",
        ),
        ("select 1 - -1 /*;*/ - 1 --;\n * 2; create table a ()", "CREATE TABLE", "create table a ()"),
        ("create temp table a (); create table b ()", "CREATE TABLE", "create temp table a ()"),
        ("create /* c */ unlogged\n table a ()", "CREATE TABLE", "create /* c */ unlogged\n table a ()"),
        ("create unique index on a (b)", "CREATE INDEX", "create unique index on a (b)"),
        ("alter tablespace x set (a = 1); alter table a add b int", "ALTER TABLE", "alter table a add b int"),
        ("select 'never ends; create table a ()", "CREATE TABLE", ""),
        ("select $$never ends; create table a ()", "CREATE TABLE", ""),
        ("select /* /* never ends; */ create table a ()", "CREATE TABLE", ""),
        ("select \"never ends; create table a ()", "CREATE TABLE", ""),
        ("select (1; create table a ()", "CREATE TABLE", ""),
        // A string of this kind goes on after a line break: too odd to be read.
        ("select e'a'\n'\\'; create table b (); select '; create table a ()", "CREATE TABLE", ""),
    ] {
        let quoted = text.replace('\'', "''").replace('\\', "\\\\");
        let ask = format!(
            "select coalesce(btrim(statement, E' \\n'), '') from pyreplica.ddl_top(E'{quoted}', '{tag}', true)"
        );
        let found = pair.on_master(&ask);
        assert_eq!(found, [taken], "{text}");
    }
}

#[test]
fn long_strings_are_taken_apart_wherever_their_parts_begin() {
    let pair = pair();
    let mut client = pair.master();
    let mut text = String::new();
    for i in 0..100 {
        let pad = "x".repeat(i % 97 * 13);
        let name = format!("é;\"\"{}", "y".repeat(i % 40));
        text.push_str(&format!(
            "create table t{i} (id int primary key, a text default E'{pad}\\';', b text default 'é;{pad}''', c text default $q${pad};'$q$);
             /* {pad}; */ insert into t{i} (id) values ({i}); select \"{name}\" from (select 1 as \"{name}\") x; -- {pad};\n"
        ));
    }
    client.batch_execute(&text).unwrap();
    arrives(&pair);
}

#[test]
fn what_is_rolled_back_does_not_travel_and_confuses_nothing() {
    let pair = pair();
    pair.run("create table t (id int primary key); insert into t values (1)");
    pair.run("begin; savepoint a; alter table t add x int; rollback to a; alter table t add y int; insert into t values (2, 2); commit");
    let mut client = pair.master();
    for statement in [
        "begin",
        "insert into t values (3, 3)",
        "savepoint a",
        "alter table t add x int",
        "insert into t values (4, 4, 4)",
        "rollback to a",
        "alter table t add z text",
        "insert into t values (5, 5, 'z')",
        "savepoint b",
        "create table gone (id int primary key)",
        "rollback to b",
        "commit",
        "begin",
        "create table gone (id int primary key)",
        "rollback",
    ] {
        client.batch_execute(statement).unwrap();
    }
    pair.run("do $$ begin begin alter table t add q int; perform 1 / 0; exception when others then alter table t add r int; end; end $$");
    // Two statements fit, and one of them may have been taken back: nothing is guessed.
    let said = arrives_with_remarks(&pair, 1);
    assert_says(&said, &["ALTER TABLE public.t does not travel to the slaves: its text is not known for certain"]);
}

/// Everything that has a text has arrived; the operator runs the rest on the slave.
fn arrives_with_remarks(pair: &Pair, remarks: usize) -> String {
    let found: Vec<String> = logged(pair).into_iter().filter(|line| line.starts_with("-- pyreplica")).collect();
    assert_eq!(found.len(), remarks, "{found:#?}");
    pair.run_on_slave("create table if not exists t (id int primary key); alter table t add y int");
    let said = pair.once().output;
    pair.assert_equal();
    said
}

#[test]
fn a_transaction_of_schema_changes_and_rows_arrives_as_one() {
    let pair = pair();
    pair.run("create table t (id int primary key, a int); insert into t values (1, 1), (2, 2)");
    arrives(&pair);
    pair.run(
        "update t set a = 10 where id = 1; alter table t rename a to b; update t set b = 20 where id = 2;
         alter table t rename to u; insert into u values (3, 30); alter table u alter b type text using 'x' || b;
         update u set b = b || 'y' where id = 3; create table v (like u including all); insert into v select * from u;
         drop table u; update v set b = 'last' where id = 1",
    );
    arrives(&pair);
    assert_eq!(pair.on_slave("select b from v order by id"), ["last", "x20", "x30y"]);
}

/// Where the catalog has all of a statement, it arrives as it was meant: what it replaces, and what its functions look for.
#[test]
fn a_statement_from_the_catalog_means_what_its_text_meant() {
    let pair = pair();
    pair.run(
        "create table t (id int primary key, a text); insert into t values (1, 'x');
         create view nothing as select from t; create materialized view nothing_either as select from t;
         create operator @#@ (rightarg = bigint, function = int8abs); comment on operator @#@ (none, bigint) is 'prefix'",
    );
    arrives(&pair);
    pair.run(
        "create rule r as on insert to t do also select 1; create or replace rule r as on update to t do also select 2",
    );
    pair.run("create or replace rule r as on delete to t do also select 3; drop rule r on t");
    pair.run(
        "create role owner_of_schemas; create schema a1 authorization owner_of_schemas create table t (id int primary key);
         create schema authorization owner_of_schemas create view v as select 1 as \"authorization\" create table t (id int primary key);
         create schema \"A \"\"2\\\" authorization \"owner_of_schemas\" create table t (id int primary key);
         reassign owned by owner_of_schemas to current_user;
         drop schema \"A \"\"2\\\" cascade; drop role owner_of_schemas",
    );
    // Names like clauses that do not travel.
    pair.run("alter table t rename a to \"owner to\"; alter table t add \"enable trigger\" int");
    pair.run("alter table t rename \"owner to\" to a; alter table t drop \"enable trigger\"");
    // A function without a schema in it. From PostgreSQL 17 on it finds nothing on the master either.
    if pair.master_server().major_version().max(pair.slave_server().major_version()) < 17 {
        pair.run(
            "create schema app; set search_path to app, public; create function app.plain(text) returns text language sql immutable as 'select lower($1)';
             create function app.wrapped(text) returns text language plpgsql immutable as 'begin return plain($1); end'; reset search_path",
        );
        pair.run(
            "set search_path to app, public, pg_catalog; create index by_wrapped on t (wrapped(a));
             create materialized view m as select wrapped(a) from t; refresh materialized view m",
        );
    }
    arrives(&pair);
    // A part of the index that is not valid.
    pair.run(
        "create table p (a int, b int) partition by range (a);
         create table p1 partition of p for values from (0) to (10) partition by range (b);
         create table p11 partition of p1 for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
         create index part on only p1 (a); create index whole on p (a); create index empty on only p (b)",
    );
    // A column whose type is dropped together with its table.
    pair.run("create table a (id int primary key, x int); create table b (id int primary key, y a); drop table a, b");
    arrives(&pair);
    assert_eq!(
        pair.on_slave("select count(*) from pg_index where indrelid in ('p2'::regclass, 'p11'::regclass)"),
        ["1"]
    );
}

/// PostgreSQL 14 and later. A trigger that the slave has too, and differently, is not replaced unless the master has replaced its own.
#[test]
fn a_trigger_is_replaced_where_the_master_has_replaced_it() {
    let pair = pair();
    if pair.version() < 14 {
        return;
    }
    pair.run(
        "create table t (id int primary key); create function f() returns trigger language plpgsql as 'begin return new; end';
         create function g() returns trigger language plpgsql as 'begin return new; end';
         create trigger tg before insert on t for each row execute function f();
         create or replace trigger tg before update on t for each row execute function g()",
    );
    arrives(&pair);
    pair.run_on_slave("create trigger other before insert on t for each row execute function f()");
    pair.run("create trigger other before delete on t for each row execute function g()");
    assert_says(&refusal(&pair), &["trigger \"other\" for relation \"t\" already exists"]);
}

/// Statements for which no event trigger fires, or that it passes over, look like the one that is to travel.
#[test]
fn the_statement_that_travels_is_not_another_of_its_string() {
    let pair = pair();
    pair.run(
        "set session_replication_role = replica; create table hidden (a int primary key); drop table hidden;
         create table hidden (b int primary key); set session_replication_role = origin; create table t (id int primary key)",
    );
    let database = pair.master_db();
    pair.run(&format!(
        "create role {database}; comment on database {database} is 'x'; comment on role {database} is 'x'; comment on tablespace pg_default is null;
         comment on event trigger \"!pyreplica_ddl_2_drop\" is 'x'; drop role {database}; comment on table t is 'y'"
    ));
    pair.run("create table if not exists t (other int); alter table if exists nothing add a int; create table u (id int primary key); alter table t add a int");
    pair.run("create extension seg version '1.1'; drop extension seg; create extension seg version '1.1'; alter extension seg update; alter table t add b int; alter table u add b int");
    assert_eq!(
        logged(&pair),
        [
            "create table t (id int primary key)",
            "comment on table t is 'y'",
            "create table u (id int primary key)",
            "alter table t add a int",
            "CREATE EXTENSION IF NOT EXISTS seg WITH SCHEMA public CASCADE",
            "DROP EXTENSION IF EXISTS seg",
            "CREATE EXTENSION IF NOT EXISTS seg WITH SCHEMA public CASCADE",
            "alter extension seg update",
            "alter table t add b int",
            "alter table u add b int",
        ]
    );
    // Nobody knows what ran while they were disabled.
    pair.run(
        "alter event trigger \"!pyreplica_ddl_3_end\" disable; alter table t add c int; alter event trigger \"!pyreplica_ddl_3_end\" enable always;
         alter table t add d int",
    );
    assert_says(logged(&pair).last().unwrap(), &["ALTER TABLE public.t does not travel", "not known for certain"]);
}

#[test]
fn in_a_function_in_sql_nothing_is_guessed() {
    let pair = pair();
    pair.run("create table t (id int primary key)");
    pair.run("create function f() returns void language sql as 'alter table t add a int; create index by_a on t (a)'");
    pair.run("create table other (id int primary key); select f(); create table another (id int primary key)");
    // An index has its text in the catalog.
    assert_eq!(
        logged(&pair)[2..],
        [
            "create table other (id int primary key)",
            "-- pyreplica: ALTER TABLE public.t does not travel to the slaves: its text is not known for certain",
            "CREATE INDEX by_a ON public.t USING btree (a)",
            "create table another (id int primary key)",
        ]
    );
    assert_says(&refusal(&pair), &["column \"a\" does not exist"]);
    pair.run_on_slave("alter table t add a int");
    let said = arrives(&pair);
    assert_says(&said, &["ALTER TABLE public.t does not travel"]);
}

#[test]
fn what_standard_conforming_strings_would_change_is_told() {
    let pair = pair();
    if pair.version() > 18 {
        return;
    }
    let mut client = pair.master();
    client.batch_execute("set standard_conforming_strings = off").unwrap();
    client.batch_execute("create table t (id int primary key, a text default 'a\\';')").unwrap();
    assert_says(&logged(&pair).concat(), &["its text is not known for certain"]);
}

#[test]
fn the_settings_that_a_text_depends_on_travel_with_it() {
    let pair = pair();
    pair.run("create schema a; create schema b; create table a.t (id int primary key); create table b.t (id int primary key)");
    let mut client = pair.master();
    client
        .batch_execute("set search_path = nowhere, b, a; set datestyle = 'SQL, DMY'; set timezone = 'Asia/Tokyo'")
        .unwrap();
    client
        .batch_execute("alter table t add d date default '03/02/2001', add z timestamptz default '2001-01-01 00:00:00'")
        .unwrap();
    client.batch_execute("set search_path = ''; create table public.u (id int primary key)").unwrap();
    client.batch_execute("set search_path = b; insert into t values (1)").unwrap();
    arrives(&pair);
    assert_eq!(pair.on_slave("select d || ' ' || (z at time zone 'UTC') from b.t"), ["2001-02-03 2000-12-31 15:00:00"]);
}

// == What does not travel ==

#[test]
fn what_is_temporary_or_pyreplicas_own_or_the_servers_does_not_travel() {
    let pair = pair();
    pair.run("create table t (id int primary key); create role not_there_either");
    pair.once();
    pair.run(
        "create temp table x (id int primary key); create temp view y as select * from t; alter table x add a int; drop table x cascade;
         grant select on t to public; alter table t owner to pg_monitor; alter table t owner to postgres; reindex table t;
         alter default privileges grant select on tables to public; create publication p for table t; drop publication p;
         alter table t disable trigger user; alter table t enable trigger user; alter table t set tablespace pg_default;
         select py_log_create_tg('t'); select py_log_add_slave('second'); select py_log_remove_slave('second')",
    );
    install(&pair);
    pair.run("drop role not_there_either");
    assert_eq!(logged(&pair), [""; 0]);
    assert_eq!(pair.pending(), 0);
}

/// An extension's script drops things too. What a string drops itself travels, whatever else is in it.
#[test]
fn what_a_string_drops_beside_an_extension_travels() {
    let pair = pair();
    pair.run("create table a (id int primary key); create table b (id int primary key); create view v as select * from b; create view w as select * from b");
    arrives(&pair);
    pair.run("create extension pg_trgm; drop table a; drop table b cascade; alter extension pg_trgm update; drop extension pg_trgm; create extension citext; drop extension citext");
    arrives(&pair);
}

#[test]
fn a_table_of_rules_says_what_travels() {
    let pair = pair();
    pair.run("create schema private; create schema shared");
    pair.once();
    pair.run("insert into py_log_ddl (schema, travels) values ('private', false); insert into py_log_ddl (tag, travels) values ('%INDEX', false)");
    pair.run("insert into py_log_ddl (tag, schema) values ('CREATE INDEX', 'shared')");
    pair.run("create table private.t (id int primary key); create table shared.t (id int primary key, a int); create index on shared.t (a)");
    pair.run("create table public.t (id int primary key, a int); create index on public.t (a); drop index shared.t_a_idx; drop table private.t");
    assert_eq!(
        logged(&pair),
        [
            "create table shared.t (id int primary key, a int)",
            "CREATE INDEX t_a_idx ON shared.t USING btree (a)",
            "create table public.t (id int primary key, a int)",
        ]
    );
    assert_eq!(
        pair.on_master(
            "select tgrelid::regclass from pg_trigger where tgname = '!replica_tg' order by tgrelid::regclass::text"
        ),
        ["shared.t", "t"]
    );
}

/// A role is not a pattern: app_deploy is not appxdeploy.
#[test]
fn an_admitted_role_is_that_role_and_no_other() {
    let pair = pair();
    pair.run("create role app_deploy_1; create role appxdeploy_1; create schema app; grant create, usage on schema app to app_deploy_1, appxdeploy_1");
    pair.run("insert into py_log_ddl (schema, role) values ('app', 'app_deploy_1')");
    pair.run("set role appxdeploy_1; create view app.no as select 1 as one; reset role; set role app_deploy_1; create view app.yes as select 1 as one");
    let said = logged(&pair);
    assert!(
        said.iter().any(|line| line.contains("app.yes")) && !said.iter().any(|line| line.contains("app.no")),
        "{said:#?}"
    );
    pair.run("drop schema app cascade; drop role app_deploy_1; drop role appxdeploy_1");
}

#[test]
fn a_function_that_runs_with_its_owners_rights_does_not_travel_unless_told_so() {
    let pair = pair();
    let create = "create function f() returns int language sql security definer as 'select 1'";
    pair.run(create);
    assert_says(
        &logged(&pair).concat(),
        &["CREATE FUNCTION public.f() does not travel to the slaves: there it would run with the daemon's rights"],
    );
    pair.run("drop function f(); create function f() returns int language sql as 'select 1'; alter function f() security definer");
    assert_says(&logged(&pair).concat(), &["ALTER FUNCTION public.f() does not travel"]);
    pair.run("insert into py_log_ddl (tag) values ('SECURITY DEFINER'); drop function f()");
    pair.run(create);
    arrives(&pair);
}

/// What is temporary ends with the session, and no slave has it. Nor does it have what needs it.
#[test]
fn what_needs_something_temporary_does_not_travel() {
    let pair = pair();
    pair.run(
        "create temp table x (id int primary key, a text);
         create function f(v x) returns int language sql as 'select 1'; comment on function f(x) is 'no'; drop function f(x);
         create table t (like x including all); insert into t values (1, 'a');
         create table u (like public.t including all, b text check (b like 'x%')); insert into u values (1, 'a', 'x')",
    );
    let said = logged(&pair);
    assert_says(&said[0], &["CREATE TABLE public.t does not travel to the slaves: its text is not known for certain"]);
    assert_says(&said[1], &["create table u"]);
    assert_eq!(said[2..], ["I public.u"]);
    pair.run_on_slave("create table t (id int primary key, a text)");
    pair.run("drop table t");
    pair.once();
    assert_eq!(pair.on_slave("select b from u"), ["x"]);
}

/// Others than those who made it may change what has not travelled, and what has a part that travels.
#[test]
fn what_the_slaves_lack_is_not_changed_there() {
    let pair = pair();
    pair.run("create role maker_of_missing; grant create on schema public to maker_of_missing");
    pair.run(
        "create function f() returns int language sql security definer as 'select 1'; alter function f() security invoker;
         comment on function f() is 'no'; drop function f();
         set role maker_of_missing; create collation public.co (locale = 'C'); create domain public.d as int constraint above check (value > 0);
         create table public.theirs (id int, a int); reset role;
         comment on collation co is 'no'; alter collation co rename to co2;
         comment on constraint above on domain d is 'no'; create statistics s on id, a from theirs; comment on statistics s is 'no';
         alter statistics s rename to s2; drop statistics s2; drop collation co2; drop table theirs",
    );
    pair.run(
        "create foreign data wrapper w; comment on foreign data wrapper w is 'no'; create server s foreign data wrapper w;
         comment on server s is 'no'; create foreign table ft (id int, a int) server s; comment on foreign table ft is 'no';
         comment on column ft.a is 'no'; alter table ft add b int; create statistics s on id, a from ft; drop statistics s;
         create function g() returns trigger language plpgsql as 'begin return null; end';
         create trigger tg after insert on ft for each row execute function g(); comment on trigger tg on ft is 'no'; drop trigger tg on ft;
         create publication p; comment on publication p is 'no'; comment on access method heap is 'no'; comment on language plpgsql is null;
         select lo_create(4711); comment on large object 4711 is 'no'; drop domain d",
    );
    let said: Vec<String> = logged(&pair)
        .into_iter()
        .filter(|line| !line.starts_with("-- pyreplica: CREATE FUNCTION public.f()"))
        .collect();
    assert!(
        matches!(&said[..], [function] if function.starts_with("CREATE OR REPLACE FUNCTION public.g()")),
        "{said:#?}"
    );
    pair.once();
    pair.run("drop owned by maker_of_missing; drop role maker_of_missing");
}

// == New values ==

#[test]
fn existing_rows_get_the_values_that_they_have_on_the_master() {
    let pair = pair();
    pair.run("create table t (id int primary key, a text); insert into t select i, i from generate_series(1, 5) i; create domain d as int default random() * 100000");
    pair.run("create sequence s increment 7; create table parent (id int primary key); create table child (primary key (id)) inherits (parent); create table grandchild (primary key (id)) inherits (child); insert into parent values (1); insert into child values (2); insert into grandchild values (3)");
    pair.run("create table p (id int primary key) partition by range (id); create table p1 partition of p for values from (1) to (9); insert into p values (1), (2)");
    arrives(&pair);
    for (change, updates) in [
        ("alter table t add b int default 5", 0),
        (
            "alter table t add c text default 'x''y'::varchar(7), add column d1 numeric default -1.5, add j jsonb default '{}'",
            0,
        ),
        ("alter table t add e timestamptz default now(), add \"F\" int default random() * 1000000", 5),
        ("alter table t add column if not exists g int default nextval('s')", 5),
        ("alter table t add h serial", 5),
        ("alter table t add i int generated by default as identity", 5),
        ("alter table t add k int generated always as identity", 10),
        ("alter table t add l d", 5),
        ("alter table t add m timestamptz default 'now'", 5),
        ("alter table t add n int generated always as (id * 2) stored", 0),
        ("alter table t alter a type int using a::int", 0),
        ("alter table t alter a type text using a::text || clock_timestamp()", 5),
        ("alter table t alter column b set data type bigint using (random() * 1000000)::bigint", 5),
        ("alter table t alter b type numeric", 0),
        ("alter table parent add a int default random() * 1000000", 3),
        ("alter table p add a int default random() * 1000000", 2),
    ] {
        pair.run(change);
        assert_eq!(pair.pending(), updates + 1, "{change}");
        if change.contains("'now'") {
            // The default itself is calculated on each side, once.
            drains(&pair);
            pair.run("alter table t alter m drop default");
        }
        arrives(&pair);
    }
}

/// Nothing but the whole row identifies a row, so those that the slave has calculated are replaced, equal ones too.
#[test]
fn a_table_without_a_key_is_captured_with_its_new_values() {
    let pair = pair();
    pair.run("create table t (a int, b text); insert into t select i % 7, 'x' from generate_series(1, 500) i; alter table t replica identity full; insert into t values (1, 'x')");
    pair.run("create table p (a int, b text) partition by list (a); create table p1 partition of p for values in (1); create table p2 partition of p for values in (2); alter table p replica identity full; alter table p1 replica identity full; insert into p select 1, 'x' from generate_series(1, 20)");
    arrives(&pair);
    assert_eq!(pair.on_slave("select count(*) from t"), ["501"]);
    for change in [
        "alter table t add r float8 default random()",
        "alter table p add r float8 default random()",
        "alter table t alter b type text using b || clock_timestamp()",
    ] {
        pair.run(change);
        arrives(&pair);
        pair.assert_equal();
    }
    pair.run("update t set b = 'y' where a = 1; delete from t where a = 2; alter table p detach partition p1; insert into p1 values (1, 'later')");
    arrives(&pair);
    pair.assert_equal();
    // Here nothing is left that finds the rows.
    pair.run("alter table p detach partition p2");
    assert_says(&arrives(&pair), &["changes of table public.p2 are not in the log from here on"]);
    pair.run("create table one (a int); alter table one replica identity full; insert into one values (1); alter table one alter a type int using random() * 1000");
    assert_says(&pair.once().output, &["the rows of table public.one have got other values"]);
}

#[test]
fn keys_that_are_calculated_anew_are_told() {
    let pair = pair();
    pair.run("create table t (id int primary key); insert into t values (1)");
    pair.run("alter table t alter id type int using (random() * 1000)::int + 10");
    assert_says(&pair.once().output, &["the keys of table public.t have got other values"]);
}

#[test]
fn partitions_come_and_go_with_their_rows() {
    let pair = pair();
    pair.run(
        "create table p (id int primary key, a text) partition by range (id); create table p1 partition of p for values from (1) to (10);
         create table keyless (id int not null, a text); insert into keyless values (11, 'k'); alter table p attach partition keyless for values from (10) to (20);
         create table keyed (id int primary key, a text); insert into keyed values (21, 'k'); alter table p attach partition keyed for values from (20) to (30);
         insert into p values (1, 'x'), (12, 'y'), (22, 'z'); update p set id = 13 where id = 1",
    );
    arrives(&pair);
    pair.run("alter table p detach partition keyed; insert into keyed values (23, 'alone'); insert into p1 values (2, 'there')");
    arrives(&pair);
    pair.run(
        "truncate p1; create table p3 partition of p for values from (30) to (40); insert into p3 values (31, 'x')",
    );
    pair.run(
        "truncate p3; alter table p attach partition keyed for values from (20) to (30); delete from p where id = 23",
    );
    arrives(&pair);
    if pair.version() >= 14 {
        pair.run("alter table p detach partition keyed concurrently");
        pair.run("insert into keyed values (24, 'alone'); create table sub partition of p for values from (50) to (60) partition by list (id); create table sub1 partition of sub for values in (51)");
        pair.run("insert into p values (51, 'deep'); drop table p1");
        drains(&pair);
        // PostgreSQL leaves a check there, and the plain statement does not.
        pair.run("alter table keyed drop constraint keyed_id_check");
        assert_says(&arrives(&pair), &["was made on the slave already"]);
    }
}

/// Renaming a schema locks no table of it, but whoever writes there logs the name of the moment.
#[test]
fn a_schema_is_renamed_while_others_write_in_it() {
    let pair = pair();
    pair.run("create schema a; create table a.t (id serial primary key)");
    let (mut writer, mut other) = (pair.master(), pair.master());
    writer.batch_execute("begin; insert into a.t default values").unwrap();
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| pair.run("alter schema a rename to b; insert into b.t default values"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        writer.batch_execute("insert into a.t default values; commit").unwrap();
        renaming.join().unwrap();
    });
    other.batch_execute("insert into b.t default values").unwrap();
    arrives(&pair);
}

// == When something goes wrong ==

#[test]
fn what_goes_wrong_breaks_no_change_of_the_application_unless_told_so() {
    let pair = pair();
    pair.run("alter function pyreplica.ddl_write(text, text, text, oid, oid) rename to ddl_written");
    pair.run("create table t (id int primary key); create table u (id int primary key)");
    assert_eq!(pair.on_master("select to_regclass('t') is null or to_regclass('u') is null"), ["f"]);
    pair.run("update py_log_ddl_setting set value = 'raise' where name = 'on_error'");
    let error = pair.master().batch_execute("create table v (id int primary key)").expect_err("refused");
    assert_says(&format!("{error:?}"), &["ddl_write"]);
    pair.run("alter function pyreplica.ddl_written(text, text, text, oid, oid) rename to ddl_write");
    pair.run("create function f() returns void language sql as 'create table w (id int primary key)'");
    let error = pair.master().batch_execute("select f()").expect_err("refused");
    assert_says(&format!("{error:?}"), &["its text is not known for certain"]);
    pair.run("create table v (id int primary key)");
    assert_eq!(logged(&pair).last().map(String::as_str), Some("create table v (id int primary key)"));
}

#[test]
fn what_the_slave_has_already_is_a_warning() {
    let pair = pair();
    for change in [
        "create table t (id int primary key, a int default 5)",
        "create index by_a on t (a)",
        "create type mood as enum ('a', 'b')",
        "alter table t add b text",
        "alter table t rename a to c",
        "alter type mood add value 'c'",
        "create schema s",
        "alter table t set schema s",
        "create domain d as int check (value > 1)",
        "create table p (id int primary key) partition by range (id)",
        "create table p1 partition of p for values from (1) to (2)",
        "alter table p detach partition p1",
        "create function f() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger tg after insert on s.t execute function f()",
        "create view v as select 1 as a",
        "create policy pol on s.t using (true)",
        "drop view v",
        "drop type mood",
        "create sequence sq",
        "alter table s.t add constraint positive check (c > 0)",
        "alter table s.t rename to \"t;2\"",
        "alter schema s rename to \"s;2\"",
        "comment on schema \"s;2\" is 'x'",
        "create extension pg_trgm",
        "create aggregate total (int) (sfunc = int4pl, stype = int, initcond = '0')",
    ] {
        pair.exec_both(change);
        pair.run("do $$ begin if to_regclass('\"s;2\".\"t;2\"') is not null then insert into \"s;2\".\"t;2\" values ((select count(*) + 1 from \"s;2\".\"t;2\"), 1); end if; end $$");
        let finished = pair.try_once();
        // Nobody asks for the shape of an aggregate.
        let is_refused = change.contains("aggregate");
        assert_eq!(finished.status.success(), !is_refused, "{change}: {}", finished.output);
        if change.starts_with("create table t") {
            assert_says(&finished.output, &["was made on the slave already", "relation \"t\" already exists"]);
        }
    }
    pair.run_on_slave("drop aggregate total (int)");
    pair.once();
    pair.assert_equal();
}

#[test]
fn what_the_slave_has_in_another_shape_stops_there() {
    let pair = pair();
    pair.run_on_slave("create table t (id int primary key, a text)");
    pair.run("create table t (id int primary key, a int); insert into t values (1, 1)");
    assert_says(
        &refusal(&pair),
        &["cannot replay change 1 ", "create table t (id int primary key, a int)", "already exists"],
    );
    let shown = pair.done(&["pending"]);
    assert_says(&shown, &["create table t (id int primary key, a int)", "waits"]);
    pair.done(&["skip", "1", "--reason", "as text there", "--yes"]);
    drains(&pair);
}

#[test]
fn a_refused_change_goes_into_quarantine_with_its_transaction() {
    let pair = pair();
    pair.run_on_slave("create table t (id int primary key, a text)");
    pair.run("create table u (id int primary key)");
    pair.run("create table t (id int primary key, a int); insert into t values (1, 1)");
    pair.run("insert into u values (1)");
    pair.once_with("ON_ERROR=quarantine");
    assert_eq!(pair.on_slave("select count(*) from u"), ["1"]);
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["2"]);
    pair.run_on_slave("drop table t");
    pair.done(&["retry"]);
    pair.assert_equal();
}

#[test]
fn doctor_says_whether_schema_changes_travel() {
    let pair = Pair::new();
    assert_says(&pair.verb(&["doctor"]).output, &["schema changes", "they do not travel"]);
    install(&pair);
    assert_says(&pair.verb(&["doctor"]).output, &["schema changes", "they travel to the slaves"]);
    pair.run("alter event trigger \"!pyreplica_ddl_3_end\" disable");
    assert_says(&pair.verb(&["doctor"]).output, &["schema changes", "missing or disabled"]);
}

#[test]
fn the_verb_installs_it_and_the_script_takes_it_away() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key)");
    let words = ["install", "--ddl", pair.master_dsn.as_str()];
    let run = |words: &[&str]| crate::harness::run(&pair.dir().join("install.log"), words, &[]);
    for _ in 0..2 {
        let finished = run(&words);
        assert!(finished.status.success(), "{}", finished.output);
        assert_says(&finished.output, &["schema changes travel from now on"]);
    }
    pair.run("alter table t add a int; insert into t values (1, 2)");
    arrives(&pair);
    // A new version, or the same again, keeps it.
    assert!(run(&["install", pair.master_dsn.as_str()]).status.success());
    pair.run("create table u (id int primary key)");
    arrives(&pair);
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/master-uninstall.sql");
    pair.master_server().psql(&pair.master_db(), &script);
    pair.run("create table v (id int primary key); drop table u");
    assert_eq!(pair.on_master("select count(*) from pg_event_trigger"), ["0"]);
    assert_eq!(pair.on_master("select to_regnamespace('pyreplica') is null"), ["t"]);
    assert_eq!(pair.on_master("select count(*) from pg_class where relname ~ '^(replica_|py_log_)'"), ["0"]);
}

#[test]
fn all_that_the_script_makes_is_known_as_pyreplicas_own_and_is_nobody_elses() {
    let pair = pair();
    let unknown = pair.on_master(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'pyreplica'::regnamespace and proname ~ '^ddl_'
            and oid not in (select to_regprocedure(name) from pyreplica.own() where kind = 'function')
         union all
         select oid::regclass::text from pg_class where relname ~ '^py_log_ddl' and relkind = 'r'
            and 'public.' || relname not in (select name from pyreplica.own() where kind = 'table')",
    );
    assert_eq!(unknown, [""; 0]);
    let open = pair.on_master(
        "select oid::regprocedure from pg_proc where proname ~ '^ddl_' and has_function_privilege('pg_monitor', oid, 'execute')",
    );
    assert_eq!(open, [""; 0]);
}

/// The owner of the log is no superuser: what he makes is captured, and what a superuser makes travels and has no trigger.
#[test]
fn the_owner_of_the_log_need_not_be_a_superuser() {
    let pair = Pair::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let script = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let app = format!("{}_app", pair.name);
    pair.run(&script("master-uninstall.sql"));
    pair.run(&format!(
        "create role {app} login; alter database {} owner to {app}; alter schema public owner to {app}; drop extension hstore",
        pair.master_db()
    ));
    let mut client = pair.master();
    client.batch_execute(&format!("set session authorization {app}")).unwrap();
    client.batch_execute(&script("master-install.sql")).unwrap();
    assert!(client.batch_execute(&script("master-install-ddl.sql")).is_err(), "only a superuser makes event triggers");
    client.batch_execute("rollback").unwrap();
    install(&pair);
    client
        .batch_execute("create table t (id int primary key); alter table t add a int default random() * 1000")
        .unwrap();
    client.batch_execute("insert into t values (1); alter table t add b timestamptz default now()").unwrap();
    arrives(&pair);
    // He may write the rules, and install again.
    client.batch_execute("insert into py_log_ddl (tag, travels) values ('CREATE VIEW', false)").unwrap();
    client.batch_execute(&script("master-install.sql")).unwrap();
    client.batch_execute("create view v as select 1").unwrap();
    pair.run("create table by_root (id int primary key); insert into by_root values (1)");
    assert_says(&pair.once().output, &["by_root belongs to somebody else"]);
    assert_eq!(pair.on_slave("select to_regclass('by_root') is null"), ["f"]);
    assert_eq!(
        pair.on_master("select distinct proowner::regrole from pg_proc where proname ~ '^ddl_'"),
        std::slice::from_ref(&app)
    );
    pair.run(&format!("reassign owned by {app} to postgres; drop owned by {app}; drop role {app}"));
}

#[test]
fn an_older_table_that_gets_a_key_is_left_alone() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int); insert into t values (1)");
    install(&pair);
    pair.run("alter table t add primary key (id)");
    assert_eq!(logged(&pair), ["alter table t add primary key (id)"]);
    arrives(&pair);
}

#[test]
fn filters_go_on_for_a_renamed_table_and_hold_new_rows_back() {
    let pair = pair();
    pair.run("create table t (id int primary key)");
    pair.run("insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.id > 10')");
    pair.run("alter table t rename to u; insert into u values (1), (11)");
    pair.once();
    assert_eq!(pair.on_slave("select id from u"), ["11"]);
    pair.run("alter table u add a int default random() * 1000");
    let said = pair.once().output;
    assert_says(&said, &["because it has a filter or a transform"]);
    assert_same_schema(&pair);
}
