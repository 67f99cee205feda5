//! One pair's settings, read from `key=value` text by hand; every error names the line and the key.

mod ini;
mod section;
mod smtp;

pub use smtp::{Protection, Smtp};

use crate::config::conflict_policy::ConflictPolicies;
use crate::config::dsn::Dsn;
use section::{Section, is_printable};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The wait for a wake-up before the log is looked at anyway, as in the original.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The column of `replica_log` that a single slave marks.
pub const DEFAULT_SLAVE_FIELD: &str = "replicated";

/// How much is logged when nobody says it: the statements too, as in the original.
pub const DEFAULT_DEBUG_LEVEL: u8 = 2;

/// From errors only to everything.
pub const DEBUG_LEVELS: RangeInclusive<u8> = 0..=3;

/// How long replayed changes stay in the log, for whoever wants to look something up.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(86_400);

/// The size of the log, in bytes, above which somebody should look after the slave that is away.
pub const DEFAULT_LOG_WARNING: u64 = 1024 * MEBIBYTE;

/// Enough to look into, and some tens of megabytes at most, mostly.
pub const DEFAULT_CONFLICTS_KEPT: u64 = 100_000;

const MEBIBYTE: u64 = 1 << 20;

/// From a second to a day: a shorter wait is polling, a longer one has no use.
const TIMEOUT_SECONDS: RangeInclusive<u64> = 1..=86_400;

/// From "not at all" to a year.
const RETENTION_SECONDS: RangeInclusive<u64> = 0..=31_536_000;

/// From a mebibyte to a pebibyte.
const LOG_WARNING_MEBIBYTES: RangeInclusive<u64> = 1..=1 << 30;

const MAIN_KEYS: &[&str] = &[
    "NAME",
    "DSN0",
    "DSN1",
    "SKIP_USER",
    "SLAVE_FIELD",
    "KEEPALIVE",
    "DEBUG_LEVEL",
    "TIMEOUT",
    "POLL",
    "TWO_PHASE",
    "RETENTION",
    "FLAGS",
    "LOG_WARNING",
    "METRICS",
    "ON_ERROR",
    "CONFLICT",
    "CONFLICTS_KEPT",
];

/// What becomes of a transaction with a change that cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Everything waits for it.
    Stop,
    /// It is put aside with what depends on it, and the rest goes on.
    Quarantine,
}

/// Everything one pair needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// First field of every log line; part of the names of prepared transactions.
    pub name: String,
    pub master: Dsn,
    pub slave: Dsn,
    /// In a multi-master setup: changes of this database user are marked and not replayed.
    pub skip_user: Option<String>,
    /// In a multi-slave setup: the boolean column of `replica_log` that belongs to this slave.
    pub slave_field: String,
    /// Sends a trivial query to both servers at every timeout.
    pub keepalive: bool,
    /// 0 none, 1 normal, 2 verbose, 3 very verbose; warnings and errors always show.
    pub debug_level: u8,
    /// How long to wait for a wake-up before the log is looked at anyway.
    pub timeout: Duration,
    /// Looks at the log this often instead of listening to the master.
    pub poll: Option<Duration>,
    /// How long replayed changes stay in the log; zero deletes them as they are replayed.
    pub retention: Duration,
    /// Sets the slave's flag of each row that it has replayed, when there is time.
    pub flags: bool,
    /// Bytes of log above which the daemon warns of the slave that is away.
    pub log_warning: u64,
    /// `false`: exactly-once by a progress row on the slave, for servers without prepared transactions.
    pub two_phase: bool,
    pub on_error: OnError,
    /// What to do about changes that meet something unexpected on the slave.
    pub conflicts: ConflictPolicies,
    /// How many rows `replica_conflict` holds; none are written if this is zero.
    pub conflicts_kept: u64,
    pub smtp: Option<Smtp>,
    /// Where the daemon serves metrics by HTTP.
    pub metrics: Option<SocketAddr>,
}

/// What is wrong in a config file, and where; never a value, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    line: usize,
    key: String,
    what: String,
}

impl Config {
    /// Reads the text of one config file.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let entries = ini::parse(text, |section| match section {
            "MAIN" => Some(MAIN_KEYS),
            "SMTP" => Some(smtp::KEYS),
            _ => None,
        })?;
        let main = Section { name: "MAIN", entries: &entries };
        Ok(Config {
            name: main.name()?,
            master: main.dsn("DSN0")?,
            slave: main.dsn("DSN1")?,
            skip_user: main.text("SKIP_USER"),
            slave_field: main.text("SLAVE_FIELD").unwrap_or_else(|| DEFAULT_SLAVE_FIELD.to_string()),
            keepalive: main.switch("KEEPALIVE")?.unwrap_or(false),
            debug_level: main.number("DEBUG_LEVEL", DEBUG_LEVELS)?.unwrap_or(DEFAULT_DEBUG_LEVEL),
            timeout: main.number("TIMEOUT", TIMEOUT_SECONDS)?.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            poll: main.number("POLL", TIMEOUT_SECONDS)?.map(Duration::from_secs),
            retention: main.number("RETENTION", RETENTION_SECONDS)?.map_or(DEFAULT_RETENTION, Duration::from_secs),
            flags: main.switch("FLAGS")?.unwrap_or(true),
            log_warning: main
                .number("LOG_WARNING", LOG_WARNING_MEBIBYTES)?
                .map_or(DEFAULT_LOG_WARNING, |mebibytes| mebibytes * MEBIBYTE),
            two_phase: main.switch("TWO_PHASE")?.unwrap_or(true),
            on_error: match main.text("ON_ERROR").map(|word| word.to_lowercase()).as_deref() {
                None | Some("stop") => OnError::Stop,
                Some("quarantine") => OnError::Quarantine,
                Some(_) => return Err(main.error("ON_ERROR", "must be stop or quarantine")),
            },
            conflicts: match main.text("CONFLICT") {
                Some(rules) => ConflictPolicies::parse(&rules).map_err(|what| main.error("CONFLICT", what))?,
                None => ConflictPolicies::default(),
            },
            conflicts_kept: main.number("CONFLICTS_KEPT", 0..=1 << 40)?.unwrap_or(DEFAULT_CONFLICTS_KEPT),
            smtp: Smtp::from_section(&Section { name: "SMTP", entries: &entries })?,
            metrics: main.address("METRICS")?,
        })
    }

    /// The settings of a pair that is given as two connection strings on the command line.
    pub fn for_pair(master: Dsn, slave: Dsn) -> Config {
        let dbname = |dsn: &Dsn| dsn.get("dbname").filter(|name| is_printable(name)).map(str::to_string);
        Config {
            name: dbname(&slave).or_else(|| dbname(&master)).unwrap_or_else(|| "pyreplica".to_string()),
            master,
            slave,
            skip_user: None,
            slave_field: DEFAULT_SLAVE_FIELD.to_string(),
            keepalive: true,
            debug_level: DEFAULT_DEBUG_LEVEL,
            timeout: DEFAULT_TIMEOUT,
            poll: None,
            retention: DEFAULT_RETENTION,
            flags: true,
            log_warning: DEFAULT_LOG_WARNING,
            two_phase: true,
            on_error: OnError::Stop,
            conflicts: ConflictPolicies::default(),
            conflicts_kept: DEFAULT_CONFLICTS_KEPT,
            smtp: None,
            metrics: None,
        }
    }
}

impl ConfigError {
    fn new(line: usize, key: impl Into<String>, what: impl Into<String>) -> Self {
        ConfigError { line, key: key.into(), what: what.into() }
    }

    /// The line of the file, counted from 1; 1 for what is missing altogether.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The key in upper case; empty when the line has none.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "[MAIN]
NAME=mydb
DSN0=dbname=somedb user=someuser password=secret host=remote
DSN1=dbname=somedb user=someuser password=secret 
SKIP_USER=pyreplica
KEEPALIVE=true
DEBUG_LEVEL=1
[SMTP]
SERVER=somehost.somewhere.com
USERNAME=no-reply@somewhere.com
PASSWORD=secret
START_SUBJECT=[PyReplica] Starting mydb replication
STOP_SUBJECT=[PyReplica] Stopping mydb replication
ERROR_SUBJECT=[PyReplica] Error in mydb replication
WARNING_SUBJECT=[PyReplica] Warning in mydb replication
FROM_ADDR=no-reply@somewhere.com
TO_ADDRS=hostmaster@somewhere.com;dbadmin@somewhere.com
";

    const SHORT: &str = "[MAIN]\nNAME=a\nDSN0=host=x\nDSN1=host=y\n";

    fn error(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_of_the_original_works_unchanged() {
        let config = Config::parse(ORIGINAL).unwrap();
        assert_eq!(config.name, "mydb");
        assert_eq!(config.master.get("host"), Some("remote"));
        assert_eq!(config.slave.get("password"), Some("secret"));
        assert_eq!(config.skip_user.as_deref(), Some("pyreplica"));
        assert!(config.keepalive);
        assert_eq!(config.debug_level, 1);
        let smtp = config.smtp.unwrap();
        assert_eq!(smtp.start_subject.as_deref(), Some("[PyReplica] Starting mydb replication"));
        assert_eq!(smtp.to_addrs, ["hostmaster@somewhere.com", "dbadmin@somewhere.com"]);
    }

    #[test]
    fn what_is_left_out_or_left_empty_has_its_default() {
        let config = Config::parse(&format!("{SHORT}SKIP_USER=\n[SMTP]\nSERVER=\n")).unwrap();
        assert_eq!(config.skip_user, None);
        assert_eq!(config.slave_field, "replicated");
        assert!(!config.keepalive);
        assert_eq!(config.debug_level, 2);
        assert_eq!(config.timeout, Duration::from_secs(60));
        assert!(config.two_phase);
        assert!(config.smtp.is_none());
    }

    #[test]
    fn the_command_line_names_a_pair_after_the_slaves_database() {
        let dsn = |text| Dsn::parse(text).unwrap();
        assert_eq!(Config::for_pair(dsn("dbname=a"), dsn("dbname=b")).name, "b");
        assert_eq!(Config::for_pair(dsn("dbname=a"), dsn("host=b")).name, "a");
        assert_eq!(Config::for_pair(dsn("host=a"), dsn("host=b")).name, "pyreplica");
        assert!(Config::for_pair(dsn(""), dsn("")).keepalive);
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_line() {
        assert_eq!(error(&format!("{SHORT}DEBUG_LEVEL=4")), "5: DEBUG_LEVEL: must be 0 to 3");
        assert_eq!(error(&format!("{SHORT}DEBUG_LEVEL=x")), "5: DEBUG_LEVEL: must be 0 to 3");
        assert_eq!(error(&format!("{SHORT}TIMEOUT=0")), "5: TIMEOUT: must be 1 to 86400");
        assert_eq!(
            error(&format!("{SHORT}METRICS=localhost:9187")),
            "5: METRICS: must be an IP address and a port, as in 127.0.0.1:9187"
        );
        assert_eq!(error(&format!("{SHORT}KEEPALIVE=maybe")), "5: KEEPALIVE: must be true or false");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(error(""), "1: NAME: missing in [MAIN]");
        assert_eq!(error("[MAIN]\nNAME=a\nDSN1=host=y"), "1: DSN0: missing in [MAIN]");
        assert_eq!(error(&format!("{SHORT}[SMTP]\nSERVER=x")), "1: FROM_ADDR: missing in [SMTP]");
    }

    #[test]
    fn a_bad_connection_string_is_named_without_its_password() {
        assert_eq!(
            error("[MAIN]\nNAME=a\nDSN0=host=x password=hunter2 hunter3\nDSN1=host=y"),
            "3: DSN0: what follows the value of \"password\" is no keyword (a value with blanks needs single quotes)"
        );
    }

    #[test]
    fn the_sample_reads_as_it_stands_and_documents_every_key() {
        let sample = include_str!("../../sample.conf");
        let config = Config::parse(sample).unwrap();
        assert!(config.smtp.is_none());

        let enabled: String = sample
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_uppercase()) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        for key in MAIN_KEYS.iter().chain(smtp::KEYS) {
            assert!(enabled.contains(&format!("\n{key}=")), "{key} is not in sample.conf");
        }
        let all = Config::parse(&enabled).unwrap();
        assert!(all.smtp.is_some());
        assert_eq!(
            (all.slave_field, all.keepalive, all.debug_level, all.timeout, all.two_phase),
            (config.slave_field, config.keepalive, config.debug_level, config.timeout, config.two_phase),
            "a key that is commented out shows its default"
        );
    }

    #[test]
    fn debug_output_shows_no_password() {
        assert!(!format!("{:?}", Config::parse(ORIGINAL).unwrap()).contains("secret"));
    }
}
