//! `pyreplica check-config` checks config files, and connects to no server.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Result};
use crate::base::shown::shown;
use crate::config::dsn::Dsn;
use crate::config::files;
use crate::config::settings::SAME_DATABASE;
use crate::process::output::{self, Json, json};
use crate::verbs::verb::{Call, JSON, PairSource, Verb, Words};

pub const VERB: Verb = Verb { name: "check-config", help: HELP, options: &[JSON], words: Words::Pairs, run };

const HELP: &str = "\
pyreplica check-config checks config files, without servers

usage:
  pyreplica check-config [--json] [FILE.conf... | DIR | DSN0 DSN1]

It reads them as the daemon does, and names everything that is wrong in them,
with line and key. It connects to nothing: pyreplica doctor checks the servers.

options:
  --json        one document for programs instead of lines for people

exit codes: 0 all can be used, 3 one cannot, 8 one should be changed

example:
  pyreplica check-config /etc/pyreplica && systemctl reload pyreplica
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let mut loaded = call.pairs();
    control.check()?;
    let from = |index: usize| loaded.files.get(index).map(|file| file.display().to_string());
    let mut faults = match &call.source {
        PairSource::Pair { master, slave } => faults_of(master, slave),
        _ => Vec::new(),
    };
    if !faults.is_empty() {
        loaded.configs.clear();
    }
    for (path, error) in loaded.bad.iter().zip(&loaded.errors) {
        match files::faults(path) {
            single if single.len() > 1 => faults.extend(single),
            _ => faults.push(described(error)),
        }
    }
    let code = match (faults.is_empty(), loaded.warnings.is_empty()) {
        (false, _) => ExitCode::Config,
        (true, false) => ExitCode::Warned,
        (true, true) => ExitCode::Success,
    };
    if call.has("--json") {
        let pairs = loaded.configs.iter().enumerate().map(|(index, config)| {
            json!({ "pair": config.name, "file": from(index), "master": config.master.to_string(), "slave": config.slave.to_string() })
        });
        let pairs: Vec<Json> = pairs.collect();
        output::print_json(&json!({ "pairs": pairs, "unusable": faults, "warnings": loaded.warnings }))?;
        return Ok(code);
    }
    let good = loaded.configs.iter().enumerate().map(|(index, config)| {
        let file = from(index).map_or(String::new(), |file| format!("{file}: "));
        format!("ok       {file}{}, from '{}' to '{}'", config.name, config.master, config.slave)
    });
    let bad = faults.iter().map(|fault| format!("failure  {fault}"));
    let doubtful = loaded.warnings.iter().map(|warning| format!("warning  {warning}"));
    let lines: String = good.chain(bad).chain(doubtful).map(|line| format!("{}\n", shown(&line))).collect();
    output::print_findings(&lines)?;
    Ok(code)
}

/// What is wrong with two connection strings of the command line.
fn faults_of(master: &Dsn, slave: &Dsn) -> Vec<String> {
    let of = |name: &str, dsn: &Dsn| -> Vec<String> {
        dsn.faults().into_iter().map(|fault| format!("{name}: {fault}")).collect()
    };
    let same = (master == slave).then(|| format!("DSN1: {SAME_DATABASE}"));
    of("DSN0", master).into_iter().chain(of("DSN1", slave)).chain(same).collect()
}

fn described(error: &Error) -> String {
    let hint = error.hint().map_or(String::new(), |hint| format!(". hint: {hint}"));
    format!("{}{hint}", error.detail())
}
