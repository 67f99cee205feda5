//! What a connection string leaves out is found where psql finds it: files in the home directory, variables, services.
//! Each test lets both programs try the same and compares who gets in.

use crate::harness::secure::Outcome::{Encrypted, Plain, Refused};
use crate::harness::secure::{assert_says, clean_psql, connect, outcome, with_defaults, world};
use crate::harness::{ORDINARY, Pair, restrict, run, shared};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

// == Files and variables in their usual places ==

/// A home directory with what libpq looks for there, and a pair on the server with TLS.
struct Home {
    pair: Pair,
    path: PathBuf,
}

impl Home {
    fn new() -> Home {
        let server = world().cluster.server();
        let pair = Pair::on(server, server);
        let path = pair.dir().join("home");
        std::fs::create_dir_all(path.join(".postgresql")).unwrap();
        Home { pair, path }
    }

    fn put(&self, name: &str, from: &Path) {
        let to = self.path.join(name);
        std::fs::copy(from, &to).unwrap();
        restrict(&to, 0o600);
    }

    fn write(&self, name: &str, text: &str) -> String {
        let file = self.path.join(name);
        std::fs::write(&file, text).unwrap();
        restrict(&file, 0o600);
        file.display().to_string()
    }

    /// Runs both programs with these variables. For pyreplica both sides are this one string; the slave's database has
    /// no log, so that a run that gets in fails later, on the other side's setup.
    #[track_caller]
    fn outcome(&self, dsn: &str, variables: &[(&str, &str)]) -> (bool, String) {
        let mut environment = vec![("HOME", self.path.to_str().unwrap()), ("PGDATABASE", "postgres")];
        environment.extend(variables);
        let log = self.pair.dir().join("run.log");
        let finished = run(&log, &["--once", dsn, dsn], &environment);
        let refused = ["cannot connect", "cannot set up TLS", "cannot complete", "cannot use "];
        let ours = !refused.iter().any(|text| finished.output.contains(text));
        let mut psql = clean_psql();
        let theirs = psql.args(["-c", "select 1", dsn]).envs(environment.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&theirs.stderr).into_owned();
        assert_eq!(ours, theirs.status.success(), "{dsn} {variables:?}\npyreplica: {}psql: {said}", finished.output);
        (ours, finished.output)
    }

    #[track_caller]
    fn assert_in(&self, dsn: &str, variables: &[(&str, &str)]) {
        let (is_in, output) = self.outcome(dsn, variables);
        assert!(is_in, "{dsn} {variables:?}\n{output}");
    }

    #[track_caller]
    fn assert_out(&self, dsn: &str, variables: &[(&str, &str)], says: &str) {
        let (is_in, output) = self.outcome(dsn, variables);
        assert!(!is_in && output.contains(says), "{dsn} {variables:?}\n{output}");
    }
}

#[test]
fn certificates_are_found_in_the_home_directory() {
    let (home, world) = (Home::new(), world());
    let dsn = format!("host=db.test hostaddr=127.0.0.1 port={}", world.port());
    home.assert_out(&format!("{dsn} user=tls_only sslmode=verify-full"), &[], "root.crt does not exist");
    home.put(".postgresql/root.crt", &world.authority.root());
    home.assert_in(&format!("{dsn} user=tls_only sslmode=verify-full"), &[]);
    home.assert_out(&format!("{dsn} user=with_cert"), &[], "sslcert=");
    let client = world.authority.issue("at_home", "with_cert", ORDINARY);
    home.put(".postgresql/postgresql.crt", &client.file);
    home.assert_out(&format!("{dsn} user=with_cert sslmode=require"), &[], "postgresql.key cannot be opened");
    home.put(".postgresql/postgresql.key", &client.key);
    home.assert_in(&format!("{dsn} user=with_cert sslmode=verify-full"), &[]);
    home.put(".postgresql/root.crt", &world.stranger.root());
    home.assert_out(&format!("{dsn} user=tls_only sslmode=require"), &[], "not signed by a CA");
}

#[test]
fn the_variables_of_libpq_fill_what_a_string_leaves_out() {
    let (home, world) = (Home::new(), world());
    let (port, root) = (world.port().to_string(), world.root());
    let place = [("PGHOST", "db.test"), ("PGHOSTADDR", "127.0.0.1"), ("PGPORT", port.as_str())];
    let with = |more: &[(&'static str, &str)]| -> Vec<(&str, String)> {
        place.iter().chain(more).map(|(name, value)| (*name, value.to_string())).collect()
    };
    let check = |dsn: &str, more: &[(&'static str, &str)], says: Option<&str>| {
        let all = with(more);
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match says {
            None => home.assert_in(dsn, &all),
            Some(says) => home.assert_out(dsn, &all, says),
        }
    };
    let full = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root.as_str()), ("PGUSER", "tls_only")];
    check("user=tls_only", &full, None);
    check("host=other.test", &full, Some("not for other.test"));
    check("sslmode=disable", &full, Some("no pg_hba.conf entry"));
    check("user=with_scram", &[("PGPASSWORD", "right"), ("PGCHANNELBINDING", "require")], None);
    check("user=tls_only", &[("PGCHANNELBINDING", "require")], Some("channel"));
    check("user=with_scram", &[("PGPASSWORD", "wrong")], Some("password"));
    let passwords = home.write("passwords", "*:*:*:with_scram:right\n");
    check("user=with_scram", &[("PGPASSFILE", &passwords)], None);
    let client = world.authority.issue("by_variable", "with_cert", ORDINARY);
    let (file, key) = (client.file.display().to_string(), client.key.display().to_string());
    check("user=with_cert", &[("PGSSLCERT", &file), ("PGSSLKEY", &key)], None);
    check("user=plain_only", &[("PGREQUIRESSL", "1")], Some("no pg_hba.conf entry"));
    check("user=tls_only", &[("PGTARGETSESSIONATTRS", "read-write"), ("PGCONNECT_TIMEOUT", "5")], None);
    let read_only = [("PGTARGETSESSIONATTRS", "read-write"), ("PGOPTIONS", "-c default_transaction_read_only=on")];
    check("user=tls_only", &read_only, Some("does not allow writes"));
}

#[test]
fn a_service_file_says_where_to_connect() {
    let (home, world) = (Home::new(), world());
    let (port, root) = (world.port(), world.root());
    let section = |name: &str, host: &str| {
        format!(
            "[{name}]\nhost={host}\nhostaddr=127.0.0.1\nport={port}\nuser=tls_only\nsslmode=verify-full\nsslrootcert={root}\n"
        )
    };
    home.write(
        ".pg_service.conf",
        &format!("# services\n{}\n{}", section("right", "db.test"), section("wrong", "x.test")),
    );
    home.assert_in("service=right", &[]);
    home.assert_in("postgresql://?service=right", &[]);
    home.assert_in("user=tls_only", &[("PGSERVICE", "right")]);
    home.assert_in("service=wrong sslmode=verify-ca", &[]);
    home.assert_out("service=wrong", &[], "not for x.test");
    home.assert_out("service=neither", &[("PGSYSCONFDIR", "/nonexistent")], "service \"neither\" is not defined");
    let elsewhere = home.write("elsewhere", &section("other", "db.test"));
    home.assert_in("service=other", &[("PGSERVICEFILE", &elsewhere)]);
    home.assert_out("service=right", &[("PGSERVICEFILE", &elsewhere), ("PGSYSCONFDIR", "/nonexistent")], "not defined");
    home.write("pg_service.conf", &section("system", "db.test"));
    home.assert_in("service=system", &[("PGSYSCONFDIR", home.path.to_str().unwrap())]);
}

// == Passwords and hosts ==

#[test]
fn a_password_file_is_read_unless_others_can_read_it_too() {
    let world = world();
    let file = world.authority.file("passwords");
    std::fs::write(&file, "db.test:*:postgres:with_scram:right\n").unwrap();
    restrict(&file, 0o600);
    let dsn = world.dsn(&format!("user=with_scram passfile={}", file.display()));
    assert_eq!(outcome(&dsn), Encrypted);
    restrict(&file, 0o644);
    assert_eq!(outcome(&dsn), Refused);
}

#[test]
fn several_hosts_are_tried_in_turn_but_not_after_a_refused_login() {
    let world = world();
    let (server, _) = shared();
    let silent = 1;
    let two = |ports: String, user: &str| {
        with_defaults(&format!("host=127.0.0.1,127.0.0.1 port={ports} user={user} dbname=postgres sslmode=prefer"))
    };
    assert_eq!(outcome(&two(format!("{silent},{}", world.port()), "tls_only")), Encrypted);
    assert_eq!(outcome(&two(format!("{silent},{}", server.port()), "postgres")), Plain);
    // The second server would let this role in, if it were asked.
    assert_eq!(outcome(&two(format!("{},{}", world.port(), server.port()), "nobody")), Refused);
}

// == Servers that say nothing ==

/// Takes connections and answers the first message of each with `answer` and then with silence.
fn hung_server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut greeting = [0; 8];
            if stream.read_exact(&mut greeting).is_ok() && stream.write_all(answer).is_ok() {
                held.push(stream);
            }
        }
    });
    port
}

#[test]
fn a_server_that_never_answers_is_given_up_at_every_step() {
    let tcp = |answer| format!("host=127.0.0.1 port={} user=u connect_timeout=2", hung_server(answer));
    let directory = world().authority.file("");
    let _socket = UnixListener::bind(directory.join(".s.PGSQL.7")).unwrap();
    let socket = format!("host={} port=7 user=u connect_timeout=2", directory.display());
    // Before TLS, instead of the login, instead of the handshake, and on a socket.
    let steps = [tcp(b""), tcp(b"N"), tcp(b"S"), socket];
    let attempts = steps.map(|dsn| std::thread::spawn(move || connect(&with_defaults(&dsn)).err().unwrap()));
    for attempt in attempts {
        assert_says(&attempt.join().unwrap(), "no answer within 2 s", "connect_timeout");
    }
}

#[test]
fn what_comes_in_the_clear_instead_of_an_answer_or_behind_it_is_not_believed() {
    for answer in [&b"ESFATAL\0C28000\0Mforged\0\0"[..], b"SE\0\0\0\x1bSFATAL\0C28000\0Mforged\0\0"] {
        for mode in ["prefer", "require"] {
            let dsn = format!("host=127.0.0.1 port={} user=u sslmode={mode} connect_timeout=2", hung_server(answer));
            let error = connect(&with_defaults(&dsn)).err().unwrap();
            assert!(!error.detail().contains("forged"), "{error}");
            assert!(answer[0] == b'S' || error.detail().contains("neither yes nor no"), "{error}");
        }
    }
}
