//! A connection string means to pyreplica what it means to psql: each test lets both try it and compares who gets in,
//! and whether with TLS.

mod harness;

use harness::{
    Authority, Certificate, Contents, Forwarder, ORDINARY, OwnCluster, Pair, psql, restrict, run, shared, wait_until,
};
use pyreplica::db::Session;
use pyreplica::dsn::Dsn;
use pyreplica::error::Error;
use pyreplica::names::Side;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SSL: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

const HBA: &str = "\
local   all all          trust
host    all postgres     127.0.0.1/32 trust
hostssl all tls_only     127.0.0.1/32 trust
hostnossl all plain_only 127.0.0.1/32 trust
hostssl all with_cert    127.0.0.1/32 trust clientcert=verify-full
hostssl all by_cert      127.0.0.1/32 cert
hostssl all with_scram   127.0.0.1/32 scram-sha-256
";

const ROLES: [&str; 6] = ["tls_only", "plain_only", "with_cert", "by_cert", "with_scram", "nobody"];

/// One server with TLS, the authority that signed its certificate and those of its clients, and a stranger.
struct World {
    cluster: OwnCluster,
    authority: Authority,
    stranger: Authority,
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Encrypted,
    Plain,
    Refused,
}
use Outcome::{Encrypted, Plain, Refused};

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
        let cluster = start_cluster();
        let world = World { cluster, authority, stranger };
        let names = "DNS:db.test,DNS:*.wild.test,IP:127.0.0.1";
        let certificate = world.authority.issue("server", "ignored", Contents { names, ..ORDINARY });
        let mut world = world;
        world.cluster.use_certificate(&certificate, &world.authority.root());
        world
    })
}

fn start_cluster() -> OwnCluster {
    let cluster = OwnCluster::start("tls", "", &[]);
    cluster.write_hba(HBA);
    let mut admin = cluster.server().connect("postgres");
    for role in ROLES {
        admin.batch_execute(&format!("create role {role} login password 'right'")).expect("create role");
    }
    cluster
}

impl World {
    fn port(&self) -> u16 {
        self.cluster.server().port()
    }

    /// The server under a name that its certificate carries; nothing is read from the home directory.
    fn dsn(&self, more: &str) -> Dsn {
        let text = format!("host=db.test hostaddr=127.0.0.1 port={} user=postgres dbname=postgres {more}", self.port());
        with_defaults(&text)
    }

    fn root(&self) -> String {
        self.authority.root().display().to_string()
    }
}

/// A machine may have files in ~/.postgresql; the tests are not about them unless they say so.
fn with_defaults(text: &str) -> Dsn {
    ["sslrootcert", "sslcert", "sslkey", "sslcrl"].iter().fold(Dsn::parse(text).unwrap(), |dsn, key| {
        match (dsn.get(key), *key) {
            (Some(_), _) | (None, "sslcrl") => dsn,
            (None, key) => dsn.with(key, "/nonexistent/file"),
        }
    })
}

fn connect(dsn: &Dsn) -> Result<Session, Error> {
    Session::connect(Side::Master, dsn, "test", "")
}

fn by_pyreplica(dsn: &Dsn) -> Outcome {
    match connect(dsn) {
        Ok(mut session) => match session.text_rows("ask for TLS", SSL).unwrap()[0][0].as_deref() {
            Some("t") => Encrypted,
            _ => Plain,
        },
        Err(_) => Refused,
    }
}

fn clean_psql() -> Command {
    let mut command = Command::new(psql());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command.args(["-X", "-A", "-t", "-w"]);
    command
}

fn by_psql(dsn: &Dsn) -> Outcome {
    let output = clean_psql().args(["-c", SSL, &dsn.to_conninfo()]).output().expect("psql starts");
    match output.stdout.as_slice() {
        b"t\n" => Encrypted,
        b"f\n" => Plain,
        _ => Refused,
    }
}

/// What both of them make of it.
#[track_caller]
fn outcome(dsn: &Dsn) -> Outcome {
    let (ours, theirs) = (by_pyreplica(dsn), by_psql(dsn));
    assert_eq!(ours, theirs, "pyreplica and psql differ on {dsn}: {:?}", connect(dsn).err().map(|e| e.to_string()));
    ours
}

#[track_caller]
fn refusal(dsn: &Dsn) -> Error {
    assert_eq!(outcome(dsn), Refused, "{dsn}");
    connect(dsn).err().expect("refused")
}

#[track_caller]
fn assert_says(error: &Error, detail: &str, hint: &str) {
    assert!(error.detail().contains(detail), "{error}");
    assert!(error.hint().is_some_and(|text| text.contains(hint)), "{error}, hint: {:?}", error.hint());
    assert_eq!(error.side(), Some(Side::Master));
}

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
    let directory = world.cluster.server().socket_directory().display().to_string();
    let dsn = with_defaults(&format!(
        "host={directory} port={} user=postgres dbname=postgres sslmode=verify-full",
        world.port()
    ));
    assert_eq!(outcome(&dsn), Plain);
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
        (authority.issue("expired", "db.test", Contents { days: -1, ..named }), authority.root(), Refused),
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

// == Cancel requests ==

const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn a_cancel_request_is_as_encrypted_as_its_session() {
    let world = world();
    let forwarder = Forwarder::to(world.port());
    let root = world.root();
    let dsn = world.dsn(&format!("sslmode=verify-full sslrootcert={root} port={}", forwarder.port()));
    let mut session = connect(&dsn).unwrap();
    let cancel = session.canceller();
    let waiting = std::thread::spawn(move || session.text_rows("wait", "select pg_sleep(600)").unwrap_err());
    wait_until("the statement is cancelled", || {
        cancel();
        waiting.is_finished()
    });
    assert_eq!(waiting.join().unwrap().code(), Some("57014"));
    let greetings = forwarder.greetings();
    assert!(greetings.len() >= 2 && greetings.iter().all(|greeting| *greeting == TLS_REQUEST), "{greetings:?}");
}

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
    check("sslmode=disable", &full, Some("no encryption"));
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
    let sessions = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) \
                    where application_name like 'pyreplica%' and application_name <> 'pyreplica test' \
                      and datname = current_database() and not ssl";
    assert_eq!((pair.on_master(sessions), pair.on_slave(sessions)), (vec!["0".into()], vec!["0".into()]));
    assert!(daemon.terminate().success());
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
