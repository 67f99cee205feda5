//! Reads a server's prepared transactions, and says which of them are batches.

use crate::base::error::Result;
use crate::base::names::{BatchNumber, Side};
use crate::commit::recovery::{Gid, GidFamily};
use crate::commit::sql;
use crate::server::session::Session;
use std::time::Duration;

/// A prepared transaction of any role and any database.
pub struct Prepared {
    pub side: Side,
    pub gid: String,
    pub database: String,
    pub owner: String,
    pub age: Duration,
    /// In the database of this session.
    pub is_here: bool,
    /// Prepared by the role of this session.
    pub is_own: bool,
}

impl Prepared {
    /// The number, if it is a batch of this family. The name alone is not enough: another role may have used it.
    pub fn batch_of(&self, family: &GidFamily) -> Option<BatchNumber> {
        family.number(self.side, &self.gid).filter(|_| self.is_here && self.is_own)
    }

    /// Whether it may be a batch of the slave with this field. Which log a batch is from only the master knows.
    pub fn may_be_batch_of(&self, field: &str) -> bool {
        self.is_here && Gid::parse(self.side, &self.gid).is_some_and(|gid| gid.field == field)
    }

    /// Whether another role has given its transaction the name of a batch of this slave.
    pub fn is_forged(&self, field: &str) -> bool {
        !self.is_own && self.may_be_batch_of(field)
    }

    /// Whether it is a batch of any daemon.
    pub fn is_batch(&self) -> bool {
        self.is_here && Gid::parse(self.side, &self.gid).is_some()
    }
}

/// All prepared transactions of a server, the oldest first.
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
