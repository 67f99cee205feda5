//! `pyreplica copy` fills a slave, or some of its tables, while clients use the master.

use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::base::shown::{listed, shown};
use crate::copy::copier::{self, CopyEvent, CopyOptions, CopyProgress, CopyResult, LoadedTable, Making};
use crate::copy::precheck;
use crate::process::output::{self, ProgressLine, json};
use crate::process::terminal::width;
use crate::roles::failback::Failback;
use crate::roles::install::install;
use crate::server::connect_pair::{self, BothSides};
use crate::server::role::State;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};
use std::time::Duration;

pub const VERB: Verb = Verb {
    name: "copy",
    help: HELP,
    options: &[
        Opt { name: "--table", value: Value::Text("a table") },
        Opt { name: "--jobs", value: Value::Number(1..=64) },
        Opt { name: "--install", value: Value::None },
        Opt { name: "--schema", value: Value::None },
        Opt { name: "--no-owner", value: Value::None },
        Opt { name: "--defer-indexes", value: Value::None },
        Opt { name: "--large-objects", value: Value::None },
        Opt { name: "--truncate", value: Value::None },
        Opt { name: "--restart", value: Value::None },
        JSON,
    ],
    words: Words::Pairs,
    run,
};

const HELP: &str = "\
pyreplica copy fills a slave while clients use the master

usage:
  pyreplica copy [OPTION...] [FILE.conf | DSN0 DSN1]

It copies all tables whose changes are logged, as one snapshot of the master
shows them, and the sequences. Start the daemon afterwards: it replays what the
snapshot does not show, and nothing else. Clients need not stop writing. If the
copy is interrupted, run it again: it goes on with the tables that are missing.

options:
  --jobs N      copy N tables at a time (default: 1)
  --install     prepare the master first, as pyreplica install does
  --schema      create the tables on the slave first, by pg_dump and pg_restore
  --no-owner    with --schema: let everything belong to DSN1's role, although
                other roles own some of it
  --defer-indexes
                drop the slave's indexes and constraints before the rows, and
                make them again afterwards
  --large-objects
                copy large objects too; their later changes are not replicated
  --table NAME  only this table, again or for the first time (repeatable)
  --truncate    empty the slave's tables first; otherwise they must be empty
  --restart     discard a copy that was interrupted, and start over
  --json        one document for programs instead of text for people

example:
  pyreplica copy --install --schema 'host=a dbname=shop' 'host=b dbname=shop'
  pyreplica 'host=db1 dbname=shop' 'host=db2 dbname=shop' &
  pyreplica compare 'host=db1 dbname=shop' 'host=db2 dbname=shop'
";

/// The length of the progress bar, in characters.
const BAR: usize = 20;

/// A shorter one shows nothing.
const LEAST_BAR: usize = 5;

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let BothSides { config, roles, .. } = connect_pair::open(&call.pair()?, "copy", control);
    let options = CopyOptions {
        tables: call.texts("--table").map(str::to_string).collect(),
        jobs: call.number("--jobs").unwrap_or(1) as usize,
        truncate: call.has("--truncate"),
        restart: call.has("--restart"),
        schema: call.has("--schema"),
        large_objects: call.has("--large-objects"),
        defer_indexes: call.has("--defer-indexes"),
        no_owner: call.has("--no-owner"),
    };
    let mut progress = ProgressLine::default();
    let mut notes = Vec::new();
    precheck::refuse_exchanged(&config, &options, control)?;
    if call.has("--install") {
        precheck::before_install(&config, &options, control)?;
        install(&config.master, false, control, &mut |note| {
            output::complain(&format!("{}\n", shown(note)));
            notes.push(note.to_string());
            Ok(())
        })?;
    }
    let outcome = copier::run(&config, &options, control, &mut |news| match news {
        CopyEvent::Note(note) => {
            progress.end();
            output::complain(&format!("{}\n", shown(&note.to_string())));
            notes.push(note);
        }
        CopyEvent::Progress(board) => progress.show_within(|room| line(board, room)),
        CopyEvent::Making(making) => progress.show(|| making_line(making)),
        CopyEvent::Waiting(table, changes) => progress
            .show(|| format!("{table} is loaded; waiting until the daemon has replayed {changes} of its changes")),
        CopyEvent::LoadedTable(table) => {
            progress.end();
            output::complain(&format!("{}\n", loaded(table)));
        }
    })?;
    drop(progress);
    if options.tables.is_empty() && roles.is_some_and(|roles| roles.state == State::Former) {
        // It was the master before a failover, or is a new database in the place of that one.
        Failback::open(&config, control)?.end()?;
    }
    if call.has("--json") {
        print_json(&outcome, &notes)?
    } else {
        output::print(&summary(&outcome, options.tables.is_empty()))?
    }
    Ok(ExitCode::Success)
}

fn print_json(outcome: &CopyResult, notes: &[String]) -> Result<()> {
    let tables: Vec<_> = outcome
        .loaded
        .iter()
        .map(|table| {
            json!({ "table": table.relation, "rows": table.rows, "bytes": table.bytes,
                    "seconds": table.took.as_secs_f64(), "by": "this run" })
        })
        .chain(
            outcome
                .kept
                .iter()
                .map(|table| json!({ "table": table.relation, "rows": table.rows, "by": "a former run" })),
        )
        .collect();
    output::print_json(&json!({ "tables": tables, "sequences": outcome.sequences, "notes": notes }))
}

fn summary(outcome: &CopyResult, is_whole: bool) -> String {
    let rows: u64 = outcome.loaded.iter().map(|table| table.rows).sum();
    let bytes: u64 = outcome.loaded.iter().map(|table| table.bytes).sum();
    let kept = match outcome.kept.len() {
        0 => String::new(),
        kept => format!(" ({kept} more by a former run)"),
    };
    let next = match (is_whole, outcome.is_live) {
        (true, _) => {
            "the slave's position is the snapshot of the copy: start the daemon, and it replays what came later"
        }
        (false, true) => "the daemon goes on with them",
        (false, false) => "start the daemon, and it replays what came later",
    };
    format!(
        "copied {}{kept}, {}, {}, and {}\n{next}\n",
        several(outcome.loaded.len() as u64, "table"),
        several(rows, "row"),
        amount(bytes),
        several(outcome.sequences, "sequence")
    )
}

fn loaded(table: &LoadedTable) -> String {
    let rate = table.bytes as f64 / table.took.as_secs_f64().max(0.001);
    format!(
        "{}: {}, {} in {:.1} s, {}/s",
        shown(&table.relation),
        several(table.rows, "row"),
        amount(table.bytes),
        table.took.as_secs_f64(),
        amount(rate as u64)
    )
}

/// The bar is as long as there is room for it.
fn line(board: &CopyProgress, room: usize) -> String {
    let seconds = board.elapsed.as_secs_f64();
    let left = if board.share > 0.01 {
        format!("{} left", clock(Duration::from_secs_f64(seconds * (1.0 - board.share) / board.share)))
    } else {
        "time left unknown".to_string()
    };
    let text = format!(
        "{:.0}%  {} of {} tables  {}  {}  {}/s  {left}",
        board.share * 100.0,
        board.done,
        board.tables,
        several(board.rows, "row"),
        amount(board.bytes),
        amount((board.bytes as f64 / seconds.max(0.001)) as u64)
    );
    let bar = room.saturating_sub(width(&text) + "[] ".len()).min(BAR);
    if bar < LEAST_BAR {
        return text;
    }
    let full = ((board.share * bar as f64) as usize).min(bar);
    format!("[{}{}] {text}", "#".repeat(full), ".".repeat(bar - full))
}

fn making_line(making: &Making) -> String {
    format!(
        "{}: {} of {} made, {} so far; now {}",
        making.what,
        making.done,
        making.total,
        clock(making.elapsed),
        listed(&making.names)
    )
}

fn several(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn amount(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, "bytes");
    for larger in ["kB", "MB", "GB", "TB"] {
        if number < 1000.0 {
            break;
        }
        (number, unit) = (number / 1000.0, larger);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{number:.1} {unit}") }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds % 3600 / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_line_shows_what_is_done_and_the_time_left() {
        let board = CopyProgress {
            tables: 12,
            done: 3,
            rows: 1_234_567,
            bytes: 84_000_000,
            share: 0.25,
            elapsed: Duration::from_secs(30),
        };
        assert_eq!(
            line(&board, usize::MAX),
            "[#####...............] 25%  3 of 12 tables  1,234,567 rows  84.0 MB  2.8 MB/s  1:30 left"
        );
        assert_eq!(
            [80, 70].map(|room| line(&board, room)),
            [
                "[###.........] 25%  3 of 12 tables  1,234,567 rows  84.0 MB  2.8 MB/s  1:30 left",
                "25%  3 of 12 tables  1,234,567 rows  84.0 MB  2.8 MB/s  1:30 left"
            ]
        );
        let unknown = CopyProgress { share: 0.0, bytes: 999, elapsed: Duration::ZERO, ..board };
        assert!(line(&unknown, 200).ends_with("999 bytes  999.0 kB/s  time left unknown"), "{}", line(&unknown, 200));
    }

    #[test]
    fn times_and_numbers_are_for_people() {
        assert_eq!([0, 999, 1000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
        assert_eq!([59, 61, 3600].map(|s| clock(Duration::from_secs(s))), ["0:59", "1:01", "1:00:00"]);
    }
}
