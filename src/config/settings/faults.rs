//! What is wrong in a config file: all of it, not the first of it alone.

use std::fmt;

/// So many are shown on one line.
const MAX_SHOWN: usize = 10;

/// What is wrong, and where. It never contains a value, which may have a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    line: usize,
    key: String,
    what: String,
    is_missing: bool,
}

/// All that is wrong in one file, in the order of its lines. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

/// Collects them while a file is read.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ConfigError>);

impl ConfigError {
    pub(super) fn new(line: usize, key: impl Into<String>, what: impl Into<String>) -> Self {
        ConfigError { line, key: key.into(), what: what.into(), is_missing: false }
    }

    pub(super) fn missing(key: &str, section: &str) -> Self {
        ConfigError { is_missing: true, ..ConfigError::new(1, key, format!("missing in [{section}]")) }
    }

    /// The line of the file, counted from 1. It is 1 if a key is missing.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The key in upper case. Empty if the error is not about a key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        self.without_line(f)
    }
}

impl ConfigError {
    fn without_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigErrors {
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

/// They stand on one line: `5: KEY: what; line 7: KEY: what`.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = None;
        for error in self.0.iter().take(MAX_SHOWN) {
            match line {
                None => write!(f, "{}: ", error.line)?,
                Some(line) if line == error.line => f.write_str("; ")?,
                Some(_) => write!(f, "; line {}: ", error.line)?,
            }
            error.without_line(f)?;
            line = Some(error.line);
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Faults {
    pub(super) fn add(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// The value; or if it is wrong, another one in its place, so that the rest can be checked too.
    pub(super) fn or<T>(&mut self, result: Result<T, ConfigError>, instead: T) -> T {
        result.unwrap_or_else(|error| {
            self.add(error);
            instead
        })
    }

    /// Forgets what is missing, because it may be in a section that is not known.
    pub(super) fn forget_missing(&mut self) {
        self.0.retain(|error| !error.is_missing);
    }

    /// What was read, if nothing was wrong.
    pub(super) fn end<T>(mut self, read: T) -> Result<T, ConfigErrors> {
        self.0.sort_by_key(|error| error.line);
        if self.0.is_empty() { Ok(read) } else { Err(ConfigErrors(self.0)) }
    }
}
