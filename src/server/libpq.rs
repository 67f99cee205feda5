//! Completes a connection string as libpq does: from service files, the environment, `~/.pgpass` and defaults.

mod account;
mod pgpass;
mod service;

use crate::base::error::{Error, Kind, Result};
use crate::config::dsn::Dsn;
use account::Account;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// The environment variables of libpq and their keywords, in the order of libpq's table. PGAPPNAME and PGCLIENTENCODING
/// are left out, because pyreplica sets those two itself.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGPASSFILE", "passfile"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLSNI", "sslsni"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ("PGMAXPROTOCOLVERSION", "max_protocol_version"),
];

const DEFAULT_PORT: &str = "5432";

/// The socket directory of Debian's servers, and the default of PostgreSQL itself.
#[cfg(unix)]
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Fills in host, port, user, database and password. Returns one complete connection string for each host, in the order
/// in which they should be tried.
pub fn complete(dsn: &Dsn) -> Result<Vec<Dsn>> {
    complete_in(dsn, &Environment::of_this_process())
}

/// The path of a file that libpq looks for in the user's home directory, e.g. `root.crt`. None without a home
/// directory.
pub fn user_file(name: &str) -> Option<PathBuf> {
    let home = Account::of_this_process().home?;
    let directory = if cfg!(windows) { "postgresql" } else { ".postgresql" };
    Some(home.join(directory).join(name))
}

type Lookup = Box<dyn Fn(&str) -> Option<String>>;

/// What a connection string is completed from. Tests replace it.
struct Environment {
    variable: Lookup,
    os_user: Option<String>,
    home: Option<PathBuf>,
    default_host: &'static str,
}

impl Environment {
    fn of_this_process() -> Self {
        let account = Account::of_this_process();
        Environment {
            variable: Box::new(|name| std::env::var(name).ok()),
            os_user: account.user,
            home: account.home,
            default_host: default_host(),
        }
    }
}

fn complete_in(dsn: &Dsn, environment: &Environment) -> Result<Vec<Dsn>> {
    let mut full = fill_from_service(dsn.clone(), environment)?;
    // As in libpq, a keyword with an empty value still takes precedence over the variable.
    for (variable, key) in VARIABLES {
        if let Some(value) = (environment.variable)(variable).filter(|_| full.get(key).is_none()) {
            full = full.with(key, value);
        }
    }
    if full.get("sslmode").is_none() && (environment.variable)("PGREQUIRESSL").is_some_and(|v| v.starts_with('1')) {
        full = full.with("sslmode", "require");
    }
    if is_missing(&full, "user") {
        let user = environment.os_user.as_deref().ok_or_else(|| {
            Error::new(Kind::Config, None, "choose a database user", "the operating system has no name for this user")
                .with_hint("add user=... to the connection string, or set PGUSER")
        })?;
        full = full.with("user", user);
    }
    if is_missing(&full, "dbname") {
        let user = full.get("user").unwrap_or_default().to_string();
        full = full.with("dbname", user);
    }
    let hosts = split_hosts(&full, environment.default_host)?;
    Ok(hosts.into_iter().map(|host| with_stored_password(host, environment)).collect())
}

fn fill_from_service(dsn: Dsn, environment: &Environment) -> Result<Dsn> {
    let given = |key: &str, variable: &str| {
        dsn.get(key).map(str::to_string).or_else(|| (environment.variable)(variable)).filter(|v| !v.is_empty())
    };
    let Some(name) = given("service", "PGSERVICE") else { return Ok(dsn) };
    let files = service::Files {
        named: given("servicefile", "PGSERVICEFILE").map(PathBuf::from),
        user: environment.home.as_deref().map(|home| home.join(".pg_service.conf")),
        system_directory: (environment.variable)("PGSYSCONFDIR").map(PathBuf::from),
    };
    service::fill(dsn, &name, &files)
}

/// Returns one connection string for each host, with its port and its address.
fn split_hosts(dsn: &Dsn, default_host: &str) -> Result<Vec<Dsn>> {
    let list = |key| dsn.get(key).filter(|value| !value.is_empty()).map(|value| value.split(',').collect::<Vec<_>>());
    let (hosts, addresses) = (list("host"), list("hostaddr"));
    let ports = list("port").unwrap_or_else(|| vec![DEFAULT_PORT]);
    let count = hosts.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    let mismatch = |what: &str, found: usize| {
        let detail = format!("{count} hosts are given with {found} {what}");
        Error::new(Kind::Config, None, "complete the connection string", detail)
    };
    if let Some(addresses) = addresses.as_ref().filter(|addresses| addresses.len() != count) {
        return Err(mismatch("addresses (hostaddr)", addresses.len()));
    }
    if ports.len() != 1 && ports.len() != count {
        return Err(mismatch("ports", ports.len()));
    }
    let mut result = Vec::new();
    for index in 0..count {
        let item = |list: &Option<Vec<&str>>| list.as_ref().map_or("", |list| list[index]).to_string();
        let (mut host, address) = (item(&hosts), item(&addresses));
        if host.is_empty() && address.is_empty() {
            host = default_host.into();
        }
        let port = if ports.len() == 1 { ports[0] } else { ports[index] };
        let port = if port.is_empty() { DEFAULT_PORT } else { port };
        let place = [("host", host.as_str()), ("hostaddr", &address), ("port", port)];
        result.push(place.iter().fold(dsn.clone(), |dsn, (key, value)| match *value {
            "" => dsn.without(key),
            value => dsn.with(key, value),
        }));
    }
    if dsn.get("load_balance_hosts") == Some("random") {
        let seed = RandomState::new();
        result.sort_by_cached_key(|dsn| seed.hash_one(dsn.to_conninfo()));
    }
    Ok(result)
}

fn with_stored_password(dsn: Dsn, environment: &Environment) -> Dsn {
    if !is_missing(&dsn, "password") {
        return dsn;
    }
    match password_file(&dsn, environment).and_then(|path| pgpass::look_up(&path, &dsn)) {
        Some(password) => dsn.with("password", password),
        None => dsn,
    }
}

/// An empty value counts as missing, as in libpq.
fn is_missing(dsn: &Dsn, key: &str) -> bool {
    dsn.get(key).is_none_or(str::is_empty)
}

fn password_file(dsn: &Dsn, environment: &Environment) -> Option<PathBuf> {
    match dsn.get("passfile") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => environment.home.as_deref().map(default_password_file),
    }
}

#[cfg(unix)]
fn default_password_file(home: &Path) -> PathBuf {
    home.join(".pgpass")
}

#[cfg(windows)]
fn default_password_file(home: &Path) -> PathBuf {
    home.join("postgresql").join("pgpass.conf")
}

#[cfg(unix)]
fn default_host() -> &'static str {
    let [debian, fallback] = SOCKET_DIRECTORIES;
    if Path::new(debian).is_dir() { debian } else { fallback }
}

#[cfg(windows)]
fn default_host() -> &'static str {
    "localhost"
}

/// Whether a host is a default socket directory. Password files have `localhost` for it.
#[cfg(unix)]
fn is_default_socket(host: &str) -> bool {
    SOCKET_DIRECTORIES.contains(&host.trim_end_matches('/'))
}

#[cfg(windows)]
fn is_default_socket(_host: &str) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    type Variables = &'static [(&'static str, &'static str)];

    fn environment(variables: Variables) -> Environment {
        let find = move |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        Environment { variable: Box::new(find), os_user: Some("joe".into()), home: None, default_host: "/sockets" }
    }

    fn hosts(dsn: &str, variables: Variables) -> Vec<String> {
        let completed = complete_in(&Dsn::parse(dsn).unwrap(), &environment(variables)).unwrap();
        completed.iter().map(Dsn::to_conninfo).collect()
    }

    fn completed(dsn: &str, variables: Variables) -> String {
        let all = hosts(dsn, variables);
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    #[test]
    fn an_empty_string_means_the_local_server_and_the_operating_systems_user() {
        assert_eq!(completed("", &[]), "user=joe dbname=joe host=/sockets port=5432");
    }

    #[test]
    fn the_database_is_named_after_the_user_and_hostaddr_stands_in_for_the_host() {
        assert_eq!(completed("user=ann hostaddr=::1", &[]), "user=ann dbname=ann hostaddr=::1 port=5432");
    }

    #[test]
    fn variables_fill_in_only_what_the_string_leaves_out() {
        let variables = &[("PGHOST", "b"), ("PGPORT", "5433"), ("PGPASSWORD", "p"), ("PGDATABASE", "d")];
        assert_eq!(completed("host=a port=''", variables), "dbname=d password=p user=joe host=a port=5432");
        assert_eq!(completed("user=u", variables), "user=u dbname=d password=p host=b port=5433");
    }

    #[test]
    fn the_old_variable_that_asks_for_tls_is_still_used() {
        let sslmode = |dsn, variables| Dsn::parse(&completed(dsn, variables)).unwrap().get("sslmode").map(String::from);
        assert_eq!(sslmode("", &[("PGREQUIRESSL", "1")]).as_deref(), Some("require"));
        assert_eq!(sslmode("", &[("PGREQUIRESSL", "0")]), None);
        assert_eq!(sslmode("", &[("PGREQUIRESSL", "1"), ("PGSSLMODE", "allow")]).as_deref(), Some("allow"));
    }

    #[test]
    fn each_host_has_its_own_port_and_address() {
        assert_eq!(
            hosts("user=u dbname=d host=a,,c port=1,,3", &[]),
            [
                "user=u dbname=d host=a port=1",
                "user=u dbname=d host=/sockets port=5432",
                "user=u dbname=d host=c port=3"
            ]
        );
        assert_eq!(hosts("user=u dbname=d host=a,b hostaddr=::1,::2 port=7", &[]).len(), 2);
        for dsn in ["host=a,b port=1,2,3", "host=a hostaddr=::1,::2"] {
            let error = complete_in(&Dsn::parse(dsn).unwrap(), &environment(&[])).unwrap_err();
            assert!(error.detail().contains("hosts are given with"), "{error}");
        }
    }

    #[test]
    fn a_random_order_keeps_every_host() {
        let mut all = hosts("user=u dbname=d host=a,b,c load_balance_hosts=random", &[]);
        all.sort();
        let place = |host| format!("user=u dbname=d load_balance_hosts=random host={host} port=5432");
        assert_eq!(all, ["a", "b", "c"].map(place));
    }

    #[test]
    fn an_unknown_service_is_an_error_and_not_ignored() {
        let by_variable: Variables = &[("PGSERVICE", "x"), ("PGSYSCONFDIR", "/nonexistent")];
        for (dsn, variables) in [("service=x", &by_variable[1..]), ("", by_variable)] {
            assert!(complete_in(&Dsn::parse(dsn).unwrap(), &environment(variables)).is_err());
        }
    }

    #[test]
    fn an_unknown_user_is_an_error_with_a_hint() {
        let nobody = Environment { os_user: None, ..environment(&[]) };
        let error = complete_in(&Dsn::default(), &nobody).unwrap_err();
        assert!(error.hint().unwrap().contains("PGUSER"));
    }
}
