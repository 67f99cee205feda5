//! Prints the state of pairs as a table for people and as JSON for programs.

use super::{Count, PairStatus};
use crate::base::shown::{listed, shown};
use crate::process::output::{Json, TextTable, json};
use crate::sequences::comparison::Comparison;
use std::collections::HashMap;

/// What matters most, for a terminal that has no room for all columns.
const NARROW: [&str; 7] = ["PAIR", "STATE", "BEHIND", "SECONDS", "PER SECOND", "CONFLICTS", "LOG"];

/// A line for each pair, and below it the problems. `rates` has the changes per second of each pair.
pub fn as_table(pairs: &[PairStatus], rates: &HashMap<String, f64>) -> String {
    let headings = [
        "PAIR",
        "STATE",
        ">BEHIND",
        ">SECONDS",
        ">PER SECOND",
        ">LAST REPLAYED",
        "AT",
        ">IN DOUBT",
        ">CONFLICTS",
        ">LOG",
    ];
    let mut table = TextTable::new(&headings);
    let number = |number: Option<u64>| number.map_or("-".to_string(), |number| number.to_string());
    for pair in pairs {
        let lag = pair.lag.as_ref();
        let text = |of: &dyn Fn(&super::Lag) -> String| lag.map_or("-".to_string(), of);
        table.row([
            pair.name.clone(),
            pair.state().to_string(),
            text(&|lag| lag.amount()),
            text(&|lag| format!("{:.1}", lag.seconds)),
            rates.get(&pair.name).map_or("-".to_string(), |rate| format!("{rate:.0}")),
            text(&|lag| match (lag.last, &lag.transaction) {
                (Some(last), Some(transaction)) => format!("{last} (transaction {transaction})"),
                (Some(last), None) => last.to_string(),
                (None, _) => "-".to_string(),
            }),
            text(&|lag| lag.replayed_at.clone().unwrap_or_else(|| "-".to_string())),
            number(pair.in_doubt.as_ref().map(|in_doubt| in_doubt.batches)),
            number(pair.records.conflicts),
            text(&|lag| format!("{} MiB", lag.log_bytes >> 20)),
        ]);
    }
    let mut text = table.text_or(&NARROW);
    for pair in pairs {
        for problem in &pair.problems {
            let line = format!("{}: {}", pair.name, problem.text);
            text += &format!("\n{}\n", shown(&line));
            text += &problem.hint.as_ref().map_or(String::new(), |hint| format!("  hint: {}\n", shown(hint)));
        }
        if let Some(roles) = pair.roles.as_ref().filter(|roles| roles.epoch > 0) {
            let since = roles.since.as_deref().unwrap_or_default();
            let line =
                format!("{}: in epoch {}, since {since}, the master is {}", pair.name, roles.epoch, pair.master_at);
            text += &format!("\n{}\n", shown(&line));
        }
        if let Some(line) = pair.sequences.as_ref().and_then(sequences) {
            text += &format!("\n{}\n", shown(&format!("{}: {line}", pair.name)));
        }
        if let Some((at, why)) = &pair.history {
            text += &format!("\n{}\n", shown(&format!("{}: at {at}: {why}", pair.name)));
        }
        if let Some((error, at)) = pair.error.as_ref().and_then(|error| Some((error, error.recovered.as_ref()?))) {
            let line = format!("{}: failed from {} to {at}: {}", pair.name, error.since, error.message);
            text += &format!("\n{}\n", shown(&line));
        }
    }
    text
}

/// Those that do not follow, or not yet.
fn sequences(compared: &Comparison) -> Option<String> {
    if compared.behind.is_empty() && compared.not_following.is_empty() {
        return None;
    }
    let mut line = format!("sequences: {} follow, {} are behind", compared.following, compared.behind.len());
    for (why, names) in &compared.not_following {
        line += &format!("; {}: {why} ({})", names.len(), listed(names));
    }
    Some(line)
}

fn sequences_as_json(compared: &Comparison) -> Json {
    let behind: Vec<&str> = compared.behind.iter().map(|(name, _)| name.as_str()).collect();
    let not = compared.not_following.iter();
    let not: Vec<Json> = not.map(|(why, names)| json!({ "why": why.to_string(), "names": names })).collect();
    json!({
        "following": compared.following, "behind": behind, "not_following": not, "slave_is_master": compared.is_fed_back,
    })
}

pub fn as_json(pair: &PairStatus, rate: Option<f64>) -> Json {
    let lag = pair.lag.as_ref().map(|lag| {
        json!({
            "changes": lag.changes, "estimated": lag.count != Count::Exact, "seconds": lag.seconds,
            "last_replayed": lag.last, "last_transaction": lag.transaction, "replayed_at": lag.replayed_at, "last_logged": lag.highest,
            "batch": lag.batch, "log_bytes": lag.log_bytes,
        })
    });
    let error = pair.error.as_ref().map(|error| {
        json!({
            "message": error.message, "hint": error.hint, "since": error.since, "last": error.last,
            "attempts": error.attempts, "change": error.change, "recovered": error.recovered,
        })
    });
    let problems: Vec<Json> = pair
        .problems
        .iter()
        .map(|p| json!({ "level": if p.is_failure { "failure" } else { "warning" }, "text": p.text, "hint": p.hint }))
        .collect();
    json!({
        "pair": pair.name,
        "field": pair.field,
        "master": pair.master_at,
        "reversed": pair.is_reversed(),
        "epoch": pair.roles.as_ref().map(|roles| roles.epoch),
        "roles_since": pair.roles.as_ref().and_then(|roles| roles.since.as_deref()),
        "state": pair.state(),
        "master_reached": pair.reached[0],
        "slave_reached": pair.reached[1],
        "daemon_connected": pair.daemon.is_some(),
        "daemon_waits": pair.daemon_waits,
        "lag": lag,
        "rate": rate,
        "error": error,
        "history": pair.history.as_ref().map(|(at, why)| json!({ "at": at, "why": why })),
        "open_transactions": pair.open.as_ref().map(|open| open.transactions),
        "open_seconds": pair.open.as_ref().map(|open| open.oldest.as_secs()),
        "in_doubt": pair.in_doubt.as_ref().map(|in_doubt| in_doubt.batches),
        "conflicts": pair.records.conflicts,
        "last_conflict": pair.records.last_conflict,
        "put_aside": pair.records.held,
        "paused": pair.records.is_paused,
        "paused_tables": pair.records.paused_tables,
        "copying": pair.is_copying,
        "copying_tables": pair.records.copying_tables,
        "unfinished_copy": pair.copy.as_ref().map(|copy| {
            json!({ "tables": copy.tables, "loaded": copy.loaded, "since": copy.since })
        }),
        "sequences": pair.sequences.as_ref().map(sequences_as_json),
        "problems": problems,
    })
}
