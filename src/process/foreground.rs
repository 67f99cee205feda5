//! Runs a verb in the foreground so that Ctrl-C ends it.
//!
//! At the first signal it asks the verb to stop and cancels its statements on the servers. If the verb has not ended
//! after `STOP_TIME`, the process ends without it, and the servers roll back its transactions. A second signal ends the
//! process at once.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::process::signals::{Signal, Signals};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the verb may take to end after the first signal.
const STOP_TIME: Duration = Duration::from_secs(2);

/// How often the cancel request is repeated until then. A request that arrives between two statements has no effect.
const CANCEL_INTERVAL: Duration = Duration::from_millis(250);

enum Event<T> {
    Done(Result<T>),
    Stop,
}

/// Runs the work on a thread of its own. It returns an error of `Kind::Stopped` if a signal came. `for_terminal`: SIGHUP, which says
/// that the terminal is gone, is such a signal too.
pub fn run<T: Send + 'static>(
    for_terminal: bool,
    work: impl FnOnce(&Control) -> Result<T> + Send + 'static,
) -> Result<T> {
    let internal = |e: std::io::Error| Error::new(Kind::Internal, None, "watch for signals", e);
    let (sender, events) = channel();
    let signals = Signals::register().map_err(internal)?;
    let stop = sender.clone();
    let handler = move |signal| {
        // An error means that the work has just ended. Then the process ends anyway.
        if signal == Signal::Stop || for_terminal {
            drop(stop.send(Event::Stop));
        }
    };
    thread::Builder::new().name("signals".into()).spawn(move || signals.handle(handler)).map_err(internal)?;
    let control = Control::default();
    let for_thread = control.clone();
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&for_thread)));
        drop(sender.send(Event::Done(outcome.unwrap_or_else(|_| {
            let detail = "the thread panicked; the line before says where";
            Err(Error::new(Kind::Internal, None, "go on", detail)
                .with_hint("please report this line and the one before"))
        }))));
    };
    thread::Builder::new().name("verb".into()).spawn(body).map_err(internal)?;
    match events.recv() {
        Ok(Event::Done(outcome)) => return outcome,
        Ok(Event::Stop) => control.stop(),
        Err(_) => unreachable!("the signals' thread holds a sender"),
    }
    let until = Instant::now() + STOP_TIME;
    loop {
        // It runs on a thread of its own, because a request to a server that the network has lost takes too long.
        let canceller = control.clone();
        drop(thread::Builder::new().name("cancel".into()).spawn(move || canceller.cancel()));
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left.min(CANCEL_INTERVAL)) {
            Ok(Event::Done(Ok(outcome))) => return Ok(outcome),
            Ok(Event::Done(Err(error))) if error.kind() == Kind::Internal => return Err(error),
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            // Any error after the request to stop, for example of a cancelled statement, is a result of that request.
            _ => return Err(Error::new(Kind::Stopped, None, "go on", "stopped by a signal")),
        }
    }
}
