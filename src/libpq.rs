//! What a connection string leaves out, found where libpq finds it: environment, `~/.pgpass`, built-in defaults.

mod pgpass;

use crate::dsn::Dsn;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The variables of libpq that fill a keyword, in the order of its own table.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
];

const DEFAULT_PORT: &str = "5432";

/// Where Debian's servers have their sockets, and where PostgreSQL's own default has them.
#[cfg(unix)]
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Fills in host, port, user, database and password, so that the result says all of it.
pub fn complete(dsn: &Dsn) -> Result<Dsn> {
    complete_in(dsn, &Surroundings::of_this_process())
}

type Lookup = Box<dyn Fn(&str) -> Option<String>>;

/// What the completion looks at, so that tests can make it up.
struct Surroundings {
    variable: Lookup,
    os_user: Option<String>,
    home: Option<PathBuf>,
    default_host: &'static str,
}

impl Surroundings {
    fn of_this_process() -> Self {
        let account = Account::of_this_process();
        Surroundings {
            variable: Box::new(|name| std::env::var(name).ok()),
            os_user: account.user,
            home: account.home,
            default_host: default_host(),
        }
    }
}

fn complete_in(dsn: &Dsn, surroundings: &Surroundings) -> Result<Dsn> {
    refuse_service(dsn, surroundings)?;
    let mut full = dsn.clone();
    for (variable, key) in VARIABLES {
        if is_open(&full, key)
            && let Some(value) = (surroundings.variable)(variable)
        {
            full = full.with(key, value);
        }
    }
    if is_open(&full, "host") && is_open(&full, "hostaddr") {
        full = full.with("host", surroundings.default_host);
    }
    if is_open(&full, "port") {
        full = full.with("port", DEFAULT_PORT);
    }
    if is_open(&full, "user") {
        let user = surroundings.os_user.as_deref().ok_or_else(|| {
            Error::new(Kind::Config, None, "choose a database user", "the operating system does not name this one")
                .with_hint("add user=... to the connection string, or set PGUSER")
        })?;
        full = full.with("user", user);
    }
    if is_open(&full, "dbname") {
        let user = full.get("user").unwrap_or_default().to_string();
        full = full.with("dbname", user);
    }
    if is_open(&full, "password")
        && let Some(path) = password_file(&full, surroundings)
        && let Some(password) = pgpass::look_up(&path, &full)
    {
        full = full.with("password", password);
    }
    Ok(full)
}

/// Silently leaving out what a service file says would connect to the wrong server.
fn refuse_service(dsn: &Dsn, surroundings: &Surroundings) -> Result<()> {
    if is_open(dsn, "service") && (surroundings.variable)("PGSERVICE").is_none() {
        return Ok(());
    }
    let detail = "service files are not supported (keyword service, variable PGSERVICE)";
    Err(Error::new(Kind::Config, None, "complete the connection string", detail)
        .with_hint("write host, port, dbname and user into the connection string"))
}

/// An empty value counts as left out, as in libpq.
fn is_open(dsn: &Dsn, key: &str) -> bool {
    dsn.get(key).is_none_or(str::is_empty)
}

fn password_file(dsn: &Dsn, surroundings: &Surroundings) -> Option<PathBuf> {
    match dsn.get("passfile") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => surroundings.home.as_deref().map(default_password_file),
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

/// Whether a host is a default socket directory, which password files call `localhost`.
#[cfg(unix)]
fn is_default_socket(host: &str) -> bool {
    SOCKET_DIRECTORIES.contains(&host.trim_end_matches('/'))
}

#[cfg(windows)]
fn is_default_socket(_host: &str) -> bool {
    false
}

/// Who runs this process.
struct Account {
    user: Option<String>,
    home: Option<PathBuf>,
}

#[cfg(unix)]
impl Account {
    /// The user id decides, not USER: an init script that changes the user leaves that variable as it was.
    fn of_this_process() -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let listed = own_uid().and_then(|uid| find_account(&passwd, uid));
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let (user, listed_home) = listed.unzip();
        Account {
            user: user.or_else(|| variable("USER")).or_else(|| variable("LOGNAME")),
            home: variable("HOME").or(listed_home).map(PathBuf::from),
        }
    }
}

#[cfg(windows)]
impl Account {
    fn of_this_process() -> Self {
        Account { user: std::env::var("USERNAME").ok(), home: std::env::var_os("APPDATA").map(PathBuf::from) }
    }
}

/// The kernel shows the effective user as the owner of the process's own directory; std has no call for it.
#[cfg(unix)]
fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

/// Name and home directory of a user id, from the text of `/etc/passwd`.
#[cfg(unix)]
fn find_account(passwd: &str, uid: u32) -> Option<(String, String)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [name, _, id, _, _, home, ..] if id.parse() == Ok(uid) => Some((name.to_string(), home.to_string())),
            _ => None,
        }
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn surroundings(variables: &'static [(&'static str, &'static str)]) -> Surroundings {
        let find = move |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        Surroundings { variable: Box::new(find), os_user: Some("joe".into()), home: None, default_host: "/sockets" }
    }

    fn completed(dsn: &str, variables: &'static [(&'static str, &'static str)]) -> String {
        complete_in(&Dsn::parse(dsn).unwrap(), &surroundings(variables)).unwrap().to_conninfo()
    }

    #[test]
    fn an_empty_string_means_the_local_server_and_the_operating_systems_user() {
        assert_eq!(completed("", &[]), "host=/sockets port=5432 user=joe dbname=joe");
    }

    #[test]
    fn the_database_is_named_after_the_user_and_hostaddr_stands_in_for_the_host() {
        assert_eq!(completed("user=ann hostaddr=::1", &[]), "user=ann hostaddr=::1 port=5432 dbname=ann");
    }

    #[test]
    fn variables_fill_what_the_string_leaves_out_and_nothing_else() {
        assert_eq!(
            completed(
                "host=a port=''",
                &[("PGHOST", "b"), ("PGPORT", "5433"), ("PGPASSWORD", "p"), ("PGDATABASE", "d")]
            ),
            "host=a port=5433 dbname=d password=p user=joe"
        );
    }

    #[test]
    fn a_service_is_refused_rather_than_ignored() {
        for (dsn, variables) in [("service=x", &[][..]), ("", &[("PGSERVICE", "x")][..])] {
            assert!(complete_in(&Dsn::parse(dsn).unwrap(), &surroundings(variables)).is_err());
        }
    }

    #[test]
    fn an_unknown_user_is_an_error_with_a_way_out() {
        let nobody = Surroundings { os_user: None, ..surroundings(&[]) };
        let error = complete_in(&Dsn::default(), &nobody).unwrap_err();
        assert!(error.hint().unwrap().contains("PGUSER"));
    }

    #[test]
    fn accounts_are_found_by_user_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000:Joe,,,:/home/joe:/bin/sh\n";
        assert_eq!(find_account(passwd, 1000), Some(("joe".into(), "/home/joe".into())));
        assert_eq!(find_account(passwd, 1), None);
    }

    #[test]
    fn this_process_has_a_user() {
        assert!(Account::of_this_process().user.is_some());
    }
}
