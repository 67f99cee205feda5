//! Schema changes travel (master-install-ddl.sql): each statement arrives once, in its place among the rows, as it was meant, whatever
//! ran it; what cannot be known for certain is told and not guessed.

use crate::harness::{Pair, drains};
use std::path::Path;

/// Both sides are empty, and the master logs its schema changes.
pub fn pair() -> Pair {
    let pair = Pair::new();
    install(&pair);
    pair
}

/// The script on the master, as an operator runs it.
pub fn install(pair: &Pair) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/master-install-ddl.sql");
    pair.master_server().psql(&pair.master_db(), &script);
}

/// What both sides have beyond rows (later versions write views with fewer names of tables): columns, constraints, indexes, views, functions, types, triggers, policies, comments.
const CATALOG: &str = "
    select format('%s column %I %s %s %s %s', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  pg_get_expr(d.adbin, d.adrelid), a.attidentity) as line
      from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'c')
    union all select format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint where contype <> 'n' and connamespace <> 11
    union all select pg_get_indexdef(indexrelid) from pg_index i where not exists (select from pg_constraint where conindid = i.indexrelid)
    union all select format('view %s %s %s', oid::regclass, regexp_replace(pg_get_viewdef(oid), '[a-z_]+[.]', '', 'g'), reloptions) from pg_class where relkind in ('v', 'm')
    union all select format('bound %s %s', oid::regclass, pg_get_expr(relpartbound, oid)) from pg_class where relkind in ('r', 'p')
    union all select pg_get_functiondef(oid) from pg_proc where prokind in ('f', 'p') and pronamespace::regnamespace::text !~ '^pg_|information_schema'
    union all select format('%s label %s', enumtypid::regtype, enumlabel) from pg_enum
    union all select format('domain %s %s', oid::regtype, format_type(typbasetype, typtypmod)) from pg_type where typtype = 'd'
    union all select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal and tgname !~ '^!replica'
    union all select format('policy %s %s %s', polrelid::regclass, polname, pg_get_expr(polqual, polrelid)) from pg_policy
    union all select format('row security %s', oid::regclass) from pg_class where relrowsecurity
    union all select format('comment %s %s', pg_describe_object(classoid, objoid, objsubid), description) from pg_description where objoid > 16383
    union all select format('schema %s', nspname) from pg_namespace
    union all select format('extension %s', extname) from pg_extension
    union all select format('sequence %s %s', seqrelid::regclass, format_type(seqtypid, null)) from pg_sequence
    union all select pg_get_ruledef(oid) from pg_rewrite where rulename <> '_RETURN'";

/// Both sides, without what is pyreplica's own on the master and on the slave.
#[track_caller]
pub fn assert_same_schema(pair: &Pair) {
    let ask = format!(
        "select string_agg(line, E'\\n' order by line collate \"C\") from ({CATALOG}) x
          where line !~ 'replica_|py_log|pyreplica|pg_catalog[.]|pg_toast|information_schema|^pg_|^view pg_|^schema pg_|information_schema' and line !~ '^(view |bound )?(pg_|information_schema)'
            and line !~* '(FUNCTION|comment function) public[.](hstore|hs_|ghstore|gin_|akeys|avals|skeys|svals|each|fetchval|slice|delete|defined|exist|isexists|isdefined|tconvert|populate)'
            and line !~ 'extension hstore' and line !~ '''hstore'
    ");
    let (master, slave) = (pair.on_master(&ask).concat(), pair.on_slave(&ask).concat());
    let missing: Vec<&str> = master.lines().filter(|line| !slave.lines().any(|other| other == *line)).collect();
    let extra: Vec<&str> = slave.lines().filter(|line| !master.lines().any(|other| other == *line)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "the slave lacks {missing:#?}\nand has {extra:#?}");
}

/// Everything has arrived, and nothing was strange about it.
#[track_caller]
pub fn arrives(pair: &Pair) -> String {
    let said = drains(pair);
    assert_same_schema(pair);
    said.output
}

/// Statements of all kinds, in an order in which they can run. Each stands alone; several have what would mislead a simple parser.
const STATEMENTS: &[&str] = &[
    "create schema app",
    "create schema app2 create table inner_t (id int primary key) create view inner_v as select * from inner_t",
    "create table app.t (id serial primary key, a text default 'x;''y', b int check (b > 1)) -- ; create table no (a int)",
    "create table \"Od;d \"\"name\" (id int primary key, \"c;ol\" text default $q$a;$$'b$q$, d date default '01/02/2020')",
    "insert into app.t (a, b) select 'row ' || i, i + 1 from generate_series(1, 5) i",
    "insert into \"Od;d \"\"name\" values (1, 'x')",
    "alter table app.t add c timestamptz default now(), add u uuid default gen_random_uuid()",
    "alter table app.t add k int default 7 not null /* a ; b /* nested ; */ */",
    "alter table app.t add e text default E'it\\'s; '",
    "alter table app.t alter b type bigint using (b + random() * 100)::bigint",
    "alter table app.t alter k type text using k::text",
    "alter table app.t rename a to \"A;\"",
    "alter table app.t drop constraint t_b_check, drop e",
    "create index on app.t (b)",
    "create unique index by_u on app.t using btree (u) where b is not null",
    "create view app.v as select id, \"A;\" from app.t where b > 1",
    "create or replace view app.v as select id, \"A;\", b from app.t",
    "create materialized view app.m as select id from app.t with no data",
    "refresh materialized view app.m",
    "create type app.color as enum ('red', 'gre;en')",
    "create domain app.positive as int check (value > 0)",
    "create type app.pair as (a int, b text)",
    "create table app.typed (id app.positive primary key, c app.color, p app.pair)",
    "insert into app.typed values (1, 'red', (1, 'x'))",
    "create function app.f(a int) returns int language sql immutable as $$ select a; $$",
    "create or replace function app.g() returns trigger language plpgsql as $body$ begin perform 1; return new; end; $body$",
    "create procedure app.p() language plpgsql as 'begin null; end;'",
    "create aggregate app.total (int) (sfunc = int4pl, stype = int, initcond = '0')",
    "create operator app.=== (leftarg = int, rightarg = int, function = int4eq)",
    "create trigger tg before update on app.t for each row execute function app.g()",
    "create policy pol on app.t using (b > 0)",
    "alter table app.t enable row level security",
    "alter policy pol on app.t using (b > 1)",
    "alter table app.t disable row level security",
    "create rule r as on update to app.v do also (select 1; select 2)",
    "create sequence app.s as int increment 5",
    "alter sequence app.s increment 7",
    "create statistics app.st on b, u from app.t",
    "comment on table app.t is 'a ; comment'",
    "comment on column app.t.b is $c$it's ; $c$",
    "create collation app.co (locale = 'C')",
    "create text search configuration app.ts (copy = simple)",
    "create extension pg_trgm",
    "create table parts (id int, at date, primary key (id, at)) partition by range (at)",
    "create table parts_1 partition of parts for values from ('2020-01-01') to ('2021-01-01')",
    "create table parts_2 (like parts including all)",
    "insert into parts_2 values (1, '2021-05-05')",
    "alter table parts attach partition parts_2 for values from ('2021-01-01') to ('2022-01-01')",
    "insert into parts values (2, '2020-02-02'), (3, '2021-02-02')",
    "create index on parts (at)",
    "alter table parts detach partition parts_1",
    "insert into parts_1 values (4, '2020-02-02')",
    "create table app.made as select i as id, 'x' || i as t from generate_series(1, 3) i",
    "alter table app.made add primary key (id)",
    "select i as id into app.made_2 from generate_series(1, 3) i",
    "alter table app.made_2 add primary key (id)",
    "alter table app.made_2 set schema public",
    "alter table made_2 rename to \"made;3\"",
    "insert into \"made;3\" values (10)",
    "update app.t set b = b + 1",
    "alter schema app2 rename to \"app'3\"",
    "insert into \"app'3\".inner_t values (1)",
    "alter index by_u rename to by_uuid",
    "alter type app.pair add attribute c int",
    "alter domain app.positive set default 5",
    "alter function app.f(int) cost 17",
    "drop rule r on app.v",
    "drop view app.v",
    "drop trigger tg on app.t",
    "drop policy pol on app.t",
    "drop function app.g(), app.f(int)",
    "drop index app.by_uuid",
    "drop materialized view app.m",
    "drop extension pg_trgm",
    "drop aggregate app.total (int)",
    "drop operator app.=== (int, int)",
    "drop statistics app.st",
    "drop table \"Od;d \"\"name\", parts",
    "drop schema \"app'3\" cascade",
];

/// `alter index by_u` needs it: the statements are in no schema that a session searches first.
const PATH: &str = "set search_path = public, app";

#[test]
fn each_statement_travels_from_the_top_level() {
    let pair = pair();
    let mut client = pair.master();
    client.batch_execute(PATH).unwrap();
    for (number, statement) in STATEMENTS.iter().enumerate() {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}\n{statement}"));
        if number % 8 == 0 {
            arrives(&pair);
        }
    }
    arrives(&pair);
}

#[test]
fn each_statement_travels_when_the_client_prepares_it() {
    let pair = pair();
    let mut client = pair.master();
    client.batch_execute(PATH).unwrap();
    for statement in STATEMENTS {
        client.execute(*statement, &[]).unwrap_or_else(|error| panic!("{error:?}\n{statement}"));
    }
    arrives(&pair);
}

#[test]
fn each_statement_travels_from_one_string_and_one_transaction() {
    let pair = pair();
    let whole = STATEMENTS.join("\n;");
    pair.run(&format!("{PATH}; select ';' || $$;$$ || E'\\';' as \"a;b\"; {whole}; -- end\n"));
    arrives(&pair);
}

#[test]
fn each_statement_travels_from_a_do_block() {
    let pair = pair();
    let mut client = pair.master();
    client.batch_execute(PATH).unwrap();
    for statement in STATEMENTS {
        if statement.starts_with("select") {
            // PL/pgSQL has no such EXECUTE.
            client.batch_execute(statement).unwrap();
            continue;
        }
        let quoted = format!("'{}'", statement.replace('\'', "''"));
        let text = if statement.contains('\\') { format!("replace({quoted}, '@@', '\\')") } else { quoted };
        client
            .batch_execute(&format!("do $do$ begin execute {text}; end $do$"))
            .unwrap_or_else(|e| panic!("{e:?}\n{statement}"));
    }
    arrives(&pair);
}

#[test]
fn each_statement_travels_from_the_text_of_a_function_in_plpgsql() {
    let pair = pair();
    let mut client = pair.master();
    client.batch_execute(PATH).unwrap();
    for statement in STATEMENTS {
        // SELECT INTO means something else there.
        let as_sql = match statement.split_once("--") {
            Some((statement, _)) => statement,
            None => statement,
        };
        // PL/pgSQL of PostgreSQL 13 does not understand the rule.
        if as_sql.starts_with("select") || as_sql.starts_with("create rule") {
            client.batch_execute(as_sql).unwrap();
            continue;
        }
        client
            .batch_execute(&format!(
                "create function pg_temp.once() returns void language plpgsql as $once$ begin perform 1; {as_sql}; end $once$;
                 select pg_temp.once(); drop function pg_temp.once()"
            ))
            .unwrap_or_else(|error| panic!("{error:?}\n{statement}"));
    }
    arrives(&pair);
}
