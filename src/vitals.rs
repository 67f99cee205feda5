//! How a pair is doing, asked of the databases: they know it also while the daemon is down, and it cannot be wrong.
//!
//! What the databases cannot know, why the daemon fails, it has left in `replica_error` on the master (`report.rs`).

mod exposition;
mod show;

use crate::checks;
use crate::config::Config;
use crate::db::Session;
use crate::diagnosis;
use crate::error::{Error, Kind, Result};
use crate::names::{BatchNumber, Side, quote_literal};
use crate::recovery::GidFamily;
use crate::sql;
use crate::twophase::Protocol;
use std::collections::BTreeSet;
use std::time::Duration;

pub use exposition::exposition;
pub use show::{as_json, as_table};

/// So many rows of the log are looked at: some tenths of a second. What is beyond is estimated by the ids.
const LOOK_ROWS: i64 = 100_000;

/// A batch of a daemon at work is prepared for milliseconds; after this it is stuck.
const DOUBT_PATIENCE: Duration = Duration::from_secs(60);

/// What was found out about one pair. What is None could not be found out.
#[derive(Debug, Default)]
pub struct Vitals {
    pub name: String,
    pub field: String,
    /// Whether the master and the slave could be reached.
    pub reached: [bool; 2],
    /// The server process of the daemon's session on the master.
    pub daemon: Option<i32>,
    pub lag: Option<Lag>,
    pub error: Option<LastError>,
    pub doubt: Option<Doubt>,
    pub aside: Aside,
    pub problems: Vec<Problem>,
}

/// How far the slave is behind, and with what.
#[derive(Debug)]
pub struct Lag {
    pub changes: u64,
    pub is_estimate: bool,
    /// Since the oldest change that waits was made; none waits: zero.
    pub seconds: f64,
    pub batch: i64,
    pub replayed_at: Option<String>,
    /// The last change that was replayed, and its transaction if the log still has it.
    pub last: Option<i64>,
    pub transaction: Option<String>,
    /// The newest change of the log.
    pub highest: i64,
    pub log_bytes: u64,
}

#[derive(Debug)]
pub struct LastError {
    pub since: String,
    pub since_epoch: f64,
    pub last: String,
    pub attempts: u64,
    pub message: String,
    pub hint: Option<String>,
    pub change: Option<i64>,
    /// When it worked again.
    pub recovered: Option<String>,
}

/// Batches of this pair that are prepared.
#[derive(Debug, Default)]
pub struct Doubt {
    pub batches: u64,
    pub oldest: Duration,
}

/// What a slave's tables tell about changes that were not replayed, or on another row than they should have been.
#[derive(Debug, Default)]
pub struct Aside {
    pub conflicts: Option<u64>,
    pub last_conflict: Option<String>,
    pub held: Option<u64>,
    pub paused_tables: String,
    pub is_paused: bool,
}

/// What somebody should see to.
#[derive(Debug)]
pub struct Problem {
    /// It does not replicate, or not all.
    pub is_failure: bool,
    pub text: String,
    pub hint: Option<String>,
}

/// Looks at the pair. `source` names it on a command line.
pub fn look(config: &Config, source: &str, master: Result<Session>, slave: Result<Session>) -> Vitals {
    let mut vitals = Vitals { name: config.name.clone(), field: config.slave_field.clone(), ..Vitals::default() };
    let mut master = vitals.opened(0, master);
    let mut slave = vitals.opened(1, slave);
    let origin = match master.as_mut().map(|master| vitals.ask_master(config, master)) {
        Some(Ok(origin)) => Some(origin),
        Some(Err(error)) => {
            vitals.trouble(&error);
            None
        }
        None => None,
    };
    if let Some(origin) = origin {
        let mut sessions: Vec<&mut Session> = [&mut master, &mut slave].into_iter().flatten().collect();
        match in_doubt(config, origin, &mut sessions) {
            Ok(doubt) => vitals.doubt = Some(doubt),
            Err(error) => vitals.trouble(&error),
        }
    }
    if let (Some(origin), Some(slave)) = (origin, &mut slave) {
        match ask_slave(&Protocol::progress_key(origin, &config.slave_field), slave) {
            Ok(aside) => vitals.aside = aside,
            Err(error) => vitals.trouble(&error),
        }
    }
    vitals.judge(source);
    vitals
}

impl Vitals {
    /// One word for how it is.
    pub fn state(&self) -> &'static str {
        let is_failing = self.error.as_ref().is_some_and(|error| error.recovered.is_none());
        match (self.reached[0], self.daemon) {
            (false, _) => "unknown",
            _ if self.aside.is_paused => "paused",
            (true, Some(_)) if !is_failing => "replicating",
            (true, _) if is_failing => "failing",
            (true, _) => "stopped",
        }
    }

    /// Replication goes on, as far as anybody can see.
    pub fn is_healthy(&self) -> bool {
        self.daemon.is_some() && !self.problems.iter().any(|problem| problem.is_failure)
    }

    fn opened(&mut self, place: usize, session: Result<Session>) -> Option<Session> {
        let opened = session.and_then(|mut session| {
            session.message("set the session up", sql::LOOK_ONLY)?;
            session.message("set the session up", sql::READ_BY_INDEX)?;
            Ok(session)
        });
        match opened {
            Ok(session) => {
                self.reached[place] = true;
                Some(session)
            }
            Err(error) => {
                self.trouble(&error);
                None
            }
        }
    }

    fn trouble(&mut self, error: &Error) {
        self.problems.push(Problem {
            is_failure: true,
            text: error.to_string(),
            hint: error.hint().map(str::to_string),
        });
    }

    fn ask_master(&mut self, config: &Config, master: &mut Session) -> Result<u64> {
        let log = checks::log_oid(master)?;
        let identity: String = master.query_one("look at the server", sql::IDENTITY, &[])?.get(0);
        let field = &config.slave_field;
        let rows = master.query("look for the daemon", sql::DAEMON, &[field])?;
        self.daemon = rows.first().map(|row| row.get("pid"));
        self.lag = Some(lag(master, field)?);
        if master.query_one("look for errors", sql::MAY_NOTE_ERRORS, &[])?.get::<_, bool>(0) {
            self.error = last_error(master, field)?;
        }
        Ok(checks::origin(&identity, log))
    }

    /// What of all that somebody should see to.
    fn judge(&mut self, source: &str) {
        let mut found = Vec::new();
        let mut say = |is_failure, text: String, hint: Option<String>| found.push(Problem { is_failure, text, hint });
        match &self.error {
            Some(error) if error.recovered.is_none() => say(
                true,
                format!(
                    "failing since {} (attempts: {}, last at {}): {}",
                    error.since, error.attempts, error.last, error.message
                ),
                error.hint.clone(),
            ),
            _ => {}
        }
        // Between two attempts that fail a daemon is not connected either.
        let is_failing = self.error.as_ref().is_some_and(|error| error.recovered.is_none());
        if self.reached[0] && self.daemon.is_none() && !is_failing {
            let waiting = self.lag.as_ref().map_or(0, |lag| lag.changes);
            let text = format!("no daemon is connected to the master; changes that wait: {waiting}");
            say(false, text, Some(format!("is it running? start it: pyreplica {source}")));
        }
        if let Some(doubt) = self.doubt.as_ref().filter(|doubt| doubt.batches > 0) {
            let is_stuck = self.daemon.is_none() || doubt.oldest >= DOUBT_PATIENCE;
            if is_stuck {
                let text = format!("batches in doubt: {}, the oldest for {} s", doubt.batches, doubt.oldest.as_secs());
                say(false, text, Some("the daemon settles them when it connects".into()));
            }
        }
        if self.aside.is_paused {
            say(false, "paused by the operator".into(), Some(format!("pyreplica resume {source}")));
        }
        if let Some(held) = self.aside.held.filter(|held| *held > 0) {
            let text = format!("changes that were put aside and not replayed: {held}");
            say(false, text, Some(format!("pyreplica pending {source}")));
        }
        self.problems.append(&mut found);
    }
}

fn lag(master: &mut Session, field: &str) -> Result<Lag> {
    let columns = master.query("look at the log's columns", sql::SLAVE_FIELDS, &[])?;
    if !columns.iter().any(|row| row.get::<_, &str>(0) == field) {
        let what = format!("replica_log has no column for SLAVE_FIELD={field}");
        let hint = format!("on the master: SELECT py_log_add_slave({});", quote_literal(field));
        return Err(Error::new(Kind::Setup, Some(Side::Master), "read the log", what).with_hint(hint));
    }
    let row = master.query_one("look how far the slave is", &sql::lag(field), &[&field, &LOOK_ROWS])?;
    let (pending, newest): (i64, i64) = (row.get("pending"), row.get("newest"));
    let (up_to, highest): (i64, i64) = (row.get("up_to"), row.get("highest"));
    let is_estimate: bool = row.get("is_cut");
    let beyond = if is_estimate && newest > 0 { (highest - up_to).max(newest) } else { 0 };
    let changes = (pending + beyond).max(0) as u64;
    Ok(Lag {
        changes,
        is_estimate,
        seconds: row.get::<_, Option<f64>>("seconds").filter(|_| changes > 0).unwrap_or(0.0).max(0.0),
        batch: row.get("batch"),
        replayed_at: row.get::<_, Option<String>>("replayed_at").filter(|_| row.get::<_, i64>("batch") > 0),
        last: row.get("last"),
        transaction: row.get("txid"),
        highest,
        log_bytes: row.get::<_, i64>("size") as u64,
    })
}

fn last_error(master: &mut Session, field: &str) -> Result<Option<LastError>> {
    let rows = master.query("look for errors", sql::LAST_ERROR, &[&field])?;
    Ok(rows.first().map(|row| LastError {
        since: row.get("since"),
        since_epoch: row.get("since_epoch"),
        last: row.get("last"),
        attempts: row.get::<_, i64>("attempts") as u64,
        message: row.get("message"),
        hint: row.get("hint"),
        change: row.get("change"),
        recovered: row.get("recovered"),
    }))
}

fn in_doubt(config: &Config, origin: u64, sessions: &mut [&mut Session]) -> Result<Doubt> {
    let family = GidFamily::new(&config.name, &config.slave_field, origin);
    let (mut numbers, mut oldest): (BTreeSet<BatchNumber>, _) = (BTreeSet::new(), Duration::ZERO);
    for session in sessions {
        for prepared in diagnosis::prepared(session)?.iter().filter(|prepared| prepared.is_here) {
            let Some(number) = family.number(prepared.side, &prepared.gid) else { continue };
            numbers.insert(number);
            oldest = oldest.max(prepared.age);
        }
    }
    Ok(Doubt { batches: numbers.len() as u64, oldest })
}

fn ask_slave(master: &str, slave: &mut Session) -> Result<Aside> {
    let mut aside = Aside::default();
    let there = slave.query_one("look for what is put aside", sql::PUT_ASIDE, &[])?;
    if there.get("conflicts") {
        let row = slave.query_one("count the conflicts", sql::CONFLICTS, &[&master])?;
        aside.conflicts = Some(row.get::<_, i64>(0) as u64);
        aside.last_conflict = row.get(1);
    }
    if there.get("held") {
        let row = slave.query_one("count what is put aside", sql::HELD, &[&master])?;
        aside.held = Some(row.get::<_, i64>(0) as u64);
        aside.paused_tables = row.get(1);
        aside.is_paused = row.get(2);
    }
    Ok(aside)
}
