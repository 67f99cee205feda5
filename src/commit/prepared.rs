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
    /// By the role of the session that asked.
    pub is_own: bool,
}

impl Prepared {
    /// The number, if it is a batch of this family. The name alone proves nothing: another role may have prepared it.
    pub fn batch_of(&self, family: &GidFamily) -> Option<BatchNumber> {
        family.number(self.side, &self.gid).filter(|_| self.is_here && self.is_own)
    }

    /// May it be a batch of the slave with this field? Only the master tells which log a batch is from.
    pub fn may_be_batch_of(&self, field: &str) -> bool {
        self.is_here && Gid::parse(self.side, &self.gid).is_some_and(|gid| gid.field == field)
    }

    /// Has another role given its transaction the name of a batch of this slave?
    pub fn is_forged(&self, field: &str) -> bool {
        !self.is_own && self.may_be_batch_of(field)
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
        is_own: row.get("own"),
    });
    Ok(prepared.collect())
}
