//! Makes what remains of the schema (`remaining.rs`): some of it before the rows, most of it afterwards, several at a time. At
//! the end, the statistics.
//!
//! Each statement runs in a transaction of its own, which also deletes the note of it. What fails does not keep the rest of its
//! stage from being made; the copy ends with the error, and goes on there when it is run again.

use super::CopyEvent;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::shown::shown_sql;
use crate::config::settings::Config;
use crate::copy::remaining::{self, Remaining, Stage};
use crate::copy::sql;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::server::connect;
use crate::server::session::Session;
use std::cell::RefCell;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// There is an object of this name already: somebody has made it meanwhile.
const IS_THERE: [&str; 3] = ["42P07", "42710", "42P16"];

/// Only some tables come along, and this one refers to another.
const LACKS_TABLE: [&str; 2] = ["42P01", "3F000"];

const VIOLATES_FOREIGN_KEY: &str = "23503";

/// What is made now.
pub struct Making {
    pub what: &'static str,
    pub done: usize,
    pub total: usize,
    pub names: Vec<String>,
    pub elapsed: Duration,
}

/// Whose schema is completed, and by how many sessions.
pub(super) struct Task<'a> {
    pub config: &'a Config,
    pub key: &'a str,
    pub jobs: usize,
    pub control: &'a Control,
    sessions: RefCell<Vec<Session>>,
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Remaining>,
    running: Vec<Remaining>,
    is_over: bool,
}

/// What a thread needs beside its session.
struct Worker<'a> {
    key: &'a str,
    control: &'a Control,
    queue: &'a Queue,
    /// Each statement deletes its note.
    are_noted: bool,
    /// What comes later may need what comes before, so the first error is the end.
    is_ordered: bool,
}

/// What became of one: a note for the operator, if there is something to say.
type Made = Result<Option<String>>;

impl<'a> Task<'a> {
    pub fn new(config: &'a Config, key: &'a str, jobs: usize, control: &'a Control) -> Task<'a> {
        Task { config, key, jobs, control, sessions: RefCell::default() }
    }

    /// Makes what has to be there before the rows.
    pub fn before_rows(&self, slave: &mut Session, report: &mut dyn FnMut(CopyEvent)) -> Result<()> {
        let mut remaining = remaining::read(slave, self.key)?;
        remaining.retain(|one| one.stage == Stage::Before);
        self.make(remaining, 1, report).map(drop)
    }

    /// Makes everything, and then the statistics of these tables.
    pub fn after_rows(&self, slave: &mut Session, tables: &[&str], report: &mut dyn FnMut(CopyEvent)) -> Result<()> {
        let all = remaining::read(slave, self.key)?;
        let of = |stages: &[Stage]| {
            all.iter().filter(|one| stages.contains(&one.stage)).cloned().collect::<Vec<Remaining>>()
        };
        let started = Instant::now();
        let indexes = self.make(of(&[Stage::Before, Stage::Index]), self.jobs, report)?;
        let attached = self.make(of(&[Stage::Attach]), 1, report)?;
        let references = self.make(of(&[Stage::Reference]), self.jobs, report)?;
        let others = self.make(of(&[Stage::Last, Stage::Refresh]), 1, report)?;
        if !all.is_empty() {
            report(CopyEvent::Note(format!(
                "made indexes and constraints: {indexes}, foreign keys: {references}, the rest: {}, in {:.1} s",
                attached + others,
                started.elapsed().as_secs_f64()
            )));
        }
        let analyze = |(place, table): (usize, &&str)| Remaining {
            place: place as i64,
            stage: Stage::Last,
            name: format!("statistics of {table}"),
            relations: vec![table.to_string()],
            is_alone: true,
            size: 0,
            statement: format!("ANALYZE {table}"),
        };
        self.run(tables.iter().enumerate().map(analyze).collect(), self.jobs, false, report).map(drop)
    }

    fn make(&self, remaining: Vec<Remaining>, jobs: usize, report: &mut dyn FnMut(CopyEvent)) -> Result<usize> {
        self.run(remaining, jobs, true, report)
    }

    /// Runs the statements, and returns how many. `are_noted`: each deletes its note.
    fn run(
        &self,
        mut remaining: Vec<Remaining>,
        jobs: usize,
        are_noted: bool,
        report: &mut dyn FnMut(CopyEvent),
    ) -> Result<usize> {
        let total = remaining.len();
        if jobs > 1 {
            // The sort keeps the order of the dump for the same table.
            remaining.sort_by_key(|one| std::cmp::Reverse(one.size));
        }
        let mut sessions = self.sessions.take();
        while sessions.len() < jobs.min(total) {
            sessions.push(self.connect()?);
        }
        let unused = sessions.split_off(jobs.min(total));
        self.control.set_cancellers(sessions.iter().map(Session::canceller).collect());
        let queue =
            Queue { state: Mutex::new(State { waiting: remaining, ..State::default() }), changed: Condvar::new() };
        let (started, mut done, mut failed) = (Instant::now(), 0, None);
        let used = thread::scope(|scope| {
            let (sender, reports) = channel();
            let (key, control) = (self.key, self.control);
            let start = |session| {
                let worker = Worker { key, control, queue: &queue, are_noted, is_ordered: jobs == 1 };
                let sender = sender.clone();
                scope.spawn(move || worker.work(session, &sender))
            };
            let workers: Vec<_> = sessions.into_iter().map(start).collect();
            drop(sender);
            loop {
                match reports.recv_timeout(PROGRESS_INTERVAL) {
                    Ok(Ok(note)) => {
                        note.into_iter().for_each(|note| report(CopyEvent::Note(note)));
                        done += 1;
                    }
                    Ok(Err(error)) => drop(failed.get_or_insert(error)),
                    Err(RecvTimeoutError::Timeout) => {
                        let names = queue.lock().running.iter().map(|one| one.name.clone()).collect();
                        let what = if are_noted { "indexes and the like" } else { "statistics" };
                        report(CopyEvent::Making(&Making { what, done, total, names, elapsed: started.elapsed() }));
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).collect::<Vec<Session>>()
        });
        self.sessions.replace(unused.into_iter().chain(used).collect());
        match failed {
            _ if self.control.is_stopping() => {
                Err(Error::new(Kind::Stopped, Some(Side::Slave), "complete the schema", "stopped by a signal"))
            }
            Some(error) => Err(error),
            None if done < total => {
                Err(Error::new(Kind::Internal, None, "copy", "a thread panicked, as the line before says"))
            }
            None => Ok(done),
        }
    }

    fn connect(&self) -> Result<Session> {
        let mut slave = connect::connect(Side::Slave, &self.config.slave, &format!("{} copy", self.config.name))?;
        slave.message("set the session up", sql::NO_SEARCH_PATH)?;
        slave.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
        slave.query("set the session up", sql::MORE_MEMORY, &[])?;
        Ok(slave)
    }
}

impl Worker<'_> {
    /// Returns the session, for other work, unless the worker has failed.
    fn work(&self, mut slave: Session, reports: &Sender<Made>) -> Option<Session> {
        while let Some(one) = self.queue.take(self.control) {
            let made = match self.are_noted {
                true => self.make_one(&mut slave, &one),
                false => analyze(&mut slave, &one),
            };
            let is_lost = made.as_ref().is_err_and(|error| error.is_transient() || self.is_ordered);
            self.queue.end(&one, is_lost);
            // This fails only if the main thread has panicked.
            if reports.send(made).is_err() || is_lost {
                return None;
            }
        }
        Some(slave)
    }

    fn make_one(&self, slave: &mut Session, one: &Remaining) -> Made {
        let operation = format!("make {}", one.name);
        let error = match self.in_transaction(slave, one, &operation, &one.statement) {
            Ok(()) => return Ok(None),
            Err(error) => error,
        };
        let code = error.code().unwrap_or_default();
        let note = if one.stage == Stage::Refresh && !code.is_empty() && !self.control.is_stopping() {
            format!("{} stays empty: {}. hint: {};", one.name, error.detail(), one.statement)
        } else if LACKS_TABLE.contains(&code) && matches!(one.stage, Stage::Before | Stage::Reference) {
            let statement = shown_sql(&one.statement);
            format!("{} is not created: {}. hint: when the table is there: {statement};", one.name, error.detail())
        } else if IS_THERE.contains(&code) {
            format!("{} is on the slave already, and is left as it is: {}", one.name, error.detail())
        } else if one.stage == Stage::Reference && code == VIOLATES_FOREIGN_KEY {
            return self.make_not_valid(slave, one, &operation, &error);
        } else {
            // If the server refuses something, the operator has to fix it there.
            let kind = if error.kind() == Kind::Internal { Kind::Setup } else { error.kind() };
            return Err(Error::new(kind, Some(Side::Slave), operation, error.detail())
                .with_hint("fix that, and run the copy again: it goes on with what is missing"));
        };
        self.in_transaction(slave, one, &operation, "SELECT")?;
        Ok(Some(note))
    }

    /// Tables of several snapshots, of a copy that was interrupted, fit together only when the daemon has caught up.
    fn make_not_valid(&self, slave: &mut Session, one: &Remaining, operation: &str, error: &Error) -> Made {
        let not_valid = format!("{} NOT VALID", one.statement);
        let table = one.relations.first().map_or("", String::as_str);
        let added = self.in_transaction(slave, one, operation, &not_valid);
        let (what, later) = match added {
            Ok(()) => ("NOT VALID yet", format!("ALTER TABLE {table} VALIDATE CONSTRAINT {}", one.name)),
            // That of a partitioned table cannot be NOT VALID before PostgreSQL 18.
            Err(refused) if refused.code() == Some("0A000") || refused.code() == Some("42809") => {
                self.in_transaction(slave, one, operation, "SELECT")?;
                ("not created", one.statement.clone())
            }
            Err(refused) => return Err(refused),
        };
        Ok(Some(format!(
            "the foreign key {} of {table} is {what}: {}. hint: when the daemon has caught up: {};",
            one.name,
            error.detail(),
            shown_sql(&later)
        )))
    }

    fn in_transaction(&self, slave: &mut Session, one: &Remaining, operation: &str, statement: &str) -> Result<()> {
        slave.transaction("BEGIN", |slave| {
            slave.message(operation, statement)?;
            slave.execute(operation, sql::END_REMAINING, &[&self.key, &one.place]).map(drop)
        })?;
        failpoint::reached("copy-made");
        Ok(())
    }
}

/// The copy is complete without statistics.
fn analyze(slave: &mut Session, one: &Remaining) -> Made {
    match slave.message("make statistics", &one.statement) {
        Ok(_) => Ok(None),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => Ok(Some(format!("no {}: {}", one.name, error.detail()))),
    }
}

impl Queue {
    /// The next one that can be made beside those that are being made. None if there is nothing more to do.
    fn take(&self, control: &Control) -> Option<Remaining> {
        let mut state = self.lock();
        loop {
            if state.is_over || state.waiting.is_empty() || control.is_stopping() {
                return None;
            }
            if let Some(place) = state.waiting.iter().position(|one| state.running.iter().all(|other| fits(one, other)))
            {
                let one = state.waiting.remove(place);
                state.running.push(one.clone());
                return Some(one);
            }
            state = self.changed.wait_timeout(state, PROGRESS_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self, one: &Remaining, is_over: bool) {
        let mut state = self.lock();
        state.running.retain(|other| other.place != one.place);
        state.is_over |= is_over;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both can be made at once, without waiting for each other's locks.
fn fits(one: &Remaining, other: &Remaining) -> bool {
    !(one.is_alone || other.is_alone) || one.relations.iter().all(|table| !other.relations.contains(table))
}
