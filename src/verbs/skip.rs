//! `pyreplica skip` skips changes that cannot be replayed, or that the operator does not want to be replayed.
//!
//! It flags a pending change in the master's log as replayed. The same transaction records who skipped it and why, and
//! updates the slave's row in `replica_slave`. If the daemon is replaying that change at the same time, its batch finds
//! the row changed and rolls back. So no change that is recorded as skipped has been replayed. A held change is deleted
//! on the slave, and recorded there.

use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Kind, Result};
use crate::base::names::Side;
use crate::base::phrases::counted;
use crate::base::shown::{shown, shown_sql};
use crate::pair::release::Release;
use crate::process::failpoint;
use crate::process::output::{self, TextTable, json};
use crate::server::session::Row;
use crate::verbs::sql;
use crate::verbs::sql::SkipQueries;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words, usage};
use std::io::{self, IsTerminal};

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
pyreplica skip skips changes: they are not replayed

usage:
  pyreplica skip [OPTIONS] ID... [FILE.conf | DSN0 DSN1]

IDs and transactions are those that pyreplica pending shows, in the log or in
quarantine. The verb shows the changes and asks before it skips them. The
daemon may run. The verb records in replica_skipped who skipped which changes
and why: on the master for changes that were pending there, on the slave for
changes that were held there. From then on the two sides differ in what was
skipped.

options:
  --transaction TXID
                all changes of this transaction; may be given several times
  --reason TEXT the reason, which is recorded
  --yes         skip without asking
  --json        one document for programs; needs --yes

example:
  pyreplica skip 4711 --reason 'entered by hand' /etc/pyreplica/shop.conf
";

/// One change to skip.
struct Chosen {
    id: i64,
    txid: i64,
    sql: String,
    /// Its place in `replica_held`. None if it is pending in the log.
    place: Option<i64>,
}

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let transactions: Vec<i64> = call.texts("--transaction").filter_map(|text| text.parse().ok()).collect();
    if call.changes.is_empty() && transactions.is_empty() {
        return Err(usage("skip needs the id of a change, or --transaction").with_hint("pyreplica pending shows them"));
    }
    let has_said_yes = call.has("--yes");
    if !has_said_yes && (call.has("--json") || !io::stdin().is_terminal()) {
        return Err(usage("skip cannot ask for confirmation here").with_hint("--yes skips without asking"));
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
        output::print(&format!("{}: {} skipped\n", shown(&config.name), counted(chosen.len(), "change")))?;
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
    let held = release.slave.query("look for held changes", sql::FIND_HELD, &[&pair, &ids, &transactions])?;
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
    // The log may still have the held changes, but the slave's position is past them.
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
        Some(what) => Err(nothing_to_skip(&format!("there is no {what} that waits"))),
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
    match release.master.query("look at the changes", &queries.skippable, &[&field, &ids, &transactions]) {
        Err(error) if error.is_of_encoding() => {
            release.master.query("look at the changes", &queries.skippable_escaped, &[&field, &ids, &transactions])
        }
        rows => rows,
    }
}

fn is_done(row: &Row) -> bool {
    row.get("is_flagged") || row.get("is_replayed")
}

fn refuse_done(row: &Row) -> Result<()> {
    if !is_done(row) {
        return Ok(());
    }
    let how = if row.get("is_replayed") {
        "has been replayed, or was skipped in quarantine"
    } else {
        "is passed over already"
    };
    Err(nothing_to_skip(&format!("change {} {how}", row.get::<_, i64>("id"))))
}

fn nothing_to_skip(what: &str) -> Error {
    Error::new(Kind::Usage, Some(Side::Master), "skip", what).with_hint("pyreplica pending shows the changes that wait")
}

/// Skips changes in the master's log, and records that there.
fn skip_pending(
    release: &mut Release,
    queries: &SkipQueries,
    field: &str,
    ids: &[i64],
    reason: Option<&str>,
) -> Result<()> {
    release.master.message("begin a transaction", "BEGIN")?;
    let mut skip = || {
        release.master.execute("wait for the current batch", sql::STOP_BATCH, &[&field])?;
        refuse_if_slave_is_ahead(release, field)?;
        let none: &[i64] = &[];
        let rows = release.master.query("look at the changes", &queries.skippable_escaped, &[&field, &ids, &none])?;
        for row in rows {
            refuse_done(&row)?;
        }
        let pair = release.pair.clone();
        release.master.execute("record the skipped changes", &queries.note, &[&pair, &ids, &reason])?;
        release.master.execute("skip", &queries.skip, &[&ids])?;
        failpoint::reached("skip-done");
        Ok(())
    };
    let done = skip();
    release.master.end(done).map_err(|error| match error.kind() {
        Kind::Contention => {
            error.with_hint("a batch is in progress or in doubt: try again after the daemon has settled it")
        }
        _ => error,
    })?;
    failpoint::reached("skip-committed");
    release.notify()
}

/// Refuses to skip if the slave has committed a batch that is not recorded on the master. Without two-phase commit that
/// may be so until the daemon's next start.
fn refuse_if_slave_is_ahead(release: &mut Release, field: &str) -> Result<()> {
    let batch: i64 =
        release.master.query_one("read the last batch", crate::commit::sql::COMMITTED_BATCH, &[&field])?.get(0);
    let pair = release.pair.clone();
    if !release.slave.query_one("read the progress", sql::IS_AHEAD, &[&pair, &batch])?.get::<_, bool>(0) {
        return Ok(());
    }
    Err(Error::new(Kind::Busy, Some(Side::Slave), "skip", "the last batch is not recorded on the master yet")
        .with_hint("start the daemon, which records it; then try again"))
}

fn confirm(chosen: &[Chosen]) -> Result<bool> {
    let mut table = TextTable::new(&[">ID", ">TRANSACTION", "SQL"]);
    for change in chosen {
        table.row([&change.id.to_string(), &change.txid.to_string(), &shown_sql(&change.sql).into_owned()]);
    }
    let these = if chosen.len() == 1 { "this change".to_string() } else { format!("these {} changes", chosen.len()) };
    output::ask(&format!("{}Skip {these} for ever? [y/N] ", table.text()))
}
