//! Notices a server that does not answer, though its machine and the network are there: a process that was stopped, storage that
//! hangs, a missing synchronous standby. The client waits for an answer for ever, so a thread of its own looks.
//!
//! A statement that takes long is no failure as long as the server works on it. So the watchdog asks the server, by another
//! session, what the pair's session does there:
//!
//! - *It does not read what it was sent, it is gone, or the other session gets no answer either.* After TIMEOUT the watchdog logs
//!   that, records it for `pyreplica status`, and sends a mail. If that goes on for four times as long, it closes the pair's
//!   connection and terminates the server's process. The pair gets an error and reconnects.
//! - *It waits for a synchronous standby.* What it waits for is committed already, and another connection would wait too. The
//!   watchdog only reports it.
//! - *It is at work.* Then all signs of work may stay the same for long, if the process computes without a pause or if it was stopped:
//!   nobody can tell these apart without a question that the process has to react to. So after twenty times TIMEOUT without any
//!   sign the watchdog asks the server to cancel the statement. If the process does not react to that within TIMEOUT, it does not
//!   work, and the watchdog closes the connection.
//!
//! A statement that takes so long, or a message that the network needs so long for, must succeed in the end. So each time the watchdog
//! interferes, it waits twice as long the next time. A closed connection is to the pair like one that was cut: recovery settles what
//! the server may still do (`twophase.rs`).
//!
//! Where this process has no TCP on its loopback, the postgres crate keeps a Unix socket to itself, and nobody can close it. Then the
//! watchdog only reports, and asks the server to terminate the process.

use crate::base::control::{Control, Watched};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::daemon::outbox::Outbox;
use crate::daemon::report::ANSWER_LIMIT;
use crate::daemon::sql;
use crate::process::logger;
use crate::server::connect;
use crate::server::session::Session;
use std::thread;
use std::time::{Duration, Instant};

/// How often the watchdog checks whether a session waits, which costs nothing.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often it asks the server about a session that waits for long: ten times in TIMEOUT, within these limits.
const SHORTEST_PAUSE: Duration = Duration::from_millis(900);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// TIMEOUT is also what an operator sets for keepalives. A longer one only delays the report.
const LONGEST_UNIT: Duration = Duration::from_secs(60);

/// So many times that long it goes on after the report before the connection is closed.
const UNITS_TO_CLOSE: u32 = 4;

/// So many times that long there is no sign of work before the statement is cancelled.
const UNITS_WITHOUT_SIGNS: u32 = 20;

/// How much longer these times get at most: 21 hours without a sign.
const MOST_PATIENCE: u32 = 64;

/// Records on the master a failure, or that it is over.
type Record = fn(&Config, &Control, Option<&Error>);

/// Watches over the sessions of a pair until it is stopped.
pub fn start(config: &Config, control: &Control, outbox: &Outbox, record: Record) {
    let unit = config.timeout.min(LONGEST_UNIT);
    let (config, control, outbox) = (config.clone(), control.clone(), outbox.clone());
    let now = Instant::now();
    let mut watchdog =
        Watchdog { config, control, outbox, record, unit, patience: 1, interfered: now, suspects: Vec::new() };
    let watch = move || {
        while !watchdog.control.is_stopping() {
            thread::sleep(INTERVAL);
            watchdog.look_around();
        }
    };
    // Without the thread the pair works all the same.
    let _ = thread::Builder::new().name("watchdog".into()).spawn(watch);
}

struct Watchdog {
    config: Config,
    control: Control,
    outbox: Outbox,
    record: Record,
    unit: Duration,
    patience: u32,
    /// When the watchdog cancelled a statement or closed a connection.
    interfered: Instant,
    suspects: Vec<Suspect>,
}

/// A session that has waited for longer than TIMEOUT.
struct Suspect {
    watched: Watched,
    since: Instant,
    operation: String,
    looked: Option<Instant>,
    /// Since when it has not been at work.
    stuck: Option<Instant>,
    signs: String,
    signs_since: Instant,
    cancelled: Option<Instant>,
    is_reported: bool,
    /// The connection is closed, or its process terminated.
    is_closed: bool,
}

/// What is wrong with a session, and what to do about it.
struct Trouble {
    what: String,
    hint: &'static str,
    may_close: bool,
}

enum State {
    Working { signs: String },
    Trouble(Trouble),
}

impl Watchdog {
    fn look_around(&mut self) {
        let silent: Vec<(Watched, Instant, String)> = self
            .control
            .watched()
            .into_iter()
            .filter_map(|watched| watched.waiting.since().map(|(since, operation)| (watched, since, operation)))
            .filter(|(_, since, _)| since.elapsed() >= self.config.timeout)
            .collect();
        let (still, over): (Vec<Suspect>, Vec<Suspect>) = std::mem::take(&mut self.suspects)
            .into_iter()
            .partition(|suspect| silent.iter().any(|(watched, since, _)| suspect.is(watched, *since)));
        self.suspects = still;
        over.iter().for_each(|suspect| self.is_over(suspect));
        for (watched, since, operation) in silent {
            if !self.suspects.iter().any(|suspect| suspect.is(&watched, since)) {
                self.suspects.push(Suspect::new(watched, since, operation));
            }
        }
        let for_long = self.unit * UNITS_WITHOUT_SIGNS * self.patience;
        if self.suspects.is_empty() && self.interfered.elapsed() >= for_long {
            self.patience = 1;
        }
        let pause = (self.config.timeout / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut suspects = std::mem::take(&mut self.suspects);
        for suspect in suspects.iter_mut().filter(|suspect| !suspect.is_closed) {
            if suspect.looked.is_none_or(|looked| looked.elapsed() >= pause) {
                self.examine(suspect);
                suspect.looked = Some(Instant::now());
            }
        }
        self.suspects = suspects;
    }

    /// The answer has come, or the connection has ended. In the second case the pair records its own error.
    fn is_over(&self, suspect: &Suspect) {
        if suspect.is_reported && !suspect.is_closed && suspect.watched.is_alive() {
            let waited = suspect.since.elapsed().as_secs();
            let side = suspect.watched.side;
            log::info!(target: &self.config.name, "{side}: the answer has come after {waited} s");
            (self.record)(&self.directed(), &self.control, None);
        }
    }

    fn examine(&mut self, suspect: &mut Suspect) {
        let (mut session, state) = match self.connect(suspect.watched.side) {
            Ok(mut session) => {
                let state = look(&mut session, suspect.watched.backend);
                (Some(session), state)
            }
            Err(error) => (None, Err(error)),
        };
        match state.unwrap_or_else(|error| State::Trouble(no_answer(&error))) {
            State::Working { signs } => self.at_work(suspect, session.as_mut(), signs),
            State::Trouble(trouble) => self.in_trouble(suspect, session.as_mut(), &trouble),
        }
    }

    /// The settings in the direction in force.
    fn directed(&self) -> Config {
        self.config.directed(self.control.is_reversed())
    }

    fn connect(&self, side: Side) -> Result<Session> {
        let directed = self.directed();
        let dsn = match side {
            Side::Master => &directed.master,
            Side::Slave => &directed.slave,
        };
        let mut session = connect::connect(side, dsn, &format!("{} watchdog", self.config.name))?;
        session.limit_waits(ANSWER_LIMIT);
        Ok(session)
    }

    fn at_work(&mut self, suspect: &mut Suspect, session: Option<&mut Session>, signs: String) {
        suspect.stuck = None;
        if suspect.signs != signs {
            (suspect.signs, suspect.signs_since, suspect.cancelled) = (signs, Instant::now(), None);
            return;
        }
        let backend = suspect.watched.backend;
        let quiet = suspect.signs_since.elapsed();
        let Some(cancelled) = suspect.cancelled else {
            if quiet >= self.unit * UNITS_WITHOUT_SIGNS * self.patience {
                log::warn!(
                    target: &self.config.name,
                    "{}: server process {backend} has shown no sign of work for {} s: cancelling its statement, to see whether \
                     it reacts (the operation is: {})",
                    suspect.watched.side, quiet.as_secs(), suspect.operation
                );
                self.ask(session, "cancel the statement", sql::CANCEL, backend);
                suspect.cancelled = Some(Instant::now());
            }
            return;
        };
        if cancelled.elapsed() >= self.unit {
            let trouble = Trouble {
                what: format!(
                    "server process {backend} has shown no sign of work for {} s, and does not react to a cancel request",
                    quiet.as_secs()
                ),
                hint: STOPPED,
                may_close: true,
            };
            self.report(suspect, &trouble);
            self.close(suspect, session, &trouble);
        }
    }

    fn in_trouble(&mut self, suspect: &mut Suspect, session: Option<&mut Session>, trouble: &Trouble) {
        let stuck = *suspect.stuck.get_or_insert_with(Instant::now);
        self.report(suspect, trouble);
        if trouble.may_close && stuck.elapsed() >= self.unit * UNITS_TO_CLOSE * self.patience {
            self.close(suspect, session, trouble);
        }
    }

    fn report(&self, suspect: &mut Suspect, trouble: &Trouble) {
        if std::mem::replace(&mut suspect.is_reported, true) {
            return;
        }
        let detail = suspect.detail(&trouble.what);
        let error = Error::new(Kind::Connection, Some(suspect.watched.side), &suspect.operation, detail)
            .with_hint(trouble.hint);
        logger::error(&self.config.name, &error);
        (self.record)(&self.directed(), &self.control, Some(&error));
        self.outbox.failed(&error);
    }

    /// Closes the connection, so that the pair gets an error. The server's process ends as soon as it goes on; otherwise it would
    /// first execute all that it was sent.
    fn close(&mut self, suspect: &mut Suspect, session: Option<&mut Session>, trouble: &Trouble) {
        match &suspect.watched.closer {
            Some(closer) => {
                let detail = suspect.detail(&trouble.what);
                self.control.abandon(&suspect.watched);
                closer.close(&format!("{detail}; the daemon has closed the connection"), trouble.hint);
            }
            // Nothing can be done until the server takes a second connection.
            None if session.is_none() => return,
            None => {}
        }
        self.ask(session, "terminate the session", sql::TERMINATE, suspect.watched.backend);
        suspect.is_closed = true;
    }

    fn ask(&mut self, session: Option<&mut Session>, operation: &str, question: &str, backend: i32) {
        (self.interfered, self.patience) = (Instant::now(), (self.patience * 2).min(MOST_PATIENCE));
        if let Some(Err(error)) = session.map(|session| session.query(operation, question, &[&backend])) {
            log::debug!(target: &self.config.name, "{error}");
        }
    }
}

impl Suspect {
    fn new(watched: Watched, since: Instant, operation: String) -> Suspect {
        Suspect {
            watched,
            since,
            operation,
            looked: None,
            stuck: None,
            signs: String::new(),
            signs_since: Instant::now(),
            cancelled: None,
            is_reported: false,
            is_closed: false,
        }
    }

    fn is(&self, watched: &Watched, since: Instant) -> bool {
        self.watched.backend == watched.backend && self.since == since
    }

    fn detail(&self, what: &str) -> String {
        format!("no answer for {} s: {what}", self.since.elapsed().as_secs())
    }
}

const STOPPED: &str = "is the process stopped, or its storage hung? After some time the daemon closes the connection and reconnects. If the process holds locks, replication has to wait for it: let it go on, or restart that server";

/// What the server says about a session.
fn look(session: &mut Session, backend: i32) -> Result<State> {
    let rows = session.query("look at the session", sql::SESSION_STATE, &[&backend])?;
    let trouble = |what: String, hint, may_close| Ok(State::Trouble(Trouble { what, hint, may_close }));
    let Some(row) = rows.first() else {
        let hint = "the daemon reconnects when it notices that the connection is lost";
        return trouble("its server process is gone".into(), hint, true);
    };
    let (state, kind, event): (&str, Option<&str>, Option<&str>) =
        (row.get("state"), row.get("kind"), row.get("event"));
    match (state, kind, event) {
        ("active", _, Some("SyncRep")) => trouble(
            "the server waits for SyncRep".into(),
            "a synchronous standby is missing, see synchronous_standby_names; the daemon goes on when it is there",
            false,
        ),
        ("active", Some("Client"), Some(event)) => trouble(
            format!("the server waits for the daemon ({event})"),
            "do all messages get through the network? After some time the daemon closes the connection and reconnects",
            true,
        ),
        // Waits for locks have a limit of their own.
        ("active", ..) => Ok(State::Working { signs: row.get("signs") }),
        _ => trouble(format!("server process {backend} does not read what it was sent"), STOPPED, true),
    }
}

/// A second connection that fails. If a server refuses it, as when it has too many, the session may be at work all the same.
fn no_answer(error: &Error) -> Trouble {
    Trouble {
        what: format!("and a second connection fails: {}", error.detail()),
        hint: "is the server hung? After some time the daemon closes the connection and reconnects",
        may_close: error.kind() == Kind::Connection && error.code().is_none(),
    }
}
