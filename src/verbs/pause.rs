//! `pyreplica pause` and `pyreplica resume` pause and resume a pair, or single tables of it.
//!
//! A paused pair replays nothing, and its changes wait in the master's log. The changes of a paused table are held on
//! the slave while other tables are replayed, so the log need not keep them.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::base::phrases::counted;
use crate::base::shown::shown;
use crate::config::settings::Config;
use crate::pair::release::Release;
use crate::process::output::{self, Json, ProgressLine, json};
use crate::replay::hold::{PAUSED, WHOLE_PAIR};
use crate::replay::sql as replay_sql;
use crate::server::session::Session;
use crate::verbs::sql;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};

pub const PAUSE: Verb =
    Verb { name: "pause", help: PAUSE_HELP, options: &[TABLE, JSON], words: Words::Pairs, run: pause };

pub const RESUME: Verb =
    Verb { name: "resume", help: RESUME_HELP, options: &[TABLE, JSON], words: Words::Pairs, run: resume };

const TABLE: Opt = Opt { name: "--table", value: Value::Text("a table of the master") };

const PAUSE_HELP: &str = "\
pyreplica pause pauses a pair, or single tables of it, until resume

usage:
  pyreplica pause [--table TABLE]... [--json] [FILE.conf... | DIR | DSN0 DSN1]

A paused pair replays nothing: its changes wait in the master's log. The
changes of a paused table are held on the slave, while those of all other
tables are replayed. A pause stays in effect when the daemon is restarted. When
this verb has ended, no change of the pair or table is replayed any more.

options:
  --table TABLE only this table, with its name on the master; may be given
                several times
  --json        one document for programs

example:
  pyreplica pause --table public.orders /etc/pyreplica/shop.conf
";

const RESUME_HELP: &str = "\
pyreplica resume ends the pause of a pair or of a table

usage:
  pyreplica resume [--table TABLE]... [--json] [FILE.conf... | DIR | DSN0 DSN1]

With --table it replays the held changes of the table itself, in order; the
daemon need not run. Without --table the pair goes on, and its paused tables
stay paused.

options:
  --table TABLE only this table, with its name on the master; may be given
                several times
  --json        one document for programs

example:
  pyreplica resume --table public.orders /etc/pyreplica/shop.conf
";

fn pause(call: &Call, control: &Control) -> Result<ExitCode> {
    for_each(call, control, "pause", |release, relation, _| {
        let is_new = release.hold(relation, PAUSED)?;
        Ok((if is_new { "paused" } else { "was on hold already" }.to_string(), 0))
    })
}

fn resume(call: &Call, control: &Control) -> Result<ExitCode> {
    for_each(call, control, "resume", |release, relation, progress| {
        if relation == WHOLE_PAIR {
            let was_paused = release.resume_pair()?;
            return Ok((if was_paused { "goes on" } else { "was not paused" }.to_string(), 0));
        }
        match reason(release, relation)? {
            None => return Ok(("was not paused".to_string(), 0)),
            Some(why) if why != PAUSED => {
                let detail = format!("{relation} is on hold for another reason: {why}");
                return Err(Error::new(Kind::Busy, Some(Side::Slave), "resume", detail)
                    .with_hint("the verb that put it on hold ends that itself; if it was interrupted, run it again"));
            }
            Some(_) => {}
        }
        let mut show = |changes| progress.show(|| format!("{relation}: {} replayed", counted(changes, "change")));
        let changes = release.resume_table(relation, None, &mut show)?;
        Ok((format!("goes on, {} replayed", counted(changes, "change")), changes))
    })
}

/// Calls `act` for each table that is named, or else for each pair, and prints the results.
fn for_each(
    call: &Call,
    control: &Control,
    verb: &str,
    act: impl FnMut(&mut Release, &str, &mut ProgressLine) -> Result<(String, u64)>,
) -> Result<ExitCode> {
    let configs = if call.has("--table") { vec![call.pair()?] } else { all(call)? };
    let mut documents: Vec<Json> = Vec::new();
    let done = for_these(&configs, call, control, verb, act, &mut documents);
    if call.has("--json") {
        output::print_json_so_far(json!({ "results": documents }), done.as_ref().err())?;
    }
    done.map(|()| ExitCode::Success)
}

fn for_these(
    configs: &[Config],
    call: &Call,
    control: &Control,
    verb: &str,
    mut act: impl FnMut(&mut Release, &str, &mut ProgressLine) -> Result<(String, u64)>,
    documents: &mut Vec<Json>,
) -> Result<()> {
    let mut progress = ProgressLine::default();
    for config in configs {
        let mut release = Release::open(config, verb, control)?;
        let tables = call.texts("--table").map(|table| find_table(&mut release.master, table));
        let mut relations = tables.collect::<Result<Vec<String>>>()?;
        if relations.is_empty() {
            relations.push(WHOLE_PAIR.to_string());
        }
        for relation in &relations {
            let (outcome, changes) = act(&mut release, relation, &mut progress)?;
            progress.end();
            let conflicts = release.take_conflicts();
            if call.has("--json") {
                documents.push(json!({
                    "pair": config.name, "table": Some(relation).filter(|relation| !relation.is_empty()),
                    "outcome": outcome, "changes": changes, "warnings": conflicts,
                }));
                continue;
            }
            conflicts.iter().for_each(|conflict| output::complain(&format!("{}\n", shown(conflict))));
            let what = if relation.is_empty() { String::new() } else { format!(" {relation}") };
            output::print(&format!("{}\n", shown(&format!("{}{what}: {outcome}", config.name))))?;
        }
    }
    Ok(())
}

fn all(call: &Call) -> Result<Vec<Config>> {
    let loaded = call.pairs();
    match loaded.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(loaded.configs),
    }
}

fn reason(release: &mut Release, relation: &str) -> Result<Option<String>> {
    let pair = release.pair.clone();
    let rows = release.slave.query("look at what is on hold", replay_sql::HOLDS, &[&pair])?;
    Ok(rows.iter().find(|row| row.get::<_, &str>("relation") == relation).map(|row| row.get("why")))
}

/// The name of the table in the log.
pub fn find_table(master: &mut Session, name: &str) -> Result<String> {
    let found: Option<String> = master.query_one("look for the table", sql::FIND_TABLE, &[&name])?.get(0);
    found.ok_or_else(|| {
        let detail = format!("there is no table {}", quote_literal(name));
        Error::new(Kind::Usage, Some(Side::Master), "find the table", detail).with_hint(
            "name it as in SQL: with its schema if that is not public, and with double quotes if SQL needs them",
        )
    })
}
