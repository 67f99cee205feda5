//! How far a slave is behind.

use super::seconds;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::health::sql;
use crate::server::session::{Row, Session};
use crate::server::sql as server_sql;
use std::time::Duration;

/// How many rows of the log are read. That takes some tenths of a second. The number of further rows is estimated from
/// the ids.
const LOOK_ROWS: i64 = 100_000;

/// How far the slave is behind.
#[derive(Debug)]
pub struct Lag {
    pub changes: u64,
    pub count: Count,
    /// The age of the oldest change that waits. Zero if none waits.
    pub seconds: f64,
    pub batch: i64,
    pub replayed_at: Option<String>,
    /// The time since `replayed_at`.
    pub idle: Option<Duration>,
    /// The last change that was replayed, and its transaction if the log still has it.
    pub last: Option<i64>,
    pub transaction: Option<String>,
    /// The newest change of the log.
    pub highest: i64,
    pub log_bytes: u64,
}

impl Lag {
    /// How many changes wait, in words.
    pub fn amount(&self) -> String {
        match self.count {
            Count::Exact => self.changes.to_string(),
            Count::AtLeast => format!("{} or more", self.changes),
            Count::About => format!("about {}", self.changes),
        }
    }
}

/// How exact the number of waiting changes is. Of a long log only both ends are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Exact,
    /// The part that was not read lies before the last change that was replayed. Few changes of it can wait, if any.
    AtLeast,
    /// Estimated from the ids.
    About,
}

/// How far the slave has come, and when its last batch was committed, by the master's clock.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub batch: i64,
    pub last: i64,
    pub committed_at: f64,
}

/// Reads how far the slave has come. The rate follows from two calls. None before the first batch.
pub fn progress(master: &mut Session, field: &str) -> Result<Option<Progress>> {
    let rows = master.query("look how far the slave is", sql::PROGRESS, &[&field])?;
    Ok(rows.first().and_then(|row| {
        let last: Option<i64> = row.get("last");
        Some(Progress {
            batch: row.get("batch"),
            last: last?,
            committed_at: row.get::<_, Option<f64>>("committed_at")?,
        })
    }))
}

pub(super) fn of(master: &mut Session, field: &str) -> Result<Lag> {
    let columns = master.query("look at the log's columns", server_sql::SLAVE_FIELDS, &[])?;
    if !columns.iter().any(|row| row.get::<_, &str>(0) == field) {
        let what = format!("replica_log has no column for SLAVE_FIELD={field}");
        let hint = format!("on the master: SELECT py_log_add_slave({});", quote_literal(field));
        return Err(Error::new(Kind::Setup, Some(Side::Master), "read the log", what)
            .of_standby(master.is_standby())
            .with_hint(hint));
    }
    let row = master.query_one("look how far the slave is", &sql::lag(field), &[&field, &LOOK_ROWS])?;
    let (changes, count) = count(&row);
    let has_replayed = row.get::<_, i64>("batch") > 0;
    Ok(Lag {
        changes,
        count,
        seconds: row.get::<_, Option<f64>>("seconds").filter(|_| changes > 0).unwrap_or(0.0).max(0.0),
        batch: row.get("batch"),
        replayed_at: row.get::<_, Option<String>>("replayed_at").filter(|_| has_replayed),
        idle: row.get::<_, Option<f64>>("idle").filter(|_| has_replayed).map(seconds),
        last: row.get("last"),
        transaction: row.get("txid"),
        highest: row.get("highest"),
        log_bytes: row.get::<_, i64>("size") as u64,
    })
}

/// The number of changes that wait, from the two ends of the log that were read.
fn count(row: &Row) -> (u64, Count) {
    let (pending, newest): (i64, i64) = (row.get("pending"), row.get("newest"));
    let (seen, lowest, highest): (i64, i64, i64) = (row.get("seen"), row.get("lowest"), row.get("highest"));
    let last = row.get::<_, Option<i64>>("last").unwrap_or(0);
    let (changes, count) = if !row.get::<_, bool>("is_cut") {
        (pending, Count::Exact)
    } else if lowest <= seen + 1 {
        (pending + newest, Count::Exact)
    } else if newest > 0 && lowest > seen.max(last) + 1 {
        (pending + (highest - seen.max(last)).max(newest), Count::About)
    } else {
        (pending + newest, Count::AtLeast)
    };
    (changes.max(0) as u64, count)
}
