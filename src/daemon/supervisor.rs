//! Runs all pairs of one process, each on a thread of its own. It tries again after a failure, and stops all pairs at a
//! signal.
//!
//! The first signal asks every pair to finish or roll back its current batch. After `FINISH_TIME` the supervisor
//! cancels the pairs' statements on the servers. After another `CANCEL_TIME` the process ends even if a batch is not
//! finished; two-phase commit makes that safe. A second signal ends the process at once. Nothing here calls `exit`: the
//! supervisor returns, and then main returns.
//!
//! SIGHUP reads the config files again: `reload.rs`.
//!
//! Each pair with an `[SMTP]` section has a second thread that sends its mails. At the end of the process it has
//! `MAIL_TIME` for the mails that are left.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::phrases::counted;
use crate::base::tally::Tally;
use crate::config::files::LoadedConfigs;
use crate::config::settings::Config;
use crate::daemon::outbox::Outbox;
use crate::daemon::report;
use crate::daemon::watchdog;
use crate::health::metrics::{Served, Wanted};
use crate::pair::replicator;
use crate::process::logger::{self, OWN_TARGET};
use crate::process::open_files;
use crate::process::service;
use crate::process::signals::{Signal, Signals};
use standing::{Announcer, Standing};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tries::{is_due_to_stop, keep_running, told, without_panic};

mod mails;
mod reload;
mod standing;
mod tries;

/// How long the pairs may take to finish their batch after the first signal.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// How long they may take after their statements have been cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(1);

/// How long sending the mails that are left may take after all pairs have ended.
const MAIL_TIME: Duration = Duration::from_secs(3);

/// When the process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When everything pending has been replayed. It sends no mails, because the exit code says whether it failed.
    Once,
    /// If a pair fails before it has ever connected. The operator, at the terminal, has probably mistyped something.
    UntilItWorks,
    /// Never. A server that is down at boot comes up later.
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

/// Runs all pairs until each has ended or the operator stops them. Returns those that ended with an error.
pub fn run(mut loaded: LoadedConfigs, mode: Mode, reload: Option<Reload>) -> Result<Vec<Failure>> {
    let (sender, events) = channel();
    watch_signals(sender.clone()).map_err(|e| Error::new(Kind::Internal, None, "watch for signals", e))?;
    let needed = open_files::needed(loaded.configs.len());
    if let Some(limit) = open_files::raise().filter(|limit| *limit < needed) {
        log::warn!(
            target: OWN_TARGET,
            "this process may have {limit} open files, and its {} pairs need up to {needed}. hint: LimitNOFILE= in the unit, \
             ulimit -n in the shell that starts it",
            loaded.configs.len()
        );
    }
    let task: Task = match mode {
        Mode::Once => {
            loaded.configs.iter_mut().for_each(|config| (config.smtp, config.metrics) = (None, None));
            Arc::new(|config, control, _| drain_once(config, control))
        }
        Mode::UntilItWorks | Mode::Forever => {
            let sender = sender.clone();
            Arc::new(move |config, control, outbox| {
                watchdog::start(config, control, outbox, report::record);
                let record = |directed: &Config, error: Option<&Error>| {
                    let standing = if error.is_some() { Standing::Failing } else { Standing::Replicating };
                    drop(sender.send(Event::Standing(config.name.clone(), standing)));
                    // That it is over, the pair records itself.
                    if error.is_some() {
                        report::record(directed, control, error);
                    }
                };
                keep_running(config, control, outbox, mode == Mode::UntilItWorks, &record, replicator::run)
            })
        }
    };
    Ok(supervise(loaded, &task, &sender, &events, reload.as_ref()))
}

/// What a pair's thread does from beginning to end.
type Task = Arc<dyn Fn(&Config, &Control, &Outbox) -> Result<()> + Send + Sync>;

/// What the supervisor knows of a pair.
struct Pair {
    control: Control,
    outbox: Outbox,
    has_ended: bool,
    config: Config,
    /// Its config file. None for a pair from the command line.
    file: Option<PathBuf>,
    /// What to do with it, according to the last reload.
    plan: Plan,
    standing: Standing,
}

impl Pair {
    /// What is to be served about it from now on. None if it ends.
    fn wanted(&self) -> Option<Wanted<'_>> {
        let config = match &self.plan {
            _ if self.has_ended => return None,
            Plan::Run => &self.config,
            Plan::Restart(config) => config,
            Plan::End => return None,
        };
        Some(Wanted { config, source: source(config, self.file.as_deref()), tally: self.control.tally() })
    }
}

enum Plan {
    Run,
    /// Run again with these settings after it has ended.
    Restart(Box<Config>),
    End,
}

enum Event {
    /// The thread of the pair with this number has ended.
    Ended(usize, Option<Failure>),
    /// How the pair of this name is doing.
    Standing(String, Standing),
    /// A thread that sends mails has ended.
    MailThreadEnded,
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
        // An error means that the supervisor has just returned. Then the process ends anyway.
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
) -> Vec<Failure> {
    let bad_files = loaded.errors.len();
    let mut files = loaded.files.into_iter();
    let numbered = loaded.configs.into_iter().enumerate();
    let mut pairs: Vec<Pair> =
        numbered.map(|(number, config)| start(number, config, files.next(), Arc::default(), task, sender)).collect();
    let mut served = Served::default();
    served.serve(pairs.iter().filter_map(Pair::wanted));
    let mut mail_threads = pairs.iter().filter(|pair| pair.outbox.sends_mails()).count();
    let mut failures = Vec::new();
    let mut stage = Stage::Running;
    let mut announcer = Announcer::ready(&pairs, bad_files);
    while pairs.iter().any(|pair| !pair.has_ended) {
        match (next_event(events, &stage), &stage) {
            (Some(Event::Ended(number, failure)), _) => {
                end(&mut pairs[number], failure.as_ref(), &stage);
                failures.extend(failure);
                mail_threads += usize::from(reload::restart(&mut pairs, number, &stage, task, sender));
            }
            (Some(Event::Reload), Stage::Running) => {
                service::reloading();
                let mut bad_files = announcer.bad_files();
                if let Some(reload) = reload {
                    let loaded = reload();
                    bad_files = loaded.errors.len();
                    mail_threads += reload::apply(&mut pairs, loaded, task, sender);
                    served.serve(pairs.iter().filter_map(Pair::wanted));
                }
                announcer.ready_again(&pairs, bad_files);
            }
            (Some(Event::Standing(name, standing)), _) => standing::note(&mut pairs, &name, standing),
            // The process is ending anyway.
            (Some(Event::Reload), _) => {}
            // A reload has closed the thread's outbox. Or the thread has panicked or could not start; then the pair
            // goes on without mails.
            (Some(Event::MailThreadEnded), _) => mail_threads -= 1,
            (Some(Event::Stop), Stage::Running) => {
                log::info!(target: OWN_TARGET, "Stopping");
                service::stopping();
                pairs.iter().for_each(|pair| pair.control.stop());
                stage = Stage::Finishing { until: Instant::now() + FINISH_TIME };
            }
            (Some(Event::Stop), _) => {
                log::warn!(target: OWN_TARGET, "second signal: ending at once");
                return failures;
            }
            (None, Stage::Cancelled { .. }) => {
                report_late_pairs(&pairs);
                break;
            }
            (None, _) => {
                pairs.iter().for_each(|pair| cancel(&pair.control));
                stage = Stage::Cancelled { until: Instant::now() + CANCEL_TIME };
            }
        }
        if matches!(stage, Stage::Running) {
            announcer.update(&pairs);
        }
    }
    if matches!(stage, Stage::Running) && reload.is_some() {
        log::warn!(
            target: OWN_TARGET,
            "Ending: no config file that can be used is left, so there is nothing to replicate. hint: when there is one again, \
             start the daemon: SIGHUP does not"
        );
    }
    mails::send_remaining(&pairs, mail_threads, events);
    failures
}

/// Names the pair on a command line.
fn source(config: &Config, file: Option<&Path>) -> String {
    file.map_or_else(|| format!("'{}' '{}'", config.master, config.slave), |file| file.display().to_string())
}

fn end(pair: &mut Pair, failure: Option<&Failure>, stage: &Stage) {
    pair.has_ended = true;
    match (failure, stage) {
        (Some(failure), _) => pair.outbox.failed(&failure.error),
        (None, Stage::Running) => match pair.plan {
            Plan::Run => {}
            Plan::Restart(_) => pair.outbox.stopped("replication restarts with new settings"),
            Plan::End => pair.outbox.stopped("replication was stopped: the config file was removed"),
        },
        (None, _) => pair.outbox.stopped("replication was stopped by a signal, after the current batch had ended"),
    }
}

fn report_late_pairs(pairs: &[Pair]) {
    let late = pairs.iter().filter(|pair| !pair.has_ended);
    log::warn!(target: OWN_TARGET, "{} of the pairs did not end in time: ending without them", late.clone().count());
    for pair in late {
        pair.outbox.stopped("replication was stopped by a signal, in the middle of a batch that did not end in time");
    }
}

/// Waits for the next event. None if the time of this stage is over.
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

/// Starts the thread of a pair. With the tally of a former one it goes on counting.
fn start(
    number: usize,
    config: Config,
    file: Option<PathBuf>,
    tally: Arc<Tally>,
    task: &Task,
    sender: &Sender<Event>,
) -> Pair {
    let kept = config.clone();
    let (control, outbox) = (Control::counting(tally), Outbox::new(&config));
    if outbox.sends_mails() {
        mails::start(&config.name, &outbox, sender.clone());
    }
    let (name, task, ended) = (config.name.clone(), task.clone(), sender.clone());
    let (for_thread, mails) = (control.clone(), outbox.clone());
    let body = move || {
        let failure = match without_panic(|| task(&config, &for_thread, &mails)) {
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
    Pair { control, outbox, has_ended: false, config: kept, file, plan: Plan::Run, standing: Standing::Starting }
}

/// Cancels the pair's statements, on a thread of its own: a request to a server that the network has lost takes too
/// long.
fn cancel(control: &Control) {
    let control = control.clone();
    if let Err(e) = thread::Builder::new().name("cancel".into()).spawn(move || control.cancel()) {
        log::warn!(target: OWN_TARGET, "cannot cancel the running statements: {e}");
    }
}

fn drain_once(config: &Config, control: &Control) -> Result<()> {
    let outcome = replicator::once(config, control).map_err(|error| told(config, error));
    let is_stopped = |error: &&Error| is_due_to_stop(error, control, &config.name);
    if let Some(error) = outcome.as_ref().err().filter(|error| !is_stopped(error)) {
        report::record(&config.directed(control.is_reversed()), control, Some(error));
    }
    let changes = outcome?;
    match control.tally().put_aside() {
        0 => log::info!(target: &config.name, "{} replayed", counted(changes, "change")),
        put_aside => log::warn!(
            target: &config.name,
            "{} replayed, and {put_aside} put aside: held for a table, or in quarantine. hint: pyreplica pending shows them",
            counted(changes.saturating_sub(put_aside), "change")
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
