//! Settling what a broken batch left behind.

use super::{Pair, finish};
use crate::backlog::position::Position;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, Side};
use crate::commit::prepared::prepared;
use crate::commit::recovery::{Settlement, decide};
use crate::commit::sql;
use crate::server::session::ToSql;
use std::collections::{BTreeMap, BTreeSet};

impl Pair {
    /// Settles whatever a former connection left behind.
    pub fn recover(&mut self) -> Result<()> {
        let on_master = self.prepared(Side::Master)?;
        let on_slave = self.prepared(Side::Slave)?;
        let numbers: BTreeSet<BatchNumber> = on_master.keys().chain(on_slave.keys()).copied().collect();
        for number in numbers {
            let committed = self.committed()?;
            let (there, here) = (on_master.get(&number), on_slave.get(&number));
            let Some(action) = decide(number, there.is_some(), here.is_some(), committed) else { continue };
            log::warn!(target: &self.name, "Recovering batch {number}: {action}");
            let command = match action {
                Settlement::CommitBoth | Settlement::CommitSlave => "COMMIT PREPARED",
                Settlement::RollBackMaster | Settlement::RollBackSlave => "ROLLBACK PREPARED",
            };
            // Every action is about all that is prepared; the master goes first.
            for (session, gid) in [(&mut self.master, there), (&mut self.slave, here)] {
                if let Some(gid) = gid {
                    finish(session, command, number, gid)?;
                }
            }
        }
        self.recover_progress()?;
        // What was in doubt may have been a batch that put something there.
        self.replayer.holds.read_quarantine(&mut self.slave)
    }

    /// This slave's transactions that a server keeps prepared; a gid may hold a former name of the pair.
    fn prepared(&mut self, side: Side) -> Result<BTreeMap<BatchNumber, String>> {
        let found = prepared(self.session(side))?;
        Ok(found.into_iter().filter_map(|found| Some((found.batch_of(&self.gids)?, found.gid))).collect())
    }

    /// Without two-phase commit: copies the position that the master lost.
    fn recover_progress(&mut self) -> Result<()> {
        if self.two_phase {
            return Ok(());
        }
        let row = self.slave.query_one("read the progress", sql::PROGRESS, &[&self.key])?;
        let (progress, position): (i64, String) = (row.get("batch"), row.get("position"));
        let committed = self.committed()?;
        if progress <= committed.0 {
            // Numbers that the slave never saw: batches of two-phase commit before.
            let parameters: [&(dyn ToSql + Sync); 4] = [&self.key, &committed.0, &"", &progress];
            return self.slave.execute("note the progress", sql::NOTE_PROGRESS, &parameters).map(drop);
        }
        log::warn!(target: &self.name, "Recovering batch {progress}: committed on the slave: note it on the master");
        let position = Position::decode(BatchNumber(progress), &position).ok_or_else(|| {
            Error::new(Kind::Internal, Some(Side::Slave), "read the progress", "replica_progress.position is damaged")
        })?;
        self.log.progress.write(&mut self.master, &position, committed)
    }
}
