//! Replays a TRUNCATE, of all tables together that it names.

use super::{CHECK_NOW, Replayer, log_change};
use crate::backlog::change::Change;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::replay::sql;
use crate::replay::statements::instruction;
use crate::server::session::{Row, Session};

/// SQLSTATE of a statement that PostgreSQL refuses because deferred checks of the table are pending.
const PENDING_CHECKS: &str = "55006";

impl Replayer {
    /// Replays the TRUNCATE that `apply` has kept, if there is one.
    pub(super) fn truncate(&mut self, master: &mut Session, slave: &mut Session) -> Result<()> {
        let changes = std::mem::take(&mut self.truncated);
        if changes.is_empty() {
            return Ok(());
        }
        let changes = changes.as_slice();
        self.flush(slave)?;
        self.lock(master, slave, changes)?;
        refuse_other_parts(master, slave, changes)?;
        let (mut targets, mut missing) = (Vec::new(), Vec::new());
        for change in changes {
            match self.cache.get(change) {
                Ok(table) => {
                    log_change(&self.name, change, table);
                    targets.push(table.target.clone());
                }
                // The slave may have other partitions than the master. TRUNCATE of the partitioned table empties them too.
                Err(_) if changes.len() > 1 => missing.push(format!(
                    "Possible conflict (0 rows affected): {} (change {}): the slave has no such table",
                    instruction(change, None),
                    change.id
                )),
                Err(error) => return Err(error),
            }
        }
        missing.into_iter().for_each(|what| self.report(what));
        if targets.is_empty() {
            return self.cache.get(&changes[0]).map(drop);
        }
        let truncate = format!("TRUNCATE {}", targets.join(", "));
        let sql = format!("{}{truncate}; {}", self.switch_origin(&changes[0]), sql::DAEMON_PATH);
        self.run_truncate(slave, &sql).map_err(|error| match error.kind() {
            // It needs a lock that excludes everybody, so somebody will want to know which table it waits for.
            Kind::Contention => error.with_operation(format!("replay change {} ({truncate})", changes[0].id)),
            _ => self.rejected(&changes[0], error),
        })
    }

    /// PostgreSQL refuses to truncate a table with pending deferred checks. If it does, this runs the checks first.
    fn run_truncate(&self, slave: &mut Session, sql: &str) -> Result<()> {
        if !self.deferring {
            return slave.message("replay", &format!("{}{sql}", sql::APPLICATION_PATH)).map(drop);
        }
        slave.message("replay", "SAVEPOINT pyreplica_settle")?;
        match slave.message("replay", &format!("{}{sql}", sql::APPLICATION_PATH)) {
            Err(error) if error.code() == Some(PENDING_CHECKS) => {
                slave.message("roll back a change", "ROLLBACK TO SAVEPOINT pyreplica_settle")?;
                slave.message("replay", &format!("{}{CHECK_NOW} {sql}", sql::APPLICATION_PATH)).map(drop)
            }
            result => result.map(drop),
        }
    }
}

/// Refuses to truncate a partition that is another part of its table on the slave, which would lose other rows. Unless the
/// whole table is truncated too: how it is divided is each side's own affair.
fn refuse_other_parts(master: &mut Session, slave: &mut Session, changes: &[Change]) -> Result<()> {
    let relations: Vec<&str> = changes.iter().map(|change| change.relation.as_str()).collect();
    let here = slave.query("look at the partitions", sql::PART, &[&relations])?;
    let is_part = |row: &Row| row.get::<_, Option<&str>>("part").is_some();
    let there = master.query("look at the partitions", sql::PART, &[&relations])?;
    if !here.iter().chain(&there).any(is_part) {
        return Ok(());
    }
    for change in changes {
        let find = |rows: &'_ [Row]| rows.iter().position(|row| row.get::<_, &str>("relation") == change.relation);
        // The slave may have no such table: then nothing of it is truncated.
        let Some(on_slave) = find(&here).map(|place| &here[place]) else { continue };
        let on_master = find(&there).map(|place| &there[place]);
        let is_covered = [Some(on_slave), on_master].into_iter().flatten().any(|row| {
            let ancestors: Vec<&str> = row.get("ancestors");
            ancestors.iter().any(|ancestor| relations.contains(ancestor))
        });
        let (ours, theirs) = (on_slave.get::<_, Option<&str>>("part"), on_master.and_then(|row| row.get("part")));
        if is_covered || ours == theirs || on_master.is_none() && ours.is_none() {
            continue;
        }
        let shown = |part: Option<&str>| part.unwrap_or("no partition").to_string();
        let detail = format!(
            "the slave's {} is another part of the table: on the master it is {}, on the slave {}",
            change.relation,
            shown(theirs),
            shown(ours)
        );
        let operation = format!("replay change {} of transaction {}", change.id, change.txid);
        return Err(Error::new(Kind::Change, Some(Side::Slave), operation, detail)
            .with_change(change.id, change.txid)
            .with_hint(
                "make the partition the same on both sides; or DELETE on the slave what the master has truncated, and give \
                 the change up with pyreplica skip",
            ));
    }
    Ok(())
}
