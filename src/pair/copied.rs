//! What an initial copy has brought to the slave: the table `replica_copy` there.
//!
//! A table's rows come with one transaction, which also notes the master's snapshot that they are from. As long as some
//! table is still wanted, no daemon may replicate to the slave. Tables that one run has copied share a snapshot; a run that
//! goes on where a former one was interrupted has another. When all tables are there, the earliest snapshot becomes the
//! slave's position, so everything is replayed that it does not show, save the changes of a table that its own, later
//! snapshot shows: those the daemon passes over, until the position covers that snapshot too.
//!
//! That is right for each transaction: what it changed in one table is either in the rows that were copied or replayed.
//! Between the earliest and the latest snapshot the slave may show one table as it was earlier than another.
//!
//! After a crash a master gives out the numbers of transactions that had left no trace on its disk anew, and a snapshot from
//! before takes those for over. So each snapshot is followed by a transaction that does leave one, before anything goes by it.

use crate::backlog::snapshot::Snapshot;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, Side};
use crate::pair::sql;
use crate::server::session::Session;
use std::fmt;

/// A table's row in `replica_copy`.
#[derive(Clone, Debug)]
pub struct Copied {
    pub relation: String,
    pub state: State,
    /// Part of a copy of all tables.
    pub is_whole: bool,
    /// The number in the slave's row on the master when that copy began.
    pub batch: BatchNumber,
    pub snapshot: Option<Snapshot>,
    pub rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Wanted,
    Loaded,
    /// To be loaded, while the daemon puts its changes aside.
    Held,
    Passing,
}

/// A copy of all tables that has begun and not ended.
#[derive(Debug)]
pub struct Unfinished {
    pub tables: u64,
    pub loaded: u64,
    pub since: String,
}

impl Unfinished {
    /// While somebody is at work on it.
    pub fn under_way(&self) -> String {
        format!(
            "a copy to this slave is under way since {}: {} of {} tables are there",
            self.since, self.loaded, self.tables
        )
    }

    /// What the operator can do about it.
    pub fn hint(&self, source: &str) -> String {
        format!(
            "run pyreplica copy {source} again: it goes on where it was interrupted; with --restart --truncate it begins \
             anew. docs/copy.md says how to give it up"
        )
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a copy to this slave is unfinished since {}: {} of {} tables are there, and no daemon replicates to it",
            self.since, self.loaded, self.tables
        )
    }
}

/// The copy of all tables that keeps daemons away. None if there is none, or the role may not look.
pub fn unfinished(slave: &mut Session, key: &str) -> Result<Option<Unfinished>> {
    if !slave.query_one("look for a copy", sql::MAY_SEE_COPY, &[])?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = slave.query_one("look for a copy", sql::UNFINISHED_COPY, &[&key])?;
    let since: Option<String> = row.get("since");
    let count = |name| row.get::<_, i64>(name) as u64;
    Ok(since.map(|since| Unfinished { tables: count("tables"), loaded: count("loaded"), since }))
}

impl Copied {
    /// While there is one such table, a copy of all is under way or was interrupted.
    pub fn is_of_unfinished_whole(&self) -> bool {
        self.is_whole && matches!(self.state, State::Wanted | State::Loaded)
    }
}

/// What the daemon is to pass over, whose position has this base. An error if a copy is unfinished.
pub fn passing(slave: &mut Session, key: &str, base: Option<&Snapshot>) -> Result<Vec<(String, Snapshot)>> {
    let copied = read(slave, key)?;
    let wanted = copied.iter().filter(|table| table.state == State::Wanted).count();
    let loaded = copied.iter().filter(|table| table.state == State::Loaded).count();
    if wanted + loaded > 0 {
        let detail = format!("a copy to this slave is unfinished: {loaded} of {} tables are there", wanted + loaded);
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "replicate", detail)
            .with_hint("run pyreplica copy again: it goes on where it was interrupted"));
    }
    let covered = |snapshot: &Snapshot| base.is_some_and(|base| base.covers(snapshot));
    let snapshots = copied.into_iter().filter_map(|table| Some((table.relation, table.snapshot?)));
    let (passed, passing): (Vec<_>, Vec<_>) = snapshots.partition(|(_, snapshot)| covered(snapshot));
    let passed: Vec<String> = passed.into_iter().map(|(relation, _)| relation).collect();
    if !passed.is_empty() {
        slave.execute("forget a copy", sql::FORGET_COPIES, &[&key, &passed])?;
    }
    Ok(passing)
}

/// Everything that has been noted of copies from this master.
pub fn read(slave: &mut Session, key: &str) -> Result<Vec<Copied>> {
    if !slave.query_one("look for a copy", sql::HAS_COPY, &[])?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = slave.query("look for a copy", sql::COPIED, &[&key])?;
    let copied = rows.iter().map(|row| {
        let snapshot = row.get::<_, Option<&str>>("snapshot").map(|text| Snapshot::parse(text).ok_or_else(damaged));
        let state = match row.get::<_, &str>("state") {
            "wanted" => State::Wanted,
            "loaded" => State::Loaded,
            "held" => State::Held,
            _ => State::Passing,
        };
        Ok(Copied {
            relation: row.get("relation"),
            state,
            is_whole: row.get("whole"),
            batch: BatchNumber(row.get("batch")),
            snapshot: snapshot.transpose()?,
            rows: row.get::<_, Option<i64>>("rows").unwrap_or(0) as u64,
        })
    });
    copied.collect()
}

/// Makes the table, unless it is there.
pub fn create(slave: &mut Session) -> Result<()> {
    if slave.query_one("look for a copy", sql::HAS_COPY, &[])?.get(0) {
        return Ok(());
    }
    slave.script("create the table replica_copy", sql::SLAVE_COPY).map_err(|error| {
        error.with_hint("run sql/slave-copy.sql there as somebody who may create tables in the schema public")
    })
}

/// The snapshot that all others cover: what is not in it has to be replayed for some table.
pub fn earliest(copied: &[Copied]) -> Option<Snapshot> {
    let snapshots = copied.iter().filter_map(|table| table.snapshot.as_ref());
    snapshots.reduce(|first, other| if first.covers(other) { other } else { first }).cloned()
}

fn damaged() -> Error {
    Error::new(Kind::Internal, Some(Side::Slave), "look for a copy", "replica_copy.snapshot is damaged")
}
