//! Names, values and messages of others move no cursor and begin no line, wherever they are shown; and statements that are shown
//! to be run mean what they say.

use crate::harness::{Database, MailServer, Pair, psql, run, wait_until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// Begins a line, sets a title, clears the screen, turns the order of reading, and ends a line for some.
const HOSTILE: &str = "\nFORGED\r\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{2028}\u{7f}";

#[track_caller]
fn assert_tame(what: &str, text: &str) {
    let is_wild = |c: char| {
        c != '\n' && (c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}'))
    };
    for line in text.lines() {
        // The log begins further lines by a tab, which is not of others.
        let line = line.strip_prefix('\t').unwrap_or(line);
        assert!(!line.contains(is_wild), "{what}: {line:?}\n{text}");
        assert!(!line.trim_start().starts_with("FORGED"), "{what}: {line:?}\n{text}");
    }
    assert!(!text.contains('\r'), "{what}: {text:?}");
}

fn quoted(prefix: &str) -> String {
    format!("\"{prefix}{HOSTILE}\"")
}

/// A table and a column of such names.
fn hostile_pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(&format!(
        "create table {} (id text primary key, {} text); create table {} (a int)",
        quoted("t"),
        quoted("c"),
        quoted("nokey")
    ));
    pair
}

fn insert(pair: &Pair, key: &str) {
    pair.run(&format!("insert into {} values ('{key}{HOSTILE}', 'v{HOSTILE}')", quoted("t")));
}

#[test]
fn no_verb_and_no_log_lets_a_name_a_value_or_a_message_through() {
    let pair = hostile_pair();
    let verb = |words: &[&str]| {
        let finished = pair.verb(words);
        assert_tame(&words.join(" "), &finished.output);
        finished.output
    };
    let installed = run(&pair.dir().join("install.log"), &["install", &pair.master_dsn], &[]).output;
    assert!(installed.contains("FORGED"), "{installed}");
    assert_tame("install", &installed);
    insert(&pair, "a");
    assert!(verb(&["pending"]).contains("FORGED"));
    verb(&["doctor"]);
    verb(&["compare"]);
    let told = pair.try_once().output;
    assert!(told.contains("Executing: INSERT INTO") && told.contains("FORGED"), "{told}");
    assert_tame("the log", &told);
    pair.assert_equal();

    // The slave refuses it in words of its own.
    pair.run_on_slave(&format!(
        "create function no() returns trigger language plpgsql as $f$ begin
             raise exception using message = 'm{HOSTILE}', detail = 'd{HOSTILE}', hint = 'h{HOSTILE}'; end $f$;
         create trigger no before insert on {0} for each row execute function no(); alter table {0} enable always trigger no",
        quoted("t")
    ));
    insert(&pair, "b");
    let told = pair.try_once().output;
    assert!(told.contains("m\\nFORGED"), "{told}");
    assert_tame("the log", &told);
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--prometheus"],
        &["doctor"],
        &["doctor", "--json"],
        &["pending"],
        &["pending", "--json"],
        &["compare"],
        &["compare", "--json"],
        &["repair", "--dry-run"],
        &["retry"],
        &["compare", "--table", "x\n\u{1b}"],
        &["pause", "--table", &quoted("t")],
        &["pending"],
        &["status"],
    ] {
        verb(words);
    }
    pair.once();
    for words in [
        &["pending"][..],
        &["resume", "--table", &quoted("t")],
        &["repair"],
        &["copy", "--table", &quoted("t"), "--truncate"],
    ] {
        verb(words);
    }
    assert_tame("in quarantine", &pair.try_once_by_file("ON_ERROR=quarantine\n").output);
    for words in
        [&["pending"][..], &["retry"], &["status"], &["doctor"], &["skip", "1", "--yes"], &["skip", "2", "--yes"]]
    {
        verb(words);
    }
}

#[test]
fn what_doctor_says_to_run_can_be_run_and_is_about_what_it_says() {
    let pair = hostile_pair();
    pair.create_triggers();
    pair.run_on_slave(&format!("alter table {} drop column {}", quoted("t"), quoted("c")));
    let told = pair.verb(&["doctor", "--brief"]).output;
    assert_tame("doctor", &told);
    let fixes: Vec<&str> = told.lines().filter_map(|line| line.trim_start().strip_prefix("slave=> ")).collect();
    let fix = fixes.iter().find(|fix| fix.contains("ADD COLUMN")).unwrap_or_else(|| panic!("{told}"));
    pair.run_on_slave(fix);
    let columns = pair.on_slave(
        "select attname from pg_attribute where attname ~ '^c' and attnum > 0 and attrelid::regclass::text ~ '^\"t'",
    );
    assert_eq!(columns, [format!("c{HOSTILE}")]);
}

#[test]
fn what_repair_says_to_run_makes_the_slave_equal() {
    let pair = hostile_pair();
    pair.create_triggers();
    let table = quoted("t");
    pair.run(&format!(
        "insert into {table} values ('a{HOSTILE}\\n''\t', 'v\\{HOSTILE}'), ('b', E'\\t\\\\x'), ('c', null)"
    ));
    pair.once();
    pair.run_on_slave(&format!(
        "update {table} set {0} = 'x' where id = 'b'; delete from {table} where id ~ '^a'; insert into {table} values ('d{HOSTILE}', '')",
        quoted("c")
    ));
    // Progress goes to stderr.
    let words = ["repair", "--dry-run", &pair.master_dsn, &pair.slave_dsn];
    let output = Command::new(env!("CARGO_BIN_EXE_pyreplica")).args(words).output().unwrap();
    let script = String::from_utf8(output.stdout).unwrap();
    assert_tame("repair --dry-run", &script);
    let mut child = Command::new(psql())
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &pair.slave_dsn])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    pair.assert_equal();
}

#[test]
fn health_and_mails_are_lines_of_our_own() {
    let pair = hostile_pair();
    pair.create_triggers();
    pair.run_on_slave(&format!(
        "create function no() returns trigger language plpgsql as $f$ begin
             raise exception using message = 'm{HOSTILE}', hint = 'h{HOSTILE}'; end $f$;
         create trigger no before insert on {0} for each row execute function no(); alter table {0} enable always trigger no",
        quoted("t")
    ));
    insert(&pair, "a");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = MailServer::start(pair.dir(), &[]);
    let lines = format!(
        "METRICS=127.0.0.1:{port}\n[SMTP]\nSERVER=127.0.0.1:{}\nFROM_ADDR=a@example.com\nTO_ADDRS=b@example.com\nERROR_SUBJECT=error\n",
        server.port()
    );
    let mut daemon = pair.start_with(&lines);
    daemon.wait_log("Trying again");
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").expect("a body").1.to_string()
    };
    wait_until("the failure is shown", || ask("/health").contains("FORGED"));
    assert_tame("/health", &ask("/health"));
    assert_tame("/metrics", &ask("/metrics"));
    wait_until("a mail has come", || !server.mails().is_empty());
    for mail in server.mails() {
        let body = mail.body.replace("\r\n", "\n");
        assert_tame("a mail", &body);
        assert!(body.contains("FORGED"), "{body}");
    }
    daemon.terminate();
    assert_tame("the log", &daemon.log());
}

/// psql and the binary tell who has lost a right; the name is the role's own choice.
#[test]
fn the_name_of_a_role_forges_no_warning_of_install() {
    let database = Database::new();
    database.install("postgres", "master-install.sql");
    let name = format!("r{}\nFORGED", std::process::id());
    database.run(&format!("create role \"{name}\"; grant select on replica_log to \"{name}\""));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forged-{}.log", std::process::id()));
    let said = run(&log, &["install", &database.server().dsn(&database.name)], &[]);
    database.run(&format!("drop owned by \"{name}\"; drop role \"{name}\""));
    assert!(said.output.contains("is no longer granted to"), "{}", said.output);
    assert_tame("install", &said.output);
}
