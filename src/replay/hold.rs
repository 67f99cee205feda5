//! Changes that are put aside on the slave instead of being replayed, in the very transaction that moves on past them: so
//! each is either replayed, or pending on the master, or held here, whatever dies.
//!
//! There are two reasons. A *table is on hold*, because the operator has paused it or it is being copied: its changes are
//! held, one by one, and those of other tables go on. A *transaction is in quarantine*, because one of its changes cannot
//! be replayed and ON_ERROR says so: then all of it is held, and every later transaction that touches a row of it follows,
//! whole as well. What depends on a change that has not been replayed cannot be replayed right; what touches no such row
//! commutes with it, as `order.rs` says. A row is known by its key; `keys.rs` says what else two changes may meet at. A
//! truncated table is all its rows, and so is one without key; what a free statement is about, nobody can tell.
//!
//! What is on hold is read at the beginning of every batch, in a message that is sent anyway, under a lock that lasts to
//! the end of the batch. So who changes it under an exclusive lock knows that every batch from then on goes by it.

use crate::backlog::change::{Change, Event};
use crate::backlog::reader::columns;
use crate::backlog::row::{ColumnLists, Row, text_array};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid, quote_literal};
use crate::replay::conflict::Met;
use crate::replay::sql;
use crate::replay::table::Table;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;
use keys::{Numbers, numbers};
use std::collections::{BTreeSet, HashMap};

mod keys;

/// What `replica_hold` calls a table's pause, and a transaction's quarantine in `replica_held`.
pub const PAUSED: &str = "paused";
pub const QUARANTINED: &str = "quarantined";

/// In `replica_hold`: a table that is being copied.
pub const COPYING: &str = "copying";

/// In `replica_hold` in the place of a table: the whole pair.
pub const WHOLE_PAIR: &str = "";

const RESUME: &str = "pyreplica resume lets it go on";

/// What a pair holds, as far as the batch in hand must know.
#[derive(Default)]
pub struct Holds {
    /// The pair, as the slave's tables name it; `None` if the slave has no such tables.
    pair: Option<String>,
    is_blind: bool,
    /// The tables on hold, and why.
    tables: HashMap<String, String>,
    /// There may be something in quarantine.
    is_quarantine: bool,
    /// The transaction that is to be put there, and why.
    doomed: Option<(Txid, String)>,
}

impl Holds {
    /// Looks whether the slave has the tables, and makes them if they are missing and the role may.
    pub fn open(name: &str, pair: &str, slave: &mut Session) -> Result<Holds> {
        if !are_usable(slave)? {
            log::warn!(
                target: name,
                "slave: nothing can be paused, quarantined or told about conflicts: its tables for that are missing or the \
                 role lacks rights. hint: run sql/slave-install.sql there, and GRANT SELECT, INSERT, UPDATE, DELETE ON \
                 replica_hold, replica_held, replica_conflict, replica_skipped to the daemon's role; then restart it"
            );
            return Ok(Holds::default());
        }
        Ok(Holds { pair: Some(pair.to_string()), ..Holds::default() })
    }

    /// For a verb, which knows what it does: nothing is looked at.
    pub fn of_a_verb(pair: &str) -> Holds {
        Holds { pair: Some(pair.to_string()), is_blind: true, ..Holds::default() }
    }

    /// The pair, if the slave has the tables.
    pub fn pair(&self) -> Option<&str> {
        self.pair.as_deref()
    }

    /// What a batch's first message has to end with.
    pub fn look(&self) -> String {
        self.holds().map_or(String::new(), |holds| format!("; {holds}"))
    }

    /// A query that finds what is on hold.
    pub fn holds(&self) -> Option<String> {
        let pair = self.pair.as_ref().filter(|_| !self.is_blind)?;
        Some(format!("SELECT FROM public.replica_hold WHERE master OPERATOR(pg_catalog.=) {}", quote_literal(pair)))
    }

    /// That message has found so many things on hold.
    pub fn found(&mut self, holds: u64, slave: &mut Session) -> Result<()> {
        self.tables.clear();
        let Some(pair) = self.pair.as_ref().filter(|_| holds > 0 && !self.is_blind) else { return Ok(()) };
        for row in slave.query("look at what is on hold", sql::HOLDS, &[pair])? {
            let (relation, why): (String, String) = (row.get("relation"), row.get("why"));
            if relation == WHOLE_PAIR {
                let (who, since): (String, String) = (row.get("who"), row.get("since"));
                let detail = format!("the pair is {why} since {since}, by {who}");
                return Err(Error::new(Kind::Paused, Some(Side::Slave), "replay", detail).with_hint(RESUME));
            }
            self.tables.insert(relation, why);
        }
        Ok(())
    }

    /// Whether any table is on hold.
    pub fn holds_back(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Puts aside what is of a table on hold, and returns the rest.
    pub fn keep_back(&self, slave: &mut Session, changes: Vec<Change>) -> Result<Vec<Change>> {
        let (held, rest): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| self.tables.contains_key(&change.relation));
        self.put(
            slave,
            held.iter().map(|change| (change, Numbers::default(), self.tables[&change.relation].as_str(), None)),
        )?;
        Ok(rest)
    }

    /// Whether each transaction is to be looked at before it is replayed.
    pub fn is_quarantine(&self) -> bool {
        self.is_quarantine || self.doomed.is_some()
    }

    /// Somebody may have emptied it; nobody but the daemon fills it, perhaps by a batch that recovery has committed.
    pub fn look_at_quarantine(&mut self, slave: &mut Session) -> Result<()> {
        let Some(pair) = &self.pair else { return Ok(()) };
        self.is_quarantine = slave.query_one("look at the quarantine", sql::IS_QUARANTINED, &[pair])?.get(0);
        Ok(())
    }

    /// From now on this transaction goes to quarantine.
    pub fn doom(&mut self, txid: Txid, why: String) {
        self.doomed = Some((txid, why));
    }

    /// That transaction is there now, or the attempt has failed.
    pub fn spare(&mut self) {
        self.is_quarantine |= self.doomed.take().is_some();
    }

    /// Why a transaction goes to quarantine whatever it touches.
    pub fn doomed(&self, txid: Txid) -> Option<String> {
        self.doomed.as_ref().filter(|(doomed, _)| *doomed == txid).map(|(_, why)| why.clone())
    }

    /// Whether one of these changes touches a row of a transaction in quarantine; says which one. `table` is what the slave
    /// has of a change's table.
    pub fn depends<'a>(
        &self,
        slave: &mut Session,
        changes: &'a [Change],
        table: impl Fn(&'a Change) -> Option<&'a Table>,
    ) -> Result<Option<String>> {
        let Some(pair) = &self.pair else { return Ok(None) };
        let needed: BTreeSet<i64> = changes.iter().flat_map(|change| numbers(change, table(change)).needed).collect();
        let needed: Vec<i64> = needed.into_iter().collect();
        let found = slave.query("look at the quarantine", sql::DEPENDS, &[pair, &needed])?;
        Ok(found.first().map(|row| {
            let (id, txid): (i64, i64) = (row.get("id"), row.get("txid"));
            format!("depends on change {id} of transaction {txid}, which is in quarantine")
        }))
    }

    /// Puts changes of a transaction into quarantine.
    pub fn quarantine<'a>(
        &self,
        slave: &mut Session,
        changes: &'a [Change],
        error: &str,
        table: impl Fn(&'a Change) -> Option<&'a Table>,
    ) -> Result<()> {
        self.put(slave, changes.iter().map(|change| (change, numbers(change, table(change)), QUARANTINED, Some(error))))
    }

    /// Writes conflicts down.
    pub fn record(&self, slave: &mut Session, met: &[Met]) -> Result<()> {
        let Some(pair) = self.pair.as_ref().filter(|_| !met.is_empty()) else { return Ok(()) };
        let text = |of: fn(&Met) -> Option<&str>| met.iter().map(of).collect::<Vec<Option<&str>>>();
        let ids: Vec<i64> = met.iter().map(|met| met.id.0).collect();
        let txids: Vec<i64> = met.iter().map(|met| met.txid.0).collect();
        let kinds: Vec<String> = met.iter().map(|met| met.conflict.to_string()).collect();
        let relations = text(|met| Some(&met.relation));
        let (keys, expected) = (text(|met| met.key.as_deref()), text(|met| met.expected.as_deref()));
        let (found, new) = (text(|met| met.found.as_deref()), text(|met| met.new.as_deref()));
        let done = text(|met| Some(met.done));
        let parameters: [&(dyn ToSql + Sync); 10] =
            [pair, &ids, &txids, &relations, &kinds, &keys, &expected, &found, &new, &done];
        slave.execute("note conflicts", sql::RECORD, &parameters).map(drop)
    }

    fn put<'a>(
        &self,
        slave: &mut Session,
        changes: impl Iterator<Item = (&'a Change, Numbers, &'a str, Option<&'a str>)>,
    ) -> Result<()> {
        let Some(pair) = &self.pair else { return Ok(()) };
        let (mut ids, mut txids): (Vec<i64>, Vec<i64>) = Default::default();
        let (mut relations, mut events, mut statements): (Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
        let (mut origins, mut reasons, mut errors): (Vec<Option<&str>>, Vec<&str>, Vec<Option<&str>>) =
            Default::default();
        let (mut old, mut new): (Vec<String>, Vec<String>) = Default::default();
        let (mut keys, mut needs): (Vec<String>, Vec<String>) = Default::default();
        let array = |numbers: &BTreeSet<i64>| text_array(numbers.iter().map(|number| Some(number.to_string())));
        for (change, numbers, why, error) in changes {
            ids.push(change.id.0);
            txids.push(change.txid.0);
            relations.push(&change.relation);
            events.push(change.event.letter());
            old.push(pairs(&change.old));
            new.push(pairs(&change.new));
            statements.push(&change.sql);
            origins.push(change.origin.as_deref());
            keys.push(array(&numbers.left));
            needs.push(array(&numbers.needed));
            reasons.push(why);
            errors.push(error);
        }
        if ids.is_empty() {
            return Ok(());
        }
        slave
            .execute(
                "put changes aside",
                sql::PUT_ASIDE,
                &[
                    pair,
                    &ids,
                    &txids,
                    &relations,
                    &events,
                    &old,
                    &new,
                    &statements,
                    &origins,
                    &keys,
                    &needs,
                    &reasons,
                    &errors,
                ],
            )
            .map(drop)
    }
}

/// Whether the slave's tables are there and may be used; makes them if they are missing and the role may.
pub fn are_usable(slave: &mut Session) -> Result<bool> {
    let look = |slave: &mut Session| -> Result<(i64, i64)> {
        let row = slave.query_one("look for the slave's tables", sql::TABLES, &[])?;
        Ok((row.get(0), row.get(1)))
    };
    let (missing, denied) = look(slave)?;
    if missing == 0 {
        return Ok(denied == 0);
    }
    match slave.script("create the slave's tables", server_sql::SLAVE_INSTALL) {
        Ok(()) => Ok(look(slave)? == (0, 0)),
        Err(error) if error.is_transient() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Changes that are held, in the order of their places.
pub fn read(slave: &mut Session, places: &[i64]) -> Result<Vec<Change>> {
    let mut lists = ColumnLists::default();
    let rows = slave.query("read what is held", sql::HELD, &[&places])?;
    rows.iter()
        .map(|row| {
            let (relation, letter): (&str, &str) = (row.get("relation"), row.get("event"));
            let event = Event::from_letter(letter).ok_or_else(|| {
                let detail = format!("replica_held has an event '{letter}' that this version does not know");
                Error::new(Kind::Internal, Some(Side::Slave), "read what is held", detail)
            })?;
            Ok(Change {
                id: LogId(row.get("id")),
                txid: Txid(row.get("txid")),
                event,
                relation: relation.to_string(),
                old: columns(row.get("old"), relation, &mut lists),
                new: columns(row.get("new"), relation, &mut lists),
                sql: row.get("sql"),
                origin: row.get("origin"),
            })
        })
        .collect()
}

/// A logged row as an array: name, value, name, value.
fn pairs(row: &Row) -> String {
    text_array(row.iter().flat_map(|(name, value)| [Some(name.clone()), value.map(str::to_string)]))
}
