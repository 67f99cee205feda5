//! Where a position begins: from the slave's flags, or from the position of another database.

use super::SlaveProgress;
use crate::backlog::master_row::parse;
use crate::backlog::sql;
use crate::base::error::Result;
use crate::base::names::LogId;
use crate::server::session::Session;

impl SlaveProgress {
    /// Begins with a slave that has no position: its flags say what it has replayed.
    pub(super) fn begin(&mut self, master: &mut Session) -> Result<()> {
        let snapshot: String = master.query_one("take a snapshot", sql::CURRENT_SNAPSHOT, &[])?.get(0);
        let first = sql::first_pending(&self.field);
        let first: Option<i64> = master.query_one("look for the first change", &first, &[&snapshot])?.get(0);
        self.position.current = Some(parse(&snapshot)?);
        self.is_announced = false;
        match first {
            Some(id) => self.resumed_above = LogId(id - 1),
            None => {
                self.position.finish();
                self.position.floor = self.floor();
                let position = self.position.clone();
                self.write(master, &position, position.batch)?;
                self.is_announced = true;
            }
        }
        Ok(())
    }

    /// Makes the positions belong to this database. The first daemon does this for all slaves, because it renumbers the
    /// log.
    pub(super) fn adopt(&self, master: &mut Session) -> Result<()> {
        master.transaction(sql::BEGIN_ADOPTING, |master| {
        let restored = master.query("look at the log's transactions", sql::RESTORED, &[])?;
        let foreign = master.query("look for positions", sql::FOREIGN_POSITIONS, &[&self.identity])?;
        for field in foreign.iter().map(|row| row.get::<_, String>(0)) {
            if self.fields.contains(&field) {
                let flagged = master.execute("set flags", &sql::passed(&field), &[&field])?;
                log::warn!(
                    target: &self.name,
                    "The position of slave {field} is from another master database; changes that got their flag instead: {flagged}"
                );
            }
        }
        master.execute("forget positions", sql::FORGET_POSITIONS, &[&self.identity, &self.field])?;
        for row in restored {
            let (last, numbers): (i64, i64) = (row.get("last"), row.get("numbers"));
            let renumbered = master.execute("renumber transactions", sql::RENUMBER, &[&last, &numbers])?;
            log::warn!(target: &self.name, "The log comes from another cluster; changes that got transaction numbers of this one: {renumbered}");
        }
        Ok(())
        })
    }
}
