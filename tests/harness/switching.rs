//! Pairs whose roles are exchanged: the verb, and what each side says and accepts afterwards.

use super::{Finished, Pair, wait_until};
use postgres::Client;

pub const MODES: [&str; 2] = ["", "TWO_PHASE=false"];

/// The SQLSTATE of a write to a database that is not the master.
pub const READ_ONLY: &str = "25006";

/// Runs the verb by a config file.
#[track_caller]
pub fn switch(pair: &Pair, lines: &str, options: &[&str]) -> Finished {
    pair.verb_by_file("switchover", lines, options)
}

/// The same where it succeeds; what it printed.
#[track_caller]
pub fn switched(pair: &Pair, lines: &str, options: &[&str]) -> String {
    let finished = switch(pair, lines, options);
    assert!(finished.status.success(), "switchover {options:?}: {}\n{}", finished.status, finished.output);
    finished.output
}

/// Which of the two databases is the master, by what they say: 0 is that of DSN0. Exactly one must be.
#[track_caller]
pub fn master_of(pair: &Pair) -> usize {
    master_said(pair).expect("a master")
}

/// The same; None if no database says so: before the first exchange, and if one was interrupted.
#[track_caller]
pub fn master_said(pair: &Pair) -> Option<usize> {
    let said = [pair.master(), pair.slave()].map(|mut client| roles(&mut client));
    let masters: Vec<usize> = (0..2).filter(|side| said[*side].iter().any(|role| role == "master")).collect();
    assert!(masters.len() <= 1, "{said:?}");
    masters.first().copied()
}

/// What a database says about its own role.
#[track_caller]
pub fn roles(client: &mut Client) -> Vec<String> {
    if !client.query_one("select to_regclass('replica_role') is not null", &[]).unwrap().get::<_, bool>(0) {
        return Vec::new();
    }
    let rows = client.query("select role from replica_role where role <> 'moved'", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A session on one of the databases; `side` is 0 for that of DSN0. It may write, as far as the session's own setting goes.
#[track_caller]
pub fn session(pair: &Pair, side: usize) -> Client {
    let mut client = if side == 0 { pair.master() } else { pair.slave() };
    client.batch_execute("set default_transaction_read_only = off").unwrap();
    client
}

/// Statements on one side, in a new session that may write.
#[track_caller]
pub fn run_on(pair: &Pair, side: usize, sql: &str) {
    session(pair, side).batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

/// The fence's error and its hint, which names the database of the other side.
#[track_caller]
pub fn assert_fenced(error: &postgres::Error, master_db: &str) {
    let said = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(said.code().code(), READ_ONLY, "{said:?}");
    assert!(said.message().contains("this database is a slave of pyreplica"), "{said:?}");
    assert!(said.hint().is_some_and(|hint| hint.contains(&format!("dbname={master_db}"))), "{said:?}");
}

/// This side refuses the statement by its fence.
#[track_caller]
pub fn refuses(pair: &Pair, side: usize, sql: &str) {
    let there = if side == 0 { pair.slave_db() } else { pair.master_db() };
    let error = session(pair, side).batch_execute(sql).expect_err(sql);
    assert_fenced(&error, &there);
}

/// Waits until both sides have the same rows and nothing is prepared.
#[track_caller]
pub fn wait_equal(pair: &Pair) {
    wait_until("both sides are equal", || pair.is_equal());
    wait_until("nothing is prepared", || {
        [pair.master(), pair.slave()].iter_mut().all(|client| {
            let prepared = "select from pg_prepared_xacts where database = current_database()";
            client.query(prepared, &[]).unwrap().is_empty()
        })
    });
}

/// Everything about the roles that a refusal must leave as it was. A fence that was made, and is down, changes nothing for anybody.
#[track_caller]
pub fn state(pair: &Pair) -> Vec<String> {
    let mut state = Vec::new();
    for (side, mut client) in [pair.master(), pair.slave()].into_iter().enumerate() {
        let role = "select replica_role::text from replica_role order by 1";
        let role = if roles_table(&mut client) { role } else { "select ''::text limit 0" };
        for query in [
            role,
            "select format('%s %s %s', tgrelid::regclass, tgname, tgenabled) from pg_trigger
              where not tgisinternal and tgenabled <> 'D' and tgname ~ 'fence' order by 1",
            "select gid from pg_prepared_xacts where database = current_database() order by 1",
            "select setconfig::text from pg_db_role_setting join pg_database d on d.oid = setdatabase
              where datname = current_database() order by 1",
            "select count(*)::text from pg_locks l join pg_class c on c.oid = l.relation
              where c.relname !~ '^pg_' and l.mode in ('ShareRowExclusiveLock', 'AccessExclusiveLock')
                and l.database = (select oid from pg_database where datname = current_database())
                and l.pid in (select pid from pg_stat_activity where application_name ~ 'switchover')",
        ] {
            let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{error:?}\n{query}"));
            state.extend(rows.iter().map(|row| format!("{side}: {}", row.get::<_, String>(0))));
        }
    }
    state
}

fn roles_table(client: &mut Client) -> bool {
    client.query_one("select to_regclass('replica_role') is not null", &[]).unwrap().get(0)
}
