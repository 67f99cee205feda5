//! What the daemons have prepared on the slave: a position may cover it already, while no row shows it yet.

use crate::base::error::Result;
use crate::commit::prepared::{Prepared, prepared};
use crate::compare::servers::Servers;
use crate::server::session::Session;
use std::collections::HashSet;
use std::time::Duration;

/// How long the wait for what is prepared on the slave takes at most; in doubt, it stays.
const PREPARED_TRIES: u32 = 50;
const PREPARED_PAUSE: Duration = Duration::from_millis(20);

/// Waits for what is prepared on the slave by now; false if some of it stays so.
pub fn prepared_is_over(both: &mut Servers) -> Result<bool> {
    let mut waited_for = batches(both.slave())?;
    for _ in 0..PREPARED_TRIES {
        if waited_for.is_empty() {
            return Ok(true);
        }
        both.pause(PREPARED_PAUSE)?;
        let left = batches(both.slave())?;
        waited_for.retain(|gid| left.contains(gid));
    }
    Ok(waited_for.is_empty())
}

/// What the daemons have prepared on the slave.
fn batches(slave: &mut Session) -> Result<HashSet<String>> {
    let batches = prepared(slave)?.into_iter().filter(Prepared::is_batch);
    Ok(batches.map(|batch| batch.gid).collect())
}
