//! One message to the slave: several statements. The server answers how many rows each of them touched.

use crate::base::error::Result;
use crate::replay::sets::SetShape;
use crate::replay::statements::Shape;
use crate::server::session::Session;
use std::collections::HashMap;

/// So many statements may be forgotten before all are deallocated: which of their names exist is not known.
const MAX_LEAKED: usize = 500;

/// Prepared statements that a session keeps; each takes some 50 kB on the server. At this number all are deallocated, and
/// prepared again when they are needed.
const MAX_PREPARED: usize = 2_000;

/// One message prepares statements of at most this length together; a longer statement gets a message of its own.
const PREPARE_BYTES: usize = 4 << 10;

/// Statements that are sent as one message, and how many rows those that write have to touch.
pub(super) struct Message {
    pub text: String,
    /// The savepoint that its first statements set.
    pub savepoint: &'static str,
    /// The PREPAREs to send first, in messages of their own: with each statement that a message prepares, the server keeps
    /// the text of the whole message.
    pub prepares: Vec<String>,
    /// A COPY and its rows, instead of EXECUTEs.
    copy: Option<CopyIn>,
    answers: usize,
    /// (number of the answer, rows).
    expected: Vec<(usize, u64)>,
}

impl Message {
    /// `opening` consists of `answers` statements, each with its semicolon.
    pub fn new(opening: &str, answers: usize, savepoint: &'static str) -> Message {
        Message {
            text: opening.to_string(),
            savepoint,
            prepares: Vec::new(),
            copy: None,
            answers,
            expected: Vec::new(),
        }
    }

    /// Appends the last statement, whose answer is not checked.
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

    /// Ends a statement that has been written to `text` and has to touch this many rows.
    pub fn expect(&mut self, rows: u64) {
        self.text.push(';');
        self.expected.push((self.answers, rows));
        self.answers += 1;
    }

    /// Appends a COPY of `count` rows. Only its answer is checked.
    pub fn copy(&mut self, statement: String, rows: String, count: u64) {
        self.copy = Some(CopyIn { statement, rows, end: String::new() });
        self.expected = vec![(0, count)];
    }

    /// Sends the message and returns how many rows each statement touched.
    pub fn send(&self, slave: &mut Session) -> Result<Vec<u64>> {
        match &self.copy {
            None => slave.message("replay", &self.text),
            Some(CopyIn { statement, rows, end }) => {
                slave.copy_between("replay", (&self.text, end), statement, rows).map(|copied| vec![copied])
            }
        }
    }

    /// The messages that prepare the statements.
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

    pub fn has_expected_counts(&self, counts: &[u64]) -> bool {
        self.expected.iter().all(|(place, rows)| counts.get(*place) == Some(rows))
    }
}

/// A COPY, its rows, and the statement that follows it.
struct CopyIn {
    statement: String,
    rows: String,
    end: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum AnyShape {
    One(Shape),
    /// A statement that fails unless it touches exactly one row.
    Exact(Shape),
    Set(SetShape),
}

/// The statements that are prepared in the slave's session.
#[derive(Default)]
pub(super) struct Statements {
    prepared: HashMap<AnyShape, String>,
    made: u64,
    /// Statements that were forgotten, and may still be there on the server.
    leaked: usize,
}

impl Statements {
    /// A name that no statement has had yet.
    pub fn new_name(&mut self) -> String {
        self.made += 1;
        format!("py_{}", self.made)
    }

    /// The name of the prepared statement for a shape. If it is not prepared yet, the message gets its PREPARE.
    pub fn name(&mut self, shape: AnyShape, message: &mut Message, prepare: impl Fn(&str) -> String) -> String {
        if let Some(name) = self.prepared.get(&shape) {
            return name.clone();
        }
        let name = self.new_name();
        message.prepares.push(prepare(&name));
        self.prepared.insert(shape, name.clone());
        name
    }

    /// Forgets the statements of a message that is not sent.
    pub fn discard(&mut self, message: &Message) {
        let is_unsent = |name: &String| {
            let begin = format!("PREPARE {name} ");
            message.prepares.iter().any(|prepare| prepare.starts_with(&begin))
        };
        self.prepared.retain(|_, name| !is_unsent(name));
    }

    pub fn are_too_many(&self) -> bool {
        self.prepared.len() >= MAX_PREPARED
    }

    /// Forgets all statements, and returns the DEALLOCATEs that drop them on the server.
    pub fn drop_all(&mut self) -> String {
        let names: Vec<String> = self.prepared.drain().map(|(_, name)| format!("DEALLOCATE {name}")).collect();
        names.join(";")
    }

    /// Forgets all statements, after a message has failed: it is unknown which of its PREPAREs the server has executed.
    pub fn forget(&mut self) {
        self.leaked += self.prepared.len() + 1;
        self.prepared.clear();
    }

    /// Counts a statement that was prepared for a single change, when that change has met a conflict: it may have failed before its
    /// DEALLOCATE.
    pub fn may_have_left_one(&mut self) {
        self.leaked += 1;
    }

    /// Do so many forgotten statements fill the server's memory that it is time for DEALLOCATE ALL?
    pub fn have_leaked(&self) -> bool {
        self.leaked >= MAX_LEAKED
    }

    /// After DEALLOCATE ALL.
    pub fn deallocated(&mut self) {
        self.leaked = 0;
        self.prepared.clear();
    }
}
