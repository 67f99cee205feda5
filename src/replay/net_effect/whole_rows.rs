//! The net effect on a table whose rows no key finds (REPLICA IDENTITY FULL).
//!
//! Rows with equal values can't be told apart, and need not be. So the changes of a run are followed from row to row: an
//! UPDATE or DELETE is of a row that an earlier change has left with these values, if there is one, and of a row that was
//! there before otherwise. What remains is at most one DELETE, one UPDATE and one INSERT statement, in this order, and the
//! first two find rows from before only: whatever values they write, none of them comes in the way of the other.

use super::{Group, Stage};
use crate::backlog::change::{Change, Event};
use crate::backlog::row::{ColumnNames, Row};
use crate::replay::sets::{RowValues, SetShape};
use crate::replay::table::Table;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub(super) struct WholeRows<'a> {
    table: &'a Table,
    /// The columns that tell rows apart, the same for all changes.
    compared: Option<Vec<u16>>,
    traces: Vec<Trace<'a>>,
    /// The traces that lead to a row with these values.
    ends: HashMap<String, Vec<usize>>,
    mappings: Vec<Mapping>,
    /// The columns that some UPDATE changes.
    changed: BTreeSet<u16>,
}

/// What became of a row: the values that it had on the slave before, and those that it has now.
struct Trace<'a> {
    before: Option<&'a Row>,
    after: Option<&'a Row>,
}

/// Where a row with these names has the values of the columns, in the order of the table.
struct Mapping {
    names: ColumnNames,
    compared: Vec<(u16, usize)>,
}

impl<'a> WholeRows<'a> {
    pub fn new(table: &'a Table) -> WholeRows<'a> {
        let (traces, mappings) = Default::default();
        WholeRows { table, compared: None, traces, ends: HashMap::new(), mappings, changed: BTreeSet::new() }
    }

    /// `None` if the change does not fit.
    pub fn add(&mut self, change: &'a Change) -> Option<()> {
        if change.event == Event::Insert {
            let end = self.text(&change.new)?;
            self.traces.push(Trace { before: None, after: Some(&change.new) });
            self.ends.entry(end).or_default().push(self.traces.len() - 1);
            return Some(());
        }
        if !change.has_whole_old_row() {
            return None;
        }
        let begin = self.text(&change.old)?;
        let found = self.ends.get_mut(&begin).and_then(Vec::pop);
        let trace = found.unwrap_or_else(|| {
            self.traces.push(Trace { before: Some(&change.old), after: None });
            self.traces.len() - 1
        });
        self.traces[trace].after = None;
        if change.event == Event::Update {
            let end = self.text(&change.new)?;
            self.note_changed(change)?;
            self.traces[trace].after = Some(&change.new);
            self.ends.entry(end).or_default().push(trace);
        }
        Some(())
    }

    fn note_changed(&mut self, change: &Change) -> Option<()> {
        for name in change.new.names().iter().filter(|name| change.changes(name)) {
            let position = self.table.position(name)?;
            let column = self.table.column(position);
            // An identity column may need a DELETE and an INSERT.
            if column.identity_always {
                return None;
            }
            if !column.generated {
                self.changed.insert(position);
            }
        }
        Some(())
    }

    /// The values of a row as one text; the lengths keep them apart.
    fn text(&mut self, row: &Row) -> Option<String> {
        let mapping = self.mapping(row)?;
        let mut text = String::with_capacity(row.bytes() + 8 * row.len());
        for (_, place) in &self.mappings[mapping].compared {
            match row.at(*place) {
                Some(value) => text.push_str(&format!("{}:{value}", value.len())),
                None => text.push('-'),
            }
        }
        Some(text)
    }

    fn mapping(&mut self, row: &Row) -> Option<usize> {
        let names = row.names();
        if let Some(place) = self.mappings.iter().position(|mapping| Arc::ptr_eq(&mapping.names, names)) {
            return Some(place);
        }
        if !self.table.is_keyless(row) || !names.iter().all(|name| self.table.has(name)) {
            return None;
        }
        let columns = self.table.compared(row);
        if columns.is_empty() || self.compared.get_or_insert_with(|| columns.clone()) != &columns {
            return None;
        }
        let place = |p: &u16| names.iter().position(|name| *name == self.table.column(*p).name);
        let compared = columns.iter().filter_map(|p| Some((*p, place(p)?))).collect();
        self.mappings.push(Mapping { names: names.clone(), compared });
        Some(self.mappings.len() - 1)
    }

    fn values(&self, row: &'a Row, of: impl Fn(u16) -> bool) -> RowValues<'a> {
        let mapping = self.mappings.iter().find(|mapping| Arc::ptr_eq(&mapping.names, row.names()));
        let columns = mapping.map_or(&[][..], |mapping| &mapping.compared).iter();
        columns.filter(|(p, _)| of(*p)).map(|(p, place)| (*p, row.at(*place))).collect()
    }

    pub fn groups(self) -> Vec<Group<'a>> {
        let mut stages: [Stage; 3] = Default::default();
        for Trace { before, after } in &self.traces {
            let (stage, event) = match (before, after) {
                (Some(_), None) => (0, Event::Delete),
                (Some(_), Some(_)) if self.changed.is_empty() => continue,
                (Some(_), Some(_)) => (1, Event::Update),
                (None, Some(_)) => (2, Event::Insert),
                (None, None) => continue,
            };
            // All UPDATEs write the same columns, so that they are one statement.
            let is_written = |p: u16| event == Event::Insert || self.changed.contains(&p);
            let written = after.map_or(RowValues::new(), |row| self.values(row, is_written));
            let old = before.map_or(RowValues::new(), |row| self.values(row, |_| true));
            stages[stage].add(SetShape::of(self.table.number, None, event), written, &[], old);
        }
        stages.into_iter().flat_map(|stage| stage.groups).collect()
    }
}
