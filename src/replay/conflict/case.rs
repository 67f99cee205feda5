//! One conflict: which kind it is, which side wins, and what is written.

use super::{Candidate, ConflictRecord, candidates, execute_alone, mismatch_error, most_similar, value_text, write_at};
use crate::backlog::change::{Change, Event};
use crate::backlog::row::{Row, text_array};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::base::phrases::counted;
use crate::base::shown::listed;
use crate::config::conflict_policy::{Conflict, ConflictAction, ConflictPolicies};
use crate::replay::statements::{Shape, instruction, outline};
use crate::replay::table::Table;
use crate::server::session::Session;

const KEPT: &str = "the slave's row was kept";
const APPLIED: &str = "the master's values were applied";
const NOTHING: &str = "nothing";
const REFUSED: &str = "the slave did not take the change: does a trigger, a rule or a policy of the slave suppress it?";

const TELL_APART: &str = "the slave's rows can't be told apart: give the table a primary key on both sides; correct the row by \
     hand, and give the change up with pyreplica skip";

/// A change whose statement did not touch exactly one row.
pub(super) struct Case<'a> {
    pub table: &'a Table,
    pub change: &'a Change,
    /// Free for a prepared statement.
    pub name: &'a str,
    pub policies: &'a ConflictPolicies,
    /// The text for the log has the values of the rows.
    pub tells_values: bool,
}

impl Case<'_> {
    /// An UPDATE that compares the old values has found no row: the row differs, or it is missing.
    pub fn differs_or_missing(&self, slave: &mut Session) -> Result<Option<ConflictRecord>> {
        let candidates = candidates(slave, self.table, self.change)?;
        let Some(found) = most_similar(&candidates) else { return self.missing(Conflict::UpdateMissing).map(Some) };
        let what = self.differences(found);
        let action = self.action(Conflict::UpdateDiffers);
        let record = |done, is_warning| {
            let text = format!("{what}; {done}");
            Ok(Some(self.record(Conflict::UpdateDiffers, Some(found), &text, done, is_warning)))
        };
        let refused = || {
            let text = if what.is_empty() { REFUSED.to_string() } else { format!("{what}; {REFUSED}") };
            Ok(Some(self.record(Conflict::UpdateDiffers, Some(found), &text, NOTHING, true)))
        };
        match &action {
            ConflictAction::Error => Err(self.differs_error(found)),
            ConflictAction::Skip => record(KEPT, false),
            ConflictAction::Newest(column) if self.is_newer(slave, found, column)? => {
                if self.overwrite(slave, found)? {
                    record(APPLIED, false)
                } else {
                    refused()
                }
            }
            ConflictAction::Newest(_) => record(KEPT, false),
            ConflictAction::Warn => {
                let is_taken = if candidates.len() == 1 {
                    let shape = Shape::of(self.change, self.table, false);
                    let shape = shape.map_err(|mismatch| mismatch_error(self.change, self.table, &mismatch))?;
                    execute_alone(slave, self.name, &shape, self.table, self.change)? == 1
                } else {
                    write_at(slave, self.table, self.change, &found.location)?
                };
                if is_taken { record(APPLIED, true) } else { refused() }
            }
        }
    }

    /// The row to be updated or deleted is missing, so nothing is written.
    pub fn missing(&self, conflict: Conflict) -> Result<ConflictRecord> {
        let what = "the row is missing on the slave";
        match self.action(conflict) {
            ConflictAction::Error => Err(self.conflict_error(what)),
            action => Ok(self.record(conflict, None, what, NOTHING, action == ConflictAction::Warn)),
        }
    }

    /// Several rows have the key. The change is meant for the row that is equal to the master's old row in every column.
    pub fn exactly_one(&self, slave: &mut Session, rows: u64) -> Result<Option<ConflictRecord>> {
        let candidates = candidates(slave, self.table, self.change)?;
        let Some(found) = most_similar(&candidates) else {
            let conflict =
                if self.change.event == Event::Delete { Conflict::DeleteMissing } else { Conflict::UpdateMissing };
            return self.missing(conflict).map(Some);
        };
        if candidates.iter().filter(|candidate| is_equal(candidate)).count() > 1 && !self.change.has_whole_old_row() {
            let what = "several rows of the slave are what the log holds of the row";
            return Err(self.conflict_error(what).with_hint(TELL_APART));
        }
        let is_taken = write_at(slave, self.table, self.change, &found.location)?;
        if !is_taken {
            return Ok(Some(self.record(Conflict::UpdateDiffers, Some(found), REFUSED, NOTHING, true)));
        }
        let equal = is_equal(found);
        let what = "several rows have the key; the change was applied to the most similar one";
        Ok((!equal).then(|| {
            let mut record = self.record(Conflict::UpdateDiffers, Some(found), what, APPLIED, true);
            record.text = record.text.replacen("(0 rows", &format!("({}", counted(rows, "row")), 1);
            record
        }))
    }

    /// Another row has a unique value of the new row. The change has been rolled back.
    pub fn exists(&self, slave: &mut Session, error: Error) -> Result<ConflictRecord> {
        let insert = self.change.event == Event::Insert;
        let conflict = if insert { Conflict::InsertExists } else { Conflict::UpdateExists };
        let action = self.action(conflict);
        if action == ConflictAction::Error {
            return Err(error);
        }
        let candidates = if insert { candidates(slave, self.table, self.change)? } else { Vec::new() };
        let found = candidates.first();
        let said = if self.tells_values { error.detail() } else { error.bare_detail() };
        let record = |done, is_warning| {
            let text = format!("{said}; {done}");
            Ok(self.record(conflict, found, &text, done, is_warning))
        };
        match (&action, found) {
            (ConflictAction::Skip, _) => record(KEPT, false),
            // The constraint is not the key's, or the change is an UPDATE: two rows cannot become one.
            (_, None) => Err(error),
            (ConflictAction::Newest(column), Some(row)) if !self.is_newer(slave, row, column)? => record(KEPT, false),
            (_, Some(row)) => {
                if self.overwrite(slave, row)? {
                    return record(APPLIED, action == ConflictAction::Warn);
                }
                Ok(self.record(conflict, found, &format!("{said}; {REFUSED}"), NOTHING, true))
            }
        }
    }

    /// A DELETE with a rule for `delete_differs`: the row is compared before it is deleted.
    pub fn delete_compared(&self, slave: &mut Session, shape: &Shape) -> Result<Option<ConflictRecord>> {
        let candidates = candidates(slave, self.table, self.change)?;
        let Some(found) = most_similar(&candidates) else { return self.missing(Conflict::DeleteMissing).map(Some) };
        let what = self.differences(found);
        let action = if what.is_empty() { ConflictAction::Warn } else { self.action(Conflict::DeleteDiffers) };
        let record = |done, is_warning| {
            Some(self.record(Conflict::DeleteDiffers, Some(found), &format!("{what}; {done}"), done, is_warning))
        };
        match action {
            ConflictAction::Error => return Err(self.differs_error(found)),
            ConflictAction::Skip => return Ok(record(KEPT, false)),
            // The master's row is deleted and has no value for newest() to compare: the DELETE wins.
            ConflictAction::Newest(_) | ConflictAction::Warn => {}
        }
        let is_taken = if candidates.len() == 1 {
            execute_alone(slave, self.name, shape, self.table, self.change)? == 1
        } else {
            write_at(slave, self.table, self.change, &found.location)?
        };
        if !is_taken {
            return Ok(Some(self.record(Conflict::DeleteDiffers, Some(found), REFUSED, NOTHING, true)));
        }
        Ok(if what.is_empty() { None } else { record("the row was deleted", action == ConflictAction::Warn) })
    }

    pub fn record(
        &self,
        conflict: Conflict,
        found: Option<&Candidate>,
        what: &str,
        done: &'static str,
        is_warning: bool,
    ) -> ConflictRecord {
        let Case { table, change, .. } = self;
        let row = if change.event == Event::Insert { &change.new } else { &change.old };
        let named = |row: &Row| (!row.is_empty()).then(|| names_and_values(row.iter()));
        let key = table.keys.first().map(|key| key.iter().map(|p| &table.column(*p).name));
        let shown = if self.tells_values { instruction } else { outline }(change, Some(table));
        ConflictRecord {
            conflict,
            id: change.id,
            txid: change.txid,
            relation: change.relation.clone(),
            key: key.map(|names| names_and_values(names.map(|name| (name, row.get(name).flatten())))),
            expected: named(&change.old),
            found: found
                .map(|found| names_and_values(found.values.iter().map(|(name, _, found)| (name, found.as_deref())))),
            new: named(&change.new),
            done,
            text: format!("Possible conflict (0 rows affected): {shown} (change {}): {what}", change.id),
            is_warning,
        }
    }

    fn action(&self, conflict: Conflict) -> ConflictAction {
        self.policies.of(&self.change.relation, conflict)
    }

    /// How the row differs, as the log says it. Empty if it does not.
    fn differences(&self, found: &Candidate) -> String {
        if self.tells_values { differences(found) } else { differing_columns(found) }
    }

    fn differs_error(&self, found: &Candidate) -> Error {
        let what = |differences: String| format!("the row is not what it was on the master: {differences}");
        self.conflict_error(&what(differences(found))).with_bare_detail(&what(differing_columns(found)))
    }

    fn conflict_error(&self, what: &str) -> Error {
        let change = self.change;
        let operation = format!("replay change {} of transaction {}", change.id, change.txid);
        Error::new(Kind::Change, Some(Side::Slave), operation, what).with_change(change.id, change.txid).with_hint(
            "CONFLICT in the config file makes this an error: fix the slave by hand, or give the change up with \
                 pyreplica skip",
        )
    }

    /// Whether the master's row is newer, and so wins. NULL is older than everything. If both rows are equally old, the one
    /// with the greater text wins, compared column by column in the order of their names. So both sides decide alike.
    fn is_newer(&self, slave: &mut Session, found: &Candidate, column: &str) -> Result<bool> {
        let Case { table, change, .. } = self;
        let value = |name: &str| change.new.get(name).or_else(|| change.old.get(name)).flatten();
        let Some(position) = table.position(column) else {
            return Err(
                self.conflict_error(&format!("there is no column {} for newest() to compare", quote_ident(column)))
            );
        };
        if !change.new.has(column) && !change.old.has(column) {
            let what = "for a large row it holds only the columns that an UPDATE changes; with newest() every UPDATE has to \
                        change it";
            return Err(self.conflict_error(&format!("the log leaves {} out: {what}", quote_ident(column))));
        }
        let cast = |position: u16| {
            let column = table.column(position);
            let value = value(&column.name).map_or("NULL".into(), quote_literal);
            format!("({value}::{})", column.full_type)
        };
        let (own, new) = (quote_ident(column), cast(position));
        let mut names: Vec<&String> = change.new.names().iter().filter(|name| table.has(name)).collect();
        names.sort_unstable();
        let columns: Vec<String> = names
            .iter()
            .filter_map(|name| table.position(name))
            .map(|p| format!(", {}::pg_catalog.text, {}::pg_catalog.text", quote_ident(&table.column(p).name), cast(p)))
            .collect();
        // In UTC, because the texts of times are compared and the other side's server may use another time zone.
        let sql = format!(
            "SET LOCAL timezone = 'UTC'; \
             SELECT CASE WHEN {new} IS NULL THEN CASE WHEN {own} IS NOT NULL THEN false END WHEN {own} IS NULL THEN true \
             WHEN {own} {} {new} THEN NULL ELSE {new} {} {own} END{} FROM {} WHERE {}; \
             SET LOCAL timezone TO DEFAULT",
            table.column(position).operator("="),
            table.column(position).operator(">"),
            columns.concat(),
            table.target,
            found.location
        );
        let rows = slave.text_rows("compare the rows", &sql)?;
        let Some((newer, values)) = rows.first().and_then(|row| row.split_first()) else { return Ok(true) };
        if let Some(newer) = newer {
            return Ok(newer == "t");
        }
        let first = values.chunks(2).find(|pair| pair[0] != pair[1]);
        Ok(first.is_none_or(|pair| pair[1] > pair[0]))
    }

    /// Writes all values of the master's row that the log holds. What the slave has changed in other columns of the row is
    /// lost too. Returns whether the slave has taken it.
    fn overwrite(&self, slave: &mut Session, found: &Candidate) -> Result<bool> {
        let Case { table, change, .. } = self;
        let set: Vec<String> = table
            .positions_in(&change.new)
            .into_iter()
            .map(|position| table.column(position))
            .filter(|column| !column.generated && !column.identity_always)
            .map(|column| {
                let value = change.new.get(&column.name).flatten().map_or("NULL".into(), quote_literal);
                format!("{} = {value}", quote_ident(&column.name))
            })
            .collect();
        if set.is_empty() {
            return Ok(true);
        }
        let sql = format!("UPDATE {} SET {} WHERE {}", table.target, set.join(", "), found.location);
        Ok(slave.message("replay", &sql)?.last() == Some(&1))
    }
}

fn is_equal(candidate: &Candidate) -> bool {
    candidate.values.iter().all(|(_, expected, found)| expected == found)
}

fn differences(found: &Candidate) -> String {
    let differing = found.values.iter().filter(|(_, expected, found)| expected != found);
    let texts: Vec<String> = differing
        .map(|(name, expected, found)| {
            format!("{}: expected {}, found {}", quote_ident(name), value_text(expected), value_text(found))
        })
        .collect();
    texts.join(", ")
}

/// The same without values.
fn differing_columns(found: &Candidate) -> String {
    let differing = found.values.iter().filter(|(_, expected, found)| expected != found);
    let names: Vec<String> = differing.map(|(name, _, _)| quote_ident(name)).collect();
    if names.is_empty() { String::new() } else { format!("other values in {}", listed(&names)) }
}

/// An array of name, value, name, value.
fn names_and_values<'a>(columns: impl Iterator<Item = (&'a String, Option<&'a str>)>) -> String {
    text_array(columns.flat_map(|(name, value)| [Some(name.clone()), value.map(str::to_string)]))
}
