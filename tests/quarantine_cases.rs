//! Quarantine where it is easy to get wrong: several errors in one batch, unique values, two operators.

use crate::harness::{Daemon, Pair, assert_says, refusal, wait_until};

const QUARANTINE: &str = "ON_ERROR=quarantine\n";

fn pair(schema: &str) -> Pair {
    let pair = Pair::new();
    pair.exec_both(schema);
    pair.create_triggers();
    pair
}

/// A duplicate of a deferrable constraint is found at the end of a batch only, so of two errors the later one comes first.
#[test]
fn what_stands_before_two_errors_is_replayed_whichever_is_found_first() {
    let pair = pair("create table t (id int primary key, a int unique deferrable)");
    pair.run_on_slave("insert into t values (100, 7), (20, 20)");
    pair.run("insert into t values (1, 1)");
    pair.run("insert into t values (2, 7)");
    pair.run("insert into t values (3, 3)");
    pair.run("insert into t values (20, 4)");
    pair.run("insert into t values (5, 5)");
    let said = pair.drain_with(QUARANTINE);
    assert_eq!(said.matches("put into quarantine").count(), 2, "{said}");
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "3", "5", "20", "100"]);
    pair.run_on_slave("delete from t where id in (20, 100)");
    pair.done(&["retry"]);
    pair.assert_equal();
}

#[test]
fn without_quarantine_the_first_of_two_errors_is_told_and_what_stands_before_it_is_replayed() {
    let pair = pair("create table t (id int primary key, a int unique deferrable)");
    pair.run_on_slave("insert into t values (100, 7), (20, 20)");
    pair.run("insert into t values (1, 1)");
    pair.run("insert into t values (2, 7)");
    pair.run("insert into t values (20, 4)");
    let finished = pair.try_once();
    assert_eq!(finished.code(), 6, "{}", finished.output);
    assert_says(&finished.output, &["deferrable unique constraint"]);
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "20", "100"]);
}

/// The operator is told what has become of it, not what somebody else has prevented.
#[test]
fn what_another_operator_has_taken_out_of_quarantine_meanwhile_is_not_called_replayed_or_skipped() {
    for verb in [&["retry"][..], &["skip", "--yes", "--transaction"]] {
        let pair = pair("create table t (id int primary key, a int)");
        pair.run_on_slave("insert into t values (1, 0)");
        pair.run("insert into t values (1, 1)");
        pair.drain_with(QUARANTINE);
        let txid = pair.on_slave("select txid from replica_held").remove(0);
        let mut other = pair.slave();
        other.batch_execute("begin; lock table replica_hold in access share mode").expect("a lock");
        let mut words = verb.to_vec();
        if verb[0] == "skip" {
            words.push(&txid);
        }
        words.extend([pair.master_dsn.as_str(), pair.slave_dsn.as_str()]);
        let mut process = Daemon::spawn(&pair.dir().join("verb.log"), &words, &[]);
        // In other tests' databases, which are copies too, the table has the same number.
        let waits = "select count(*) from pg_locks where relation = 'replica_hold'::regclass and not granted
                      and database = (select oid from pg_database where datname = current_database())";
        wait_until("the verb waits", || pair.on_slave(waits) == ["1"]);
        other.batch_execute("delete from replica_held; commit").expect("the other operator");
        process.wait_exit();
        let said = process.log();
        assert!(!said.contains(" replayed\n") && !said.contains(" skipped\n"), "{said}");
        assert_says(&said, &["meanwhile"]);
        assert_eq!(pair.on_slave("select count(*) from replica_skipped"), ["0"]);
    }
}

#[test]
fn transactions_that_touch_each_others_keys_come_back_in_order() {
    let pair = pair("create table t (id int primary key, a text)");
    pair.run("insert into t select i, 'old' from generate_series(1, 6) i");
    pair.drain_with(QUARANTINE);
    pair.run_on_slave("insert into t values (20, 'x'), (21, 'x')");
    pair.run("update t set id = 20 where id = 1");
    pair.run("update t set id = 21 where id = 2");
    pair.run("update t set id = 1 where id = 21");
    pair.run("update t set id = 2 where id = 20");
    pair.run("update t set a = 'new' where id in (1, 2); update t set a = 'new' where id = 3");
    pair.run("update t set a = 'free' where id = 4");
    pair.drain_with(QUARANTINE);
    assert_eq!(
        pair.on_slave("select string_agg(id || a, ' ' order by id) from t"),
        ["1old 2old 3old 4free 5old 6old 20x 21x"]
    );
    pair.run_on_slave("delete from t where id = 21");
    let retried = pair.verb(&["retry"]);
    assert_eq!(retried.code(), 6, "{}", retried.output);
    pair.run_on_slave("delete from t where id = 20");
    pair.done(&["retry"]);
    pair.assert_equal();
    assert_eq!(pair.on_slave("select count(*) from replica_held"), ["0"]);
}

/// A unique value that is not the key's: a change that takes what a transaction in quarantine frees, or had taken, is behind it.
#[test]
fn who_takes_a_unique_value_of_a_transaction_in_quarantine_follows_it() {
    let pair = pair("create table t (id int primary key, a text unique, b text)");
    pair.run_on_slave("insert into t values (1, 'x', 'in the way')");
    pair.run("insert into t values (1, 'a', 'fails')");
    pair.run("delete from t where id = 1");
    pair.run("insert into t values (5, 'a', 'takes it')");
    pair.run("insert into t values (6, 'c', 'free')");
    pair.drain_with(QUARANTINE);
    assert_eq!(pair.on_slave("select id from t order by id"), ["1", "6"]);
    pair.run_on_slave("delete from t where id = 1");
    pair.done(&["retry"]);
    pair.assert_equal();
}

/// The slave does not check foreign keys, but nobody wants to see an order there whose customer is in quarantine.
#[test]
fn who_refers_to_a_row_that_is_in_quarantine_follows_it_and_so_does_what_takes_away_a_row_that_is_referred_to() {
    let pair = pair(
        "create table p (id int primary key, a text, b text, unique (b, a));
         create table c (id int primary key, p int references p, b text, a text, foreign key (a, b) references p (a, b))",
    );
    pair.run("insert into p values (1, 'a1', 'b1'), (2, 'a2', 'b2'); insert into c values (1, 1), (2, 2)");
    pair.drain_with(QUARANTINE);
    pair.run_on_slave("insert into p values (9, 'x', 'x'); insert into c values (9)");
    pair.run("insert into p values (9, 'a9', 'b9')");
    pair.run("insert into c values (3, 9)");
    pair.run("insert into c values (4, null, 'b9', 'a9')");
    pair.run("insert into c values (5, 1)");
    // A change that is refused takes a reference away; the row that was referred to goes later.
    pair.run("insert into c values (9); delete from c where id = 2");
    pair.run("delete from p where id = 2");
    pair.run("update p set a = 'a1' where id = 1; update c set p = null where id = 5");
    pair.drain_with(QUARANTINE);
    let [p, c] = ["p", "c"].map(|table| pair.on_slave(&format!("select id from {table} order by id")));
    assert_eq!([p, c], [vec!["1", "2", "9"], vec!["1", "2", "5", "9"]]);
    pair.run_on_slave("delete from p where id = 9; delete from c where id = 9");
    // The last one waits for the row that it refers to.
    let txid = pair.on_slave(
        "select txid from replica_held where relation = 'public.c' and id = (select max(id) from \
        replica_held where why = 'quarantined' and new::text like '%a9%' and relation = 'public.c')",
    );
    let said = pair.verb(&["retry", "--transaction", &txid[0]]).output;
    assert_says(&said, &["waits: it depends on transaction"]);
    pair.done(&["retry"]);
    pair.assert_equal();
}

/// Symptom: a character that the slave's encoding lacks stopped the pair although ON_ERROR was quarantine, because the quarantine
/// could not store it either.
#[test]
fn what_the_slave_has_no_characters_for_is_quarantined_shown_and_skipped() {
    let pair = Pair::with_slave_encoding("LATIN1");
    pair.exec_both("create table t (id int primary key, v text)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'ä')");
    pair.run("insert into t values (2, '10 €\\u{41} ä')");
    pair.run("insert into t values (3, 'ö')");
    let finished = pair.try_once_by_file("ON_ERROR=quarantine\n");
    assert_eq!(finished.code(), 0, "{}", finished.output);
    assert_eq!(pair.on_slave("select v from t order by id"), ["ä", "ö"]);
    let shown = pair.done(&["pending"]);
    assert_says(&shown, &["VALUES ('2', '10 €\\u{41} ä')", "has no equivalent in encoding \"LATIN1\""]);
    assert_ne!(pair.verb(&["retry"]).code(), 0);
    pair.done(&["skip", "2", "--yes", "--reason", "no euros there"]);
    assert_says(&pair.done(&["pending"]), &["0 in quarantine"]);
    // A table whose very name it lacks.
    pair.run("create table \"€\" (id int primary key); select py_log_create_tg('€'); insert into \"€\" values (1)");
    let finished = pair.try_once_by_file("ON_ERROR=quarantine\n");
    assert_eq!(finished.code(), 0, "{}", finished.output);
    assert_says(&pair.done(&["pending"]), &["1 in quarantine"]);
}

/// Symptom: "character with byte sequence 0x81 has no equivalent in encoding UTF8", of no change, and neither pending nor skip
/// worked: the master could not send the change.
#[test]
fn what_the_master_cannot_send_is_named_shown_quarantined_and_skipped() {
    let pair = Pair::with_master_encoding("WIN1252");
    pair.exec_both("create table t (id int primary key, v text)");
    pair.create_triggers();
    pair.run("insert into t values (1, 'ä')");
    pair.run("insert into t select 2, convert_from('\\x618162', 'WIN1252')");
    pair.run("insert into t values (3, 'ö')");
    let said = refusal(&pair);
    assert_says(&said, &["master: cannot read change 2 of transaction", "0x81", "pyreplica skip 2"]);
    assert_eq!(pair.on_slave("select v from t"), ["ä"]);
    assert_says(&pair.done(&["pending"]), &["VALUES ('2', 'a\\201b')", "change 2 fails"]);
    let finished = pair.try_once_by_file("ON_ERROR=quarantine\n");
    assert_eq!(finished.code(), 0, "{}", finished.output);
    assert_eq!(pair.on_slave("select v from t order by id"), ["ä", "ö"]);
    assert_says(&pair.done(&["pending"]), &["1 in quarantine", "a\\201b"]);
    assert_ne!(pair.verb(&["retry"]).code(), 0);
    pair.done(&["skip", "2", "--yes", "--reason", "a control character"]);
    // The same without the quarantine.
    pair.run("insert into t select 4, convert_from('\\x618162', 'WIN1252')");
    pair.run("insert into t values (5, 'ü')");
    refusal(&pair);
    pair.done(&["skip", "4", "--yes", "--reason", "a control character"]);
    pair.once();
    assert_eq!(pair.on_slave("select v from t where id > 3"), ["ü"]);
}
