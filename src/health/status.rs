//! The state of a pair, read from the databases. They have it also while the daemon is down, and it is always current.
//!
//! The databases cannot know why the daemon fails. The daemon records that in `replica_error` on the master
//! (`report.rs`).

mod problems;
mod lag;
mod as_text;

use crate::backlog::sql as backlog_sql;
use crate::base::error::{Error, Result};
use crate::base::names::{BatchNumber, Side};
use crate::commit::agreement;
use crate::commit::prepared::prepared;
use crate::commit::recovery::GidFamily;
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::health::sql;
use crate::pair::copied::{self, Unfinished};
use crate::sequences::comparison::{self, Comparison};
use crate::server::checks;
use crate::server::ours;
use crate::server::role::{self, Roles, State};
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::collections::BTreeSet;
use std::time::Duration;

pub use as_text::{as_json, as_table};
pub use lag::{Count, Lag, Progress, progress};

/// The state of one pair. A field is None if there is no such thing, or if it could not be read.
#[derive(Debug, Default)]
pub struct PairStatus {
    pub name: String,
    pub field: String,
    /// Who is the master, if that is known.
    pub roles: Option<Roles>,
    /// Where clients find the master.
    pub master_at: String,
    /// Whether the master and the slave could be reached.
    pub reached: [bool; 2],
    /// The daemon's session on the master.
    pub daemon: Option<Daemon>,
    pub lag: Option<Lag>,
    pub open: Option<OpenTransactions>,
    pub error: Option<LastError>,
    /// When and why the slave's position was last set back or anew.
    pub history: Option<(String, String)>,
    pub in_doubt: Option<InDoubt>,
    pub records: SlaveRecords,
    /// LOG_WARNING, in bytes.
    pub log_warning: u64,
    /// What a server has waited for, instead of working for the daemon.
    pub waits: Vec<Wait>,
    /// A daemon waits for its next try.
    pub daemon_waits: bool,
    /// Whether it is known if a daemon is connected.
    pub knows_daemon: bool,
    /// A copy to the slave is in progress.
    pub is_copying: bool,
    /// A copy of all tables that must be finished before a daemon replicates.
    pub copy: Option<Unfinished>,
    /// None if they do not follow, or were not looked at.
    pub sequences: Option<Comparison>,
    pub problems: Vec<Problem>,
    /// On which sides a question has failed.
    failed: Vec<Option<Side>>,
}

/// The session that holds the slave's lock on the master.
#[derive(Debug)]
pub struct Daemon {
    pub pid: i32,
    /// The client's address. Empty if it is on the master's machine.
    pub client: String,
}

/// A server does not answer the daemon, because it waits for something.
#[derive(Debug)]
pub struct Wait {
    pub side: Side,
    pub pid: i32,
    /// As pg_stat_activity has it: the event, and its type.
    pub what: String,
    pub event: String,
    pub is_lock: bool,
    pub time: Duration,
}

/// Transactions on the master that have logged changes and are still open.
#[derive(Debug)]
pub struct OpenTransactions {
    pub transactions: u64,
    pub oldest: Duration,
}

#[derive(Debug)]
pub struct LastError {
    pub since: String,
    pub since_epoch: f64,
    pub last: String,
    /// The time since the last attempt.
    pub idle: Duration,
    pub attempts: u64,
    pub message: String,
    pub hint: Option<String>,
    pub change: Option<i64>,
    /// When it worked again.
    pub recovered: Option<String>,
}

/// Batches of this pair that are prepared and neither committed nor rolled back.
#[derive(Debug, Default)]
pub struct InDoubt {
    pub batches: u64,
    pub oldest: Duration,
    pub transactions: Vec<(Side, String)>,
    /// A daemon would refuse to replicate before it settles them.
    pub is_refused: bool,
}

/// What the slave's tables record: conflicts and held changes.
#[derive(Debug, Default)]
pub struct SlaveRecords {
    pub conflicts: Option<u64>,
    pub last_conflict: Option<String>,
    pub held: Option<u64>,
    pub paused_tables: String,
    pub copying_tables: String,
    pub is_paused: bool,
}

/// Something that needs the operator's attention.
#[derive(Debug)]
pub struct Problem {
    /// The pair does not replicate, or not all of its changes.
    pub is_failure: bool,
    pub text: String,
    pub hint: Option<String>,
}

/// Reads the state of a pair. `source` names it on a command line. Reading thousands of sequences takes tenths of a second:
/// `with_sequences` says whether that is wanted.
pub fn look(
    config: &Config,
    source: &str,
    roles: Option<Roles>,
    (master, slave): (&mut Result<Session>, &mut Result<Session>),
    with_sequences: bool,
) -> PairStatus {
    let (name, field) = (config.name.clone(), config.slave_field.clone());
    let master_at = role::place(&config.master);
    let log_warning = config.log_warning;
    let mut status = PairStatus { name, field, roles, master_at, log_warning, ..PairStatus::default() };
    let mut master = status.opened(0, master);
    let mut slave = status.opened(1, slave);
    let origin = match master.as_mut().map(|master| status.ask_master(config, master)) {
        Some(Ok(origin)) => Some(origin),
        Some(Err(error)) => {
            status.add_failure(&error);
            None
        }
        None => None,
    };
    let sessions = [&mut master, &mut slave].into_iter().flatten();
    match in_doubt(config, origin, sessions) {
        Ok(in_doubt) if origin.is_some() || in_doubt.batches > 0 => status.in_doubt = Some(in_doubt),
        Ok(_) => {}
        Err(error) => status.add_failure(&error),
    }
    if let (Some(origin), Some(master), Some(slave)) = (origin, &mut master, &mut slave) {
        let asked = status.compare_batches(&pair_key(origin, &config.slave_field), master, slave);
        asked.unwrap_or_else(|error| status.add_failure(&error));
    }
    for session in [&mut master, &mut slave].into_iter().flatten() {
        status.look_for_waits(session).unwrap_or_else(|error| status.add_failure(&error));
    }
    if let (Some(origin), Some(slave)) = (origin, &mut slave) {
        let asked = status.ask_slave(&pair_key(origin, &config.slave_field), slave);
        asked.unwrap_or_else(|error| status.add_failure(&error));
    }
    if let (Some(master), Some(slave), true) = (&mut master, &mut slave, with_sequences && config.sequences.is_some()) {
        status.sequences = comparison::compare(master, slave, &config.tables).ok();
    }
    status.find_problems(config, source);
    status
}

impl PairStatus {
    /// Of a pair that cannot be asked.
    pub fn unknown(config: &Config, problem: Problem) -> PairStatus {
        let (name, field) = (config.name.clone(), config.slave_field.clone());
        PairStatus { name, field, problems: vec![problem], ..PairStatus::default() }
    }

    /// The state in one word.
    pub fn state(&self) -> &'static str {
        let is_failing = self.is_failing();
        match (self.reached[0] && self.knows_daemon, &self.daemon) {
            (false, _) => "unknown",
            _ if self.records.is_paused => "paused",
            (true, None) if self.is_copying => "copying",
            (true, Some(_)) if !is_failing && self.reached[1] => "replicating",
            (true, daemon) if is_failing || daemon.is_some() || self.daemon_waits => "failing",
            (true, _) => "stopped",
        }
    }

    /// Whether the daemon's last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.recovered.is_none())
    }

    /// Whether DSN1 is the master.
    pub fn is_reversed(&self) -> bool {
        self.roles.as_ref().is_some_and(|roles| roles.is_reversed)
    }

    /// Whether a daemon is connected and nothing is known to fail.
    pub fn is_healthy(&self) -> bool {
        self.daemon.is_some() && !self.problems.iter().any(|problem| problem.is_failure)
    }

    fn opened<'a>(&mut self, side: usize, session: &'a mut Result<Session>) -> Option<&'a mut Session> {
        let set_up = |session: &mut Session| {
            session.message("set the session up", sql::READ_ONLY)?;
            session.message("set the session up", backlog_sql::READ_BY_INDEX).map(drop)
        };
        match session {
            Ok(session) => match set_up(session) {
                Ok(()) => {
                    self.reached[side] = true;
                    return Some(session);
                }
                Err(error) => self.add_failure(&error),
            },
            Err(error) => self.add_failure(error),
        }
        None
    }

    /// Whether a question to this side has failed.
    pub fn has_failed_on(&self, side: Side) -> bool {
        self.failed.iter().any(|failed| failed.is_none_or(|failed| failed == side))
    }

    fn add_failure(&mut self, error: &Error) {
        self.failed.push(error.side());
        let text = error.to_string();
        // What is wrong with both sides is told once.
        if !self.problems.iter().any(|problem| problem.text == text) {
            self.problems.push(Problem { is_failure: true, text, hint: error.hint().map(str::to_string) });
        }
    }

    fn ask_master(&mut self, config: &Config, master: &mut Session) -> Result<u64> {
        let log = checks::log_oid(master)?;
        let identity: String = master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        let field = &config.slave_field;
        let rows = master.query("look for the daemon", server_sql::DAEMON, &[field])?;
        self.daemon = rows
            .iter()
            .find(|row| row.get("replicates") && !row.get::<_, bool>("copies"))
            .map(|row| Daemon { pid: row.get("pid"), client: row.get("client") });
        if self.daemon.is_none() {
            self.daemon_waits =
                master.query_one("look for a daemon that waits", sql::WAITING_DAEMON, &[&config.name])?.get(0);
        }
        self.is_copying = rows.iter().any(|row| row.get("copies"));
        self.knows_daemon = true;
        self.lag = Some(lag::of(master, field)?);
        let open = master.query_one("look for open transactions", sql::OPEN_TRANSACTIONS, &[])?;
        self.open = Some(OpenTransactions {
            transactions: open.get::<_, i64>("transactions") as u64,
            oldest: seconds(open.get("seconds")),
        });
        if master.query_one("look for errors", sql::MAY_READ_ERRORS, &[])?.get::<_, bool>(0) {
            self.error = last_error(master, field)?;
        }
        if master.query_one("look at the history", sql::MAY_READ_HISTORY, &[])?.get::<_, bool>(0) {
            let rows = master.query("look at the history", sql::LAST_HISTORY, &[field])?;
            self.history = rows.first().map(|row| (row.get("at"), row.get("why")));
        }
        Ok(checks::origin(&identity, log))
    }

    fn look_for_waits(&mut self, session: &mut Session) -> Result<()> {
        let side = session.side();
        let table = if side == Side::Master { "public.replica_slave" } else { "public.replica_progress" };
        let patience = problems::WAIT_PATIENCE.as_secs_f64();
        for row in session.query("look for waits", sql::WAITS, &[&self.name, &table, &patience])? {
            self.waits.push(Wait {
                side,
                pid: row.get("pid"),
                what: row.get("what"),
                event: row.get("event"),
                is_lock: row.get::<_, &str>("kind") == "Lock",
                time: seconds(row.get("seconds")),
            });
        }
        Ok(())
    }

    /// Do both servers mean the same last batch? A daemon at work has made sure of it, and its rows move.
    fn compare_batches(&mut self, key: &str, master: &mut Session, slave: &mut Session) -> Result<()> {
        // A former master is told by its role, and a repair is the wrong way out.
        if self
            .roles
            .as_ref()
            .is_some_and(|roles| matches!(roles.state, State::Former | State::Lost | State::Uninstalled))
        {
            return Ok(());
        }
        let Some(in_doubt) = self.in_doubt.as_mut().filter(|_| self.daemon.is_none() && !self.is_copying) else {
            return Ok(());
        };
        if copied::unfinished(slave, key)?.is_some() {
            return Ok(());
        }
        let Some((there, here)) = agreement::look(master, slave, key, &self.field)? else { return Ok(()) };
        let standing = agreement::standing(&there, here.as_ref());
        // A batch that one side has committed makes them agree as soon as it is settled.
        let tokens = [there.position.token.as_ref(), here.as_ref().and_then(|here| here.token.as_ref())];
        let is_of_last = |gid: &str| tokens.iter().flatten().any(|token| GidFamily::is_of(gid, token));
        if standing.is_refused() && !in_doubt.transactions.iter().any(|(_, gid)| is_of_last(gid)) {
            in_doubt.is_refused = true;
            self.add_failure(&agreement::refusal(standing, &there, here.as_ref()));
        }
        Ok(())
    }

    fn ask_slave(&mut self, master: &str, slave: &mut Session) -> Result<()> {
        let records = &mut self.records;
        if ours::may_read(slave, &["replica_conflict"])? {
            let row = slave.query_one("count the conflicts", sql::CONFLICTS, &[&master])?;
            records.conflicts = Some(row.get::<_, i64>(0) as u64);
            records.last_conflict = row.get(1);
        }
        if ours::may_read(slave, sql::HELD)? {
            let row = slave.query_one("count the held changes", sql::HELD_SUMMARY, &[&master])?;
            records.held = Some(row.get::<_, i64>(0) as u64);
            records.paused_tables = row.get(1);
            records.is_paused = row.get(2);
            records.copying_tables = row.get(3);
        }
        self.copy = copied::unfinished(slave, master)?;
        Ok(())
    }
}

/// A duration in seconds. It is zero if a clock that was set back made the number negative.
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

/// The batches of this pair that are in doubt. Without the log's origin, which only the master knows, it includes every
/// transaction that may be one.
fn in_doubt<'a, 's: 'a>(
    config: &Config,
    origin: Option<u64>,
    sessions: impl Iterator<Item = &'a mut &'s mut Session>,
) -> Result<InDoubt> {
    let field = &config.slave_field;
    let family = origin.map(|origin| GidFamily::new(&config.name, field, origin));
    let mut numbers: BTreeSet<BatchNumber> = BTreeSet::new();
    let mut in_doubt = InDoubt::default();
    for session in sessions {
        for prepared in prepared(session)?.into_iter().filter(|prepared| prepared.is_here) {
            match &family {
                Some(family) => match prepared.batch_of(family) {
                    Some(number) => drop(numbers.insert(number)),
                    None => continue,
                },
                None if prepared.may_be_batch_of(field) => in_doubt.batches += 1,
                None => continue,
            }
            in_doubt.oldest = in_doubt.oldest.max(prepared.age);
            in_doubt.transactions.push((prepared.side, prepared.gid));
        }
    }
    in_doubt.batches += numbers.len() as u64;
    Ok(in_doubt)
}
