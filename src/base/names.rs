//! Types for ids and names, so that the compiler does not accept an id where it expects a number of rows.

use std::fmt;

/// The id of one change: its value of the sequence `replica_log_id_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub i64);

/// The id of a transaction on the master, as `pg_current_xact_id()` returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(pub i64);

/// The number of one batch. Every attempt takes a new one, so no two attempts have the same number.
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

/// An identifier for SQL. It is always in double quotes, so no list of reserved words is needed.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's qualified name with each part in quotes, as a session with `quote_all_identifiers = on` writes it.
pub fn fully_quoted(relation: &str) -> String {
    let (mut parts, mut in_quotes) = (vec![String::new()], false);
    for c in relation.chars() {
        match c {
            '"' => in_quotes = !in_quotes,
            '.' if !in_quotes => parts.push(String::new()),
            _ => {}
        }
        if c != '.' || in_quotes {
            parts.last_mut().expect("there is a part").push(c);
        }
    }
    let quoted = parts.iter().map(|part| if part.starts_with('"') { part.clone() } else { quote_ident(part) });
    quoted.collect::<Vec<_>>().join(".")
}

/// The statement for an operator that creates the trigger of a table.
pub fn create_trigger(schema: &str, name: &str) -> String {
    format!("SELECT py_log_create_tg({}, {});", quote_literal(schema), quote_literal(name))
}

/// The same for a name that has a schema or none.
pub fn create_trigger_of(relation: &str) -> String {
    match relation.contains('.') {
        true => format!("SELECT py_log_create_tg(p[1], p[2]) FROM parse_ident({}) p;", quote_literal(relation)),
        false => format!("SELECT py_log_create_tg({});", quote_literal(relation)),
    }
}

/// A string constant for SQL. The sessions run with `standard_conforming_strings = on`.
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
    fn a_qualified_name_is_quoted_part_by_part() {
        assert_eq!(fully_quoted("public.t"), "\"public\".\"t\"");
        assert_eq!(fully_quoted("\"a.b\".\"Say \"\"x.y\"\"\""), "\"a.b\".\"Say \"\"x.y\"\"\"");
    }

    #[test]
    fn literals_double_quotes_and_leave_backslashes_alone() {
        assert_eq!(quote_literal("it's \\n"), "'it''s \\n'");
    }
}
