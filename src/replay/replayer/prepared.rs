//! Replays changes by prepared statements, one for each change and many in one message.

use super::message::{AnyShape, Message};
use super::{MESSAGE_BYTES, MESSAGE_CHANGES, Replayer, SAVEPOINTS, log_change, set_origin};
use crate::backlog::change::{Change, Event};
use crate::base::error::Result;
use crate::replay::conflict::{self, mismatch_error};
use crate::replay::sql;
use crate::replay::statements::Shape;
use crate::replay::table_cache::Note;
use crate::server::session::Session;

const PREPARING: &str = "SAVEPOINT pyreplica_prepare;";
const PREPARED: &str = "RELEASE SAVEPOINT pyreplica_prepare";
const NOT_PREPARED: &str = "ROLLBACK TO SAVEPOINT pyreplica_prepare; RELEASE SAVEPOINT pyreplica_prepare;";

impl Replayer {
    /// Composes a batch of few changes as one message, which begins the slave's transaction with `note` and ends it with `prepare`
    /// (PREPARE TRANSACTION) if there is one, so that a single change takes one round trip instead of four. Returns the message and the
    /// changes that it writes. The server refuses the message if anything is not as expected. Returns None if it is clear
    /// beforehand that the server would refuse it, or that the batch needs more than one message.
    pub fn compose_one_message<'a>(
        &mut self,
        changes: &'a [Change],
        note: &Note,
        prepare: Option<&str>,
    ) -> Option<(String, Vec<&'a Change>)> {
        self.reset();
        let is_usual = |change: &Change| {
            let is_plain = match change.event {
                Event::Insert | Event::Update => true,
                Event::Delete => !self.policies.watches_deletes(&change.relation),
                Event::Truncate | Event::Statement => false,
            };
            is_plain && change.sql.is_empty() && change.origin == changes[0].origin
        };
        let is_unusual = self.deferring
            || self.statements.are_too_many()
            || self.statements.have_leaked()
            || self.holds.has_tables_on_hold();
        if is_unusual || !changes.iter().all(is_usual) {
            return None;
        }
        let holds = self.holds.query();
        let conditions = self.cache.lock_and_note(changes, holds.as_deref(), note)?;
        let mut opening: Vec<String> = holds.iter().map(|_| sql::LOCK_HOLDS.to_string()).chain(conditions).collect();
        opening.push(self.switch_origin(&changes[0]) + self.cache.path(changes));
        let mut message = Message::new("", 0, "");
        let written = self.fill(&mut message, changes.iter(), true);
        if let Some(prepare) = prepare {
            message.push(prepare);
        }
        match written {
            Ok((taken, written)) if taken == changes.len() && self.unchecked.is_empty() => {
                // What is prepared already has its plan.
                let prepares =
                    opening.iter().chain(&message.prepares).any(|statement| statement.starts_with("PREPARE "));
                let planning = if prepares { sql::PREPARE_BY_INDEXES } else { "" };
                let prepares: String = message.prepares.iter().map(|prepare| format!("{prepare};")).collect();
                Some((format!("BEGIN; {planning}{}{prepares}{}", opening.join("; "), message.text), written))
            }
            _ => {
                self.forget_prepared();
                None
            }
        }
    }

    /// Forgets all prepared statements, after the message of `compose_one_message` has failed or was not sent: it is
    /// unknown which of its PREPAREs the server has executed.
    pub fn forget_prepared(&mut self) {
        self.statements.forget();
        self.cache.forget_prepared();
    }

    pub(super) fn in_messages(&mut self, slave: &mut Session, changes: &[&Change]) -> Result<()> {
        let mut rest = changes;
        while !rest.is_empty() {
            let (count, message) = self.compose(slave, rest)?;
            let (now, later) = rest.split_at(count);
            if !self.send(slave, &message)? {
                self.one_by_one(slave, now)?;
            }
            self.limit_unchecked(slave)?;
            rest = later;
        }
        Ok(())
    }

    /// A new message for these changes, which sets a savepoint, the origin of the first one and the search path.
    pub(super) fn message<'a>(
        &mut self,
        slave: &mut Session,
        first: &Change,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<Message> {
        self.limit_prepared(slave)?;
        Ok(self.opening(first, changes))
    }

    pub(super) fn opening<'a>(&mut self, first: &Change, changes: impl IntoIterator<Item = &'a Change>) -> Message {
        let path = self.cache.path(changes);
        let note = self.switch_origin(first);
        let [first, second] = SAVEPOINTS;
        let own = if self.savepoint == Some(first) { second } else { first };
        let (former, answers) = match self.savepoint {
            Some(former) => (format!("RELEASE SAVEPOINT {former};"), 2),
            None => (String::new(), 1),
        };
        let opening = format!("{former}SAVEPOINT {own};{path}{note}");
        Message::new(&opening, answers + 1 + usize::from(!note.is_empty()), own)
    }

    /// Puts as many changes as fit into one message, and returns their number.
    pub(super) fn compose(&mut self, slave: &mut Session, changes: &[&Change]) -> Result<(usize, Message)> {
        let mut message = self.message(slave, changes[0], changes.iter().copied())?;
        let (taken, written) = self.fill(&mut message, changes.iter().copied(), false)?;
        self.log_changes(written);
        message.close(sql::DAEMON_PATH);
        Ok((taken, message))
    }

    /// Prepares the statements of a message. Returns false if the server refuses one.
    pub(super) fn prepare(&mut self, slave: &mut Session, message: &Message) -> Result<bool> {
        for prepares in message.preparations() {
            let guarded = format!("{PREPARING}{}{prepares}; {}{PREPARED}", sql::APPLICATION_PATH, sql::DAEMON_PATH);
            match slave.message("prepare statements", &guarded) {
                Ok(_) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    log::trace!(target: &self.name, "Looking closer: {error}");
                    self.statements.forget();
                    let back = format!("{NOT_PREPARED}{}", set_origin(&self.current_origin));
                    self.roll_back(slave, &back, Some(error))?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes changes to a message. Returns how many fit, and those of them that change anything. With `exact` the server
    /// itself refuses a statement that does not touch exactly one row.
    fn fill<'a>(
        &mut self,
        message: &mut Message,
        changes: impl Iterator<Item = &'a Change>,
        exact: bool,
    ) -> Result<(usize, Vec<&'a Change>)> {
        let (mut taken, mut written) = (0, Vec::new());
        for change in changes.take(MESSAGE_CHANGES) {
            let table = self.cache.get(change)?;
            let shape = Shape::of(change, table, true).map_err(|mismatch| mismatch_error(change, table, &mismatch))?;
            if (taken > 0 && message.text.len() > MESSAGE_BYTES) || (exact && shape.needs_delete_and_insert(table)) {
                break;
            }
            taken += 1;
            if shape.is_empty() {
                continue;
            }
            written.push(change);
            let prepare =
                |name: &str| if exact { shape.prepare_exact(name, table) } else { shape.prepare(name, table) };
            let key = if exact { AnyShape::Exact(shape.clone()) } else { AnyShape::One(shape.clone()) };
            let name = self.statements.name(key, message, prepare);
            shape.execute(&name, change, table, &mut message.text);
            message.expect(1);
            if !self.deferring {
                self.unchecked.add(change.id, change.txid, conflict::duplicates(change, table));
            }
        }
        Ok((taken, written))
    }

    /// Logs changes that have been replayed, or are about to be.
    pub fn log_changes(&self, changes: Vec<&Change>) {
        for change in changes {
            if let Ok(table) = self.cache.get(change) {
                log_change(&self.name, change, table);
            }
        }
    }
}
