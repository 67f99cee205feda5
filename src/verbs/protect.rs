//! `pyreplica protect` keeps everybody but the daemon from writing to a slave's replicated tables. `pyreplica unprotect` ends that.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::base::phrases::counted;
use crate::base::shown::shown;
use crate::process::output::{self, Json, json};
use crate::roles::protect::{self, Outcome};
use crate::verbs::verb::{Call, JSON, Verb, Words};

pub const PROTECT: Verb =
    Verb { name: "protect", help: PROTECT_HELP, options: &[JSON], words: Words::Pairs, run: run_protect };

pub const UNPROTECT: Verb =
    Verb { name: "unprotect", help: UNPROTECT_HELP, options: &[JSON], words: Words::Pairs, run: run_unprotect };

const PROTECT_HELP: &str = "\
pyreplica protect keeps everybody but the daemon from writing to a slave

usage:
  pyreplica protect [--json] [FILE.conf... | DIR | DSN0 DSN1]

It creates a trigger on each replicated table of the slave, and on each
partition, that refuses INSERT, UPDATE, DELETE and TRUNCATE with SQLSTATE 25006,
to superusers too, and names the master. Readers and the daemon go on. Run it
again when there are new tables or partitions: pyreplica doctor names them. A
table that was renamed on the master is left out, and named. The role must own
the tables.

options:
  --json        one document for programs

example:
  pyreplica protect /etc/pyreplica/shop.conf
";

const UNPROTECT_HELP: &str = "\
pyreplica unprotect lets everybody write to a slave again

usage:
  pyreplica unprotect [--json] [FILE.conf... | DIR | DSN0 DSN1]

It disables the triggers of pyreplica protect. What is written to a slave is
not replicated to the master, and may be in the way of changes from there.

options:
  --json        one document for programs

example:
  pyreplica unprotect /etc/pyreplica/shop.conf
";

fn run_protect(call: &Call, control: &Control) -> Result<ExitCode> {
    for_each(call, |config| {
        let outcome = protect::protect(config, control)?;
        let new = outcome.tables.saturating_sub(outcome.before);
        let are = if outcome.tables == 1 { "is" } else { "are" };
        let tables = counted(outcome.tables, "table");
        let text = format!("{tables} of {} {are} protected, {new} of them since now", outcome.slave);
        Ok((outcome, text))
    })
}

fn run_unprotect(call: &Call, control: &Control) -> Result<ExitCode> {
    for_each(call, |config| {
        let outcome = protect::unprotect(config, control)?;
        let opened = counted(outcome.before.saturating_sub(outcome.tables), "table");
        let text = format!("{opened} of {} can be written to again", outcome.slave);
        Ok((outcome, text))
    })
}

fn for_each(
    call: &Call,
    mut act: impl FnMut(&crate::config::settings::Config) -> Result<(Outcome, String)>,
) -> Result<ExitCode> {
    let loaded = call.pairs();
    if let Some(error) = loaded.errors.into_iter().next() {
        return Err(error);
    }
    let mut documents: Vec<Json> = Vec::new();
    let mut has_notes = false;
    let done = loaded.configs.iter().try_for_each(|config| {
        let (outcome, text) = act(config)?;
        documents.push(json!({
            "pair": config.name, "slave": outcome.slave, "tables": outcome.tables, "before": outcome.before,
            "notes": outcome.notes,
        }));
        has_notes |= !outcome.notes.is_empty();
        if call.has("--json") {
            return Ok(());
        }
        let notes = outcome.notes.iter().map(|note| format!("note: {note}"));
        let lines =
            [text].into_iter().chain(notes).map(|line| format!("{}\n", shown(&format!("{}: {line}", config.name))));
        output::print(&lines.collect::<String>())
    });
    if call.has("--json") {
        output::print_json_so_far(json!({ "pairs": documents }), done.as_ref().err())?;
    }
    done.map(|()| if has_notes { ExitCode::Warned } else { ExitCode::Success })
}
