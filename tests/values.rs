//! At DEBUG_LEVEL=1 values of rows are nowhere: not in the log, in no mail, and not in the last error. The statement's kind, its table,
//! the columns that differ and the number of the change are enough to find the row.

use crate::harness::{MailServer, Pair};

/// What no log and no mail may have: a text, a key, and part of a free statement.
const SECRETS: [&str; 3] = ["hunter2", "77001", "77002"];

/// A pair in which one row of the slave differs, and a change cannot be replayed.
fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both("create table t (id int primary key, v text)");
    pair.create_triggers();
    pair.run("insert into t values (77001, 'hunter2 old')");
    pair.once();
    pair.run_on_slave("update t set v = 'hunter2 found'; alter table t add constraint c check (v not like '%bad%')");
    pair.run("update t set v = 'hunter2 new'");
    pair.run("insert into t values (77002, 'hunter2 bad')");
    pair
}

#[track_caller]
fn assert_bare(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} has {secret}: {text}");
    }
}

#[test]
fn neither_the_log_nor_a_mail_nor_the_last_error_has_values_of_rows() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    let smtp = format!(
        "DEBUG_LEVEL=1\n[SMTP]\nSERVER=127.0.0.1:{}\nFROM_ADDR=a@example.com\nTO_ADDRS=b@example.com\nERROR_SUBJECT=Error\n\
         WARNING_SUBJECT=Warning\n",
        server.port()
    );
    let mut daemon = pair.start_with(&smtp);
    daemon.wait_log_times("Trying again", 2);
    let (error, warning) = (server.wait_for("Error").body, server.wait_for("Warning").body);
    daemon.terminate();
    let log = daemon.log();
    assert!(log.contains("Possible conflict (0 rows affected): UPDATE \"t\" (change "), "{log}");
    assert!(log.contains("): other values in \"v\"; the master's values were applied"), "{log}");
    assert!(log.contains(
        " (INSERT INTO \"t\"): new row for relation \"t\" violates check constraint \"c\" (values are left out"
    ));
    assert!(warning.contains("UPDATE \"t\"") && error.contains("check constraint \"c\""), "{warning}{error}");
    let recorded = pair.on_master("select message || hint from replica_error").concat();
    let status = pair.verb_by_file("status", &smtp, &[]).output;
    for (what, text) in [("log", &log), ("mail", &error), ("mail", &warning), ("error", &recorded), ("status", &status)]
    {
        assert_bare(what, text);
    }
    // Who asks for them gets them.
    let pending = pair.verb_by_file("pending", &smtp, &[]).output;
    assert!(pending.contains("hunter2 bad") && pending.contains("Failing row contains (77002"), "{pending}");
}

#[test]
fn a_single_run_and_the_quarantine_tell_no_values_either_and_at_level_2_they_do() {
    let pair = pair();
    pair.run("insert into replica_log (sql) values ('do $$ begin raise exception ''no'' using detail = ''hunter2''; end $$')");
    let failed = pair.try_once_by_file("DEBUG_LEVEL=1");
    assert_eq!(failed.code(), 6);
    assert_bare("output", &failed.output);
    let verbose = pair.try_once_by_file("DEBUG_LEVEL=2").output;
    assert!(verbose.contains("(INSERT INTO \"t\" (\"id\", \"v\") VALUES ('77002', 'hunter2 bad'))"), "{verbose}");
    assert!(verbose.contains("Failing row contains (77002, hunter2 bad)"), "{verbose}");
    let quarantined = pair.try_once_by_file("DEBUG_LEVEL=1\nON_ERROR=quarantine").output;
    assert!(
        quarantined.contains("put into quarantine: ") && quarantined.contains("(do ...): no (values"),
        "{quarantined}"
    );
    assert_bare("output", &quarantined);
    let held = pair.on_slave("select distinct error from replica_held order by 1").concat();
    assert!(held.contains("Failing row contains (77002"), "{held}");
}
