//! Reduces a run of changes to their net effect on each row.
//!
//! Other sessions don't see the states between within one transaction of the slave. So a row that is inserted and then
//! updated twice may just as well be inserted with its last values. What remains is at most one DELETE, one UPDATE and one
//! INSERT of a row, and those of all rows are sent as sets (`sets.rs`): first deletes, because they free unique values,
//! then updates, then inserts.
//!
//! The result is the same only if each effect touches exactly one row, or no row where there should be none. The caller
//! counts the rows; if a number is wrong, it rolls back and replays change by change. So whenever a change does not fit
//! here, it is enough to leave out its table altogether, and the caller replays the changes of that table one after the
//! other.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::{ColumnNames, Row};
use crate::replay::sets::{RowValues, SetShape};
use crate::replay::table::Table;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use whole_rows::WholeRows;

mod whole_rows;

/// Effects of one shape: one statement.
#[derive(Debug)]
pub struct Group<'a> {
    pub shape: SetShape,
    /// The values of each row: those that are written, those of the key, those that are compared.
    pub rows: Vec<Vec<Option<&'a str>>>,
    /// Whether the statement finds a row for each of them, or for none.
    pub rows_exist: bool,
}

/// The groups of one table, in the order in which they have to be executed.
#[derive(Debug)]
pub struct TableEffect<'a> {
    pub table: &'a Table,
    pub relation: &'a str,
    pub groups: Vec<Group<'a>>,
}

/// The net effect of these changes, for the tables where it can be computed, and whether those are all tables. The caller
/// replays all changes of the other tables one after the other. Changes of two tables may be replayed in any order: in the
/// replica role no constraint connects two tables.
pub fn effect<'a>(changes: &'a [Change], table: impl Fn(&Change) -> Option<&'a Table>) -> (Vec<TableEffect<'a>>, bool) {
    let mut tables: Vec<(&str, Option<AnyEffects<'a>>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for changes in changes.chunk_by(|a, b| a.relation == b.relation) {
        let relation = changes[0].relation.as_str();
        let place = *places.entry(relation).or_insert_with(|| {
            let effects = table(&changes[0]).and_then(|table| AnyEffects::new(table, &changes[0]));
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
        all.map(|(relation, effects)| TableEffect { table: effects.table(), relation, groups: effects.groups() });
    (effects.collect(), is_whole)
}

/// The effects on one table, whose rows are found by a key, or by all their values.
enum AnyEffects<'a> {
    ByKey(Effects<'a>),
    ByWholeRow(&'a Table, WholeRows<'a>),
}

impl<'a> AnyEffects<'a> {
    /// `None` if the changes of the table are replayed one after the other; so the first one says.
    fn new(table: &'a Table, change: &Change) -> Option<AnyEffects<'a>> {
        let row = if change.event == Event::Insert { &change.new } else { &change.old };
        if table.allows_sets && table.is_keyless(row) {
            return Some(AnyEffects::ByWholeRow(table, WholeRows::new(table)));
        }
        table.set_key.map(|key| AnyEffects::ByKey(Effects::new(table, key)))
    }

    fn table(&self) -> &'a Table {
        match self {
            AnyEffects::ByKey(effects) => effects.table,
            AnyEffects::ByWholeRow(table, _) => table,
        }
    }

    fn add(&mut self, change: &'a Change) -> Option<()> {
        match self {
            AnyEffects::ByKey(effects) => effects.add(change),
            AnyEffects::ByWholeRow(_, rows) => rows.add(change),
        }
    }

    fn groups(self) -> Vec<Group<'a>> {
        match self {
            AnyEffects::ByKey(effects) => effects.groups(),
            AnyEffects::ByWholeRow(_, rows) => rows.groups(),
        }
    }
}

/// What has happened to one row so far.
struct Effect<'a> {
    key: Vec<&'a str>,
    /// Set if a row that existed before was deleted: its old values, as far as an earlier change named them.
    deleted: Option<RowValues<'a>>,
    state: State<'a>,
}

enum State<'a> {
    /// Not changed; or deleted, if `deleted` is set.
    Untouched,
    Updated {
        set: RowValues<'a>,
        old_values: RowValues<'a>,
    },
    Inserted(RowValues<'a>),
    /// Did not exist before, was inserted, and deleted again.
    InsertedAndDeleted,
}

struct Effects<'a> {
    table: &'a Table,
    key: u16,
    effects: Vec<Effect<'a>>,
    places: HashMap<Cow<'a, str>, usize>,
    mappings: Vec<Mapping>,
}

/// The positions in the table of the columns of logged rows with these names.
struct Mapping {
    names: ColumnNames,
    positions: Vec<Option<u16>>,
    /// Where the key's columns are among the names.
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
        let place = match self.places.get(key_text(&key).as_ref()) {
            Some(place) => *place,
            None => {
                self.places.insert(key_text(&key), self.effects.len());
                self.effects.push(Effect { key, deleted: None, state: State::Untouched });
                self.effects.len() - 1
            }
        };
        match update {
            Some((set, old_values)) => self.effects[place].update(set, old_values),
            None if change.event == Event::Insert => {
                let values = self.new_values(&change.new)?;
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
    fn new_values(&mut self, row: &'a Row) -> Option<RowValues<'a>> {
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

    /// What an UPDATE sets, and the old values of those columns.
    fn update(&mut self, change: &'a Change) -> Option<(RowValues<'a>, RowValues<'a>)> {
        let (old, new) = (&change.old, &change.new);
        let mapping = self.mapping(new.names());
        let whole = Arc::ptr_eq(old.names(), new.names());
        let key = &self.table.keys[usize::from(self.key)];
        let (mut set, mut old_values) = (RowValues::new(), RowValues::new());
        for (place, position) in self.mappings[mapping].positions.iter().enumerate() {
            let value = new.at(place);
            let before = if whole { Some(old.at(place)) } else { old.get(&new.names()[place]) };
            if before == Some(value) && !self.table.is_always_written(&new.names()[place]) {
                continue;
            }
            let position = (*position)?;
            let column = self.table.column(position);
            if column.generated {
                continue;
            }
            // A new key makes it another row, and an identity column may need a DELETE and an INSERT.
            if column.identity_always || key.contains(&position) {
                return None;
            }
            set.push((position, value));
            old_values.extend(before.map(|before| (position, before)));
        }
        Some((set, old_values))
    }

    /// The effects as groups. Those that free unique values come first.
    fn groups(self) -> Vec<Group<'a>> {
        let mut stages: [Stage; 4] = Default::default();
        let (table, key) = (self.table.number, self.key);
        for Effect { key: values, deleted, state } in self.effects {
            let mut emit = |stage: usize, event, written: RowValues<'a>, old_values: RowValues<'a>| {
                stages[stage].add(SetShape::of(table, Some(key), event), written, &values, old_values);
            };
            if let Some(old_values) = deleted {
                emit(1, Event::Delete, RowValues::new(), old_values);
            }
            match state {
                State::Untouched => {}
                State::InsertedAndDeleted => emit(0, Event::Delete, RowValues::new(), RowValues::new()),
                State::Updated { set, old_values } => emit(2, Event::Update, set, old_values),
                State::Inserted(all) => emit(3, Event::Insert, all, RowValues::new()),
            }
        }
        stages[0].groups.iter_mut().for_each(|group| group.rows_exist = false);
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
    fn add(&mut self, mut shape: SetShape, mut written: RowValues<'a>, key: &[&'a str], mut old_values: RowValues<'a>) {
        written.sort_unstable_by_key(|(position, _)| *position);
        old_values.sort_unstable_by_key(|(position, _)| *position);
        shape.written.extend(written.iter().map(|(position, _)| *position));
        shape.guards.extend(old_values.iter().map(|(position, _)| *position));
        let key = if shape.event == Event::Insert { &[] } else { key };
        let values = written.into_iter().map(|(_, value)| value);
        let row =
            values.chain(key.iter().map(|value| Some(*value))).chain(old_values.into_iter().map(|(_, value)| value));
        let place = match self.places.get(&shape) {
            Some(place) => *place,
            None => {
                self.places.insert(shape.clone(), self.groups.len());
                self.groups.push(Group { shape, rows: Vec::new(), rows_exist: true });
                self.groups.len() - 1
            }
        };
        self.groups[place].rows.push(row.collect());
    }
}

impl<'a> Effect<'a> {
    fn insert(&mut self, values: RowValues<'a>) -> Option<()> {
        match self.state {
            State::Untouched | State::InsertedAndDeleted => self.state = State::Inserted(values),
            State::Updated { .. } | State::Inserted(_) => return None,
        }
        Some(())
    }

    fn update(&mut self, set: RowValues<'a>, old_values: RowValues<'a>) -> Option<()> {
        match &mut self.state {
            State::Untouched if self.deleted.is_none() => self.state = State::Updated { set, old_values },
            State::Untouched | State::InsertedAndDeleted => return None,
            State::Inserted(values) => {
                matches_row(values, |position| lookup(&old_values, position))?;
                set.into_iter().for_each(|(position, value)| set_value(values, position, value));
            }
            State::Updated { set: before, old_values: first } => {
                matches_row(before, |position| lookup(&old_values, position))?;
                first.extend(old_values.into_iter().filter(|(position, _)| lookup(before, *position).is_none()));
                set.into_iter().for_each(|(position, value)| set_value(before, position, value));
            }
        }
        Some(())
    }

    fn delete(&mut self, old: impl Fn(u16) -> Option<Option<&'a str>>) -> Option<()> {
        match std::mem::replace(&mut self.state, State::Untouched) {
            State::Untouched if self.deleted.is_none() => self.deleted = Some(RowValues::new()),
            State::Untouched | State::InsertedAndDeleted => return None,
            State::Inserted(values) => {
                matches_row(&values, old)?;
                if self.deleted.is_none() {
                    self.state = State::InsertedAndDeleted;
                }
            }
            State::Updated { set, old_values } => {
                matches_row(&set, old)?;
                self.deleted = Some(old_values);
            }
        }
        Some(())
    }
}

/// Whether a change is about the row to which earlier changes gave these values: then its old values are these values. They
/// differ if several rows share the columns that a trigger created by hand calls a key.
fn matches_row<'a>(given: &RowValues<'a>, old_values: impl Fn(u16) -> Option<Option<&'a str>>) -> Option<()> {
    given
        .iter()
        .all(|(position, value)| old_values(*position).is_none_or(|old_values| old_values == *value))
        .then_some(())
}

fn lookup<'a>(values: &RowValues<'a>, position: u16) -> Option<Option<&'a str>> {
    values.iter().find(|(known, _)| *known == position).map(|(_, value)| *value)
}

fn set_value<'a>(values: &mut RowValues<'a>, position: u16, value: Option<&'a str>) {
    match values.iter_mut().find(|(known, _)| *known == position) {
        Some((_, known)) => *known = value,
        None => values.push((position, value)),
    }
}

/// A key as one text; the lengths keep its parts apart.
fn key_text<'a>(key: &[&'a str]) -> Cow<'a, str> {
    match key {
        [value] => Cow::Borrowed(value),
        _ => Cow::Owned(key.iter().map(|value| format!("{}:{value}", value.len())).collect()),
    }
}

#[cfg(test)]
mod tests;
