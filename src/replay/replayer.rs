//! Replaying changes on the slave, in order, in few round trips.
//!
//! There are three ways, each the way out of the one before:
//!
//! 1. *As sets.* The net effect of many changes (`net.rs`) goes out as one statement for each table and shape, or as one
//!    COPY if it is many new rows of one table.
//! 2. *Many to a message*, as EXECUTEs of prepared statements, each of which must touch exactly one row. This is for few
//!    changes, for tables that sets are not for, and for what could not be replayed as a set.
//! 3. *One by one.* The closer look happens at the right moment, with every earlier change in place and none of the later.
//!
//! Each goes out behind a savepoint, and is taken back when the server refuses something, or rows were touched that are
//! more or fewer than there should be.

use crate::backlog::change::{Change, Event};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Txid, quote_literal};
use crate::config::conflict_policy::ConflictPolicies;
use crate::config::settings::Config;
use crate::replay::conflict;
use crate::replay::hold::Holds;
use crate::replay::sql;
use crate::replay::statements::instruction;
use crate::replay::table::Table;
use crate::replay::table_cache::TableCache;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use message::{Message, Statements};
use pipeline::Sets;
use std::collections::BTreeMap;

mod quarantine;
mod prepared;
mod message;
mod pipeline;

/// Limits of one message.
const MESSAGE_CHANGES: usize = 500;
const MESSAGE_BYTES: usize = 1 << 20;

/// From so many changes on, sets are worth their while.
pub const FEW_CHANGES: u64 = 20;

const MEND: &str = "mend the slave by hand; the change is tried again until it succeeds, or pyreplica skip gives it up";
const ALLOW: &str = "give the daemon's role the right to write the table on the slave, and BYPASSRLS if the table has \
     row-level security; the change is tried again until it succeeds";
const TRIGGERS_RUN: &str = "did a trigger of the slave do that already? disable it there (ALTER TABLE ... DISABLE TRIGGER \
     USER), or let the daemon's role set session_replication_role; the change is tried again until it succeeds";

/// Ends a message's savepoint and opens the next one's.
const SAVEPOINT: &str = "SAVEPOINT pyreplica;";
const NEXT_SAVEPOINT: &str = "RELEASE SAVEPOINT pyreplica; SAVEPOINT pyreplica;";
const BACK_TO_SAVEPOINT: &str = "ROLLBACK TO SAVEPOINT pyreplica";

/// Makes the deferred checks that are outstanding, and defers those to come.
const CHECK_NOW: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED;";

/// The SQLSTATE of a statement that deferred checks are in the way of.
const PENDING_CHECKS: &str = "55006";

pub struct Replayer {
    /// The pair's name, which its log lines begin with.
    name: String,
    origin: String,
    /// The session may not take the replica role: constraints are deferred instead.
    deferring: bool,
    cache: TableCache,
    /// What is put aside instead.
    pub holds: Holds,
    /// Who wins where the slave is not what it should be.
    policies: ConflictPolicies,
    keeps_conflicts: bool,
    statements: Statements,
    /// Composed, and to be sent while the next is composed.
    waiting: Option<Sets>,
    in_savepoint: bool,
    /// What the slave's own trigger notes at the moment, where it runs for replayed changes too: the database that a
    /// change came from first, so that in a ring of masters it stops there.
    noting: String,
    conflicts: Vec<String>,
    /// What went wrong with filters and transforms: for each text the first change and how many there were.
    remarks: BTreeMap<String, (LogId, u64)>,
    /// Rows whose uniqueness the slave has not checked: the change, and a condition that is true of a duplicate.
    unchecked: Vec<(LogId, Txid, String)>,
}

impl Replayer {
    pub fn new(config: &Config, origin: &str, deferring: bool, holds: Holds) -> Replayer {
        Replayer {
            name: config.name.clone(),
            origin: origin.to_string(),
            deferring,
            cache: TableCache::new(&config.conflicts),
            holds,
            policies: config.conflicts.clone(),
            keeps_conflicts: config.conflicts_kept > 0,
            statements: Statements::default(),
            waiting: None,
            in_savepoint: false,
            noting: origin.to_string(),
            conflicts: Vec::new(),
            remarks: BTreeMap::new(),
            unchecked: Vec::new(),
        }
    }

    /// Opens the slave's transaction of a batch.
    pub fn begin(&mut self, slave: &mut Session) -> Result<()> {
        self.start_anew();
        // Where the slave's triggers run, the planner is left alone: they may do anything.
        let how = if self.deferring { "SET CONSTRAINTS ALL DEFERRED" } else { sql::LOOK_UP };
        let how = how.trim_end_matches(';');
        let counts = slave.message("begin a transaction", &format!("BEGIN; {how}{}", self.holds.look()))?;
        self.holds.found(counts.last().copied().unwrap_or(0), slave)
    }

    fn start_anew(&mut self) {
        self.cache.unlock();
        self.waiting = None;
        self.in_savepoint = false;
        self.noting.clone_from(&self.origin);
        self.conflicts.clear();
        self.remarks.clear();
        self.unchecked.clear();
    }

    /// What was unusual about the batch, to be told once it is committed.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        let remarks = std::mem::take(&mut self.remarks).into_iter();
        let mut told: Vec<String> =
            remarks.map(|(remark, (first, count))| format!("{remark} ({count} changes from {first} on)")).collect();
        told.append(&mut self.conflicts);
        told
    }

    /// Replays these changes, in this order. An error says which change it is about, if it is about one. The last of them may
    /// wait for the next ones, or for `settle`.
    pub fn apply(&mut self, master: &mut Session, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        let mut rest = changes;
        if self.holds.holds_back() {
            self.settle(slave)?;
            rest = self.holds.keep_back(slave, rest)?;
        }
        let mut rest = rest.into_iter().peekable();
        while let Some(change) = rest.next() {
            match change.event {
                Event::Statement => self.statement(slave, &change)?,
                Event::Truncate => {
                    // One TRUNCATE of several tables is logged table by table, and foreign keys let it happen at once only.
                    let mut truncated = vec![change];
                    while let Some(next) = rest.next_if(|c| c.event == Event::Truncate && c.txid == truncated[0].txid) {
                        truncated.push(next);
                    }
                    self.truncate(master, slave, &truncated)?;
                }
                Event::Insert | Event::Update | Event::Delete => {
                    let mut rows = vec![change];
                    let is_row = |c: &Change| matches!(c.event, Event::Insert | Event::Update | Event::Delete);
                    while let Some(next) = rest.next_if(is_row) {
                        rows.push(next);
                    }
                    self.rows(master, slave, rows)?;
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, master: &mut Session, slave: &mut Session, mut changes: Vec<Change>) -> Result<()> {
        self.lock(master, slave, &changes)?;
        for change in &mut changes {
            if !change.sql.is_empty() {
                self.remarks.entry(std::mem::take(&mut change.sql)).or_insert((change.id, 0)).1 += 1;
            }
            self.cache.reconcile(master, change).map_err(|error| self.rejected(change, error))?;
        }
        while let Some(first) = changes.first() {
            let others = changes.iter().position(|change| change.origin != first.origin);
            let rest = changes.split_off(others.unwrap_or(changes.len()));
            self.run(slave, std::mem::replace(&mut changes, rest))?;
        }
        Ok(())
    }

    /// Locks the tables of these changes, as far as they are new to this transaction.
    fn lock(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<()> {
        let fresh = self.cache.unlocked(changes);
        if fresh.is_empty() {
            return Ok(());
        }
        self.settle(slave)?;
        self.cache.lock(master, slave, &fresh)
    }

    /// Changes of rows that come from one place.
    fn run(&mut self, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        let is_watched =
            |change: &Change| change.event == Event::Delete && self.policies.watches_deletes(&change.relation);
        let is_watched = changes.iter().any(is_watched);
        if !is_watched && !self.deferring && changes.len() as u64 >= FEW_CHANGES {
            return self.as_sets(slave, changes);
        }
        self.settle(slave)?;
        let changes: Vec<&Change> = changes.iter().collect();
        if is_watched {
            let mut message = self.message(slave, changes[0])?;
            message.close(sql::OWN_PATH);
            self.send(slave, &message)?;
            return self.one_by_one(slave, &changes);
        }
        self.in_messages(slave, &changes)
    }

    /// False when the message was taken back because something in it needs a closer look.
    fn send(&mut self, slave: &mut Session, message: &Message) -> Result<bool> {
        if !self.prepare(slave, message)? {
            return Ok(false);
        }
        self.in_savepoint = true;
        let answer = message.send(slave);
        self.is_met(slave, message, answer)
    }

    /// Takes back a message that needs a closer look, and says so.
    fn is_met(&mut self, slave: &mut Session, message: &Message, answer: Result<Vec<u64>>) -> Result<bool> {
        match answer {
            Ok(counts) if message.is_met_by(&counts) => return Ok(true),
            Ok(_) => {
                log::trace!(target: &self.name, "Looking closer: a row was missing, differed, or was there already")
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                log::trace!(target: &self.name, "Looking closer: {error}");
                self.statements.forget();
            }
        }
        slave.message("take a message back", &format!("{BACK_TO_SAVEPOINT}; {}", set_origin(&self.noting)))?;
        Ok(false)
    }

    fn one_by_one(&mut self, slave: &mut Session, changes: &[&Change]) -> Result<()> {
        let mut met = Vec::new();
        for change in changes {
            let name = self.statements.fresh_name();
            let table = self.cache.get(change)?;
            let found = conflict::replay_one(slave, table, change, &name, &self.policies);
            met.extend(found.map_err(|error| self.rejected(change, error))?);
        }
        self.record(slave, met)
    }

    fn truncate(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<()> {
        self.settle(slave)?;
        self.lock(master, slave, changes)?;
        let mut targets = Vec::new();
        for change in changes {
            match self.cache.get(change) {
                Ok(table) => {
                    log_change(&self.name, change, table);
                    targets.push(table.target.as_str());
                }
                // The slave may divide a partitioned table otherwise; with the whole table its parts are empty too.
                Err(_) if changes.len() > 1 => self.conflicts.push(format!(
                    "Possible conflict (0 rows affected): {} (change {}): the slave has no such table",
                    instruction(change, None),
                    change.id
                )),
                Err(error) => return Err(error),
            }
        }
        if targets.is_empty() {
            return self.cache.get(&changes[0]).map(drop);
        }
        let truncate = format!("TRUNCATE {}", targets.join(", "));
        let sql = format!("{}{truncate}; {}", self.note_origin(&changes[0]), sql::OWN_PATH);
        self.settle_and(slave, &sql).map_err(|error| self.rejected(&changes[0], error))
    }

    /// A table with deferred checks outstanding cannot be truncated: if so, the checks are made first.
    fn settle_and(&self, slave: &mut Session, sql: &str) -> Result<()> {
        if !self.deferring {
            return slave.message("replay", &format!("{}{sql}", sql::ITS_PATH)).map(drop);
        }
        slave.message("replay", "SAVEPOINT pyreplica_settle")?;
        match slave.message("replay", &format!("{}{sql}", sql::ITS_PATH)) {
            Err(error) if error.code() == Some(PENDING_CHECKS) => {
                slave.message("take a change back", "ROLLBACK TO SAVEPOINT pyreplica_settle")?;
                slave.message("replay", &format!("{}{CHECK_NOW} {sql}", sql::ITS_PATH)).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// A free statement runs inside a DO block, so that it cannot end the transaction it is replayed in.
    fn statement(&mut self, slave: &mut Session, change: &Change) -> Result<()> {
        self.settle(slave)?;
        log::debug!(target: &self.name, "Executing: {}", instruction(change, None));
        let mut message = self.note_origin(change) + sql::PLAN_FREELY;
        if self.deferring {
            // A table with deferred checks outstanding cannot be altered.
            message.push_str(CHECK_NOW);
        }
        let block = format!("begin execute {}; end", quote_literal(&change.sql));
        message.push_str(&format!("DO {}; {}", quote_literal(&block), sql::OWN_ROLE));
        if !self.deferring {
            message.push_str(&format!("{}; {}", server_sql::REPLICA_ROLE, sql::LOOK_UP));
        }
        slave.message("replay", &message).map_err(|error| self.rejected(change, error))?;
        self.cache.unlock();
        self.cache.forget_prepared();
        slave.set_up(&self.noting)
    }

    /// What tells the slave's trigger where this change came from, if it has been told otherwise.
    fn note_origin(&mut self, change: &Change) -> String {
        let origin = change.origin.as_ref().unwrap_or(&self.origin);
        if *origin == self.noting {
            return String::new();
        }
        self.noting.clone_from(origin);
        set_origin(origin)
    }

    /// Says which change it was; a lost connection or a lock has nothing to do with the change.
    fn rejected(&self, change: &Change, error: Error) -> Error {
        if error.is_transient() {
            return error;
        }
        let shown = instruction(change, self.cache.get(change).ok());
        let usual = match error.code() {
            Some("42501") => ALLOW,
            Some(code) if self.deferring && code.starts_with("23") => TRIGGERS_RUN,
            _ => MEND,
        };
        let hint = error.hint().unwrap_or(usual).to_string();
        let operation = format!("replay change {} of transaction {} ({shown})", change.id, change.txid);
        let mut rejected =
            Error::new(Kind::Change, error.side(), operation, error.detail()).with_change(change.id, change.txid);
        if let Some(code) = error.code() {
            rejected = rejected.with_code(code);
        }
        rejected.with_hint(hint)
    }
}

/// For the rest of the transaction, or until the savepoint is taken back.
fn set_origin(origin: &str) -> String {
    format!("SET LOCAL pyreplica.origin = {};", quote_literal(origin))
}

fn log_change(name: &str, change: &Change, table: &Table) {
    if log::log_enabled!(target: name, log::Level::Debug) {
        log::debug!(target: name, "Executing: {}", instruction(change, Some(table)));
    }
}
