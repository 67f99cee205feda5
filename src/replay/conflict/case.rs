//! One conflict: what it is, who wins, what becomes of the row.

use super::{Candidate, Met, at_place, best, candidates, misfit_error, once, shown};
use crate::backlog::change::{Change, Event};
use crate::backlog::row::{Row, text_array};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::config::conflict_policy::{Conflict, ConflictAction, ConflictPolicies};
use crate::replay::statements::{Shape, instruction};
use crate::replay::table::Table;
use crate::server::session::Session;

const KEPT: &str = "the slave's row was kept";
const APPLIED: &str = "the master's values were applied";
const NOTHING: &str = "nothing";

/// A change that did not touch exactly the one row that it should.
pub(super) struct Case<'a> {
    pub table: &'a Table,
    pub change: &'a Change,
    /// Free for a prepared statement.
    pub name: &'a str,
    pub policies: &'a ConflictPolicies,
}

impl Case<'_> {
    /// An UPDATE that insisted on the old values found no row.
    pub fn differs_or_missing(&self, slave: &mut Session) -> Result<Option<Met>> {
        let candidates = candidates(slave, self.table, self.change)?;
        let Some(found) = best(&candidates) else { return self.missing(Conflict::UpdateMissing).map(Some) };
        let what = differences(found);
        let action = self.action(Conflict::UpdateDiffers);
        let met = |done, is_warning| {
            let text = format!("{what}; {done}");
            Ok(Some(self.met(Conflict::UpdateDiffers, Some(found), &text, done, is_warning)))
        };
        match &action {
            ConflictAction::Error => Err(self.refused(&format!("the row is not what it was on the master: {what}"))),
            ConflictAction::Skip => met(KEPT, false),
            ConflictAction::Newest(column) if self.is_newer(slave, found, column)? => {
                self.overwrite(slave, found)?;
                met(APPLIED, false)
            }
            ConflictAction::Newest(_) => met(KEPT, false),
            ConflictAction::Warn => {
                if candidates.len() == 1 {
                    let shape = Shape::of(self.change, self.table, false);
                    let shape = shape.map_err(|misfit| misfit_error(self.change, self.table, &misfit))?;
                    once(slave, self.name, &shape, self.table, self.change)?;
                } else {
                    at_place(slave, self.table, self.change, &found.place)?;
                }
                met(APPLIED, true)
            }
        }
    }

    /// There is nothing to change or delete, and nothing comes of it.
    pub fn missing(&self, conflict: Conflict) -> Result<Met> {
        let what = "the row is missing on the slave";
        match self.action(conflict) {
            ConflictAction::Error => Err(self.refused(what)),
            action => Ok(self.met(conflict, None, what, NOTHING, action == ConflictAction::Warn)),
        }
    }

    /// Several rows fit the key: the one that is in every column what the master's was is the one.
    pub fn exactly_one(&self, slave: &mut Session, rows: u64) -> Result<Option<Met>> {
        let candidates = candidates(slave, self.table, self.change)?;
        let Some(found) = best(&candidates) else {
            let conflict =
                if self.change.event == Event::Delete { Conflict::DeleteMissing } else { Conflict::UpdateMissing };
            return self.missing(conflict).map(Some);
        };
        at_place(slave, self.table, self.change, &found.place)?;
        let equal = found.values.iter().all(|(_, expected, found)| expected == found);
        let what = "several rows fit the key; the most similar one was taken";
        Ok((!equal).then(|| {
            let mut met = self.met(Conflict::UpdateDiffers, Some(found), what, APPLIED, true);
            met.text = met.text.replacen("(0 rows", &format!("({rows} rows"), 1);
            met
        }))
    }

    /// A unique value of the new row is taken; the change has been taken back.
    pub fn exists(&self, slave: &mut Session, error: Error) -> Result<Met> {
        let insert = self.change.event == Event::Insert;
        let conflict = if insert { Conflict::InsertExists } else { Conflict::UpdateExists };
        let action = self.action(conflict);
        if action == ConflictAction::Error {
            return Err(error);
        }
        let candidates = if insert { candidates(slave, self.table, self.change)? } else { Vec::new() };
        let found = candidates.first();
        let met = |done, is_warning| {
            let text = format!("{}; {done}", error.detail());
            Ok(self.met(conflict, found, &text, done, is_warning))
        };
        match (&action, found) {
            (ConflictAction::Skip, _) => met(KEPT, false),
            // Another unique constraint than the key's, or an UPDATE: two rows can't become one.
            (_, None) => Err(error),
            (ConflictAction::Newest(column), Some(row)) if !self.is_newer(slave, row, column)? => met(KEPT, false),
            (_, Some(row)) => {
                self.overwrite(slave, row)?;
                met(APPLIED, action == ConflictAction::Warn)
            }
        }
    }

    /// A DELETE whose row is compared first, since the operator wants to know.
    pub fn delete_watched(&self, slave: &mut Session, shape: &Shape) -> Result<Option<Met>> {
        let candidates = candidates(slave, self.table, self.change)?;
        let Some(found) = best(&candidates) else { return self.missing(Conflict::DeleteMissing).map(Some) };
        let what = differences(found);
        let action = if what.is_empty() { ConflictAction::Warn } else { self.action(Conflict::DeleteDiffers) };
        let met = |done, is_warning| {
            Some(self.met(Conflict::DeleteDiffers, Some(found), &format!("{what}; {done}"), done, is_warning))
        };
        match action {
            ConflictAction::Error => {
                return Err(self.refused(&format!("the row is not what it was on the master: {what}")));
            }
            ConflictAction::Skip => return Ok(met(KEPT, false)),
            // A row that is gone on one side has no value to compare: the DELETE wins.
            ConflictAction::Newest(_) | ConflictAction::Warn => {}
        }
        if candidates.len() == 1 {
            once(slave, self.name, shape, self.table, self.change)?;
        } else {
            at_place(slave, self.table, self.change, &found.place)?;
        }
        Ok(if what.is_empty() { None } else { met("the row was deleted", action == ConflictAction::Warn) })
    }

    pub fn met(
        &self,
        conflict: Conflict,
        found: Option<&Candidate>,
        what: &str,
        done: &'static str,
        is_warning: bool,
    ) -> Met {
        let Case { table, change, .. } = self;
        let row = if change.event == Event::Insert { &change.new } else { &change.old };
        let named = |row: &Row| (!row.is_empty()).then(|| array(row.iter()));
        let key = table.keys.first().map(|key| key.iter().map(|p| &table.column(*p).name));
        let instruction = instruction(change, Some(table));
        Met {
            conflict,
            id: change.id,
            txid: change.txid,
            relation: change.relation.clone(),
            key: key.map(|names| array(names.map(|name| (name, row.get(name).flatten())))),
            expected: named(&change.old),
            found: found.map(|found| array(found.values.iter().map(|(name, _, found)| (name, found.as_deref())))),
            new: named(&change.new),
            done,
            text: format!("Possible conflict (0 rows affected): {instruction} (change {}): {what}", change.id),
            is_warning,
        }
    }

    fn action(&self, conflict: Conflict) -> ConflictAction {
        self.policies.of(&self.change.relation, conflict)
    }

    fn refused(&self, what: &str) -> Error {
        let change = self.change;
        let operation = format!("replay change {} of transaction {}", change.id, change.txid);
        Error::new(Kind::Change, Some(Side::Slave), operation, what)
            .with_change(change.id, change.txid)
            .with_hint("CONFLICT in the config file makes this an error: mend the slave by hand, or pyreplica skip")
    }

    /// Whether the master's row wins. NULL is older than everything. Of two rows of one age that one wins whose text is the
    /// greater, column by column in the order of their names: so both sides decide alike.
    fn is_newer(&self, slave: &mut Session, found: &Candidate, column: &str) -> Result<bool> {
        let Case { table, change, .. } = self;
        let value = |name: &str| change.new.get(name).or_else(|| change.old.get(name)).flatten();
        let Some(position) = table.position(column) else {
            return Err(self.refused(&format!("there is no column {} to tell the newest row by", quote_ident(column))));
        };
        if !change.new.has(column) && !change.old.has(column) {
            let what =
                "of a large row it holds only what an UPDATE changes; with newest() every UPDATE has to change it";
            return Err(self.refused(&format!("the log leaves {} out: {what}", quote_ident(column))));
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
        // In one time zone, as the texts of times are compared: the other side's server may be in another one.
        let sql = format!(
            "SET LOCAL timezone = 'UTC'; \
             SELECT CASE WHEN {new} IS NULL THEN CASE WHEN {own} IS NOT NULL THEN false END WHEN {own} IS NULL THEN true \
             WHEN {own} {} {new} THEN NULL ELSE {new} {} {own} END{} FROM {} WHERE {}; \
             SET LOCAL timezone TO DEFAULT",
            table.column(position).operator("="),
            table.column(position).operator(">"),
            columns.concat(),
            table.target,
            found.place
        );
        let rows = slave.text_rows("compare the rows", &sql)?;
        let Some((newer, values)) = rows.first().and_then(|row| row.split_first()) else { return Ok(true) };
        if let Some(newer) = newer {
            return Ok(newer == "t");
        }
        let first = values.chunks(2).find(|pair| pair[0] != pair[1]);
        Ok(first.is_none_or(|pair| pair[1] > pair[0]))
    }

    /// Gives a row all values that the log has of the master's: what else was changed here on the slave has lost too.
    fn overwrite(&self, slave: &mut Session, found: &Candidate) -> Result<()> {
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
            return Ok(());
        }
        let sql = format!("UPDATE {} SET {} WHERE {}", table.target, set.join(", "), found.place);
        slave.message("replay", &sql).map(drop)
    }
}

fn differences(found: &Candidate) -> String {
    let differing = found.values.iter().filter(|(_, expected, found)| expected != found);
    let said: Vec<String> = differing
        .map(|(name, expected, found)| {
            format!("{}: expected {}, found {}", quote_ident(name), shown(expected), shown(found))
        })
        .collect();
    said.join(", ")
}

/// Names and values in turn.
fn array<'a>(columns: impl Iterator<Item = (&'a String, Option<&'a str>)>) -> String {
    text_array(columns.flat_map(|(name, value)| [Some(name.clone()), value.map(str::to_string)]))
}
