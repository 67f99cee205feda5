//! The tables' load: several at a time, each in a transaction of its own, all from one snapshot.
//!
//! The session that has taken the snapshot keeps the locks of all tables, and loads some itself. Others lock a table without
//! waiting, for they would wait behind an ALTER TABLE that waits for the first one; what they cannot have is left to it. A
//! lock that is had while the first one still holds its own says that the table is what the snapshot shows.

use super::News;
use crate::backlog::snapshot::Snapshot;
use crate::base::control::{Canceller, Control};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::config::settings::Config;
use crate::copy::plan::CopyPlan;
use crate::copy::sql;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::replay::sql as replay_sql;
use crate::server::checks::take_replica_role;
use crate::server::connect;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;";

/// How often the operator hears how far it is.
const TELL: Duration = Duration::from_millis(200);

/// What failed for one table is taken back to here, without giving up the snapshot and the locks.
const BEGIN_TABLE: &str = "SAVEPOINT pyreplica_table";
const UNDO_TABLE: &str = "ROLLBACK TO SAVEPOINT pyreplica_table; RELEASE SAVEPOINT pyreplica_table";
const END_TABLE: &str = "RELEASE SAVEPOINT pyreplica_table";

/// How everything is loaded.
pub(super) struct Way<'a> {
    pub config: &'a Config,
    pub key: &'a str,
    /// The snapshot by the name under which other sessions take it, and as it is noted.
    pub exported: &'a str,
    pub snapshot: &'a Snapshot,
    /// The backend that has taken it, and holds the locks.
    pub keeper: i32,
    pub jobs: usize,
    /// Empty a table in the very transaction that loads it.
    pub delete_first: bool,
    /// The state of a table that has been loaded.
    pub done: &'static str,
}

/// A table that this run has loaded.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    pub relation: String,
    pub rows: u64,
    pub bytes: u64,
    pub took: Duration,
}

/// How far the load is.
pub struct Board {
    pub tables: usize,
    pub done: usize,
    pub rows: u64,
    pub bytes: u64,
    /// Of all tables, by their size; from 0 to 1.
    pub share: f64,
    pub elapsed: Duration,
}

/// What one table has come to, for whoever watches.
#[derive(Default)]
struct Gauge {
    rows: AtomicU64,
    bytes: AtomicU64,
    is_done: AtomicBool,
}

/// A worker's two sessions.
struct Pipe {
    master: Session,
    slave: Session,
}

struct Shared<'a> {
    way: &'a Way<'a>,
    plans: &'a [CopyPlan],
    gauges: Vec<Gauge>,
    next: AtomicUsize,
    control: &'a Control,
    /// The slave has a table of changes that are put aside.
    drops_held: bool,
}

type Report = (usize, Result<LoadedTable>);

/// Who loads a table, and how what the others could not lock comes to the keeper.
enum Part {
    Keeper(Receiver<usize>),
    Other(Sender<usize>),
}

/// Loads all tables. A table that fails does not keep the others from being loaded.
/// `keeper` is the session that has taken the snapshot and locked the tables.
pub(super) fn all(
    way: &Way,
    keeper: Session,
    plans: &[CopyPlan],
    control: &Control,
    tell: &mut dyn FnMut(News),
) -> Result<Vec<LoadedTable>> {
    let mut pipes = vec![Pipe::open(way, Some(keeper))?];
    for _ in 1..way.jobs.clamp(1, plans.len().max(1)) {
        pipes.push(Pipe::open(way, None)?);
    }
    control.set_cancellers(pipes.iter().flat_map(Pipe::cancellers).collect());
    let gauges = plans.iter().map(|_| Gauge::default()).collect();
    let drops_held = pipes[0].slave.query_one("look for held changes", sql::MAY_DROP_HELD, &[])?.get(0);
    let shared = Shared { way, plans, gauges, next: AtomicUsize::new(0), control, drops_held };
    let started = Instant::now();
    let (mut loaded, mut failed): (Vec<LoadedTable>, Vec<(String, Error)>) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let (sender, reports) = channel();
        let (leave, left) = channel();
        let mut left = Some(left);
        for (number, pipe) in pipes.into_iter().enumerate() {
            let (shared, sender) = (&shared, sender.clone());
            let part = left.take().map_or_else(|| Part::Other(leave.clone()), Part::Keeper);
            let work = move || shared.work(pipe, part, &sender);
            let spawned = thread::Builder::new().name(format!("copy {number}")).spawn_scoped(scope, work);
            if let Err(e) = spawned {
                failed.push((String::new(), Error::new(Kind::Internal, None, "start a thread", e)));
            }
        }
        drop((sender, leave));
        loop {
            match reports.recv_timeout(TELL) {
                Ok((_, Ok(table))) => {
                    tell(News::LoadedTable(&table));
                    loaded.push(table);
                }
                Ok((index, Err(error))) => failed.push((plans[index].relation.clone(), error)),
                Err(RecvTimeoutError::Timeout) => tell(News::Progress(&shared.board(started))),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    match failed.into_iter().next() {
        _ if control.is_stopping() => Err(stopped()),
        Some((relation, error)) => Err(blame(error, &relation, loaded.len(), plans.len())),
        None if loaded.len() < plans.len() => {
            Err(Error::new(Kind::Internal, None, "copy", "a thread panicked, as the line before says"))
        }
        None => Ok(loaded),
    }
}

impl Pipe {
    fn open(way: &Way, keeper: Option<Session>) -> Result<Pipe> {
        let label = format!("{} copy", way.config.name);
        let mut master = match keeper {
            Some(keeper) => keeper,
            None => {
                let mut master = connect::connect(Side::Master, &way.config.master, &label)?;
                let take = format!("{BEGIN_SNAPSHOT} SET TRANSACTION SNAPSHOT {}", quote_literal(way.exported));
                master.message("take the snapshot", &take)?;
                master
            }
        };
        let mut slave = connect::connect(Side::Slave, &way.config.slave, &label)?;
        let identity: String = master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        slave.set_up(&identity)?;
        // Whether it may was looked at: if not, no table has anything that would fire.
        take_replica_role(&mut slave)?;
        slave.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
        Ok(Pipe { master, slave })
    }

    fn cancellers(&self) -> [Canceller; 2] {
        [self.master.canceller(), self.slave.canceller()]
    }

    /// Ready for the next table, after one that failed.
    fn recover(&mut self) -> Result<()> {
        self.slave.message("roll back", "ROLLBACK")?;
        self.master.message("roll back", UNDO_TABLE).map(drop)
    }
}

impl Shared<'_> {
    fn work(&self, mut pipe: Pipe, part: Part, reports: &Sender<Report>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.plans.len() {
                break;
            }
            if !self.take_on(&mut pipe, &part, index, reports) {
                return;
            }
        }
        // Until no other is at work any more.
        let Part::Keeper(left) = &part else { return };
        for index in left {
            if !self.take_on(&mut pipe, &part, index, reports) {
                return;
            }
        }
    }

    /// Loads a table, or leaves it to the keeper; whether the pipe is good for another one.
    fn take_on(&self, pipe: &mut Pipe, part: &Part, index: usize, reports: &Sender<Report>) -> bool {
        if self.control.is_stopping() {
            return false;
        }
        let outcome = self.begin(pipe, part, &self.plans[index]).and_then(|has_lock| match part {
            Part::Other(leave) if !has_lock => {
                // The keeper is gone only if it has told of an error of its own.
                let _ = leave.send(index);
                Ok(None)
            }
            _ => self.load(pipe, index).map(Some),
        });
        let goes_on = match &outcome {
            Ok(_) => pipe.master.message("end a table", END_TABLE).is_ok(),
            Err(error) => !error.is_transient() && pipe.recover().is_ok(),
        };
        // Nobody listens any more only if the main thread has panicked.
        let is_told = outcome.transpose().is_none_or(|outcome| reports.send((index, outcome)).is_ok());
        is_told && goes_on
    }

    /// False if the table's lock is not to be had now.
    fn begin(&self, pipe: &mut Pipe, part: &Part, plan: &CopyPlan) -> Result<bool> {
        pipe.master.message("begin a table", BEGIN_TABLE)?;
        if let Part::Keeper(_) = part {
            return Ok(true);
        }
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", plan.source);
        match pipe.master.message("lock the table", &lock) {
            Err(error) if error.code() == Some("55P03") => {
                pipe.master.message("roll back", &format!("{UNDO_TABLE}; {BEGIN_TABLE}"))?;
                return Ok(false);
            }
            other => other?,
        };
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.way.keeper, &plan.relation];
        if pipe.master.query_one("look at the locks", sql::KEEPS_LOCK, &parameters)?.get(0) {
            return Ok(true);
        }
        let detail = format!("the session that kept {} as the snapshot shows it is gone", plan.relation);
        Err(Error::new(Kind::Connection, Some(Side::Master), "copy", detail))
    }

    fn load(&self, pipe: &mut Pipe, index: usize) -> Result<LoadedTable> {
        let (way, plan, gauge) = (self.way, &self.plans[index], &self.gauges[index]);
        let started = Instant::now();
        pipe.slave.message("begin a transaction", "BEGIN")?;
        let row = pipe.slave.query_one("note the copy", sql::BEGIN_LOAD, &[&way.key, &plan.relation])?;
        if !matches!(row.get(0), "wanted" | "held") {
            let detail = format!("a former copy has loaded {} in this very moment", plan.relation);
            return Err(Error::new(Kind::Contention, Some(Side::Slave), "copy", detail).with_hint("run it again"));
        }
        pipe.slave.message("set the session up", replay_sql::APPLICATION_PATH)?;
        if way.delete_first {
            pipe.slave.message("empty the table", &format!("DELETE FROM {}", plan.target))?;
        }
        let Pipe { master, slave } = pipe;
        let rows = master.copy(&plan.out, slave, &plan.into, plan.is_binary, &mut |bytes| {
            if gauge.rows.fetch_add(1, Ordering::Relaxed) == 0 {
                failpoint::reached("copy-loading");
            }
            gauge.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if self.control.is_stopping() { Err(stopped()) } else { Ok(()) }
        })?;
        pipe.slave.message("set the session up", replay_sql::DAEMON_PATH)?;
        let snapshot = way.snapshot.as_str();
        pipe.slave.execute(
            "note the copy",
            sql::END_LOAD,
            &[&way.key, &plan.relation, &way.done, &snapshot, &(rows as i64)],
        )?;
        if self.drops_held {
            let parameters: [&(dyn ToSql + Sync); 3] = [&way.key, &plan.relation, &snapshot];
            pipe.slave.execute("drop what is held and copied", sql::DROP_HELD, &parameters)?;
        }
        failpoint::reached("copy-noted");
        pipe.slave.message("commit", "COMMIT")?;
        failpoint::reached("copy-table");
        gauge.rows.store(rows, Ordering::Relaxed);
        gauge.is_done.store(true, Ordering::Relaxed);
        let bytes = gauge.bytes.load(Ordering::Relaxed);
        Ok(LoadedTable { relation: plan.relation.clone(), rows, bytes, took: started.elapsed() })
    }

    fn board(&self, started: Instant) -> Board {
        let mut board =
            Board { tables: self.plans.len(), done: 0, rows: 0, bytes: 0, share: 0.0, elapsed: started.elapsed() };
        let total: u64 = self.plans.iter().map(weight).sum();
        for (plan, gauge) in self.plans.iter().zip(&self.gauges) {
            let rows = gauge.rows.load(Ordering::Relaxed);
            let is_done = gauge.is_done.load(Ordering::Relaxed);
            let bytes = gauge.bytes.load(Ordering::Relaxed);
            // Statistics are seldom right: a table is whole when it is done, and not before. One without any goes by size.
            let (part, all) = if plan.rows > 0 { (rows, plan.rows) } else { (bytes, plan.bytes) };
            let share = if is_done { 1.0 } else { (part as f64 / all.max(1) as f64).min(0.99) };
            board.done += usize::from(is_done);
            board.rows += rows;
            board.bytes += bytes;
            board.share += share * weight(plan) as f64 / total.max(1) as f64;
        }
        board
    }
}

/// Also an empty table takes a moment.
fn weight(plan: &CopyPlan) -> u64 {
    plan.bytes + 8192
}

fn blame(error: Error, relation: &str, loaded: usize, all: usize) -> Error {
    let mend = error.hint().map(str::to_string).unwrap_or_else(|| "mend that".to_string());
    let hint = format!("{mend}; {loaded} of {all} tables are loaded: run the copy again, and it goes on with the rest");
    // What a server refuses is for the operator to set right there.
    let kind = if error.kind() == Kind::Internal && error.code().is_some() { Kind::Setup } else { error.kind() };
    let table = if relation.is_empty() { "the tables" } else { relation };
    Error::new(kind, error.side(), format!("copy {table}"), error.detail()).with_hint(hint)
}

fn stopped() -> Error {
    Error::new(Kind::Stopped, None, "copy", "stopped by a signal")
}
