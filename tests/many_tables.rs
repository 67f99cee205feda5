//! What is done for each of many tables looks at that table's own rows of the catalog, and never at those of all tables.

use crate::harness::{Pair, run, wait_until};

const TABLES: usize = 300;

/// How many rows the server has read that no index has found.
fn rows_read(pair: &Pair) -> i64 {
    let ask = "select sum(seq_tup_read)::bigint from pg_stat_all_tables
                where relname in ('pg_trigger', 'pg_class', 'pg_attribute', 'pg_index', 'pg_depend', 'pg_inherits', 'replica_table')";
    pair.on_master(&format!("select ({ask})::text")).remove(0).parse().expect("a number")
}

/// Sessions that have ended have told what they did. Newer servers tell at once.
fn settled(pair: &Pair) -> i64 {
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    wait_until("no other session is left", || pair.on_master(others) == ["0"]);
    rows_read(pair)
}

/// The catalog was read some times as a whole, and not for each table.
fn assert_few(pair: &Pair, what: &str, rows: i64) {
    let all: i64 = pair
        .on_master("select ((select count(*) from pg_class) + (select count(*) from pg_trigger))::text")
        .remove(0)
        .parse()
        .expect("a number");
    eprintln!("{what}: {rows} rows were read, {} times the catalog's", rows / all);
    assert!(rows < all * TABLES as i64 / 5, "{what}: {rows} rows were read, the catalog has {all}");
}

#[test]
fn nothing_reads_the_whole_catalog_once_for_each_table() {
    let pair = Pair::new();
    pair.exec_both(&format!(
        "do $$ begin for i in 1..{TABLES} loop execute format('create table t%s (id int primary key, a text)', i); end loop; end $$"
    ));
    let before = settled(&pair);
    let installed = run(&pair.dir().join("install.log"), &["install", &pair.master_dsn], &[]);
    assert!(installed.status.success(), "{}", installed.output);
    let after = settled(&pair);
    assert_few(&pair, "install", after - before);
    pair.run(&format!(
        "do $$ begin for i in 1..{TABLES} loop execute format('insert into t%s values (1, 2)', i); end loop; end $$"
    ));
    for words in [&["copy"][..], &["doctor"], &["compare"], &["--once"]] {
        let before = settled(&pair);
        let finished = pair.verb(words);
        assert!([0, 8].contains(&finished.code()), "{}", finished.output);
        let after = settled(&pair);
        assert_few(&pair, words[0], after - before);
    }
    pair.assert_equal();
}
