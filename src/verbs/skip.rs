//! `pyreplica skip`: giving changes up that cannot, or shall not, be replayed.
//!
//! A change that is pending is flagged in the master's log as replayed. The same transaction notes who gave it up and why,
//! and touches the slave's row in `replica_slave`: a batch of the daemon that is under way with that very change finds the
//! row changed and is taken back, so what is noted as skipped has not been replayed. A change that is held is taken away
//! on the slave, and noted there.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::Side;
use crate::pair::release::Release;
use crate::process::failpoint;
use crate::process::output::{self, TextTable, json};
use crate::server::session::Row;
use crate::verbs::sql;
use crate::verbs::sql::SkipQueries;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words, usage};
use std::io::{self, BufRead, IsTerminal};

pub const VERB: Verb = Verb {
    name: "skip",
    help: HELP,
    options: &[
        Opt { name: "--transaction", value: Value::Number(1..=u64::MAX >> 1) },
        Opt { name: "--reason", value: Value::Text("a text") },
        Opt { name: "--yes", value: Value::None },
        JSON,
    ],
    words: Words::ChangesAndPairs,
    run,
};

const HELP: &str = "\
pyreplica skip gives changes up: they are not replayed, and who did that and why is noted

usage:
  pyreplica skip ID... [--transaction TXID]... [--reason TEXT] [--yes] [--json] [FILE.conf | DSN0 DSN1]

IDs and transactions are those that pyreplica pending shows, in the log or in quarantine. It shows what it is about to give
up and asks. The daemon may run. The note is a row of replica_skipped, on the master for what was pending there, on the
slave for what had been put aside there. The two sides differ from then on in what was given up.

options:
  --transaction TXID
                all changes of this transaction; may be given several times
  --reason TEXT why, for whoever wonders later
  --yes         don't ask
  --json        one document for programs; needs --yes

example:
  pyreplica skip 4711 --reason 'the row was entered by hand on the slave' /etc/pyreplica/shop.conf
";

/// One change that is about to be given up.
struct Chosen {
    id: i64,
    txid: i64,
    sql: String,
    /// Its place in `replica_held`, if it is there.
    place: Option<i64>,
}

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let transactions: Vec<i64> = call.texts("--transaction").filter_map(|text| text.parse().ok()).collect();
    if call.changes.is_empty() && transactions.is_empty() {
        return Err(usage("skip wants the id of a change, or --transaction").with_hint("pyreplica pending shows them"));
    }
    let has_said_yes = call.has("--yes");
    if !has_said_yes && (call.has("--json") || !io::stdin().is_terminal()) {
        return Err(usage("there is nobody to ask").with_hint("--yes skips without asking"));
    }
    let config = call.pair()?;
    let mut release = Release::open(&config, "skip", control)?;
    let queries = SkipQueries::new(&config.slave_field, &release.hstore_schema);
    let chosen = choose(&mut release, &queries, &config.slave_field, &call.changes, &transactions)?;
    if !has_said_yes && !confirm(&chosen)? {
        return Err(Error::new(Kind::Stopped, None, "skip", "nothing was skipped"));
    }
    let reason = call.text("--reason");
    let places: Vec<i64> = chosen.iter().filter_map(|change| change.place).collect();
    let ids: Vec<i64> = chosen.iter().filter(|change| change.place.is_none()).map(|change| change.id).collect();
    if !ids.is_empty() {
        skip_pending(&mut release, &queries, &config.slave_field, &ids, reason)?;
    }
    if !places.is_empty() {
        release.skip_held(&places, reason)?;
    }
    if call.has("--json") {
        let changes: Vec<_> = chosen
            .iter()
            .map(|change| {
                let noted = if change.place.is_some() { "slave" } else { "master" };
                json!({ "id": change.id, "transaction": change.txid, "sql": change.sql, "noted": noted })
            })
            .collect();
        output::print_json(&json!({ "pair": config.name, "skipped": changes, "reason": reason }))?;
    } else {
        output::print(&format!("{}: {} changes skipped\n", config.name, chosen.len()))?;
    }
    Ok(ExitCode::Success)
}

fn choose(
    release: &mut Release,
    queries: &SkipQueries,
    field: &str,
    ids: &[i64],
    transactions: &[i64],
) -> Result<Vec<Chosen>> {
    let numbers: Vec<String> = transactions.iter().map(i64::to_string).collect();
    let pair = release.pair.clone();
    let held = release.slave.query("look at what is held", sql::FIND_HELD, &[&pair, &ids, &transactions])?;
    let places: Vec<i64> = held.iter().map(|row| row.get("place")).collect();
    let shown = release.show(&places)?;
    let held = held.iter().zip(shown).map(|(row, sql)| Chosen {
        id: row.get("id"),
        txid: row.get("txid"),
        sql,
        place: Some(row.get("place")),
    });
    let mut chosen: Vec<Chosen> = held.collect();
    let rows = pending(release, queries, field, ids, transactions)?;
    // What is held has been passed by in the log.
    let in_log = rows.iter().filter(|row| !chosen.iter().any(|change| change.id == row.get::<_, i64>("id")));
    let in_log: Vec<Chosen> = in_log
        .filter(|row| ids.contains(&row.get("id")) || !is_done(row))
        .map(|row| {
            refuse_done(row).map(|()| Chosen {
                id: row.get("id"),
                txid: row.get("txid"),
                sql: row.get("sql"),
                place: None,
            })
        })
        .collect::<Result<_>>()?;
    chosen.extend(in_log);
    let missing = ids.iter().find(|id| !chosen.iter().any(|change| change.id == **id)).map(|id| format!("change {id}"));
    let is_empty = |txid: &&String| !chosen.iter().any(|change| change.txid.to_string() == **txid);
    let missing = missing.or_else(|| numbers.iter().find(is_empty).map(|txid| format!("change of transaction {txid}")));
    match missing {
        Some(what) => Err(nothing_there(&format!("there is no {what} that waits"))),
        None => Ok(chosen),
    }
}

fn pending(
    release: &mut Release,
    queries: &SkipQueries,
    field: &str,
    ids: &[i64],
    transactions: &[i64],
) -> Result<Vec<Row>> {
    release.master.query("look at the changes", &queries.skippable, &[&field, &ids, &transactions])
}

fn is_done(row: &Row) -> bool {
    row.get("is_flagged") || row.get("is_replayed")
}

fn refuse_done(row: &Row) -> Result<()> {
    if !is_done(row) {
        return Ok(());
    }
    let how = if row.get("is_replayed") { "has been replayed" } else { "is passed over already" };
    Err(nothing_there(&format!("change {} {how}", row.get::<_, i64>("id"))))
}

fn nothing_there(what: &str) -> Error {
    Error::new(Kind::Usage, Some(Side::Master), "skip", what).with_hint("pyreplica pending shows what there is to skip")
}

/// Passes over changes in the master's log, and says so there.
fn skip_pending(
    release: &mut Release,
    queries: &SkipQueries,
    field: &str,
    ids: &[i64],
    reason: Option<&str>,
) -> Result<()> {
    release.master.message("begin a transaction", "BEGIN")?;
    let mut pass_over = || {
        release.master.execute("wait for the batch in hand", sql::STOP_BATCH, &[&field])?;
        refuse_in_doubt(release, field)?;
        for row in pending(release, queries, field, ids, &[])? {
            refuse_done(&row)?;
        }
        let pair = release.pair.clone();
        release.master.execute("note what is skipped", &queries.note, &[&pair, &ids, &reason])?;
        release.master.execute("skip", &queries.skip, &[&ids])?;
        failpoint::reached("skip-done");
        Ok(())
    };
    let done = pass_over();
    release.master.end(done).map_err(|error| match error.kind() {
        Kind::Contention => error.with_hint("a batch is under way or in doubt: the daemon settles it; then try again"),
        _ => error,
    })?;
    failpoint::reached("skip-committed");
    release.notify()
}

/// Without two-phase commit the slave may be ahead, until the daemon's next start.
fn refuse_in_doubt(release: &mut Release, field: &str) -> Result<()> {
    let batch: i64 =
        release.master.query_one("read the last batch", crate::commit::sql::COMMITTED_BATCH, &[&field])?.get(0);
    let pair = release.pair.clone();
    if !release.slave.query_one("read the progress", sql::IS_AHEAD, &[&pair, &batch])?.get::<_, bool>(0) {
        return Ok(());
    }
    Err(Error::new(Kind::Busy, Some(Side::Slave), "skip", "the last batch is not known on the master yet")
        .with_hint("start the daemon, which settles that; then try again"))
}

fn confirm(chosen: &[Chosen]) -> Result<bool> {
    let mut table = TextTable::new(&[">ID", ">TRANSACTION", "SQL"]);
    for change in chosen {
        table.row([&change.id.to_string(), &change.txid.to_string(), &change.sql]);
    }
    output::print(&format!("{}Skip these {} changes for ever? [y/N] ", table.text(), chosen.len()))?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Error::new(Kind::Stopped, None, "read the answer", e))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
