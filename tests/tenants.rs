//! The owner of a replicated table, who is nobody otherwise: he changes the types of its columns, its name and its kind, and
//! what he writes runs with no other rights than his, and reaches no other table of the slave.

use crate::harness::http::{free_port, get};
use crate::harness::{Database, Feed, Pair, assert_says, copying, wait_until};
use std::thread;
use std::time::Duration;

/// A pair, and a role that owns the schema "ten" on both sides. The role is dropped with it.
struct Tenant {
    pair: Pair,
    role: String,
}

impl Tenant {
    fn new(tables: &str) -> Tenant {
        let pair = Pair::new();
        let role = format!("{}_tenant", pair.name);
        for run in [Pair::run, Pair::run_on_slave] {
            run(
                &pair,
                &format!(
                    "create role {role} login; create schema ten authorization {role}; create table public.trapped (who text); \
                                 grant insert on public.trapped to public"
                ),
            );
        }
        let tenant = Tenant { pair, role };
        tenant.does(tables);
        tenant.does_on_slave(tables);
        tenant
    }

    /// A function of the tenant that notes with whose rights it runs. It is the text of its definition.
    fn trap(&self, arguments: &str, returns: &str, value: &str) -> String {
        let role = &self.role;
        format!(
            "create function ten.trap({arguments}) returns {returns} language plpgsql volatile as $$ begin
                 if current_user <> '{role}' then insert into public.trapped values (current_user); end if;
                 return {value}; end $$;"
        )
    }

    fn does(&self, sql: &str) {
        self.pair.run(&format!("set session authorization {}; {sql}", self.role));
    }

    fn does_on_slave(&self, sql: &str) {
        self.pair.run_on_slave(&format!("set session authorization {}; {sql}", self.role));
    }

    fn logged_tables(&self, tables: &[&str]) {
        for table in tables {
            self.pair.on_master(&format!("select py_log_create_tg('ten', '{table}')"));
        }
    }

    #[track_caller]
    fn assert_nothing_was_trapped(&self) {
        assert!(self.pair.on_master("select who from public.trapped").is_empty(), "on the master");
        assert!(self.pair.on_slave("select who from public.trapped").is_empty(), "on the slave");
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        for run in [Pair::run_on_slave, Pair::run] {
            run(&self.pair, &format!("drop owned by {0} cascade; drop role {0}", self.role));
        }
    }
}

// == Types ==

const GOODS: &str = "create table ten.goods (id int primary key, price int, note text)";

/// His column gets a type of his own with a cast that fits the condition or the expression.
#[test]
fn the_casts_of_a_tenant_do_not_run_in_a_filter_or_a_transform() {
    let tenant = Tenant::new(GOODS);
    let pair = &tenant.pair;
    tenant.logged_tables(&["goods"]);
    pair.run(
        "insert into py_log_filter (relname, event, condition) values ('goods', 'INSERT', 'new.price > 10');
         insert into py_log_transform (relname, field, expression) values ('goods', 'note', 'new.note || ''!''')",
    );
    tenant.does("insert into ten.goods values (1, 20, 'a'), (2, 5, 'b')");
    pair.once();
    assert_eq!(pair.on_slave("select id || note from ten.goods"), ["1a!"]);
    tenant.does(&format!(
        "create type ten.evil as enum ('x'); {} {}
         create cast (ten.evil as int) with function ten.trap(ten.evil) as implicit;
         create cast (ten.evil as text) with function ten.trap_text(ten.evil) as implicit;
         alter table ten.goods alter price type ten.evil using 'x', alter note type ten.evil using 'x'",
        tenant.trap("ten.evil", "int", "1"),
        tenant.trap("ten.evil", "text", "'x'").replace("ten.trap(", "ten.trap_text(")
    ));
    tenant.does_on_slave("alter table ten.goods alter price type text");
    tenant.does("insert into ten.goods values (3, 'x', 'x')");
    let said = pair.once();
    tenant.assert_nothing_was_trapped();
    // The condition counts as true, and the value does not leave the master.
    assert_says(&said.output, &["42501", "the change is replicated"]);
    assert_eq!(
        pair.on_slave("select id || price || coalesce(note, ' nothing') from ten.goods where id = 3"),
        ["3x nothing"]
    );
    // The copy and the comparison evaluate them too.
    pair.run_on_slave("truncate ten.goods");
    copying::copy(pair, &["--truncate"]);
    pair.verb(&["compare"]);
    tenant.assert_nothing_was_trapped();
    // A trusted owner.
    pair.run(
        "alter type ten.evil owner to postgres; drop function ten.trap(ten.evil), ten.trap_text(ten.evil) cascade",
    );
    tenant.does("insert into ten.goods values (4, 'x', 'x')");
    let said = pair.once();
    assert!(!said.output.contains("42501"), "{}", said.output);
    pair.run("drop table ten.goods cascade; drop type ten.evil cascade");
}

/// PostgreSQL may evaluate a part of a condition while it plans it.
#[test]
fn a_filter_on_a_type_of_a_tenant_is_refused_when_it_is_entered() {
    let tenant = Tenant::new("create domain ten.d as int; create table ten.goods (id int primary key, price ten.d[])");
    let refused = tenant
        .pair
        .master()
        .batch_execute("insert into py_log_filter (relname, event, condition) values ('goods', 'INSERT', 'new.id > 1')")
        .unwrap_err();
    let error = refused.as_db_error().unwrap();
    assert_says(
        &format!("{} {}", error.message(), error.hint().unwrap_or_default()),
        &["column price of table ten.goods is of type ten.d", &tenant.role, "ALTER TYPE ten.d OWNER TO"],
    );
    tenant.pair.run("alter domain ten.d owner to postgres");
    tenant.pair.run("insert into py_log_filter (relname, event, condition) values ('goods', 'INSERT', 'new.id > 1')");
    tenant.pair.run("drop table ten.goods; drop domain ten.d");
}

/// The key's own operators are in a schema in which others may make functions and operators that fit better.
#[test]
fn the_functions_of_a_tenant_do_not_run_in_a_comparison() {
    let tenant = Tenant::new(
        "create table ten.t (id int primary key);
         create domain ten.positive as int check (value > 0); create table ten.d (id ten.positive primary key, v text)",
    );
    let pair = &tenant.pair;
    for run in [Pair::run, Pair::run_on_slave] {
        run(pair, "create schema ci; create extension citext schema ci");
        run(pair, &format!("grant all on schema ci to {}; grant usage on schema ci to public", tenant.role));
    }
    let tables = "create table ten.users (n int, mail ci.citext, v int, primary key (n, mail))";
    tenant.does(tables);
    tenant.does_on_slave(tables);
    tenant.logged_tables(&["t", "d", "users"]);
    tenant.does(
        "insert into ten.users select i % 7, 'A' || i || '@b', i from generate_series(1, 3000) i; \
         insert into ten.d values (1, 'a'), (2, 'b')",
    );
    pair.once();
    let traps = format!(
        "{} {} create function ci.hashtextextended(text, integer) returns bigint language sql as $$ select ten.trap(1)::bigint $$;
         create function ci.gt(int, ci.citext) returns boolean language sql as $$ select ten.trap(1) = 1 $$;
         create operator ci.> (leftarg = int, rightarg = ci.citext, function = ci.gt);
         create function ten.checked(int) returns boolean language sql as $$ select ten.trap(1) = 1 $$;
         alter domain ten.positive add check (ten.checked(value)) not valid",
        tenant.trap("int", "int", "1"),
        tenant.trap("text", "text", "'x'"),
    );
    tenant.does(&traps);
    tenant.does_on_slave(&traps);
    // Rows that differ are divided, looked up and repaired.
    pair.run_on_slave(
        "set session_replication_role = replica; delete from ten.users where v % 10 = 3; update ten.users set v = 0 where v = 5; \
         update ten.d set v = 'wrong' where id = 1; truncate public.trapped",
    );
    let said = pair.verb(&["compare"]);
    assert_says(&said.output, &["ten.users       different  3000      300"]);
    tenant.assert_nothing_was_trapped();
    pair.done(&["repair", "--table", "ten.users"]);
    tenant.assert_nothing_was_trapped();
    assert_eq!(
        pair.on_master("select sum(v), count(*) from ten.users"),
        pair.on_slave("select sum(v), count(*) from ten.users")
    );
    for run in [Pair::run, Pair::run_on_slave] {
        run(pair, "drop schema ci cascade");
    }
}

/// The kind of CVE-2024-7348: between the look at the catalog and the SELECT.
#[test]
fn a_view_in_the_place_of_a_table_is_not_read() {
    let tenant = Tenant::new("create table ten.a (id int primary key); create table ten.z (id int primary key)");
    let pair = &tenant.pair;
    if pair.on_master("select count(*) from pg_settings where name = 'restrict_nonsystem_relation_kind'") == ["0"] {
        println!("skipped: this minor version lacks restrict_nonsystem_relation_kind");
        return;
    }
    tenant.logged_tables(&["a", "z"]);
    tenant.does("insert into ten.z values (1)");
    pair.once();
    tenant.does(&tenant.trap("", "int", "1"));
    for verb in ["compare", "copy"] {
        let mut session = pair.master();
        session
            .batch_execute(&format!(
                "set session authorization {}; begin; lock table ten.a, ten.z in access exclusive mode",
                tenant.role
            ))
            .unwrap();
        let said = thread::scope(|scope| {
            let running = scope.spawn(|| pair.verb(&[verb]));
            let waits = "select count(*) > 0 from pg_stat_activity where datname = current_database() \
                         and wait_event_type = 'Lock' and application_name ~ '^pyreplica'";
            while pair.on_master(waits) != ["t"] {
                thread::sleep(Duration::from_millis(20));
            }
            session
                .batch_execute(
                    "alter table ten.z rename to former; create view ten.z as select ten.trap() as id; commit",
                )
                .unwrap();
            running.join().unwrap()
        });
        assert_ne!(said.code(), 0, "{}", said.output);
        tenant.assert_nothing_was_trapped();
        session.batch_execute("drop view ten.z; alter table ten.former rename to z").unwrap();
    }
}

// == Names ==

#[test]
fn a_table_that_its_owner_renames_does_not_reach_another_table_of_the_slave() {
    let tenant = Tenant::new("create table ten.t (id int primary key, v text)");
    let pair = &tenant.pair;
    pair.run_on_slave(
        "create table ten.payroll (id int primary key, eur int); insert into ten.payroll values (1, 1000), (2, 10000); \
         create schema other; create table other.t (id int primary key, v text)",
    );
    pair.run(&format!("create schema other; grant create, usage on schema other to {}", tenant.role));
    tenant.logged_tables(&["t"]);
    tenant.does("insert into ten.t values (1, 'a')");
    pair.once();
    let attempts = [
        ("alter table ten.t drop v, add eur int; alter table ten.t rename to payroll", "ten.payroll"),
        ("alter table ten.t set schema other", "other.t"),
        (
            "alter table ten.t set schema other; alter table other.t rename to replica_held; \
             alter table other.replica_held set schema public",
            "public.replica_held",
        ),
    ];
    pair.run(&format!("grant create on schema public to {}", tenant.role));
    for (rename, target) in attempts {
        let mut session = pair.master();
        let columns = if target == "ten.payroll" { "eur = 99999" } else { "v = 'mine'" };
        session
            .batch_execute(&format!(
                "set session authorization {}; begin; {rename}; update {target} set {columns} where id = 1; savepoint here",
                tenant.role
            ))
            .unwrap();
        session.batch_execute("commit").unwrap();
        // While it has the name, and after it has its old name again.
        for back in [
            "select 1".to_string(),
            format!("drop table {target}; {}", "create table ten.t (id int primary key, v text)"),
        ] {
            session.batch_execute(&back).unwrap();
            let said = pair.try_once();
            assert_ne!(said.code(), 0, "{}", said.output);
            let is_ours = target == "public.replica_held" && back == "select 1";
            let words = if is_ours { ["belongs to", target] } else { ["under the name", target] };
            assert_says(&said.output, &words);
            let said = pair.verb(&["compare"]);
            assert!(!said.output.contains("Error"), "{}", said.output);
        }
        let id = pair.on_master("select max(id) from replica_log").concat();
        pair.done(&["skip", &id, "--yes"]);
        tenant.logged_tables(&["t"]);
        tenant.does("insert into ten.t values (1, 'a') on conflict do nothing");
        pair.run_on_slave("truncate ten.t");
        pair.once();
    }
    assert_eq!(pair.on_slave("select sum(eur) from ten.payroll"), ["11000"]);
    assert_eq!(pair.on_slave("select count(*) from other.t union all select count(*) from replica_held"), ["0", "0"]);
    for run in [Pair::run, Pair::run_on_slave] {
        run(pair, "drop schema other cascade");
    }
}

/// A repair or a copy under the new name would overwrite the slave's table.
#[test]
fn a_renamed_table_is_compared_repaired_and_copied_when_the_owner_of_the_log_agrees() {
    let tenant = Tenant::new("create table ten.t (id int primary key, v text)");
    let pair = &tenant.pair;
    pair.run_on_slave(
        "create table ten.payroll (id int primary key, v text); insert into ten.payroll values (1, 'old')",
    );
    tenant.logged_tables(&["t"]);
    tenant.does("alter table ten.t rename to payroll; insert into ten.payroll values (1, 'new'), (2, 'b')");
    for words in [&["repair"][..], &["copy", "--truncate"]] {
        let said = pair.verb(words);
        assert_says(&said.output, &["ten.payroll", "py_log_create_tg"]);
        assert_eq!(pair.on_slave("select v from ten.payroll"), ["old"], "{}", said.output);
    }
    tenant.logged_tables(&["payroll"]);
    pair.done(&["copy", "--truncate"]);
    assert_eq!(pair.on_slave("select v from ten.payroll order by id"), ["new", "b"]);
    tenant.does("delete from ten.payroll where id = 1");
    pair.once();
    assert_eq!(pair.on_slave("select v from ten.payroll order by id"), ["b"]);
}

/// A fence there would keep its users from writing, and triggers that log would send its rows to the tenant.
#[test]
fn a_renamed_table_does_not_give_the_slaves_table_of_that_name_fence_or_triggers() {
    let tenant = Tenant::new("create table ten.t (id int primary key, v text)");
    let pair = &tenant.pair;
    pair.exec_both("create table public.own (id int primary key)");
    pair.create_triggers();
    pair.run_on_slave("create table ten.payroll (id int primary key, v text)");
    tenant.logged_tables(&["t"]);
    pair.once();
    tenant.does("alter table ten.t rename to payroll");
    let words = ["ten.payroll", "SELECT py_log_create_tg('ten', 'payroll');"];
    let protected = pair.verb_by_file("protect", "", &[]);
    assert_eq!(protected.code(), 8, "{}", protected.output);
    assert_says(&protected.output, &[&["left out"], &words[..]].concat());
    let refused = pair.verb_by_file("switchover", "", &["--leave-behind", "--dry-run"]);
    assert_says(&refused.output, &["so they would be left behind: ten.payroll"]);
    let refused = pair.verb_by_file("switchover", "", &[]);
    assert_eq!(refused.code(), 3, "{}", refused.output);
    assert_says(&refused.output, &words);
    let triggers = "select count(*) from pg_trigger where tgrelid = 'ten.payroll'::regclass";
    assert_eq!(pair.on_slave(triggers), ["0"]);
}

/// The log of a version without `replica_table`: its names were known, and their tables may be gone.
#[test]
fn the_names_in_the_log_of_an_earlier_version_are_known() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key); create table \"Odd \"\"one\" (id int primary key)");
    pair.create_triggers();
    pair.run("insert into t values (1); insert into \"Odd \"\"one\" values (1); drop table t, \"Odd \"\"one\"");
    pair.run("drop function py_log_knows(text, oid), pyreplica.register(regclass); drop table replica_table");
    pair.master_server().psql(&pair.master_db(), &crate::harness::Script::Master.path());
    pair.once();
    assert_eq!(pair.on_slave("select id from t union all select id from \"Odd \"\"one\""), ["1", "1"]);
}

// == hstore ==

#[test]
fn the_owner_of_hstores_schema_is_trusted_or_nothing_is_installed() {
    let mut database = Database::new();
    let tenant = database.role("tenant");
    database.run(&format!("create schema ext authorization {tenant}; create extension hstore schema ext"));
    let said = database.psql("postgres", Feed::File, "master-install.sql");
    assert_says(&said.text, &["hstore is in the schema ext of", &tenant, "ALTER EXTENSION hstore SET SCHEMA public"]);
    assert_eq!(database.column("select to_regclass('public.replica_log')"), [""]);
}

/// The triggers go on when the extension moves, or when its schema gets another name and something else is in its place.
#[test]
fn the_triggers_do_not_look_for_hstore_by_its_name() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text, b text); create table s (id int primary key, v text)");
    pair.create_triggers();
    pair.on_master("select py_log_create_tg('s', 'statement')");
    pair.run(
        "insert into py_log_filter (relname, event, condition) values ('t', 'INSERT', 'new.id <> 3');
         insert into py_log_transform (relname, field, expression) values ('t', 'b', 'upper(new.b)')",
    );
    pair.run(
        "create schema ext; alter extension hstore set schema ext; alter schema ext rename to moved; create schema ext;
         create function ext.trap(moved.hstore) returns boolean language plpgsql as $$ begin raise 'trapped'; end $$;
         create domain ext.hstore as moved.hstore check (ext.trap(value))",
    );
    for path in ["public", "ext, public"] {
        pair.run(&format!(
            "set search_path = {path}; delete from public.t; delete from public.s;
             insert into public.t values (1, 'a', 'b'), (2, repeat('x', 3000), 'y'), (3, 'no', 'no');
             set datestyle = 'German'; update public.t set b = 'z'; set datestyle = 'ISO'; update public.t set a = 'n' where id = 2;
             insert into public.s select i, repeat('y', 3000) from generate_series(1, 5) i; update public.s set v = 'w' where id < 3;
             delete from public.s where id = 5"
        ));
        pair.once();
        assert_eq!(pair.on_slave("select id || left(a, 3) || b from t order by id"), ["1aZ", "2nZ"]);
        assert_eq!(pair.on_slave("select id || left(v, 1) from s order by id"), ["1w", "2w", "3y", "4y"]);
    }
    assert!(!pair.on_master("select sql from replica_log_sql where sql is not null").is_empty());
    pair.verb(&["pending"]);
}

// == The schema ==

#[test]
fn owners_and_privileges_come_along_with_the_schema_or_it_is_refused() {
    let tenant = Tenant::new("select 1");
    let pair = &tenant.pair;
    let role = &tenant.role;
    pair.run_on_slave("drop schema ten; drop table trapped");
    tenant.does(&format!(
        "create table ten.t (id int primary key); create view ten.v as select * from ten.t;
         create function ten.f() returns text language sql security definer as $$ select current_user::text $$;
         revoke all on function ten.f() from public; grant select on ten.v to {role}; comment on function ten.f() is 'stays'"
    ));
    tenant.logged_tables(&["t"]);
    pair.run("select py_log_grant(current_user)");
    let said = pair.verb(&["copy", "--schema"]).output;
    if said.contains("install PostgreSQL's client programs") {
        println!("skipped: {said}");
        return;
    }
    assert_says(&said, &["with owners and privileges"]);
    assert_eq!(
        pair.on_slave("select proowner::regrole || ' ' || has_function_privilege('public', oid, 'execute') from pg_proc where proname = 'f'"),
        [format!("{role} false")]
    );
    assert_eq!(
        pair.on_slave("select relowner::regrole from pg_class where relname in ('t', 'v') group by 1"),
        [role.as_str()]
    );
    // A role that may not give objects to others.
    pair.run_on_slave("drop schema ten cascade");
    let other = format!("{}_other", pair.name);
    pair.run_on_slave(&format!("create role {other} login; grant create on database {} to {other}", pair.slave_db()));
    pair.run_on_slave(&format!("grant all on all tables in schema public to {other}"));
    let dsn = pair.slave_dsn.replace("user=postgres", &format!("user={other}"));
    let said = crate::harness::run(
        &pair.dir().join("refused.log"),
        &["copy", "--schema", "--restart", &pair.master_dsn, &dsn],
        &[],
    );
    assert_ne!(said.code(), 0, "{}", said.output);
    assert_says(&said.output, &["objects of the master belong to", role, "superuser", "--no-owner"]);
    assert_eq!(pair.on_slave("select count(*) from pg_namespace where nspname = 'ten'"), ["0"]);
    // A policy for a role that the slave lacks.
    let third = format!("{}_third", pair.name);
    pair.run(&format!("create role {third}; create policy p on ten.t to {third} using (true)"));
    let said = pair.verb(&["copy", "--schema", "--no-owner", "--restart"]);
    assert_says(&said.output, &["policies of the master are for roles that the slave lacks", "CREATE ROLE", &third]);
    pair.run(&format!("drop policy p on ten.t; drop role {third}"));
    pair.run_on_slave(&format!("drop owned by {other}; drop role {other}"));
    pair.run_on_slave(&format!("create schema ten authorization {role}"));
}

// == The slave ==

/// What the code of a table's owner on the slave can do beyond his rights: write a table of another owner, what pyreplica has put
/// aside, or be another role. It tries that in a trigger, in a check and in the expression of an index.
const INTRUDER: &str = "create function ten.reach() returns void language plpgsql as $$ begin
         begin reset role; reset session authorization; exception when others then null; end;
         begin insert into public.trapped select current_user where current_user <> 'ROLE'; exception when others then null; end;
         begin insert into other.secret values (session_user) on conflict do nothing;
         exception when insufficient_privilege then null; end;
         begin insert into public.replica_held (master, id, txid, relation, event, why) values ('m', 1, '1', 'r', 'S', 'paused')
                   on conflict do nothing;
               insert into public.trapped values ('held');
         exception when insufficient_privilege then null; end;
     end $$;
     create function ten.by_trigger() returns trigger language plpgsql as $$ begin perform ten.reach(); return new; end $$;
     create trigger t before insert on ten.goods for each row execute function ten.by_trigger();
     alter table ten.goods enable always trigger t;
     create function ten.by_check(int) returns bool language plpgsql as $$ begin perform ten.reach(); return true; end $$;
     alter table ten.goods add check (ten.by_check(price));
     create function ten.by_index(int) returns int language plpgsql immutable as $$ begin perform ten.reach(); return 1; end $$;
     create index on ten.goods (ten.by_index(price))";

/// docs/security.md, "Holding owners apart on the slave".
#[test]
fn the_code_of_a_tenant_on_the_slave_has_no_other_rights_than_his_if_his_role_replays() {
    let tenant = Tenant::new(GOODS);
    let (pair, role) = (&tenant.pair, &tenant.role);
    if pair.version() < 15 {
        eprintln!("skipped: this server has no GRANT SET ON PARAMETER");
        return;
    }
    pair.exec_both("create schema other; create table other.secret (who text primary key)");
    tenant.logged_tables(&["goods"]);
    pair.run("select py_log_create_tg('other', 'secret')");
    tenant.does_on_slave(&INTRUDER.replace("ROLE", role));
    tenant.does("insert into ten.goods values (1, 1, 'a')");
    pair.once();
    // It does work against a role that may write more.
    assert_eq!(pair.on_slave("select distinct who from public.trapped order by who"), ["held", "postgres"]);
    assert_eq!(pair.on_slave("select who from other.secret"), ["postgres"]);

    pair.run_on_slave("delete from public.trapped; delete from other.secret; delete from replica_held");
    let page = include_str!("../docs/security.md");
    for text in ["TO tenant;", "own_progress"] {
        let mut blocks = page.split("```sql\n").filter_map(|part| part.split("```").next());
        let block = blocks.find(|block| block.contains(text)).expect("docs/security.md has the statements");
        pair.run_on_slave(&block.replace("tenant", role));
    }
    pair.on_master(&format!("select py_log_add_slave('{role}')"));
    let dsn = pair.slave_dsn.replace("user=postgres", &format!("user={role}"));
    tenant.does(
        "insert into ten.goods values (2, 2, 'b'); update ten.goods set note = 'c'; delete from ten.goods where id = 1;
         insert into ten.goods select i, i, 'many' from generate_series(100, 700) i",
    );
    let lines = format!("SLAVE_FIELD={role}\nDSN1={dsn}");
    let said = pair.once_with(&lines);
    assert_says(&said, &["pause, quarantine and the record of conflicts do not work"]);
    assert_eq!(pair.on_slave("select count(*) from ten.goods"), ["602"]);
    pair.assert_equal();
    assert!(pair.on_slave("select who from other.secret").is_empty());
    tenant.assert_nothing_was_trapped();

    // The rows of other pairs.
    let mut owner = pair.slave();
    owner.batch_execute(&format!("set session authorization {role}")).unwrap();
    for write in [
        "update replica_progress set batch = batch",
        "insert into replica_progress (master, batch, position) values ('x', 1, '')",
    ] {
        let refused = format!("{:?}", owner.batch_execute(write).unwrap_err());
        assert!(refused.contains("for another role"), "{refused}");
    }
    drop(owner);

    // What belongs to somebody else is for another pair.
    pair.on_master("select py_log_add_slave('postgres')");
    pair.run("insert into other.secret values ('x')");
    let stopped = pair.try_once_by_file(&lines);
    assert_eq!(stopped.code(), 6, "{}", stopped.output);
    assert_says(&stopped.output, &["permission denied for schema other"]);
    pair.once_with(&format!("{lines}\nTABLES=ten.*"));
    assert!(pair.on_slave("select who from other.secret").is_empty());
    pair.run_on_slave("delete from ten.goods; drop function ten.reach() cascade");
    pair.once_with("SLAVE_FIELD=postgres\nTABLES=other.*");
    assert_eq!(pair.on_slave("select who from other.secret"), ["x"]);
    assert!(pair.on_slave("select from ten.goods").is_empty());
    pair.run_on_slave(&format!("revoke set on parameter session_replication_role from {role}"));
}

/// Who may create tables in public says nothing about who is the master, stops no daemon, and gets no trigger of his on our table.
#[test]
fn a_table_of_roles_that_a_tenant_has_made_counts_for_nothing() {
    let tenant = Tenant::new("create table ten.t (id int primary key)");
    let (pair, role) = (&tenant.pair, &tenant.role);
    tenant.logged_tables(&["t"]);
    for run in [Pair::run, Pair::run_on_slave] {
        run(pair, &format!("grant create on schema public to {role}"));
    }
    let squat =
        "create table public.replica_role (field name, peer text, pair text, role text, epoch bigint, peer_at text,
                     batch bigint, token text, since timestamptz default now());
                 grant select on public.replica_role to public;
                 insert into public.replica_role values ('replicated', 'x', 'p', 'moved', 9, 'host=evil');
                 insert into public.replica_role values ('replicated', 'x', 'p', 'slave', 9, 'host=evil')";
    tenant.does(squat);
    tenant.does_on_slave(squat);
    tenant.does("insert into ten.t values (1)");
    pair.once();
    assert_eq!(pair.on_slave("select id from ten.t"), ["1"]);
    assert!(!pair.verb(&["status"]).output.contains("evil"));
    let refused = pair.verb(&["protect"]);
    assert!(!refused.status.success());
    assert_says(&refused.output, &[&format!("replica_role of {role}"), "Drop it"]);
    assert!(pair.on_slave("select 1 from pg_trigger where tgname = '!replica_fence'").is_empty());
    tenant.does_on_slave("drop table public.replica_role; create function public.py_log_fence() returns trigger language plpgsql as 'begin end'");
    let refused = pair.verb(&["protect"]);
    assert_says(&refused.output, &[&format!("py_log_fence() of {role}"), "Drop it"]);
}

/// The slave lacks tables that a master and a copy have. One of such a name that comes while sessions are open is not read.
#[test]
fn a_table_that_a_tenant_makes_while_the_daemon_runs_is_not_read() {
    let tenant = Tenant::new("create table ten.t (id int primary key); create sequence ten.s");
    let (pair, role) = (&tenant.pair, &tenant.role);
    tenant.logged_tables(&["t"]);
    let port = free_port();
    let _daemon = pair.start_with(&format!("SEQUENCES=1\nMETRICS=127.0.0.1:{port}"));
    tenant.does("select nextval('ten.s'); insert into ten.t values (1)");
    pair.wait_caught_up();
    let is_up = || get(port, "/metrics").lines().any(|line| line.starts_with("pyreplica_up{") && line.ends_with(" 1"));
    wait_until("the metrics know the pair", is_up);
    pair.run_on_slave(&format!("grant create on schema public to {role}"));
    tenant.does_on_slave(&tenant.trap("", "text", "'x'"));
    tenant.does_on_slave(
        "create table public.replica_log (); create view public.replica_slave as select ten.trap() as slave, ten.trap() as history;
         create view public.replica_copy as select ten.trap() as master, ten.trap() as relation, 'wanted' as state, true as whole,
                0::bigint as batch, null::text as snapshot, 0::bigint as rows, now() as ts;
         grant select on public.replica_slave, public.replica_copy to public",
    );
    tenant.does("select setval('ten.s', 70); insert into ten.t values (2)");
    wait_until("the sequence has followed", || pair.on_slave("select last_value from ten.s") == ["70"]);
    // A new connection refuses it, and says so.
    get(port, "/metrics");
    tenant.assert_nothing_was_trapped();
    tenant.does_on_slave("drop table public.replica_log; drop view public.replica_slave, public.replica_copy");
}

/// The script has checked that nobody else has a table of that name, and waits for another copy.
#[test]
fn a_table_that_a_tenant_makes_after_the_check_is_refused() {
    let tenant = Tenant::new("create table ten.t (id int primary key)");
    let (pair, role) = (&tenant.pair, &tenant.role);
    pair.run_on_slave(&format!("grant create on schema public to {role}"));
    let mut other = pair.slave();
    other.batch_execute("select pg_advisory_lock(hashtext('pyreplica slave-install'))").unwrap();
    thread::scope(|scope| {
        let script = scope.spawn(|| pair.slave().batch_execute(include_str!("../sql/slave-copy.sql")));
        wait_until("the script waits", || {
            pair.on_slave(
                "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
            ) == ["1"]
        });
        tenant.does_on_slave("create table public.replica_copy (master text)");
        other.batch_execute("select pg_advisory_unlock_all()").unwrap();
        let refused = script.join().unwrap().unwrap_err();
        assert!(refused.as_db_error().unwrap().message().contains("replica_copy"), "{refused:?}");
    });
    tenant.does_on_slave("drop table public.replica_copy");
    assert_eq!(pair.on_slave("select to_regclass('public.replica_copy_schema')"), [""]);
}

/// Symptom: a fence's name on a table of his own, a default that names the sequence of another table, or a lock of his kept the slave
/// from becoming the master, or nobody could insert there.
#[test]
fn a_tenant_of_the_slave_keeps_nobody_from_failing_over() {
    let tenant = Tenant::new("");
    let pair = &tenant.pair;
    pair.exec_both(
        "create table orders (id bigserial primary key, v text); create table far (id bigserial primary key, v text)",
    );
    pair.run("select py_log_create_tg('orders'), py_log_create_tg('far')");
    pair.run("insert into orders (v) values ('a'); insert into far values (1, 'a'), (9223372036854775800, 'far')");
    pair.once();
    pair.done(&["protect"]);
    tenant.does_on_slave(
        "create table ten.x (n int, s bigserial);
         create function ten.f() returns trigger language plpgsql as 'begin return null; end';
         create trigger \"!replica_fence\" after insert on ten.x execute function ten.f();
         create table ten.y (n bigint default nextval('public.orders_id_seq')); insert into ten.y values (9223372036854775807)",
    );
    let lock = || {
        let mut session = pair.slave();
        session.batch_execute(&format!("set session authorization {}; begin; lock table ten.x", tenant.role)).unwrap();
        session
    };
    let locked = lock();
    assert_says(&pair.done(&["unprotect"]), &["2 tables"]);
    pair.done(&["protect"]);
    drop(locked);
    // The function is for everybody.
    tenant.does_on_slave(
        "create table ten.z (n int);
         create trigger \"!replica_fence\" before insert on ten.z for each statement execute function public.py_log_fence('x', '')",
    );
    let mut locked = lock();
    locked.batch_execute("lock table ten.z").unwrap();
    let finished = pair.verb(&["failover", "--force"]);
    assert_eq!(finished.code(), 8, "{}", finished.output);
    assert_says(
        &finished.output,
        &[
            "ten.z is still fenced",
            "somebody keeps ten.x.s locked",
            "values of public.far.id near its end were not regarded",
        ],
    );
    drop(locked);
    pair.run_on_slave(
        "insert into orders (v) values ('b'); insert into far (v) select 'c' from generate_series(1, 50)",
    );
    assert_eq!(pair.on_slave("select max(id) < 5000 from orders"), ["t"]);
    let database = pair.master_db();
    pair.run(&format!("begin read write; alter database {database} reset default_transaction_read_only; commit"));
}
