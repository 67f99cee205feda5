//! Reads the log on one session: first which rows are pending, later the changes themselves, when they are replayed.
//!
//! The pair's own session looks for what is pending. A second session reads the changes of a long batch
//! (`prefetch.rs`), so that the master and the slave work at the same time.

use crate::backlog::change::{Change, Event};
use crate::backlog::order::{LogEntry, Transaction};
use crate::backlog::row::{self, ColumnLists, Row};
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql::{self, ReadQueries};
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid};
use crate::config::dsn::Dsn;
use crate::config::settings::Config;
use crate::server::connect;
use crate::server::session::{self, Session};
use std::sync::Arc;

mod pages;
mod unreadable;

pub use pages::Pages;

/// A transaction that spreads over more ids than this is read page by page.
pub const DISTANCE: i64 = 10_000;

/// In nearly every backlog each transaction spreads over less than three blocks of ids (`close.sql`).
pub const BLOCK: i64 = 500;
pub const NEAR: i64 = 3 * BLOCK;

/// Rows read at once, without payload: each takes 40 bytes of memory. The first read is smaller, because the slave
/// waits for it.
pub const READ: i64 = 40_000;
pub const FIRST_READ: i64 = 5_000;

/// A look that finds at most so many rows, with at most so many stored bytes, returns their payload too.
const LITTLE_ROWS: i64 = 20;
const LITTLE_BYTES: i64 = 64 << 10;

/// When a transaction is read page by page, rows of at most this many bytes come with their payload.
const SMALL_BYTES: i32 = 1_000;

/// How many rows one fetch of payload returns at most.
pub const CHUNK_ROWS: usize = 2_000;

/// A stored value above this size may be compressed. Then it is expected to take this many times its size in memory.
const COMPRESSED_FROM: usize = 1_500;
const COMPRESSION: usize = 12;

/// A row from this size on is not copied out of what the server has sent.
const LARGE_BYTES: usize = 256 << 10;

/// Whole transactions that are replayed together.
pub type Batch = Arc<Vec<Transaction>>;

/// Which rows to read of a backlog that is too long to be read at once.
#[derive(Clone, Debug)]
pub struct Window {
    pub above: LogId,
    /// How many rows at most.
    pub rows: i64,
    pub snapshot: Snapshot,
    /// Everything that this snapshot shows has been replayed.
    pub base: Option<Snapshot>,
    /// Transactions to leave out.
    pub apart: Vec<String>,
}

/// Reads the log for one slave.
#[derive(Clone)]
pub struct LogReader {
    queries: Arc<ReadQueries>,
    skipped: String,
    skip_user: Option<String>,
    /// TABLES, as a regular expression.
    tables: Option<String>,
    slave_identity: String,
    /// Rows come in hstore's binary form.
    is_packed: bool,
    /// What cannot be sent in UTF-8 is read with its bytes escaped.
    escapes: bool,
    lists: ColumnLists,
    /// Where to open a session for a single large row.
    large_rows: Option<LargeRows>,
}

/// What a session for a single large row needs. The memory into which the row is read goes together with the session; another
/// session would keep it.
#[derive(Clone)]
struct LargeRows {
    server: Dsn,
    label: String,
    control: Control,
}

impl LogReader {
    pub fn new(config: &Config, hstore_schema: &str, master_encoding: &str, slave_identity: &str) -> LogReader {
        // The lengths in hstore's binary form count bytes before the conversion from the database's encoding.
        let is_packed = master_encoding == "UTF8";
        LogReader {
            skipped: sql::note_flagged(&config.slave_field, hstore_schema),
            queries: Arc::new(ReadQueries::new(&config.slave_field, hstore_schema, is_packed)),
            skip_user: config.skip_user.clone(),
            tables: config.tables.pattern(),
            slave_identity: slave_identity.to_string(),
            is_packed,
            escapes: false,
            lists: ColumnLists::default(),
            large_rows: None,
        }
    }

    /// From now on each large row is read on a session of its own.
    pub fn read_large_rows_apart(&mut self, config: &Config, control: &Control) {
        let label = format!("{} large row", config.name);
        self.large_rows = Some(LargeRows { server: config.master.clone(), label, control: control.clone() });
    }

    /// Does not return changes of these tables that the initial copy has already loaded: those that the snapshot shows.
    pub fn pass_over(&mut self, copied: &[(String, Snapshot)]) {
        Arc::make_mut(&mut self.queries).pass_over(copied);
    }

    /// Returns the pending rows above an id, of late transactions above an id of their own, and the query's snapshot.
    pub fn look(
        &mut self,
        master: &mut Session,
        above: LogId,
        late: impl Iterator<Item = (Txid, LogId)>,
        base: Option<&Snapshot>,
    ) -> Result<(Snapshot, Vec<LogEntry>)> {
        let (late, bounds) = late.map(|(late, bound)| (late.to_string(), bound.0)).unzip();
        let (shown, entries) = self.pending(master, (above, FIRST_READ), None, base, &(late, bounds), &[])?;
        let snapshot = Snapshot::parse(&shown)
            .ok_or_else(|| unexpected(&format!("the server sent a snapshot that is none: {shown}")))?;
        Ok((snapshot, entries))
    }

    /// Returns the pending rows that the snapshot of a former look shows.
    pub fn window(&mut self, master: &mut Session, window: &Window) -> Result<Vec<LogEntry>> {
        let Window { above, rows, snapshot, base, apart } = window;
        let (_, entries) =
            self.pending(master, (*above, *rows), Some(snapshot), base.as_ref(), &Default::default(), apart)?;
        Ok(entries)
    }

    /// If the master cannot send the payload of a row, reads all rows without it: `bring` finds out which one it is.
    fn pending(
        &mut self,
        master: &mut Session,
        range: (LogId, i64),
        snapshot: Option<&Snapshot>,
        base: Option<&Snapshot>,
        late: &(Vec<String>, Vec<i64>),
        apart: &[String],
    ) -> Result<(String, Vec<LogEntry>)> {
        match self.listed(master, range, snapshot, base, late, (apart, LITTLE_ROWS)) {
            Err(error) if error.is_of_encoding() => self.listed(master, range, snapshot, base, late, (apart, 0)),
            listed => listed,
        }
    }

    fn listed(
        &mut self,
        master: &mut Session,
        (above, rows): (LogId, i64),
        snapshot: Option<&Snapshot>,
        base: Option<&Snapshot>,
        (late, bounds): &(Vec<String>, Vec<i64>),
        (apart, little): (&[String], i64),
    ) -> Result<(String, Vec<LogEntry>)> {
        let (snapshot, base) = (snapshot.map(Snapshot::as_str), base.map(Snapshot::as_str));
        let (skip_user, slave_identity, tables) =
            (self.skip_user.clone(), self.slave_identity.clone(), self.tables.clone());
        let parameters: [&(dyn session::ToSql + Sync); 12] = [
            &above.0,
            &skip_user,
            &slave_identity,
            &rows,
            &snapshot,
            &base,
            late,
            bounds,
            &apart,
            &little,
            &LITTLE_BYTES,
            &tables,
        ];
        let (mut shown, mut entries, mut damaged) = (None, Vec::new(), None);
        let queries = self.queries.clone();
        master.each("read the log", &queries.pending, &parameters, |row| {
            match row.get::<_, Option<&str>>("snapshot") {
                Some(snapshot) => shown = Some(snapshot.to_string()),
                None => match self.entry(row) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => damaged = Some(error),
                },
            }
        })?;
        if let Some(error) = damaged {
            return Err(error);
        }
        let shown = shown.ok_or_else(|| unexpected("the server sent no snapshot"))?;
        entries.sort_unstable_by_key(|entry| entry.id);
        Ok((shown, entries))
    }

    /// The next rows of a transaction that was not read as a whole.
    fn page(&mut self, master: &mut Session, txid: Txid, above: LogId, last: LogId) -> Result<Vec<LogEntry>> {
        let mut read = |small: i32| {
            master.query(
                "read the log",
                &self.queries.page,
                &[
                    &above.0,
                    &self.skip_user,
                    &self.slave_identity,
                    &(CHUNK_ROWS as i64),
                    &txid.to_string(),
                    &last.0,
                    &small,
                    &self.tables,
                ],
            )
        };
        let rows = match read(SMALL_BYTES) {
            Err(error) if error.is_of_encoding() => read(-1)?,
            rows => rows?,
        };
        rows.into_iter().map(|row| self.entry(row)).collect()
    }

    /// Records that these changes are skipped because their flags are set. So a slave that is restored later does not
    /// get them either.
    pub fn note_flagged(&self, master: &mut Session, pair: &str, transactions: &[Transaction]) -> Result<()> {
        let (mut ids, mut txids) = (Vec::new(), Vec::new());
        for transaction in transactions {
            match transaction {
                Transaction::Listed(entries) => {
                    ids.extend(entries.iter().filter(|entry| entry.flagged).map(|entry| entry.id.0));
                }
                Transaction::Spread { txid, flagged: true, .. } => txids.push(txid.to_string()),
                Transaction::Spread { .. } => {}
            }
        }
        if ids.is_empty() && txids.is_empty() {
            return Ok(());
        }
        master.execute("note what is skipped", &self.skipped, &[&pair, &ids, &txids]).map(drop)
    }

    /// Fetches the changes with these ids, in this order, without those whose flag is set.
    pub fn fetch(&mut self, master: &mut Session, ids: impl Iterator<Item = LogId>) -> Result<Vec<Change>> {
        self.complete(master, ids.map(|id| (id, None)))
    }

    /// Does the same if some of the changes have been read already.
    fn complete(
        &mut self,
        master: &mut Session,
        rows: impl Iterator<Item = (LogId, Option<Arc<Change>>)>,
    ) -> Result<Vec<Change>> {
        let (mut changes, mut away) = (Vec::new(), Vec::new());
        for (id, change) in rows {
            if change.is_none() {
                away.push((id, changes.len()));
            }
            changes.push(change.map(Arc::unwrap_or_clone));
        }
        if !away.is_empty() {
            away.sort_unstable();
            self.bring(master, &away, &mut changes)?;
        }
        Ok(changes.into_iter().flatten().collect())
    }

    /// Fetches the changes with these ids, which are sorted, and puts each into its place.
    fn bring(&mut self, master: &mut Session, away: &[(LogId, usize)], changes: &mut [Option<Change>]) -> Result<()> {
        let runs = away.chunk_by(|a, b| a.0.0 + 1 == b.0.0);
        let (first, last): (Vec<i64>, Vec<i64>) = runs.map(|run| (run[0].0.0, run[run.len() - 1].0.0)).unzip();
        let rows = match master.query("fetch changes", &self.queries.fetch, &[&first, &last]) {
            Err(error) if error.is_of_encoding() => return self.bring_each(master, away, changes),
            rows => rows?,
        };
        if rows.len() != away.len() {
            return Err(unexpected("changes vanished from the log while they were being replayed"));
        }
        for row in rows {
            let row = Arc::new(row);
            let id = LogId(row.get("id"));
            let known = away.binary_search_by_key(&id, |(id, _)| *id);
            let place = away[known.map_err(|_| unexpected("the server sent a change that was not asked for"))?].1;
            if !row.get::<_, bool>("skip") {
                changes[place] = Some(self.change(&row)?);
            }
        }
        Ok(())
    }

    /// A row that a query has listed, with its payload if the query has returned it.
    fn entry(&mut self, row: session::Row) -> Result<LogEntry> {
        let stored = row.get::<_, i32>("size") as usize;
        let is_whole = row.get::<_, Option<&str>>("event").is_some();
        Ok(LogEntry {
            id: LogId(row.get("id")),
            txid: Txid(row.get::<_, session::Xid8>("txid").0),
            size: if stored > COMPRESSED_FROM { stored * COMPRESSION } else { stored },
            skip: row.get("skip"),
            flagged: row.get::<_, Option<bool>>("flagged").unwrap_or(false),
            change: if is_whole { Some(Arc::new(self.change(&Arc::new(row))?)) } else { None },
        })
    }

    fn change(&mut self, row: &Arc<session::Row>) -> Result<Change> {
        let letter: &str = row.get("event");
        let event = Event::from_letter(letter)
            .ok_or_else(|| unexpected(&format!("the log has an event '{letter}' that this version does not know")))?;
        let relation: &str = row.get("relation");
        Ok(Change {
            id: LogId(row.get("id")),
            txid: Txid(row.get::<_, session::Xid8>("txid").0),
            event,
            relation: relation.to_string(),
            old: self.columns(row, "old", relation)?,
            new: self.columns(row, "new", relation)?,
            sql: row.get("sql"),
            origin: row.get("origin"),
        })
    }

    fn columns(&mut self, row: &Arc<session::Row>, side: &str, relation: &str) -> Result<Row> {
        if !self.is_packed {
            return Ok(columns(row.get(side), relation, &mut self.lists));
        }
        let packed = row.get::<_, Option<&[u8]>>(side).unwrap_or_default();
        let pairs = row::unpack(packed).ok_or_else(|| unexpected("the log has a row that is no hstore"))?;
        let names = self.lists.names(relation, pairs.iter().map(|(name, _)| *name));
        if packed.len() < LARGE_BYTES {
            return Ok(Row::new(names, pairs.iter().map(|(_, value)| *value)));
        }
        let values: Vec<Option<&str>> = pairs.iter().map(|(_, value)| *value).collect();
        let column = row.columns().iter().position(|column| column.name() == side);
        let column = column.ok_or_else(|| unexpected("a column is missing"))?;
        Ok(Row::sent(names, row, column, &values))
    }
}

impl LargeRows {
    fn open(&self) -> Result<Session> {
        let mut session = connect::connect(Side::Master, &self.server, &self.label)?;
        self.control.watch(session.watched());
        session.message("set the session up", sql::READ_BY_INDEX)?;
        Ok(session)
    }
}

/// Makes a row from a list of name, value, name, value.
pub fn columns(pairs: Option<Vec<Option<&str>>>, relation: &str, lists: &mut ColumnLists) -> Row {
    let pairs = pairs.unwrap_or_default();
    let names = pairs.iter().step_by(2).map(|name| name.unwrap_or_default());
    Row::new(lists.names(relation, names), pairs.iter().skip(1).step_by(2).copied())
}

fn unexpected(what: &str) -> Error {
    Error::new(Kind::Internal, Some(Side::Master), "replay the log", what)
        .with_hint("does another program write to replica_log? everything is rolled back and tried again")
}
