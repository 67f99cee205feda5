//! `pyreplica uninstall` takes pyreplica away from one database, a master or a slave.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::shown::shown;
use crate::process::output::{self, Json, json};
use crate::roles::uninstall::{self, COUNTED, Found};
use crate::verbs::verb::{Call, JSON, Opt, PairSource, Value, Verb, Words, usage};
use std::io::{self, IsTerminal};

pub const VERB: Verb = Verb {
    name: "uninstall",
    help: HELP,
    options: &[Opt { name: "--yes", value: Value::None }, JSON],
    words: Words::Database,
    run,
};

const HELP: &str = "\
pyreplica uninstall takes pyreplica away from a database

usage:
  pyreplica uninstall [--yes] [--json] DSN

The database is a master or a slave, or was one of them. Stop the daemon first.
The verb shows what is there, and asks before it removes anything: the triggers
on your tables, the log with all changes in it, the tables of positions, holds,
quarantine and conflicts, the fence. It removes nothing that somebody else has
made under one of these names, and none of your tables, rows or roles. If a
transaction is in doubt, it refuses: start the daemon once more. The owner of
the database may run it, if that role installed pyreplica. Then run it for the
other side.

options:
  --yes         remove it without asking
  --json        one document for programs; needs --yes

example:
  pyreplica uninstall 'dbname=shop host=db1 user=joe'
";

const LEFT: &str = "\
left as they are: the extension hstore, which others may use; roles, and the
rights on your tables that you have granted them; the other side of the pair;
the daemon's config file
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let PairSource::Database(dsn) = &call.source else { unreachable!("the command line was checked") };
    let (has_said_yes, is_json) = (call.has("--yes"), call.has("--json"));
    if !has_said_yes && (is_json || !io::stdin().is_terminal()) {
        return Err(usage("uninstall cannot ask for confirmation here").with_hint("--yes removes it without asking"));
    }
    let mut session = uninstall::open(dsn, control)?;
    let found = uninstall::look(&mut session)?;
    let place = shown(&dsn.to_string()).into_owned();
    if found.objects.is_empty() {
        match is_json {
            true => print_json(&place, &found)?,
            false => output::print(&format!("{place}: nothing of pyreplica is there\n"))?,
        }
        return Ok(ExitCode::Success);
    }
    if !is_json {
        output::print(&format!("{place} has:\n{}", describe(&found)))?;
    }
    if !has_said_yes && !output::ask("Remove all that? [y/N] ")? {
        return Err(Error::new(Kind::Stopped, None, "uninstall", "nothing was removed"));
    }
    uninstall::remove(&mut session, control, &mut |line| {
        output::complain(&format!("{}\n", shown(line)));
        Ok(())
    })?;
    let left = uninstall::look(&mut session)?;
    if let Some((kind, name)) = left.objects.first() {
        return Err(Error::new(
            Kind::Setup,
            Some(session.side()),
            "remove everything",
            format!("the {kind} {name} is left"),
        )
        .with_hint("its owner can drop it"));
    }
    if is_json {
        print_json(&place, &found)?;
        return Ok(ExitCode::Success);
    }
    output::print(&format!("removed\n{LEFT}"))?;
    if found.has_former_log {
        output::print("and the log of the Python original: DROP TABLE public.replica_log_former;\n")?;
    }
    Ok(ExitCode::Success)
}

fn print_json(place: &str, found: &Found) -> Result<()> {
    let removed = found.objects.iter().map(|(kind, name)| json!({ "kind": kind, "name": name }));
    let removed: Vec<Json> = removed.collect();
    output::print_json(&json!({ "database": place, "removed": removed, "former_log": found.has_former_log }))
}

/// A line for each kind, with the names of what there are few of.
fn describe(found: &Found) -> String {
    let mut lines = String::new();
    for kind in ["trigger", "event trigger", "table", "view", "sequence", "function", "schema"] {
        let names: Vec<&str> = found.objects.iter().filter(|(k, _)| k == kind).map(|(_, name)| name.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        let is_short = matches!(kind, "table" | "schema" | "event trigger");
        let list = if is_short { format!(" ({})", names.join(", ")) } else { String::new() };
        lines += &shown(&format!("  {kind}s: {}{list}", names.len()));
        lines.push('\n');
    }
    if !found.slaves.is_empty() {
        let more = if found.changes > COUNTED { "more than " } else { "" };
        let changes = found.changes.min(COUNTED);
        lines += &shown(&format!("  changes in the log: {more}{changes}; its slaves: {}", found.slaves.join(", ")));
        lines.push('\n');
    }
    lines
}
