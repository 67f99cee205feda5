//! `pyreplica switchover` makes the slave the master, and the master the slave.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::base::phrases::{counted, were};
use crate::base::shown::shown;
use crate::process::output::{self, json};
use crate::roles::switchover::{self, Options, Outcome};
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};
use std::time::Duration;

pub const VERB: Verb = Verb {
    name: "switchover",
    help: HELP,
    options: &[
        Opt { name: "--dry-run", value: Value::None },
        Opt { name: "--wait", value: Value::Number(1..=3_600) },
        Opt { name: "--verify", value: Value::None },
        Opt { name: "--take-slaves", value: Value::None },
        Opt { name: "--leave-behind", value: Value::None },
        Opt { name: "--on-fenced", value: Value::Text("a command") },
        Opt { name: "--on-switched", value: Value::Text("a command") },
        JSON,
    ],
    words: Words::Pairs,
    run,
};

const DEFAULT_WAIT: u64 = 10;

const HELP: &str = "\
pyreplica switchover makes the slave the master, and the master the slave

usage:
  pyreplica switchover [OPTIONS] FILE.conf
  pyreplica switchover [OPTIONS] DSN0 DSN1

It checks what both sides need, and refuses with the statements that help. Then
it locks the replicated tables of the master: writers wait, readers go on. When
the daemon has replayed what is left, both servers change their roles by
two-phase commit, or neither does. Writers on the old master get an error then
(SQLSTATE 25006) and have to connect to the new one. The daemon may run or not;
it follows, with the same config file. The same verb goes back.

The roles must own the replicated tables. To let clients find the new master by
themselves (libpq's target_session_attrs=read-write), they must own the
databases too.

options:
  --dry-run        do all of it, but roll back at the end, and say how long
                   writers waited
  --wait N         let writers wait at most N seconds (default: 10); then
                   everything is rolled back
  --verify         compare all tables first, and refuse if they differ
  --take-slaves    make the master's other slaves slaves of the new master
  --leave-behind   go on although tables or other objects stay on the old master
  --on-fenced CMD  run a command while writers wait; if it fails, everything is
                   rolled back
  --on-switched CMD
                   run a command afterwards. Both commands find PYREPLICA_PAIR,
                   _EPOCH, _OLD_MASTER and _NEW_MASTER in their environment
  --json           one document for programs

example:
  pyreplica switchover --dry-run /etc/pyreplica/shop.conf
  pyreplica switchover /etc/pyreplica/shop.conf
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let config = call.pair()?;
    let options = Options {
        dry_run: call.has("--dry-run"),
        wait: Duration::from_secs(call.number("--wait").unwrap_or(DEFAULT_WAIT)),
        verify: call.has("--verify"),
        take_slaves: call.has("--take-slaves"),
        leave_behind: call.has("--leave-behind"),
        on_fenced: call.text("--on-fenced").map(str::to_string),
        on_switched: call.text("--on-switched").map(str::to_string),
    };
    let mut report = |line: &str| {
        output::complain(&format!("{}\n", shown(line)));
        Ok(())
    };
    let outcome = switchover::run(&config, &call.words_for(&config, None), &options, control, &mut report)?;
    if call.has("--json") {
        output::print_json(&json!({
            "pair": config.name, "switched": !options.dry_run, "epoch": outcome.epoch,
            "old_master": outcome.old, "new_master": outcome.new, "tables": outcome.tables,
            "sequences": outcome.sequences, "rows_compared": outcome.rows_compared,
            "waited_seconds": outcome.waited.as_secs_f64(), "finished_interrupted": outcome.was_finished,
            "slaves_taken": outcome.taken, "slaves_left": outcome.left, "notes": outcome.notes,
        }))?;
    } else {
        output::print(&text(&outcome, options.dry_run))?;
    }
    Ok(if outcome.notes.is_empty() || outcome.was_finished { ExitCode::Success } else { ExitCode::Warned })
}

fn text(outcome: &Outcome, is_dry: bool) -> String {
    let mut lines = Vec::new();
    let waited = outcome.waited.as_secs_f64();
    if is_dry {
        lines.push(format!(
            "everything would work: {}. Writers waited {waited:.3} s; it was rolled back",
            counted(outcome.tables, "table")
        ));
    } else {
        lines.push(format!(
            "the master is {} now, in epoch {}; {} is its slave",
            outcome.new, outcome.epoch, outcome.old
        ));
        let (tables, sequences) = (counted(outcome.tables, "table"), counted(outcome.sequences, "sequence"));
        lines.push(format!("{tables}, {sequences}; writers waited {waited:.3} s"));
    }
    lines.extend(outcome.rows_compared.map(|rows| format!("{} compared before, and none differed", were(rows, "row"))));
    lines.extend(
        outcome.taken.iter().map(|field| {
            format!("slave {field}: taken along. Its DSN0 has to lead to the new master ({})", outcome.new)
        }),
    );
    lines.extend(outcome.left.iter().map(|field| {
        format!(
            "slave {field}: left behind. It replicates nothing until it is filled from the new master ({})",
            outcome.new
        )
    }));
    lines.extend(outcome.notes.iter().map(|note| format!("note: {note}")));
    lines.iter().map(|line| format!("{}\n", shown(line))).collect()
}
