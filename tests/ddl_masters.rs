//! Schema changes with several masters and slaves, under load, and with tenants that nobody trusts.

use crate::ddl::{assert_same_schema, install, pair};
use crate::harness::{Daemon, Pair, assert_says, refusal, wait_until};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

// == Several masters ==

fn nodes(count: usize) -> Vec<Pair> {
    (0..count).map(|_| pair()).collect()
}

fn replicate(from: &Pair, to: &Pair, more: &str) -> Daemon {
    from.start_with(&format!("DSN1={}\nTIMEOUT=3600\n{more}", to.master_dsn))
}

fn rows(node: &Pair, table: &str) -> String {
    if node.on_master(&format!("select to_regclass('{table}') is null")) == ["t"] {
        return String::new();
    }
    node.on_master(&format!("select coalesce(string_agg(x::text, ' ' order by id), '') from {table} x")).concat()
}

fn columns(node: &Pair) -> Vec<String> {
    node.on_master("select concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod)) from pg_attribute a join pg_class c on c.oid = attrelid
                     where relnamespace = 'public'::regnamespace and relkind = 'r' and relname !~ '^(replica_|py_log)' and attnum > 0 and not attisdropped order by 1")
}

#[test]
fn in_a_mesh_each_change_runs_once_on_each_node() {
    let nodes = nodes(3);
    for node in &nodes {
        node.run("select py_log_add_slave('slave2')");
    }
    let mut daemons = Vec::new();
    for (from, (to, other)) in [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))] {
        daemons.push(replicate(&nodes[from], &nodes[to], ""));
        daemons.push(replicate(&nodes[from], &nodes[other], "SLAVE_FIELD=slave2"));
    }
    let everywhere = |what: &str, reached: &dyn Fn(&Pair) -> bool| {
        wait_until(what, || nodes.iter().all(reached));
    };
    nodes[0].run("create table t (id int primary key, a text); insert into t values (1, 'first')");
    everywhere("the table and its row", &|node| rows(node, "t").contains("first"));
    // The table has its trigger on each node, so each sends its rows, and its changes.
    nodes[1].run("insert into t values (2, 'second'); alter table t add b int default 5");
    everywhere("the column", &|node| rows(node, "t") == "(1,first,5) (2,second,5)");
    nodes[2]
        .run("update t set b = 6 where id = 1; create table u as select * from t; alter table u add primary key (id)");
    everywhere("the second table", &|node| rows(node, "u") == "(1,first,6) (2,second,5)");
    nodes[0].run("insert into u values (3, 'x', 1); alter table t rename to v; drop table u");
    everywhere("the new name", &|node| rows(node, "v").starts_with("(1,first,6)") && rows(node, "u").is_empty());
    nodes[1].run("insert into v values (4, 'fourth', 0)");
    everywhere("its row", &|node| rows(node, "v").contains("fourth"));
    everywhere("nothing is left", &|node| {
        node.on_master("select count(*) from replica_log where not (replicated and slave2)") == ["0"]
    });
    assert_eq!(columns(&nodes[0]), columns(&nodes[1]));
    for daemon in &daemons {
        assert!(!daemon.log().contains("ERROR") && !daemon.log().contains("onflict"), "{}", daemon.log());
    }
}

#[test]
fn a_cascade_hands_them_on() {
    let nodes = nodes(3);
    nodes[1].run("update py_log_ddl_setting set value = 'yes' where name = 'replayed'");
    let daemons = [replicate(&nodes[0], &nodes[1], ""), replicate(&nodes[1], &nodes[2], "")];
    nodes[0].run("create table t (id int primary key, a text default 'it''s;'); insert into t values (1); alter table t rename a to \"b;\"");
    nodes[0].run("create table u as select 2 as id; alter table u add primary key (id); insert into t values (2, 'x'); create index i on t (\"b;\")");
    nodes[0].run("drop table u; alter table t add c int default random() * 1000");
    wait_until("it has gone through", || {
        rows(&nodes[2], "t") == rows(&nodes[0], "t") && columns(&nodes[2]) == columns(&nodes[0])
    });
    assert_eq!(nodes[2].on_master("select count(*) from pg_indexes where indexname = 'i'"), ["1"]);
    wait_until("nothing is left", || nodes[1].pending() == 0);
    // Nothing goes back, also not round.
    for daemon in &daemons {
        assert!(!daemon.log().contains("ERROR") && !daemon.log().contains("onflict"), "{}", daemon.log());
    }
}

#[test]
fn two_masters_do_not_send_changes_back() {
    let nodes = nodes(2);
    let daemons = [replicate(&nodes[0], &nodes[1], ""), replicate(&nodes[1], &nodes[0], "")];
    nodes[0].run("create table t (id int primary key); create sequence s");
    wait_until("the table", || nodes[1].on_master("select to_regclass('s') is null") == ["f"]);
    nodes[1].run("alter table t add a int; insert into t values (1, 1)");
    wait_until("the row", || rows(&nodes[0], "t") == "(1,1)");
    wait_until("nothing is left", || nodes.iter().all(|node| node.pending() == 0));
    assert_eq!(nodes[0].on_master("select count(*) from replica_log where origin is not null"), ["0"]);
    for daemon in &daemons {
        assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    }
}

/// The daemon's role may not take the replica role: the origin says what it has replayed.
#[test]
fn without_the_replica_role_nothing_goes_back_either() {
    let nodes = nodes(2);
    let role = format!("{}_daemon", nodes[0].name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/slave-install.sql");
    nodes[1].master_server().psql(&nodes[1].master_db(), &script);
    nodes[1].run(&format!(
        "create role {role} login; grant postgres to {role}; grant create on database {} to {role}; select py_log_grant('{role}');
         grant all on replica_progress, replica_hold, replica_held, replica_conflict, replica_skipped to {role}",
        nodes[1].master_db()
    ));
    let to = nodes[1].master_dsn.replace("user=postgres", &format!("user={role}"));
    let there = nodes[0].start_with(&format!("DSN1={to}\nTIMEOUT=3600\n"));
    let back = replicate(&nodes[1], &nodes[0], "");
    nodes[0].run("create table t (id int primary key); insert into t values (1); alter table t add a int default random() * 1000; create schema s");
    wait_until("the rows", || rows(&nodes[1], "t") == rows(&nodes[0], "t"));
    nodes[1].run("insert into t values (2, 2); alter table t add b int; update t set b = 3 where id = 2; create table u (id int primary key)");
    wait_until("the rows", || rows(&nodes[0], "t").contains("(2,2,3)") && columns(&nodes[0]) == columns(&nodes[1]));
    nodes[0].run("drop table u; update t set b = 4");
    wait_until("the drop", || rows(&nodes[1], "t") == rows(&nodes[0], "t") && columns(&nodes[0]) == columns(&nodes[1]));
    wait_until("nothing is left", || nodes.iter().all(|node| node.pending() == 0));
    for daemon in [&there, &back] {
        assert!(!daemon.log().contains("ERROR") && !daemon.log().contains("onflict"), "{}", daemon.log());
    }
    drop((there, back));
    nodes[1].run(&format!("reassign owned by {role} to postgres; drop owned by {role}; drop role {role}"));
}

// == Load ==

#[test]
fn under_load_everything_arrives_whatever_is_killed() {
    let pair = pair();
    pair.run("create table base (id bigserial primary key, a text)");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let (pair, ended) = (&pair, &ended);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                scope.spawn(move || {
                    let mut client = pair.master();
                    for round in 0..12 {
                        let t = format!("w{writer}_{round}");
                        client.batch_execute(&format!(
                            "create table {t} (id int primary key, a text); insert into {t} select i, 'x' from generate_series(1, 50) i;
                             alter table {t} add b int default random() * 100; update {t} set a = 'y' where id % 3 = 0"
                        )).unwrap();
                        client.batch_execute(&format!(
                            "insert into base (a) select 'row' from generate_series(1, 20); begin; alter table {t} rename a to c; delete from {t} where id < 5;
                             update {t} set c = 'z' where id < 20; create index on {t} (c); alter table {t} rename to r{t}; insert into r{t} values (99, 'new', 1); commit"
                        )).unwrap();
                        if round % 3 == 0 {
                            client.batch_execute(&format!("begin; drop table r{t}; create table r{t} (x int primary key); insert into r{t} values (7); rollback")).unwrap();
                            client.batch_execute(&format!("begin; drop table r{t}; create table r{t} (x int primary key); insert into r{t} values (7); commit")).unwrap();
                        }
                        if round % 4 == 0 {
                            client.batch_execute("update base set a = a || '.' where id % 7 = 0").ok();
                        }
                    }
                })
            })
            .collect();
        let killer = scope.spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let mut daemon = pair.start();
                thread::sleep(Duration::from_millis(700));
                daemon.kill9();
            }
        });
        let done: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        ended.store(true, Ordering::SeqCst);
        killer.join().unwrap();
        assert!(done.iter().all(Result::is_ok));
    });
    let daemon = pair.start();
    pair.wait_caught_up();
    pair.assert_equal();
    assert_same_schema(&pair);
    assert!(!daemon.log().contains("onflict"), "{}", daemon.log());
}

// == Tenants ==

/// Roles with a schema of their own on both sides, and a table that says who runs what.
struct Tenant {
    pair: Pair,
    role: String,
}

impl Tenant {
    fn new() -> Tenant {
        let pair = pair();
        let role = format!("{}_ten", pair.name);
        pair.run("create table public.trapped (id serial primary key, who text)");
        pair.once();
        for run in [Pair::run, Pair::run_on_slave] {
            run(
                &pair,
                &format!(
                    "create role {role} login; grant insert, select on public.trapped to public; grant all on sequence public.trapped_id_seq to public"
                ),
            );
        }
        pair.run("create schema ten; create schema pub");
        pair.once();
        for (run, database) in [(Pair::run as fn(&Pair, &str), pair.master_db()), (Pair::run_on_slave, pair.slave_db())]
        {
            run(
                &pair,
                &format!(
                    "alter schema ten owner to {role}; grant create, usage on schema pub to {role};
                     grant create on schema public to {role}; grant create on database {database} to {role}"
                ),
            );
        }
        Tenant { pair, role }
    }

    fn tries(&self, sql: &str) -> bool {
        let mut client = self.pair.master();
        client.batch_execute(&format!("set session authorization {}", self.role)).unwrap();
        client.batch_execute(sql).is_ok()
    }

    fn does(&self, sql: &str) {
        self.pair.run(&format!("set session authorization {}; {sql}", self.role));
    }

    fn trap(&self, name: &str) -> String {
        format!(
            "create function {name}() returns int language plpgsql as $$ begin insert into public.trapped (who) values (current_user); return 1; end $$"
        )
    }

    fn logged(&self) -> Vec<String> {
        self.pair.on_master("select sql from replica_log where event = 'S' and not replicated order by id")
    }

    #[track_caller]
    fn nothing_of_his_ran(&self) {
        self.pair.try_once();
        let trapped = self.pair.on_slave(&format!("select who from public.trapped where who <> '{}'", self.role));
        assert!(trapped.is_empty(), "{trapped:?}");
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        for run in [Pair::run_on_slave, Pair::run] {
            run(&self.pair, &format!("drop owned by {0} cascade; drop role {0}", self.role));
        }
    }
}

/// A thousand schema changes in a row, most of which take something away again.
#[test]
fn a_thousand_migrations_leave_nothing_behind() {
    let pair = pair();
    pair.run("create table kept (id int primary key)");
    let mut daemon = pair.start();
    let left = |side: &str| {
        let ask = "select (select count(*) from pg_class where relkind in ('r', 'i', 'S', 'v')) || ' relations, '
            || (select count(*) from pg_proc) || ' functions, ' || (select count(*) from pg_trigger) || ' triggers, '
            || (select count(*) from pg_type) || ' types, ' || (select count(*) from pg_depend) || ' dependencies, '
            || (select count(*) from pg_prepared_xacts where database = current_database())
            || ' prepared'";
        if side == "master" { pair.on_master(ask) } else { pair.on_slave(ask) }
    };
    pair.run("insert into kept values (0); create table x (id int primary key); drop table x");
    pair.wait_caught_up();
    let before = [left("master"), left("slave")];
    thread::scope(|scope| {
        for client in 0..4 {
            let pair = &pair;
            scope.spawn(move || {
                let mut session = pair.master();
                for n in 0..25 {
                    let t = format!("t{client}_{n}");
                    for statement in [
                        format!("create table {t} (id int primary key, a text)"),
                        format!("insert into {t} select i, 'x' from generate_series(1, 3) i"),
                        format!("alter table {t} add b int default 7"),
                        format!("begin; alter table {t} rename a to c; update {t} set c = 'y' where id = 2; commit"),
                        format!("create index on {t} (b)"),
                        format!("create view v_{t} as select * from {t}"),
                        format!("do $$ begin execute 'alter table {t} add d timestamptz default now()'; end $$"),
                        format!("begin; savepoint s; alter table {t} drop b cascade; rollback to s; commit"),
                        format!("create function f_{t}() returns int language sql as 'select 1'"),
                        format!("drop function f_{t}()"),
                        format!("drop view v_{t}"),
                        format!("drop table {t}"),
                    ] {
                        session.batch_execute(&statement).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
                    }
                }
            });
        }
    });
    pair.run("insert into kept values (1)");
    pair.wait_caught_up();
    pair.assert_equal();
    assert_same_schema(&pair);
    assert_eq!([left("master"), left("slave")], before);
    assert_eq!(pair.on_master("select count(*) from py_log_ddl_table"), ["0"]);
    // The names of dropped tables stay as long as the log has their changes.
    assert_eq!(pair.on_master("select count(*) from replica_table"), ["102"]);
    assert!(daemon.terminate().success());
    pair.drain_with("RETENTION=0\n");
    assert_eq!(pair.on_master("select name from replica_table"), ["public.kept"]);
    assert!(!daemon.log().contains("does not travel"), "{}", daemon.log());
}

#[test]
fn what_a_tenant_makes_does_not_travel() {
    let tenant = Tenant::new();
    for statement in [
        &tenant.trap("ten.evil"),
        "create table ten.t (id int primary key)",
        "create table ten.x as select ten.evil() as id",
        "alter table ten.t add a int default ten.evil()",
        "insert into ten.t values (1)",
        "alter table ten.t alter a type int using ten.evil()",
        "create index on ten.t (a)",
        "create table ten.p (id int check (ten.evil() = 1) primary key)",
        "create view ten.v as select ten.evil()",
        "create materialized view ten.m as select ten.evil()",
        "create function ten.definer() returns int language sql security definer as 'select ten.evil()'",
        "do $$ begin execute 'create table ten.y (id int primary key)'; end $$",
        "create schema other authorization current_user create table z (id int primary key)",
        "create schema other2",
        "comment on table ten.t is 'x'",
        "create table pub.t (id int primary key, a int default ten.evil())",
        "drop table ten.y",
        "drop schema other2 cascade",
        "create type ten.e as enum ('a')",
        "create table public.\"x; drop table trapped; --\" (id int primary key)",
        "create table public.\"x\ndrop table trapped; --\" (id int primary key)",
        "alter table public.\"x\ndrop table trapped; --\" add a int",
        // A setting is no proof of anything.
        "set pyreplica.ddl_who = '[10, [\"public\"], \"on\"]'; create table ten.w (id int primary key)",
        "set pyreplica.origin = 'x/1'; create table ten.w2 (id int primary key)",
        "set pyreplica.ddl_place = '1/1 1 '; create table ten.w3 (id int primary key)",
        "set standard_conforming_strings = off; create table ten.w4 (id int primary key)",
        "set search_path = ten, pg_catalog; create table w5 (id int primary key)",
    ] {
        assert!(tenant.tries(statement) || statement.contains("schema other"), "{statement}");
        assert_eq!(tenant.logged(), [""; 0], "{statement}");
    }
    tenant.nothing_of_his_ran();
}

#[test]
fn a_tenants_functions_and_operators_do_not_run_in_the_event_triggers() {
    let tenant = Tenant::new();
    let role = &tenant.role;
    // Whatever a call without its schema could mean.
    let body = "begin insert into public.trapped (who) values (current_user); return true; end";
    for argument in ["text", "varchar", "name", "oid"] {
        tenant.does(&format!(
            "create function public.same({argument}, {argument}) returns boolean language plpgsql as $$ {body} $$;
             create operator public.= (leftarg = {argument}, rightarg = {argument}, function = public.same);
             create operator public.|| (leftarg = {argument}, rightarg = {argument}, function = public.same);
             create operator public.~* (leftarg = {argument}, rightarg = {argument}, function = public.same)"
        ));
    }
    tenant.does(&format!(
        "create function public.format(text, name) returns text language plpgsql as $$ {0} $$; create function public.substr(text, int) returns text language plpgsql as $$ {0} $$;
         create function public.set_config(text, text, boolean) returns text language plpgsql as $$ {0} $$; create domain public.text as int",
        body.replace("return true", "return 'x'")
    ));
    tenant.does("set search_path = public, pg_catalog; create temp table pg_roles (oid oid, rolname name); create domain pg_temp.json as int; create table t (id int primary key); alter table t add a int; drop table t");
    tenant.pair.run("set search_path = public, pg_catalog; create table u (id int primary key); alter table u add a int; drop table u");
    let trapped = tenant.pair.on_master(&format!("select who from public.trapped where who <> '{role}'"));
    assert!(trapped.is_empty(), "{trapped:?}");
}

/// What the slave does not have, nobody changes there.
#[test]
fn what_a_trusted_role_changes_of_a_tenants_does_not_travel_either() {
    let tenant = Tenant::new();
    tenant.does("create table ten.t (id int primary key); create view ten.v as select 1 as a");
    tenant.pair.run("alter table ten.t add a int; comment on view ten.v is 'x'; alter view ten.v rename to w; create index on ten.t (a); create trigger tg after insert on ten.t for each row execute function suppress_redundant_updates_trigger()");
    assert_eq!(tenant.logged(), [""; 0]);
    // A table that is replicated is there.
    tenant.pair.run_on_slave("create table ten.r (id int primary key)");
    tenant.does("create table ten.r (id int primary key)");
    tenant.pair.run("select py_log_create_tg('ten', 'r'); alter table ten.r add a int; create index by_a on ten.r (a)");
    tenant.does("insert into ten.r values (1, 2)");
    tenant.pair.once();
    assert_eq!(tenant.pair.on_slave("select a from ten.r"), ["2"]);
    // Its rows are not read: its owner could put a view in its place.
    tenant.pair.run("alter table ten.r add b int default random()");
    assert_says(&tenant.logged().concat(), &["its schema belongs to"]);
}

/// He has made or renamed things so that they have the names of what only the slave has, and the admin cleans up.
#[test]
fn what_a_tenant_has_named_is_not_dropped_on_the_slave() {
    let tenant = Tenant::new();
    let (pair, role) = (&tenant.pair, &tenant.role);
    pair.run("create table given (id int); create schema given_s; create table given_s.t (a int); create type given_t as (a int)");
    pair.once();
    pair.run(&format!(
        "alter table given owner to {role}; alter schema given_s owner to {role}; alter type given_t owner to {role}"
    ));
    let names = "create table public.a (); create table public.b (); create schema s; create table s.t (a int); create type public.c as (x int);
        create function public.f() returns int language sql as 'select 1'";
    pair.run_on_slave(&format!("{names}; create table public.i (x int); create index by_x on public.i (x); create view public.late as select 1 as a"));
    tenant.does("create table public.a (); create function public.f() returns int language sql as 'select 1'; create table public.j (x int); create index by_x on public.j (x)");
    tenant.does("alter table given rename to b; alter type given_t rename to c; alter schema given_s rename to s; create view public.late as select 1 as a");
    tenant.does("explain analyze create table public.d as select 1 as a");
    pair.run_on_slave("create table public.d (x int)");
    pair.run(
        "drop table a, b, d; drop table s.t; drop index by_x; drop type c; drop schema s cascade; drop function f()",
    );
    // Whoever names it is trusted, and it travels.
    pair.run("create or replace view late as select 1 as a; drop view late; create table mine (id int primary key)");
    pair.run(&format!("alter table mine owner to {role}; drop table mine; drop owned by {role}"));
    assert_eq!(tenant.logged().iter().filter(|line| line.contains("; DROP ")).count(), 2, "{:#?}", tenant.logged());
    pair.once();
    let left = "select count(*) from unnest('{a,b,s.t,by_x,c,d}'::text[]) n where to_regclass(n) is not null or to_regtype(n) is not null";
    assert_eq!(pair.on_slave(left), ["6"]);
    assert_eq!(pair.on_slave("select to_regprocedure('f()') is not null and to_regclass('late') is null"), ["t"]);
    assert_eq!(pair.on_master("select count(*) from py_log_ddl_absent a where catalog = 'pg_class'::regclass and not exists (select from pg_class where oid = a.object)"), ["0"]);
}

#[test]
fn drop_owned_is_told_and_travels_in_order_if_the_owner_of_the_log_says_so() {
    let tenant = Tenant::new();
    let (pair, role) = (&tenant.pair, &tenant.role);
    let give = format!(
        "create schema own; create table own.t (id int primary key); alter schema own owner to {role}; alter table own.t owner to {role}"
    );
    pair.run(&give);
    pair.run(&format!("drop owned by {role}"));
    assert_says(&tenant.logged().concat(), &["-- pyreplica: DROP OWNED does not travel"]);
    pair.run_on_slave("drop schema if exists own cascade");
    pair.once();
    pair.run_on_slave("drop schema own cascade");
    pair.run("insert into py_log_ddl (tag) values ('DROP OWNED')");
    pair.run(&give);
    pair.once();
    pair.run(&format!("drop owned by {role}"));
    pair.once();
    assert_eq!(pair.on_slave("select to_regnamespace('own') is null"), ["t"]);
}

/// The script of a trusted extension runs as a superuser, whoever calls it and however.
#[test]
fn what_the_script_of_a_tenants_extension_drops_does_not_travel() {
    let tenant = Tenant::new();
    tenant.does("create extension seg schema ten version '1.1'; alter/**/extension seg update");
    tenant.does("drop extension seg; create extension seg schema ten version '1.1'; do $$ begin execute 'alter ' || 'extension seg update to ''1.2'''; end $$");
    assert_eq!(tenant.logged(), [""; 0]);
    // What is left of such a statement hides nothing: a trusted function drops what it has made.
    tenant.pair.run("create table t (id int); create function drop_t() returns void language plpgsql security definer as 'begin drop table public.t; end'");
    tenant.does("do $$ begin alter extension seg update to 'nowhere'; exception when others then null; end $$; alter extension seg update; select drop_t()");
    assert_says(&tenant.logged().concat(), &["DROP TABLE IF EXISTS public.t"]);
    assert_eq!(tenant.pair.on_master("select count(*) from py_log_ddl_script"), ["0"]);
    assert!(!tenant.tries("insert into public.py_log_ddl_script values (pg_current_xact_id(), 1)"));
}

/// He has made something on the slave before the master's arrives: neither rows nor anybody's calls get into it.
#[test]
fn what_a_stranger_has_made_on_the_slave_is_not_taken_for_the_masters() {
    let tenant = Tenant::new();
    let (pair, role) = (&tenant.pair, &tenant.role);
    let makes = |sql: &str| pair.run_on_slave(&format!("set session authorization {role}; {sql}"));
    makes("create table public.salary (id int not null, amount int, constraint salary_pkey primary key (id))");
    pair.run("create table salary (id int primary key, amount int); insert into salary values (1, 5000)");
    assert_says(
        &refusal(pair),
        &["relation \"salary\" already exists", &format!("It belongs to role {role} there, which is not trusted")],
    );
    assert_eq!(pair.on_slave("select count(*) from salary"), ["0"]);
    pair.run_on_slave("alter table salary owner to current_user");
    assert_says(&pair.once().output, &["was made on the slave already"]);
    assert_eq!(pair.on_slave("select amount from salary"), ["5000"]);
    for (name, made, drop) in [
        ("public.pay", "create table if not exists public.pay (id int primary key)", "drop table pay"),
        (
            "public.f",
            "create or replace function public.f() returns int language sql as 'select 1'",
            "drop function f()",
        ),
        ("public.v", "create or replace view public.v as select 1 as a", "drop view v"),
    ] {
        makes(made);
        pair.run(made);
        assert_says(&refusal(pair), &[name, &format!("belongs to role {role} on the slave")]);
        pair.run_on_slave(drop);
        pair.once();
    }
}

/// Whatever fails in the event triggers: a remark reaches all slaves, and what he has made is still known to be absent.
#[test]
fn an_error_hides_nothing_that_a_tenant_does() {
    let tenant = Tenant::new();
    tenant.pair.run("alter function pyreplica.ddl_travels(text, text, oid, boolean) rename to gone");
    tenant.does(&format!("set pyreplica.origin = '{}'; create table ten.t (id int primary key)", tenant.pair.name));
    assert_says(&tenant.logged().concat(), &["-- pyreplica: CREATE TABLE does not travel to the slaves"]);
    assert_eq!(tenant.pair.on_master("select count(*) from replica_log where origin <> ''"), ["0"]);
    assert_eq!(tenant.pair.on_master("select count(*) from py_log_ddl_absent where object = 'ten.t'::regclass"), ["1"]);
}

/// A role that is trusted has used a tenant's type: his checks would run where the rows are replayed.
#[test]
fn a_table_of_a_trusted_role_with_a_tenants_type_does_not_travel() {
    let tenant = Tenant::new();
    tenant.does(&tenant.trap("ten.evil"));
    tenant.does("create domain ten.d as int check (value > 0 and ten.evil() = 1); create table ten.t (a ten.d); insert into ten.t values (1)");
    tenant.pair.run("create table copied as select 1 as id, a from ten.t");
    assert_says(&tenant.logged().concat(), &["CREATE TABLE AS public.copied does not travel to the slaves"]);
    tenant.nothing_of_his_ran();
}

#[test]
fn a_trusted_function_that_a_tenant_calls_travels_as_its_owners() {
    let tenant = Tenant::new();
    tenant.pair.run(
        "create function public.make(name text) returns void language plpgsql security definer set search_path = pg_catalog as
             $$ begin execute format('create table public.%I (id int primary key)', name); end $$;
         create function public.mine(name text) returns void language plpgsql as
             $$ begin execute format('create table ten.%I (id int primary key)', name); end $$",
    );
    tenant.pair.run("insert into py_log_ddl (tag) values ('SECURITY DEFINER')");
    tenant.pair.once();
    let hostile = "x\" (id int primary key); drop table public.trapped; --";
    tenant.does(&format!("select public.make('good'); select public.mine('bad'); select public.make('{hostile}'); select public.make(e'\\nPL/pgSQL function')"));
    let logged = tenant.logged();
    assert!(!logged.concat().contains("ten."), "{logged:#?}");
    tenant.pair.try_once();
    assert_eq!(tenant.pair.on_slave("select to_regclass('trapped') is null or to_regclass('good') is null"), ["f"]);
    assert_eq!(
        tenant.pair.on_slave("select count(*) from pg_class where relname like 'x\" (id%' and relkind = 'r'"),
        ["1"]
    );
}

#[test]
fn the_owner_of_the_log_may_admit_a_role() {
    let tenant = Tenant::new();
    tenant.pair.run(&format!("insert into py_log_ddl (schema, role) values ('ten', '{}')", tenant.role));
    tenant.does("create table ten.t (id int primary key); create table pub.t (id int primary key)");
    assert_eq!(tenant.logged().len(), 1);
    // He cannot admit himself.
    assert!(
        !tenant.tries("insert into public.py_log_ddl (tag) values ('%')")
            && !tenant.tries("select pyreplica.ddl_write('drop table trapped', null, null, null, null)")
    );
    assert!(!tenant.tries("create event trigger e on ddl_command_end execute function pyreplica.ddl_end()"));
    tenant.pair.once();
    assert_eq!(tenant.pair.on_slave("select to_regclass('ten.t') is not null, to_regclass('pub.t') is null"), ["t"]);
}

/// His table is replicated, and he changes it: the slave's operator is told, in a comment that nothing breaks out of.
#[test]
fn a_tenants_change_of_a_replicated_table_is_told() {
    let tenant = Tenant::new();
    tenant.does("create table ten.\"t\n; drop table public.trapped; --\" (id int primary key)");
    tenant.pair.run("select py_log_create_tg('ten', E't\\n; drop table public.trapped; --')");
    tenant.does("alter table ten.\"t\n; drop table public.trapped; --\" add a int");
    assert_says(&tenant.logged().concat(), &["-- pyreplica: ALTER TABLE ten.", "is not trusted"]);
    let said = tenant.pair.once().output;
    assert_says(&said, &["WARNING", "is not trusted with it"]);
    assert_eq!(tenant.pair.on_slave("select to_regclass('trapped') is null"), ["f"]);
}

#[test]
fn a_tenants_table_of_the_name_of_the_rules_is_refused() {
    let pair = Pair::new();
    let role = format!("{}_ten", pair.name);
    pair.run(&format!("create role {role}; grant create on schema public to {role}; set role {role}; create table public.py_log_ddl (id int)"));
    let script =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/master-install-ddl.sql")).unwrap();
    let error = pair.master().batch_execute(&script).expect_err("refused");
    assert_says(&format!("{error:?}"), &["is not known to have installed pyreplica"]);
    pair.run(&format!("drop table public.py_log_ddl; set role {role}; create function public.older() returns int language sql as 'select 1'"));
    install(&pair);
    // Nobody knows whether the slave's is the same one.
    pair.run("drop function older()");
    assert_eq!(pair.pending(), 0);
    pair.run(&format!("drop owned by {role}; drop role {role}"));
}

/// Where schema changes travel they have to do so in both directions, and what the roles need does not travel.
#[test]
fn a_switchover_wants_the_event_triggers_on_both_sides_and_sends_no_fence() {
    let pair = Pair::new().with_a_table();
    let install = |dsn: &str| {
        let finished = crate::harness::run(&pair.dir().join("install.log"), &["install", "--ddl", dsn], &[]);
        assert!(finished.status.success(), "{}", finished.output);
    };
    install(&pair.master_dsn);
    pair.run("create table made (id int primary key)");
    pair.once();
    let refused = pair.verb(&["switchover"]);
    assert!(refused.output.contains("event trigger"), "{}", refused.output);
    assert!(refused.output.contains("pyreplica install --ddl"), "{}", refused.output);
    install(&pair.slave_dsn);
    pair.done(&["switchover"]);
    let there = "select count(*) from pg_trigger where tgname = '!replica_fence'";
    assert_eq!((pair.on_master(there), pair.on_slave(there)), (vec!["2".to_string()], vec!["0".to_string()]));
    pair.run_on_slave("create table after (id int primary key); insert into after values (1)");
    pair.once();
    assert_eq!(pair.on_master("select id from after"), ["1"]);
}
