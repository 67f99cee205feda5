//! The net effect of a run of changes: what they come to for each table and key.
//!
//! Nobody sees the states between within one transaction of the slave, so a row that is inserted and updated twice may as
//! well be inserted as it ends. What is left is at most one DELETE, one UPDATE and one INSERT a row, and those of all rows
//! go out as sets (`sets.rs`): deletes first, since they make room, then updates, then inserts.
//!
//! That this comes to the same rests on each effect touching exactly one row, or none, which is counted; the caller takes
//! it all back otherwise and replays change by change. So whatever is in doubt here need only be left to that: a table
//! is left out altogether as soon as one of its changes does not fit.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::{ColumnNames, Row};
use crate::replay::sets::{RowValues, SetShape};
use crate::replay::table::Table;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Effects of one shape: one statement.
#[derive(Debug)]
pub struct Group<'a> {
    pub shape: SetShape,
    /// The values of each row: those written, those of the key, those insisted on.
    pub rows: Vec<Vec<Option<&'a str>>>,
    /// Whether a row is found for each of them, or for none.
    pub found: bool,
}

/// The groups of one table, in the order they are to be executed in.
#[derive(Debug)]
pub struct TableEffect<'a> {
    pub table: &'a Table,
    pub relation: &'a str,
    pub groups: Vec<Group<'a>>,
}

/// The net effect of these changes, as far as they are of tables that it can be had for; all changes of other tables are to
/// be replayed one after the other, and whether there are none. Changes of two tables may be replayed in any order: no
/// constraint reaches from one to the other in the replica role.
pub fn effect<'a>(changes: &'a [Change], table: impl Fn(&Change) -> Option<&'a Table>) -> (Vec<TableEffect<'a>>, bool) {
    let mut tables: Vec<(&str, Option<Effects<'a>>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for changes in changes.chunk_by(|a, b| a.relation == b.relation) {
        let relation = changes[0].relation.as_str();
        let place = *places.entry(relation).or_insert_with(|| {
            let effects = table(&changes[0]).and_then(|table| table.set_key.map(|key| Effects::new(table, key)));
            tables.push((relation, effects));
            tables.len() - 1
        });
        let (_, effects) = &mut tables[place];
        if effects.as_mut().is_some_and(|effects| !changes.iter().all(|change| effects.add(change).is_some())) {
            *effects = None;
        }
    }
    let is_whole = tables.iter().all(|(_, effects)| effects.is_some());
    let all = tables.into_iter().filter_map(|(relation, effects)| Some((relation, effects?)));
    let effects =
        all.map(|(relation, effects)| TableEffect { table: effects.table, relation, groups: effects.groups() });
    (effects.collect(), is_whole)
}

/// What has happened to one row so far.
struct Effect<'a> {
    key: Vec<&'a str>,
    /// A row that was there before has been deleted; what it held, where an earlier change said so.
    deleted: Option<RowValues<'a>>,
    now: Now<'a>,
}

enum Now<'a> {
    /// As it was, or not there any more if it has been deleted.
    Untouched,
    Updated {
        set: RowValues<'a>,
        held: RowValues<'a>,
    },
    Inserted(RowValues<'a>),
    /// Was not there before, was inserted, and deleted again.
    Gone,
}

struct Effects<'a> {
    table: &'a Table,
    key: u16,
    effects: Vec<Effect<'a>>,
    places: HashMap<Cow<'a, str>, usize>,
    mappings: Vec<Mapping>,
}

/// Where the columns of logged rows with these names are in the table.
struct Mapping {
    names: ColumnNames,
    positions: Vec<Option<u16>>,
    /// The places of the key's columns.
    key: Option<Vec<usize>>,
}

impl<'a> Effects<'a> {
    fn new(table: &'a Table, key: u16) -> Effects<'a> {
        Effects { table, key, effects: Vec::new(), places: HashMap::new(), mappings: Vec::new() }
    }

    /// `None` if the change does not fit.
    fn add(&mut self, change: &'a Change) -> Option<()> {
        let row = if change.event == Event::Insert { &change.new } else { &change.old };
        let mapping = self.mapping(row.names());
        let key: Vec<&str> =
            self.mappings[mapping].key.as_ref()?.iter().map(|place| row.at(*place)).collect::<Option<_>>()?;
        let update = match change.event {
            Event::Update => Some(self.update(change)?),
            _ => None,
        };
        let place = match self.places.get(joined(&key).as_ref()) {
            Some(place) => *place,
            None => {
                self.places.insert(joined(&key), self.effects.len());
                self.effects.push(Effect { key, deleted: None, now: Now::Untouched });
                self.effects.len() - 1
            }
        };
        match update {
            Some((set, held)) => self.effects[place].update(set, held),
            None if change.event == Event::Insert => {
                let values = self.all(&change.new)?;
                self.effects[place].insert(values)
            }
            None => {
                let table = self.table;
                self.effects[place].delete(|position| change.old.get(&table.column(position).name))
            }
        }
    }

    fn mapping(&mut self, names: &ColumnNames) -> usize {
        if let Some(place) = self.mappings.iter().position(|mapping| Arc::ptr_eq(&mapping.names, names)) {
            return place;
        }
        let positions: Vec<Option<u16>> = names.iter().map(|name| self.table.position(name)).collect();
        let columns = self.table.keys[usize::from(self.key)].iter();
        let key = columns.map(|column| positions.iter().position(|p| *p == Some(*column))).collect();
        self.mappings.push(Mapping { names: names.clone(), positions, key });
        self.mappings.len() - 1
    }

    /// All values of a new row.
    fn all(&mut self, row: &'a Row) -> Option<RowValues<'a>> {
        let mapping = self.mapping(row.names());
        let mut values = RowValues::with_capacity(row.len());
        for (place, position) in self.mappings[mapping].positions.iter().enumerate() {
            let position = (*position)?;
            if !self.table.column(position).generated {
                values.push((position, row.at(place)));
            }
        }
        Some(values)
    }

    /// What an UPDATE sets, and what those columns held.
    fn update(&mut self, change: &'a Change) -> Option<(RowValues<'a>, RowValues<'a>)> {
        let (old, new) = (&change.old, &change.new);
        let mapping = self.mapping(new.names());
        let whole = Arc::ptr_eq(old.names(), new.names());
        let key = &self.table.keys[usize::from(self.key)];
        let (mut set, mut held) = (RowValues::new(), RowValues::new());
        for (place, position) in self.mappings[mapping].positions.iter().enumerate() {
            let value = new.at(place);
            let before = if whole { Some(old.at(place)) } else { old.get(&new.names()[place]) };
            if before == Some(value) && !self.table.is_written_anyway(&new.names()[place]) {
                continue;
            }
            let position = (*position)?;
            let column = self.table.column(position);
            if column.generated {
                continue;
            }
            // A new key makes it another row, and an identity column may ask for a DELETE and an INSERT.
            if column.identity_always || key.contains(&position) {
                return None;
            }
            set.push((position, value));
            held.extend(before.map(|before| (position, before)));
        }
        Some((set, held))
    }

    /// What vacates comes first.
    fn groups(self) -> Vec<Group<'a>> {
        let mut stages: [Stage; 4] = Default::default();
        let (table, key) = (self.table.number, self.key);
        for Effect { key: values, deleted, now } in self.effects {
            let mut emit = |stage: usize, event, written: RowValues<'a>, held: RowValues<'a>| {
                stages[stage].add(SetShape::of(table, key, event), written, &values, held);
            };
            if let Some(held) = deleted {
                emit(1, Event::Delete, RowValues::new(), held);
            }
            match now {
                Now::Untouched => {}
                Now::Gone => emit(0, Event::Delete, RowValues::new(), RowValues::new()),
                Now::Updated { set, held } => emit(2, Event::Update, set, held),
                Now::Inserted(all) => emit(3, Event::Insert, all, RowValues::new()),
            }
        }
        stages[0].groups.iter_mut().for_each(|group| group.found = false);
        stages.into_iter().flat_map(|stage| stage.groups).collect()
    }
}

/// Groups of one event.
#[derive(Default)]
struct Stage<'a> {
    groups: Vec<Group<'a>>,
    places: HashMap<SetShape, usize>,
}

impl<'a> Stage<'a> {
    fn add(&mut self, mut shape: SetShape, mut written: RowValues<'a>, key: &[&'a str], mut held: RowValues<'a>) {
        written.sort_unstable_by_key(|(position, _)| *position);
        held.sort_unstable_by_key(|(position, _)| *position);
        shape.written.extend(written.iter().map(|(position, _)| *position));
        shape.guards.extend(held.iter().map(|(position, _)| *position));
        let key = if shape.event == Event::Insert { &[] } else { key };
        let values = written.into_iter().map(|(_, value)| value);
        let row = values.chain(key.iter().map(|value| Some(*value))).chain(held.into_iter().map(|(_, value)| value));
        let place = match self.places.get(&shape) {
            Some(place) => *place,
            None => {
                self.places.insert(shape.clone(), self.groups.len());
                self.groups.push(Group { shape, rows: Vec::new(), found: true });
                self.groups.len() - 1
            }
        };
        self.groups[place].rows.push(row.collect());
    }
}

impl<'a> Effect<'a> {
    fn insert(&mut self, values: RowValues<'a>) -> Option<()> {
        match self.now {
            Now::Untouched | Now::Gone => self.now = Now::Inserted(values),
            Now::Updated { .. } | Now::Inserted(_) => return None,
        }
        Some(())
    }

    fn update(&mut self, set: RowValues<'a>, held: RowValues<'a>) -> Option<()> {
        match &mut self.now {
            Now::Untouched if self.deleted.is_none() => self.now = Now::Updated { set, held },
            Now::Untouched | Now::Gone => return None,
            Now::Inserted(values) => {
                follows(values, |position| lookup(&held, position))?;
                set.into_iter().for_each(|(position, value)| put(values, position, value));
            }
            Now::Updated { set: before, held: first } => {
                follows(before, |position| lookup(&held, position))?;
                first.extend(held.into_iter().filter(|(position, _)| lookup(before, *position).is_none()));
                set.into_iter().for_each(|(position, value)| put(before, position, value));
            }
        }
        Some(())
    }

    fn delete(&mut self, old: impl Fn(u16) -> Option<Option<&'a str>>) -> Option<()> {
        match std::mem::replace(&mut self.now, Now::Untouched) {
            Now::Untouched if self.deleted.is_none() => self.deleted = Some(RowValues::new()),
            Now::Untouched | Now::Gone => return None,
            Now::Inserted(values) => {
                follows(&values, old)?;
                if self.deleted.is_none() {
                    self.now = Now::Gone;
                }
            }
            Now::Updated { set, held } => {
                follows(&set, old)?;
                self.deleted = Some(held);
            }
        }
        Some(())
    }
}

/// Whether a change is about the row that these values were given to: what it says the row held is what was given. It is
/// not where several rows share what a trigger made by hand calls a key.
fn follows<'a>(given: &RowValues<'a>, held: impl Fn(u16) -> Option<Option<&'a str>>) -> Option<()> {
    given.iter().all(|(position, value)| held(*position).is_none_or(|held| held == *value)).then_some(())
}

fn lookup<'a>(values: &RowValues<'a>, position: u16) -> Option<Option<&'a str>> {
    values.iter().find(|(known, _)| *known == position).map(|(_, value)| *value)
}

fn put<'a>(values: &mut RowValues<'a>, position: u16, value: Option<&'a str>) {
    match values.iter_mut().find(|(known, _)| *known == position) {
        Some((_, known)) => *known = value,
        None => values.push((position, value)),
    }
}

/// A key as one text; the lengths keep its parts apart.
fn joined<'a>(key: &[&'a str]) -> Cow<'a, str> {
    match key {
        [value] => Cow::Borrowed(value),
        _ => Cow::Owned(key.iter().map(|value| format!("{}:{value}", value.len())).collect()),
    }
}

#[cfg(test)]
mod tests;
