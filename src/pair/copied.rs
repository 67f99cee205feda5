//! What an initial copy has loaded on the slave: the table `replica_copy` there.
//!
//! A table's rows are loaded by one transaction, which also notes the master's snapshot that they are from. As long as some
//! table is still to be loaded, no daemon may replicate to the slave. The tables of one run share a snapshot; a run that
//! continues an interrupted one has another snapshot. When all tables are loaded, the earliest snapshot becomes the slave's
//! position. So the daemon replays everything that this snapshot does not show, except changes of a table that the table's
//! own, later snapshot shows: it passes over these, until the position covers that snapshot too.
//!
//! This is correct for each transaction: what it changed in a table is either in the rows that were copied, or is replayed.
//! While the position lies between the earliest and the latest snapshot, the slave may show one table at an earlier time
//! than another.
//!
//! After a crash, a master gives the numbers of transactions that had written nothing to its disk to new transactions, and
//! a snapshot from before the crash takes these for finished. So after each snapshot the copy commits a transaction that
//! does write to disk, before it relies on the snapshot.

use crate::backlog::snapshot::Snapshot;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, Side};
use crate::pair::sql;
use crate::server::ours;
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
    /// To be loaded.
    Wanted,
    /// Loaded, while other tables are not.
    Loaded,
    /// To be loaded, while the daemon holds the table's changes.
    Held,
    /// Loaded; the daemon passes over the changes that the snapshot shows.
    Passing,
}

/// A copy of all tables that has begun and not ended.
#[derive(Debug)]
pub struct Unfinished {
    pub tables: u64,
    pub loaded: u64,
    pub since: String,
    /// Indexes, constraints and more that are to be made when all tables are loaded.
    pub remaining: u64,
}

impl Unfinished {
    /// The text for a copy that is running now.
    pub fn in_progress(&self) -> String {
        format!(
            "a copy to this slave has been in progress since {}: {} of {} tables are there{}",
            self.since,
            self.loaded,
            self.tables,
            self.missing()
        )
    }

    fn missing(&self) -> String {
        match self.remaining {
            0 => String::new(),
            remaining => format!(", {remaining} indexes, constraints and the like are still to be made"),
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self, source: &str) -> String {
        format!(
            "run pyreplica copy {source} again: it goes on where it was interrupted; with --restart --truncate it starts \
             over. docs/copy.md says how to give it up"
        )
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a copy to this slave is unfinished since {}: {} of {} tables are there{}, and no daemon replicates to it",
            self.since,
            self.loaded,
            self.tables,
            self.missing()
        )
    }
}

/// The unfinished copy of all tables, which keeps daemons from replicating. None if there is none, or the role may not read
/// the table.
pub fn unfinished(slave: &mut Session, key: &str) -> Result<Option<Unfinished>> {
    if !ours::may_read(slave, &["replica_copy"])? {
        return Ok(None);
    }
    let row = slave.query_one("look for a copy", sql::UNFINISHED_COPY, &[&key])?;
    let since: Option<String> = row.get("since");
    let count = |name| row.get::<_, i64>(name) as u64;
    let (tables, loaded) = (count("tables"), count("loaded"));
    let Some(since) = since else { return Ok(None) };
    let remaining = match ours::may_read(slave, &["replica_copy_schema"])? {
        true => slave.query_one("look for a copy", sql::COUNT_SCHEMA_NOTES, &[&key])?.get::<_, i64>(0) as u64,
        false => 0,
    };
    Ok(Some(Unfinished { tables, loaded, since, remaining }))
}

impl Copied {
    /// While there is such a table, a copy of all tables is in progress or was interrupted.
    pub fn is_of_unfinished_copy(&self) -> bool {
        self.is_whole && matches!(self.state, State::Wanted | State::Loaded)
    }
}

/// The tables that were copied with a later snapshot than `base`, the slave's position, each with that snapshot: the daemon passes
/// over what it shows. Deletes the rows of tables whose snapshot it covers. An error if a copy is unfinished.
pub fn later_snapshots(slave: &mut Session, key: &str, base: Option<&Snapshot>) -> Result<Vec<(String, Snapshot)>> {
    let copied = read(slave, key)?;
    let wanted = copied.iter().filter(|table| table.state == State::Wanted).count();
    let loaded = copied.iter().filter(|table| table.state == State::Loaded).count();
    if wanted + loaded > 0 {
        let mut detail =
            format!("a copy to this slave is unfinished: {loaded} of {} tables are there", wanted + loaded);
        if wanted == 0 {
            detail += ", and the copy has not ended";
        }
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

/// Everything that is noted about copies from this master.
pub fn read(slave: &mut Session, key: &str) -> Result<Vec<Copied>> {
    if !ours::has(slave, "replica_copy")? {
        return Ok(Vec::new());
    }
    let rows = slave.query("look for a copy", sql::COPIED, &[&key])?;
    let copied = rows.iter().map(|row| {
        let snapshot = row.get::<_, Option<&str>>("snapshot").map(|text| Snapshot::parse(text).ok_or_else(damaged));
        let state = match row.get::<_, &str>("state") {
            "wanted" => State::Wanted,
            "loaded" => State::Loaded,
            "held" => State::Held,
            "passing" => State::Passing,
            other => {
                let detail = format!("replica_copy has a state '{other}' that this version does not know");
                return Err(Error::new(Kind::Setup, Some(Side::Slave), "look for a copy", detail)
                    .with_hint("use the version of pyreplica that made the copy, or a later one; or copy anew"));
            }
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

/// Creates the table, unless it exists.
pub fn create(slave: &mut Session) -> Result<()> {
    if ours::has(slave, "replica_copy")? {
        return Ok(());
    }
    run_script(slave)
}

/// Creates the table in which a copy notes what of the schema is to be made after the rows, unless it exists.
pub fn create_schema_notes(slave: &mut Session) -> Result<()> {
    if ours::has(slave, "replica_copy_schema")? {
        return Ok(());
    }
    run_script(slave)
}

/// Whether there may be such notes. An error if there may be, and the role may not read them: what they name would be lost.
pub fn has_schema_notes(slave: &mut Session) -> Result<bool> {
    let has_rows = ours::has(slave, "replica_copy_schema")?
        && slave.query_one("look for a copy", sql::HAS_SCHEMA_NOTES, &[])?.get(0);
    if has_rows && !ours::may_read(slave, &["replica_copy_schema"])? {
        let detail =
            "an earlier copy may have left indexes and constraints to be made, and this role may not see which";
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "look for a copy", detail).with_hint(
            "run the copy as the owner of public.replica_copy_schema, or GRANT SELECT, DELETE on it to DSN1's role",
        ));
    }
    Ok(has_rows)
}

fn run_script(slave: &mut Session) -> Result<()> {
    slave.script("create the tables of the copy", sql::SLAVE_COPY).map_err(|error| {
        error.with_hint("run sql/slave-copy.sql on the slave as a role that may create tables in the schema public")
    })
}

/// The earliest snapshot, which all others cover: what it does not show has to be replayed for some table.
pub fn earliest(copied: &[Copied]) -> Option<Snapshot> {
    let snapshots = copied.iter().filter_map(|table| table.snapshot.as_ref());
    snapshots.reduce(|first, other| if first.covers(other) { other } else { first }).cloned()
}

fn damaged() -> Error {
    Error::new(Kind::Internal, Some(Side::Slave), "look for a copy", "replica_copy.snapshot is damaged")
}
