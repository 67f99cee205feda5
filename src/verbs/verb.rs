//! The type of a verb: its arguments, its options, its help, its function.
//!
//! A verb is a `pub const` of the type `Verb`, and `cli.rs` lists them. It declares its options. The command line is
//! checked against them before the verb runs, so the verb only reads their values.
//!
//! Other modules have what verbs need: `connect_pair.rs` connects to both servers, `output.rs` prints tables, JSON and
//! progress, `foreground.rs` runs the verb so that Ctrl-C ends it. A verb that waits checks its `Control`, and returns
//! `Kind::Stopped` after a request to stop.

mod options;

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::Side;
use crate::base::phrases::did_you_mean;
use crate::config::dsn::Dsn;
use crate::config::files::{self, LoadedConfigs};
use crate::config::settings::Config;
use crate::process::output;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

pub use options::split;

/// The directory of the config files if the command line names none. That for Windows is from the original's
/// service.py.
const DEFAULT_DIRECTORY: &str = if cfg!(windows) { "C:/pyreplica" } else { "/etc/pyreplica" };

const USAGE_HINT: &str = "pyreplica --help shows the usage";

/// Every verb that prints a result has this option.
pub const JSON: Opt = Opt { name: "--json", value: Value::None };

pub struct Verb {
    pub name: &'static str,
    /// The text of `--help`: what the verb does, its usage, its options, an example.
    pub help: &'static str,
    pub options: &'static [Opt],
    pub words: Words,
    /// Runs the verb. It stops soon after `Control` asks for it. The caller reports errors.
    pub run: fn(&Call, &Control) -> Result<ExitCode>,
}

/// The arguments that are not options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Config files, directories, or two connection strings. Without any, the defaults of replication.
    Pairs,
    /// Any number of change ids, then the same as for `Pairs`.
    ChangesAndPairs,
    /// One connection string.
    Database,
    /// One of these words, or none.
    Topic(&'static [&'static str]),
}

#[derive(Debug)]
pub struct Opt {
    /// With its dashes.
    pub name: &'static str,
    pub value: Value,
}

/// The value of an option. It is the next word, or follows a `=`.
#[derive(Debug)]
pub enum Value {
    /// The option has no value.
    None,
    /// The string describes the value in error messages, for example "a table".
    Text(&'static str),
    /// A path need not be UTF-8.
    Path(&'static str),
    Number(RangeInclusive<u64>),
    /// A number that may be missing: `--watch`, `--watch=5` or `--watch 5`. Any other next word may be a config file.
    Optional(RangeInclusive<u64>),
    OneOf(&'static [&'static str]),
}

/// Where the pairs come from.
#[derive(Debug, PartialEq, Eq)]
pub enum PairSource {
    Pair {
        master: Dsn,
        slave: Dsn,
    },
    Files(Vec<PathBuf>),
    Database(Dsn),
    /// None: the verb asks no database.
    Topic(Option<&'static str>),
}

/// One call of a verb, with checked options.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub source: PairSource,
    /// The ids of changes.
    pub changes: Vec<i64>,
    pub options: Vec<(&'static str, Option<OsString>)>,
}

/// The command line, split into options and other words.
#[derive(Default)]
pub struct Split {
    pub words: Vec<OsString>,
    pub help: bool,
    pub version: bool,
    /// All words after `--` are none.
    pub has_ended_options: bool,
    pub options: Vec<(&'static str, Option<OsString>)>,
}

impl Verb {
    /// Parses the words after the verb. Returns `None` if the operator asks for help.
    pub fn parse(
        &'static self,
        arguments: Vec<OsString>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Call>> {
        let hint = |error: Error| self.with_own_help(error);
        let split = split(arguments, self.options).map_err(hint)?;
        if split.help {
            return Ok(None);
        }
        if split.version {
            return Err(hint(usage(format!("{} has no option --version", self.name))));
        }
        let mut words = split.words;
        let number = |word: &OsString| word.to_str().and_then(|text| text.parse::<i64>().ok());
        let changes: Vec<i64> = match self.words {
            Words::ChangesAndPairs => words.iter().map_while(number).collect(),
            _ => Vec::new(),
        };
        words.drain(..changes.len());
        let source = match self.words {
            Words::Pairs | Words::ChangesAndPairs => find_source(words, variable),
            Words::Database => match &words[..] {
                [dsn] => parse_dsn(dsn, None).map(PairSource::Database).map_err(|error| match dsn.to_str() {
                    Some(text) if Dsn::looks_like(text) => error,
                    _ => error.with_hint(format!(
                        "the verb takes the connection string of one database, not a config file: pyreplica {} 'host=... \
                         dbname=...'",
                        self.name
                    )),
                }),
                _ => Err(usage(format!("{} needs one connection string", self.name))),
            },
            Words::Topic(topics) => match &words[..] {
                [] => Ok(PairSource::Topic(None)),
                [word] if topics.iter().any(|topic| word == topic) => {
                    Ok(PairSource::Topic(topics.iter().copied().find(|topic| word == topic)))
                }
                _ if topics.is_empty() => Err(usage(format!("{} takes no further words", self.name))),
                [word, ..] => {
                    let meant = did_you_mean(&word.to_string_lossy(), topics.iter().copied());
                    Err(usage(format!("{} knows these: {}{meant}", self.name, topics.join(", "))))
                }
            },
        };
        Ok(Some(Call { source: source.map_err(hint)?, changes, options: split.options }))
    }
}

impl Verb {
    /// The error, with the hint to the verb's own help instead of that to all verbs.
    pub fn with_own_help(&self, error: Error) -> Error {
        match error.hint() {
            Some(USAGE_HINT) => error.with_hint(format!("pyreplica help {} shows the usage", self.name)),
            _ => error,
        }
    }
}

impl PartialEq for Verb {
    fn eq(&self, other: &Verb) -> bool {
        self.name == other.name
    }
}

impl Eq for Verb {}

impl fmt::Debug for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Call {
    /// Whether the option was given.
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| *given == name)
    }

    /// The value of an option. If it is given twice, the last one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).last()
    }

    /// The values of an option that may be given several times.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given(name).filter_map(OsStr::to_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.given(name).last().map(PathBuf::from)
    }

    /// Loads the settings of the pairs. The result also has the errors of config files that cannot be used.
    pub fn pairs(&self) -> LoadedConfigs {
        match &self.source {
            PairSource::Pair { master, slave } => LoadedConfigs {
                configs: vec![Config::for_pair(master.clone(), slave.clone())],
                ..LoadedConfigs::default()
            },
            PairSource::Files(paths) => files::load(paths),
            PairSource::Database(_) | PairSource::Topic(_) => LoadedConfigs::default(),
        }
    }

    /// Loads the settings of one pair, for a verb that writes. An error if there is more than one pair, or if a file
    /// has an error.
    pub fn pair(&self) -> Result<Config> {
        let LoadedConfigs { mut configs, errors, .. } = self.pairs();
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        match (configs.pop(), configs.len()) {
            (Some(config), 0) => Ok(config),
            (_, others) => Err(usage(format!("this verb works on one pair, and {} are given", others + 1))
                .with_hint("name its config file")),
        }
    }

    /// The same for a verb that looks at all pairs. An error if there is none, because no file can be used.
    pub fn some_pairs(&self) -> Result<LoadedConfigs> {
        let mut loaded = self.pairs();
        match loaded.errors.pop() {
            Some(last) if loaded.configs.is_empty() => {
                loaded.errors.iter().for_each(|error| output::complain(&format!("pyreplica: {error}\n")));
                Err(last)
            }
            last => {
                loaded.errors.extend(last);
                Ok(loaded)
            }
        }
    }

    /// The words that name a pair on a command line, for hints. They never contain a password. `file`: the pair's config file, if
    /// there may be other pairs.
    pub fn words_for(&self, config: &Config, file: Option<&Path>) -> String {
        match (&self.source, file) {
            (PairSource::Files(paths), None) if paths.len() == 1 => paths[0].display().to_string(),
            (_, Some(file)) => file.display().to_string(),
            (_, None) => format!("'{}' '{}'", config.master, config.slave),
        }
    }

    fn given(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        self.options.iter().filter(move |(given, _)| *given == name).filter_map(|(_, value)| value.as_deref())
    }
}

/// Finds out which pairs these words name. `variable` looks up DSN0 and DSN1 in the environment.
pub fn find_source(words: Vec<OsString>, variable: impl Fn(&str) -> Option<String>) -> Result<PairSource> {
    let is_dsn = |word: &OsString| word.to_str().is_some_and(Dsn::looks_like);
    match &words[..] {
        [] => match (variable("DSN0"), variable("DSN1")) {
            (Some(master), Some(slave)) => pair(master.as_ref(), slave.as_ref()),
            (Some(_), None) => Err(usage("DSN0 is set and DSN1 is not")),
            (None, Some(_)) => Err(usage("DSN1 is set and DSN0 is not")),
            (None, None) => Ok(PairSource::Files(vec![PathBuf::from(DEFAULT_DIRECTORY)])),
        },
        [master, slave] if is_dsn(master) && is_dsn(slave) => pair(master, slave),
        _ if words.iter().any(is_dsn) => {
            Err(usage("expected two connection strings, the master's and the slave's, or config files"))
        }
        _ => Ok(PairSource::Files(words.into_iter().map(PathBuf::from).collect())),
    }
}

pub fn usage(why: impl fmt::Display) -> Error {
    Error::new(Kind::Usage, None, "understand the command line", why).with_hint(USAGE_HINT)
}

fn pair(master: &OsStr, slave: &OsStr) -> Result<PairSource> {
    Ok(PairSource::Pair { master: parse_dsn(master, Some(Side::Master))?, slave: parse_dsn(slave, Some(Side::Slave))? })
}

fn parse_dsn(word: &OsStr, side: Option<Side>) -> Result<Dsn> {
    let wrong = |why: &str| Error::new(Kind::Config, side, "understand the connection string", why);
    let text = word.to_str().ok_or_else(|| wrong("it is not UTF-8 text"))?;
    Dsn::parse(text).map_err(|e| wrong(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    static VERB: Verb = Verb {
        name: "test",
        help: "",
        options: &[
            JSON,
            Opt { name: "--table", value: Value::Text("a table") },
            Opt { name: "--jobs", value: Value::Number(1..=8) },
            Opt { name: "--watch", value: Value::Optional(1..=60) },
            Opt { name: "--for", value: Value::OneOf(&["people", "programs"]) },
        ],
        words: Words::Pairs,
        run: |_, _| Ok(ExitCode::Success),
    };

    fn call(line: &[&str]) -> Result<Option<Call>> {
        VERB.parse(line.iter().map(OsString::from).collect(), |_| None)
    }

    fn error(line: &[&str]) -> String {
        call(line).unwrap_err().detail().to_string()
    }

    #[test]
    fn a_verb_gets_its_options_and_sources_in_any_order() {
        let call =
            call(&["--table", "a", "x.conf", "--jobs=2", "--json", "--table=b", "--watch", "y.conf"]).unwrap().unwrap();
        assert_eq!(call.source, PairSource::Files(vec!["x.conf".into(), "y.conf".into()]));
        assert_eq!(call.texts("--table").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((call.text("--table"), call.number("--jobs"), call.number("--watch")), (Some("b"), Some(2), None));
        assert!(call.has("--json") && call.has("--watch") && !call.has("--for"));
    }

    #[test]
    fn a_number_after_an_option_that_may_have_one_is_its_value() {
        let call = call(&["--watch", "5", "x.conf"]).unwrap().unwrap();
        assert_eq!((&call.source, call.number("--watch")), (&PairSource::Files(vec!["x.conf".into()]), Some(5)));
        for wrong in ["0", "61", "1.5"] {
            assert_eq!(error(&["--watch", wrong]), "--watch needs a number from 1 to 60");
        }
    }

    #[test]
    fn an_unknown_option_or_a_wrong_value_is_refused() {
        assert_eq!(error(&["--once"]), "unknown option --once");
        assert_eq!(error(&["--tabel", "t"]), "unknown option --tabel: did you mean --table?");
        assert_eq!(error(&["--json=1"]), "--json takes no value");
        assert_eq!(error(&["--table"]), "--table needs a table");
        assert_eq!(error(&["--jobs", "9"]), "--jobs needs a number from 1 to 8");
        assert_eq!(error(&["--watch=x"]), "--watch needs a number from 1 to 60");
        assert_eq!(error(&["--for", "me"]), "--for needs people or programs");
        let hint = call(&["--once"]).unwrap_err().hint().map(str::to_string);
        assert_eq!(hint.as_deref(), Some("pyreplica help test shows the usage"));
    }

    #[test]
    fn with_help_the_verb_does_not_run() {
        assert!(call(&["x.conf", "--help"]).unwrap().is_none());
    }

    #[test]
    fn a_verb_for_one_pair_refuses_two() {
        let call =
            Call { source: PairSource::Files(vec!["/nonexistent".into()]), changes: Vec::new(), options: Vec::new() };
        assert_eq!(call.pair().unwrap_err().kind(), Kind::Config);
        let dsn = Dsn::parse("dbname=a").unwrap();
        let call = Call {
            source: PairSource::Pair { master: dsn.clone(), slave: dsn },
            changes: Vec::new(),
            options: Vec::new(),
        };
        assert_eq!(call.pair().unwrap().name, "a");
    }
}
