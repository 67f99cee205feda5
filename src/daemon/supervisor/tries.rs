//! Runs one pair, and tries again after a failure.

use crate::base::backoff;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::config::settings::Config;
use crate::daemon::outbox::Outbox;
use crate::daemon::report;
use crate::pair::connecting::SWITCHED_PAUSE;
use crate::pair::listener::RetryWait;
use crate::pair::replicator::Milestone;
use crate::process::logger;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one pair until it is stopped, and tries again after each failure. With `give_up` it returns if its first
/// connection fails. `record` is told of each failure, and when all is replayed for the first time or again.
pub(super) fn keep_running(
    config: &Config,
    control: &Control,
    outbox: &Outbox,
    give_up: bool,
    record: &dyn Fn(&Config, Option<&Error>),
    run: impl Fn(&Config, &Control, &mut dyn FnMut(Milestone)) -> Result<()>,
) -> Result<()> {
    outbox.started();
    let mut has_worked = false;
    // So that the first time is told too.
    let mut has_failed = true;
    let mut attempt = 0;
    let mut retry_wait = RetryWait::default();
    let mut was_reversed = control.is_reversed();
    loop {
        let mut progress = |step| match step {
            Milestone::Connected => has_worked = true,
            // `Connected` does not reset `attempt`: the pauses must grow for a change that fails every time.
            Milestone::Drained => {
                attempt = 0;
                retry_wait.reset();
                if std::mem::take(&mut has_failed) {
                    record(&config.directed(control.is_reversed()), None);
                }
                outbox.drained();
            }
            Milestone::Conflict(text) => outbox.conflict(&text),
            Milestone::Warning(text) => outbox.warn(&text),
        };
        let Err(error) = without_panic(|| run(config, control, &mut progress)) else {
            return Ok(());
        };
        if is_due_to_stop(&error, control, &config.name) {
            return Ok(());
        }
        if error.kind() == Kind::Switched {
            if std::mem::replace(&mut was_reversed, control.is_reversed()) != was_reversed && has_worked {
                outbox.switched(&config.directed(control.is_reversed()));
            }
            retry_wait.reset();
            if control.pause(SWITCHED_PAUSE) {
                return Ok(());
            }
            continue;
        }
        let error = told(config, error);
        has_failed = true;
        control.tally().add_error();
        let directed = &config.directed(control.is_reversed());
        record(directed, Some(&error));
        if give_up && !has_worked {
            return Err(error);
        }
        logger::error(&config.name, &error);
        outbox.failed(&error);
        let pause = backoff::pause(attempt);
        attempt = attempt.saturating_add(1);
        if retry_wait.wait(directed, control, pause, !report::is_master_away(&error)) {
            return Ok(());
        }
    }
}

/// An error as the log, mails and `pyreplica status` tell it.
pub(super) fn told(config: &Config, error: Error) -> Error {
    if config.tells_values() { error } else { error.without_values() }
}

/// Turns a panic into an error, so that a bug in one pair does not end the other pairs.
pub(super) fn without_panic(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let detail = "the thread panicked; the log line before says where";
        Err(Error::new(Kind::Internal, None, "go on", detail).with_hint("please report this line and the one before"))
    })
}

/// Whether a request to stop has caused the error. After such a request that is assumed of every error, for example
/// that of a cancelled statement.
pub(super) fn is_due_to_stop(error: &Error, control: &Control, name: &str) -> bool {
    if !control.is_stopping() && error.kind() != Kind::Stopped {
        return false;
    }
    log::debug!(target: name, "Stopped: {error}");
    true
}
