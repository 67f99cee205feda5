//! `pyreplica pending` shows the changes that wait to be replayed, as SQL, and which of them fails.
//!
//! The surest way to find out whether a change fails is to try it. So the verb replays the first waiting transaction on
//! the slave and rolls it back. It does not try a long transaction, or one with a free statement, which may do
//! anything.

use crate::backlog::change::Change;
use crate::backlog::reader::LogReader;
use crate::base::control::Control;
use crate::base::error::{Error, ExitCode, Result};
use crate::base::names::LogId;
use crate::base::phrases::counted;
use crate::base::shown::{shown, shown_sql};
use crate::config::settings::Config;
use crate::pair::release::Release;
use crate::process::output::{self, Json, TextTable, json};
use crate::server::session::{Row, ToSql};
use crate::verbs::sql;
use crate::verbs::sql::SkipQueries;
use crate::verbs::verb::{Call, JSON, Opt, Value, Verb, Words};

pub const VERB: Verb = Verb {
    name: "pending",
    help: HELP,
    options: &[Opt { name: "--limit", value: Value::Number(1..=100_000) }, JSON],
    words: Words::Pairs,
    run,
};

const HELP: &str = "\
pyreplica pending shows the changes that wait, as SQL, in the order of replay

usage:
  pyreplica pending [--limit N] [--json] [FILE.conf... | DIR | DSN0 DSN1]

It replays the first transaction on the slave and rolls it back. If a change of
it fails, it shows the slave's error. It also shows what is held on the slave:
changes of paused tables and transactions in quarantine.

options:
  --limit N     show at most N changes (default: 20)
  --json        one document for programs

example:
  pyreplica pending --limit 5 /etc/pyreplica/shop.conf
";

const LIMIT: u64 = 20;

/// How many rows of the log are read.
const MAX_READ: i64 = 40_000;

/// A transaction with more changes is not tried.
const MAX_TRIED: i64 = 1_000;

fn run(call: &Call, control: &Control) -> Result<ExitCode> {
    let loaded = call.pairs();
    let limit = call.number("--limit").unwrap_or(LIMIT) as i64;
    let mut documents: Vec<Json> = Vec::new();
    let done = loaded.configs.iter().try_for_each(|config| {
        let found = Found::of(config, limit, control)?;
        if call.has("--json") {
            documents.push(found.json(&config.name));
            return Ok(());
        }
        output::print(&found.text(&config.name))
    });
    let unusable: Vec<String> = loaded.errors.iter().map(Error::to_string).collect();
    let done = done.and(loaded.errors.into_iter().next().map_or(Ok(ExitCode::Success), Err));
    if call.has("--json") {
        output::print_json_so_far(json!({ "pairs": documents, "unusable": unusable }), done.as_ref().err())?;
    }
    done
}

struct Shown {
    id: i64,
    txid: i64,
    state: &'static str,
    sql: String,
    error: Option<String>,
}

struct Found {
    changes: Vec<Shown>,
    /// How many changes wait in the master's log, and whether there may be more.
    waiting: i64,
    has_more: bool,
    quarantined: i64,
    /// The slave's error for the first waiting transaction.
    error: Option<String>,
    holds: Vec<Hold>,
}

/// What is on hold.
struct Hold {
    /// Empty for the whole pair.
    table: String,
    why: String,
    changes: i64,
    /// None if changes are still held, but the table is not on hold any more.
    since: Option<String>,
    who: Option<String>,
}

impl Found {
    fn of(config: &Config, limit: i64, control: &Control) -> Result<Found> {
        let mut release = Release::open(config, "pending", control)?;
        let queries = SkipQueries::new(&config.slave_field, &release.hstore_schema);
        let tables = config.tables.pattern();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&config.slave_field, &config.skip_user, &release.slave_identity, &MAX_READ, &limit, &tables];
        let rows = match release.master.query("look at what waits", &queries.waiting, &parameters) {
            Err(error) if error.is_of_encoding() => {
                release.master.query("look at what waits", &queries.waiting_escaped, &parameters)?
            }
            rows => rows?,
        };
        let error = try_first(config, &mut release, &rows)?;
        let failing = error.as_ref().and_then(Error::change).map(|(id, _)| id.0);
        let changes = rows.iter().map(|row| {
            let id: i64 = row.get("id");
            let error = error.as_ref().filter(|_| failing == Some(id)).map(|error| error.detail().to_string());
            let state = if error.is_some() { "fails" } else { "waits" };
            Shown { id, txid: row.get("txid"), state, sql: row.get("sql"), error }
        });
        let mut changes: Vec<Shown> = changes.collect();
        let (waiting, reached) =
            rows.first().map_or((0, 0), |row| (row.get::<_, i64>("waiting"), row.get::<_, i64>("reached")));
        let quarantined = quarantine(&mut release, limit, &mut changes)?;
        let pair = release.pair.clone();
        let holds = release.slave.query("look at what is held", sql::HELD_COUNTS, &[&pair])?;
        let hold = |row: &Row| Hold {
            table: row.get("relation"),
            why: row.get("why"),
            changes: row.get("changes"),
            since: row.get("since"),
            who: row.get("who"),
        };
        Ok(Found {
            changes,
            waiting,
            has_more: reached >= MAX_READ,
            quarantined,
            error: error.map(|error| error.to_string()),
            holds: holds.iter().map(hold).collect(),
        })
    }

    fn text(&self, pair: &str) -> String {
        let (pair, quarantined) = (shown(pair), self.quarantined);
        let waiting = match (self.waiting, self.has_more) {
            (1, false) => "1 change waits".to_string(),
            (waiting, false) => format!("{waiting} changes wait"),
            (waiting, true) => format!("{waiting} or more changes wait"),
        };
        let mut text = format!("{pair}: {waiting}, {quarantined} in quarantine\n");
        for Hold { table, why, changes, since, who } in &self.holds {
            let what = if table.is_empty() { "the pair" } else { table };
            let since = since.as_deref().map_or(String::new(), |since| format!(" since {since}"));
            let who = who.as_deref().map_or(String::new(), |who| format!(", by {who}"));
            text +=
                &format!("{}\n", shown(&format!("{what} is {why}{since}{who}: {} held", counted(changes, "change"))));
        }
        if !self.changes.is_empty() {
            let mut table = TextTable::new(&[">ID", ">TRANSACTION", "STATE", "SQL"]);
            for change in &self.changes {
                table.row([&change.id.to_string(), &change.txid.to_string(), change.state, &shown_sql(&change.sql)]);
            }
            text += &table.text();
        }
        for change in self.changes.iter().filter(|change| change.state == "fails") {
            let error = change.error.as_deref().unwrap_or_default();
            text += &format!("change {} fails: {}\n", change.id, shown(error));
        }
        let mut told: Vec<&str> = Vec::new();
        for change in self.changes.iter().filter(|change| change.state == "quarantined") {
            let error = change.error.as_deref().unwrap_or_default();
            if !told.contains(&error) {
                text += &format!("transaction {} is in quarantine: {}\n", change.txid, shown(error));
                told.push(error);
            }
        }
        match &self.error {
            Some(error) if !self.changes.iter().any(|change| change.state == "fails") => {
                text + &format!("the first transaction fails: {}\n", shown(error))
            }
            _ => text,
        }
    }

    fn json(&self, pair: &str) -> Json {
        let changes: Vec<Json> = self.changes.iter().map(Shown::json).collect();
        let holds = self.holds.iter().map(|Hold { table, why, changes, since, who }| {
            let table = Some(table).filter(|table| !table.is_empty());
            json!({ "table": table, "why": why, "changes": changes, "since": since, "who": who })
        });
        json!({
            "pair": pair, "waiting": self.waiting, "more": self.has_more, "quarantined": self.quarantined,
            "error": self.error, "held": holds.collect::<Vec<Json>>(), "changes": changes,
        })
    }
}

impl Shown {
    fn json(&self) -> Json {
        json!({
            "id": self.id, "transaction": self.txid, "state": self.state, "sql": self.sql, "error": self.error,
        })
    }
}

/// Tries the first transaction on the slave, and returns the slave's error.
fn try_first(config: &Config, release: &mut Release, rows: &[Row]) -> Result<Option<Error>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let txid: i64 = first.get("txid");
    let own: Vec<&Row> = rows.iter().filter(|row| row.get::<_, i64>("txid") == txid).collect();
    if first.get::<_, i64>("size") > MAX_TRIED || own.iter().any(|row| row.get::<_, &str>("event") == "S") {
        return Ok(None);
    }
    let changes = match fetch(config, release, txid) {
        Err(error) if error.change().is_some() => return Ok(Some(error)),
        changes => changes?,
    };
    if changes.iter().any(|change| change.relation.is_empty()) {
        return Ok(None);
    }
    match release.dry_run(changes) {
        // For example, the daemon is replaying this transaction and holds its locks.
        Err(error) if error.is_transient() => Ok(None),
        Err(error) => Ok(Some(error)),
        Ok(()) => Ok(None),
    }
}

fn fetch(config: &Config, release: &mut Release, txid: i64) -> Result<Vec<Change>> {
    let rows = release.master.query("read the transaction", sql::OF_TRANSACTION, &[&txid.to_string()])?;
    let ids = rows.iter().map(|row| LogId(row.get(0)));
    // With empty encodings the reader uses the format that works for all of them. The slave's identity is not needed to
    // fetch known ids.
    LogReader::new(config, &release.hstore_schema, "", "").fetch(&mut release.master, ids)
}

/// Adds the first changes in quarantine, and returns how many there are in all.
fn quarantine(release: &mut Release, limit: i64, changes: &mut Vec<Shown>) -> Result<i64> {
    let pair = release.pair.clone();
    let rows = release.slave.query("look at the quarantine", sql::FIRST_QUARANTINED, &[&pair, &limit])?;
    let places: Vec<i64> = rows.iter().map(|row| row.get("place")).collect();
    let statements = release.show(&places)?;
    for (row, sql) in rows.iter().zip(statements) {
        let (id, txid, error) = (row.get("id"), row.get("txid"), row.get("error"));
        changes.push(Shown { id, txid, state: "quarantined", sql, error });
    }
    Ok(rows.first().map_or(0, |row| row.get("all")))
}
