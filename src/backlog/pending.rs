//! Reads which transactions are pending, in the order of replay and in bounded memory.
//!
//! A drain replays what one snapshot shows and the slave's position (`position.rs`) does not cover, in the order of
//! `order.rs`. For this order the last row of each transaction must be known, and the log has no index for that. So a
//! drain first reads ids, transactions and sizes (40 bytes of memory a row), `FIRST_READ` rows at most:
//!
//! * *These are all pending rows.* Then every transaction is complete. This is the usual case and takes one query, and
//!   the query's own snapshot is the drain's.
//! * *There are more.* Then the log is read in windows. In most backlogs no transaction has rows more than `NEAR` ids
//!   apart, and a quick query finds that out (`close.sql`). Otherwise another query finds the transactions that spread
//!   over `DISTANCE` ids or more. These are few, and only their first and last ids are kept. Every other transaction is
//!   complete once the log has been read that many ids further. So a transaction is replayed when its last row lies
//!   that distance before the end of a window; rows of other transactions wait for the next window. Each window is read
//!   under the drain's snapshot, because a transaction that commits later is not among those that spread.
//!
//! An interrupted drain continues with the snapshot that it had. Of that snapshot, the transactions whose last row is
//! not above the position's `last` have been replayed.
//!
//! The payload is fetched in chunks of bounded size, when it is replayed (`reader.rs`).

use crate::backlog::order::{LogEntry, Transaction, in_order, split};
use crate::backlog::prefetch::Prefetcher;
use crate::backlog::progress::SlaveProgress;
use crate::backlog::reader::{BLOCK, DISTANCE, FIRST_READ, LogReader, NEAR, READ, Window};
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql;
use crate::base::control::Control;
use crate::base::error::Result;
use crate::base::names::{LogId, Txid};
use crate::config::settings::Config;
use crate::server::checks::Findings;
use crate::server::session::{Session, ToSql};
use std::collections::{HashSet, VecDeque};

/// With more blocks than this the backlog has fifty million changes, or large gaps between ids: `close.sql` is not
/// used.
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
    /// The snapshot is that of an interrupted drain. A new one may show more.
    is_resumed: bool,
    /// The range of ids that was read: above one and up to another.
    ids: Option<(LogId, LogId)>,
    /// What the first look has read, if there is more. Kept until it is known how far transactions spread.
    beginning: Option<Vec<LogEntry>>,
    windows: Option<Windows>,
}

/// How far a backlog has been read that is too long to be kept in memory.
struct Windows {
    above: LogId,
    /// How many rows are read next.
    rows: i64,
    /// Only transactions in `spread` spread over this many ids or more.
    distance: i64,
    /// The first window has been read already.
    is_first: bool,
    /// After the first window there are only rows of transactions in `spread`.
    is_only: bool,
    /// Rows of transactions that may have further rows.
    waiting: Vec<LogEntry>,
    /// Everything has been read.
    is_over: bool,
    /// Transactions whose last row is at or below this id are in the queue or have left it.
    done: LogId,
    /// The last row of the last transaction that was put into the queue.
    newest: LogId,
    /// For each window two ids: when the first has been replayed, nothing is left up to the second, except transactions
    /// that spread.
    marks: VecDeque<(LogId, LogId)>,
    /// Up to this id nothing is left, except transactions that spread.
    passed: LogId,
    /// The transactions that spread over many ids and are not in the queue yet.
    spread: VecDeque<Transaction>,
    /// All transactions that spread, also those that have been replayed.
    apart: Vec<String>,
}

impl SlaveLog {
    pub fn new(config: &Config, findings: &Findings, control: &Control) -> SlaveLog {
        let Findings { hstore_schema, master_encoding, slave_identity, .. } = findings;
        let mut reader = LogReader::new(config, hstore_schema, master_encoding, slave_identity);
        reader.read_large_rows_apart(config, control);
        SlaveLog { progress: SlaveProgress::new(config, findings), reader, spread: sql::spread(&config.slave_field) }
    }

    /// Does not replay changes of these tables that the initial copy has already loaded.
    pub fn pass_over(&mut self, copied: &[(String, Snapshot)]) {
        if !copied.is_empty() {
            self.reader.pass_over(copied);
        }
    }

    /// Looks for what is left of an interrupted drain, or else for everything that is visible now.
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
        // Nothing below the first of these rows is pending.
        let start = waiting.first().map_or(LogId(0), |first| LogId(first.id.0 - 1));
        let done = position.last.unwrap_or(LogId(0));
        let highest = position.highest;
        // The query looks up each block. Somebody may have advanced the log's sequence by a large step.
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

    /// Reads windows until the queue has transactions to replay. If it is still empty then, nothing is left of what the
    /// look saw.
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

    /// Adds the window that was requested, if one was. Called before the last transactions of the queue are replayed,
    /// so that the prefetcher always has something to read.
    pub fn extend(&mut self, master: &mut Session, backlog: &mut Backlog, ahead: &mut Prefetcher) -> Result<()> {
        match ahead.window()? {
            None => Ok(()),
            entries => self.read_window(master, backlog, entries),
        }
    }

    /// The window that is to be read next.
    pub fn next_window(&self, backlog: &Backlog) -> Option<Window> {
        let windows = backlog.windows.as_ref().filter(|windows| !windows.is_first && !windows.is_over)?;
        Some(self.window(windows.above, windows.rows, &backlog.snapshot, &windows.apart))
    }

    /// To be called when all transactions up to this row have been replayed.
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

    /// Adds a window. `entries`: its rows, if they have been read already.
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
        // An interrupted drain may have come further than this window.
        windows.done = windows.done.max(cut);
        if is_last {
            windows.is_over = true;
            self.progress.ends_at(Some(windows.newest));
        } else {
            windows.marks.push_back((windows.newest, LogId(windows.done.0 - windows.distance)));
        }
        Ok(())
    }

    /// To be called when everything that the look saw has been replayed.
    pub fn drained(&mut self, backlog: &Backlog) {
        self.progress.drained(backlog.ids);
    }
}

impl Backlog {
    /// The transactions to replay next, as far as they have been read.
    pub fn queue(&mut self) -> &mut VecDeque<Transaction> {
        &mut self.queue
    }

    /// Whether there is more than the look has read.
    pub fn is_long(&self) -> bool {
        self.beginning.is_some()
    }

    /// Whether it has only what was visible when an interrupted drain began.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
