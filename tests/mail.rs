//! The operator gets mail, through a real mail server; and a mail server that is away, dumb or unwilling is no
//! concern of replication.

use crate::harness::{self, Certificates, Daemon, Forwarder, MailServer, Pair};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

const TABLE: &str = "create table t (id int primary key, v text)";
const SUBJECTS: &str = "START_SUBJECT=Start\nSTOP_SUBJECT=Stop\nERROR_SUBJECT=Error\nWARNING_SUBJECT=Warning\n";

/// The section for a mail server on this port; the lines may bring other recipients.
fn section(port: u16, lines: &str) -> String {
    let to = if lines.contains("TO_ADDRS=") { "" } else { "TO_ADDRS=dba@example.com\n" };
    format!("[SMTP]\nSERVER=127.0.0.1:{port}\nFROM_ADDR=pyreplica@example.com\n{to}{lines}")
}

fn pair() -> Pair {
    let pair = Pair::new();
    pair.exec_both(TABLE);
    pair.create_triggers();
    pair
}

/// A daemon that replicates, whatever its mails do.
#[track_caller]
fn replicating(pair: &Pair, smtp: &str) -> Daemon {
    let daemon = pair.start_with(smtp);
    pair.run("insert into t values (1, 'one')");
    pair.wait_caught_up();
    pair.assert_equal();
    daemon
}

// == What is mailed ==

#[test]
fn start_and_stop_are_mailed_to_everybody_and_say_which_pair_it_is() {
    let mut pair = pair();
    pair.slave_dsn.push_str(" password=hunter2");
    let server = MailServer::start(pair.dir(), &[]);
    let lines = "START_SUBJECT=[PyReplica] Starting\nSTOP_SUBJECT=Réplica détenue ✓\nTO_ADDRS=dba@example.com;Host Master <hostmaster@example.com>;root\n";
    let mut daemon = replicating(&pair, &section(server.port(), lines));
    assert!(daemon.terminate().success());

    // The daemon ends after its mail server has taken the last mail.
    assert_eq!(server.subjects(), ["[PyReplica] Starting", "Réplica détenue ✓"]);
    for mail in server.mails() {
        assert_eq!(mail.all("to"), ["dba@example.com", "hostmaster@example.com", "root@localhost"]);
        assert_eq!(mail.one("from"), "pyreplica@example.com");
        assert_eq!(mail.one("header-auto-submitted"), "auto-generated");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for expected in [format!("pair:     {}\n", pair.name), format!("host:     {host}"), "\ntime:     ".to_string()]
        {
            assert!(mail.body.contains(&expected), "{expected:?} in {}", mail.body);
        }
        assert!(mail.body.contains(&pair.slave_db()) && !mail.body.contains("hunter2"), "{}", mail.body);
    }
}

#[test]
fn an_error_is_mailed_once_however_often_it_is_tried_and_once_more_when_it_is_over() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    let mut daemon = replicating(&pair, &section(server.port(), "ERROR_SUBJECT=Error\n"));
    pair.run_on_slave("insert into t values (7, 'in the way')");
    pair.run("insert into t values (7, 'seven')");
    daemon.wait_log_times("Trying again", 4);
    pair.run_on_slave("delete from t where id = 7");
    pair.wait_caught_up();
    let over = server.wait_for("Error (over)");
    daemon.terminate();

    assert_eq!(server.subjects(), ["Error", "Error (over)"]);
    let error = &server.mails()[0].body;
    for expected in ["what:     slave: cannot replay change ", "INSERT INTO \"t\"", "why:      ", "to do:    "] {
        assert!(error.contains(expected), "{expected:?} in {error}");
    }
    assert!(error.contains("\nchange:   ") && error.contains(" of transaction "), "{error}");
    let failed = over.body.lines().find_map(|line| line.strip_prefix("failed:   ")).unwrap();
    let times: u32 = failed.split(' ').next().unwrap().parse().unwrap();
    assert!(times >= 4, "{failed}");
}

#[test]
fn a_server_that_is_down_is_mailed_and_so_is_its_return() {
    let mut pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    let slave = Forwarder::to(pair.slave_server().port());
    pair.slave_dsn = harness::Server::dsn_at(slave.port(), &pair.slave_db());
    let mut daemon = replicating(&pair, &section(server.port(), SUBJECTS));
    slave.refuse();
    pair.run("insert into t values (2, 'two')");
    daemon.wait_log_times("Trying again", 2);
    slave.accept_again();
    server.wait_for("Error (over)");
    pair.wait_caught_up();
    daemon.terminate();
    let mails = server.mails();
    assert!(mails.iter().any(|mail| mail.subject() == "Error" && mail.body.contains("what:     slave: ")), "{mails:?}");
}

#[test]
fn conflicts_are_collected_into_one_warning() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    pair.run("insert into t select i, 'old' from generate_series(1, 20) i");
    let mut daemon = replicating_from(&pair, &section(server.port(), SUBJECTS));
    pair.run_on_slave("update t set v = 'changed by somebody else'");
    pair.run("update t set v = 'new'");
    pair.wait_caught_up();
    let warning = server.wait_for("Warning");
    daemon.terminate();
    assert_eq!(server.subjects(), ["Start", "Warning", "Stop"]);
    assert!(warning.body.contains("what:     20 warnings"), "{}", warning.body);
    assert_eq!(warning.body.matches("Possible conflict").count(), 10);
    assert!(warning.body.contains("10 more, see the log"), "{}", warning.body);
}

#[track_caller]
fn replicating_from(pair: &Pair, smtp: &str) -> Daemon {
    let daemon = pair.start_with(smtp);
    pair.wait_caught_up();
    daemon
}

#[test]
fn a_log_that_has_grown_too_large_is_mailed() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    pair.run("select py_log_add_slave('slave2')");
    pair.run("insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 5000) i");
    let _daemon = pair.start_with(&format!("LOG_WARNING=1\n{}", section(server.port(), SUBJECTS)));
    let warning = server.wait_for("Warning");
    assert!(warning.body.contains("replica_log has grown to"), "{}", warning.body);
    assert!(!warning.body.contains("who else changes the slave"), "{}", warning.body);
}

#[test]
fn what_has_no_subject_is_not_mailed() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    let mut daemon = replicating(&pair, &section(server.port(), "START_SUBJECT=\nERROR_SUBJECT=Error\n"));
    daemon.terminate();
    assert_eq!(server.subjects(), [""; 0]);
}

#[test]
fn a_single_drain_sends_no_mail() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    pair.run("insert into t values (1, 'one')");
    let finished = pair.try_once_by_file(&section(server.port(), SUBJECTS));
    assert_eq!(finished.code(), 0, "{}", finished.output);
    assert_eq!(server.subjects(), [""; 0]);
}

// == Mail servers that want something ==

#[test]
fn a_login_is_made() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &["--login", "joe", "secret"]);
    let lines = format!("{SUBJECTS}USERNAME=joe\nPASSWORD=secret\n");
    let mut daemon = replicating(&pair, &section(server.port(), &lines));
    daemon.terminate();
    assert_eq!(server.subjects(), ["Start", "Stop"]);
    assert_eq!(server.mails()[0].one("login"), "joe");
}

#[test]
fn a_refused_login_is_logged_and_not_repeated_and_replication_goes_on() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &["--login", "joe", "secret"]);
    let lines = format!("{SUBJECTS}USERNAME=joe\nPASSWORD=hunter2\n");
    let mut daemon = replicating(&pair, &section(server.port(), &lines));
    daemon.wait_log("mail \"Start\" refused, and not tried again: permanent error (535)");
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("hunter2"));
    assert_eq!(server.subjects(), [""; 0]);
}

#[test]
fn a_recipient_whom_the_server_refuses_does_not_keep_the_mail_from_the_others() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &["--refuse", "gone@example.com"]);
    let lines = "START_SUBJECT=Start\nTO_ADDRS=dba@example.com;gone@example.com;boss@example.com\n";
    let mut daemon = replicating(&pair, &section(server.port(), lines));
    daemon.wait_log("mail \"Start\" refused for gone@example.com: permanent error (550)");
    daemon.terminate();
    let mails = server.mails();
    let to: Vec<&str> = mails.iter().flat_map(|mail| mail.all("to")).collect();
    assert_eq!(to, ["dba@example.com", "boss@example.com"]);
}

// == Encryption ==

/// Starts a daemon with these lines against a server with one of the certificates; the start mail's `tls`, if it came.
#[track_caller]
fn start_mail_over(
    certificate: &str,
    options: &[&str],
    lines: impl Fn(&Certificates) -> String,
) -> (Option<String>, String) {
    let pair = pair();
    let certificates = Certificates::make(pair.dir());
    let (file, key) =
        (certificates.path(&format!("{certificate}.pem")), certificates.path(&format!("{certificate}.key")));
    let server = MailServer::start(pair.dir(), &[&["--cert", &file, &key], options].concat());
    let lines = format!("START_SUBJECT=Start\n{}\n", lines(&certificates));
    let mut daemon = replicating(&pair, &section(server.port(), &lines));
    daemon.wait_log("\"Start\"");
    daemon.terminate();
    (server.mails().first().map(|mail| mail.one("tls").to_string()), daemon.log())
}

#[test]
fn starttls_is_trusted_by_the_authority_that_the_config_names() {
    let lines = |c: &Certificates| format!("SECURITY=starttls\nCA_FILE={}", c.path("ca.pem"));
    let (tls, log) = start_mail_over("server", &[], lines);
    assert_eq!(tls.as_deref(), Some("yes"), "{log}");
}

#[test]
fn a_certificate_that_signed_itself_can_be_named() {
    let lines = |c: &Certificates| format!("SECURITY=starttls\nCA_FILE={}", c.path("self.pem"));
    let (tls, log) = start_mail_over("self", &[], lines);
    assert_eq!(tls.as_deref(), Some("yes"), "{log}");
}

#[test]
fn a_login_goes_through_tls_from_the_first_byte() {
    let lines = |c: &Certificates| format!("SECURITY=tls\nCA_FILE={}\nUSERNAME=joe\nPASSWORD=secret", c.path("ca.pem"));
    let (tls, log) = start_mail_over("server", &["--tls", "--login", "joe", "secret"], lines);
    assert_eq!(tls.as_deref(), Some("yes"), "{log}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_gets_no_mail_and_no_login() {
    let lines = |_: &Certificates| "SECURITY=starttls\nUSERNAME=joe\nPASSWORD=secret".to_string();
    let (tls, log) = start_mail_over("self", &["--login", "joe", "secret"], lines);
    assert_eq!(tls, None);
    assert!(log.contains("cannot send mail \"Start\"") && log.contains("hint: CA_FILE"), "{log}");
}

#[test]
fn on_this_machine_any_certificate_will_do_by_default() {
    let (tls, log) = start_mail_over("self", &[], |_| String::new());
    assert_eq!(tls.as_deref(), Some("yes"), "{log}");
}

#[test]
fn none_means_none() {
    let (tls, log) = start_mail_over("server", &[], |_| "SECURITY=none".to_string());
    assert_eq!(tls.as_deref(), Some("no"), "{log}");
}

#[test]
fn a_server_without_starttls_gets_no_mail_when_it_is_asked_for() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    let mut daemon = replicating(&pair, &section(server.port(), "START_SUBJECT=Start\nSECURITY=starttls\n"));
    daemon.wait_log("cannot send mail \"Start\"");
    daemon.terminate();
    assert_eq!(server.subjects(), [""; 0]);
}

// == Mail servers that are no help ==

#[test]
fn a_mail_waits_for_a_server_that_is_away() {
    let pair = pair();
    let server = MailServer::start(pair.dir(), &[]);
    let network = Forwarder::to(server.port());
    network.refuse();
    let mut daemon = replicating(&pair, &section(network.port(), "START_SUBJECT=Start\n"));
    daemon.wait_log_times("cannot send mail \"Start\"", 2);
    network.accept_again();
    server.wait_for("Start");
    daemon.terminate();
    assert_eq!(server.subjects(), ["Start"]);
}

#[test]
fn where_nobody_listens_replication_and_its_end_go_on() {
    let pair = pair();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut daemon = replicating(&pair, &section(free, SUBJECTS));
    daemon.wait_log("cannot send mail \"Start\": Connection error");
    assert!(daemon.terminate().success());
    assert!(daemon.log().contains("mails not sent: "), "{}", daemon.log());
}

#[test]
fn a_server_that_never_answers_delays_neither_replication_nor_its_end() {
    let pair = pair();
    // The kernel takes the connection; nobody ever says a word.
    let dumb = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut daemon = replicating(&pair, &section(dumb.local_addr().unwrap().port(), SUBJECTS));
    let (_client, _) = dumb.accept().unwrap();
    pair.run("insert into t values (2, 'two')");
    pair.wait_caught_up();
    pair.assert_equal();
    assert!(daemon.terminate().success());
    assert!(daemon.log().contains("the mail server did not take all mails in time"), "{}", daemon.log());
}

// == Somebody between ==

/// A server that answers EHLO, and the lines that were sent to it.
fn server_that_offers(offer: &'static str) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, said) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut lines = BufReader::new(client.try_clone().unwrap());
            let mut client = client;
            let mut answer = "220 hello\r\n";
            loop {
                let mut line = Vec::new();
                if client.write_all(answer.as_bytes()).is_err()
                    || !matches!(lines.read_until(b'\n', &mut line), Ok(1..))
                {
                    break;
                }
                answer = if line.starts_with(b"EHLO") { offer } else { "250 ok\r\n" };
                sender.send(String::from_utf8_lossy(&line).into_owned()).unwrap();
            }
        }
    });
    (port, said)
}

#[test]
fn lines_behind_the_answer_to_starttls_are_not_taken_for_answers() {
    // All that a server would say until it has taken the mail.
    let added = "250-x\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye";
    let lines = |c: &Certificates| format!("SECURITY=starttls\nCA_FILE={}", c.path("ca.pem"));
    let (tls, log) = start_mail_over("server", &["--add-to-starttls", added], lines);
    assert_eq!(tls, None, "{log}");
    assert!(log.contains("cannot send mail \"Start\"") && log.contains("hint: after STARTTLS"), "{log}");
}

#[test]
fn without_the_offer_of_starttls_no_login_is_sent() {
    let (port, said) = server_that_offers("250-x\r\n250 AUTH PLAIN\r\n");
    let pair = pair();
    let lines = "START_SUBJECT=Start\nSECURITY=starttls\nUSERNAME=u\nPASSWORD=S3cr3t\n";
    let mut daemon = replicating(&pair, &section(port, lines));
    daemon.wait_log("STARTTLS is not supported on this server");
    daemon.wait_log("hint: if the server has TLS");
    daemon.terminate();
    let said: String = said.try_iter().collect();
    assert!(said.contains("EHLO") && !said.contains("AUTH") && !said.contains("MAIL"), "{said}");
}

#[test]
fn doctor_sends_a_test_mail_and_says_what_the_server_answered() {
    let pair = Pair::new().with_a_table();
    let server = MailServer::start(pair.dir(), &[]);
    let section = |port: u16| {
        format!(
            "[SMTP]\nSERVER=127.0.0.1:{port}\nSECURITY=auto\nFROM_ADDR=pyreplica@example.com\nTO_ADDRS=ops@example.com\n"
        )
    };
    let said = pair.verb_by_file("doctor", &section(server.port()), &["--mail"]).output;
    assert!(said.contains("a test mail was sent to ops@example.com"), "{said}");
    server.wait_for(&format!("pyreplica: a test mail of {}", pair.name));
    // The discard port: nothing listens there.
    let said = pair.verb_by_file("doctor", &section(9), &["--mail"]).output;
    assert!(said.contains("cannot send a mail by 127.0.0.1:9"), "{said}");
}
