//! Composes sets of changes while the slave executes the sets before.
//!
//! At most one composed message waits to be sent. The replayer sends it when it composes the next one, or by `flush`. Every
//! function that sends something else to the slave calls `flush` first, so all changes are replayed in order.

use super::message::{AnyShape, Message};
use super::{MIN_CHANGES_FOR_SETS, Replayer, log_change};
use crate::backlog::change::{Change, Event};
use crate::base::error::Result;
use crate::replay::net_effect::{self, Group, TableEffect};
use crate::replay::sets;
use crate::replay::sql;
use crate::replay::table::Table;
use crate::server::session::Session;
use std::collections::HashSet;

/// With this many rows or more, COPY saves more time than its additional round trips cost.
const COPY_ROWS: usize = 500;

/// The net effect of changes as one message, and the changes themselves in case the message fails.
pub(super) struct Sets {
    message: Message,
    changes: Vec<Change>,
    /// The tables whose changes the message writes, and whether those are the tables of all changes.
    relations: HashSet<String>,
    is_whole: bool,
    /// The origin that is set when the message has been executed.
    origin_after: String,
}

impl Sets {
    fn into_remaining(self) -> Vec<Change> {
        if self.is_whole {
            return Vec::new();
        }
        self.changes.into_iter().filter(|change| !self.relations.contains(&change.relation)).collect()
    }
}

impl Replayer {
    /// Sends the composed message, if there is one. Everything else that is sent to the slave has to come after that.
    pub fn flush(&mut self, slave: &mut Session) -> Result<()> {
        let Some(sets) = self.composed.take() else { return Ok(()) };
        self.send_sets(slave, sets)
    }

    fn send_sets(&mut self, slave: &mut Session, sets: Sets) -> Result<()> {
        if !self.send(slave, &sets.message)? {
            return self.look_closer(slave, sets.changes);
        }
        self.log_replayed(&sets);
        self.look_closer(slave, sets.into_remaining())
    }

    /// Replays changes that the slave has refused as sets, or that are no set together. To find a row by all its values may take a scan
    /// of the table, for a set as for a single row. So such changes are sent as two smaller sets, until the few are found that do not
    /// fit.
    fn look_closer(&mut self, slave: &mut Session, mut changes: Vec<Change>) -> Result<()> {
        let is_slow = |change: &Change| self.cache.get(change).is_ok_and(|table| table.is_found_by_whole_row(change));
        if (changes.len() as u64) < MIN_CHANGES_FOR_SETS || !changes.iter().any(is_slow) {
            return self.in_messages(slave, &changes.iter().collect::<Vec<_>>());
        }
        let second = changes.split_off(changes.len() / 2);
        for half in [changes, second] {
            self.limit_prepared(slave)?;
            let sets = self.compose_sets(half);
            self.send_sets(slave, sets)?;
        }
        Ok(())
    }

    /// Replays the net effect of the changes of those tables where this is possible, and the other changes in messages.
    /// Composes the net effect while the slave executes the message before.
    pub(super) fn as_sets(&mut self, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        self.limit_prepared(slave)?;
        let next = match self.composed.take() {
            None => self.compose_sets(changes),
            Some(sets) if !self.prepare(slave, &sets.message)? => {
                self.look_closer(slave, sets.changes)?;
                self.compose_sets(changes)
            }
            Some(sets) => {
                self.savepoint = Some(sets.message.savepoint);
                let compose = || self.compose_sets(changes);
                let (answer, next) = slave.ask_while(|slave| sets.message.send(slave), compose);
                let origin = std::mem::replace(&mut self.current_origin, sets.origin_after.clone());
                if self.accept_or_roll_back(slave, &sets.message, answer)? {
                    self.current_origin = origin;
                    self.log_replayed(&sets);
                    next
                } else {
                    self.statements.discard(&next.message);
                    self.look_closer(slave, sets.changes)?;
                    self.compose_sets(next.changes)
                }
            }
        };
        let is_whole = next.is_whole;
        self.composed = Some(next);
        if is_whole { Ok(()) } else { self.flush(slave) }
    }

    /// Deallocates all prepared statements if there are too many, known or forgotten. A single transaction may leave thousands.
    pub(super) fn limit_prepared(&mut self, slave: &mut Session) -> Result<()> {
        if self.statements.have_leaked() {
            self.flush(slave)?;
            slave.deallocate_all()?;
            self.statements.deallocated();
            self.cache.forget_prepared();
        }
        if self.statements.are_too_many() {
            self.flush(slave)?;
            slave.message("deallocate prepared statements", &self.statements.drop_all())?;
        }
        Ok(())
    }

    fn compose_sets(&mut self, changes: Vec<Change>) -> Sets {
        let mut message = self.opening(&changes[0], &changes);
        let (effects, is_whole) = net_effect::effect(&changes, |change| self.cache.get(change).ok());
        let relations = effects.iter().map(|effect| effect.relation.to_string()).collect();
        if let Some((table, Group { shape, rows, .. })) = many_new_rows(&effects) {
            message.copy(shape.copy(table), sets::copy_rows(rows), rows.len() as u64);
        } else {
            for TableEffect { table, groups, .. } in &effects {
                for Group { shape, rows, rows_exist } in groups {
                    let shape = shape.with_single_values(table, rows);
                    let name =
                        self.statements.name(AnyShape::Set(shape.clone()), &mut message, |n| shape.prepare(n, table));
                    let (planning, after) = shape.planning(table).unzip();
                    planning.iter().for_each(|settings| message.push(settings));
                    shape.execute(&name, rows, &mut message.text);
                    message.expect(if *rows_exist { rows.len() as u64 } else { 0 });
                    after.iter().for_each(|settings| message.push(settings));
                }
            }
        }
        message.close(sql::DAEMON_PATH);
        Sets { message, changes, relations, is_whole, origin_after: self.current_origin.clone() }
    }

    fn log_replayed(&self, sets: &Sets) {
        if !log::log_enabled!(target: &self.name, log::Level::Debug) {
            return;
        }
        for change in sets.changes.iter().filter(|change| sets.relations.contains(&change.relation)) {
            if let Ok(table) = self.cache.get(change) {
                log_change(&self.name, change, table);
            }
        }
    }
}

/// The new rows of one table, if they are many and there is no other effect.
fn many_new_rows<'a>(effects: &'a [TableEffect]) -> Option<(&'a Table, &'a Group<'a>)> {
    let [TableEffect { table, groups, .. }] = effects else { return None };
    let [group] = groups.as_slice() else { return None };
    (group.shape.event == Event::Insert && group.rows.len() >= COPY_ROWS).then_some((table, group))
}
