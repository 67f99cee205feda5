//! Checks that are NOT VALID: rows of the master may violate them. So the schema comes without them, and they are added when
//! the rows are there. A copy that was interrupted adds those that are still missing.

use crate::base::error::Result;
use crate::copy::sql;
use crate::server::session::Session;

pub struct NotValid {
    pub oid: u32,
    /// By which a list of pg_restore names a comment on it.
    pub comment: String,
    statement: String,
    schema: String,
    owner: String,
    name: String,
}

/// The master's checks that are NOT VALID.
pub fn read(master: &mut Session) -> Result<Vec<NotValid>> {
    let rows = master.query("look at the checks", sql::NOT_VALID, &[])?;
    Ok(rows
        .iter()
        .map(|row| NotValid {
            oid: row.get::<_, i64>("oid") as u32,
            comment: row.get("comment"),
            statement: row.get("statement"),
            schema: row.get("schema"),
            owner: row.get("plain"),
            name: row.get("name"),
        })
        .collect())
}

/// Adds those that the slave lacks, and returns how many. The slave may lack some of the tables too.
pub fn add(master: &mut Session, slave: &mut Session) -> Result<u64> {
    let mut added = 0;
    for check in read(master)? {
        let NotValid { schema, owner, name, .. } = &check;
        let row = slave.query_one("look at the checks", sql::LACKS_CHECK, &[schema, owner, name])?;
        if row.get(0) {
            slave.message("add a check that is NOT VALID", &check.statement)?;
            added += 1;
        }
    }
    Ok(added)
}
