//! Settling what a broken batch left behind: our own at every connect, another slave's when it is in our way.

use super::{Link, MARKS, Protocol, finish};
use crate::db::Session;
use crate::error::{Error, Kind, Result};
use crate::extent::{self, Extent};
use crate::names::{BatchNumber, LogId, Side, quote_literal};
use crate::order::Unit;
use crate::recovery::{Action, Neighbour, decide};
use crate::sql;
use std::collections::{BTreeMap, BTreeSet};

impl Protocol {
    /// Settles whatever a former connection left behind.
    pub fn recover(&mut self, link: &mut Link) -> Result<()> {
        let on_master = self.prepared(&mut link.master)?;
        let on_slave = self.prepared(&mut link.slave)?;
        let numbers: BTreeSet<BatchNumber> = on_master.keys().chain(on_slave.keys()).copied().collect();
        for number in numbers {
            let committed = self.committed(&mut link.master)?;
            let (there, here) = (on_master.get(&number), on_slave.get(&number));
            let Some(action) = decide(number, there.is_some(), here.is_some(), committed) else { continue };
            log::warn!(target: &self.name, "Recovering batch {number}: {action}");
            let command = match action {
                Action::CommitBoth | Action::CommitSlave => "COMMIT PREPARED",
                Action::RollBackMaster | Action::RollBackSlave => "ROLLBACK PREPARED",
            };
            // Every action is about all that is prepared; the master goes first.
            for (session, gid) in [(&mut link.master, there), (&mut link.slave, here)] {
                if let Some(gid) = gid {
                    finish(session, command, number, gid)?;
                }
            }
        }
        self.recover_progress(link)
    }

    /// Another slave's batch, prepared on the master, holds the marks that we wait for. If its daemon is not running it
    /// may do so for ever. Whoever holds a slave's lock is that slave's daemon, so we take its lock and do what it would
    /// do if its slave had prepared nothing: roll back. That is right even if its slave has prepared its part: the
    /// slave commits only after the master, so it has not; and when its daemon comes back, it finds the master's row
    /// with another number and rolls the slave back too.
    pub(super) fn settle_neighbours(&self, master: &mut Session) -> Result<()> {
        let rows = master.query("look for in-doubt transactions", sql::PREPARED, &[])?;
        for gid in rows.iter().map(|row| row.get::<_, String>(0)) {
            let Some(Neighbour { field, number }) = self.gids.neighbour(&gid) else { continue };
            if !master.query_one("lock the other slave", sql::LOCK_SLAVE, &[&field])?.get::<_, bool>(0) {
                log::warn!(target: &self.name, "Waiting for slave {field}, which is committing batch {number}");
                continue;
            }
            let rolled_back = master.message("roll back", &format!("ROLLBACK PREPARED {}", quote_literal(&gid)));
            master.query("unlock the other slave", sql::UNLOCK_SLAVE, &[&field])?;
            match rolled_back {
                Ok(_) => log::warn!(
                    target: &self.name,
                    "Slave {field} left batch {number} in doubt and its daemon is not running: rolled back on the \
                     master, to be replayed when it is back"
                ),
                Err(error) => log::warn!(
                    target: &self.name,
                    "Waiting for slave {field}, which left batch {number} in doubt: {error}. hint: start its daemon"
                ),
            }
        }
        Ok(())
    }

    /// This slave's transactions that a server keeps prepared; a gid may hold a former name of the pair.
    fn prepared(&self, session: &mut Session) -> Result<BTreeMap<BatchNumber, String>> {
        let rows = session.query("look for in-doubt transactions", sql::PREPARED, &[])?;
        let gids = rows.iter().map(|row| row.get::<_, String>(0));
        Ok(gids.filter_map(|gid| Some((self.gids.number(session.side(), &gid)?, gid))).collect())
    }

    /// Without two-phase commit: makes the marks that the master lost.
    fn recover_progress(&self, link: &mut Link) -> Result<()> {
        let Some(master) = &self.progress else { return Ok(()) };
        let row = link.slave.query_one("read the progress", sql::PROGRESS, &[master])?;
        let (progress, changes): (i64, String) = (row.get("batch"), row.get("changes"));
        let committed = self.committed(&mut link.master)?;
        if progress <= committed.0 {
            // Numbers that the slave never saw: batches of skipped changes, or of two-phase commit before.
            return link
                .slave
                .execute("note the progress", sql::NOTE_PROGRESS, &[master, &committed.0, &"", &progress])
                .map(drop);
        }
        log::warn!(target: &self.name, "Recovering batch {progress}: committed on the slave: mark it on the master");
        let extents = extent::decode(&changes).ok_or_else(|| {
            Error::new(Kind::Internal, Some(Side::Slave), "read the progress", "replica_progress.changes is damaged")
        })?;
        link.master.message("begin a transaction", "BEGIN")?;
        for extent in extents {
            mark_extent(link, extent)?;
        }
        link.master.query_one("note the batch", sql::NOTE_BATCH, &[&self.field, &progress])?;
        link.master.message("commit", "COMMIT").map(drop)
    }
}

fn mark_extent(link: &mut Link, extent: Extent) -> Result<()> {
    match extent {
        Extent::Ids(first, last) => {
            let mut next = first;
            while next <= last {
                let end = last.min(next + MARKS as i64 - 1);
                link.log.mark_remaining(&mut link.master, &(next..=end).collect::<Vec<i64>>())?;
                next = end + 1;
            }
        }
        Extent::Transaction(txid, first, last) => {
            let unit = Unit::Spread { txid, first, last, rows: 0 };
            let mut above = LogId(first.0 - 1);
            loop {
                let page = link.log.page(&mut link.master, &unit, above)?;
                let Some(end) = page.last() else { break };
                above = end.id;
                link.log.mark_remaining(&mut link.master, &page.iter().map(|entry| entry.id.0).collect::<Vec<_>>())?;
            }
        }
    }
    Ok(())
}
