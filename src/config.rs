//! One pair's settings, read from `key=value` text by hand; every error names the line and the key.

use crate::dsn::Dsn;
use std::fmt;
use std::time::Duration;

/// The wait for a wake-up before the log is looked at anyway, as in the original.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The column of `replica_log` that a single slave marks.
pub const DEFAULT_SLAVE_FIELD: &str = "replicated";

/// Everything one pair needs.
#[derive(Clone, Debug)]
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
    /// `false`: exactly-once by a progress row on the slave, for servers without prepared transactions.
    pub two_phase: bool,
    pub smtp: Option<Smtp>,
}

/// The `[SMTP]` section as it stands in the file.
#[derive(Clone)]
pub struct Smtp {
    pub server: String,
    pub username: Option<String>,
    pub password: Option<String>,
    pub start_subject: Option<String>,
    pub stop_subject: Option<String>,
    pub error_subject: Option<String>,
    pub warning_subject: Option<String>,
    pub from_addr: String,
    pub to_addrs: Vec<String>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp")
            .field("server", &self.server)
            .field("from_addr", &self.from_addr)
            .field("to_addrs", &self.to_addrs)
            .finish_non_exhaustive()
    }
}
