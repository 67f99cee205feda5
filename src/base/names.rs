//! Names and numbers with a type of their own, so that an id cannot be taken for a row count.

use std::fmt;

/// The id of one change: the value that `replica_log_id_seq` gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub i64);

/// A transaction of the master, as `pg_current_xact_id()` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(pub i64);

/// The number of one batch. Every attempt draws a new one, so a number never stands for two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub i64);

/// One batch: its number, and a token that nobody can guess. A server that was restored gives numbers out again, but no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchId {
    pub number: BatchNumber,
    pub token: String,
}

/// Which of the two servers something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Master,
    Slave,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BatchNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Master => "master",
            Side::Slave => "slave",
        })
    }
}

/// An identifier as SQL wants it: in double quotes, always, so that no reserved word list is needed.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant as SQL wants it. The sessions run with `standard_conforming_strings = on`.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_keep_case_and_double_their_quotes() {
        assert_eq!(quote_ident("Select \"me\""), "\"Select \"\"me\"\"\"");
    }

    #[test]
    fn literals_double_quotes_and_leave_backslashes_alone() {
        assert_eq!(quote_literal("it's \\n"), "'it''s \\n'");
    }
}
