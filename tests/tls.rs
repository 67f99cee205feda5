//! A connection string means to pyreplica what it means to psql: each test lets both try it and compares who gets in,
//! and whether with TLS.

use crate::harness::secure::Outcome::{Encrypted, Plain, Refused};
use crate::harness::secure::{Outcome, assert_says, connect, outcome, refusal, start_cluster, with_defaults, world};
use crate::harness::{Authority, Certificate, Contents, Forwarder, ORDINARY, Pair, restrict, shared, wait_until};
use pyreplica::for_tests::Dsn;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

// == Modes ==

#[test]
fn every_mode_with_every_root_name_and_rule_of_the_server_ends_as_with_psql() {
    let world = world();
    let roots = [world.root(), world.stranger.root().display().to_string(), "/nonexistent/root.crt".into()];
    let mut seen = [0; 3];
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        for root in &roots {
            // The name matters to the last mode alone.
            let hosts = if mode == "verify-full" { &["db.test", "other.test"][..] } else { &["other.test"] };
            for host in hosts {
                for user in ["postgres", "tls_only", "plain_only"] {
                    let dsn = world.dsn(&format!("sslmode={mode} sslrootcert={root} host={host} user={user}"));
                    seen[outcome(&dsn) as usize] += 1;
                }
            }
        }
    }
    // The three ends are all there, so the comparison means something.
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

#[test]
fn the_default_is_to_prefer_tls() {
    assert_eq!(outcome(&world().dsn("")), Encrypted);
}

#[test]
fn a_server_without_tls_is_good_enough_for_the_lenient_modes_only() {
    let (server, _) = shared();
    let dsn = |mode: &str| {
        with_defaults(&format!("{} sslmode={mode} sslrootcert={}", server.dsn("postgres"), world().root()))
    };
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(outcome(&dsn(mode)), Plain, "{mode}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_says(&refusal(&dsn(mode)), "does not offer TLS", "ssl = on");
    }
}

#[test]
fn names_are_compared_with_wildcards_and_addresses() {
    let world = world();
    let full = |host: &str| world.dsn(&format!("sslmode=verify-full sslrootcert={} host={host}", world.root()));
    for host in ["db.test", "DB.Test", "a.wild.test", "127.0.0.1"] {
        assert_eq!(outcome(&full(host)), Encrypted, "{host}");
    }
    for host in ["wild.test", "a.b.wild.test", "ignored", "localhost", "127.0.0.2"] {
        assert_eq!(outcome(&full(host)), Refused, "{host}");
    }
    assert_says(
        &refusal(&full("other.test")),
        "is for db.test, *.wild.test, 127.0.0.1, CN=ignored, not for other.test",
        "host=",
    );
}

#[test]
fn an_unknown_authority_is_named_as_such_and_a_missing_root_file_too() {
    let world = world();
    let strange = world.dsn(&format!("sslmode=verify-ca sslrootcert={}", world.stranger.root().display()));
    assert_says(&refusal(&strange), "not signed by a CA that is trusted here", "sslrootcert");
    let missing = refusal(&world.dsn("sslmode=verify-full sslrootcert=/nonexistent/root.crt"));
    assert!(missing.detail().contains("/nonexistent/root.crt does not exist"), "{missing}");
    let garbage = world.authority.file("garbage.crt");
    std::fs::write(&garbage, "no certificate\n").unwrap();
    let garbage = refusal(&world.dsn(&format!("sslmode=require sslrootcert={}", garbage.display())));
    assert!(garbage.detail().contains("holds no certificate"), "{garbage}");
}

#[test]
fn a_socket_needs_no_tls_in_any_mode() {
    let world = world();
    let directory = world.cluster.server().dir().display().to_string();
    let dsn = with_defaults(&format!(
        "host={directory} port={} user=postgres dbname=postgres sslmode=verify-full",
        world.port()
    ));
    assert_eq!(outcome(&dsn), Plain);
    assert_cancels(&dsn);
    let nowhere = refusal(&dsn.with("port", "1"));
    assert!(nowhere.detail().contains("error connecting to server: No such file"), "{nowhere}");
}

/// PostgreSQL 17 and later: both sides name the protocol, so that no server of another one takes the place of PostgreSQL.
#[test]
fn tls_from_the_first_byte_needs_a_server_that_agrees_to_the_protocol() {
    let world = world();
    let (file, key) = (world.authority.file("server.crt"), world.authority.file("server.key"));
    for (protocols, says) in [(vec!["postgresql"], "speaking postgresql"), (vec![], "TLS from the first byte")] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/direct.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(&file).arg(&key).args(protocols).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().expect("python3 starts");
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let dsn = world.dsn(&format!("sslmode=verify-full sslrootcert={} sslnegotiation=direct", world.root()));
        let error = connect(&dsn.with("port", port.trim())).err().unwrap();
        assert!(error.detail().contains(says), "{error}");
        drop(server.stdin.take());
        server.wait().unwrap();
    }
}

#[test]
fn protocol_bounds_that_the_server_keeps_are_no_hindrance() {
    let world = world();
    for bound in
        ["ssl_min_protocol_version=TLSv1.3", "ssl_max_protocol_version=TLSv1.2", "ssl_min_protocol_version=TLSv1"]
    {
        assert_eq!(outcome(&world.dsn(&format!("sslmode=require {bound}"))), Encrypted, "{bound}");
    }
    let crossed = "sslmode=require ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2";
    assert!(refusal(&world.dsn(crossed)).detail().contains("is above"));
}

// == Certificates of the server ==

#[test]
fn certificates_of_every_make_are_judged_as_psql_judges_them() {
    let authority = Authority::new("makes");
    let named = Contents { names: "DNS:db.test", ..ORDINARY };
    let intermediate = authority.issue("between", "between", Contents { is_authority: true, ..ORDINARY });
    let end = authority.issue_by("between", "end", "db.test", named);
    let makes: [(Certificate, PathBuf, Outcome); 7] = [
        (authority.issue("common", "db.test", ORDINARY), authority.root(), Encrypted),
        (authority.issue("wrong", "db.test", Contents { names: "DNS:x.test", ..ORDINARY }), authority.root(), Refused),
        // Over within this second. Newer versions of openssl make none that is over before it begins.
        (authority.issue("expired", "db.test", Contents { days: 0, ..named }), authority.root(), Refused),
        // As the manual makes it: a CA by default, and its own root on the clients.
        (authority.self_signed("own", "db.test", ORDINARY), authority.file("own.crt"), Encrypted),
        (authority.self_signed("alien", "db.test", ORDINARY), authority.root(), Refused),
        (end.with_chain(&[&intermediate]), authority.root(), Encrypted),
        (end, authority.root(), Refused),
    ];
    let mut cluster = start_cluster();
    for (certificate, root, expected) in makes {
        cluster.use_certificate(&certificate, &authority.root());
        for mode in ["prefer", "require", "verify-ca", "verify-full"] {
            let dsn = with_defaults(&format!(
                "host=db.test hostaddr=127.0.0.1 port={} user=tls_only dbname=postgres sslmode={mode} sslrootcert={}",
                cluster.server().port(),
                root.display()
            ));
            let outcome = outcome(&dsn);
            assert!(mode != "verify-full" || outcome == expected, "{outcome:?} with {}", certificate.file.display());
            if mode == "verify-ca" && certificate.file.ends_with("expired.crt") {
                assert_says(&connect(&dsn).err().unwrap(), "has expired", "renew");
            }
        }
    }
}

#[test]
fn a_ca_that_is_constrained_to_a_domain_speaks_for_no_other_host() {
    const ELSEWHERE: Contents = Contents { is_authority: true, constraints: "permitted;DNS:example.test", ..ORDINARY };
    let authority = Authority::new("constrained");
    let by_dns = Contents { names: "DNS:db.test", ..ORDINARY };
    let between = authority.issue("between", "between", ELSEWHERE);
    let below = authority.issue_by("between", "below", "below", Contents { is_authority: true, ..ORDINARY });
    authority.self_signed("narrow", "narrow", ELSEWHERE);
    let here = Contents { constraints: "permitted;DNS:db.test", ..ELSEWHERE };
    let rightly = authority.issue("rightly", "rightly", here);
    let issue = |issuer, label, contents| authority.issue_by(issuer, label, "db.test", contents);
    let makes: [(Certificate, PathBuf, Outcome); 7] = [
        (issue("between", "common", ORDINARY).with_chain(&[&between]), authority.root(), Refused),
        (issue("between", "dns", by_dns).with_chain(&[&between]), authority.root(), Refused),
        (
            issue("between", "other", Contents { names: "email:a@db.test", ..ORDINARY }).with_chain(&[&between]),
            authority.root(),
            Refused,
        ),
        (issue("below", "deep", ORDINARY).with_chain(&[&below, &between]), authority.root(), Refused),
        (issue("narrow", "under", ORDINARY), authority.file("narrow.crt"), Refused),
        (issue("rightly", "right", by_dns).with_chain(&[&rightly]), authority.root(), Encrypted),
        // Somebody else's constraints among the roots mean nothing for this certificate.
        (issue("root", "free", ORDINARY), authority.file("both.crt"), Encrypted),
    ];
    let both: Vec<String> = [authority.root(), authority.file("narrow.crt")]
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    std::fs::write(authority.file("both.crt"), both.concat()).unwrap();
    let mut cluster = start_cluster();
    for (certificate, root, expected) in makes {
        cluster.use_certificate(&certificate, &authority.root());
        let dsn = with_defaults(&format!(
            "host=db.test hostaddr=127.0.0.1 port={} user=tls_only dbname=postgres sslmode=verify-full sslrootcert={}",
            cluster.server().port(),
            root.display()
        ));
        assert_eq!(outcome(&dsn), expected, "{}", certificate.file.display());
        if certificate.file.ends_with("common.chain.crt") {
            assert_says(&refusal(&dsn), "only by its CN", "alternative name");
        }
    }
}

#[test]
fn a_revoked_certificate_is_refused() {
    let world = world();
    let server = Certificate { file: world.authority.file("server.crt"), key: world.authority.file("server.key") };
    let list = world.authority.revoke(&server);
    let dsn = world.dsn(&format!("sslmode=verify-ca sslrootcert={} sslcrl={}", world.root(), list.display()));
    assert_says(&refusal(&dsn), "revoked", "new one");
    let gone = connect(&dsn.with("sslcrl", "/nonexistent/list")).err().unwrap();
    assert!(gone.detail().contains("/nonexistent/list"), "{gone}");
}

// == Certificates of the client ==

#[test]
fn a_server_that_asks_for_a_client_certificate_gets_the_right_one() {
    let world = world();
    let with = |user: &str, certificate: &Certificate| {
        let (file, key) = (certificate.file.display(), certificate.key.display());
        world.dsn(&format!("user={user} sslmode=require sslcert={file} sslkey={key}"))
    };
    let right = world.authority.issue("client", "with_cert", ORDINARY);
    assert_eq!(outcome(&with("with_cert", &right)), Encrypted);
    assert_eq!(outcome(&with("by_cert", &world.authority.issue("login", "by_cert", ORDINARY))), Encrypted);
    assert_says(&refusal(&world.dsn("user=with_cert sslmode=require")), "client certificate", "sslcert=");
    let other = world.authority.issue("other_client", "somebody", ORDINARY);
    assert_eq!(outcome(&with("with_cert", &other)), Refused);
    let strange = world.stranger.issue("client", "with_cert", ORDINARY);
    assert_says(&refusal(&with("with_cert", &strange)), "refuses the client certificate", "ssl_ca_file");
    let mixed = Certificate { file: right.file.clone(), key: other.key };
    assert!(refusal(&with("with_cert", &mixed)).detail().contains("cannot be used"));
}

#[test]
fn a_key_that_others_can_read_is_missing_or_encrypted_is_refused() {
    let world = world();
    let client = world.authority.issue("careless", "with_cert", ORDINARY);
    let with = |key: &Path| {
        let (file, key) = (client.file.display(), key.display());
        world.dsn(&format!("user=with_cert sslmode=require sslcert={file} sslkey={key}"))
    };
    let encrypted = world.authority.encrypted_key(&client);
    assert!(refusal(&with(&encrypted)).detail().contains("is encrypted"));
    assert!(refusal(&with(Path::new("/nonexistent/key"))).detail().contains("cannot be opened"));
    restrict(&client.key, 0o644);
    assert!(refusal(&with(&client.key)).detail().contains("group or world access"));
    restrict(&client.key, 0o600);
    assert_eq!(outcome(&with(&client.key)), Encrypted);
}

// == Logins ==

#[test]
fn a_login_can_be_bound_to_the_channel() {
    let world = world();
    let dsn = |more: &str| world.dsn(&format!("user=with_scram {more}"));
    for binding in ["disable", "prefer", "require"] {
        assert_eq!(outcome(&dsn(&format!("password=right channel_binding={binding}"))), Encrypted, "{binding}");
        assert_eq!(outcome(&dsn(&format!("password=wrong channel_binding={binding}"))), Refused, "{binding}");
    }
    let unbound = refusal(&world.dsn("user=tls_only channel_binding=require"));
    assert_says(&unbound, "not bound to the TLS channel", "scram-sha-256");
    assert_eq!(outcome(&world.dsn("sslmode=disable channel_binding=require")), Refused);
    assert_says(&refusal(&dsn("sslmode=require")), "asks for a password", "pgpass");
}

// == Cancel requests ==

const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn a_cancel_request_is_as_encrypted_as_its_session() {
    let world = world();
    let forwarder = Forwarder::to(world.port());
    let root = world.root();
    let dsn = world.dsn(&format!("sslmode=verify-full sslrootcert={root} port={}", forwarder.port()));
    assert_cancels(&dsn);
    let greetings = forwarder.greetings();
    assert!(greetings.len() >= 2 && greetings.iter().all(|greeting| *greeting == TLS_REQUEST), "{greetings:?}");
}

#[track_caller]
fn assert_cancels(dsn: &Dsn) {
    let mut session = connect(dsn).unwrap();
    let cancel = session.canceller();
    let waiting = std::thread::spawn(move || session.text_rows("wait", "select pg_sleep(600)").unwrap_err());
    wait_until("the statement is cancelled", || {
        cancel();
        waiting.is_finished()
    });
    assert_eq!(waiting.join().unwrap().code(), Some("57014"));
}

#[test]
fn a_pair_is_replicated_over_tls() {
    let server = world().cluster.server();
    let mut pair = Pair::on(server, server);
    let secure = |dsn: &str| {
        let place = format!("host=db.test hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", world().root());
        dsn.replace("host=127.0.0.1", &place)
    };
    (pair.master_dsn, pair.slave_dsn) = (secure(&pair.master_dsn), secure(&pair.slave_dsn));
    pair.exec_both("create table t (id int primary key)");
    pair.create_triggers();
    let mut daemon = pair.start();
    pair.run("insert into t select generate_series(1, 1000)");
    pair.wait_caught_up();
    pair.assert_equal();
    let sessions = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
                    where application_name like 'pyreplica%' and application_name <> 'pyreplica test' \
                      and datname = current_database()";
    assert_eq!((pair.on_master(sessions), pair.on_slave(sessions)), (vec!["t".into()], vec!["t".into()]));
    assert!(daemon.terminate().success());
}
