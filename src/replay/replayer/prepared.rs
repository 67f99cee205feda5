//! Few changes: a prepared statement for each, many of them in one message.

use super::message::{AnyShape, Message};
use super::{MESSAGE_BYTES, MESSAGE_CHANGES, NEXT_SAVEPOINT, Replayer, SAVEPOINT, log_change, set_origin};
use crate::backlog::change::{Change, Event};
use crate::base::error::Result;
use crate::replay::conflict::{self, misfit_error};
use crate::replay::sql;
use crate::replay::statements::Shape;
use crate::server::session::Session;

const PREPARING: &str = "SAVEPOINT pyreplica_prepare;";
const PREPARED: &str = "RELEASE SAVEPOINT pyreplica_prepare";
const NOT_PREPARED: &str = "ROLLBACK TO SAVEPOINT pyreplica_prepare; RELEASE SAVEPOINT pyreplica_prepare;";

impl Replayer {
    /// A whole batch of few changes as one message, which opens the slave's transaction and ends it with `prepare`; and the
    /// changes that it makes. Whoever waits for a single change waits for one answer instead of four. The server refuses the
    /// message if anything is not as expected. Without effect if it is clear beforehand that the message would not do.
    pub fn compose_at_once<'a>(&mut self, changes: &'a [Change], prepare: &str) -> Option<(String, Vec<&'a Change>)> {
        self.start_anew();
        let is_usual = |change: &Change| {
            let is_plain = match change.event {
                Event::Insert | Event::Update => true,
                Event::Delete => !self.policies.watches_deletes(&change.relation),
                Event::Truncate | Event::Statement => false,
            };
            is_plain && change.sql.is_empty() && change.origin == changes[0].origin
        };
        let is_unusual = self.deferring || self.statements.are_many() || self.holds.holds_back();
        if is_unusual || !changes.iter().all(is_usual) {
            return None;
        }
        let holds = self.holds.holds();
        let conditions = self.cache.insist(changes, holds.as_deref())?;
        let mut opening = vec![format!("BEGIN; {}", sql::LOOK_UP.trim_end_matches(';'))];
        opening.extend(holds.is_some().then(|| sql::KEEP.to_string()));
        opening.extend(conditions);
        let opening = format!("{}; {}{}", opening.join("; "), self.note_origin(&changes[0]), sql::ITS_PATH);
        let mut message = Message::new("", 0);
        let written = self.fill(&mut message, changes.iter(), true);
        message.push(prepare);
        match written {
            Ok((taken, written)) if taken == changes.len() && self.unchecked.is_empty() => {
                let prepares: String = message.prepares.iter().map(|prepare| format!("{prepare};")).collect();
                Some((format!("{opening}{prepares}{}", message.text), written))
            }
            _ => {
                self.not_prepared();
                None
            }
        }
    }

    /// The message of `compose_at_once` has failed, or was not sent: what it prepares may be there or not.
    pub fn not_prepared(&mut self) {
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
            rest = later;
        }
        Ok(())
    }

    /// A message that opens a savepoint, and says where changes like this one come from.
    pub(super) fn message(&mut self, slave: &mut Session, first: &Change) -> Result<Message> {
        self.make_room(slave)?;
        Ok(self.opening(first))
    }

    pub(super) fn opening(&mut self, first: &Change) -> Message {
        let note = self.note_origin(first);
        let (opening, answers) = if self.in_savepoint { (NEXT_SAVEPOINT, 2) } else { (SAVEPOINT, 1) };
        Message::new(&format!("{opening}{}{note}", sql::ITS_PATH), answers + 1 + usize::from(!note.is_empty()))
    }

    /// Puts as many changes as fit into one message, and says how many.
    fn compose(&mut self, slave: &mut Session, changes: &[&Change]) -> Result<(usize, Message)> {
        let mut message = self.message(slave, changes[0])?;
        let (taken, written) = self.fill(&mut message, changes.iter().copied(), false)?;
        self.log_changes(written);
        message.close(sql::OWN_PATH);
        Ok((taken, message))
    }

    /// Prepares what a message needs; false if the server refuses that.
    pub(super) fn prepare(&mut self, slave: &mut Session, message: &Message) -> Result<bool> {
        for prepares in message.preparations() {
            let guarded = format!("{PREPARING}{}{prepares}; {}{PREPARED}", sql::ITS_PATH, sql::OWN_PATH);
            match slave.message("prepare statements", &guarded) {
                Ok(_) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    log::trace!(target: &self.name, "Looking closer: {error}");
                    self.statements.forget();
                    slave.message("take a message back", &format!("{NOT_PREPARED}{}", set_origin(&self.noting)))?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// How many changes fit, and those of them that change anything. `insists`: the server itself refuses what does not touch
    /// exactly one row.
    fn fill<'a>(
        &mut self,
        message: &mut Message,
        changes: impl Iterator<Item = &'a Change>,
        insists: bool,
    ) -> Result<(usize, Vec<&'a Change>)> {
        let (mut taken, mut written) = (0, Vec::new());
        for change in changes.take(MESSAGE_CHANGES) {
            let table = self.cache.get(change)?;
            let shape = Shape::of(change, table, true).map_err(|misfit| misfit_error(change, table, &misfit))?;
            if (taken > 0 && message.text.len() > MESSAGE_BYTES) || (insists && shape.is_twofold(table)) {
                break;
            }
            taken += 1;
            if shape.is_empty() {
                continue;
            }
            written.push(change);
            let prepare = |name: &str| if insists { shape.insist(name, table) } else { shape.prepare(name, table) };
            let key = if insists { AnyShape::Exact(shape.clone()) } else { AnyShape::One(shape.clone()) };
            let name = self.statements.name(key, message, prepare);
            shape.execute(&name, change, table, &mut message.text);
            message.expect(1);
            if !self.deferring {
                let duplicates = conflict::duplicates(change, table);
                self.unchecked.extend(duplicates.map(|duplicate| (change.id, change.txid, duplicate)));
            }
        }
        Ok((taken, written))
    }

    /// Shows what has been, or is to be, replayed.
    pub fn log_changes(&self, changes: Vec<&Change>) {
        for change in changes {
            if let Ok(table) = self.cache.get(change) {
                log_change(&self.name, change, table);
            }
        }
    }
}
