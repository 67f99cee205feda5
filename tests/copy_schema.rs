//! `pyreplica copy --schema`: tables first, then rows, then indexes, constraints and all else, wherever it is interrupted.

use crate::harness::copying::{can_dump, copy, paused, try_copy};
use crate::harness::{OwnCluster, Pair, Server, assert_says};

/// Something of everything that pg_dump makes after the rows.
const SCHEMA: &str = r#"
    create table parent (id int primary key, code text unique, "Odd one" int);
    create table child (id serial primary key, parent int not null references parent, code text references parent (code), n int, constraint child_code_key unique (id, n));
    create index child_n on child (n, (n % 7)) where code <> 'a
--
-- TOC entry 1 (class 1259 OID 1)
--
; drop table parent; --';
    alter index child_n alter column 2 set statistics 50; alter table child cluster on child_code_key;
    comment on index child_n is 'is; commented'; create unique index on child (code, id); alter table child replica identity using index child_pkey;
    create table parted (id int primary key, parent int references parent) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (100);
    create table parted_2 partition of parted for values from (100) to (200);
    create index on parted (parent); create table of_parted (id int primary key, parted int references parted);
    create table alone (id int primary key, during int4range, exclude using gist (during with &&));
    create table itself (id int primary key, up int references itself deferrable initially deferred);
    alter table child add constraint n_small check (n < 500) not valid; create statistics both_of on n, parent from child;
    create view per_parent as select id, code, (select count(*) from child c where c.parent = p.id) from parent p group by id;
    create materialized view sums as select parent, sum(n) from child group by parent; create unique index on sums (parent);
    create materialized view a_sum as select count(*) from sums;
    create function f() returns trigger language plpgsql as 'begin return new; end';
    create trigger t before insert on child for each row execute function f(); alter table child enable always trigger t;
    create rule r as on delete to alone do also (select 1; select 2);
    alter table parent enable row level security; create policy all_of_it on parent using (true);
    create table not_copied (id int primary key); create table refers (id int primary key, other int references not_copied)"#;

const ROWS: &str = "insert into parent select i, 'c' || i, i from generate_series(1, 50) i;
    insert into child (parent, code, n) select i % 50 + 1, 'c' || i % 50 + 1, i from generate_series(1, 300) i;
    insert into parted select i, i % 50 + 1 from generate_series(0, 199) i; insert into of_parted select i, i from generate_series(0, 99) i;
    insert into alone select i, int4range(i, i + 1) from generate_series(1, 20) i; insert into itself values (1, 2), (2, 1);
    insert into not_copied values (1); insert into refers values (1, 1);
    refresh materialized view sums; refresh materialized view a_sum";

/// What the catalog says of a schema, without pyreplica's own.
const CATALOG: &str = "select x from (
    select concat('index ', pg_get_indexdef(indexrelid), indisvalid, indisreplident, indisclustered) x, indrelid as rel from pg_index
    union all select concat('constraint ', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated), conrelid from pg_constraint
    union all select concat('trigger ', tgname, tgenabled), tgrelid from pg_trigger where not tgisinternal and tgname !~ 'replica'
    union all select concat('rule ', pg_get_ruledef(oid)), ev_class from pg_rewrite
    union all select concat('policy ', polname), polrelid from pg_policy
    union all select concat('statistics ', stxname), stxrelid from pg_statistic_ext
    union all select concat('comment ', description), objoid from pg_description
    union all select concat('table ', relname, relkind, relispopulated, relrowsecurity), oid from pg_class) y join pg_class c on c.oid = rel
    where c.relnamespace = 'public'::regnamespace and c.relname !~ '^(replica_|py_log)' and c.relkind <> 't' order by 1";

fn with_schema() -> Pair {
    let pair = Pair::new();
    pair.run(SCHEMA.trim());
    pair.run(ROWS);
    pair.create_triggers();
    pair.run("drop trigger \"!replica_tg\" on not_copied");
    pair
}

#[track_caller]
fn assert_same_schema(pair: &Pair) {
    // Another version may write the same otherwise.
    if pair.master_server().major_version() == pair.slave_server().major_version() {
        assert_eq!(pair.on_slave(CATALOG), pair.on_master(CATALOG));
    }
    assert_eq!(pair.on_slave("select count(*) from replica_copy_schema"), ["0"]);
}

#[test]
fn a_copy_that_is_killed_while_it_makes_indexes_goes_on_with_the_rest() {
    let pair = with_schema();
    if !can_dump(&pair) {
        return;
    }
    let first = try_copy(&pair, &["--schema", "--table", "nosuch"]);
    assert_eq!(first.code(), 2);
    let mut dying = paused(&pair, &["--schema", "--jobs", "2"], "copy-schema");
    dying.kill9();
    let refused = pair.try_once();
    assert_says(&refused.output, &["a copy to this slave is unfinished: 0 of 7 tables are there"]);
    assert_eq!(pair.on_slave("select count(*) from pg_constraint where contype = 'f'"), ["0"]);
    paused(&pair, &["--jobs", "2"], "copy-registered").kill9();
    assert!(dying.log().contains("created the schema"), "{}", dying.log());
    // Foreign keys of a table that is not copied were made before the rows, the others not.
    assert_eq!(pair.on_slave("select conname from pg_constraint where contype = 'f'"), ["refers_other_fkey"]);
    for step in ["copy-made:1", "copy-made:7", "copy-made:14"] {
        eprintln!("-- at {step}");
        let mut dying = paused(&pair, &["--jobs", "2"], step);
        dying.kill9();
        let doctor = pair.verb(&["doctor"]);
        assert_says(&doctor.output, &["a copy to this slave is unfinished", "are still to be made"]);
        let refused = pair.try_once();
        assert_eq!(refused.code(), 5, "{}", refused.output);
        assert_says(&refused.output, &["a copy to this slave is unfinished", "and the copy has not ended"]);
    }
    // Somebody makes one by hand, which is no reason to stop.
    pair.run_on_slave("create statistics both_of on n, parent from child");
    let said = copy(&pair, &["--jobs", "2"]);
    assert_says(&said.output, &["foreign keys: ", "both_of", "is on the slave already, and is left as it is"]);
    assert_same_schema(&pair);
    assert_eq!(pair.on_slave("select sum(sum) from sums"), pair.on_master("select sum(sum) from sums"));
    assert_eq!(pair.on_slave("select count from a_sum"), ["50"]);
    assert_eq!(pair.on_slave("select reltuples from pg_class where relname = 'child'"), ["300"]);
    pair.once();
    pair.run_on_slave("insert into not_copied values (1)");
    pair.assert_equal();
}

/// Also if the process is killed between the drop and the end.
#[test]
fn indexes_of_a_filled_schema_are_dropped_for_the_load_and_made_again() {
    let pair = Pair::new();
    pair.exec_both(SCHEMA.trim());
    pair.run(ROWS);
    pair.create_triggers();
    pair.run("drop trigger \"!replica_tg\" on not_copied");
    pair.run_on_slave("insert into not_copied values (1)");
    let before = pair.on_slave(CATALOG);
    let refused = try_copy(&pair, &["--defer-indexes", "--table", "child"]);
    assert_eq!(refused.code(), 2, "{}", refused.output);
    for step in ["copy-loading:2", "copy-made:3"] {
        let mut dying = paused(&pair, &["--defer-indexes", "--restart", "--truncate"], step);
        // Of a partition's, and what a view depends on, nothing is dropped.
        let left = "select count(*) from pg_index where indrelid in ('child'::regclass, 'alone'::regclass, 'itself'::regclass)";
        assert!(pair.on_slave(left)[0].parse::<u32>().unwrap() < 4, "{:?}", pair.on_slave(left));
        assert_eq!(pair.on_slave("select count(*) from pg_constraint where conname = 'parent_pkey'"), ["1"]);
        dying.kill9();
        assert!(pair.try_once().output.contains("a copy to this slave is unfinished"));
    }
    let said = copy(&pair, &[]);
    assert_says(&said.output, &["made indexes and constraints: ", "foreign keys: 3, the rest: 0, in "]);
    assert_eq!(pair.on_slave(CATALOG), before);
    pair.once();
    pair.assert_equal();
}

/// The tables of a copy that was interrupted are of two snapshots, and fit together when the daemon has caught up.
#[test]
fn a_foreign_key_that_does_not_fit_yet_is_named() {
    let pair = Pair::new();
    if !can_dump(&pair) {
        return;
    }
    pair.run(
        "create table parent (id int primary key); create table child (id int primary key, parent int references parent, filler text);
         insert into parent values (1); insert into child values (1, 1, repeat('x', 100000))",
    );
    pair.create_triggers();
    // The larger one is loaded first.
    pair.run("insert into parent select i from generate_series(2, 30000) i");
    let mut dying = paused(&pair, &["--schema"], "copy-table");
    dying.kill9();
    pair.run("insert into parent values (0); insert into child values (2, 0, '')");
    let said = copy(&pair, &[]);
    assert_says(
        &said.output,
        &["child_parent_fkey of public.child is NOT VALID yet", "VALIDATE CONSTRAINT child_parent_fkey;"],
    );
    pair.once();
    pair.run_on_slave("alter table child validate constraint child_parent_fkey");
    pair.assert_equal();
}

/// PostgreSQL checks a foreign key with the rights of who creates it: the owner of a type would have his cast run with them.
#[test]
fn a_cast_of_a_tables_owner_does_not_run_with_the_operators_rights() {
    let pair = Pair::new();
    let tenant = format!("{}_tenant", pair.name);
    pair.run_on_slave(&format!("create role {tenant}"));
    pair.run(&format!(
        "create role {tenant}; create schema ten authorization {tenant}; create table caught (who text primary key); grant all on caught to {tenant};
         set role {tenant}; create type ten.kind as enum ('1', '2');
         create function ten.to_int(ten.kind) returns int language plpgsql immutable as
             'begin begin insert into public.caught values (session_user || current_user); exception when others then null; end;
              return $1::text::int; end';
         create cast (ten.kind as int) with function ten.to_int(ten.kind) as implicit;
         create table ten.parent (id int primary key); create table ten.child (id int primary key, kind ten.kind references ten.parent (id));
         insert into ten.parent values (1); insert into ten.child values (1, '1'); reset role; delete from caught"
    ));
    pair.run("select py_log_create_tg('ten', 'parent'), py_log_create_tg('ten', 'child')");
    if can_dump(&pair) {
        // What stands in this table would run with the operator's rights.
        pair.run_on_slave(include_str!("../sql/slave-copy.sql"));
        pair.run_on_slave(&format!("grant insert on replica_copy_schema to {tenant}"));
        let refused = try_copy(&pair, &["--schema"]);
        assert_eq!(refused.code(), 5, "{}", refused.output);
        assert_says(&refused.output, &[&tenant, "may write to public.replica_copy_schema", "REVOKE ALL ON"]);
        pair.run_on_slave(&format!("revoke all on replica_copy_schema from {tenant}"));
        copy(&pair, &["--schema"]);
        assert_eq!(pair.on_slave("select who from caught"), [""; 0]);
        assert_eq!(pair.on_slave("select convalidated from pg_constraint where contype = 'f'"), ["t"]);
        pair.once();
    }
    pair.run_on_slave(&format!("drop owned by {tenant} cascade; drop role {tenant}"));
    pair.run(&format!("drop owned by {tenant} cascade; drop role {tenant}"));
}

#[test]
fn a_foreign_key_to_a_table_that_does_not_come_is_named() {
    let pair = Pair::new();
    if !can_dump(&pair) {
        return;
    }
    pair.run(
        "create table stays (id int primary key); insert into stays values (1);
         create table comes (id int primary key, stays int references stays, itself int references comes);
         insert into comes values (1, 1, 1); select py_log_create_tg('comes')",
    );
    let said = copy(&pair, &["--schema", "--table", "comes"]);
    assert_says(&said.output, &["comes_stays_fkey is not created", "FOREIGN KEY (stays) REFERENCES public.stays(id);"]);
    assert_eq!(pair.on_slave("select conname from pg_constraint where contype = 'f'"), ["comes_itself_fkey"]);
    pair.run("insert into comes values (2, 1, 1)");
    pair.once();
    assert_eq!(pair.on_slave("select count(*) from comes"), ["2"]);
}

/// What stops a copy is said before the master gets a log, which nobody would read.
#[test]
fn with_install_everything_is_checked_before_anything_is_changed() {
    let pair = Pair::new();
    pair.run("drop schema public, pyreplica cascade; create schema public; create table t (id int primary key, a int)");
    let role = format!("precheck_{}", std::process::id());
    pair.run_on_slave(&format!(
        "create table t (id int primary key, a int); insert into t values (1, 1); create role {role} login;
         grant all on schema public to {role}; grant all on t to {role}"
    ));
    pair.run_on_slave(&format!("create database \"{role}\""));
    let lines = |more: &str| format!("{more}\n");
    let refused = |lines: &str, options: &[&str], words: &[&str]| {
        let finished = pair.verb_by_file("copy", lines, &[&["--install"], options].concat());
        assert!(![0, 8].contains(&finished.code()), "{}", finished.output);
        assert_says(&finished.output, words);
        assert_eq!(
            pair.on_master("select (to_regclass('replica_log') is null)::text"),
            ["true"],
            "{}",
            finished.output
        );
    };
    refused("", &[], &["not empty: public.t", "--truncate"]);
    refused("", &["--schema"], &["not empty: public.t"]);
    refused(&lines(&format!("DSN1={} connect_timeout=9", pair.master_dsn)), &[], &["the same database"]);
    refused(
        &lines(&format!("DSN1={}", pair.slave_dsn.replace(&pair.slave_db(), &role))),
        &[],
        &["does not have public.t", "--schema"],
    );
    pair.run_on_slave("delete from t; alter table t add foreign key (a) references t");
    let as_role = lines(&format!("DSN1={}", pair.slave_dsn.replace("user=postgres", &format!("user={role}"))));
    refused(&as_role, &[], &["foreign keys or triggers would fire on public.t", "session_replication_role"]);
    let single = OwnCluster::start("single", "max_prepared_transactions = 0", &[]);
    let dsn = Server::dsn_at(single.server().port(), "postgres");
    refused(&lines(&format!("DSN1={dsn}")), &["--schema"], &["max_prepared_transactions is 0", "slave"]);
    let done = pair.verb_by_file("copy", "", &["--install"]);
    assert!(done.status.success(), "{}", done.output);
    for sql in [format!("drop owned by {role}"), format!("drop database \"{role}\""), format!("drop role {role}")] {
        pair.run_on_slave(&sql);
    }
}
