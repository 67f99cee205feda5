//! The statements with which the message for a few changes begins: they lock the tables, fail if one has changed, and note the batch.

use super::{TableCache, array, lock};
use crate::backlog::change::Change;
use crate::replay::sql;
use std::collections::HashMap;

/// So many tables are watched by a prepared statement each, which takes some 10 kB on the server.
const MAX_WATCHED: usize = 1_000;

/// A statement that notes the batch in whose transaction it runs, if a condition is true. Otherwise it fails.
pub struct Note {
    /// The statement, from the condition. It is always the same one.
    pub statement: fn(&str) -> String,
    /// Its parameters.
    pub types: &'static str,
    pub values: [String; 8],
}

/// The names of statements that are prepared.
#[derive(Default)]
pub(super) struct Noting {
    /// Compares fingerprints.
    comparison: Option<String>,
    note: Option<String>,
    /// For each table the one that fails if the table may have changed.
    watches: HashMap<String, String>,
}

impl Noting {
    /// The table has changed.
    pub(super) fn forget(&mut self, relation: &str) {
        self.watches.remove(relation);
    }
}

impl TableCache {
    /// The statements that lock the tables of these changes, fail if one has changed, and run the note if the query `and_none` finds no
    /// row. None if a table is unknown or lacks a column.
    pub fn lock_and_note(&mut self, changes: &[Change], and_none: Option<&str>, note: &Note) -> Option<Vec<String>> {
        if !changes.iter().all(|change| self.has_all_columns(change)) {
            return None;
        }
        let relations = self.not_yet_locked(changes);
        let mut statements: Vec<String> = relations.iter().map(|relation| lock(relation)).collect();
        let (watched, others): (Vec<&str>, Vec<&str>) =
            relations.into_iter().partition(|relation| self.noting.watches.contains_key(*relation));
        statements.extend(watched.iter().map(|relation| format!("EXECUTE {}", self.noting.watches[*relation])));
        if !others.is_empty() {
            self.compare(&others, &mut statements);
        }
        let name = self.noting.note.take().unwrap_or_else(|| {
            let name = self.new_name();
            let condition = and_none.map_or("true".to_string(), |query| format!("NOT EXISTS ({query})"));
            statements.push(format!("PREPARE {name} ({}) AS {}", note.types, (note.statement)(&condition)));
            name
        });
        statements.push(format!("EXECUTE {name} ({})", note.values.join(", ")));
        self.noting.note = Some(name);
        Some(statements)
    }

    /// Adds the statements that compare the fingerprints of these tables, and those that watch them from now on.
    fn compare(&mut self, relations: &[&str], statements: &mut Vec<String>) {
        for relation in relations {
            let is_plain = self.known.get(*relation).is_some_and(|table| !table.partitioned);
            if is_plain && self.noting.watches.len() < MAX_WATCHED {
                let name = self.new_name();
                statements.push(format!("PREPARE {name} AS {}", sql::watch(relation)));
                self.noting.watches.insert(relation.to_string(), name);
            }
        }
        let name = self.noting.comparison.take().unwrap_or_else(|| {
            let name = self.new_name();
            statements.push(format!("PREPARE {name} (text[], text[]) AS {}", sql::compare_fingerprints()));
            name
        });
        let fingerprints =
            relations.iter().filter_map(|relation| Some(self.known.get(*relation)?.fingerprint.as_str()));
        let (fingerprints, relations) = (array(fingerprints), array(relations.iter().copied()));
        statements.push(format!("EXECUTE {name} ({relations}, {fingerprints})"));
        self.noting.comparison = Some(name);
    }
}
