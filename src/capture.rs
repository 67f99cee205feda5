//! Reading the log: what is pending, in the order of replay, in bounded memory.
//!
//! A drain replays what one snapshot shows and the slave's position (`position.rs`) does not cover. The order is that of
//! `order.rs`. To put a transaction in its place its last row must be known, and the log has no index to ask. So a drain
//! reads ids, transactions and sizes (40 bytes a row here), and only up to `READ` of them:
//!
//! * All of it fits: every transaction is complete in hand. This is the usual case and costs one query, whose own snapshot
//!   is the drain's.
//! * It does not fit: one pass over the log finds the transactions that spread over `DISTANCE` ids or more. There are few,
//!   and they are kept apart as (first, last). Every other transaction is complete once the log has been read `DISTANCE`
//!   ids further. So the log is read window by window; those transactions go out whose last row lies `DISTANCE` before a
//!   window's end, and the rows of the others wait for the next one. The drain's snapshot is asked for in every window: a
//!   transaction that commits later is not in the list of those that spread.
//!
//! A drain that was interrupted is taken up again with the snapshot that it had: its transactions with a last row up to
//! the position's `last` have been replayed.
//!
//! The payload is fetched in chunks of bounded size, when its turn comes.

use crate::change::{Change, Event};
use crate::checks::Findings;
use crate::config::Config;
use crate::db::{self, Session};
use crate::error::{Error, Kind, Result};
use crate::ledger::Ledger;
use crate::names::{LogId, Side, Txid};
use crate::order::{Entry, Unit, split, units};
use crate::row::{Row, Vocabulary};
use crate::snapshot::Snapshot;
use crate::sql::{self, LogQueries};
use std::collections::{HashSet, VecDeque};

/// How many ids a transaction may spread over and still be read as a whole.
const DISTANCE: i64 = 10_000;

/// Rows read at once, without payload.
const READ: i64 = 40_000;

/// Limits of one fetch of payload.
const CHUNK_ROWS: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;

/// A stored value above this size may be compressed, and then takes up to so many times its stored size in memory.
const COMPRESSED_FROM: usize = 1_500;
const COMPRESSION: usize = 12;

/// The log, as one slave sees it.
pub struct Log {
    pub ledger: Ledger,
    queries: LogQueries,
    skip_user: Option<String>,
    slave_identity: String,
    vocabulary: Vocabulary,
}

/// What one look at the log found, in the order of replay.
pub struct Backlog {
    queue: VecDeque<Unit>,
    snapshot: Snapshot,
    /// A former drain's snapshot: there may be more to see by now.
    is_resumed: bool,
    /// The ids of what was read: above one and up to another.
    ids: Option<(LogId, LogId)>,
    windows: Option<Windows>,
}

/// How far a backlog that is too long to be held has been read.
struct Windows {
    above: LogId,
    /// The first window is in hand already.
    is_first: bool,
    /// Rows of transactions that may have more of them.
    waiting: Vec<Entry>,
    /// Transactions whose last row is at or below this id are out.
    done: LogId,
    /// Up to here nothing is left of the others.
    passed: LogId,
    spread: VecDeque<Unit>,
    /// All that spread, also those that are out.
    apart: Vec<String>,
}

impl Log {
    pub fn new(config: &Config, findings: &Findings) -> Log {
        Log {
            ledger: Ledger::new(config, findings),
            queries: LogQueries::new(&config.slave_field, &findings.hstore_schema),
            skip_user: config.skip_user.clone(),
            slave_identity: findings.slave_identity.clone(),
            vocabulary: Vocabulary::default(),
        }
    }

    /// Looks at what is left of a drain that was interrupted, or else at everything that is visible now.
    pub fn look(&mut self, master: &mut Session) -> Result<Backlog> {
        let resumed = self.ledger.position().current.clone();
        let above = match &resumed {
            Some(snapshot) => self.ledger.start(snapshot),
            None => self.ledger.horizon().above(),
        };
        let rows = self.read(master, above, resumed.as_ref(), &[])?;
        let shown: &str = rows.first().map_or("", |row| row.get("snapshot"));
        let snapshot = Snapshot::parse(shown)
            .ok_or_else(|| unexpected(&format!("the server sent a snapshot that is none: {shown}")))?;
        let entries: Vec<Entry> = entries(&rows).collect();
        drop(rows);
        let is_resumed = resumed.is_some();
        let (mut queue, mut windows) = (VecDeque::new(), None);
        let mut ids = entries.first().zip(entries.last()).map(|(first, last)| (LogId(first.id.0 - 1), last.id));
        if entries.len() < READ as usize {
            self.ledger.drain(snapshot.clone(), ids.map(|(_, last)| last));
            let done = self.ledger.position().last;
            queue = units(entries).into();
            queue.retain(|unit: &Unit| Some(unit.last()) > done);
        } else {
            let highest = LogId(master.query_one("look at the log's end", sql::HIGHEST_ID, &[])?.get(0));
            ids = ids.map(|(above, _)| (above, highest));
            self.ledger.drain(snapshot.clone(), Some(highest));
            windows = Some(self.windows(master, &snapshot, entries)?);
        }
        Ok(Backlog { queue, snapshot, is_resumed, ids, windows })
    }

    fn windows(&self, master: &mut Session, snapshot: &Snapshot, mut waiting: Vec<Entry>) -> Result<Windows> {
        let position = self.ledger.position();
        let (start, done) = (self.ledger.start(snapshot), position.last.unwrap_or(LogId(0)));
        let base = position.base.as_ref().map(Snapshot::as_str);
        let rows =
            master.query("read the log", self.queries.spread, &[&start.0, &snapshot.as_str(), &base, &DISTANCE])?;
        let unit = |row: &db::Row| Unit::Spread {
            txid: Txid(row.get("txid")),
            first: LogId(row.get("first")),
            last: LogId(row.get("last")),
            rows: row.get::<_, i64>("rows") as u64,
        };
        let mut spread: VecDeque<Unit> = rows.iter().map(unit).collect();
        spread.retain(|unit| unit.last() > done);
        let transactions: HashSet<Txid> = rows.iter().map(|row| Txid(row.get("txid"))).collect();
        let apart = transactions.iter().map(Txid::to_string).collect();
        let begin = LogId(done.0 - DISTANCE);
        let above = waiting.last().map_or(start, |last| last.id).max(begin);
        waiting.retain(|entry| entry.id > begin && !transactions.contains(&entry.txid));
        Ok(Windows { above, is_first: true, waiting, done, passed: start, spread, apart })
    }

    /// The units to replay next; none when everything that the look saw is out.
    pub fn more<'a>(&mut self, master: &mut Session, backlog: &'a mut Backlog) -> Result<&'a mut VecDeque<Unit>> {
        while backlog.queue.is_empty() && backlog.windows.is_some() {
            self.read_window(master, backlog)?;
        }
        Ok(&mut backlog.queue)
    }

    fn read_window(&mut self, master: &mut Session, backlog: &mut Backlog) -> Result<()> {
        let Some(windows) = &mut backlog.windows else { return Ok(()) };
        // What the window before has given is out, and of all that does not spread with it every row up to here.
        let passed = LogId(windows.done.0 - DISTANCE);
        if passed > windows.passed {
            self.ledger.midway(windows.passed, passed, &windows.apart);
            windows.passed = passed;
            if windows.apart.is_empty() {
                backlog.ids = backlog.ids.map(|(_, highest)| (passed, highest));
            }
        }
        let mut is_last = false;
        if !std::mem::take(&mut windows.is_first) {
            let rows = self.read(master, windows.above, Some(&backlog.snapshot), &windows.apart)?;
            is_last = rows.len() < READ as usize;
            windows.waiting.extend(entries(&rows));
            windows.above = windows.waiting.last().map_or(windows.above, |last| last.id).max(windows.above);
        }
        let cut = if is_last { LogId(i64::MAX) } else { LogId(windows.above.0 - DISTANCE) };
        let (complete, waiting) = split(std::mem::take(&mut windows.waiting), cut);
        windows.waiting = waiting;
        let mut found = units(complete);
        found.retain(|unit| unit.last() > windows.done);
        while windows.spread.front().is_some_and(|unit| unit.last() <= cut) {
            found.extend(windows.spread.pop_front());
        }
        found.sort_by_key(Unit::last);
        backlog.queue = found.into();
        // What is resumed may have come further than its first window.
        windows.done = windows.done.max(cut);
        if is_last {
            backlog.windows = None;
        }
        Ok(())
    }

    /// Rows that are pending for a snapshot, or for the query's own.
    fn read(
        &self,
        master: &mut Session,
        above: LogId,
        snapshot: Option<&Snapshot>,
        apart: &[String],
    ) -> Result<Vec<db::Row>> {
        let (late, bounds): (Vec<String>, Vec<i64>) = match snapshot {
            // The caller knows where they begin.
            Some(_) => Default::default(),
            None => self.ledger.horizon().late().map(|(late, bound)| (late.to_string(), bound.0)).unzip(),
        };
        let base = self.ledger.position().base.as_ref().map(Snapshot::as_str);
        let snapshot = snapshot.map(Snapshot::as_str);
        let (user, slave) = (&self.skip_user, &self.slave_identity);
        let parameters: [&(dyn db::ToSql + Sync); 9] =
            [&above.0, user, slave, &READ, &snapshot, &base, &late, &bounds, &apart];
        master.query("read the log", &self.queries.pending, &parameters)
    }

    /// Everything that the look saw has been replayed.
    pub fn drained(&mut self, backlog: &Backlog) {
        self.ledger.drained(backlog.ids);
    }

    /// The next rows of a transaction that was not read as a whole, without payload.
    pub fn page(&self, master: &mut Session, unit: &Unit, above: LogId) -> Result<Vec<Entry>> {
        let Unit::Spread { txid, last, .. } = unit else { return Ok(Vec::new()) };
        let rows = master.query(
            "read the log",
            &self.queries.page,
            &[&above.0, &self.skip_user, &self.slave_identity, &DISTANCE, &txid.to_string(), &last.0],
        )?;
        Ok(rows.iter().map(entry).collect())
    }

    /// The changes themselves, in the order of the entries; without those whose flag has been set meanwhile.
    pub fn fetch(&mut self, master: &mut Session, entries: &[Entry]) -> Result<Vec<Change>> {
        let ids: Vec<i64> = entries.iter().map(|entry| entry.id.0).collect();
        let rows = master.query("fetch changes", &self.queries.fetch, &[&ids])?;
        let mut places: std::collections::HashMap<i64, usize> =
            ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut changes: Vec<Option<Change>> = ids.iter().map(|_| None).collect();
        for row in rows {
            let place = places.remove(&row.get::<_, i64>("id")).ok_or_else(|| unexpected("the log has an id twice"))?;
            if !row.get::<_, bool>("skip") {
                changes[place] = Some(change(&row, &mut self.vocabulary)?);
            }
        }
        if !places.is_empty() {
            return Err(unexpected("changes vanished from the log while they were being replayed"));
        }
        Ok(changes.into_iter().flatten().collect())
    }
}

impl Backlog {
    /// Nothing but what was visible when a former drain began.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}

/// Cuts entries into pieces that are small enough to be held with their payload.
pub fn chunks(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.size;
            bytes <= CHUNK_BYTES
        };
        let length = rest.iter().take(CHUNK_ROWS).take_while(fits).count().max(1).min(rest.len());
        let (chunk, remaining) = rest.split_at(length);
        rest = remaining;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Where nothing is pending, there is a row without an id.
fn entries(rows: &[db::Row]) -> impl Iterator<Item = Entry> {
    rows.iter().filter(|row| row.get::<_, Option<i64>>("id").is_some()).map(entry)
}

fn entry(row: &db::Row) -> Entry {
    let stored = row.get::<_, i32>("size") as usize;
    Entry {
        id: LogId(row.get("id")),
        txid: Txid(row.get::<_, db::Xid8>("txid").0),
        size: if stored > COMPRESSED_FROM { stored * COMPRESSION } else { stored },
        skip: row.get("skip"),
    }
}

fn change(row: &db::Row, vocabulary: &mut Vocabulary) -> Result<Change> {
    let letter: &str = row.get("event");
    let event = Event::from_letter(letter)
        .ok_or_else(|| unexpected(&format!("the log has an event '{letter}' that this version does not know")))?;
    let relation: &str = row.get("relation");
    Ok(Change {
        id: LogId(row.get("id")),
        txid: Txid(row.get("txid")),
        event,
        relation: relation.to_string(),
        old: columns(row.get("old"), relation, vocabulary),
        new: columns(row.get("new"), relation, vocabulary),
        sql: row.get("sql"),
        origin: row.get("origin"),
    })
}

/// A logged row: name, value, name, value.
fn columns(pairs: Option<Vec<Option<&str>>>, relation: &str, vocabulary: &mut Vocabulary) -> Row {
    let pairs = pairs.unwrap_or_default();
    let names = pairs.iter().step_by(2).map(|name| name.unwrap_or_default());
    Row::new(vocabulary.names(relation, names), pairs.iter().skip(1).step_by(2).copied())
}

fn unexpected(what: &str) -> Error {
    Error::new(Kind::Internal, Some(Side::Master), "replay the log", what)
        .with_hint("does another program write to replica_log? everything is rolled back and tried again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_bounded_in_rows_and_bytes_and_never_empty() {
        let entry = |size| Entry { id: LogId(1), txid: Txid(1), size, skip: false };
        let sizes = |entries: &[Entry]| chunks(entries).map(<[Entry]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0usize; 0]);
        assert_eq!(sizes(&vec![entry(1); CHUNK_ROWS + 1]), [CHUNK_ROWS, 1]);
        assert_eq!(sizes(&[entry(CHUNK_BYTES + 1), entry(1), entry(CHUNK_BYTES)]), [1, 1, 1]);
    }
}
