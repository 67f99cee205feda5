//! Connects within a time limit. The blocking client has no limit for a server that accepts a connection and then sends
//! nothing. So each attempt has a thread of its own, and the caller stops waiting for it in time.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use crate::process::open_files;
use crate::server::ours::refuse_untrusted_tables;
use crate::server::session::Session;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// An attempt whose caller has stopped waiting. The server may still answer.
struct Pending {
    what: String,
    label: String,
    outcome: Receiver<Result<Session>>,
}

/// At most one attempt for each session is open on a hung server: the next try waits for the attempt before it, so that
/// threads do not pile up.
static PENDING: Mutex<Vec<Pending>> = Mutex::new(Vec::new());

/// Opens a session on one side. `label` distinguishes the sessions in `pg_stat_activity`.
pub fn connect(side: Side, dsn: &Dsn, label: &str) -> Result<Session> {
    connect_within(Duration::MAX, side, dsn, label)
}

/// The same for a caller who has only so much time. An attempt that takes longer goes on, and the next call waits for it.
pub fn connect_within(limit: Duration, side: Side, dsn: &Dsn, label: &str) -> Result<Session> {
    let limit = limit.min(Session::time_to_connect(side, dsn)?);
    let what = format!("{side} {label} {dsn}");
    let attempt = match take_pending(&what) {
        Some(attempt) => attempt,
        None => Pending { outcome: start(side, dsn.clone(), label.to_string())?, what, label: label.to_string() },
    };
    match attempt.outcome.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Disconnected) => Err(internal("the thread panicked; the log line before says where")),
        Err(RecvTimeoutError::Timeout) => {
            pending().push(attempt);
            let detail = format!("no answer within {} s", limit.as_secs());
            Err(Error::new(Kind::Connection, Some(side), format!("connect to {dsn}"), detail).with_hint(
                "is the server hung, stopped or behind a firewall that drops packets? connect_timeout= sets the limit",
            ))
        }
    }
}

/// Nobody asks for sessions with this label any more: those that are still to come end.
pub fn give_up(label: &str) {
    pending().retain(|attempt| attempt.label != label);
}

fn start(side: Side, dsn: Dsn, label: String) -> Result<Receiver<Result<Session>>> {
    let (sender, outcome) = channel();
    // If the caller has stopped waiting and does not come back, dropping the result ends the session.
    let open = move || {
        open_files::suffice().map_err(|error| too_many(side, &dsn, &error))?;
        let mut session = Session::connect(side, &dsn, &label, "")?;
        refuse_untrusted_tables(&mut session)?;
        session.end_connecting();
        Ok(session)
    };
    let attempt = move || drop(sender.send(open()));
    thread::Builder::new().name("connect".into()).spawn(attempt).map_err(internal)?;
    Ok(outcome)
}

fn too_many(side: Side, dsn: &Dsn, error: &std::io::Error) -> Error {
    Error::new(Kind::Connection, Some(side), format!("connect to {dsn}"), format!("this process: {error}"))
        .with_hint("let it have more open files: LimitNOFILE= in the unit, ulimit -n in the shell that starts it")
}

fn take_pending(what: &str) -> Option<Pending> {
    let mut pending = pending();
    let place = pending.iter().position(|attempt| attempt.what == what)?;
    Some(pending.swap_remove(place))
}

fn pending() -> std::sync::MutexGuard<'static, Vec<Pending>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn internal(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, None, "connect", why)
}
