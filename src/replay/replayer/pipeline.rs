//! Sets of changes, composed while the slave works on those before.
//!
//! One composed message may be waiting. It is sent when the next one is to be composed, or by `settle`, which everything
//! else that is asked of the slave begins with; so the order of replay is never another one.

use super::message::{AnyShape, Message};
use super::{Replayer, log_change};
use crate::backlog::change::{Change, Event};
use crate::base::error::Result;
use crate::replay::net_effect::{self, Group, TableEffect};
use crate::replay::sets;
use crate::replay::sql;
use crate::replay::table::Table;
use crate::server::session::Session;
use std::collections::HashSet;

/// From so many rows on, COPY saves more than its additional round trips cost.
const COPY_ROWS: usize = 500;

/// The net effect of changes as one message, and the changes themselves in case that it fails.
pub(super) struct Sets {
    message: Message,
    changes: Vec<Change>,
    /// The tables whose changes are in it, and whether that is all of them.
    done: HashSet<String>,
    is_whole: bool,
    /// The origin that the message leaves behind.
    noting: String,
}

impl Sets {
    fn left(&self) -> Vec<&Change> {
        if self.is_whole {
            return Vec::new();
        }
        self.changes.iter().filter(|change| !self.done.contains(&change.relation)).collect()
    }
}

impl Replayer {
    /// Sends what was composed and has not been sent yet. Whatever else is to be asked of the slave comes after that.
    pub fn settle(&mut self, slave: &mut Session) -> Result<()> {
        let Some(sets) = self.waiting.take() else { return Ok(()) };
        let left = if self.send(slave, &sets.message)? {
            self.log_replayed(&sets);
            sets.left()
        } else {
            sets.changes.iter().collect()
        };
        self.in_messages(slave, &left)
    }

    /// Replays the net effect of what can be replayed so, and the rest change by change. While the slave works on the effect of
    /// the changes before, that of these is composed.
    pub(super) fn as_sets(&mut self, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        self.make_room(slave)?;
        let next = match self.waiting.take() {
            None => self.compose_sets(changes),
            Some(sets) if !self.prepare(slave, &sets.message)? => {
                self.in_messages(slave, &sets.changes.iter().collect::<Vec<_>>())?;
                self.compose_sets(changes)
            }
            Some(sets) => {
                self.in_savepoint = true;
                let compose = || self.compose_sets(changes);
                let (answer, next) = slave.ask_while(|slave| sets.message.send(slave), compose);
                let noting = std::mem::replace(&mut self.noting, sets.noting.clone());
                if self.is_met(slave, &sets.message, answer)? {
                    self.noting = noting;
                    self.log_replayed(&sets);
                    next
                } else {
                    self.in_messages(slave, &sets.changes.iter().collect::<Vec<_>>())?;
                    self.compose_sets(next.changes)
                }
            }
        };
        let is_whole = next.is_whole;
        self.waiting = Some(next);
        if is_whole { Ok(()) } else { self.settle(slave) }
    }

    /// Drops all prepared statements if there are too many.
    pub(super) fn make_room(&mut self, slave: &mut Session) -> Result<()> {
        if self.statements.are_many() {
            self.settle(slave)?;
            slave.message("forget prepared statements", &self.statements.drop_all())?;
        }
        Ok(())
    }

    fn compose_sets(&mut self, changes: Vec<Change>) -> Sets {
        let mut message = self.opening(&changes[0]);
        let (effects, is_whole) = net_effect::effect(&changes, |change| self.cache.get(change).ok());
        let done = effects.iter().map(|effect| effect.relation.to_string()).collect();
        if let Some((table, Group { shape, rows, .. })) = many_new_rows(&effects) {
            message.copy(shape.copy(table), sets::copied(rows), rows.len() as u64);
        } else {
            for TableEffect { table, groups, .. } in &effects {
                for Group { shape, rows, found } in groups {
                    let shape = shape.suited(table, rows);
                    let name =
                        self.statements.name(AnyShape::Set(shape.clone()), &mut message, |n| shape.prepare(n, table));
                    shape.execute(&name, rows, &mut message.text);
                    message.expect(if *found { rows.len() as u64 } else { 0 });
                }
            }
        }
        message.close(sql::OWN_PATH);
        Sets { message, changes, done, is_whole, noting: self.noting.clone() }
    }

    fn log_replayed(&self, sets: &Sets) {
        if !log::log_enabled!(target: &self.name, log::Level::Debug) {
            return;
        }
        for change in sets.changes.iter().filter(|change| sets.done.contains(&change.relation)) {
            if let Ok(table) = self.cache.get(change) {
                log_change(&self.name, change, table);
            }
        }
    }
}

/// The new rows of one table, if they are many and nothing else is to be done.
fn many_new_rows<'a>(effects: &'a [TableEffect]) -> Option<(&'a Table, &'a Group<'a>)> {
    let [TableEffect { table, groups, .. }] = effects else { return None };
    let [group] = groups.as_slice() else { return None };
    (group.shape.event == Event::Insert && group.rows.len() >= COPY_ROWS).then_some((table, group))
}
