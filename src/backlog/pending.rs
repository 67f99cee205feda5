//! Reading the log: what is pending, in the order of replay, in bounded memory.
//!
//! A drain replays what one snapshot shows and the slave's position (`position.rs`) does not cover. The order is that of
//! `order.rs`. To put a transaction in its place its last row must be known, and the log has no index to ask. So a drain
//! reads ids, transactions and sizes (40 bytes a row here), and only up to `FIRST_READ` of them:
//!
//! * All of it fits: every transaction is complete in hand. This is the usual case and costs one query, whose own snapshot
//!   is the drain's.
//! * It does not fit: mostly no transaction's rows lie more than `NEAR` apart, which a quick pass over the log tells. If one
//!   does, another pass finds the transactions that spread over `DISTANCE` ids or more. There are few, and they are kept
//!   apart as (first, last). Every other transaction is complete once the log has been read so many ids further. So the
//!   log is read window by window; those transactions go out whose last row lies that distance before a window's end, and
//!   the rows of the others wait for the next one. The drain's snapshot is asked for in every window: a transaction that
//!   commits later is not in the list of those that spread.
//!
//! A drain that was interrupted is taken up again with the snapshot that it had: its transactions with a last row up to
//! the position's `last` have been replayed.
//!
//! The payload is fetched in chunks of bounded size, when its turn comes (`reading.rs`).

use crate::backlog::order::{LogEntry, Transaction, in_order, split};
use crate::backlog::prefetch::Prefetcher;
use crate::backlog::progress::SlaveProgress;
use crate::backlog::reader::{BLOCK, DISTANCE, FIRST_READ, LogReader, NEAR, READ, Window};
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql;
use crate::base::error::Result;
use crate::base::names::{LogId, Txid};
use crate::config::settings::Config;
use crate::server::checks::Findings;
use crate::server::session::{Session, ToSql};
use std::collections::{HashSet, VecDeque};

/// A backlog of more blocks has fifty million changes, or gaps.
const MAX_BLOCKS: i64 = 100_000;

/// The log, as one slave sees it.
pub struct SlaveLog {
    pub progress: SlaveProgress,
    pub reader: LogReader,
    /// The query for transactions that spread over many ids.
    spread: String,
}

/// What one look at the log found, in the order of replay.
pub struct Backlog {
    queue: VecDeque<Transaction>,
    snapshot: Snapshot,
    /// A former drain's snapshot: there may be more to see by now.
    is_resumed: bool,
    /// The ids of what was read: above one and up to another.
    ids: Option<(LogId, LogId)>,
    /// What the first look has read, if that is not all: until it is known how far transactions spread.
    beginning: Option<Vec<LogEntry>>,
    windows: Option<Windows>,
}

/// How far a backlog that is too long to be held has been read.
struct Windows {
    above: LogId,
    /// So many are read next.
    rows: i64,
    /// Only those that are kept apart spread over so many ids.
    distance: i64,
    /// The first window is in hand already,
    is_first: bool,
    /// and nothing but rows of those that spread comes after it.
    is_only: bool,
    /// Rows of transactions that may have more of them.
    waiting: Vec<LogEntry>,
    /// Nothing comes after what has been read.
    is_over: bool,
    /// Transactions whose last row is at or below this id are in the queue, or out.
    done: LogId,
    /// The last row of the last one.
    newest: LogId,
    /// For each window: once this row is replayed, nothing is left up to that one, save what is kept apart.
    marks: VecDeque<(LogId, LogId)>,
    /// Up to here nothing is.
    passed: LogId,
    spread: VecDeque<Transaction>,
    /// All that spread, also those that are out.
    apart: Vec<String>,
}

impl SlaveLog {
    pub fn new(config: &Config, findings: &Findings) -> SlaveLog {
        let Findings { hstore_schema, master_encoding, slave_identity, .. } = findings;
        let reader = LogReader::new(config, hstore_schema, master_encoding, slave_identity);
        SlaveLog { progress: SlaveProgress::new(config, findings), reader, spread: sql::spread(&config.slave_field) }
    }

    /// Passes over what the initial copy has brought of these tables.
    pub fn pass_over(&mut self, copied: &[(String, Snapshot)]) {
        if !copied.is_empty() {
            self.reader.pass_over(copied);
        }
    }

    /// Looks at what is left of a drain that was interrupted, or else at everything that is visible now.
    pub fn look(&mut self, master: &mut Session) -> Result<Backlog> {
        let position = self.progress.position();
        let resumed = position.current.clone();
        let is_resumed = resumed.is_some();
        let (snapshot, entries) = match resumed {
            Some(snapshot) => {
                let window = self.window(self.progress.start(&snapshot), FIRST_READ, &snapshot, &[]);
                let entries = self.reader.window(master, &window)?;
                (snapshot, entries)
            }
            None => {
                let horizon = self.progress.horizon();
                self.reader.look(master, horizon.above(), horizon.late(), position.base.as_ref())?
            }
        };
        let (mut queue, mut beginning) = (VecDeque::new(), None);
        let mut ids = entries.first().zip(entries.last()).map(|(first, last)| (LogId(first.id.0 - 1), last.id));
        if entries.len() < FIRST_READ as usize {
            self.progress.drain(snapshot.clone(), ids.map(|(_, last)| last));
            let done = self.progress.position().last;
            queue = in_order(entries).into();
            queue.retain(|transaction: &Transaction| Some(transaction.last()) > done);
            self.progress.ends_at(queue.back().map(Transaction::last));
        } else {
            let highest = LogId(master.query_one("look at the log's end", sql::HIGHEST_ID, &[])?.get(0));
            ids = ids.map(|(above, _)| (above, highest));
            self.progress.drain(snapshot.clone(), Some(highest));
            beginning = Some(entries);
        }
        Ok(Backlog { queue, snapshot, is_resumed, ids, beginning, windows: None })
    }

    fn windows(&self, master: &mut Session, snapshot: &Snapshot, mut waiting: Vec<LogEntry>) -> Result<Windows> {
        let position = self.progress.position();
        // Nothing below the first of them is pending.
        let start = waiting.first().map_or(LogId(0), |first| LogId(first.id.0 - 1));
        let done = position.last.unwrap_or(LogId(0));
        let highest = position.highest;
        // Somebody may have moved the log's sequence a long way, and each block is looked up.
        let are_close = (highest.0 - start.0) / BLOCK <= MAX_BLOCKS
            && master.query_one("read the log", sql::CLOSE, &[&start.0, &highest.0, &BLOCK])?.get(0);
        let (distance, rows, mut end) =
            if are_close { (NEAR, 4 * FIRST_READ, highest) } else { (DISTANCE, READ, LogId(0)) };
        let (mut spread, mut transactions) = (VecDeque::new(), HashSet::new());
        let base = position.base.as_ref().map(Snapshot::as_str);
        let parameters: [&(dyn ToSql + Sync); 4] = [&start.0, &snapshot.as_str(), &base, &DISTANCE];
        let found = if are_close { Vec::new() } else { master.query("read the log", &self.spread, &parameters)? };
        for row in found {
            let (first, last) = (LogId(row.get("first")), LogId(row.get("last")));
            let Some(txid) = row.get::<_, Option<i64>>("txid").map(Txid) else {
                end = last;
                continue;
            };
            transactions.insert(txid);
            if last > done {
                spread.push_back(Transaction::Spread {
                    txid,
                    first,
                    last,
                    rows: row.get::<_, i64>("rows") as u64,
                    flagged: row.get("flagged"),
                });
            }
        }
        let apart = transactions.iter().map(Txid::to_string).collect();
        let begin = LogId(done.0 - distance);
        let above = waiting.last().map_or(start, |last| last.id).max(begin);
        waiting.retain(|entry| entry.id > begin && !transactions.contains(&entry.txid));
        let is_only = end <= above;
        Ok(Windows {
            above,
            rows,
            distance,
            is_first: true,
            is_only,
            waiting,
            is_over: false,
            done,
            newest: LogId(0),
            marks: VecDeque::new(),
            passed: start,
            spread,
            apart,
        })
    }

    /// Sees to it that there are transactions to replay next; if there are none then, everything that the look saw is out when those
    /// that were there before are.
    pub fn more(
        &mut self,
        master: &mut Session,
        backlog: &mut Backlog,
        mut ahead: Option<&mut Prefetcher>,
    ) -> Result<()> {
        if let Some(beginning) = backlog.beginning.take() {
            backlog.windows = Some(self.windows(master, &backlog.snapshot, beginning)?);
        }
        while backlog.queue.is_empty() && backlog.windows.as_ref().is_some_and(|windows| !windows.is_over) {
            let entries = match &mut ahead {
                Some(ahead) => ahead.window()?,
                None => None,
            };
            self.read_window(master, backlog, entries)?;
        }
        Ok(())
    }

    /// Adds the window that was asked for, if one was, before the last transactions in hand have been replayed: the reader need not
    /// wait for that.
    pub fn extend(&mut self, master: &mut Session, backlog: &mut Backlog, ahead: &mut Prefetcher) -> Result<()> {
        match ahead.window()? {
            None => Ok(()),
            entries => self.read_window(master, backlog, entries),
        }
    }

    /// The window that will be read when the transactions in hand are out.
    pub fn next_window(&self, backlog: &Backlog) -> Option<Window> {
        let windows = backlog.windows.as_ref().filter(|windows| !windows.is_first && !windows.is_over)?;
        Some(self.window(windows.above, windows.rows, &backlog.snapshot, &windows.apart))
    }

    /// All transactions up to this row have been replayed.
    pub fn replayed(&mut self, backlog: &mut Backlog, last: LogId) {
        let Some(windows) = &mut backlog.windows else { return };
        let out = windows.marks.partition_point(|(newest, _)| *newest <= last);
        let Some((_, passed)) = windows.marks.drain(..out).next_back() else { return };
        if passed > windows.passed {
            self.progress.midway(windows.passed, passed, &windows.apart);
            windows.passed = passed;
            if windows.apart.is_empty() {
                backlog.ids = backlog.ids.map(|(_, highest)| (passed, highest));
            }
        }
    }

    fn window(&self, above: LogId, rows: i64, snapshot: &Snapshot, apart: &[String]) -> Window {
        let base = self.progress.position().base.clone();
        Window { above, rows, snapshot: snapshot.clone(), base, apart: apart.to_vec() }
    }

    /// `entries`: those of the window, if they have been read already.
    fn read_window(
        &mut self,
        master: &mut Session,
        backlog: &mut Backlog,
        entries: Option<Vec<LogEntry>>,
    ) -> Result<()> {
        let Some(windows) = &mut backlog.windows else { return Ok(()) };
        let mut is_last = windows.is_only;
        if !std::mem::take(&mut windows.is_first) {
            let entries = match entries {
                Some(entries) => entries,
                None => {
                    let window = self.window(windows.above, windows.rows, &backlog.snapshot, &windows.apart);
                    self.reader.window(master, &window)?
                }
            };
            is_last = entries.len() < windows.rows as usize;
            windows.rows = READ;
            windows.waiting.extend(entries);
            windows.above = windows.waiting.last().map_or(windows.above, |last| last.id).max(windows.above);
        }
        let cut = if is_last { LogId(i64::MAX) } else { LogId(windows.above.0 - windows.distance) };
        let (mut found, waiting) = split(std::mem::take(&mut windows.waiting), cut);
        windows.waiting = waiting;
        found.retain(|transaction| transaction.last() > windows.done);
        while windows.spread.front().is_some_and(|transaction| transaction.last() <= cut) {
            found.extend(windows.spread.pop_front());
        }
        found.sort_by_key(Transaction::last);
        windows.newest = found.last().map_or(windows.newest, Transaction::last);
        backlog.queue.extend(found);
        // What is resumed may have come further than its first window.
        windows.done = windows.done.max(cut);
        if is_last {
            windows.is_over = true;
            self.progress.ends_at(Some(windows.newest));
        } else {
            windows.marks.push_back((windows.newest, LogId(windows.done.0 - windows.distance)));
        }
        Ok(())
    }

    /// Everything that the look saw has been replayed.
    pub fn drained(&mut self, backlog: &Backlog) {
        self.progress.drained(backlog.ids);
    }
}

impl Backlog {
    /// What is to be replayed next, as far as it has been read.
    pub fn queue(&mut self) -> &mut VecDeque<Transaction> {
        &mut self.queue
    }

    /// There is more than the look has read.
    pub fn is_long(&self) -> bool {
        self.beginning.is_some()
    }

    /// Nothing but what was visible when a former drain began.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
