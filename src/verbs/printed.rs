//! `pyreplica sample` and `pyreplica sql` print files that are part of the program.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::config::settings::SAMPLE;
use crate::pair::sql as pair_sql;
use crate::process::output;
use crate::roles::sql as roles_sql;
use crate::server::sql as server_sql;
use crate::verbs::verb::{Call, PairSource, Verb, Words};

pub const SAMPLE_VERB: Verb =
    Verb { name: "sample", help: SAMPLE_HELP, options: &[], words: Words::Topic(&[]), run: print_sample };

pub const SQL_VERB: Verb =
    Verb { name: "sql", help: SQL_HELP, options: &[], words: Words::Topic(NAMES), run: print_sql };

const SAMPLE_HELP: &str = "\
pyreplica sample prints a config file that explains every key

usage:
  pyreplica sample > FILE.conf

Fill in NAME, DSN0 and DSN1. All other keys are commented out, with their
defaults.

example:
  pyreplica sample > /etc/pyreplica/shop.conf
";

const SQL_HELP: &str = "\
pyreplica sql prints an SQL script, to read or to run by hand

usage:
  pyreplica sql [SCRIPT]

Without a name it lists the scripts. Each says at its top what it does, and may
be run again at any time.

example:
  pyreplica sql master-install.sql | psql shop
";

const NAMES: &[&str] = &[
    "master-install.sql",
    "master-install-filter.sql",
    "master-install-ddl.sql",
    "slave-install.sql",
    "slave-copy.sql",
    "roles-install.sql",
    "master-uninstall.sql",
    "slave-uninstall.sql",
];

fn script(name: &str) -> &'static str {
    match name {
        "master-install.sql" => roles_sql::MASTER_INSTALL,
        "master-install-filter.sql" => include_str!("../../sql/master-install-filter.sql"),
        "master-install-ddl.sql" => roles_sql::MASTER_INSTALL_DDL,
        "slave-install.sql" => server_sql::SLAVE_INSTALL,
        "slave-copy.sql" => pair_sql::SLAVE_COPY,
        "roles-install.sql" => server_sql::ROLES_INSTALL,
        "master-uninstall.sql" => roles_sql::MASTER_UNINSTALL,
        "slave-uninstall.sql" => roles_sql::SLAVE_UNINSTALL,
        _ => unreachable!("the command line was checked"),
    }
}

fn print_sample(_call: &Call, _control: &Control) -> Result<ExitCode> {
    output::print(SAMPLE)?;
    Ok(ExitCode::Success)
}

fn print_sql(call: &Call, _control: &Control) -> Result<ExitCode> {
    let PairSource::Topic(topic) = call.source else { unreachable!("the command line was checked") };
    match topic {
        Some(name) => output::print(script(name))?,
        None => NAMES.iter().try_for_each(|name| output::print(&format!("{name:26} {}\n", purpose(script(name)))))?,
    }
    Ok(ExitCode::Success)
}

/// The first sentence of the comment at the top of a script.
fn purpose(script: &str) -> String {
    let comment = script
        .lines()
        .skip_while(|line| !line.starts_with("-- pyreplica, "))
        .map(|line| line.trim_start_matches("-- "));
    let lines: Vec<&str> = comment.take_while(|line| !matches!(*line, "" | "--")).collect();
    let text = lines.join(" ");
    let text = text.trim_start_matches("pyreplica, ");
    text.split_once(". ").map_or(text.trim_end_matches('.'), |(first, _)| first).to_string()
}
