//! What goes out in one piece: statements of which the server says how many rows each of them touched.

use crate::base::error::Result;
use crate::replay::sets::SetShape;
use crate::replay::statements::Shape;
use crate::server::session::Session;
use std::collections::HashMap;

/// Statements kept prepared, some 50 kB each on the server; beyond that all are dropped and made anew.
const MAX_PREPARED: usize = 2_000;

/// Statements that are prepared by one message have about so many bytes together, or one is longer.
const PREPARE_BYTES: usize = 4 << 10;

/// Statements sent as one message, and how many rows those that count are to touch.
pub(super) struct Message {
    pub text: String,
    /// What is to be prepared before. The server keeps the whole message with each statement that one prepares, so they don't
    /// go out together.
    pub prepares: Vec<String>,
    /// Rows that follow in place of statements.
    copy: Option<CopyIn>,
    answers: usize,
    /// (place among the answers, rows).
    expected: Vec<(usize, u64)>,
}

impl Message {
    /// `opening`: so many statements, each with its semicolon.
    pub fn new(opening: &str, answers: usize) -> Message {
        Message { text: opening.to_string(), prepares: Vec::new(), copy: None, answers, expected: Vec::new() }
    }

    /// Ends with a statement that answers to nothing.
    pub fn close(&mut self, statement: &str) {
        match &mut self.copy {
            Some(copy) => copy.end.push_str(statement),
            None => self.text.push_str(statement),
        }
    }

    pub fn push(&mut self, statement: &str) {
        self.text.push_str(statement);
        self.text.push(';');
        self.answers += 1;
    }

    /// Ends a statement that has been written to `text`, and is to touch so many rows.
    pub fn expect(&mut self, rows: u64) {
        self.text.push(';');
        self.expected.push((self.answers, rows));
        self.answers += 1;
    }

    /// Goes on with so many rows for a COPY, whose answer is the only one that counts.
    pub fn copy(&mut self, statement: String, rows: String, count: u64) {
        self.copy = Some(CopyIn { statement, rows, end: String::new() });
        self.expected = vec![(0, count)];
    }

    /// How many rows each statement touched.
    pub fn send(&self, slave: &mut Session) -> Result<Vec<u64>> {
        match &self.copy {
            None => slave.message("replay", &self.text),
            Some(CopyIn { statement, rows, end }) => {
                slave.copy_between("replay", (&self.text, end), statement, rows).map(|copied| vec![copied])
            }
        }
    }

    /// What is to be prepared before, message by message.
    pub fn preparations(&self) -> Vec<String> {
        let mut messages: Vec<String> = Vec::new();
        for prepare in &self.prepares {
            match messages.last_mut() {
                Some(last) if last.len() + prepare.len() <= PREPARE_BYTES => *last += &format!(";{prepare}"),
                _ => messages.push(prepare.clone()),
            }
        }
        messages
    }

    pub fn is_met_by(&self, counts: &[u64]) -> bool {
        self.expected.iter().all(|(place, rows)| counts.get(*place) == Some(rows))
    }
}

/// A COPY, its rows, and what ends the message behind it.
struct CopyIn {
    statement: String,
    rows: String,
    end: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum AnyShape {
    One(Shape),
    /// One that fails unless it touches exactly one row.
    Exact(Shape),
    Set(SetShape),
}

/// The statements that are prepared in the slave's session.
#[derive(Default)]
pub(super) struct Statements {
    prepared: HashMap<AnyShape, String>,
    made: u64,
}

impl Statements {
    /// A name that no statement had yet.
    pub fn fresh_name(&mut self) -> String {
        self.made += 1;
        format!("py_{}", self.made)
    }

    /// The name of the statement for a shape, which is to be prepared before the message if it has not been.
    pub fn name(&mut self, shape: AnyShape, message: &mut Message, prepare: impl Fn(&str) -> String) -> String {
        if let Some(name) = self.prepared.get(&shape) {
            return name.clone();
        }
        let name = self.fresh_name();
        message.prepares.push(prepare(&name));
        self.prepared.insert(shape, name.clone());
        name
    }

    pub fn are_many(&self) -> bool {
        self.prepared.len() >= MAX_PREPARED
    }

    /// What drops them all on the server; here they are forgotten.
    pub fn drop_all(&mut self) -> String {
        let names: Vec<String> = self.prepared.drain().map(|(_, name)| format!("DEALLOCATE {name}")).collect();
        names.join(";")
    }

    /// A message failed: which of its PREPAREs were reached is not known.
    pub fn forget(&mut self) {
        self.prepared.clear();
    }
}
