//! The command line: what the words mean, and one function a verb.

mod help;

use crate::conffiles;
use crate::config::{Config, DEBUG_LEVELS};
use crate::daemon::{self, Failure, Mode};
use crate::dsn::Dsn;
use crate::error::{Error, ExitCode, Kind, Result};
use crate::install;
use crate::logger::{self, OWN_TARGET};
use crate::names::Side;
use crate::user;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;

/// Where the config files are when nobody says anything; on Windows, as in the original's service.py.
const DEFAULT_DIRECTORY: &str = if cfg!(windows) { "C:/pyreplica" } else { "/etc/pyreplica" };

/// What the operator wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help(Topic),
    Version,
    Install(Dsn),
    Replicate(Source, Options),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Main,
    Install,
}

/// Which pairs to replicate.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Pair { master: Dsn, slave: Dsn },
    Files(Vec<PathBuf>),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub once: bool,
    pub log: Option<PathBuf>,
    pub debug: Option<u8>,
    /// Whom root lets do the work.
    pub user: Option<String>,
}

/// Understands the arguments; `variable` looks up DSN0 and DSN1 in the environment.
pub fn parse(arguments: Vec<OsString>, variable: impl Fn(&str) -> Option<String>) -> Result<Command> {
    let Split { words, options, help, version } = split(arguments)?;
    let first = words.first().and_then(|word| word.to_str());
    match (first, &words[..]) {
        _ if version => Ok(Command::Version),
        (Some("install"), _) if help => Ok(Command::Help(Topic::Install)),
        _ if help => Ok(Command::Help(Topic::Main)),
        (Some("help"), [_]) => Ok(Command::Help(Topic::Main)),
        (Some("help"), [_, topic]) if topic == "install" => Ok(Command::Help(Topic::Install)),
        (Some("help"), _) => Err(usage("help knows one topic: install")),
        (Some("install"), _) if options != Options::default() => Err(usage("install takes no option")),
        (Some("install"), [_, dsn]) => Ok(Command::Install(parse_dsn(dsn, Side::Master)?)),
        (Some("install"), _) => Err(usage("install wants one connection string, the master's")),
        _ => Ok(Command::Replicate(find_source(words, variable)?, options)),
    }
}

/// Does what is wanted. Errors are reported here, so that they reach the log file when there is one.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Help(Topic::Main) => print(help::MAIN),
        Command::Help(Topic::Install) => print(help::INSTALL),
        Command::Version => print(concat!("pyreplica ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Install(dsn) => install(&dsn).unwrap_or_else(|error| report(&error)),
        Command::Replicate(source, options) => match drop_rights(&options) {
            Ok(()) => replicate(source, &options),
            Err(error) => report(&error),
        },
    }
}

/// Tells the terminal what went wrong and what to do now.
pub fn report(error: &Error) -> ExitCode {
    report_as("pyreplica", error)
}

/// The arguments with the options taken out.
#[derive(Default)]
struct Split {
    words: Vec<OsString>,
    options: Options,
    help: bool,
    version: bool,
}

fn split(arguments: Vec<OsString>) -> Result<Split> {
    let mut split = Split::default();
    let mut rest = arguments.into_iter();
    while let Some(word) = rest.next() {
        let text = word.to_str().unwrap_or_default();
        if !text.starts_with('-') {
            split.words.push(word);
            continue;
        }
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        let mut value = |wanted: &str| {
            let value = attached.clone().or_else(|| rest.next());
            value.ok_or_else(|| usage(format!("{name} wants {wanted}")))
        };
        match name {
            "--log" => split.options.log = Some(PathBuf::from(value("a file")?)),
            "--user" => split.options.user = Some(parse_user(&value("a user name")?)?),
            "--debug" => split.options.debug = Some(parse_level(&value("a level")?)?),
            _ if attached.is_some() => return Err(usage(format!("unknown option {name}"))),
            "--once" => split.options.once = true,
            "-h" | "--help" => split.help = true,
            "-V" | "--version" => split.version = true,
            _ => return Err(usage(format!("unknown option {name}"))),
        }
    }
    Ok(split)
}

fn parse_level(word: &OsStr) -> Result<u8> {
    let level = word.to_str().and_then(|text| text.parse().ok()).filter(|level| DEBUG_LEVELS.contains(level));
    level.ok_or_else(|| usage(format!("--debug wants {} to {}", DEBUG_LEVELS.start(), DEBUG_LEVELS.end())))
}

fn parse_user(word: &OsStr) -> Result<String> {
    let name = word.to_str().filter(|name| !name.is_empty());
    name.map(str::to_string).ok_or_else(|| usage("--user wants a user name"))
}

fn find_source(words: Vec<OsString>, variable: impl Fn(&str) -> Option<String>) -> Result<Source> {
    let is_dsn = |word: &OsString| word.to_str().is_some_and(Dsn::looks_like);
    match &words[..] {
        [] => match (variable("DSN0"), variable("DSN1")) {
            (Some(master), Some(slave)) => pair(master.as_ref(), slave.as_ref()),
            (Some(_), None) => Err(usage("DSN0 is set and DSN1 is not")),
            (None, Some(_)) => Err(usage("DSN1 is set and DSN0 is not")),
            (None, None) => Ok(Source::Files(vec![PathBuf::from(DEFAULT_DIRECTORY)])),
        },
        [master, slave] if is_dsn(master) && is_dsn(slave) => pair(master, slave),
        _ if words.iter().any(is_dsn) => {
            Err(usage("expected two connection strings, the master's and the slave's, or config files"))
        }
        _ => Ok(Source::Files(words.into_iter().map(PathBuf::from).collect())),
    }
}

fn pair(master: &OsStr, slave: &OsStr) -> Result<Source> {
    Ok(Source::Pair { master: parse_dsn(master, Side::Master)?, slave: parse_dsn(slave, Side::Slave)? })
}

fn parse_dsn(word: &OsStr, side: Side) -> Result<Dsn> {
    let wrong = |why: &str| Error::new(Kind::Config, Some(side), "understand the connection string", why);
    let text = word.to_str().ok_or_else(|| wrong("it is not UTF-8 text"))?;
    Dsn::parse(text).map_err(|e| wrong(&e.to_string()))
}

fn usage(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Usage, None, "understand the command line", why).with_hint("pyreplica --help lists what there is")
}

fn install(dsn: &Dsn) -> Result<ExitCode> {
    for line in install::run(dsn)? {
        print(&format!("{line}\n"));
    }
    Ok(ExitCode::Success)
}

/// Before anything is read or opened: nothing of that is to be done by root.
fn drop_rights(options: &Options) -> Result<()> {
    match &options.user {
        Some(name) => user::become_user(name, options.log.as_deref()),
        None => Ok(()),
    }
}

fn replicate(source: Source, options: &Options) -> ExitCode {
    match source {
        Source::Pair { master, slave } => {
            let mode = if options.once { Mode::Once } else { Mode::UntilItWorks };
            run_pairs(vec![Config::for_pair(master, slave)], &[], mode, options)
        }
        Source::Files(paths) => {
            let mode = if options.once { Mode::Once } else { Mode::Forever };
            let loaded = conffiles::load(&paths);
            run_pairs(loaded.configs, &loaded.errors, mode, options)
        }
    }
}

/// `skipped` says which config files are of no use; the others run.
fn run_pairs(mut configs: Vec<Config>, skipped: &[Error], mode: Mode, options: &Options) -> ExitCode {
    if let Some(level) = options.debug {
        configs.iter_mut().for_each(|config| config.debug_level = level);
    }
    let levels = configs.iter().map(|config| (config.name.as_str(), config.debug_level));
    if let Err(e) = logger::init(options.log.as_deref(), levels) {
        return report(&Error::new(Kind::Config, None, "open the log file", e));
    }
    let end_with = |error: &Error| fail("pyreplica", OWN_TARGET, error, options);
    if configs.is_empty() {
        return worst(skipped.iter().map(end_with));
    }
    skipped.iter().for_each(|error| logger::error(OWN_TARGET, error));
    // A daemon that was told to stop has done well, whatever it had to skip; a single drain has left something out.
    let skipped = skipped.iter().filter(|_| mode == Mode::Once).map(Error::exit_code);
    let is_one = configs.len() == 1;
    match daemon::run(configs, mode) {
        Ok(failures) => {
            let ended = failures.iter().map(|Failure { name, error }| {
                let who = if is_one { "pyreplica".to_string() } else { format!("pyreplica: {name}") };
                fail(&who, name, error, options)
            });
            worst(skipped.chain(ended))
        }
        Err(error) => end_with(&error),
    }
}

/// On the terminal, and in the log file too when there is one: an init script sends the terminal nowhere.
fn fail(who: &str, target: &str, error: &Error, options: &Options) -> ExitCode {
    if options.log.is_some() {
        logger::error(target, error);
    }
    report_as(who, error)
}

fn report_as(who: &str, error: &Error) -> ExitCode {
    let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    // A terminal that is gone is no reason to panic, here and below.
    let _ = io::stderr().write_all(format!("{who}: {error}\n{hint}").as_bytes());
    error.exit_code()
}

fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::Success
}

/// The highest code, as the help says.
fn worst(codes: impl Iterator<Item = ExitCode>) -> ExitCode {
    codes.max_by_key(|code| *code as u8).unwrap_or(ExitCode::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Command> {
        parse(line.iter().map(OsString::from).collect(), |_| None)
    }

    fn error(line: &[&str]) -> String {
        parsed(line).unwrap_err().to_string()
    }

    fn pair(master: &str, slave: &str) -> Source {
        Source::Pair { master: Dsn::parse(master).unwrap(), slave: Dsn::parse(slave).unwrap() }
    }

    #[test]
    fn two_connection_strings_are_a_pair_and_options_stand_anywhere() {
        let options = Options { once: true, log: Some("l".into()), debug: Some(3), user: None };
        assert_eq!(
            parsed(&["--debug=3", "host=a", "--log", "l", "postgres://b", "--once"]).unwrap(),
            Command::Replicate(pair("host=a", "host=b"), options)
        );
    }

    #[test]
    fn without_words_the_environment_decides_and_then_the_default_directory() {
        let both = parse(Vec::new(), |name| Some(format!("dbname={name}"))).unwrap();
        assert_eq!(both, Command::Replicate(pair("dbname=DSN0", "dbname=DSN1"), Options::default()));
        let one = parse(Vec::new(), |name| (name == "DSN0").then(|| "host=a".to_string()));
        assert!(one.unwrap_err().to_string().contains("DSN1 is not"));
        let none = Command::Replicate(Source::Files(vec!["/etc/pyreplica".into()]), Options::default());
        assert_eq!(parsed(&[]).unwrap(), none);
    }

    #[test]
    fn help_is_to_be_had_for_everything() {
        for line in [&["--help"][..], &["-h"], &["help"], &["host=a", "--help"]] {
            assert_eq!(parsed(line).unwrap(), Command::Help(Topic::Main));
        }
        for line in [&["install", "--help"][..], &["help", "install"], &["install", "host=a", "-h"]] {
            assert_eq!(parsed(line).unwrap(), Command::Help(Topic::Install));
        }
        assert_eq!(parsed(&["-V"]).unwrap(), Command::Version);
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        assert!(error(&["--foo"]).contains("unknown option --foo"));
        assert!(error(&["--once=1"]).contains("unknown option --once"));
        assert!(error(&["--log"]).contains("--log wants a file"));
        assert!(error(&["--debug", "4"]).contains("--debug wants 0 to 3"));
        assert!(error(&["host=a"]).contains("two connection strings"));
        assert!(error(&["host=a", "x.conf"]).contains("two connection strings"));
        assert!(error(&["install"]).contains("one connection string"));
        assert!(error(&["install", "host=a", "--once"]).contains("no option"));
    }

    #[test]
    fn a_wrong_connection_string_says_whose_it_is() {
        assert_eq!(
            error(&["host=a", "hots=b"]),
            "slave: cannot understand the connection string: unknown keyword \"hots\""
        );
    }
}
