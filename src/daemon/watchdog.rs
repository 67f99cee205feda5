//! Notices a server that does not answer, though its machine and the network are there: a process that was stopped, storage that
//! hangs, a missing synchronous standby. The client library waits for an answer for ever, so a thread of its own looks.
//!
//! A statement that takes long is no failure as long as the server works on it. So the watchdog asks the server, by another
//! session, what the pair's session does there. If it does not work, the watchdog logs that, records it for `pyreplica status`, and
//! sends a mail. If the session has not even read the message, the watchdog terminates it, so that the pair reconnects as soon
//! as the process runs again.

use crate::base::control::{Control, Watched};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::daemon::outbox::Outbox;
use crate::daemon::sql;
use crate::process::logger;
use crate::server::connect;
use std::thread;
use std::time::{Duration, Instant};

/// How often the watchdog looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches over the sessions of a pair until it is stopped. `record` records on the master a failure, or that it is over.
pub fn start(config: &Config, control: &Control, outbox: &Outbox, record: fn(&Config, Option<&Error>)) {
    let (config, control, outbox) = (config.clone(), control.clone(), outbox.clone());
    let watch = move || {
        let mut reported: Option<Instant> = None;
        while !control.is_stopping() {
            thread::sleep(INTERVAL);
            let silent = control.watched().into_iter().find_map(|watched| {
                let (since, operation) = watched.waiting.since()?;
                (since.elapsed() >= config.timeout).then_some((watched, since, operation))
            });
            match (silent, reported) {
                (Some((watched, since, operation)), None) => {
                    if let Some(error) = examine(&config, &watched, since, &operation) {
                        logger::error(&config.name, &error);
                        record(&config, Some(&error));
                        outbox.failed(&error);
                        reported = Some(since);
                    }
                }
                (None, Some(since)) => {
                    let waited = since.elapsed().as_secs();
                    log::info!(target: &config.name, "The answer has come, or the connection has ended, after {waited} s");
                    record(&config, None);
                    reported = None;
                }
                _ => {}
            }
        }
    };
    // Without the thread the pair works all the same.
    let _ = thread::Builder::new().name("watchdog".into()).spawn(watch);
}

/// What is wrong with a session that has waited for so long; none if the server works for it.
fn examine(config: &Config, watched: &Watched, since: Instant, operation: &str) -> Option<Error> {
    let waited = since.elapsed().as_secs();
    let error = |what: String, hint: &str| {
        let detail = format!("no answer for {waited} s: {what}");
        Some(Error::new(Kind::Connection, Some(watched.side), operation, detail).with_hint(hint))
    };
    match look(config, watched) {
        Ok(Some(State::Working)) => None,
        Ok(Some(State::Waiting(what))) => error(
            format!("the server waits for {what}"),
            "SyncRep: a synchronous standby is missing, see synchronous_standby_names; the daemon goes on when it is there",
        ),
        Ok(Some(State::NotReading)) => error(
            format!("server process {} does not read what it was sent", watched.backend),
            "is the process stopped, or its storage hung? The daemon has terminated the session, and reconnects when the process \
             runs again",
        ),
        Ok(None) => error(
            "its server process is gone".into(),
            "the daemon reconnects when it notices that the connection is lost",
        ),
        Err(cause) => error(
            format!("and a second connection fails: {}", cause.detail()),
            "is the server hung? The daemon goes on when it answers",
        ),
    }
}

enum State {
    Working,
    Waiting(String),
    /// It waits for a message, although one was sent.
    NotReading,
}

fn look(config: &Config, watched: &Watched) -> Result<Option<State>> {
    let dsn = match watched.side {
        Side::Master => &config.master,
        Side::Slave => &config.slave,
    };
    let mut session = connect::connect(watched.side, dsn, &format!("{} watchdog", config.name))?;
    let rows = session.query("look at the session", sql::SESSION_STATE, &[&watched.backend])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (state, kind, event): (&str, Option<&str>, Option<&str>) =
        (row.get("state"), row.get("kind"), row.get("event"));
    Ok(Some(match (state, kind, event) {
        ("active", Some(kind @ ("IPC" | "Client" | "Extension")), Some(event)) => {
            State::Waiting(format!("{event} ({kind})"))
        }
        // Waits for locks have a limit of their own.
        ("active", ..) => State::Working,
        _ => {
            session.query("terminate the session", sql::TERMINATE, &[&watched.backend])?;
            State::NotReading
        }
    }))
}
