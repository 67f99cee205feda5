//! What a session, a role or a database has set changes neither which table a change is of nor what a value means, on
//! neither side.

use crate::harness::{Pair, assert_says, drains, quietly};
use crate::types::{MATRIX, MULTIRANGES, OWN_TYPES};

/// Two tables of one name, each with a function and a type of one name.
const TENANTS: &str = "
    create schema tenant; create schema other;
    create table public.orders (id int primary key); create table tenant.orders (id int primary key);
    create table other.orders (id int primary key);
    create type public.kind as enum ('a'); create type tenant.kind as enum ('b');
    create function public.f() returns int language sql as 'select 1';
    create function tenant.f() returns int language sql as 'select 2';
    create domain public.by_name as regclass;
    create type public.named as (t regclass, n int);
    create table public.ev (id int primary key, c regclass, p regproc, r regprocedure, y regtype, a regclass[],
        d public.by_name, x public.named)";

/// Its values as nobody's search path shows them.
const EVENTS: &str = "select concat_ws(' ', id, c, p, r, y, a, d, x) from public.ev order by id";

/// An insert under a search path.
fn event(path: &str, id: i32) -> String {
    format!(
        "set search_path = {path};
         insert into public.ev values ({id}, 'orders', 'f', 'f()', 'kind', '{{orders,pg_class}}', 'orders', row('orders', 1))"
    )
}

/// Replays what is pending; the values mean the same on both sides, and are returned.
fn settle(pair: &Pair) -> Vec<String> {
    quietly(pair);
    let [master, slave] = [pair.master(), pair.slave()].map(|mut client| -> Vec<String> {
        client.batch_execute("set search_path = pg_catalog").unwrap();
        client.query(EVENTS, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    });
    assert_eq!(master, slave);
    slave
}

// == Names of tables ==

#[test]
fn a_session_that_quotes_every_name_goes_by_no_filter_transform_or_hold() {
    let pair = Pair::new();
    pair.exec_both(
        "create table t (id int primary key); create table f (id int primary key, email text);
         create table parts (id int primary key, email text) partition by range (id);
         create table parts_1 partition of parts for values from (0) to (100)",
    );
    pair.create_triggers();
    pair.run("select py_log_create_tg('parts')");
    for table in ["f", "parts"] {
        pair.run(&format!(
            "insert into py_log_filter (relname, event, condition) values ('public.{table}', 'INSERT', 'new.id > 10');
             insert into py_log_transform (relname, field, expression) values ('public.{table}', 'email', '''masked''')"
        ));
    }
    pair.done(&["pause", "--table", "t"]);
    pair.run(
        "set quote_all_identifiers = on; insert into t values (1);
         insert into f values (2, 'secret'), (12, 'secret'); insert into parts values (3, 'secret'), (13, 'secret');
         update f set email = 'another' where id = 12; delete from f where id = 2",
    );
    let relations = "select distinct relation from replica_log order by 1";
    assert_eq!(pair.on_master(relations), ["public.f", "public.parts", "public.t"]);
    quietly(&pair);
    assert_eq!(
        pair.on_slave("select id || email from f union all select id || email from parts"),
        ["12masked", "13masked"]
    );
    assert_eq!(pair.on_slave("select count(*) from t"), ["0"]);
    pair.done(&["resume", "--table", "t"]);
    assert_eq!(pair.on_slave("select count(*) from t"), ["1"]);
    pair.run("set quote_all_identifiers = on; truncate t");
    assert_eq!(pair.on_master("select relation from replica_log where event = 'T'"), ["public.t"]);
    quietly(&pair);
    assert_eq!(pair.on_slave("select count(*) from t"), ["0"]);
}

#[test]
fn a_session_that_quotes_every_name_is_replayed_in_order_with_others() {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, a text); create table s (id int primary key, a text)");
    pair.run("select py_log_create_tg('t'); select py_log_create_tg('s', 'statement')");
    for table in ["t", "s"] {
        pair.run(&format!("insert into {table} select i, 'a' from generate_series(1, 40) i"));
        pair.run(&format!("delete from {table} where id = 2; insert into {table} values (2, 'b')"));
        pair.run(&format!(
            "set quote_all_identifiers = on; delete from {table} where id = 2; update {table} set a = 'c' where id = 3"
        ));
        pair.run(&format!("insert into {table} values (2, 'd'); update {table} set a = 'e' where id = 3"));
    }
    drains(&pair);
}

#[test]
fn names_that_an_earlier_version_has_logged_in_quotes_are_the_same_tables() {
    let pair = Pair::new();
    pair.exec_both(r#"create table t (id int primary key); create schema "O.dd"; create table "O.dd"."a.""b" (id int primary key)"#);
    pair.create_triggers();
    pair.create_triggers_in("O.dd");
    let quoted = r#"update replica_log set relation = '"public"."t"' where relation = 'public.t'"#;
    pair.run(r#"insert into t values (1); insert into "O.dd"."a.""b" values (1)"#);
    pair.run(quoted);
    let finished = pair.verb(&["compare"]);
    assert_eq!(finished.count("missing"), 0, "{}", finished.output);
    pair.done(&["pause", "--table", "t"]);
    pair.once();
    assert_eq!(
        pair.on_slave(r#"select (select count(*) from t) || ' ' || (select count(*) from "O.dd"."a.""b")"#),
        ["0 1"]
    );
    pair.done(&["resume", "--table", "t"]);
    pair.assert_equal();
    // A batch with both spellings, and a long transaction.
    pair.run("insert into t select i from generate_series(2, 30) i; delete from t where id = 7");
    pair.run(quoted);
    pair.run("insert into t values (7); delete from t where id = 8");
    drains(&pair);
}

#[test]
fn the_script_and_what_people_call_work_where_every_name_is_quoted() {
    let pair = Pair::new();
    let db = pair.master_db();
    pair.run(&format!(
        "alter database {db} set quote_all_identifiers = on; create table t (id int primary key, a text)"
    ));
    pair.run_on_slave(&format!(
        "alter database {} set quote_all_identifiers = on; create table t (id int primary key, a text)",
        pair.slave_db()
    ));
    pair.master_server().psql(&db, &crate::harness::Script::Master.path());
    assert_eq!(pair.create_triggers(), ["created trigger on t (id)"]);
    pair.run("insert into py_log_filter (relname, event, condition) values ('public.t', 'INSERT', 'new.id > 1')");
    pair.run("insert into t values (1, 'a'), (2, 'b')");
    quietly(&pair);
    assert_eq!(pair.on_slave("select id from t"), ["2"]);
    assert_says(&pair.done(&["compare"]), &["public.t"]);
}

// == Names in values ==

#[test]
fn a_name_in_a_column_means_the_same_object_whatever_the_search_paths() {
    let pair = Pair::new();
    pair.exec_both(TENANTS);
    pair.create_triggers();
    pair.run_on_slave(&format!("alter database {} set search_path = other, tenant, public", pair.slave_db()));
    for (id, path) in ["tenant, public", "public", "\"$user\", public", "''", "public, tenant", "public, pg_catalog"]
        .iter()
        .enumerate()
    {
        if *path != "''" {
            pair.run(&event(path, id as i32));
        }
    }
    settle(&pair);
    pair.run(
        "set search_path = tenant, public; update public.ev set c = 'orders', a = '{orders}' where id = 1;
              update public.ev set d = 'orders', id = id + 10 where id = 2",
    );
    settle(&pair);
    // As a set, and by COPY.
    pair.run(
        "set search_path = tenant, public;
              insert into public.ev (id, c, y) select i, 'orders', 'kind' from generate_series(100, 900) i",
    );
    settle(&pair);
    pair.run("select py_log_create_tg('ev', 'statement')");
    pair.run(&event("tenant, public", 1000));
    pair.run("insert into public.ev (id, c) select i, 'orders' from generate_series(1001, 1050) i");
    settle(&pair);
    let slave = settle(&pair);
    assert!(
        slave[0].starts_with("0 tenant.orders tenant.f tenant.f() tenant.kind {tenant.orders,pg_class}"),
        "{}",
        slave[0]
    );
}

#[test]
fn a_column_of_names_that_is_added_later_is_written_in_full_by_open_sessions() {
    let pair = Pair::new();
    pair.exec_both("create schema tenant; create table tenant.orders (id int primary key); create table orders (id int primary key);
                    create table ev (id int primary key)");
    pair.create_triggers();
    let mut session = pair.master();
    session.batch_execute("set search_path = tenant, public; insert into ev values (1)").unwrap();
    pair.exec_both("alter table ev add c regclass");
    session.batch_execute("insert into ev values (2, 'orders'); update ev set c = 'orders' where id = 1").unwrap();
    drains(&pair);
    assert_eq!(pair.on_slave("select c::text from ev order by id"), ["tenant.orders", "tenant.orders"]);
}

// == All settings ==

/// Settings that say nothing about values, and would keep the test from running.
const LEFT_ALONE: &str = "'session_replication_role', 'default_transaction_read_only', 'exit_on_error', 'zero_damaged_pages',
    'ignore_checksum_failure', 'transaction_read_only', 'transaction_deferrable', 'transaction_isolation', 'row_security',
    'is_superuser', 'client_encoding', 'default_toast_compression', 'wal_compression', 'wal_recycle', 'allow_system_table_mods'";

/// ALTER DATABASE for every switch and list that a database may carry, to a value that is not its own.
fn all_settings(database: &str, more: &str) -> String {
    format!(
        "select format('alter database {database} set %I = %L', name,
                       case vartype when 'bool' then case reset_val when 'on' then 'off' else 'on' end
                       else (select v from unnest(enumvals) v where v <> reset_val order by v = 'off', v limit 1) end)
           from pg_settings
          where context in ('user', 'superuser') and (vartype = 'bool' or vartype = 'enum' and cardinality(enumvals) > 1)
            and name !~ '^(log_|debug_|trace_|enable_|jit|track_|geqo|backtrace|allow_in_place|wal_|event_)' and name not in ({LEFT_ALONE})
         union all
         select format('alter database {database} set %I = %L', name, value)
           from (values ('DateStyle', 'German, DMY'), ('TimeZone', 'Asia/Kolkata'), ('extra_float_digits', '-3'),
                        ('search_path', 'other, tenant, public'), ('gin_fuzzy_search_limit', '1'),
                        ('default_text_search_config', 'german'), ('timezone_abbreviations', 'Australia'){more}) v (name, value)"
    )
}

#[test]
fn whatever_a_database_has_set_every_value_of_every_type_arrives() {
    let pair = Pair::new();
    pair.exec_both(OWN_TYPES);
    pair.exec_both("create schema other; create schema tenant; create table tenant.orders (id int); create table other.orders (id int)");
    let mut types = MATRIX.to_vec();
    if pair.version() >= 14 {
        types.extend(MULTIRANGES);
    }
    for (i, (name, values)) in types.iter().enumerate() {
        let null = if *name == "short_text" { values[0] } else { "null" };
        let rows: Vec<String> =
            values.iter().copied().chain([null]).enumerate().map(|(id, value)| format!("({id}, {value})")).collect();
        pair.exec_both(&format!("create table t{i} (id int primary key, v {name}, n int)"));
        // The values themselves, so that no session has to read them.
        let fill: String = rows.iter().map(|row| format!("insert into values_{i} values {row};")).collect();
        pair.run(&format!("create unlogged table values_{i} (id int, v {name}); {fill}"));
    }
    pair.create_triggers();
    let settings = |client: &mut postgres::Client, database: &str, more: &str| {
        let set: Vec<String> =
            client.query(&all_settings(database, more), &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert!(set.len() > 20, "{set:?}");
        for statement in set {
            client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    };
    settings(&mut pair.master(), &pair.master_db(), "");
    settings(&mut pair.slave(), &pair.slave_db(), ", ('default_transaction_read_only', 'on')");
    let mut session = pair.master();
    let mut finished = Vec::new();
    let mut step = |sql: &dyn Fn(usize) -> String| {
        for (i, (name, _)) in types.iter().enumerate() {
            session.batch_execute(&sql(i)).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        finished.push(pair.once());
    };
    step(&|i| format!("insert into public.t{i} select id, v from public.values_{i}"));
    // Sets.
    step(&|i| {
        format!("insert into public.t{i} select id + 1000 * n, v from public.values_{i}, generate_series(1, 20) n")
    });
    step(&|i| format!("update public.t{i} set n = id where id < 1000"));
    step(&|i| format!("update public.t{i} t set v = o.v from public.values_{i} o where o.id = (t.id + 1) % 1000"));
    step(&|i| format!("delete from public.t{i} where id > 15000"));
    pair.run(&format!("alter database {} reset all", pair.master_db()));
    let mut slave = pair.slave();
    slave.batch_execute("set default_transaction_read_only = off").unwrap();
    slave.batch_execute(&format!("alter database {} reset all", pair.slave_db())).unwrap();
    let tables: Vec<String> = (0..types.len()).map(|i| format!("values_{i}")).collect();
    pair.run(&format!("drop table {}", tables.join(", ")));
    for finished in finished {
        assert_eq!(finished.count("Possible conflict"), 0, "{}", finished.output);
    }
    pair.assert_equal();
}
