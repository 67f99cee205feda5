//! Changes that are large themselves.
//!
//! A large change is dropped as soon as its message is composed, so that memory does not hold it once more. If the slave then refuses the
//! message, the change is needed once more: the batch is rolled back, and replayed again without dropping anything.

use super::Replayer;
use crate::backlog::change::Change;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::server::session::Session;

/// From this size on a change is large.
const LARGE_BYTES: usize = 8 << 20;

/// What happens to a large change.
#[derive(Default, PartialEq)]
pub(super) enum Large {
    #[default]
    Kept,
    Dropped,
    /// One was dropped that is needed again.
    Missing,
}

impl Replayer {
    /// Large changes are dropped: the caller can read them again.
    pub fn dropping_large_changes(mut self) -> Replayer {
        self.drop_large_changes();
        self
    }

    /// From now on large changes are dropped.
    pub fn drop_large_changes(&mut self) {
        self.large = Large::Dropped;
    }

    /// Whether the last batch failed because a change was dropped. Then the next one is replayed without dropping any.
    pub fn has_dropped_change(&mut self) -> bool {
        let is_missing = self.large == Large::Missing;
        if is_missing {
            self.large = Large::Kept;
        }
        is_missing
    }

    /// The size of the largest row change since the last call: the buffers of the sessions have grown to it.
    pub fn take_largest(&mut self) -> usize {
        std::mem::take(&mut self.largest)
    }

    pub(super) fn may_drop(&self, changes: &[Change]) -> bool {
        self.large == Large::Dropped && changes.len() == 1 && changes[0].bytes() >= LARGE_BYTES
    }

    /// Replays a single change, which is dropped before it is sent.
    pub(super) fn without_change(&mut self, slave: &mut Session, changes: Vec<Change>) -> Result<()> {
        let (_, message) = self.compose(slave, &changes.iter().collect::<Vec<_>>())?;
        let id = changes[0].id;
        drop(changes);
        if self.send(slave, &message)? {
            return Ok(());
        }
        self.large = Large::Missing;
        let detail = "the slave did not take it as it was sent, so it is replayed again, by itself";
        Err(Error::new(Kind::Contention, Some(Side::Slave), format!("replay change {id}"), detail))
    }
}
