//! What the daemons have prepared on the slave: the position may cover it already, although no row shows it yet.

use crate::base::error::Result;
use crate::commit::prepared::{Prepared, prepared};
use crate::compare::servers::Servers;
use crate::server::session::Session;
use std::collections::HashSet;
use std::time::Duration;

/// How often, and with which pause, to check whether prepared batches are committed. A batch in doubt stays prepared.
const PREPARED_TRIES: u32 = 50;
const PREPARED_PAUSE: Duration = Duration::from_millis(20);

/// Waits until everything that is prepared on the slave now is committed or rolled back. False if some of it stays
/// prepared.
pub fn wait_for_prepared(servers: &mut Servers) -> Result<bool> {
    let mut waited_for = batches(servers.slave())?;
    for _ in 0..PREPARED_TRIES {
        if waited_for.is_empty() {
            return Ok(true);
        }
        servers.pause(PREPARED_PAUSE)?;
        let left = batches(servers.slave())?;
        waited_for.retain(|gid| left.contains(gid));
    }
    Ok(waited_for.is_empty())
}

/// The batches that the daemons have prepared on the slave.
fn batches(slave: &mut Session) -> Result<HashSet<String>> {
    let batches = prepared(slave)?.into_iter().filter(Prepared::is_batch);
    Ok(batches.map(|batch| batch.gid).collect())
}
