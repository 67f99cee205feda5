//! One logged change, as the trigger wrote it.

use crate::backlog::row::Row;
use crate::base::names::{LogId, Txid};

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
    /// The text of a free statement. Of a row, the error of a filter or a transform.
    pub sql: String,
    /// The database in which the change was made first, if a daemon has replayed it on this master.
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

    pub fn letter(self) -> &'static str {
        match self {
            Event::Insert => "I",
            Event::Update => "U",
            Event::Delete => "D",
            Event::Truncate => "T",
            Event::Statement => "S",
        }
    }
}

impl Change {
    /// All column names: those of the new row, then those that only the old row has.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let only_old = self.old.names().iter().filter(|name| !self.new.has(name));
        self.new.names().iter().chain(only_old)
    }

    /// How much memory its values take.
    pub fn bytes(&self) -> usize {
        self.old.bytes() + self.new.bytes()
    }

    /// Whether the log holds the row that this change finds with all its columns. An UPDATE of a large row is logged with the
    /// key and the changed columns only, and a filter may leave the key alone of the old row.
    pub fn has_whole_old_row(&self) -> bool {
        match self.event {
            Event::Delete => true,
            Event::Update => self.old.len() == self.new.len(),
            Event::Insert | Event::Truncate | Event::Statement => false,
        }
    }

    /// Removes a column that neither side has any more.
    pub fn leave_out(&mut self, column: &str) {
        for row in [&mut self.old, &mut self.new] {
            *row = row.renamed(|name| (name != column).then(|| name.to_string()));
        }
    }

    /// Gives a column its present name.
    pub fn rename(&mut self, from: &str, to: &str) {
        for row in [&mut self.old, &mut self.new] {
            *row = row.renamed(|name| Some(if name == from { to } else { name }.to_string()));
        }
    }

    /// Whether this column got another value. A large row is logged without the columns that did not.
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
        columns.iter().map(|(name, value)| (name.to_string(), *value)).collect()
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
