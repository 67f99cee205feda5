//! `pyreplica retry` retries the transactions in quarantine, in the order of replay. Each is replayed whole or not at
//! all.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::{Side, Txid};
use crate::base::shown::shown;
use crate::pair::release::{Release, Retried};
use crate::process::output::{self, Json, TextTable, json};
use crate::server::session::Row;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};

pub const VERB: Verb = Verb {
    name: "retry",
    help: HELP,
    options: &[Opt { name: "--transaction", value: Value::Number(1..=u64::MAX >> 1) }, JSON],
    words: Words::ChangesAndPairs,
    run,
};

const HELP: &str = "\
pyreplica retry replays transactions in quarantine, in the order of replay

usage:
  pyreplica retry [OPTIONS] [ID...] [FILE.conf... | DIR | DSN0 DSN1]

Without ID and --transaction it retries all of them. It replays a transaction
whole or not at all. One that depends on another transaction in quarantine
waits for that one. One that fails again stays in quarantine with its new
error. The exit code is 6 if any stays there. A daemon that waits after a
failure tries again at once.

options:
  --transaction TXID
                this transaction only; may be given several times
  --json        one document for programs

example:
  pyreplica retry /etc/pyreplica/shop.conf
";

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let loaded = call.pairs();
    let names_some = !call.changes.is_empty() || call.has("--transaction");
    let configs = if names_some { vec![call.pair()?] } else { loaded.configs };
    let mut documents: Vec<Json> = Vec::new();
    let mut table = TextTable::new(&["PAIR", ">TRANSACTION", ">CHANGES", "OUTCOME"]);
    let mut worst = ExitCode::Success;
    let done = configs.iter().try_for_each(|config| {
        let mut release = Release::open(config, "retry", control)?;
        // If the operator has corrected the slave by hand, the daemon tries again at once too.
        release.notify()?;
        for row in wanted(call, release.quarantined()?)? {
            let txid = Txid(row.get("txid"));
            let (outcome, error) = match release.retry(txid)? {
                Retried::Replayed => ("replayed", None),
                Retried::Gone => ("replayed or skipped by somebody else meanwhile", None),
                Retried::Waits(why) => ("waits", Some(why)),
                Retried::Failed(error) => ("fails", Some(text_of(&error))),
            };
            worst = if error.is_some() { ExitCode::Change } else { worst };
            let warnings = release.take_conflicts();
            if !call.has("--json") {
                warnings.iter().for_each(|warning| output::complain(&format!("{}\n", shown(warning))));
            }
            let changes: i64 = row.get("changes");
            let result = error.as_ref().map_or(outcome.to_string(), |error| format!("{outcome}: {error}"));
            table.row([&config.name, &txid.to_string(), &changes.to_string(), &result]);
            documents.push(json!({
                "pair": config.name, "transaction": txid.0, "changes": changes, "outcome": outcome, "error": error,
                "warnings": warnings,
            }));
        }
        Ok(())
    });
    let unusable: Vec<String> = loaded.errors.iter().map(Error::to_string).collect();
    let done = done.and(loaded.errors.into_iter().next().map_or(Ok(worst), Err));
    if call.has("--json") {
        let document = json!({ "transactions": documents, "unusable": unusable });
        output::print_json_so_far(document, done.as_ref().err())?;
    } else if !table.is_empty() {
        output::print(&table.text())?;
    } else if done.is_ok() {
        output::print("nothing is in quarantine\n")?;
    }
    done
}

fn text_of(error: &Error) -> String {
    match error.change() {
        Some((id, _)) => format!("change {id}: {}", error.detail()),
        None => error.to_string(),
    }
}

/// The transactions that the operator has named, or all.
fn wanted(call: &Call, rows: Vec<Row>) -> Result<Vec<Row>> {
    let named: Vec<i64> = call.texts("--transaction").filter_map(|text| text.parse().ok()).collect();
    if named.is_empty() && call.changes.is_empty() {
        return Ok(rows);
    }
    let holds = |row: &Row, id: &i64| row.get::<_, Vec<i64>>("ids").contains(id);
    let is_named = |row: &Row| named.contains(&row.get("txid")) || call.changes.iter().any(|id| holds(row, id));
    let missing =
        call.changes.iter().find(|id| !rows.iter().any(|row| holds(row, id))).map(|id| format!("change {id}"));
    let is_unknown = |txid: &&i64| !rows.iter().any(|row| row.get::<_, i64>("txid") == **txid);
    match missing.or_else(|| named.iter().find(is_unknown).map(|txid| format!("transaction {txid}"))) {
        Some(what) => Err(Error::new(Kind::Usage, Some(Side::Slave), "retry", format!("{what} is not in quarantine"))
            .with_hint("pyreplica pending shows what is")),
        None => Ok(rows.into_iter().filter(is_named).collect()),
    }
}
