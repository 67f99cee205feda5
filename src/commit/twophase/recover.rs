//! Settles what a former connection has left prepared, and makes sure that both servers have the same last batch.

use super::Pair;
use crate::backlog::master_row::MasterRow;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql as backlog_sql;
use crate::base::error::Result;
use crate::base::names::{BatchNumber, Side};
use crate::commit::agreement::{SlaveRow, Standing, refusal, refuse_if_purged, standing};
use crate::commit::prepared::prepared;
use crate::commit::recovery::{GidFamily, Settlement, decide};
use crate::commit::sql;
use crate::server::session::ToSql;
use std::collections::{BTreeMap, BTreeSet};

/// A prepared batch: its gids on the master and on the slave.
#[derive(Default)]
struct InDoubt {
    on_master: Option<String>,
    on_slave: Option<String>,
}

impl Pair {
    /// Settles what a former connection has left prepared. Afterwards both servers have the same last batch, or the
    /// slave has gone back to its own position. If neither is possible, it returns an error, and no position has
    /// changed.
    pub fn recover(&mut self) -> Result<()> {
        self.settle(true)?;
        let (master, slave) = self.rows()?;
        match standing(&master, slave.as_ref()) {
            Standing::Agreed => self.take_over(&master, slave.as_ref())?,
            Standing::CommittedOnSlave => self.commit_on_master(&master, slave.as_ref())?,
            Standing::Behind => self.go_back(&master, slave.as_ref())?,
            apart => return Err(refusal(apart, &master, slave.as_ref())),
        }
        // A batch that was in doubt may have put something into quarantine.
        self.replayer.holds.read_quarantine(&mut self.slave)
    }

    /// Does the same before a copy, which replaces what the slave has.
    pub fn recover_to_fill(&mut self) -> Result<()> {
        self.settle(false)?;
        let (master, slave) = self.rows()?;
        match standing(&master, slave.as_ref()) {
            Standing::Agreed => self.take_over(&master, slave.as_ref()),
            Standing::CommittedOnSlave => self.commit_on_master(&master, slave.as_ref()),
            _ => Ok(()),
        }
    }

    fn rows(&mut self) -> Result<(MasterRow, Option<SlaveRow>)> {
        let master = self.log.progress.row(&mut self.master)?;
        let slave = SlaveRow::read(&mut self.slave, &self.key, &master)?;
        Ok((master, slave))
    }

    /// Commits or rolls back what is prepared. With `must_agree`, if there is only something to roll back, it first checks
    /// that the daemon can replicate afterwards, and otherwise returns an error.
    fn settle(&mut self, must_agree: bool) -> Result<()> {
        if self.in_doubt()?.is_empty() {
            return Ok(());
        }
        // It may be a switchover in progress, which holds this lock until it has committed. If it has died, it holds it no more.
        self.master.message("wait for a switchover in progress", sql::WAIT_FOR_SWITCHOVER)?;
        let in_doubt = self.in_doubt()?;
        let (master, slave) = self.rows()?;
        let settlements: Vec<(BatchNumber, InDoubt, Settlement)> = in_doubt
            .into_iter()
            .filter_map(|((number, _), parts)| {
                let is_last = |batch: BatchNumber, token: Option<&String>| {
                    let gid = parts.on_master.as_ref().or(parts.on_slave.as_ref());
                    batch == number && token.zip(gid).is_some_and(|(token, gid)| GidFamily::is_of(gid, token))
                };
                let on_master = is_last(master.position.batch, master.position.token.as_ref());
                let on_slave = slave.as_ref().is_some_and(|slave| is_last(slave.batch, slave.token.as_ref()));
                let has = (parts.on_master.is_some(), parts.on_slave.is_some());
                decide(has, (on_master, on_slave)).map(|settlement| (number, parts, settlement))
            })
            .collect();
        let commits = settlements.iter().any(|(_, _, settlement)| settlement.commits());
        if must_agree && !commits {
            match standing(&master, slave.as_ref()) {
                Standing::Agreed | Standing::CommittedOnSlave => {}
                Standing::Behind => self.refuse_if_purged(&master, slave.as_ref())?,
                apart => return Err(refusal(apart, &master, slave.as_ref())),
            }
        }
        for (number, parts, settlement) in settlements {
            log::warn!(target: &self.name, "Recovering batch {number}: {settlement}");
            let command = if settlement.commits() { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
            // A settlement commits or rolls back all that is prepared of the batch.
            for (side, gid) in [(Side::Slave, parts.on_slave), (Side::Master, parts.on_master)] {
                if let Some(gid) = gid {
                    self.finish(side, command, number, &gid)?;
                }
            }
        }
        Ok(())
    }

    /// The prepared batches, by number and token.
    fn in_doubt(&mut self) -> Result<BTreeMap<(BatchNumber, String), InDoubt>> {
        let mut in_doubt: BTreeMap<(BatchNumber, String), InDoubt> = BTreeMap::new();
        for (number, gid) in self.prepared(Side::Master)? {
            let key = (number, token_of(&gid));
            in_doubt.entry(key).or_default().on_master = Some(gid);
        }
        for (number, gid) in self.prepared(Side::Slave)? {
            let key = (number, token_of(&gid));
            in_doubt.entry(key).or_default().on_slave = Some(gid);
        }
        Ok(in_doubt)
    }

    /// This slave's prepared transactions on a server. A gid may have a former name of the pair.
    fn prepared(&mut self, side: Side) -> Result<BTreeSet<(BatchNumber, String)>> {
        let found = prepared(self.session(side))?;
        Ok(found.into_iter().filter_map(|found| Some((found.batch_of(&self.gids)?, found.gid))).collect())
    }

    /// Both agree. Creates the slave's row if it is missing, and renames the pair if the log has come to another
    /// cluster.
    fn take_over(&mut self, master: &MasterRow, slave: Option<&SlaveRow>) -> Result<()> {
        let Some(slave) = slave else {
            return self.slave.execute("register the master", sql::PROGRESS_ROW, &[&self.key]).map(drop);
        };
        let name = &self.name;
        if master.slave.as_ref().is_some_and(|known| *known != self.slave_identity) {
            log::warn!(target: name, "The slave is another database now. It has the same last batch, so replication goes on");
        }
        if slave.key == self.key {
            return Ok(());
        }
        log::warn!(target: name, "The log is in another database now. The slave has the same last batch, so replication goes on");
        let (former, key) = (slave.key.clone(), self.key.clone());
        self.slave.transaction("BEGIN", |slave| {
            for statement in sql::RENAME_PAIR {
                slave.execute("rename the pair", statement, &[&former, &key])?;
            }
            Ok(())
        })
    }

    /// The slave has committed a batch, and the master has not. Writes the slave's position on the master.
    fn commit_on_master(&mut self, master: &MasterRow, slave: Option<&SlaveRow>) -> Result<()> {
        let Some(slave) = slave else { return Ok(()) };
        let batch = slave.batch;
        log::warn!(target: &self.name, "Recovering batch {batch}: committed on the slave: note it on the master");
        self.log.progress.write(&mut self.master, &slave.position()?, master.position.batch)
    }

    /// The slave was restored: makes its own position the master's, if the log still has everything that it lacks.
    fn go_back(&mut self, master: &MasterRow, slave: Option<&SlaveRow>) -> Result<()> {
        let Some(row) = slave else { return Ok(()) };
        let position = row.position()?;
        let (base, current) =
            (position.base.as_ref().map(Snapshot::as_str), position.current.as_ref().map(Snapshot::as_str));
        let last = position.last.map(|last| last.0);
        let clear = backlog_sql::own(&self.field, sql::GO_BACK);
        let (field, key) = (self.field.clone(), self.key.clone());
        let progress = &mut self.log.progress;
        self.master.message("keep the log", sql::KEEP_LOG)?;
        let mut back = || {
            refuse_if_purged(&mut self.master, &position, master, row)?;
            let why = format!(
                "the slave came back with an older state, of batch {}, and went back from batch {} to replay what it lacked",
                row.batch, master.position.batch
            );
            progress.end_history(&mut self.master, &why)?;
            let parameters: [&(dyn ToSql + Sync); 5] = [&position.floor.0, &base, &current, &last, &key];
            let cleared = self.master.execute("clear flags", &clear, &parameters)?;
            self.master.execute("clear flags", sql::FLAGGED, &[&field, &position.floor.0])?;
            progress.write(&mut self.master, &position, master.position.batch)?;
            Ok(cleared)
        };
        let done = back();
        let cleared = self.master.end(done)?;
        let told = format!(
            "The slave is behind: its last batch is {}, of {}, and the master's is {}. It was restored, or is another copy. \
             Going back to its own position: what it lacks is replayed again ({cleared} flags are cleared)",
            row.batch, row.ts, master.position.batch
        );
        log::warn!(target: &self.name, "{told}");
        self.conflicts.push(told);
        Ok(())
    }

    fn refuse_if_purged(&mut self, master: &MasterRow, slave: Option<&SlaveRow>) -> Result<()> {
        match slave {
            Some(slave) => refuse_if_purged(&mut self.master, &slave.position()?, master, slave),
            None => Ok(()),
        }
    }
}

/// Numbers repeat on a server that was restored, tokens do not.
fn token_of(gid: &str) -> String {
    gid.rsplit_once(':').map_or(String::new(), |(_, token)| token.to_string())
}
