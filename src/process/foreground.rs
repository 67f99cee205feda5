//! One piece of work for somebody at the terminal, which Ctrl-C ends.
//!
//! The first signal asks the work to stop and the servers to give up its statements; what has not ended `STOP_TIME` later
//! is left behind, and the servers roll it back. A second signal ends the process at once.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::process::signals::{Signal, Signals};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the work may take to end after the first signal.
const STOP_TIME: Duration = Duration::from_secs(2);

/// How often a statement is cancelled anew meanwhile: a cancel request that comes between two statements has no effect.
const CANCEL_INTERVAL: Duration = Duration::from_millis(250);

enum Event<T> {
    Done(Result<T>),
    Stop,
}

/// Runs the work on a thread of its own. An error of `Kind::Stopped` says that a signal came.
pub fn run<T: Send + 'static>(work: impl FnOnce(&Control) -> Result<T> + Send + 'static) -> Result<T> {
    let internal = |e: std::io::Error| Error::new(Kind::Internal, None, "watch for signals", e);
    let (sender, events) = channel();
    let signals = Signals::register().map_err(internal)?;
    let stop = sender.clone();
    let handler = move |signal| {
        // The work may have ended a moment ago: then the process is ending anyway.
        if signal == Signal::Stop {
            drop(stop.send(Event::Stop));
        }
    };
    thread::Builder::new().name("signals".into()).spawn(move || signals.handle(handler)).map_err(internal)?;
    let control = Control::default();
    let for_thread = control.clone();
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&for_thread)));
        drop(sender.send(Event::Done(outcome.unwrap_or_else(|_| {
            let detail = "the thread panicked, as the line before says";
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
        // On a thread of its own: a server that the network has lost takes longer than we want to wait.
        let canceller = control.clone();
        drop(thread::Builder::new().name("cancel".into()).spawn(move || canceller.cancel()));
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left.min(CANCEL_INTERVAL)) {
            Ok(Event::Done(Ok(outcome))) => return Ok(outcome),
            Ok(Event::Done(Err(error))) if error.kind() == Kind::Internal => return Err(error),
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            // Whatever fails once it has been told to stop, a cancelled statement above all, is part of stopping.
            _ => return Err(Error::new(Kind::Stopped, None, "go on", "stopped by a signal")),
        }
    }
}
