//! Reads the values of one section and checks each for its type and range.

use super::ConfigError;
use super::ini::Entry;
use crate::config::dsn::Dsn;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Whether a pair may have this name. Names appear in log lines, thread names and names of prepared transactions.
pub(super) fn is_printable(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}

/// The entries of one section. A key with an empty value counts as missing.
pub(super) struct Section<'a> {
    pub(super) name: &'static str,
    pub(super) entries: &'a [Entry],
}

impl Section<'_> {
    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.section == self.name && entry.key == key && !entry.value.is_empty())
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.find(key).map(|entry| entry.value.clone())
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, ConfigError> {
        match self.find(key) {
            Some(entry) => Ok(&entry.value),
            None => Err(ConfigError::missing(key, self.name)),
        }
    }

    pub(super) fn name(&self) -> Result<String, ConfigError> {
        let name = self.required("NAME")?;
        if !is_printable(name) {
            return Err(self.error("NAME", "must not contain control characters"));
        }
        Ok(name.to_string())
    }

    pub(super) fn dsn(&self, key: &str) -> Result<Dsn, ConfigError> {
        let text = self.required(key)?;
        let dsn = Dsn::parse(text).map_err(|e| self.error(key, e.to_string()))?;
        match dsn.faults() {
            faults if faults.is_empty() => Ok(dsn),
            faults => Err(self.error(key, faults.join("; "))),
        }
    }

    /// A boolean. It accepts the words that Python's `getboolean` accepts.
    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(entry) = self.find(key) else {
            return Ok(None);
        };
        match entry.value.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Some(true)),
            "false" | "no" | "off" | "0" => Ok(Some(false)),
            _ => Err(self.error(key, "must be true or false")),
        }
    }

    pub(super) fn number<N>(&self, key: &str, range: RangeInclusive<N>) -> Result<Option<N>, ConfigError>
    where
        N: std::str::FromStr + PartialOrd + fmt::Display,
    {
        let Some(entry) = self.find(key) else {
            return Ok(None);
        };
        match entry.value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.error(key, format!("must be {} to {}", range.start(), range.end()))),
        }
    }

    pub(super) fn seconds(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<Duration>, ConfigError> {
        Ok(self.number(key, range)?.map(Duration::from_secs))
    }

    /// A number of seconds, or "off", which is 0 as well.
    pub(super) fn pause(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        default: Duration,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(entry) = self.find(key) else { return Ok(Some(default)) };
        match entry.value.parse() {
            Ok(0) => Ok(None),
            Ok(seconds) if range.contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
            _ if entry.value.eq_ignore_ascii_case("off") => Ok(None),
            _ => Err(self.error(key, format!("must be off, or {} to {}", range.start(), range.end()))),
        }
    }

    /// An IP address and a port. Host names are not accepted: their address may change, and then the daemon would
    /// listen on an address that the operator did not choose.
    pub(super) fn address(&self, key: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let parsed = self.find(key).map(|entry| entry.value.parse());
        parsed.transpose().map_err(|_| self.error(key, "must be an IP address and a port, as in 127.0.0.1:15187"))
    }

    pub(super) fn error(&self, key: &str, what: impl Into<String>) -> ConfigError {
        ConfigError::new(self.find(key).map_or(1, |entry| entry.line), key, what)
    }
}
