//! `pyreplica install` prepares a master for replication.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::base::shown::shown;
use crate::process::output::{self, json};
use crate::roles::install::install;
use crate::verbs::verb::{Call, JSON, Opt, PairSource, Value, Verb, Words};

pub const VERB: Verb = Verb { name: "install", help: HELP, options: OPTIONS, words: Words::Database, run };

const OPTIONS: &[Opt] = &[Opt { name: "--ddl", value: Value::None }, JSON];

const HELP: &str = "\
pyreplica install prepares a master

usage:
  pyreplica install [--ddl] [--json] DSN

It creates the table replica_log and what belongs to it in that database, and a
trigger on every table that has a primary key or a REPLICA IDENTITY. It lists
the others and does not change them. It may be run again at any time, for
example after new tables have been created; tables that have their trigger are
left alone. If sessions hold a table's lock, it tries again for a while. The
owner of the database may run it; it needs no superuser.

options:
  --ddl  schema changes travel to the slaves too, from now on. The role must be
         a superuser, or one that the server lets create event triggers.
         docs/ddl.md says what travels
  --json one document for programs

example:
  pyreplica install 'dbname=shop host=db1 user=joe'
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let PairSource::Database(dsn) = &call.source else { unreachable!("the command line was checked") };
    let mut notes: Vec<String> = Vec::new();
    install(dsn, call.has("--ddl"), control, &mut |line| {
        if call.has("--json") {
            notes.push(line.to_string());
            return Ok(());
        }
        output::print(&format!("{}\n", shown(line)))
    })?;
    if call.has("--json") {
        output::print_json(&json!({ "installed": true, "notes": notes }))?;
    }
    Ok(ExitCode::Success)
}
