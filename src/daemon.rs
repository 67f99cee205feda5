//! All pairs of one process: a thread each, another try after a failure, and an orderly end.
//!
//! The first signal asks every pair to finish or roll back the batch in hand. After `FINISH_TIME` the servers are told
//! to give up what they do for us; after `CANCEL_TIME` more the process ends as it is, which two-phase commit was made
//! for. A second signal ends it at once. Nothing here calls `exit`: the supervisor returns, and main with it.

use crate::backoff;
use crate::config::Config;
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::logger::{self, OWN_TARGET};
use crate::replicator::{self, Progress};
use crate::signals::{Signal, Signals};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the pairs may take to end their batch on their own after the first signal.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// How long they may take after their statements have been cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(1);

/// When the process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When everything pending has been replayed.
    Once,
    /// When a pair fails before it has ever worked: somebody sits at the terminal and has mistyped something.
    UntilItWorks,
    /// Never: a server that is down at boot comes up later.
    Forever,
}

/// A pair that ended with an error.
#[derive(Debug)]
pub struct Failure {
    pub name: String,
    pub error: Error,
}

/// Runs all pairs until each has ended or the operator stops them; returns those that failed for good.
pub fn run(configs: Vec<Config>, mode: Mode) -> Result<Vec<Failure>> {
    let (sender, events) = channel();
    watch_signals(sender.clone()).map_err(|e| Error::new(Kind::Internal, None, "watch for signals", e))?;
    let task: Task = match mode {
        Mode::Once => Arc::new(drain_once),
        Mode::UntilItWorks => Arc::new(|config, control| keep_running(config, control, true, replicator::run)),
        Mode::Forever => Arc::new(|config, control| keep_running(config, control, false, replicator::run)),
    };
    Ok(supervise(configs, &task, &sender, &events))
}

/// What a pair's thread does from beginning to end.
type Task = Arc<dyn Fn(&Config, &Control) -> Result<()> + Send + Sync>;

enum Event {
    Ended(Option<Failure>),
    Stop,
}

enum Stage {
    Running,
    Finishing { until: Instant },
    Cancelled { until: Instant },
}

fn watch_signals(stop: Sender<Event>) -> io::Result<()> {
    let signals = Signals::register()?;
    let handler = move |signal| match signal {
        // The supervisor may have returned a moment ago: then the process is ending anyway.
        Signal::Stop => drop(stop.send(Event::Stop)),
        Signal::Reopen => logger::reopen(),
    };
    thread::Builder::new().name(OWN_TARGET.into()).spawn(move || signals.handle(handler)).map(drop)
}

fn supervise(configs: Vec<Config>, task: &Task, sender: &Sender<Event>, events: &Receiver<Event>) -> Vec<Failure> {
    let controls: Vec<Control> = configs.into_iter().map(|config| start(config, task, sender.clone())).collect();
    let mut running = controls.len();
    let mut failures = Vec::new();
    let mut stage = Stage::Running;
    while running > 0 {
        match (next_event(events, &stage), &stage) {
            (Some(Event::Ended(failure)), _) => {
                running -= 1;
                failures.extend(failure);
            }
            (Some(Event::Stop), Stage::Running) => {
                log::info!(target: OWN_TARGET, "Stopping");
                controls.iter().for_each(Control::stop);
                stage = Stage::Finishing { until: Instant::now() + FINISH_TIME };
            }
            (Some(Event::Stop), _) => {
                log::warn!(target: OWN_TARGET, "second signal: ending at once");
                break;
            }
            (None, Stage::Cancelled { .. }) => {
                log::warn!(target: OWN_TARGET, "{running} of the pairs did not end in time: ending without them");
                break;
            }
            (None, _) => {
                controls.iter().for_each(cancel);
                stage = Stage::Cancelled { until: Instant::now() + CANCEL_TIME };
            }
        }
    }
    failures
}

/// None when the time of this stage is over.
fn next_event(events: &Receiver<Event>, stage: &Stage) -> Option<Event> {
    let received = match stage {
        Stage::Running => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Stage::Finishing { until } | Stage::Cancelled { until } => {
            events.recv_timeout(until.saturating_duration_since(Instant::now()))
        }
    };
    match received {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => unreachable!("the supervisor holds a sender itself"),
    }
}

fn start(config: Config, task: &Task, sender: Sender<Event>) -> Control {
    let control = Control::default();
    let (name, for_thread, task, ended) = (config.name.clone(), control.clone(), task.clone(), sender.clone());
    let body = move || {
        let failure = match guarded(|| task(&config, &for_thread)) {
            Err(error) if !is_due_to_stop(&error, &for_thread, &config.name) => {
                Some(Failure { name: config.name, error })
            }
            _ => None,
        };
        drop(ended.send(Event::Ended(failure)));
    };
    if let Err(e) = thread::Builder::new().name(name.clone()).spawn(body) {
        let error = Error::new(Kind::Internal, None, "start a thread", e);
        drop(sender.send(Event::Ended(Some(Failure { name, error }))));
    }
    control
}

/// On a thread of its own: asking a server that the network has lost takes longer than we want to wait.
fn cancel(control: &Control) {
    let control = control.clone();
    if let Err(e) = thread::Builder::new().name("cancel".into()).spawn(move || control.cancel()) {
        log::warn!(target: OWN_TARGET, "cannot cancel the statements in hand: {e}");
    }
}

fn drain_once(config: &Config, control: &Control) -> Result<()> {
    let changes = replicator::once(config, control)?;
    log::info!(target: &config.name, "{changes} changes replayed");
    Ok(())
}

/// Runs one pair again and again until it is stopped; `give_up` ends it when its first connection fails.
fn keep_running(
    config: &Config,
    control: &Control,
    give_up: bool,
    run: impl Fn(&Config, &Control, &mut dyn FnMut(Progress)) -> Result<()>,
) -> Result<()> {
    let mut has_worked = false;
    let mut attempt = 0;
    loop {
        let mut progress = |step| match step {
            Progress::Connected => has_worked = true,
            // Not sooner: a change that fails every time is to be tried less and less often.
            Progress::Drained => attempt = 0,
        };
        let Err(error) = guarded(|| run(config, control, &mut progress)) else {
            return Ok(());
        };
        if is_due_to_stop(&error, control, &config.name) {
            return Ok(());
        }
        if give_up && !has_worked {
            return Err(error);
        }
        logger::error(&config.name, &error);
        let pause = backoff::pause(attempt);
        attempt = attempt.saturating_add(1);
        log::info!(target: &config.name, "Trying again in {:.1} s", pause.as_secs_f64());
        if control.pause(pause) {
            return Ok(());
        }
    }
}

/// A fault of ours in one pair is an error like any other, and leaves the other pairs alone.
fn guarded(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let detail = "the thread panicked, as the log line before says";
        Err(Error::new(Kind::Internal, None, "go on", detail).with_hint("please report this line and the one before"))
    })
}

/// Whatever fails once the pair has been told to stop, a cancelled statement above all, is part of stopping.
fn is_due_to_stop(error: &Error, control: &Control, name: &str) -> bool {
    if !control.is_stopping() && error.kind() != Kind::Stopped {
        return false;
    }
    log::debug!(target: name, "Stopped: {error}");
    true
}

#[cfg(test)]
mod tests;
