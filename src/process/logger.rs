//! The log: one line for each message, `NAME Sun Jun  1 14:52:32 2008 message`, or in another of the formats. The only importer of
//! env_logger and chrono.
//!
//! The target of a record is the pair's name, and each pair has its own level. The log goes to standard output, as in
//! the original, so that it does not mix with errors about the command line; or to a file, which SIGHUP reopens.

use crate::base::error::Error;
use crate::base::phrases::without_number;
use crate::base::shown::shown;
use chrono::{DateTime, Local};
use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};
use sink::Output;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{OnceLock, PoisonError, RwLock};

mod sink;

pub use sink::lost;

/// The target of messages that belong to no pair.
pub const OWN_TARGET: &str = "pyreplica";

/// The owner may write to a new log file, the group may read it, and others may do neither: statements with values are in it.
#[cfg(unix)]
pub const NEW_FILE_MODE: u32 = 0o640;

/// Begins another line of a message. No text of PostgreSQL's can hold it.
pub const NEXT_LINE: &str = "\0";

/// The format of Python's `time.ctime`.
const TIME_FORMAT: &str = "%a %b %e %H:%M:%S %Y";

/// With the zone, so that a log of summer can be compared with one of winter, or of another machine.
const ISO_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.3f%:z";

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Name and time, as in the original.
    Original,
    /// The same with another time.
    Iso,
    /// For who adds the time: the priority as `sd-daemon(3)` has it, and the name.
    Syslog,
}

impl Format {
    pub const NAMES: &[&str] = &["original", "iso", "syslog"];

    pub fn named(name: &str) -> Option<Format> {
        match name {
            "original" => Some(Format::Original),
            "iso" => Some(Format::Iso),
            "syslog" => Some(Format::Syslog),
            _ => None,
        }
    }
}

/// Starts logging. `levels` has the name and the DEBUG_LEVEL of each pair. Call it once, before the first thread
/// starts.
pub fn init<'a>(
    file: Option<&Path>,
    format: Option<Format>,
    levels: impl IntoIterator<Item = (&'a str, u8)>,
) -> io::Result<()> {
    let default = if file.is_none() && is_journal() { Format::Syslog } else { Format::Original };
    FORMAT.get_or_init(|| format.unwrap_or(default));
    sink::begin(file)?;
    set_levels(levels);
    log::set_logger(&Switch).expect("logging starts once");
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        // The place, and then what it says.
        let message = panic.to_string().replacen('\n', NEXT_LINE, 1);
        log::error!(target: thread.name().unwrap_or(OWN_TARGET), "{message}");
    }));
    Ok(())
}

/// Changes the level of each pair. Other threads may log at the same time.
pub fn set_levels<'a>(levels: impl IntoIterator<Item = (&'a str, u8)>) {
    let logger = builder(levels).target(Target::Pipe(Box::new(Output))).build();
    log::set_max_level(logger.filter());
    *LOGGER.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
}

/// Logs an error, and its hint on a line of its own.
pub fn error(name: &str, error: &Error) {
    match error.hint() {
        Some(hint) => log::error!(target: name, "{error}{NEXT_LINE}hint: {hint}"),
        None => log::error!(target: name, "{error}"),
    }
}

/// The local time in the format of the log lines.
pub fn time() -> String {
    Local::now().format(TIME_FORMAT).to_string()
}

/// Reopens the log file by its name. If that fails, the log goes on in the old file.
pub fn reopen() {
    if let Err(e) = sink::try_reopen() {
        log::warn!(target: OWN_TARGET, "cannot reopen the log file: {e}");
    }
}

/// The levels of the original. Warnings and errors are always logged.
fn level_filter(debug_level: u8) -> LevelFilter {
    match debug_level {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

fn builder<'a>(levels: impl IntoIterator<Item = (&'a str, u8)>) -> Builder {
    let mut builder = Builder::new();
    let levels: Vec<_> = levels.into_iter().map(|(name, debug_level)| (name, level_filter(debug_level))).collect();
    let most_verbose = levels.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Info);
    // Of other crates only warnings are logged. env_logger uses the longest directive that the target starts with. Each
    // of our targets has its own directive, so the level of a pair "db" has no effect on a pair "db2".
    builder.filter_level(LevelFilter::Warn).filter_module(OWN_TARGET, most_verbose);
    for (name, level) in levels {
        builder.filter_module(name, level);
    }
    builder.format(|out, record| {
        out.write_all(line(record.target(), record.level(), &record.args().to_string()).as_bytes())
    });
    builder
}

fn line(name: &str, level: Level, message: &str) -> String {
    format_line(FORMAT.get().copied().unwrap_or(Format::Original), name, &Local::now(), level, message)
}

/// Further lines of a message begin with a tab; for syslog each is a message. Only we begin one, by `NEXT_LINE`: whatever else is no plain text is escaped.
fn format_line(format: Format, name: &str, time: &DateTime<Local>, level: Level, message: &str) -> String {
    let message = if level <= Level::Warn { without_number(message) } else { message.into() };
    let name = shown(name);
    let severity = match level {
        Level::Error => "ERROR: ",
        Level::Warn => "WARNING: ",
        _ => "",
    };
    let lines: Vec<_> = message.trim_end().split(NEXT_LINE).map(shown).collect();
    match format {
        Format::Original => format!("{name} {} {severity}{}\n", time.format(TIME_FORMAT), lines.join("\n\t")),
        Format::Iso => format!("{name} {} {severity}{}\n", time.format(ISO_FORMAT), lines.join("\n\t")),
        Format::Syslog => {
            let start = format!("<{}>{name} ", priority(level));
            format!("{start}{severity}{}\n", lines.join(&format!("\n{start}")))
        }
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether systemd has connected standard output to the journal: then JOURNAL_STREAM has its device and inode.
#[cfg(unix)]
fn is_journal() -> bool {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let meta = stdout.and_then(|stdout| stdout.metadata());
    meta.is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

#[cfg(windows)]
fn is_journal() -> bool {
    false
}

static FORMAT: OnceLock<Format> = OnceLock::new();

static LOGGER: RwLock<Option<Logger>> = RwLock::new(None);

/// Passes each record to the current logger, which `set_levels` replaces.
struct Switch;

impl Log for Switch {
    fn enabled(&self, metadata: &Metadata) -> bool {
        let logger = LOGGER.read().unwrap_or_else(PoisonError::into_inner);
        logger.as_ref().is_some_and(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record) {
        if let Some(logger) = &*LOGGER.read().unwrap_or_else(PoisonError::into_inner) {
            logger.log(record);
        }
    }

    fn flush(&self) {
        if let Some(logger) = &*LOGGER.read().unwrap_or_else(PoisonError::into_inner) {
            logger.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use log::{Log, Metadata};

    fn line(level: Level, message: &str) -> String {
        let time = Local.with_ymd_and_hms(2008, 6, 1, 14, 52, 32).unwrap();
        format_line(Format::Original, "mydb", &time, level, message)
    }

    #[test]
    fn a_line_has_a_time_with_a_zone_or_none_as_one_wants() {
        let time = Local.with_ymd_and_hms(2008, 6, 1, 14, 52, 32).unwrap();
        let line = |format| format_line(format, "mydb", &time, Level::Warn, "a (os error 2)\0hint: b");
        let zone = time.format("%:z");
        assert_eq!(line(Format::Iso), format!("mydb 2008-06-01T14:52:32.000{zone} WARNING: a\n\thint: b\n"));
        assert_eq!(line(Format::Syslog), "<4>mydb WARNING: a\n<4>mydb hint: b\n");
        assert!(Format::NAMES.iter().all(|name| Format::named(name).is_some()));
    }

    #[test]
    fn a_line_looks_like_the_originals() {
        assert_eq!(line(Level::Info, "Waiting for 'NOTIFY'"), "mydb Sun Jun  1 14:52:32 2008 Waiting for 'NOTIFY'\n");
    }

    #[test]
    fn warnings_and_errors_say_what_they_are() {
        assert!(line(Level::Warn, "x").ends_with(" 2008 WARNING: x\n"));
        assert!(line(Level::Error, "x").ends_with(" 2008 ERROR: x\n"));
    }

    #[test]
    fn further_lines_of_a_message_are_indented() {
        assert!(line(Level::Error, "a\0hint: b\n").ends_with(" ERROR: a\n\thint: b\n"));
        assert!(line(Level::Error, "a\nhint: b\u{1b}\r\n\0c").ends_with(" ERROR: a\\nhint: b\\u{1b}\\r\\n\n\tc\n"));
    }

    #[test]
    fn every_pair_has_its_own_level_even_if_one_name_starts_with_another() {
        let logger = builder([("db", 2), ("db2", 0), ("py", 1)]).build();
        let shows = |target, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(shows("db", Level::Debug) && !shows("db", Level::Trace));
        assert!(shows("db2", Level::Warn) && !shows("db2", Level::Info));
        assert!(shows("pyreplica", Level::Debug), "what belongs to no pair has the most verbose level of all pairs");
        assert!(!shows("py", Level::Debug));
        assert!(!shows("tokio_postgres::connect", Level::Info));
    }
}
