//! What the daemon has recorded of its failures on the master, for `pyreplica status`.

use crate::base::error::Result;
use crate::pair::sql;
use crate::server::session::Session;

/// Whether the daemon's role may record a failure. Earlier versions had no table for that.
pub fn may_record(master: &mut Session) -> Result<bool> {
    Ok(master.query_one("look for recorded errors", sql::MAY_RECORD_ERRORS, &[])?.get(0))
}

/// Notes that the last failure is over: everything pending has been replayed. If that fails, it only writes to the log.
pub fn is_over(name: &str, field: &str, master: &mut Session) {
    let mut note = || -> Result<()> {
        if may_record(master)? {
            master.execute("record the recovery", sql::RECORD_RECOVERY, &[&field])?;
        }
        Ok(())
    };
    if let Err(error) = note() {
        log::debug!(target: name, "{error}");
    }
}
