//! One logged change, as the trigger wrote it.

use crate::names::{LogId, Txid};
use std::collections::HashMap;

/// Column name to exact text; `None` is SQL NULL.
pub type Row = HashMap<String, Option<String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
    /// A free statement that somebody wrote into the log by hand.
    Statement,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub id: LogId,
    pub txid: Txid,
    pub event: Event,
    /// The table's quoted and qualified name when the change was made; empty for a free statement.
    pub relation: String,
    pub old: Row,
    pub new: Row,
    /// The free statement's text; of a row, what went wrong with a filter or a transform on its way.
    pub sql: String,
    /// The database it came from, if a replica wrote it on our master.
    pub origin: Option<String>,
}

impl Event {
    pub fn from_letter(letter: &str) -> Option<Event> {
        Some(match letter {
            "I" => Event::Insert,
            "U" => Event::Update,
            "D" => Event::Delete,
            "T" => Event::Truncate,
            "S" => Event::Statement,
            _ => return None,
        })
    }
}

impl Change {
    /// The row that carries the columns' names: a new row if there is one.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        self.new.keys().chain(self.old.keys().filter(|name| !self.new.contains_key(*name)))
    }

    /// Forgets a column that neither side has any more.
    pub fn leave_out(&mut self, column: &str) {
        self.old.remove(column);
        self.new.remove(column);
    }

    /// Gives a column the name that it has by now.
    pub fn rename(&mut self, from: &str, to: &str) {
        for row in [&mut self.old, &mut self.new] {
            if let Some(value) = row.remove(from) {
                row.insert(to.to_string(), value);
            }
        }
    }

    /// Did this column get another value? A large row is logged without the columns that did not.
    pub fn changes(&self, column: &str) -> bool {
        match self.new.get(column) {
            Some(new) => self.old.get(column) != Some(new),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[(&str, Option<&str>)]) -> Row {
        columns.iter().map(|(name, value)| (name.to_string(), value.map(str::to_string))).collect()
    }

    #[test]
    fn a_column_changes_when_its_text_does_and_null_is_not_the_empty_string() {
        let change = Change {
            id: LogId(1),
            txid: Txid(1),
            event: Event::Update,
            relation: "public.test".into(),
            old: row(&[("id", Some("1")), ("a", None), ("n", Some("1.0")), ("same", None)]),
            new: row(&[("a", Some("")), ("n", Some("1.00")), ("same", None)]),
            sql: String::new(),
            origin: None,
        };
        assert!(change.changes("a") && change.changes("n"));
        assert!(!change.changes("same") && !change.changes("id"));
    }
}
