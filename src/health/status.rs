//! How a pair is doing, asked of the databases: they know it also while the daemon is down, and it cannot be wrong.
//!
//! What the databases cannot know, why the daemon fails, it has left in `replica_error` on the master (`report.rs`).

mod exposition;
mod judge;
mod lag;
mod as_text;

use crate::backlog::sql as backlog_sql;
use crate::base::error::{Error, Result};
use crate::base::names::{BatchNumber, Side};
use crate::commit::prepared::prepared;
use crate::commit::recovery::GidFamily;
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::health::sql;
use crate::pair::copied::{self, Unfinished};
use crate::server::checks;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::collections::BTreeSet;
use std::time::Duration;

pub use as_text::{as_json, as_table};
pub use exposition::exposition;
pub use lag::{Count, Lag, Place, place};

/// What was found out about one pair. What is None could not be found out.
#[derive(Debug, Default)]
pub struct PairStatus {
    pub name: String,
    pub field: String,
    /// Whether the master and the slave could be reached.
    pub reached: [bool; 2],
    /// The daemon's session on the master.
    pub daemon: Option<Daemon>,
    pub lag: Option<Lag>,
    pub open: Option<Open>,
    pub error: Option<LastError>,
    pub doubt: Option<Doubt>,
    pub aside: Aside,
    /// Somebody copies to the slave.
    pub is_copying: bool,
    /// A copy that has to be ended before a daemon replicates.
    pub copy: Option<Unfinished>,
    pub problems: Vec<Problem>,
}

/// Whose session holds the slave's lock on the master.
#[derive(Debug)]
pub struct Daemon {
    pub pid: i32,
    /// The client's address; empty if it is on the master's machine.
    pub client: String,
}

/// Transactions on the master that have logged something and are not over.
#[derive(Debug)]
pub struct Open {
    pub transactions: u64,
    pub oldest: Duration,
}

#[derive(Debug)]
pub struct LastError {
    pub since: String,
    pub since_epoch: f64,
    pub last: String,
    /// Since the last attempt.
    pub idle: Duration,
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
    pub transactions: Vec<(Side, String)>,
}

/// What a slave's tables tell about changes that were not replayed, or on another row than they should have been.
#[derive(Debug, Default)]
pub struct Aside {
    pub conflicts: Option<u64>,
    pub last_conflict: Option<String>,
    pub held: Option<u64>,
    pub paused_tables: String,
    pub copying_tables: String,
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
pub fn look(config: &Config, source: &str, master: Result<Session>, slave: Result<Session>) -> PairStatus {
    let mut status =
        PairStatus { name: config.name.clone(), field: config.slave_field.clone(), ..PairStatus::default() };
    let mut master = status.opened(0, master);
    let mut slave = status.opened(1, slave);
    let origin = match master.as_mut().map(|master| status.ask_master(config, master)) {
        Some(Ok(origin)) => Some(origin),
        Some(Err(error)) => {
            status.trouble(&error);
            None
        }
        None => None,
    };
    let mut sessions: Vec<&mut Session> = [&mut master, &mut slave].into_iter().flatten().collect();
    match in_doubt(config, origin, &mut sessions) {
        Ok(doubt) if origin.is_some() || doubt.batches > 0 => status.doubt = Some(doubt),
        Ok(_) => {}
        Err(error) => status.trouble(&error),
    }
    if let (Some(origin), Some(slave)) = (origin, &mut slave) {
        let asked = status.ask_slave(&pair_key(origin, &config.slave_field), slave);
        asked.unwrap_or_else(|error| status.trouble(&error));
    }
    status.judge(config, source);
    status
}

impl PairStatus {
    /// One word for how it is.
    pub fn state(&self) -> &'static str {
        let is_failing = self.error.as_ref().is_some_and(|error| error.recovered.is_none());
        match (self.reached[0], &self.daemon) {
            (false, _) => "unknown",
            _ if self.aside.is_paused => "paused",
            (true, None) if self.is_copying => "copying",
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
            session.message("set the session up", backlog_sql::READ_BY_INDEX)?;
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
        let identity: String = master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        let field = &config.slave_field;
        let rows = master.query("look for the daemon", server_sql::DAEMON, &[field])?;
        self.daemon = rows
            .iter()
            .find(|row| !row.get::<_, bool>("copies"))
            .map(|row| Daemon { pid: row.get("pid"), client: row.get("client") });
        self.is_copying = master.query_one("look for a copy", sql::COPY_RUNS, &[field])?.get(0);
        self.lag = Some(lag::of(master, field)?);
        let open = master.query_one("look for open transactions", sql::OPEN_TRANSACTIONS, &[])?;
        self.open = Some(Open {
            transactions: open.get::<_, i64>("transactions") as u64,
            oldest: seconds(open.get("seconds")),
        });
        if master.query_one("look for errors", sql::MAY_RECORD_ERRORS, &[])?.get::<_, bool>(0) {
            self.error = last_error(master, field)?;
        }
        Ok(checks::origin(&identity, log))
    }

    fn ask_slave(&mut self, master: &str, slave: &mut Session) -> Result<()> {
        let aside = &mut self.aside;
        let there = slave.query_one("look for what is put aside", sql::MAY_SEE_HELD, &[])?;
        if there.get("conflicts") {
            let row = slave.query_one("count the conflicts", sql::CONFLICTS, &[&master])?;
            aside.conflicts = Some(row.get::<_, i64>(0) as u64);
            aside.last_conflict = row.get(1);
        }
        if there.get("held") {
            let row = slave.query_one("count what is put aside", sql::HELD_SUMMARY, &[&master])?;
            aside.held = Some(row.get::<_, i64>(0) as u64);
            aside.paused_tables = row.get(1);
            aside.is_paused = row.get(2);
            aside.copying_tables = row.get(3);
        }
        self.copy = copied::unfinished(slave, master)?;
        Ok(())
    }
}

/// A clock that was set back must not harm.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or_default()
}

fn last_error(master: &mut Session, field: &str) -> Result<Option<LastError>> {
    let rows = master.query("look for errors", sql::LAST_ERROR, &[&field])?;
    Ok(rows.first().map(|row| LastError {
        since: row.get("since"),
        since_epoch: row.get("since_epoch"),
        last: row.get("last"),
        idle: seconds(row.get("idle")),
        attempts: row.get::<_, i64>("attempts") as u64,
        message: row.get("message"),
        hint: row.get("hint"),
        change: row.get("change"),
        recovered: row.get("recovered"),
    }))
}

/// Without the log's origin, which only the master knows, everything that may be of this pair.
fn in_doubt(config: &Config, origin: Option<u64>, sessions: &mut [&mut Session]) -> Result<Doubt> {
    let field = &config.slave_field;
    let family = origin.map(|origin| GidFamily::new(&config.name, field, origin));
    let mut numbers: BTreeSet<BatchNumber> = BTreeSet::new();
    let mut doubt = Doubt::default();
    for session in sessions {
        for prepared in prepared(session)?.into_iter().filter(|prepared| prepared.is_here) {
            match &family {
                Some(family) => match prepared.batch_of(family) {
                    Some(number) => drop(numbers.insert(number)),
                    None => continue,
                },
                None if prepared.may_be_batch_of(field) => doubt.batches += 1,
                None => continue,
            }
            doubt.oldest = doubt.oldest.max(prepared.age);
            doubt.transactions.push((prepared.side, prepared.gid));
        }
    }
    doubt.batches += numbers.len() as u64;
    Ok(doubt)
}
