//! Replays changes on the slave, in order, in few round trips.
//!
//! There are three ways. If one fails, the replayer takes the next:
//!
//! 1. *As sets.* One statement for each table and shape writes the net effect of many changes (`net_effect.rs`). If the
//!    changes are many new rows of one table, one COPY writes them.
//! 2. *Many to a message*, each as an EXECUTE of a prepared statement that must touch exactly one row. This way is for few
//!    changes, for tables that cannot be replayed as sets, and for changes that failed as a set.
//! 3. *One by one.* Each change is replayed and checked by itself (`conflict.rs`), when every earlier change is in place
//!    and no later one is.
//!
//! The replayer sets a savepoint before each message. It rolls back to the savepoint if the server refuses a statement, or
//! if the statements touch more or fewer rows than they should.

use crate::backlog::change::{Change, Event};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, quote_literal};
use crate::base::phrases::counted;
use crate::config::conflict_policy::ConflictPolicies;
use crate::config::settings::Config;
use crate::replay::conflict;
use crate::replay::hold::Holds;
use crate::replay::sql;
use crate::replay::statements::{instruction, outline};
use crate::replay::table::Table;
use crate::replay::table_cache::TableCache;
use crate::server::session::Session;
use large::Large;
use message::{Message, Statements};
use pipeline::Sets;
use quarantine::refuse_escaped;
use std::collections::BTreeMap;
use unique::Unchecked;

mod quarantine;
mod free;
mod prepared;
mod message;
mod pipeline;
mod large;
mod truncate;
mod unique;

/// Limits of one message.
const MESSAGE_CHANGES: usize = 500;
const MESSAGE_BYTES: usize = 1 << 20;

/// Fewer changes than this are replayed as prepared statements: as sets they would not be faster.
pub const MIN_CHANGES_FOR_SETS: u64 = 20;

const FIX_SLAVE: &str =
    "fix the slave by hand: the daemon retries the change until it succeeds; or give it up with pyreplica skip";
const GRANT_RIGHTS: &str = "give the daemon's role the right to write the table on the slave, and BYPASSRLS if the table \
     has row-level security; the daemon retries the change until it succeeds";
const TRIGGERS_RUN: &str = "did a trigger of the slave do that already? disable it there (ALTER TABLE ... DISABLE TRIGGER \
     USER), or let the daemon's role set session_replication_role; the daemon retries the change until it succeeds";

/// Each message releases the savepoint of the message before and sets its own. They have two names in turn: if the server
/// cannot even read a message, it has set no savepoint, and ROLLBACK TO must not undo the message before.
const SAVEPOINTS: [&str; 2] = ["pyreplica", "pyreplica_2"];

/// Runs the pending deferred checks now, and defers later ones again.
const CHECK_NOW: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED;";

/// Conflicts of a batch that are kept to be logged; the others are counted. One transaction may hold millions.
const MAX_REPORTED: usize = 1_000;

pub struct Replayer {
    /// The pair's name; its log lines begin with it.
    name: String,
    origin: String,
    /// The role may not set session_replication_role: the session defers constraints instead.
    deferring: bool,
    cache: TableCache,
    /// Says which changes are held instead of replayed.
    pub holds: Holds,
    /// The operator's CONFLICT rules.
    policies: ConflictPolicies,
    records_conflicts: bool,
    /// Conflicts are told with the values of the rows.
    tells_values: bool,
    statements: Statements,
    /// A message that is composed and not sent: it is sent while the next one is composed.
    composed: Option<Sets>,
    /// The tables of a TRUNCATE, which the next changes may continue.
    truncated: Vec<Change>,
    /// The savepoint that the last message has set.
    savepoint: Option<&'static str>,
    /// The server could not read a message, so it is unknown which change it refused.
    has_unread: bool,
    /// Each change is a message of its own, after its savepoint. So the server's error belongs to it, whatever it is.
    is_careful: bool,
    /// The database that the changes came from first. Where the slave's own trigger runs for replayed changes too, it
    /// writes this origin to the slave's log, so that in a ring of masters no database gets its own changes back.
    current_origin: String,
    conflicts: Vec<String>,
    /// How many more there were than are kept.
    unreported: u64,
    /// How many conflicts this batch has met.
    met: u64,
    /// Errors of filters and transforms: for each text the first change and how many changes there were.
    remarks: BTreeMap<String, (LogId, u64)>,
    unchecked: Unchecked,
    /// The size of the largest change since the last call of `take_largest`.
    largest: usize,
    large: Large,
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
            records_conflicts: config.conflicts_kept > 0,
            tells_values: config.tells_values(),
            statements: Statements::default(),
            composed: None,
            truncated: Vec::new(),
            savepoint: None,
            has_unread: false,
            is_careful: false,
            current_origin: origin.to_string(),
            conflicts: Vec::new(),
            unreported: 0,
            met: 0,
            remarks: BTreeMap::new(),
            unchecked: Unchecked::default(),
            largest: 0,
            large: Large::default(),
        }
    }

    /// Begins the slave's transaction for a batch.
    pub fn begin(&mut self, slave: &mut Session) -> Result<()> {
        self.reset();
        self.limit_prepared(slave)?;
        // Where the slave's triggers run, the planner settings stay as they are: a trigger may run any query.
        let how = if self.deferring { "SET CONSTRAINTS ALL DEFERRED" } else { sql::USE_INDEXES };
        let how = how.trim_end_matches(';');
        let counts = slave.message("begin a transaction", &format!("BEGIN; {how}{}", self.holds.query_suffix()))?;
        self.holds.read_holds(counts.last().copied().unwrap_or(0), slave)
    }

    fn reset(&mut self) {
        self.cache.unlock();
        self.composed = None;
        self.truncated.clear();
        self.savepoint = None;
        self.current_origin.clone_from(&self.origin);
        self.conflicts.clear();
        (self.unreported, self.met) = (0, 0);
        self.remarks.clear();
        self.unchecked.clear();
        self.holds.take_put_aside();
    }

    /// Whether the server could not read a message since the last call. Then the caller may roll back and try again with
    /// `be_careful`, which finds the change.
    pub fn take_unread(&mut self) -> bool {
        let in_cache = self.cache.take_unread();
        std::mem::take(&mut self.has_unread) || in_cache
    }

    /// Sends each change by itself, which is slow, or no longer does.
    pub fn be_careful(&mut self, is_careful: bool) {
        self.is_careful = is_careful;
        self.cache.be_careful(is_careful);
    }

    /// Returns the conflicts and remarks of a batch. The caller logs them once the batch is committed.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        let remarks = std::mem::take(&mut self.remarks).into_iter();
        let mut messages: Vec<String> = remarks
            .map(|(remark, (first, count))| format!("{remark} ({} from {first} on)", counted(count, "change")))
            .collect();
        messages.append(&mut self.conflicts);
        if self.unreported > 0 {
            messages.push(format!("{} more of this kind in the same batch", self.unreported));
        }
        self.unreported = 0;
        messages
    }

    /// How many conflicts the batch has met, whether they are warned of or not.
    pub fn take_met(&mut self) -> u64 {
        std::mem::take(&mut self.met)
    }

    /// Replays these changes, in this order. The error names the change that failed, if a single one did. The last changes
    /// may stay composed and unsent until the next call, or until `flush`.
    pub fn apply(&mut self, master: &mut Session, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        let mut rest = changes;
        if self.holds.has_tables_on_hold() {
            self.flush(slave)?;
            rest = self.holds.hold_back(slave, rest)?;
        }
        let mut rest = rest.into_iter().peekable();
        while let Some(change) = rest.next() {
            let goes_on =
                change.event == Event::Truncate && self.truncated.iter().all(|first| first.txid == change.txid);
            if !goes_on {
                self.truncate(master, slave)?;
            }
            match change.event {
                Event::Statement => self.free_statement(slave, &change)?,
                // The log has one row for each table of a TRUNCATE. Where foreign keys connect the tables, PostgreSQL
                // truncates them only all at once. So the statement waits for the changes after it.
                Event::Truncate if self.truncated.iter().any(|known| known.relation == change.relation) => {}
                Event::Truncate => self.truncated.push(change),
                Event::Insert | Event::Update | Event::Delete => {
                    let mut rows = vec![change];
                    let is_row = |c: &Change| matches!(c.event, Event::Insert | Event::Update | Event::Delete);
                    while let Some(next) = rest.next_if(is_row) {
                        rows.push(next);
                    }
                    self.row_changes(master, slave, rows)?;
                }
            }
        }
        Ok(())
    }

    /// Replays what `apply` has kept: a TRUNCATE that might have gone on, and what is composed.
    pub fn finish(&mut self, master: &mut Session, slave: &mut Session) -> Result<()> {
        self.truncate(master, slave)?;
        self.flush(slave)
    }

    fn row_changes(&mut self, master: &mut Session, slave: &mut Session, mut changes: Vec<Change>) -> Result<()> {
        self.lock(master, slave, &changes)?;
        for change in &mut changes {
            self.largest = self.largest.max(change.bytes());
            if !change.sql.is_empty() {
                self.remark(std::mem::take(&mut change.sql), change.id);
            }
            refuse_escaped(change).map_err(|error| self.rejected(change, error))?;
            self.cache.reconcile(master, change).map_err(|error| self.rejected(change, error))?;
        }
        while let Some(first) = changes.first() {
            let others = changes.iter().position(|change| change.origin != first.origin);
            let rest = changes.split_off(others.unwrap_or(changes.len()));
            self.replay_rows(slave, std::mem::replace(&mut changes, rest))?;
        }
        Ok(())
    }

    /// Locks those tables of these changes that the transaction has not locked yet.
    fn lock(&mut self, master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<()> {
        let relations = self.cache.not_yet_locked(changes);
        if relations.is_empty() {
            return Ok(());
        }
        self.flush(slave)?;
        self.cache.lock(master, slave, &relations)
    }

    /// Replays row changes that all have the same origin.
    fn replay_rows(&mut self, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        let is_watched =
            |change: &Change| change.event == Event::Delete && self.policies.watches_deletes(&change.relation);
        let is_watched = changes.iter().any(is_watched) || self.is_careful;
        if !is_watched && !self.deferring && changes.len() as u64 >= MIN_CHANGES_FOR_SETS {
            return self.as_sets(slave, changes);
        }
        self.flush(slave)?;
        if !is_watched && self.may_drop(&changes) {
            return self.without_change(slave, changes);
        }
        let changes: Vec<&Change> = changes.iter().collect();
        if is_watched {
            let mut message = self.message(slave, changes[0], [])?;
            message.close(sql::DAEMON_PATH);
            self.send(slave, &message)?;
            return self.one_by_one(slave, &changes);
        }
        self.in_messages(slave, &changes)
    }

    /// Returns false if the message was rolled back; then its changes have to be replayed one by one.
    fn send(&mut self, slave: &mut Session, message: &Message) -> Result<bool> {
        if !self.prepare(slave, message)? {
            return Ok(false);
        }
        self.savepoint = Some(message.savepoint);
        let answer = message.send(slave);
        self.accept_or_roll_back(slave, message, answer)
    }

    /// Rolls back a message that failed or touched an unexpected number of rows, and returns false.
    fn accept_or_roll_back(
        &mut self,
        slave: &mut Session,
        message: &Message,
        answer: Result<Vec<u64>>,
    ) -> Result<bool> {
        let refusal = match answer {
            Ok(counts) if message.has_expected_counts(&counts) => return Ok(true),
            Ok(_) => {
                log::trace!(target: &self.name, "Looking closer: a row was missing, differed, or was there already");
                None
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                log::trace!(target: &self.name, "Looking closer: {error}");
                self.statements.forget();
                Some(error)
            }
        };
        let back = format!("ROLLBACK TO SAVEPOINT {}; {}", message.savepoint, set_origin(&self.current_origin));
        self.roll_back(slave, &back, refusal)?;
        Ok(false)
    }

    /// Rolls back to a savepoint of the message that the server has refused. If the server has not set it, it could not
    /// read the message: returns its refusal.
    fn roll_back(&mut self, slave: &mut Session, back: &str, refusal: Option<Error>) -> Result<()> {
        match (slave.message("roll back a message", back), refusal) {
            (Err(error), Some(refusal)) if error.code() == Some(sql::NO_SAVEPOINT) => {
                self.has_unread = true;
                Err(refusal)
            }
            (done, _) => done.map(drop),
        }
    }

    fn one_by_one(&mut self, slave: &mut Session, changes: &[&Change]) -> Result<()> {
        let mut records = Vec::new();
        for change in changes {
            let name = self.statements.new_name();
            let table = self.cache.get(change)?;
            let found = conflict::replay_one(slave, table, change, &name, (&self.policies, self.tells_values));
            let found = found.map_err(|error| self.rejected(change, error))?;
            if let Some(record) = found {
                self.statements.may_have_left_one();
                records.push(record);
            }
        }
        self.record(slave, records)
    }

    /// The statement that tells the slave's trigger the origin of this change; empty if the session has it already.
    fn switch_origin(&mut self, change: &Change) -> String {
        let origin = change.origin.as_ref().unwrap_or(&self.origin);
        if *origin == self.current_origin {
            return String::new();
        }
        self.current_origin.clone_from(origin);
        set_origin(origin)
    }

    /// Adds to an error which change failed. A lost connection or a lock has nothing to do with the change: such an error
    /// stays as it is.
    fn rejected(&self, change: &Change, error: Error) -> Error {
        if error.is_transient() {
            return error;
        }
        let table = self.cache.get(change).ok();
        let default_hint = match error.code() {
            Some("42501") => GRANT_RIGHTS,
            Some(code) if self.deferring && code.starts_with("23") => TRIGGERS_RUN,
            _ => FIX_SLAVE,
        };
        let hint = error.hint().unwrap_or(default_hint).to_string();
        let operation = |what: &str| format!("replay change {} of transaction {} ({what})", change.id, change.txid);
        error
            .with_kind(Kind::Change)
            .with_operation(operation(&instruction(change, table)))
            .with_bare_operation(&operation(&outline(change, table)))
            .with_change(change.id, change.txid)
            .with_hint(hint)
    }
}

/// Sets the origin for the rest of the transaction, or until a rollback to the savepoint.
fn set_origin(origin: &str) -> String {
    format!("SET LOCAL pyreplica.origin = {};", quote_literal(origin))
}

fn log_change(name: &str, change: &Change, table: &Table) {
    if log::log_enabled!(target: name, log::Level::Debug) {
        log::debug!(target: name, "Executing: {}", instruction(change, Some(table)));
    }
}
