//! A database of the Python original is taken over by master-install.sql: what its slaves have not replayed yet goes
//! out as it was logged, and its triggers go on working until py_log_create_tg replaces them.

use crate::harness::{Pair, Script, drains, wait_until};
use postgres::error::Severity;
use std::path::PathBuf;

/// The original's log and its functions. They were in PL/Python 2, which no server of today has; what they write and
/// what they are called is the same.
const ORIGINAL: &str = r#"
create table replica_log (id serial primary key, sql text, replicated boolean default false,
                          username name default current_user, ts timestamp default now());
create function py_log_replica() returns trigger language plpgsql as $$
declare
    statement text;
    condition text := format('"id"=%L', case tg_op when 'INSERT' then new.id else old.id end);
begin
    case tg_op
        when 'INSERT' then
            statement := format('INSERT INTO "%s" ("id", "a") VALUES (%L, %L)', tg_argv[0], new.id, new.a);
        when 'UPDATE' then
            if new = old then return null; end if;
            statement := format('UPDATE "%s" SET "a"=%L WHERE %s', tg_argv[0], new.a, condition);
        when 'DELETE' then
            statement := format('DELETE FROM "%s" WHERE %s', tg_argv[0], condition);
    end case;
    insert into replica_log (sql) values (statement);
    notify replicas;
    return null;
end $$;
create function py_log_create_tg(relname varchar) returns text language plpgsql as $$
begin
    execute format('create trigger %s_replica_tg after insert or update or delete on %s '
                   'for each row execute procedure py_log_replica(%L, ''id'')', relname, relname, relname);
    return format('created trigger on %s (id) ', relname);
end $$;"#;

const TABLE: &str = "create table t (id int primary key, a text)";

/// The original as it stands on a master: three rows that the slave has, and three statements that it has not.
const USED: &str = "select py_log_create_tg('t');
    insert into t values (1, 'one'), (2, 'two'), (3, 'three');
    update replica_log set replicated = true;";
const WAITING: &str =
    "insert into t values (4, 'it''s \"four\"'); update t set a = 'eins' where id = 1; delete from t where id = 2";

/// A pair whose master the original replicates, its slave up to date with the first rows.
fn original() -> Pair {
    let pair = Pair::new();
    pair.master_server()
        .psql(&pair.master_db(), &PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/master-uninstall.sql")));
    pair.exec_both(TABLE);
    pair.run(ORIGINAL);
    pair.run(USED);
    pair.run_on_slave("insert into t values (1, 'one'), (2, 'two'), (3, 'three')");
    pair
}

fn install(pair: &Pair) {
    pair.master_server().psql(&pair.master_db(), &Script::Master.path());
}

#[test]
fn what_waits_is_replayed_and_then_what_the_old_triggers_and_the_new_ones_log() {
    let pair = original();
    pair.run(WAITING);
    install(&pair);
    assert_eq!(pair.on_master("select id || event::text from replica_log order by id"), ["4S", "5S", "6S"]);
    pair.run("update t set a = 'drei' where id = 3");
    assert_eq!(pair.on_master("select event from replica_log where id > 6"), ["U"], "logged by the old trigger");
    drains(&pair);

    let triggers = "select tgname from pg_trigger where tgrelid = 't'::regclass order by 1";
    assert_eq!(pair.on_master(triggers), ["t_replica_tg"]);
    assert_eq!(pair.create_triggers(), ["created trigger on t (id)"]);
    assert_eq!(pair.on_master(triggers), ["!replica_tg", "!replica_truncate_tg"]);
    pair.run("insert into t values (5, 'five'); update t set id = 6 where id = 5; delete from t where id = 3");
    assert_eq!(pair.logged(), 3, "nothing is captured twice");
    assert_eq!(pair.on_master("select min(id) from replica_log where not replicated"), ["8"], "the numbers go on");
    drains(&pair);
}

#[test]
fn the_old_triggers_are_not_captured_twice_when_new_ones_are_made_at_once() {
    let pair = original();
    pair.run(WAITING);
    install(&pair);
    pair.create_triggers();
    pair.run("insert into t values (5, 'five')");
    assert_eq!(pair.logged(), 4);
    drains(&pair);
}

#[test]
fn the_script_takes_over_once_and_keeps_the_history() {
    let pair = original();
    pair.run(WAITING);
    install(&pair);
    install(&pair);
    assert_eq!(pair.logged(), 3);
    assert_eq!(pair.on_master("select count(*) from replica_log_former"), ["6"]);
    pair.create_triggers();
    let said = pair.on_master("select py_log_create_tg('replica_log_former')");
    assert_eq!(said, ["table replica_log_former is pyreplica's own (couldn't be replicated)!"]);
    pair.run("drop table replica_log_former");
    drains(&pair);
    pair.run("insert into t values (7, 'seven')");
    install(&pair);
    drains(&pair);
}

#[test]
fn further_slaves_keep_their_columns_and_what_waits_for_them() {
    let pair = original();
    pair.run("alter table replica_log add slave2 boolean default false; update replica_log set slave2 = id < 3");
    pair.run("alter table replica_log add \"Slave 3\" boolean; update replica_log set \"Slave 3\" = true where id = 3");
    pair.run(WAITING);
    install(&pair);
    let rows = "select id || ' ' || replicated || ' ' || slave2 || ' ' || \"Slave 3\" from replica_log order by id";
    // The original's daemon passed over a NULL.
    let expected = ["3 true false true", "4 false false true", "5 false false true", "6 false false true"];
    assert_eq!(pair.on_master(rows), expected);
    pair.run("update t set a = 'drei' where id = 3");
    assert_eq!(pair.on_master(&rows.replace("order", "where id = 7 order")), ["7 false false false"]);
    pair.once();
    pair.assert_equal();
    pair.run_on_slave("truncate t; insert into t values (1, 'one'), (2, 'two')");
    assert_eq!(pair.try_once_by_file("SLAVE_FIELD=slave2\n").code(), 0);
    pair.assert_equal();
    let waiting = "select id from replica_log where not \"Slave 3\"";
    assert_eq!(pair.on_master(waiting), ["7"], "it waits for the third slave");
    let indexes = "select pg_get_indexdef(indexrelid) from pg_index where indrelid = 'replica_log'::regclass";
    assert_eq!(pair.on_master(indexes), ["CREATE INDEX replica_log_id ON public.replica_log USING btree (id)"]);
}

#[test]
fn an_owner_who_is_no_superuser_upgrades_his_own() {
    let pair = original();
    let owner = format!("owner_{}", std::process::id());
    let database = pair.master_db();
    pair.run(&format!(
        "create role {owner} login;
         do $$ begin execute format('alter database %I owner to {owner}', current_database()); end $$;
         grant create on schema public to {owner};
         alter table t owner to {owner}; alter table replica_log owner to {owner};
         alter function py_log_create_tg(varchar) owner to {owner}; grant all on replica_log to public;
         grant all on replica_log_id_seq to public"
    ));
    pair.run(WAITING);
    let script = std::fs::read_to_string(Script::Master.path()).unwrap();
    let mut client = pair.master();
    client.batch_execute(&format!("set session authorization {owner}")).unwrap();
    let error = client.batch_execute(&script).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.message(), "the function py_log_replica() belongs to another role");
    assert!(error.hint().unwrap().contains("as that role or as a superuser"));
    client.batch_execute("rollback").unwrap();
    drop(client);

    // No matter who runs it, everything belongs to the owner of the log in the end, and nobody else may write it.
    for run_as in ["postgres", owner.as_str()] {
        let mut client = pair.master();
        client.batch_execute(&format!("set session authorization {run_as}")).unwrap();
        client.batch_execute(&script).unwrap();
        let foreign = format!(
            "select relname from pg_class where relname ~ '^replica_' and relowner <> '{owner}'::regrole
             union all select proname from pg_proc where proname ~ '^py_log_|^exact$' and proowner <> '{owner}'::regrole
             union all select oprname from pg_operator where oprnamespace = 'pyreplica'::regnamespace and oprowner <> '{owner}'::regrole
             union all select nspname from pg_namespace where nspname = 'pyreplica' and nspowner <> '{owner}'::regrole"
        );
        assert_eq!(pair.on_master(&foreign), [""; 0], "after {run_as}");
        let open =
            "select count(*) from pg_class where relname in ('replica_log', 'replica_log_id_seq', 'replica_slave')
                    and (has_table_privilege('pg_monitor', oid, 'insert, update'))";
        assert_eq!(pair.on_master(open), ["0"]);
    }
    pair.create_triggers();
    pair.run(&format!("set session authorization {owner}; insert into t values (9, 'nine')"));
    let as_owner = pair.master_dsn.replace("user=postgres", &format!("user={owner}"));
    assert_eq!(pair.try_once_by_file(&format!("DSN0={as_owner}\n")).code(), 0);
    pair.assert_equal();
    pair.run(&format!("reassign owned by {owner} to postgres; drop owned by {owner}"));
    pair.run(&format!("alter database \"{database}\" owner to postgres; drop role {owner}"));
}

#[test]
fn strings_that_python_escaped_are_read_as_the_original_had_them_read() {
    let pair = original();
    let settings = "do $$ begin execute format('alter database %I set standard_conforming_strings = off;
                    alter database %1$I set escape_string_warning = off', current_database()); end $$";
    pair.exec_both(settings);
    pair.run(
        r#"insert into replica_log (sql) values (E'UPDATE "t" SET "a"=\'it\\\'s \\\\ two\\nlines\' WHERE "id"=\'1\'')"#,
    );
    pair.run(r"insert into t values (4, E'back\\slash')");
    install(&pair);
    pair.create_triggers();
    pair.run(r"insert into t values (5, E'new\\slash')");
    pair.once();
    assert_eq!(pair.on_slave("select a from t where id = 1"), ["it's \\ two\nlines"]);
    assert_eq!(pair.on_slave("select a from t where id = 5"), ["new\\slash"]);
}

#[test]
fn more_statements_than_there_were_transactions_share_their_numbers_with_neighbours() {
    let pair = original();
    pair.run(
        "insert into replica_log (sql)
         select format('UPDATE \"t\" SET \"a\"=%L WHERE \"id\"=1', i)
           from generate_series(1, pg_current_xact_id()::text::bigint * 2) i",
    );
    install(&pair);
    let wrong = "select count(*) from (select txid, lag(txid) over (order by id) as former from replica_log) l
                 where txid < former or txid >= pg_current_xact_id() or not pg_visible_in_snapshot(txid, pg_current_snapshot())";
    // Another test on this server may have a transaction of such a number that is not over yet.
    wait_until("all numbers are those of transactions that are over", || pair.on_master(wrong) == ["0"]);
    let largest = "select max(count) <= 4 from (select count(*) from replica_log group by txid) l";
    assert_eq!(pair.on_master(largest), ["t"]);
}

#[test]
fn the_operator_is_told_and_a_strange_table_of_that_name_is_left_alone() {
    let pair = original();
    let script = std::fs::read_to_string(Script::Master.path()).unwrap();
    pair.run("alter table replica_log drop column username");
    let error = pair.master().batch_execute(&script).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.parsed_severity(), Some(Severity::Error));
    assert!(error.message().contains("there is a table replica_log that neither pyreplica nor the Python original"));
    assert_eq!(pair.on_master("select count(*) from replica_log"), ["3"]);
}
