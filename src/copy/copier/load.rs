//! Loads the tables: several at a time, each in a transaction of its own, all from one snapshot.
//!
//! The session that has taken the snapshot holds the locks of all tables, and loads some tables itself. The other workers
//! lock a table without waiting, because they would wait behind an ALTER TABLE that waits for the first session. They leave
//! a table that they cannot lock to that session. If a worker gets the lock while the first session still holds its own,
//! the table is as the snapshot shows it.

use super::CopyEvent;
use super::parts::{Item, divide, note_divided};
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
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;";

/// How often the progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// If a table fails, the worker rolls back to this savepoint, and keeps the snapshot and the locks.
const BEGIN_TABLE: &str = "SAVEPOINT pyreplica_table";
const UNDO_TABLE: &str = "ROLLBACK TO SAVEPOINT pyreplica_table; RELEASE SAVEPOINT pyreplica_table";
const END_TABLE: &str = "RELEASE SAVEPOINT pyreplica_table";

/// How the tables are loaded.
pub(super) struct LoadOptions<'a> {
    pub config: &'a Config,
    pub key: &'a str,
    /// The name under which other sessions take the snapshot, and the snapshot as it is noted.
    pub exported: &'a str,
    pub snapshot: &'a Snapshot,
    /// The process id of the backend that has taken the snapshot and holds the locks.
    pub backend: i32,
    pub jobs: usize,
    /// Empty a table in the transaction that loads it.
    pub delete_first: bool,
    /// Divide large tables.
    pub divides: bool,
    /// The state that `replica_copy` gets for a table that has been loaded.
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
pub struct CopyProgress {
    pub tables: usize,
    pub done: usize,
    pub rows: u64,
    pub bytes: u64,
    /// How much of all tables is loaded, by their size; from 0 to 1.
    pub share: f64,
    pub elapsed: Duration,
}

/// How far one table is loaded, for the thread that shows the progress.
#[derive(Default)]
struct TableProgress {
    rows: AtomicU64,
    bytes: AtomicU64,
    is_done: AtomicBool,
    /// The parts that are not loaded yet, the rows of the others, and when the first one began.
    parts: AtomicUsize,
    loaded: AtomicU64,
    began: OnceLock<Instant>,
}

/// A worker's two sessions.
struct Worker {
    master: Session,
    slave: Session,
}

struct Shared<'a> {
    load_options: &'a LoadOptions<'a>,
    plans: &'a [CopyPlan],
    items: Vec<Item>,
    progress: Vec<TableProgress>,
    next: AtomicUsize,
    control: &'a Control,
    /// The slave has a table of held changes, and the role may delete from it.
    drops_held: bool,
}

type Report = (usize, Result<LoadedTable>);

/// A worker's role. A worker that could not lock a table leaves it, by a channel, to the one with the snapshot's session.
enum Role {
    SnapshotHolder(Receiver<Item>),
    Other(Sender<Item>),
}

/// Loads all tables. A table that fails does not keep the others from being loaded. `snapshot_session` has taken the
/// snapshot and locked the tables.
pub(super) fn all(
    load_options: &LoadOptions,
    snapshot_session: Session,
    plans: &[CopyPlan],
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<Vec<LoadedTable>> {
    let mut workers = vec![Worker::open(load_options, Some(snapshot_session))?];
    let items = divide(plans, if load_options.divides { load_options.jobs } else { 1 });
    for _ in 1..load_options.jobs.clamp(1, items.len().max(1)) {
        workers.push(Worker::open(load_options, None)?);
    }
    control.set_cancellers(workers.iter().flat_map(Worker::cancellers).collect());
    let progress: Vec<TableProgress> = plans.iter().map(|_| TableProgress::default()).collect();
    for item in &items {
        progress[item.table].parts.fetch_add(1, Ordering::Relaxed);
    }
    note_divided(&mut workers[0].slave, load_options.key, load_options.snapshot.as_str(), plans, &items)?;
    let drops_held = workers[0].slave.query_one("look for held changes", sql::MAY_DROP_HELD, &[])?.get(0);
    let shared = Shared { load_options, plans, items, progress, next: AtomicUsize::new(0), control, drops_held };
    let started = Instant::now();
    let (mut loaded, mut failed): (Vec<LoadedTable>, Vec<(String, Error)>) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let (sender, reports) = channel();
        let (leave, left) = channel();
        let mut left = Some(left);
        for (number, worker) in workers.into_iter().enumerate() {
            let (shared, sender) = (&shared, sender.clone());
            let role = left.take().map_or_else(|| Role::Other(leave.clone()), Role::SnapshotHolder);
            let work = move || shared.work(worker, role, &sender);
            let spawned = thread::Builder::new().name(format!("copy {number}")).spawn_scoped(scope, work);
            if let Err(e) = spawned {
                failed.push((String::new(), Error::new(Kind::Internal, None, "start a thread", e)));
            }
        }
        drop((sender, leave));
        loop {
            match reports.recv_timeout(PROGRESS_INTERVAL) {
                Ok((_, Ok(table))) => {
                    report(CopyEvent::LoadedTable(&table));
                    loaded.push(table);
                }
                Ok((index, Err(error))) => failed.push((plans[index].relation.clone(), error)),
                Err(RecvTimeoutError::Timeout) => report(CopyEvent::Progress(&shared.copy_progress(started))),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    match failed.into_iter().next() {
        _ if control.is_stopping() => Err(stopped()),
        Some((relation, error)) => Err(table_error(error, &relation, loaded.len(), plans.len())),
        None if loaded.len() < plans.len() => {
            Err(Error::new(Kind::Internal, None, "copy", "a thread panicked, as the line before says"))
        }
        None => Ok(loaded),
    }
}

impl Worker {
    fn open(load_options: &LoadOptions, snapshot_session: Option<Session>) -> Result<Worker> {
        let label = format!("{} copy", load_options.config.name);
        let mut master = match snapshot_session {
            Some(snapshot_session) => snapshot_session,
            None => {
                let mut master = connect::connect(Side::Master, &load_options.config.master, &label)?;
                let take =
                    format!("{BEGIN_SNAPSHOT} SET TRANSACTION SNAPSHOT {}", quote_literal(load_options.exported));
                master.message("take the snapshot", &take)?;
                master
            }
        };
        let mut slave = connect::connect(Side::Slave, &load_options.config.slave, &label)?;
        slave.refuse_views()?;
        let identity: String = master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        slave.set_up(&identity)?;
        // `check_slave` has made sure that, if the role may not do this, no table has anything that would fire.
        take_replica_role(&mut slave)?;
        slave.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
        Ok(Worker { master, slave })
    }

    fn cancellers(&self) -> [Canceller; 2] {
        [self.master.canceller(), self.slave.canceller()]
    }

    /// Makes the worker ready for the next table, after one that failed.
    fn recover(&mut self) -> Result<()> {
        self.slave.message("roll back", "ROLLBACK")?;
        self.master.message("roll back", UNDO_TABLE).map(drop)
    }
}

impl Shared<'_> {
    fn work(&self, mut worker: Worker, role: Role, reports: &Sender<Report>) {
        while let Some(item) = self.items.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if !self.load_or_leave(&mut worker, &role, *item, reports) {
                return;
            }
        }
        // This ends when no other worker runs any more.
        let Role::SnapshotHolder(left) = &role else { return };
        for item in left {
            if !self.load_or_leave(&mut worker, &role, item, reports) {
                return;
            }
        }
    }

    /// Loads a table, or leaves it to the session that holds the snapshot. Returns whether the worker can load another one.
    fn load_or_leave(&self, worker: &mut Worker, role: &Role, item: Item, reports: &Sender<Report>) -> bool {
        if self.control.is_stopping() {
            return false;
        }
        let outcome = self.begin(worker, role, &self.plans[item.table]).and_then(|has_lock| match role {
            Role::Other(leave) if !has_lock => {
                // This fails only if the receiver has ended, and then it has reported an error of its own.
                let _ = leave.send(item);
                Ok(None)
            }
            _ => self.load(worker, item),
        });
        let goes_on = match &outcome {
            Ok(_) => worker.master.message("end a table", END_TABLE).is_ok(),
            Err(error) => !error.is_transient() && worker.recover().is_ok(),
        };
        // This fails only if the main thread has panicked.
        let is_reported = outcome.transpose().is_none_or(|outcome| reports.send((item.table, outcome)).is_ok());
        is_reported && goes_on
    }

    /// Locks the table. False if the lock of another session is in the way.
    fn begin(&self, worker: &mut Worker, role: &Role, plan: &CopyPlan) -> Result<bool> {
        worker.master.message("begin a table", BEGIN_TABLE)?;
        if let Role::SnapshotHolder(_) = role {
            return Ok(true);
        }
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", plan.source);
        match worker.master.message("lock the table", &lock) {
            Err(error) if error.code() == Some("55P03") => {
                worker.master.message("roll back", &format!("{UNDO_TABLE}; {BEGIN_TABLE}"))?;
                return Ok(false);
            }
            other => other?,
        };
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.load_options.backend, &plan.relation];
        if worker.master.query_one("look at the locks", sql::HAS_LOCK, &parameters)?.get(0) {
            return Ok(true);
        }
        let detail = format!("the session that locked {} for the snapshot has ended", plan.relation);
        Err(Error::new(Kind::Connection, Some(Side::Master), "copy", detail))
    }

    /// Loads a table or a part of it. None if other parts are missing.
    fn load(&self, worker: &mut Worker, item: Item) -> Result<Option<LoadedTable>> {
        let (load_options, plan, table_progress) =
            (self.load_options, &self.plans[item.table], &self.progress[item.table]);
        let started = *table_progress.began.get_or_init(Instant::now);
        worker.slave.message("begin a transaction", "BEGIN")?;
        let begin = if item.pages.is_some() { sql::BEGIN_PART } else { sql::BEGIN_LOAD };
        let row = worker.slave.query_one("note the copy", begin, &[&load_options.key, &plan.relation])?;
        if !matches!(row.get(0), "wanted" | "held") {
            let detail = format!("an earlier copy has just loaded {}", plan.relation);
            return Err(Error::new(Kind::Contention, Some(Side::Slave), "copy", detail).with_hint("run the copy again"));
        }
        worker.slave.message("set the session up", replay_sql::APPLICATION_PATH)?;
        if load_options.delete_first {
            worker.slave.message("empty the table", &format!("DELETE FROM {}", plan.target))?;
        }
        let mut rows = self.pour(worker, item)?;
        worker.slave.message("set the session up", replay_sql::DAEMON_PATH)?;
        if item.pages.is_some() {
            worker.slave.message("commit", "COMMIT")?;
            failpoint::reached("copy-part");
            rows += table_progress.loaded.fetch_add(rows, Ordering::AcqRel);
            if table_progress.parts.fetch_sub(1, Ordering::AcqRel) > 1 {
                return Ok(None);
            }
            worker.slave.message("begin a transaction", "BEGIN")?;
        }
        self.note_loaded(&mut worker.slave, plan, rows)?;
        table_progress.rows.store(rows, Ordering::Relaxed);
        table_progress.is_done.store(true, Ordering::Relaxed);
        let bytes = table_progress.bytes.load(Ordering::Relaxed);
        Ok(Some(LoadedTable { relation: plan.relation.clone(), rows, bytes, took: started.elapsed() }))
    }

    fn pour(&self, Worker { master, slave }: &mut Worker, item: Item) -> Result<u64> {
        let (plan, table_progress) = (&self.plans[item.table], &self.progress[item.table]);
        let out = item.pages.map(|(from, to)| plan.out_of_pages(from, to));
        master.copy(out.as_ref().unwrap_or(&plan.out), slave, &plan.into, plan.is_binary, &mut |bytes| {
            if table_progress.rows.fetch_add(1, Ordering::Relaxed) == 0 {
                failpoint::reached("copy-loading");
            }
            table_progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if self.control.is_stopping() { Err(stopped()) } else { Ok(()) }
        })
    }

    /// Notes that the table is loaded, in the transaction that is open, and commits it.
    fn note_loaded(&self, slave: &mut Session, plan: &CopyPlan, rows: u64) -> Result<()> {
        let load_options = self.load_options;
        let snapshot = load_options.snapshot.as_str();
        slave.execute(
            "note the copy",
            sql::END_LOAD,
            &[&load_options.key, &plan.relation, &load_options.done, &snapshot, &(rows as i64)],
        )?;
        if self.drops_held {
            let parameters: [&(dyn ToSql + Sync); 3] = [&load_options.key, &plan.relation, &snapshot];
            slave.execute("drop what is held and copied", sql::DROP_HELD, &parameters)?;
        }
        failpoint::reached("copy-noted");
        slave.message("commit", "COMMIT")?;
        failpoint::reached("copy-table");
        Ok(())
    }

    fn copy_progress(&self, started: Instant) -> CopyProgress {
        let mut sum = CopyProgress {
            tables: self.plans.len(),
            done: 0,
            rows: 0,
            bytes: 0,
            share: 0.0,
            elapsed: started.elapsed(),
        };
        let total: u64 = self.plans.iter().map(weight).sum();
        for (plan, table_progress) in self.plans.iter().zip(&self.progress) {
            let rows = table_progress.rows.load(Ordering::Relaxed);
            let is_done = table_progress.is_done.load(Ordering::Relaxed);
            let bytes = table_progress.bytes.load(Ordering::Relaxed);
            // Statistics are seldom exact: a table counts as complete when it is done, and not before. Without statistics,
            // its size counts.
            let (loaded, all) = if plan.rows > 0 { (rows, plan.rows) } else { (bytes, plan.bytes) };
            let share = if is_done { 1.0 } else { (loaded as f64 / all.max(1) as f64).min(0.99) };
            sum.done += usize::from(is_done);
            sum.rows += rows;
            sum.bytes += bytes;
            sum.share += share * weight(plan) as f64 / total.max(1) as f64;
        }
        // Rounded parts may add up to more than the whole.
        sum.share = sum.share.min(1.0);
        sum
    }
}

/// An empty table takes a moment, too.
fn weight(plan: &CopyPlan) -> u64 {
    plan.bytes + 8192
}

fn table_error(error: Error, relation: &str, loaded: usize, all: usize) -> Error {
    let fix = error.hint().map(str::to_string).unwrap_or_else(|| "fix that".to_string());
    let hint = format!("{fix}; {loaded} of {all} tables are loaded: run the copy again, and it goes on with the rest");
    // If a server refuses something, the operator has to fix it there.
    let kind = if error.kind() == Kind::Internal && error.code().is_some() { Kind::Setup } else { error.kind() };
    let table = if relation.is_empty() { "the tables" } else { relation };
    Error::new(kind, error.side(), format!("copy {table}"), error.detail()).with_hint(hint)
}

fn stopped() -> Error {
    Error::new(Kind::Stopped, None, "copy", "stopped by a signal")
}
