//! The beginning of a copy on the slave: what it wants is noted, and only then something is emptied or dropped.

use super::{CopyOptions, Scope};
use crate::backlog::position::Position;
use crate::base::error::Result;
use crate::commit::twophase::Pair;
use crate::copy::plan::CopyPlan;
use crate::copy::remaining;
use crate::copy::sql;
use crate::pair::sql as pair_sql;
use crate::server::session::{Session, ToSql};

/// Notes which tables are wanted, before there are any. From here on no daemon replicates to the slave until all are loaded.
pub(super) fn announce(pair: &mut Pair, scope: &Scope) -> Result<()> {
    write_batch(pair, scope)?;
    pair.slave.transaction("BEGIN", |slave| note(slave, scope))
}

/// Writes the copy's number into the slave's row on the master.
pub(super) fn write_batch(pair: &mut Pair, scope: &Scope) -> Result<()> {
    // The position is written even if it stays the same: this transaction writes to disk after the snapshot (`copied.rs`).
    let former = pair.log.progress.position().clone();
    let position = Position { batch: scope.batch, ..former.clone() };
    pair.log.progress.write(&mut pair.master, &position, former.batch)
}

/// Notes which tables are wanted, and empties them if the operator has asked for that, or if an earlier run has loaded parts
/// of them.
pub(super) fn register(options: &CopyOptions, slave: &mut Session, scope: &Scope, plans: &[CopyPlan]) -> Result<()> {
    slave.transaction("BEGIN", |slave| {
        note(slave, scope)?;
        if scope.is_whole {
            let is_meant = |plan: &&CopyPlan| options.truncate || scope.begun.contains(&plan.relation);
            empty_tables(slave, plans.iter().filter(is_meant))?;
        }
        Ok(())
    })
}

fn note(slave: &mut Session, scope: &Scope) -> Result<()> {
    let wanted: Vec<&str> = scope.todo.iter().map(|table| table.relation.as_str()).collect();
    slave.execute("note the copy", pair_sql::FORGET_COPIES, &[&scope.key, &scope.forgotten])?;
    let parameters: [&(dyn ToSql + Sync); 5] = [&scope.key, &wanted, &scope.is_whole, &scope.batch.0, &"wanted"];
    slave.execute("note the copy", sql::WANT_COPY, &parameters).map(drop)
}

/// Drops what slows the load down, once the copy is noted. Returns what to say.
pub(super) fn defer_indexes(slave: &mut Session, key: &str, plans: &[CopyPlan]) -> Result<String> {
    let tables: Vec<&str> = plans.iter().map(|plan| plan.relation.as_str()).collect();
    let sizes: Vec<i64> = plans.iter().map(|plan| plan.bytes as i64).collect();
    let dropped = remaining::defer(slave, key, &tables, &sizes)?;
    Ok(format!("dropped {dropped} indexes and constraints, which are made again after the rows"))
}

fn empty_tables<'a>(slave: &mut Session, plans: impl Iterator<Item = &'a CopyPlan>) -> Result<()> {
    let targets: Vec<&str> = plans.map(|plan| plan.target.as_str()).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let truncate = format!("SAVEPOINT pyreplica_empty; TRUNCATE {}", targets.join(", "));
    match slave.message("empty the tables", &truncate) {
        // A table that is not copied has a foreign key to one of these.
        Err(error) if error.code() == Some("0A000") => {
            let deletes: Vec<String> = targets.iter().map(|target| format!("DELETE FROM {target}")).collect();
            let delete = format!("ROLLBACK TO SAVEPOINT pyreplica_empty; {}", deletes.join("; "));
            slave.message("empty the tables", &delete).map(drop)
        }
        other => other.map(drop),
    }
}
