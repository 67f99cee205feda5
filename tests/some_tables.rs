//! A pair that replicates some of the master's tables only (TABLES): everything of these, nothing of others, and each verb keeps to
//! them.

use crate::harness::{Pair, assert_says};

const TABLES: &str = "TABLES=orders, sales.*, \"My s\".\"It's; \"\"t\"\"\"";

/// Both sides have these; the first four are the pair's.
fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(
        "create schema sales; create schema \"My s\"; create schema other;
         create table orders (id serial primary key, a text);
         create table sales.\"order\" (id serial primary key, a text);
         create table sales.p (id int primary key) partition by range (id);
         create table sales.p1 partition of sales.p for values from (0) to (1000000);
         create table \"My s\".\"It's; \"\"t\"\"\" (id int primary key, a text);
         create table orders2 (id serial primary key, a text);
         create table other.orders (id serial primary key, a text); create sequence sales.free; create sequence other.free",
    );
    for schema in ["public", "sales", "My s", "other"] {
        pair.create_triggers_in(schema);
    }
    pair
}

const ALL: [&str; 4] = ["orders", "sales.\"order\"", "orders2", "other.orders"];

#[track_caller]
fn assert_partial(pair: &Pair) {
    for table in ["orders", "sales.\"order\"", "sales.p", "\"My s\".\"It's; \"\"t\"\"\""] {
        let rows = format!("select t::text from {table} t order by 1");
        assert_eq!(pair.on_slave(&rows), pair.on_master(&rows), "{table}");
    }
    for table in ["orders2", "other.orders"] {
        assert!(pair.on_slave(&format!("select t::text from {table} t")).is_empty(), "{table}");
    }
}

fn write(pair: &Pair, count: usize) {
    let inserts: String = ALL
        .iter()
        .map(|table| format!("insert into {table} (a) select 'x' || i from generate_series(1, {count}) i;"))
        .collect();
    pair.run(&format!(
        "begin; {inserts} insert into sales.p select coalesce(max(id), 0) + 1 from sales.p;
         insert into \"My s\".\"It's; \"\"t\"\"\" select coalesce(max(id), 0) + 1, 'x' from \"My s\".\"It's; \"\"t\"\"\"; commit;
         update orders set a = 'y' where id % 3 = 0; delete from sales.\"order\" where id % 4 = 0; delete from orders2 where id % 5 = 0;
         truncate other.orders; select nextval('sales.free'), nextval('other.free')"
    ));
}

#[test]
fn only_these_tables_are_replicated_in_transactions_of_any_size() {
    let pair = pair();
    for (count, lines) in [(3, ""), (3000, "TWO_PHASE=false"), (12_000, ""), (1, "RETENTION=0")] {
        write(&pair, count);
        pair.run("insert into replica_log (sql) values ('insert into orders2 (a) values (1)')");
        pair.once_with(&format!("{TABLES}\n{lines}"));
        assert_partial(&pair);
    }
    assert_eq!(pair.logged(), 0, "everything counts as replayed, and is deleted");
    let sequences = "select (select last_value from sales.free) || ' ' || (select last_value from orders_id_seq)";
    assert_eq!(pair.on_slave(sequences), pair.on_master(sequences));
    let others = "select ((select is_called from other.free) or (select is_called from orders2_id_seq))::text";
    assert_eq!(pair.on_slave(others), ["false"]);
    // A name in quotes in the log, as an earlier version wrote it.
    pair.run("set quote_all_identifiers = on; insert into orders (a) values ('quoted'); insert into orders2 (a) values ('quoted')");
    let daemon = pair.start_with(TABLES);
    write(&pair, 5);
    pair.wait_caught_up();
    assert_partial(&pair);
    assert!(!daemon.log().contains("orders2"), "{}", daemon.log());
}

#[test]
fn two_pairs_share_a_master_and_a_slave() {
    let pair = pair();
    pair.run("select py_log_add_slave('rest')");
    write(&pair, 10);
    pair.once_with(TABLES);
    assert_partial(&pair);
    pair.once_with("SLAVE_FIELD=rest\nTABLES=public.orders2, other.*");
    pair.assert_equal();
}

#[test]
fn every_verb_keeps_to_these_tables() {
    let pair = pair();
    pair.run_on_slave("drop table orders2; drop schema other cascade; drop schema sales cascade; create schema sales");
    write(&pair, 10);
    let verb = |verb: &str, more: &[&str]| pair.verb_by_file(verb, TABLES, more);
    let waiting = verb("pending", &[]).output;
    let ours = pair.on_master("select count(*) from replica_log where relation !~ 'orders2|other'").remove(0);
    assert_says(&waiting, &[&format!("{ours} changes wait")]);
    // Only their tables are created, and filled.
    let copied = verb("copy", &["--schema"]);
    assert!(copied.status.success(), "{}", copied.output);
    assert!(!copied.output.contains("orders2") && !copied.output.contains("other"), "{}", copied.output);
    assert_eq!(pair.on_slave("select (to_regclass('orders2') is null)::text"), ["true"]);
    write(&pair, 3);
    pair.once_with(TABLES);
    let compared = verb("compare", &[]);
    assert!(compared.status.success(), "{}", compared.output);
    assert!(!compared.output.contains("orders2") && !compared.output.contains("other.orders"), "{}", compared.output);
    assert_says(&verb("compare", &["--table", "orders2"]).output, &["find table orders2", "TABLES"]);
    let doctor = verb("doctor", &[]).output;
    assert!(!doctor.contains("orders2") && !doctor.contains("other.orders") && !doctor.contains("failure"), "{doctor}");
    for refused in ["switchover", "failover"] {
        let said = verb(refused, &[]);
        assert!(![0, 8].contains(&said.code()), "{}", said.output);
        assert_says(&said.output, &["TABLES is set"]);
    }
    assert!(verb("protect", &[]).status.success());
    pair.run_on_slave("set default_transaction_read_only = off; create table orders2 (id int)");
}
