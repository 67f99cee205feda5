//! Reading the log: what is pending, in the order of replay, in bounded memory; and marking what has been replayed.
//!
//! The order is that of `order.rs`. To put a transaction in its place its last row must be known, and the log has no
//! index to ask. So a drain reads ids, transactions and sizes (40 bytes a row here), and only up to `READ` of them:
//!
//! * All of it fits: every visible transaction is complete in hand. This is the usual case and costs one query.
//! * It does not fit: one pass over the log, under one snapshot, finds the transactions that spread over `DISTANCE` ids
//!   or more. There are few, and they are kept apart as (first, last). Every other transaction is complete once the log
//!   has been read `DISTANCE` ids further. So the log is read window by window, each overlapping the former by that
//!   much, and of each window those transactions go out whose last row lies `DISTANCE` before its end. The snapshot is
//!   asked for in every window: a transaction that commits later is not in the list of those that spread.
//!
//! The payload is fetched in chunks of bounded size, when its turn comes.

use crate::change::{Change, Event};
use crate::checks::Findings;
use crate::config::Config;
use crate::db::{self, Session};
use crate::error::{Error, Kind, Result};
use crate::names::{LogId, Side, Txid};
use crate::order::{Entry, Floor, Unit, units};
use crate::row::{Row, Vocabulary};
use crate::sql::LogQueries;
use std::collections::VecDeque;
use std::time::Duration;

/// How many ids a transaction may spread over and still be read as a whole.
const DISTANCE: i64 = 10_000;

/// Rows read at once, without payload; more than twice the distance, so that every window gets on.
const READ: i64 = 40_000;

/// Limits of one fetch of payload.
const CHUNK_ROWS: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;

/// A stored value above this size may be compressed, and then takes up to so many times its stored size in memory.
const COMPRESSED_FROM: usize = 1_500;
const COMPRESSION: usize = 12;

/// The log, as one slave sees it.
pub struct Log {
    queries: LogQueries,
    skip_user: Option<String>,
    slave_identity: String,
    floor: Floor,
    highest: LogId,
    vocabulary: Vocabulary,
}

/// What one look at the log found, in the order of replay.
pub struct Backlog {
    queue: VecDeque<Unit>,
    rest: Rest,
}

/// What is left to be read.
enum Rest {
    Nothing { oldest_open: Txid },
    Windows { snapshot: String, above: LogId, spread: VecDeque<Unit> },
}

impl Log {
    pub fn new(config: &Config, findings: &Findings) -> Log {
        Log {
            queries: LogQueries::new(
                &config.slave_field,
                &findings.fields,
                &findings.hstore_schema,
                !config.retention.is_zero(),
            ),
            skip_user: config.skip_user.clone(),
            slave_identity: findings.slave_identity.clone(),
            floor: Floor::default(),
            highest: LogId(0),
            vocabulary: Vocabulary::default(),
        }
    }

    /// Looks at everything that is visible now.
    pub fn look(&mut self, master: &mut Session) -> Result<Backlog> {
        let above = self.floor.get();
        let rows = master.query(
            "read the log",
            &self.queries.pending,
            &[&above.0, &self.skip_user, &self.slave_identity, &READ],
        )?;
        let oldest_open = Txid(rows.first().map_or(0, |row| row.get("oldest_open")));
        if rows.len() < READ as usize {
            let some = rows.iter().filter(|row| row.get::<_, Option<i64>>("id").is_some());
            let entries: Vec<Entry> = some.map(entry).collect();
            self.note_highest(&entries);
            return Ok(Backlog { queue: units(entries, None).into(), rest: Rest::Nothing { oldest_open } });
        }
        drop(rows);
        let snapshot: String = master.query_one("take a snapshot", crate::sql::CURRENT_SNAPSHOT, &[])?.get(0);
        let spread = self.spread(master, above, &snapshot)?;
        Ok(Backlog { queue: VecDeque::new(), rest: Rest::Windows { snapshot, above, spread } })
    }

    fn spread(&self, master: &mut Session, above: LogId, snapshot: &str) -> Result<VecDeque<Unit>> {
        let rows = master.query("read the log", &self.queries.spread, &[&above.0, &snapshot, &DISTANCE])?;
        let unit = |row: &db::Row| Unit::Spread {
            txid: Txid(row.get("txid")),
            first: LogId(row.get("first")),
            last: LogId(row.get("last")),
            rows: row.get::<_, i64>("rows") as u64,
        };
        Ok(rows.iter().map(unit).collect())
    }

    /// The units to replay next; none when everything that the look saw is out.
    pub fn more<'a>(&mut self, master: &mut Session, backlog: &'a mut Backlog) -> Result<&'a mut VecDeque<Unit>> {
        while backlog.queue.is_empty() && matches!(backlog.rest, Rest::Windows { .. }) {
            self.read_window(master, backlog)?;
        }
        Ok(&mut backlog.queue)
    }

    fn read_window(&mut self, master: &mut Session, backlog: &mut Backlog) -> Result<()> {
        let Rest::Windows { snapshot, above, spread } = &mut backlog.rest else { return Ok(()) };
        let apart: Vec<i64> = spread.iter().filter_map(|unit| spread_txid(unit).map(|txid| txid.0)).collect();
        let rows = master.query(
            "read the log",
            &self.queries.window,
            &[&above.0, &self.skip_user, &self.slave_identity, &READ, snapshot, &apart],
        )?;
        let entries: Vec<Entry> = rows.iter().map(entry).collect();
        self.note_highest(&entries);
        let complete = entries.len() < READ as usize;
        let cut = match entries.last() {
            Some(last) if !complete => LogId(last.id.0 - DISTANCE),
            _ => LogId(i64::MAX),
        };
        let mut found = units(entries, Some(cut));
        while spread.front().is_some_and(|unit| unit.last() <= cut) {
            found.extend(spread.pop_front());
        }
        found.sort_by_key(Unit::last);
        backlog.queue = found.into();
        if complete {
            backlog.rest = Rest::Nothing { oldest_open: oldest_open(snapshot)? };
        } else {
            *above = LogId((cut.0 - DISTANCE).max(above.0));
        }
        Ok(())
    }

    /// Everything that the look saw has been replayed: the next one need not walk over it.
    pub fn drained(&mut self, backlog: &Backlog) {
        if let Rest::Nothing { oldest_open } = backlog.rest {
            self.floor.drained(oldest_open);
        }
    }

    /// Marks were made in this transaction of ours on the master.
    pub fn marked_in(&mut self, ours: Txid) {
        self.floor.batch(ours, self.highest);
    }

    /// Makes the next look begin at the start of the log.
    pub fn forget_floor(&mut self) {
        self.floor.forget();
    }

    /// The next rows of a transaction that was not read as a whole, without payload.
    pub fn page(&self, master: &mut Session, unit: &Unit, above: LogId) -> Result<Vec<Entry>> {
        let Unit::Spread { txid, last, .. } = unit else { return Ok(Vec::new()) };
        let rows = master.query(
            "read the log",
            &self.queries.page,
            &[&above.0, &self.skip_user, &self.slave_identity, &DISTANCE, &txid.0, &last.0],
        )?;
        Ok(rows.iter().map(entry).collect())
    }

    /// The changes themselves, in the order of the entries.
    pub fn fetch(&mut self, master: &mut Session, entries: &[Entry]) -> Result<Vec<Change>> {
        let ids: Vec<i64> = entries.iter().map(|entry| entry.id.0).collect();
        let rows = master.query("fetch changes", &self.queries.fetch, &[&ids])?;
        let mut places: std::collections::HashMap<i64, usize> =
            ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut changes: Vec<Option<Change>> = ids.iter().map(|_| None).collect();
        for row in rows {
            let place = places.remove(&row.get::<_, i64>("id")).ok_or_else(|| unexpected("the log has an id twice"))?;
            changes[place] = Some(change(&row, &mut self.vocabulary)?);
        }
        let vanished = || unexpected("changes vanished from the log while they were being replayed");
        changes.into_iter().collect::<Option<Vec<_>>>().ok_or_else(vanished)
    }

    /// Marks exactly these changes as replayed by this slave.
    pub fn mark(&self, master: &mut Session, ids: &[i64]) -> Result<()> {
        let marked = self.mark_remaining(master, ids)?;
        if marked != ids.len() as u64 {
            return Err(unexpected(&format!("{marked} changes were marked instead of {}", ids.len())));
        }
        Ok(())
    }

    /// Marks changes that a former batch replayed, as far as they are not marked yet.
    pub fn mark_remaining(&self, master: &mut Session, ids: &[i64]) -> Result<u64> {
        let mut marked = 0;
        for statement in &self.queries.mark {
            marked += master.execute("mark replayed changes", statement, &[&ids])?;
        }
        Ok(marked)
    }

    /// Deletes a few changes that every slave has replayed some time ago; how many.
    pub fn purge(&self, master: &mut Session, retention: Duration) -> Result<u64> {
        master.execute("purge the log", &self.queries.purge, &[&retention.as_secs_f64()])
    }

    /// The slaves that have something to replay, and since when.
    pub fn waiting(&self, master: &mut Session) -> Result<Vec<(String, String)>> {
        let mut waiting = Vec::new();
        for (field, query) in &self.queries.waiting {
            let since = master.query("look for the slaves' oldest changes", query, &[])?;
            waiting.extend(since.first().map(|row| (field.clone(), row.get(0))));
        }
        Ok(waiting)
    }

    fn note_highest(&mut self, entries: &[Entry]) {
        self.highest = entries.iter().map(|entry| entry.id).max().unwrap_or(self.highest).max(self.highest);
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

/// The oldest open transaction of a snapshot, which PostgreSQL writes as `xmin:xmax:open,open`.
fn oldest_open(snapshot: &str) -> Result<Txid> {
    match snapshot.split(':').next().map(str::parse) {
        Some(Ok(xmin)) => Ok(Txid(xmin)),
        _ => Err(unexpected(&format!("the server sent a snapshot that is none: {snapshot}"))),
    }
}

fn spread_txid(unit: &Unit) -> Option<Txid> {
    match unit {
        Unit::Spread { txid, .. } => Some(*txid),
        Unit::Listed(_) => None,
    }
}

fn entry(row: &db::Row) -> Entry {
    let stored = row.get::<_, i32>("size") as usize;
    Entry {
        id: LogId(row.get("id")),
        txid: Txid(row.get("txid")),
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
