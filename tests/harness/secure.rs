//! A server with TLS, and the question whether pyreplica and psql make the same of a connection string.

use super::{Authority, Contents, ORDINARY, OwnCluster, psql};
use pyreplica::for_tests::Dsn;
use pyreplica::for_tests::Error;
use pyreplica::for_tests::Session;
use pyreplica::for_tests::Side;
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
pub struct World {
    pub cluster: OwnCluster,
    pub authority: Authority,
    pub stranger: Authority,
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Encrypted,
    Plain,
    Refused,
}
use Outcome::{Encrypted, Plain, Refused};

pub fn world() -> &'static World {
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

pub fn start_cluster() -> OwnCluster {
    let cluster = OwnCluster::start("tls", "", &[]);
    cluster.write_hba(HBA);
    let mut admin = cluster.server().connect("postgres");
    for role in ROLES {
        admin.batch_execute(&format!("create role {role} login password 'right'")).expect("create role");
    }
    cluster
}

impl World {
    pub fn port(&self) -> u16 {
        self.cluster.server().port()
    }

    /// The server under a name that its certificate carries; nothing is read from the home directory.
    pub fn dsn(&self, more: &str) -> Dsn {
        let text = format!("host=db.test hostaddr=127.0.0.1 port={} user=postgres dbname=postgres {more}", self.port());
        with_defaults(&text)
    }

    pub fn root(&self) -> String {
        self.authority.root().display().to_string()
    }
}

/// A machine may have files in ~/.postgresql; the tests are not about them unless they say so.
pub fn with_defaults(text: &str) -> Dsn {
    ["sslrootcert", "sslcert", "sslkey", "sslcrl"].iter().fold(Dsn::parse(text).unwrap(), |dsn, key| {
        match (dsn.get(key), *key) {
            (Some(_), _) | (None, "sslcrl") => dsn,
            (None, key) => dsn.with(key, "/nonexistent/file"),
        }
    })
}

pub fn connect(dsn: &Dsn) -> Result<Session, Error> {
    pyreplica::for_tests::connect(Side::Master, dsn, "test")
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

pub fn clean_psql() -> Command {
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
pub fn outcome(dsn: &Dsn) -> Outcome {
    let (ours, theirs) = (by_pyreplica(dsn), by_psql(dsn));
    assert_eq!(ours, theirs, "pyreplica and psql differ on {dsn}: {:?}", connect(dsn).err().map(|e| e.to_string()));
    ours
}

#[track_caller]
pub fn refusal(dsn: &Dsn) -> Error {
    assert_eq!(outcome(dsn), Refused, "{dsn}");
    connect(dsn).err().expect("refused")
}

#[track_caller]
pub fn assert_says(error: &Error, detail: &str, hint: &str) {
    assert!(error.detail().contains(detail), "{error}");
    assert!(error.hint().is_some_and(|text| text.contains(hint)), "{error}, hint: {:?}", error.hint());
    assert_eq!(error.side(), Some(Side::Master));
}
