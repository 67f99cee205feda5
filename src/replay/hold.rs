//! Holds changes on the slave instead of replaying them. The transaction that stores a held change also moves the slave's
//! position past it. So, whatever crashes, each change is either replayed, or pending on the master, or held here.
//!
//! There are two reasons to hold changes. A *table is on hold*, because the operator has paused it or it is being copied:
//! then its changes are held, and those of other tables are replayed. A *transaction is in quarantine*, because one of its
//! changes cannot be replayed and the operator has set ON_ERROR=quarantine: then all of it is held, and so is, as a whole,
//! every later transaction that touches one of its rows. A change that depends on one which has not been replayed would be
//! replayed wrongly; a change that touches no such row commutes with it (`order.rs`). A row is identified by its key;
//! `keys.rs` says by what else one change may depend on another. Where no key tells rows apart, its values take the place of
//! the key. A TRUNCATE touches all rows of its table. It is unknown what a free statement touches, so no dependency is found
//! for it.
//!
//! Every batch reads what is on hold in its first message, which it has to send anyway, and the lock of that SELECT lasts
//! to the end of the batch. So a session that changes what is on hold under an exclusive lock knows that every later batch
//! sees the change.

use crate::backlog::change::{Change, Event};
use crate::backlog::reader::columns;
use crate::backlog::row::{ColumnLists, Row, text_array};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid, quote_literal};
use crate::replay::conflict::ConflictRecord;
use crate::replay::sql;
use crate::replay::table::Table;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;
use keys::{Dependencies, dependencies};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};

mod escaped;
mod keys;

/// The value of `why` in `replica_hold` for a paused table, and in `replica_held` for a transaction in quarantine.
pub const PAUSED: &str = "paused";
pub const QUARANTINED: &str = "quarantined";

/// The value of `why` in `replica_hold` for a table that is being copied.
pub const COPYING: &str = "copying";

/// The value of `relation` in `replica_hold` that stands for the whole pair.
pub const WHOLE_PAIR: &str = "";

const RESUME: &str = "pyreplica resume ends the pause";

/// What a batch has to know about the pair's tables on hold and its quarantine.
#[derive(Default)]
pub struct Holds {
    /// The pair's name in the log.
    name: String,
    /// The pair's name in the slave's tables; `None` if the slave does not have these tables.
    pair: Option<String>,
    ignores_holds: bool,
    /// The tables on hold, each with the reason.
    tables: HashMap<String, String>,
    /// There may be transactions in quarantine.
    may_have_quarantined: bool,
    /// The transaction that the next attempt puts into quarantine, and the reason.
    requested: Option<(Txid, String)>,
    /// How many changes the batch has put aside.
    put_aside: Cell<u64>,
}

impl Holds {
    /// Checks that the slave has the tables; creates them if they are missing and the role may.
    pub fn open(name: &str, pair: &str, slave: &mut Session) -> Result<Holds> {
        if !are_usable(slave)? {
            // Everybody may ask for the size.
            if slave.query_one("look what is on hold", sql::HAS_HOLDS, &[])?.get(0) {
                let detail = "something may be paused, and the role may not read replica_hold, or not write the tables beside it";
                return Err(Error::new(Kind::Setup, Some(Side::Slave), "replay", detail).with_hint(
                    "on the slave: GRANT SELECT, INSERT, UPDATE, DELETE ON replica_hold, replica_held, replica_conflict, \
                     replica_skipped TO the daemon's role; pyreplica resume ends a pause",
                ));
            }
            log::warn!(
                target: name,
                "slave: pause, quarantine and the record of conflicts do not work: their tables are missing, or the role \
                 lacks rights on them. hint: run sql/slave-install.sql on the slave, and GRANT SELECT, INSERT, UPDATE, \
                 DELETE ON replica_hold, replica_held, replica_conflict, replica_skipped to the daemon's role; then \
                 restart the daemon"
            );
            return Ok(Holds::default());
        }
        Ok(Holds { name: name.to_string(), pair: Some(pair.to_string()), ..Holds::default() })
    }

    /// For a verb, which replays held changes although their table is on hold.
    pub fn for_verb(pair: &str) -> Holds {
        Holds { pair: Some(pair.to_string()), ignores_holds: true, ..Holds::default() }
    }

    /// The pair's name, if the slave has the tables.
    pub fn pair(&self) -> Option<&str> {
        self.pair.as_deref()
    }

    /// The end of a batch's first message: the query for what is on hold.
    pub fn query_suffix(&self) -> String {
        self.query().map_or(String::new(), |holds| format!("; {holds}"))
    }

    /// A query that returns a row for everything on hold. Each batch runs it, so it must be cheap.
    pub fn query(&self) -> Option<String> {
        let pair = self.pair.as_ref().filter(|_| !self.ignores_holds)?;
        Some(format!("SELECT FROM public.replica_hold WHERE master OPERATOR(pg_catalog.=) {}", quote_literal(pair)))
    }

    /// Reads what is on hold, if that query returned rows (`holds` is their number). An error if the whole pair is on hold.
    pub fn read_holds(&mut self, holds: u64, slave: &mut Session) -> Result<()> {
        let former = std::mem::take(&mut self.tables);
        let told = self.read_tables(holds, slave);
        match &told {
            Ok(()) => self.log_pauses(&former),
            // It says nothing about the tables.
            Err(_) => self.tables = former,
        }
        told
    }

    /// The log says once which tables are paused, and once that they go on.
    fn log_pauses(&self, former: &HashMap<String, String>) {
        let is_paused = |tables: &HashMap<String, String>, table| tables.get(table).is_some_and(|why| why == PAUSED);
        for table in self.tables.keys().filter(|table| is_paused(&self.tables, *table) && !is_paused(former, *table)) {
            log::warn!(target: &self.name, "Holding the changes of {table}: it is paused");
        }
        for table in former.keys().filter(|table| is_paused(former, *table) && !is_paused(&self.tables, *table)) {
            log::info!(target: &self.name, "Going on with {table}: its pause has ended");
        }
    }

    fn read_tables(&mut self, holds: u64, slave: &mut Session) -> Result<()> {
        let Some(pair) = self.pair.as_ref().filter(|_| holds > 0 && !self.ignores_holds) else { return Ok(()) };
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
    pub fn has_tables_on_hold(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Holds the changes of tables on hold, and returns the other changes.
    pub fn hold_back(&self, slave: &mut Session, changes: Vec<Change>) -> Result<Vec<Change>> {
        let (held, rest): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| self.tables.contains_key(&change.relation));
        self.insert(
            slave,
            held.iter().map(|change| (change, Dependencies::default(), self.tables[&change.relation].as_str(), None)),
        )?;
        Ok(rest)
    }

    /// Whether each transaction has to be checked before it is replayed: for dependencies on the quarantine.
    pub fn checks_transactions(&self) -> bool {
        self.may_have_quarantined || self.requested.is_some()
    }

    /// Reads whether anything is in quarantine. A verb may have emptied it. Only the daemon fills it, and recovery may just
    /// have committed a batch that did.
    pub fn read_quarantine(&mut self, slave: &mut Session) -> Result<()> {
        let Some(pair) = &self.pair else { return Ok(()) };
        self.may_have_quarantined = slave.query_one("look at the quarantine", sql::IS_QUARANTINED, &[pair])?.get(0);
        Ok(())
    }

    /// How many changes were put aside since the last call.
    pub fn take_put_aside(&self) -> u64 {
        self.put_aside.take()
    }

    /// Makes the next attempt put this transaction into quarantine.
    pub fn request_quarantine(&mut self, txid: Txid, why: String) {
        self.requested = Some((txid, why));
    }

    /// Ends the request: the attempt has put the transaction into quarantine, or has failed.
    pub fn end_request(&mut self) {
        self.may_have_quarantined |= self.requested.take().is_some();
    }

    /// The reason of the request to put this transaction into quarantine, if there is one.
    pub fn requested_quarantine(&self, txid: Txid) -> Option<String> {
        self.requested.as_ref().filter(|(requested, _)| *requested == txid).map(|(_, why)| why.clone())
    }

    /// Whether one of these changes depends on a transaction in quarantine. Returns a text that names that one. `table`
    /// returns the slave's table of a change.
    pub fn depends<'a>(
        &self,
        slave: &mut Session,
        changes: &'a [Change],
        table: impl Fn(&'a Change) -> Option<&'a Table>,
    ) -> Result<Option<String>> {
        let Some(pair) = &self.pair else { return Ok(None) };
        let needs: BTreeSet<i64> =
            changes.iter().flat_map(|change| dependencies(change, table(change)).needs).collect();
        let needs: Vec<i64> = needs.into_iter().collect();
        let found = slave.query("look at the quarantine", sql::DEPENDS, &[pair, &needs])?;
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
        self.insert(
            slave,
            changes.iter().map(|change| (change, dependencies(change, table(change)), QUARANTINED, Some(error))),
        )
    }

    /// Writes conflicts to the slave's table `replica_conflict`.
    pub fn record(&self, slave: &mut Session, records: &[ConflictRecord]) -> Result<()> {
        let Some(pair) = self.pair.as_ref().filter(|_| !records.is_empty()) else { return Ok(()) };
        let text = |of: fn(&ConflictRecord) -> Option<&str>| records.iter().map(of).collect::<Vec<Option<&str>>>();
        let ids: Vec<i64> = records.iter().map(|record| record.id.0).collect();
        let txids: Vec<i64> = records.iter().map(|record| record.txid.0).collect();
        let kinds: Vec<String> = records.iter().map(|record| record.conflict.to_string()).collect();
        let relations = text(|record| Some(&record.relation));
        let (keys, expected) = (text(|record| record.key.as_deref()), text(|record| record.expected.as_deref()));
        let (found, new) = (text(|record| record.found.as_deref()), text(|record| record.new.as_deref()));
        let done = text(|record| Some(record.done));
        let parameters: [&(dyn ToSql + Sync); 10] =
            [pair, &ids, &txids, &relations, &kinds, &keys, &expected, &found, &new, &done];
        slave.execute("record conflicts", sql::INSERT_CONFLICTS, &parameters).map(drop)
    }

    fn insert<'a>(
        &self,
        slave: &mut Session,
        changes: impl Iterator<Item = (&'a Change, Dependencies, &'a str, Option<&'a str>)>,
    ) -> Result<()> {
        let Some(pair) = &self.pair else { return Ok(()) };
        let (mut ids, mut txids): (Vec<i64>, Vec<i64>) = Default::default();
        let (mut relations, mut events, mut statements): (Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
        let (mut origins, mut reasons, mut errors): (Vec<Option<&str>>, Vec<&str>, Vec<Option<&str>>) =
            Default::default();
        let (mut old, mut new): (Vec<String>, Vec<String>) = Default::default();
        let mut rows: Vec<(&Row, &Row)> = Vec::new();
        let (mut keys, mut needs): (Vec<String>, Vec<String>) = Default::default();
        let array = |hashes: &BTreeSet<i64>| text_array(hashes.iter().map(|hash| Some(hash.to_string())));
        for (change, dependencies, why, error) in changes {
            ids.push(change.id.0);
            txids.push(change.txid.0);
            relations.push(&change.relation);
            events.push(change.event.letter());
            rows.push((&change.old, &change.new));
            old.push(pairs(&change.old));
            new.push(pairs(&change.new));
            statements.push(&change.sql);
            origins.push(change.origin.as_deref());
            keys.push(array(&dependencies.keys));
            needs.push(array(&dependencies.needs));
            reasons.push(why);
            errors.push(error);
        }
        if ids.is_empty() {
            return Ok(());
        }
        let write = |slave: &mut Session,
                     relations: &[String],
                     old: &[String],
                     new: &[String],
                     statements: &[String],
                     errors: &[Option<String>]| {
            let parameters: [&(dyn ToSql + Sync); 13] = [
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
            ];
            slave.execute("hold changes", sql::INSERT_HELD, &parameters).map(drop)
        };
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<String>>();
        let told: Vec<Option<String>> = errors.iter().map(|error| error.map(str::to_string)).collect();
        slave.message("hold changes", "SAVEPOINT pyreplica_held")?;
        match write(slave, &owned(&relations), &old, &new, &owned(&statements), &told) {
            Err(error) if error.is_of_encoding() => {
                slave.message("roll back", "ROLLBACK TO SAVEPOINT pyreplica_held")?;
                let all = |texts: &[&str]| texts.iter().map(|text| escaped::escape(text)).collect::<Vec<String>>();
                let old: Vec<String> = rows.iter().map(|(old, _)| escaped::pairs(old)).collect();
                let new: Vec<String> = rows.iter().map(|(_, new)| escaped::pairs(new)).collect();
                let told: Vec<Option<String>> = errors.iter().map(|error| error.map(escaped::escape)).collect();
                write(slave, &all(&relations), &old, &new, &all(&statements), &told)?;
            }
            written => written?,
        }
        self.put_aside.set(self.put_aside.get() + ids.len() as u64);
        slave.message("hold changes", "RELEASE SAVEPOINT pyreplica_held").map(drop)
    }
}

/// Whether the slave has pyreplica's tables and the role may use them. Creates them if they are missing and the role may.
pub fn are_usable(slave: &mut Session) -> Result<bool> {
    let count = |slave: &mut Session| -> Result<(i64, i64)> {
        let row = slave.query_one("look for the slave's tables", sql::TABLES, &[])?;
        Ok((row.get(0), row.get(1)))
    };
    let (missing, denied) = count(slave)?;
    if missing == 0 {
        return Ok(denied == 0);
    }
    match slave.script("create the slave's tables", server_sql::SLAVE_INSTALL) {
        Ok(()) => Ok(count(slave)? == (0, 0)),
        Err(error) if error.is_transient() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Reads held changes, in the order of their places.
pub fn read(slave: &mut Session, places: &[i64]) -> Result<Vec<Change>> {
    let mut lists = ColumnLists::default();
    let rows = slave.query("read held changes", sql::HELD, &[&places])?;
    rows.iter()
        .map(|row| {
            let (relation, letter): (&str, &str) = (row.get("relation"), row.get("event"));
            let event = Event::from_letter(letter).ok_or_else(|| {
                let detail = format!("replica_held has an event '{letter}' that this version does not know");
                Error::new(Kind::Internal, Some(Side::Slave), "read held changes", detail)
            })?;
            let mut change = Change {
                id: LogId(row.get("id")),
                txid: Txid(row.get("txid")),
                event,
                relation: relation.to_string(),
                old: columns(row.get("old"), relation, &mut lists),
                new: columns(row.get("new"), relation, &mut lists),
                sql: row.get("sql"),
                origin: row.get("origin"),
            };
            escaped::restore(&mut change, &mut lists);
            Ok(change)
        })
        .collect()
}

/// A logged row as an array: name, value, name, value.
fn pairs(row: &Row) -> String {
    text_array(row.iter().flat_map(|(name, value)| [Some(name.clone()), value.map(str::to_string)]))
}
