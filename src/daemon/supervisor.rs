//! All pairs of one process: a thread each, another try after a failure, and an orderly end.
//!
//! The first signal asks every pair to finish or roll back the batch in hand. After `FINISH_TIME` the servers are told
//! to give up what they do for us; after `CANCEL_TIME` more the process ends as it is, which two-phase commit was made
//! for. A second signal ends it at once. Nothing here calls `exit`: the supervisor returns, and main with it.
//!
//! SIGHUP reads the config files again: `reload.rs`.
//!
//! Each pair with an `[SMTP]` section has a second thread that sends its mails. The last ones may take `MAIL_TIME`.

use crate::base::backoff;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::config::files::LoadedConfigs;
use crate::config::settings::Config;
use crate::daemon::outbox::Outbox;
use crate::daemon::report;
use crate::health::metrics::Served;
use crate::pair::listener::RetryWait;
use crate::pair::replicator::{self, Milestone};
use crate::process::logger::{self, OWN_TARGET};
use crate::process::signals::{Signal, Signals};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

mod reload;

/// How long the pairs may take to end their batch on their own after the first signal.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// How long they may take after their statements have been cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(1);

/// How long the mails that are left may take when all pairs have ended.
const MAIL_TIME: Duration = Duration::from_secs(3);

/// When the process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When everything pending has been replayed. Sends no mail: who started it is told by the exit code.
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

/// Reads the config files again.
pub type Reload = Box<dyn Fn() -> LoadedConfigs>;

/// Runs all pairs until each has ended or the operator stops them; returns those that failed for good.
pub fn run(mut loaded: LoadedConfigs, mode: Mode, reload: Option<Reload>) -> Result<Vec<Failure>> {
    let (sender, events) = channel();
    watch_signals(sender.clone()).map_err(|e| Error::new(Kind::Internal, None, "watch for signals", e))?;
    let task: Task = match mode {
        Mode::Once => {
            loaded.configs.iter_mut().for_each(|config| config.smtp = None);
            Arc::new(|config, control, _| drain_once(config, control))
        }
        Mode::UntilItWorks => {
            Arc::new(|config, control, post| keep_running(config, control, post, true, &report::leave, replicator::run))
        }
        Mode::Forever => Arc::new(|config, control, post| {
            keep_running(config, control, post, false, &report::leave, replicator::run)
        }),
    };
    let mut served = Served::default();
    if mode != Mode::Once {
        served.serve(loaded.configs.iter());
    }
    Ok(supervise(loaded, &task, &sender, &events, reload.as_ref(), &mut served))
}

/// What a pair's thread does from beginning to end.
type Task = Arc<dyn Fn(&Config, &Control, &Outbox) -> Result<()> + Send + Sync>;

/// What the supervisor keeps of a pair.
struct Pair {
    control: Control,
    outbox: Outbox,
    has_ended: bool,
    config: Config,
    /// Where its settings stand, if they may be read again.
    file: Option<PathBuf>,
    /// What the operator wants of it since the last reload.
    wish: Wish,
}

impl Pair {
    /// What it is to run with from now on, if it is to.
    fn wanted(&self) -> Option<&Config> {
        match &self.wish {
            _ if self.has_ended => None,
            Wish::Run => Some(&self.config),
            Wish::Restart(config) => Some(config),
            Wish::End => None,
        }
    }
}

enum Wish {
    Run,
    /// With other settings, once it has ended.
    Restart(Box<Config>),
    End,
}

enum Event {
    /// The pair with this number.
    Ended(usize, Option<Failure>),
    /// A outbox has sent everything and gone home.
    Delivered,
    Stop,
    Reload,
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
        Signal::Reload => {
            logger::reopen();
            drop(stop.send(Event::Reload));
        }
    };
    thread::Builder::new().name(OWN_TARGET.into()).spawn(move || signals.handle(handler)).map(drop)
}

fn supervise(
    loaded: LoadedConfigs,
    task: &Task,
    sender: &Sender<Event>,
    events: &Receiver<Event>,
    reload: Option<&Reload>,
    served: &mut Served,
) -> Vec<Failure> {
    let mut files = loaded.files.into_iter();
    let numbered = loaded.configs.into_iter().enumerate();
    let mut pairs: Vec<Pair> =
        numbered.map(|(number, config)| start(number, config, files.next(), task, sender)).collect();
    let mut delivering = pairs.iter().filter(|pair| pair.outbox.has_work()).count();
    let mut failures = Vec::new();
    let mut stage = Stage::Running;
    while pairs.iter().any(|pair| !pair.has_ended) {
        match (next_event(events, &stage), &stage) {
            (Some(Event::Ended(number, failure)), _) => {
                end(&mut pairs[number], failure.as_ref(), &stage);
                failures.extend(failure);
                delivering += usize::from(reload::go_on(&mut pairs, number, &stage, task, sender));
            }
            (Some(Event::Reload), Stage::Running) => {
                if let Some(reload) = reload {
                    delivering += reload::apply(&mut pairs, reload(), task, sender);
                    served.serve(pairs.iter().filter_map(Pair::wanted));
                }
            }
            // Everything ends anyway.
            (Some(Event::Reload), _) => {}
            // Its thread has come to grief; there is no mail any more.
            (Some(Event::Delivered), _) => delivering -= 1,
            (Some(Event::Stop), Stage::Running) => {
                log::info!(target: OWN_TARGET, "Stopping");
                pairs.iter().for_each(|pair| pair.control.stop());
                stage = Stage::Finishing { until: Instant::now() + FINISH_TIME };
            }
            (Some(Event::Stop), _) => {
                log::warn!(target: OWN_TARGET, "second signal: ending at once");
                return failures;
            }
            (None, Stage::Cancelled { .. }) => {
                leave_behind(&pairs);
                break;
            }
            (None, _) => {
                pairs.iter().for_each(|pair| cancel(&pair.control));
                stage = Stage::Cancelled { until: Instant::now() + CANCEL_TIME };
            }
        }
    }
    deliver_the_rest(&pairs, delivering, events);
    failures
}

fn end(pair: &mut Pair, failure: Option<&Failure>, stage: &Stage) {
    pair.has_ended = true;
    match (failure, stage) {
        (Some(failure), _) => pair.outbox.failed(&failure.error),
        (None, Stage::Running) => match pair.wish {
            Wish::Run => {}
            Wish::Restart(_) => pair.outbox.stopped("replication is started anew with other settings"),
            Wish::End => pair.outbox.stopped("replication was stopped: the config file is gone"),
        },
        (None, _) => pair.outbox.stopped("replication was stopped by a signal, in good order"),
    }
}

fn leave_behind(pairs: &[Pair]) {
    let late = pairs.iter().filter(|pair| !pair.has_ended);
    log::warn!(target: OWN_TARGET, "{} of the pairs did not end in time: ending without them", late.clone().count());
    for pair in late {
        pair.outbox.stopped("replication was stopped by a signal, in the middle of a batch that did not end in time");
    }
}

/// Lets the postmen that are still at work send what mails are left, in bounded time.
fn deliver_the_rest(pairs: &[Pair], mut delivering: usize, events: &Receiver<Event>) {
    pairs.iter().for_each(|pair| pair.outbox.close());
    let until = Instant::now() + MAIL_TIME;
    while delivering > 0 {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Delivered) => delivering -= 1,
            Ok(Event::Ended(..) | Event::Reload) => {}
            Ok(Event::Stop) | Err(_) => {
                log::warn!(target: OWN_TARGET, "the mail server did not take all mails in time: ending without them");
                return;
            }
        }
    }
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

fn start(number: usize, config: Config, file: Option<PathBuf>, task: &Task, sender: &Sender<Event>) -> Pair {
    let kept = config.clone();
    let (control, outbox) = (Control::default(), Outbox::new(&config));
    if outbox.has_work() {
        deliver(&config.name, &outbox, sender.clone());
    }
    let (name, task, ended) = (config.name.clone(), task.clone(), sender.clone());
    let (for_thread, post) = (control.clone(), outbox.clone());
    let body = move || {
        let failure = match guarded(|| task(&config, &for_thread, &post)) {
            Err(error) if !is_due_to_stop(&error, &for_thread, &config.name) => {
                Some(Failure { name: config.name, error })
            }
            _ => None,
        };
        drop(ended.send(Event::Ended(number, failure)));
    };
    if let Err(e) = thread::Builder::new().name(name.clone()).spawn(body) {
        let error = Error::new(Kind::Internal, None, "start a thread", e);
        drop(sender.send(Event::Ended(number, Some(Failure { name, error }))));
    }
    Pair { control, outbox, has_ended: false, config: kept, file, wish: Wish::Run }
}

/// On a thread of its own: a mail server takes its time.
fn deliver(name: &str, outbox: &Outbox, sender: Sender<Event>) {
    let (post, delivered) = (outbox.clone(), sender.clone());
    let body = move || {
        // The panic is in the log already; without mails the pair goes on as well as with them.
        let _ = catch_unwind(AssertUnwindSafe(|| post.deliver()));
        drop(delivered.send(Event::Delivered));
    };
    if let Err(e) = thread::Builder::new().name(format!("{name} mail")).spawn(body) {
        log::warn!(target: name, "no mails: cannot start a thread: {e}");
        drop(sender.send(Event::Delivered));
    }
}

/// On a thread of its own: asking a server that the network has lost takes longer than we want to wait.
fn cancel(control: &Control) {
    let control = control.clone();
    if let Err(e) = thread::Builder::new().name("cancel".into()).spawn(move || control.cancel()) {
        log::warn!(target: OWN_TARGET, "cannot cancel the statements in hand: {e}");
    }
}

fn drain_once(config: &Config, control: &Control) -> Result<()> {
    let outcome = replicator::once(config, control);
    report::leave(config, outcome.as_ref().err());
    let changes = outcome?;
    log::info!(target: &config.name, "{changes} changes replayed");
    Ok(())
}

/// Runs one pair again and again until it is stopped; `give_up` ends it when its first connection fails. `leave` tells the
/// master of a failure, or that there is none any more.
fn keep_running(
    config: &Config,
    control: &Control,
    outbox: &Outbox,
    give_up: bool,
    leave: &dyn Fn(&Config, Option<&Error>),
    run: impl Fn(&Config, &Control, &mut dyn FnMut(Milestone)) -> Result<()>,
) -> Result<()> {
    outbox.started();
    let mut has_worked = false;
    // What a former process has left may be a failure.
    let mut has_failed = true;
    let mut attempt = 0;
    let mut retry_wait = RetryWait::default();
    loop {
        let mut progress = |step| match step {
            Milestone::Connected => has_worked = true,
            // Not sooner: a change that fails every time is to be tried less and less often.
            Milestone::Drained => {
                attempt = 0;
                retry_wait.reset();
                if std::mem::take(&mut has_failed) {
                    leave(config, None);
                }
                outbox.drained();
            }
            Milestone::Conflict(text) => outbox.conflict(&text),
            Milestone::Warning(text) => outbox.warn(&text),
        };
        let Err(error) = guarded(|| run(config, control, &mut progress)) else {
            return Ok(());
        };
        if is_due_to_stop(&error, control, &config.name) {
            return Ok(());
        }
        has_failed = true;
        leave(config, Some(&error));
        if give_up && !has_worked {
            return Err(error);
        }
        logger::error(&config.name, &error);
        outbox.failed(&error);
        let pause = backoff::pause(attempt);
        attempt = attempt.saturating_add(1);
        if retry_wait.wait(config, control, pause, !report::is_master_away(&error)) {
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
