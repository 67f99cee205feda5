//! Writes the master's truth over rows of the slave that differ, past the log.
//!
//! A daemon may be replaying changes of the very same rows. So, for some rows at a time:
//!
//! 1. The slave's table is locked against writers. The daemon locks it too before it writes, and what it has prepared keeps
//!    that lock; so from now on the table is in the state of the position that is noted on the master, with nothing
//!    between, and stays so.
//! 2. In one snapshot of the master the rows are read, and which of them have changes in the log that the position does not
//!    cover. Those are left alone: they are being written anyway, and the daemon may expect their old values.
//! 3. The others should be on the slave as the snapshot has them. They are made so. Whatever changes them on the master from
//!    now on comes to the slave later, and expects to find what was written here.
//!
//! The session is set up like the daemon's: in the replica role, so that triggers do not run, and with the master's identity
//! for those that run ALWAYS, so that what they log goes on to the slave's own slaves and not back to the master.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::compare::comparison::{ComparePlan, Difference, begin, in_one_snapshot, prepared_is_over};
use crate::compare::digest::{DigestSource, Key};
use crate::compare::servers::Servers;
use crate::server::checks::take_replica_role;
use crate::server::session::{Session, TextRow};
use std::time::Duration;

/// Rows that are written under one lock: it should not be felt.
pub const TOGETHER: usize = 200;

/// While one waits for the lock, others wait behind; so not for long, and then again.
const LOCK: &str = "BEGIN; SET LOCAL lock_timeout = '2s'; LOCK TABLE";
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub struct Repaired {
    pub written: u64,
    /// Rows left alone, since changes of them are on their way.
    pub in_flight: u64,
    /// Rows that the slave refuses, which another try may help, once others have been written.
    pub refused: Vec<Difference>,
    /// What it said.
    pub refusal: Option<Error>,
}

/// Checks that the slave's session may do this, and sets it up.
pub fn prepare(slave: &mut Session, plan: &ComparePlan) -> Result<()> {
    slave.set_up(&plan.underway.master_identity)?;
    if take_replica_role(slave)? {
        return Ok(());
    }
    let detail = "the role may not set session_replication_role, and the slave's triggers must not see this";
    Err(Error::new(Kind::Setup, Some(Side::Slave), "repair rows", detail)
        .with_hint("GRANT SET ON PARAMETER session_replication_role TO ...; (from PostgreSQL 15), or a superuser"))
}

/// Why no row of this table can be written, if so.
pub fn obstacle(plan: &ComparePlan) -> Option<String> {
    plan.transformed
        .then(|| "its values are transformed on their way; the slave's cannot be told from the master's".into())
}

/// Repairs at most `TOGETHER` rows. `anew` replaces rows instead of updating them: unique values may have to change places.
pub fn repair(both: &mut Servers, plan: &ComparePlan, differences: &[Difference], anew: bool) -> Result<Repaired> {
    begin(both, plan)?;
    lock(both, plan)?;
    both.reached("repair-locked");
    let outcome = under_lock(both, plan, differences, anew);
    both.slave().end(outcome)
}

/// The statements that would do it, were nothing under way.
pub fn statements(both: &mut Servers, plan: &ComparePlan, differences: &[Difference]) -> Result<Vec<String>> {
    let keys = keys(differences);
    let (there, here) = both.ask("look at rows", &plan.master.values(&keys), &plan.slave.values(&keys))?;
    let (there, here) = (placed(there, &keys), placed(here, &keys));
    let rows = keys.iter().zip(there.iter().zip(&here));
    Ok(rows.flat_map(|(key, (there, here))| mend(plan, key, there.as_ref(), here.as_ref(), false)).collect())
}

/// The values of the compared columns on both sides, for the operator: (column, master's, slave's) where they differ.
pub fn values(both: &mut Servers, plan: &ComparePlan, differences: &[Difference]) -> Result<Vec<Vec<BothRows>>> {
    let keys = keys(differences);
    let (there, here) = both.ask("look at rows", &plan.master.values(&keys), &plan.slave.values(&keys))?;
    let (there, here) = (placed(there, &keys), placed(here, &keys));
    Ok(there.into_iter().zip(here).map(|(there, here)| differing(&plan.master, there, here)).collect())
}

/// One column in which a row differs.
#[derive(Debug)]
pub struct BothRows {
    pub column: String,
    pub master: Option<String>,
    pub slave: Option<String>,
}

fn differing(source: &DigestSource, there: Option<TextRow>, here: Option<TextRow>) -> Vec<BothRows> {
    let (Some(there), Some(here)) = (there, here) else { return Vec::new() };
    let columns = source.columns.iter().zip(there.into_iter().zip(here));
    columns
        .filter(|(_, (there, here))| there != here)
        .map(|(column, (master, slave))| BothRows { column: column.clone(), master, slave })
        .collect()
}

fn lock(both: &mut Servers, plan: &ComparePlan) -> Result<()> {
    let lock = format!("{LOCK} {} IN SHARE ROW EXCLUSIVE MODE", plan.slave.target);
    for attempt in 1.. {
        match both.slave().message("lock the table", &lock) {
            Ok(_) => return Ok(()),
            Err(error) => {
                both.slave().roll_back();
                if error.code() != Some("55P03") || attempt == LOCK_TRIES {
                    let hint = "somebody else holds it: a long transaction of the slave, or one that was left in doubt \
                                (pg_prepared_xacts), which the daemon settles when it connects";
                    return Err(error.with_hint(hint));
                }
                both.show(&|| format!("{}: waiting for the table's lock", plan.table));
                both.pause(LOCK_PAUSE)?;
            }
        }
    }
    unreachable!("the last attempt returns")
}

fn under_lock(both: &mut Servers, plan: &ComparePlan, differences: &[Difference], anew: bool) -> Result<Repaired> {
    let keys = keys(differences);
    // The slave's own log first: what it no longer holds by now, the snapshot that comes next shows.
    let mut underway = plan.underway.on_slave(both.slave(), &plan.table, &plan.slave, &keys)?;
    let (there, waiting) = in_one_snapshot(both.master(), &plan.master, |master| {
        let rows = master.text_rows("look at rows", &plan.master.values(&keys))?;
        Ok((rows, plan.underway.on_master(master, &plan.table, &plan.master, &keys)?))
    })?;
    underway.extend(waiting);
    // What the daemon puts aside takes no lock of the table; and what the position covers may be prepared yet.
    if !prepared_is_over(both)? {
        return Ok(Repaired { in_flight: keys.len() as u64, ..Repaired::default() });
    }
    underway.extend(plan.underway.put_aside(both.slave(), &plan.table, &plan.slave, &keys)?);
    let here = both.slave().text_rows("look at rows", &plan.slave.values(&keys))?;
    let (there, here) = (placed(there, &keys), placed(here, &keys));
    let mut work: Vec<(usize, Vec<String>)> = Vec::new();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| !underway.contains(n)) {
        let statements = mend(plan, key, there[n].as_ref(), here[n].as_ref(), anew);
        if !statements.is_empty() {
            work.push((n, statements));
        }
    }
    let mut repaired = Repaired { in_flight: underway.len() as u64, ..Repaired::default() };
    if work.is_empty() {
        return Ok(repaired);
    }
    both.reached("repair-read");
    // All of them in one message, and one by one if the slave refuses any. Whatever vacates goes first.
    let all = work.iter().flat_map(|(_, statements)| statements.clone());
    let (first, then): (Vec<String>, Vec<String>) = all.partition(|sql| sql.starts_with("DELETE"));
    match attempt(both.slave(), &[first, then].concat())? {
        None => repaired.written = work.len() as u64,
        Some(error) if anew => {
            repaired.refused = work.iter().map(|(n, _)| differences[*n].clone()).collect();
            repaired.refusal = Some(error);
        }
        Some(_) => {
            for (n, statements) in work {
                match attempt(both.slave(), &statements)? {
                    None => repaired.written += 1,
                    Some(error) => {
                        repaired.refused.push(differences[n].clone());
                        repaired.refusal = Some(error);
                    }
                }
            }
        }
    }
    Ok(repaired)
}

/// Runs statements that are taken back together, if the slave refuses one.
fn attempt(slave: &mut Session, statements: &[String]) -> Result<Option<Error>> {
    let message = format!("SAVEPOINT pyreplica_repair; {}; RELEASE SAVEPOINT pyreplica_repair", statements.join("; "));
    match slave.message("repair rows", &message) {
        Ok(_) => Ok(None),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            slave.message("take rows back", "ROLLBACK TO SAVEPOINT pyreplica_repair")?;
            Ok(Some(error))
        }
    }
}

/// What makes the slave's row what the master's is; nothing if it is.
fn mend(plan: &ComparePlan, key: &Key, there: Option<&TextRow>, here: Option<&TextRow>, anew: bool) -> Vec<String> {
    let target = &plan.slave.target;
    let delete = || format!("DELETE FROM {target} WHERE {}", plan.slave.finds(key));
    let changed = |there: &TextRow, here: &TextRow| -> Vec<usize> {
        (0..plan.slave.columns.len()).filter(|n| there[*n] != here[*n]).collect()
    };
    match (there, here) {
        (None, None) => Vec::new(),
        (None, Some(_)) => vec![delete()],
        (Some(there), None) => vec![insert(plan, there)],
        (Some(there), Some(here)) => {
            let changed = changed(there, here);
            let is_fixed = |n: &usize| plan.identity_always.contains(&plan.slave.columns[*n]);
            if changed.is_empty() {
                return Vec::new();
            }
            if anew || changed.iter().any(is_fixed) {
                return vec![delete(), insert(plan, there)];
            }
            let set: Vec<String> = changed
                .into_iter()
                .map(|n| format!("{} = {}", quote_ident(&plan.slave.columns[n]), literal(&there[n])))
                .collect();
            vec![format!("UPDATE {target} SET {} WHERE {}", set.join(", "), plan.slave.finds(key))]
        }
    }
}

fn insert(plan: &ComparePlan, row: &TextRow) -> String {
    let target = plan.slave.target.strip_prefix("ONLY ").unwrap_or(&plan.slave.target);
    let columns: Vec<String> = plan.slave.columns.iter().map(|name| quote_ident(name)).collect();
    let values: Vec<String> = row.iter().map(literal).collect();
    format!("INSERT INTO {target} ({}) OVERRIDING SYSTEM VALUE VALUES ({})", columns.join(", "), values.join(", "))
}

fn literal(value: &Option<String>) -> String {
    value.as_deref().map_or_else(|| "NULL".into(), quote_literal)
}

fn keys(differences: &[Difference]) -> Vec<Key> {
    differences.iter().map(|difference| difference.key.clone()).collect()
}

/// Rows with the number of their key in front, in the order of the keys.
fn placed(rows: Vec<TextRow>, keys: &[Key]) -> Vec<Option<TextRow>> {
    let mut placed: Vec<Option<TextRow>> = keys.iter().map(|_| None).collect();
    for mut row in rows {
        let n = if row.is_empty() { None } else { row.remove(0) };
        if let Some(place) = n.and_then(|n| placed.get_mut(n.parse::<usize>().ok()?)) {
            *place = Some(row);
        }
    }
    placed
}
