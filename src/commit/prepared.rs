//! What a server keeps prepared, and which of it are batches.

use crate::base::error::Result;
use crate::base::names::{BatchNumber, Side};
use crate::commit::recovery::{Gid, GidFamily};
use crate::commit::sql;
use crate::server::session::Session;
use std::time::Duration;

/// A prepared transaction, of whatever owner and database.
pub struct Prepared {
    pub side: Side,
    pub gid: String,
    pub database: String,
    pub owner: String,
    pub age: Duration,
    /// In the database of the session that asked.
    pub is_here: bool,
}

impl Prepared {
    /// The number, if it is a batch of this family.
    pub fn batch_of(&self, family: &GidFamily) -> Option<BatchNumber> {
        family.number(self.side, &self.gid).filter(|_| self.is_here)
    }

    /// May it be a batch of the slave with this field? Only the master tells which log a batch is from.
    pub fn may_be_batch_of(&self, field: &str) -> bool {
        self.is_here && Gid::parse(self.side, &self.gid).is_some_and(|gid| gid.field == field)
    }

    /// Is it some daemon's batch?
    pub fn is_batch(&self) -> bool {
        self.is_here && Gid::parse(self.side, &self.gid).is_some()
    }
}

/// Everything that is prepared on a server, the oldest first.
pub fn prepared(session: &mut Session) -> Result<Vec<Prepared>> {
    let side = session.side();
    let rows = session.query("look for prepared transactions", sql::PREPARED, &[])?;
    let prepared = rows.iter().map(|row| Prepared {
        side,
        gid: row.get("gid"),
        database: row.get("database"),
        owner: row.get("owner"),
        age: Duration::from_secs(row.get::<_, i64>("age").max(0) as u64),
        is_here: row.get("here"),
    });
    Ok(prepared.collect())
}
