//! `pyreplica failover` makes the slave the master when the master is gone. `pyreplica failback` makes the former master the slave
//! when it is back.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::Side;
use crate::base::phrases::{counted, were};
use crate::base::shown::{shown, shown_sql};
use crate::process::output::{self, Json, json};
use crate::roles::failback::Failback;
use crate::roles::failover::{self, Outcome};
use crate::server::role::place;
use crate::verbs::compare::repair_pair;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words, usage};
use std::fs::OpenOptions;
use std::io::BufWriter;

pub const FAILOVER: Verb = Verb {
    name: "failover",
    help: FAILOVER_HELP,
    options: &[Opt { name: "--force", value: Value::None }, JSON],
    words: Words::Pairs,
    run: run_failover,
};

pub const FAILBACK: Verb = Verb {
    name: "failback",
    help: FAILBACK_HELP,
    options: &[
        Opt { name: "--replay-lost", value: Value::None },
        Opt { name: "--keep-lost", value: Value::Path("a file") },
        Opt { name: "--discard-lost", value: Value::None },
        Opt { name: "--leave-behind", value: Value::None },
        JSON,
    ],
    words: Words::Pairs,
    run: run_failback,
};

const FAILOVER_HELP: &str = "\
pyreplica failover makes the slave the master when the master is gone

usage:
  pyreplica failover [--force] [--json] FILE.conf
  pyreplica failover [--force] [--json] DSN0 DSN1

It refuses while the master answers: pyreplica switchover loses nothing then.
It does not find out by itself whether a master is dead. It commits what the
slave has prepared, takes its fence down, creates the triggers that log, moves
the sequences on beyond the values in their columns, and says what it has. What
the master had committed after that is not lost, if its disk is not: when it is
back, the daemon and every verb fence it at once, and pyreplica failback shows
what it has.

options:
  --force       go on although the master answers; if it can be fenced, it is.
                And although a copy to the slave is unfinished, and the like
  --json        one document for programs

example:
  pyreplica failover /etc/pyreplica/shop.conf
";

const FAILBACK_HELP: &str = "\
pyreplica failback makes the former master the slave, after a failover

usage:
  pyreplica failback [OPTIONS] FILE.conf
  pyreplica failback [OPTIONS] DSN0 DSN1

It fences the former master, settles what it had prepared, and shows what it
had committed and never sent. If there is anything, it changes nothing else
without one of the first three options. Then it makes the former master equal,
as pyreplica repair does, while clients work, and it replicates as a slave.
pyreplica switchover gives it its former role.

options:
  --replay-lost replay these changes on the master of today; conflicts are
                recorded and decided by CONFLICT
  --keep-lost FILE
                write them to a file as SQL
  --discard-lost
                give them up
  --leave-behind
                go on although the former master has rows that the master never
                got: held changes, an unfinished copy, filters
  --json        one document for programs

example:
  pyreplica failback --keep-lost lost.sql /etc/pyreplica/shop.conf

exit codes:
  0 done                               9 there are lost changes, and no option
                                         says what to do; or not all is equal
";

/// So many lost changes are shown.
const SHOWN: usize = 20;

fn report(line: &str) -> Result<()> {
    output::complain(&format!("{}\n", shown(line)));
    Ok(())
}

fn run_failover(call: &Call, control: &Control) -> Result<ExitCode> {
    let config = call.pair()?;
    let outcome = failover::run(&config, call.has("--force"), control, &mut report)?;
    if call.has("--json") {
        output::print_json(&json!({
            "pair": config.name, "epoch": outcome.epoch, "old_master": outcome.old, "new_master": outcome.new,
            "last_batch": outcome.batch, "replayed_at": outcome.replayed_at, "last_change": outcome.last_change,
            "was_in_doubt": outcome.was_in_doubt, "sequences_moved": outcome.sequences, "old_master_fenced": outcome.is_fenced,
            "notes": outcome.notes,
        }))?;
    } else {
        output::print(&text(&outcome))?;
    }
    Ok(if outcome.notes.is_empty() { ExitCode::Success } else { ExitCode::Warned })
}

fn text(outcome: &Outcome) -> String {
    let doubt = if outcome.was_in_doubt { " (it was in doubt, and is committed now)" } else { "" };
    let mut lines = vec![
        format!("the master is {} now, in epoch {}", outcome.new, outcome.epoch),
        format!(
            "it has everything up to batch {}, replayed at {}{doubt}, and no change after {} of the old master's log",
            outcome.batch, outcome.replayed_at, outcome.last_change
        ),
        format!("{} moved on", were(outcome.sequences, "sequence")),
        format!(
            "what {} had committed after that is not here. When it is back: pyreplica failback{}",
            outcome.old,
            if outcome.is_fenced { ". It is fenced" } else { "" }
        ),
    ];
    lines.extend(outcome.notes.iter().map(|note| format!("note: {note}")));
    lines.iter().map(|line| format!("{}\n", shown(line))).collect()
}

fn run_failback(call: &Call, control: &Control) -> Result<ExitCode> {
    let config = call.pair()?;
    let ways = ["--replay-lost", "--keep-lost", "--discard-lost"];
    if ways.iter().filter(|way| call.has(way)).count() > 1 {
        return Err(usage("of --replay-lost, --keep-lost and --discard-lost only one can be given"));
    }
    let mut failback = Failback::open(&config, control)?;
    let mut first: Vec<Json> = Vec::new();
    let lost = if failback.knows_lost() {
        Some(failback.each_lost(|lost| {
            if first.len() < SHOWN {
                first.push(json!({ "id": lost.id, "transaction": lost.txid, "at": lost.ts, "sql": lost.sql }));
            }
            Ok(())
        })?)
    } else {
        None
    };
    // Otherwise --discard-lost says that all of it is given up.
    let withheld = if lost.is_some() { failback.withheld()? } else { Vec::new() };
    let is_decided = lost == Some(0) || ways.iter().any(|way| call.has(way));
    if !is_decided {
        show(call, &config.name, lost, &first)?;
        withheld.iter().try_for_each(|text| report(&format!("not among them: {text}")))?;
        return Ok(ExitCode::Faulty);
    }
    refuse_withheld(call, withheld)?;
    let mut replayed = 0;
    if lost != Some(0) && !call.has("--discard-lost") {
        if lost.is_none() {
            let detail = "the two databases do not mean the same last batch, so it is not known which changes are lost";
            return Err(Error::new(Kind::Apart, Some(Side::Slave), "find the lost changes", detail).with_hint(
                "one of them was restored, or the former master's log does not tell any more. pyreplica compare shows how they differ; \
                 --discard-lost makes the former master equal to the master of today",
            ));
        }
        if let Some(path) = call.path("--keep-lost") {
            keep(&mut failback, &path)?;
        } else {
            refuse_other_slaves(&failback.other_slaves()?)?;
            replayed = failback.replay_lost(control)?;
            report(&format!("{} replayed on the master", were(replayed, "change")))?;
            // Something may be in quarantine now.
            refuse_withheld(call, failback.withheld()?)?;
        }
    }
    failback.give_up()?;
    report("making the former master equal")?;
    let is_equal = repair_pair(&failback.config, control, call.has("--json"))?;
    if is_equal {
        failback.end()?;
    }
    let place = place(&failback.config.slave);
    if call.has("--json") {
        output::print_json(&json!({
            "pair": config.name, "epoch": failback.epoch(), "lost": lost, "replayed": replayed, "first_lost": first,
            "is_slave": is_equal,
        }))?;
    } else if is_equal {
        output::print(
            &shown(&format!("{place} is the slave now, in epoch {}\n", failback.epoch())).replace("\\n", "\n"),
        )?;
    } else {
        output::print(
            "not everything could be made equal, so the former master is no slave yet: run failback again\n",
        )?;
    }
    Ok(if is_equal { ExitCode::Success } else { ExitCode::Faulty })
}

/// The former master is made equal, so it loses what the other side has never got.
fn refuse_withheld(call: &Call, withheld: Vec<String>) -> Result<()> {
    if withheld.is_empty() || call.has("--leave-behind") {
        return Ok(());
    }
    let detail = format!("the former master has rows that the master of today never got: {}", withheld.join("; "));
    Err(Error::new(Kind::Apart, Some(Side::Slave), "make the former master equal", detail).with_hint(
        "they would be deleted there. pyreplica compare shows them. Write on the master of today what is to stay, and then go on: \
         --leave-behind",
    ))
}

fn refuse_other_slaves(others: &[String]) -> Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    let detail =
        format!("the master of today has other slaves, which would not get these changes: {}", others.join(", "));
    Err(Error::new(Kind::Setup, Some(Side::Master), "replay the lost changes", detail).with_hint(
        "nothing was replayed. Use --keep-lost FILE, and run that file there with psql before or afterwards",
    ))
}

fn keep(failback: &mut Failback, path: &std::path::Path) -> Result<()> {
    let wrong = |error: std::io::Error| {
        Error::new(Kind::Setup, None, format!("write {}", path.display()), error)
            .with_hint("nothing was replayed or given up. Name a new file")
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(wrong)?;
    let mut writer = BufWriter::new(file);
    let count = failback.write_lost(&mut writer)?;
    writer.into_inner().map_err(|error| wrong(error.into_error()))?.sync_all().map_err(wrong)?;
    report(&format!("{} written to {}", were(count, "change"), path.display()))
}

/// Shows what is lost, and the ways to decide about it.
fn show(call: &Call, pair: &str, lost: Option<u64>, first: &[Json]) -> Result<()> {
    if call.has("--json") {
        return output::print_json(&json!({ "pair": pair, "lost": lost, "first_lost": first, "is_slave": false }));
    }
    let Some(lost) = lost else {
        return output::print(
            "the two databases do not mean the same last batch, so it is not known which changes the former master has that the \
             master lacks.\npyreplica compare shows how they differ; --discard-lost makes the former master equal\n",
        );
    };
    let mut text =
        format!("the former master had committed {} that the master of today lacks:\n", counted(lost, "change"));
    for change in first {
        let sql = change["sql"].as_str().unwrap_or_default();
        text += &format!(
            "  {} (transaction {}, {}): {}\n",
            change["id"],
            change["transaction"],
            change["at"].as_str().unwrap_or_default(),
            shown_sql(sql)
        );
    }
    if lost as usize > first.len() {
        text += &format!("  and {} more\n", lost as usize - first.len());
    }
    text += "nothing else was changed. Decide: --replay-lost, --keep-lost FILE or --discard-lost\n";
    output::print(&text)
}
