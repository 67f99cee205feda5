//! The settings of one pair, read from a config file. Every error names the line and the key.

mod faults;
mod ini;
mod section;
mod smtp;

pub use faults::{ConfigError, ConfigErrors};
pub use smtp::{Protection, Smtp};

use crate::config::conflict_policy::ConflictPolicies;
use crate::config::dsn::Dsn;
use crate::config::tables::Tables;
use faults::Faults;
use section::{Section, is_printable};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A config file that explains every key.
pub const SAMPLE: &str = include_str!("../../sample.conf");

/// How long the daemon waits for a notification before it looks at the log anyway, as in the original.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The column of `replica_log` that marks replayed changes if there is only one slave.
pub const DEFAULT_SLAVE_FIELD: &str = "replicated";

/// What the daemon is doing. The original logged the statements too, with the values of rows, which do not belong into a log unless
/// somebody wants them there.
pub const DEFAULT_DEBUG_LEVEL: u8 = 1;

/// From warnings and errors only to everything.
pub const DEBUG_LEVELS: RangeInclusive<u8> = 0..=3;

/// From this level on, values of rows are in the log, and in what else the daemon tells: mails and the last error.
const VALUES_LEVEL: u8 = 2;

/// How long replayed changes stay in the log, so that the operator can look them up.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(86_400);

/// The size of the log, in bytes, above which the daemon warns. Usually a slave is not replaying then.
pub const DEFAULT_LOG_WARNING: u64 = 1024 * MEBIBYTE;

/// Often enough for a read copy, and seldom enough to cost nothing.
pub const DEFAULT_SEQUENCES: Duration = Duration::from_secs(10);

/// Enough rows to examine conflicts; they usually take some tens of megabytes at most.
pub const DEFAULT_CONFLICTS_KEPT: u64 = 100_000;

const MEBIBYTE: u64 = 1 << 20;

/// From a second to a day. A shorter wait would be constant polling, a longer one has no use.
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
    "TABLES",
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
    "SEQUENCES",
];

const SECTIONS: &[(&str, &[&str])] = &[("MAIN", MAIN_KEYS), ("SMTP", smtp::KEYS)];

/// What is wrong with a pair of two equal connection strings.
pub const SAME_DATABASE: &str = "must be another database than DSN0's";

/// What the daemon does with a transaction that has a change that cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It tries again until the transaction succeeds, and replays no later transaction before that.
    Stop,
    /// It puts the transaction into quarantine, with the later ones that depend on it, and replays the rest.
    Quarantine,
}

/// All settings of one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The first field of every log line, and part of the names of prepared transactions.
    pub name: String,
    pub master: Dsn,
    pub slave: Dsn,
    /// In a multi-master setup: changes of this database user are marked as replayed without being replayed.
    pub skip_user: Option<String>,
    /// The tables that the pair replicates. Changes of others are marked as replayed without being replayed.
    pub tables: Tables,
    /// In a multi-slave setup: the boolean column of `replica_log` that belongs to this slave.
    pub slave_field: String,
    /// Whether the daemon sends a trivial query to both servers at every timeout.
    pub keepalive: bool,
    /// 0 none, 1 normal, 2 verbose, 3 very verbose. Warnings and errors are always logged.
    pub debug_level: u8,
    /// How long the daemon waits for a notification before it looks at the log anyway.
    pub timeout: Duration,
    /// How often the daemon looks at the log, if it does that instead of listening to the master.
    pub poll: Option<Duration>,
    /// How long replayed changes stay in the log. With zero they are deleted as soon as there is nothing to replay.
    pub retention: Duration,
    /// Whether the daemon sets the slave's flag of each row that the slave has replayed, when it has time.
    pub flags: bool,
    /// The size of the log, in bytes, above which the daemon warns.
    pub log_warning: u64,
    /// `false`: a progress row on the slave replaces two-phase commit, for servers without prepared transactions. Each
    /// change is still replayed exactly once.
    pub two_phase: bool,
    pub on_error: OnError,
    /// What to do about conflicts.
    pub conflicts: ConflictPolicies,
    /// How many rows `replica_conflict` keeps. With zero none are written.
    pub conflicts_kept: u64,
    /// How often the slave's sequences follow those of the master at most. None: never.
    pub sequences: Option<Duration>,
    pub smtp: Option<Smtp>,
    /// The address at which the daemon serves metrics over HTTP.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// Reads the text of one config file.
    pub fn parse(text: &str) -> Result<Config, ConfigErrors> {
        let mut faults = Faults::default();
        let parsed = ini::parse(text, SECTIONS, &mut faults);
        let config = Config::from_entries(&parsed.entries, &mut faults);
        if !parsed.is_understood {
            faults.forget_missing();
        }
        faults.end(config)
    }

    fn from_entries(entries: &[ini::Entry], faults: &mut Faults) -> Config {
        let main = Section { name: "MAIN", entries };
        let on_error = match main.text("ON_ERROR").map(|word| word.to_lowercase()).as_deref() {
            None | Some("stop") => Ok(OnError::Stop),
            Some("quarantine") => Ok(OnError::Quarantine),
            Some(_) => Err(main.error("ON_ERROR", "must be stop or quarantine")),
        };
        let tables = match main.text("TABLES") {
            Some(names) => Tables::parse(&names).map_err(|what| main.error("TABLES", what)),
            None => Ok(Tables::default()),
        };
        let conflicts = match main.text("CONFLICT") {
            Some(rules) => ConflictPolicies::parse(&rules).map_err(|what| main.error("CONFLICT", what)),
            None => Ok(ConflictPolicies::default()),
        };
        let log_warning = faults.or(main.number("LOG_WARNING", LOG_WARNING_MEBIBYTES), None);
        let (master, slave) = (main.dsn("DSN0"), main.dsn("DSN1"));
        if matches!((&master, &slave), (Ok(master), Ok(slave)) if master == slave) {
            faults.add(main.error("DSN1", SAME_DATABASE));
        }
        Config {
            name: faults.or(main.name(), String::new()),
            master: faults.or(master, Dsn::default()),
            slave: faults.or(slave, Dsn::default()),
            skip_user: main.text("SKIP_USER"),
            tables: faults.or(tables, Tables::default()),
            slave_field: main.text("SLAVE_FIELD").unwrap_or_else(|| DEFAULT_SLAVE_FIELD.to_string()),
            keepalive: faults.or(main.switch("KEEPALIVE"), None).unwrap_or(false),
            debug_level: faults.or(main.number("DEBUG_LEVEL", DEBUG_LEVELS), None).unwrap_or(DEFAULT_DEBUG_LEVEL),
            timeout: faults.or(main.seconds("TIMEOUT", TIMEOUT_SECONDS), None).unwrap_or(DEFAULT_TIMEOUT),
            poll: faults.or(main.seconds("POLL", TIMEOUT_SECONDS), None),
            retention: faults.or(main.seconds("RETENTION", RETENTION_SECONDS), None).unwrap_or(DEFAULT_RETENTION),
            flags: faults.or(main.switch("FLAGS"), None).unwrap_or(true),
            log_warning: log_warning.map_or(DEFAULT_LOG_WARNING, |mebibytes| mebibytes * MEBIBYTE),
            two_phase: faults.or(main.switch("TWO_PHASE"), None).unwrap_or(true),
            on_error: faults.or(on_error, OnError::Stop),
            conflicts: faults.or(conflicts, ConflictPolicies::default()),
            conflicts_kept: faults
                .or(main.number("CONFLICTS_KEPT", 0..=1 << 40), None)
                .unwrap_or(DEFAULT_CONFLICTS_KEPT),
            sequences: faults.or(main.pause("SEQUENCES", TIMEOUT_SECONDS, DEFAULT_SEQUENCES), None),
            smtp: Smtp::from_section(&Section { name: "SMTP", entries }, faults),
            metrics: faults.or(main.address("METRICS"), None),
        }
    }

    /// The same pair in the direction in force: after a switchover DSN1 is the master.
    #[must_use]
    pub fn directed(&self, is_reversed: bool) -> Config {
        let (master, slave) = match is_reversed {
            false => (&self.master, &self.slave),
            true => (&self.slave, &self.master),
        };
        Config { master: master.clone(), slave: slave.clone(), ..self.clone() }
    }

    /// Whether what the daemon tells may have values of rows.
    pub fn tells_values(&self) -> bool {
        self.debug_level >= VALUES_LEVEL
    }

    /// The settings of a pair that the command line gives as two connection strings.
    pub fn for_pair(master: Dsn, slave: Dsn) -> Config {
        let dbname = |dsn: &Dsn| dsn.get("dbname").filter(|name| is_printable(name)).map(str::to_string);
        Config {
            name: dbname(&slave).or_else(|| dbname(&master)).unwrap_or_else(|| "pyreplica".to_string()),
            master,
            slave,
            skip_user: None,
            tables: Tables::default(),
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
            sequences: Some(DEFAULT_SEQUENCES),
            smtp: None,
            metrics: None,
        }
    }
}

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
        assert_eq!(config.debug_level, 1);
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
        assert_eq!(error(&format!("{SHORT}SEQUENCES=never")), "5: SEQUENCES: must be off, or 1 to 86400");
        assert_eq!(
            error(&format!("{SHORT}METRICS=localhost:15187")),
            "5: METRICS: must be an IP address and a port, as in 127.0.0.1:15187"
        );
        assert_eq!(error(&format!("{SHORT}KEEPALIVE=maybe")), "5: KEEPALIVE: must be true or false");
    }

    #[test]
    fn sequences_follow_every_so_often_or_not_at_all() {
        let every =
            |line: &str| Config::parse(&format!("{SHORT}{line}")).unwrap().sequences.map(|every| every.as_secs());
        assert_eq!(
            [every(""), every("SEQUENCES=60"), every("SEQUENCES=Off"), every("SEQUENCES=0")],
            [Some(10), Some(60), None, None]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(error(""), "1: NAME: missing in [MAIN]; DSN0: missing in [MAIN]; DSN1: missing in [MAIN]");
        assert_eq!(error("[MAIN]\nNAME=a\nDSN1=host=y"), "1: DSN0: missing in [MAIN]");
        assert_eq!(
            error(&format!("{SHORT}[SMTP]\nSERVER=x")),
            "1: FROM_ADDR: missing in [SMTP]; TO_ADDRS: missing in [SMTP]"
        );
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        assert_eq!(
            error(&format!("{SHORT}TIMOUT=5\nDEBUG_LEVEL=7\nKEEPALIVE=on\nPOLL=x\n[SMTP]\nSERVER=:1\nTO_ADDR=a@b.c\n")),
            "1: FROM_ADDR: missing in [SMTP]; TO_ADDRS: missing in [SMTP]; \
             line 5: TIMOUT: unknown key in [MAIN]: did you mean TIMEOUT?; \
             line 6: DEBUG_LEVEL: must be 0 to 3; line 8: POLL: must be 1 to 86400; \
             line 10: SERVER: must be a host name, or host:port; \
             line 11: TO_ADDR: unknown key in [SMTP]: did you mean TO_ADDRS?"
        );
        // Without its section nothing is known of a key, and what is missing may stand there.
        assert_eq!(
            error("[MAIM]\nNAME=a\nx\n[SMTP]\nTO=x\nSERVER=:1"),
            "1: [MAIM]: unknown section: did you mean [MAIN]?; line 5: TO: unknown key in [SMTP]; \
             line 6: SERVER: must be a host name, or host:port"
        );
        assert_eq!(
            error("[MAIN]\nTIMEOUT=0\n[SMPT]\nSERVER=x"),
            "2: TIMEOUT: must be 1 to 86400; line 3: [SMPT]: unknown section: did you mean [SMTP]?"
        );
        assert!(
            error(&format!("{SHORT}{}", "X=1\n".repeat(12)))
                .ends_with("; line 14: X: unknown key in [MAIN]; and 2 more")
        );
    }

    #[test]
    fn a_bad_connection_string_is_named_without_its_password() {
        assert_eq!(
            error("[MAIN]\nNAME=a\nDSN0=host=x password=hunter2 hunter3\nDSN1=host=y"),
            "3: DSN0: what follows the value of \"password\" is not a keyword (a value with blanks needs single quotes)"
        );
    }

    #[test]
    fn the_sample_file_is_valid_and_documents_every_key() {
        let config = Config::parse(SAMPLE).unwrap();
        assert!(config.smtp.is_none());

        let enabled: String = SAMPLE
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
