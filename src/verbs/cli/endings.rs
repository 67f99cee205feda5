//! How a command ends: what is told of its error, to whom, and the exit code.

use super::Options;
use crate::base::error::{Error, ExitCode, Kind};
use crate::base::phrases::counted;
use crate::base::shown::shown;
use crate::process::logger;
use crate::process::output;

/// Prints an error and its hint to stderr, and returns the exit code.
pub(super) fn report(error: &Error) -> ExitCode {
    report_as("pyreplica", error)
}

/// The same for a verb. A program gets the error as a document too, unless it has got one: there is one in any case.
pub(super) fn end_verb(error: &Error, is_json: bool) -> ExitCode {
    // If the operator has pressed Ctrl-C or closed the pipe, there is nothing to tell a person.
    if error.kind() != Kind::Stopped {
        report(error);
    }
    if is_json {
        drop(output::print_json_error(error));
    }
    output::exit_code(error)
}

/// Reports an error on stderr, and in the log file too if there is one: an init script discards stderr.
pub(super) fn fail(who: &str, target: &str, error: &Error, options: &Options) -> ExitCode {
    if options.log.is_some() {
        logger::error(target, error);
    }
    report_as(who, error)
}

fn report_as(who: &str, error: &Error) -> ExitCode {
    let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    output::complain(&format!("{}: {error}\n{hint}", shown(who)));
    error.exit_code()
}

pub(super) fn print(text: &str) -> ExitCode {
    match output::print(text) {
        // If the reader closes the pipe early, that is no error.
        Err(error) if error.kind() != Kind::Stopped => report(&error),
        _ => ExitCode::Success,
    }
}

/// The error of a run whose log lacks lines.
pub(super) fn unwritten_log() -> Option<Error> {
    let lost = logger::lost();
    let detail = format!("{}; missing: {}", lost.reason, counted(lost.lines, "line"));
    let error = || Error::new(Kind::Config, None, "write the log", detail);
    (lost.lines > 0).then(|| error().with_hint("what the run has replayed stays; its errors are above"))
}

/// The highest code. The help says so.
pub(super) fn worst(codes: impl Iterator<Item = ExitCode>) -> ExitCode {
    codes.max_by_key(|code| *code as u8).unwrap_or(ExitCode::Success)
}
