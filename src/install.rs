//! `pyreplica install`: prepares a master for replication.

use crate::dial;
use crate::dsn::Dsn;
use crate::error::Result;
use crate::names::Side;
use crate::sql;

/// Runs the embedded master script, creates the triggers, and returns the lines to print.
pub fn run(dsn: &Dsn) -> Result<Vec<String>> {
    let mut master = dial::connect(Side::Master, dsn, "install")?;
    if let Err(error) = master.message("install the log and its trigger", sql::MASTER_INSTALL) {
        // The script is one transaction, which the error has left open.
        master.message("roll back", "ROLLBACK").ok();
        return Err(error);
    }
    let rows = master.query("create the triggers", sql::CREATE_TRIGGERS, &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
