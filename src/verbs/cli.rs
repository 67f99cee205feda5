//! Parses the command line, a verb with its options or the pairs to replicate, and runs it.

mod completion;
mod endings;
mod help;
mod man;
mod text;

use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::phrases::did_you_mean;
use crate::config::files::{self, LoadedConfigs};
use crate::config::settings::{Config, DEBUG_LEVELS};
use crate::daemon::supervisor::{self, Failure, Mode, Reload};
use crate::process::foreground;
use crate::process::logger::{self, Format, OWN_TARGET};
use crate::process::user;
use crate::verbs::check_config;
use crate::verbs::compare;
use crate::verbs::copy;
use crate::verbs::doctor;
use crate::verbs::failover;
use crate::verbs::install;
use crate::verbs::pause;
use crate::verbs::pending;
use crate::verbs::printed;
use crate::verbs::protect;
use crate::verbs::retry;
use crate::verbs::skip;
use crate::verbs::status;
use crate::verbs::switchover;
use crate::verbs::uninstall;
use crate::verbs::verb::{self, Call, JSON, Opt, PairSource, Value, Verb, usage};
use endings::{end_verb, fail, print, report, unwritten_log, worst};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// All verbs, in the order of the help. Replication itself has no verb.
static VERBS: [&Verb; 22] = [
    &install::VERB,
    &copy::VERB,
    &check_config::VERB,
    &doctor::VERB,
    &status::VERB,
    &compare::COMPARE,
    &compare::REPAIR,
    &pending::VERB,
    &skip::VERB,
    &retry::VERB,
    &pause::PAUSE,
    &pause::RESUME,
    &switchover::VERB,
    &failover::FAILOVER,
    &failover::FAILBACK,
    &protect::PROTECT,
    &protect::UNPROTECT,
    &uninstall::VERB,
    &printed::SAMPLE_VERB,
    &printed::SQL_VERB,
    &man::VERB,
    &completion::VERB,
];

static REPLICATION: [Opt; 5] = [
    Opt { name: "--once", value: Value::None },
    Opt { name: "--log", value: Value::Path("a file") },
    Opt { name: "--log-format", value: Value::OneOf(Format::NAMES) },
    Opt { name: "--user", value: Value::Text("a user name") },
    Opt { name: "--debug", value: Value::Number(*DEBUG_LEVELS.start() as u64..=*DEBUG_LEVELS.end() as u64) },
];

/// What build.rs knows of this build, after the version.
const VERSION: &str = concat!("pyreplica ", env!("CARGO_PKG_VERSION"), env!("PYREPLICA_BUILD"), "\n");

/// What the operator wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this text.
    Help(&'static str),
    Version,
    Run(&'static Verb, Call),
    Replicate(PairSource, Options),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub once: bool,
    pub log: Option<PathBuf>,
    /// None: that of the original, or what the journal expects.
    pub log_format: Option<Format>,
    pub debug: Option<u8>,
    /// The user as whom the process runs after root has started it.
    pub user: Option<String>,
}

/// Does what the arguments say. `variable` looks up DSN0 and DSN1 in the environment.
pub fn main(arguments: Vec<OsString>, variable: impl Fn(&str) -> Option<String>) -> ExitCode {
    let is_json = arguments.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    match parse(arguments, variable) {
        Ok(command) => run(command),
        Err(error) => end_verb(&error, is_json),
    }
}

/// Parses the arguments.
fn parse(arguments: Vec<OsString>, variable: impl Fn(&str) -> Option<String>) -> Result<Command> {
    let first = arguments.first().and_then(|word| word.to_str());
    if first == Some("help") {
        return help_on(&arguments[1..]).map(Command::Help);
    }
    if let Some(verb) = first.and_then(find_verb) {
        let call = verb.parse(arguments.into_iter().skip(1).collect(), variable)?;
        return Ok(call.map_or(Command::Help(verb.help), |call| Command::Run(verb, call)));
    }
    refuse_misspelled(first)?;
    let split = verb::split(arguments, &REPLICATION)?;
    if split.version {
        return Ok(Command::Version);
    }
    if split.help {
        return Ok(Command::Help(help::MAIN));
    }
    if !split.has_ended_options {
        refuse_verbs(&split.words)?;
        refuse_misspelled(split.words.first().and_then(|word| word.to_str()))?;
    }
    let call = Call { source: verb::find_source(split.words, variable)?, changes: Vec::new(), options: split.options };
    let options = Options {
        once: call.has("--once"),
        log: call.path("--log"),
        log_format: call.text("--log-format").and_then(Format::named),
        debug: call.number("--debug").map(|level| level as u8),
        user: call.text("--user").map(str::to_string),
    };
    Ok(Command::Replicate(call.source, options))
}

/// Runs a command and reports its errors, in the log file too if there is one.
fn run(command: Command) -> ExitCode {
    match command {
        Command::Help(text) => print(text),
        Command::Version => print(VERSION),
        Command::Run(verb, call) => {
            let is_json = call.has(JSON.name);
            // Nobody sees what it shows when its terminal is gone; work that somebody has begun goes on.
            match foreground::run(call.has("--watch"), move |control| (verb.run)(&call, control)) {
                Ok(code) => code,
                Err(error) => end_verb(&verb.with_own_help(error), is_json),
            }
        }
        Command::Replicate(source, options) => match drop_rights(&options) {
            Ok(()) => replicate(source, &options),
            Err(error) => report(&error),
        },
    }
}

fn find_verb(name: &str) -> Option<&'static Verb> {
    VERBS.iter().copied().find(|verb| verb.name == name)
}

fn help_on(words: &[OsString]) -> Result<&'static str> {
    let name = |word: &OsString| word.to_str().and_then(find_verb);
    match words {
        [] => Ok(help::MAIN),
        [word] if name(word).is_some() => Ok(name(word).expect("it was found").help),
        [word, ..] => {
            let meant = did_you_mean(&word.to_string_lossy(), VERBS.map(|verb| verb.name));
            Err(usage(format!("help knows these topics: {}{meant}", VERBS.map(|verb| verb.name).join(", "))))
        }
    }
}

/// Refuses a verb after an option. Otherwise pyreplica would start to replicate the pairs that follow it.
fn refuse_verbs(words: &[OsString]) -> Result<()> {
    for word in words.iter().filter_map(|word| word.to_str()) {
        if find_verb(word).is_some() {
            return Err(usage(format!("the verb comes first: pyreplica {word} ... (a file of that name is ./{word})")));
        }
    }
    Ok(())
}

/// Refuses a misspelled verb, before anything is said of its options.
fn refuse_misspelled(first: Option<&str>) -> Result<()> {
    match first {
        Some(word)
            if word.starts_with(|c: char| c.is_ascii_alphabetic())
                && word.chars().all(|c| c.is_ascii_alphabetic() || c == '-')
                && !Path::new(word).exists() =>
        {
            let meant = did_you_mean(word, VERBS.map(|verb| verb.name));
            Err(usage(format!("{word} is neither a verb nor a file{meant}")))
        }
        _ => Ok(()),
    }
}

/// Drops root's rights before pyreplica reads or opens anything, so that root does none of that.
fn drop_rights(options: &Options) -> Result<()> {
    match &options.user {
        Some(name) => user::become_user(name, options.log.as_deref()),
        None => Ok(()),
    }
}

fn replicate(source: PairSource, options: &Options) -> ExitCode {
    match source {
        PairSource::Pair { master, slave } => {
            let mode = if options.once { Mode::Once } else { Mode::UntilItWorks };
            let configs = vec![Config::for_pair(master, slave)];
            run_pairs(LoadedConfigs { configs, ..LoadedConfigs::default() }, mode, options, None)
        }
        PairSource::Database(_) | PairSource::Topic(_) => unreachable!("only verbs take these"),
        PairSource::Files(paths) => {
            let mode = if options.once { Mode::Once } else { Mode::Forever };
            let loaded = files::load(&paths);
            let level = options.debug;
            let reload: Reload = Box::new(move || {
                let mut loaded = files::load(&paths);
                set_level(&mut loaded, level);
                warn(&loaded);
                loaded
            });
            run_pairs(loaded, mode, options, (mode == Mode::Forever).then_some(reload))
        }
    }
}

fn set_level(loaded: &mut LoadedConfigs, level: Option<u8>) {
    if let Some(level) = level {
        loaded.configs.iter_mut().for_each(|config| config.debug_level = level);
    }
}

fn warn(loaded: &LoadedConfigs) {
    loaded.warnings.iter().for_each(|warning| log::warn!(target: OWN_TARGET, "{warning}"));
}

/// Runs all pairs whose config files have no error.
fn run_pairs(mut loaded: LoadedConfigs, mode: Mode, options: &Options, reload: Option<Reload>) -> ExitCode {
    set_level(&mut loaded, options.debug);
    let levels = loaded.configs.iter().map(|config| (config.name.as_str(), config.debug_level));
    if let Err(e) = logger::init(options.log.as_deref(), options.log_format, levels) {
        return report(&Error::new(Kind::Config, None, "open the log file", e));
    }
    warn(&loaded);
    let end_with = |error: &Error| fail("pyreplica", OWN_TARGET, error, options);
    if loaded.configs.is_empty() {
        return worst(loaded.errors.iter().map(end_with));
    }
    loaded.errors.iter().for_each(|error| logger::error(OWN_TARGET, error));
    // If the operator stops a daemon, that is a success even if config files had errors. With --once they are failures,
    // because their pairs were not replayed.
    let skipped = loaded.errors.iter().filter(|_| mode == Mode::Once).map(Error::exit_code);
    let skipped: Vec<ExitCode> = skipped.collect();
    let is_one = loaded.configs.len() == 1;
    let ended = match supervisor::run(loaded, mode, reload) {
        Ok(failures) => {
            let ended = failures.iter().map(|Failure { name, error }| {
                let who = if is_one { "pyreplica".to_string() } else { format!("pyreplica: {name}") };
                fail(&who, name, error, options)
            });
            worst(skipped.into_iter().chain(ended))
        }
        Err(error) => end_with(&error),
    };
    // A daemon has said so, and goes on; but nobody would see that of a run of cron.
    let unwritten = if mode == Mode::Once { unwritten_log() } else { None };
    worst([ended].into_iter().chain(unwritten.as_ref().map(report)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dsn::Dsn;

    fn parsed(line: &[&str]) -> Result<Command> {
        parse(line.iter().map(OsString::from).collect(), |_| None)
    }

    fn error(line: &[&str]) -> String {
        parsed(line).unwrap_err().to_string()
    }

    fn pair(master: &str, slave: &str) -> PairSource {
        PairSource::Pair { master: Dsn::parse(master).unwrap(), slave: Dsn::parse(slave).unwrap() }
    }

    #[test]
    fn two_connection_strings_are_a_pair_and_options_stand_anywhere() {
        let options =
            Options { once: true, log: Some("l".into()), log_format: Some(Format::Iso), debug: Some(3), user: None };
        assert_eq!(
            parsed(&["--debug=3", "host=a", "--log", "l", "postgres://b", "--once", "--log-format=iso"]).unwrap(),
            Command::Replicate(pair("host=a", "host=b"), options)
        );
    }

    #[test]
    fn without_words_the_environment_decides_and_then_the_default_directory() {
        let both = parse(Vec::new(), |name| Some(format!("dbname={name}"))).unwrap();
        assert_eq!(both, Command::Replicate(pair("dbname=DSN0", "dbname=DSN1"), Options::default()));
        let one = parse(Vec::new(), |name| (name == "DSN0").then(|| "host=a".to_string()));
        assert!(one.unwrap_err().to_string().contains("DSN1 is not"));
        let none = Command::Replicate(PairSource::Files(vec!["/etc/pyreplica".into()]), Options::default());
        assert_eq!(parsed(&[]).unwrap(), none);
    }

    #[test]
    fn every_verb_has_help() {
        for line in [&["--help"][..], &["-h"], &["help"], &["host=a", "--help"]] {
            assert_eq!(parsed(line).unwrap(), Command::Help(help::MAIN));
        }
        for verb in VERBS {
            for line in [&[verb.name, "--help"][..], &["help", verb.name], &[verb.name, "host=a", "-h"]] {
                assert_eq!(parsed(line).unwrap(), Command::Help(verb.help));
            }
            let usage = format!("usage:\n  pyreplica {} ", verb.name);
            assert!(verb.help.contains(&usage) && verb.help.contains("\nexample:\n"), "{}", verb.help);
            assert!(help::MAIN.contains(&format!("\n  pyreplica {} ", verb.name)), "{} is not in the help", verb.name);
            let declared = |option: &&Opt| verb.help.contains(&format!("  {}", option.name));
            assert!(verb.options.iter().all(|option| declared(&option)), "{}", verb.help);
        }
        for line in VERBS.iter().flat_map(|verb| verb.help.lines()).chain(help::MAIN.lines()) {
            assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
        }
        assert_eq!(parsed(&["-V"]).unwrap(), Command::Version);
    }

    #[test]
    fn a_verb_comes_first_and_a_file_of_its_name_has_a_path() {
        let Command::Run(verb, call) = parsed(&["doctor", "./doctor", "--json"]).unwrap() else { panic!("no verb") };
        assert_eq!((verb.name, &call.source), ("doctor", &PairSource::Files(vec!["./doctor".into()])));
        assert!(error(&["--debug", "3", "doctor", "x.conf"]).contains("the verb comes first"));
        assert!(error(&["x.conf", "doctor"]).contains("the verb comes first"));
        assert!(error(&["docter", "x.conf"]).contains("docter is neither a verb nor a file: did you mean doctor?"));
        assert!(matches!(parsed(&["./doctor"]).unwrap(), Command::Replicate(..)));
        let files = |words: &[&str]| PairSource::Files(words.iter().map(PathBuf::from).collect());
        let Command::Replicate(source, options) = parsed(&["--once", "--", "doctor", "--once"]).unwrap() else {
            panic!()
        };
        assert_eq!((source, options.once), (files(&["doctor", "--once"]), true));
        let Command::Run(_, call) = parsed(&["status", "--json", "--", "-x.conf"]).unwrap() else { panic!() };
        assert_eq!((&call.source, call.has("--json")), (&files(&["-x.conf"]), true));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        assert!(error(&["--foo"]).contains("unknown option --foo"));
        assert!(error(&["--once=1"]).contains("--once takes no value"));
        assert!(error(&["--log"]).contains("--log needs a file"));
        assert!(error(&["--debug", "4"]).contains("--debug needs a number from 0 to 3"));
        assert!(error(&["host=a"]).contains("two connection strings"));
        assert!(error(&["host=a", "x.conf"]).contains("two connection strings"));
        assert!(error(&["install"]).contains("one connection string"));
        assert!(error(&["install", "host=a", "--once"]).contains("unknown option --once"));
        assert!(error(&["help", "me"]).contains("topics: install, copy, check-config"));
        assert!(error(&["help", "statsu"]).ends_with(": did you mean status?"));
        assert!(error(&["--onec"]).ends_with("unknown option --onec: did you mean --once?"));
    }

    #[test]
    fn an_error_about_a_connection_string_names_the_side() {
        assert_eq!(
            error(&["host=a", "hots=b"]),
            "slave: cannot understand the connection string: unknown keyword \"hots\": did you mean host?"
        );
    }
}
