//! Writes the master's rows over rows of the slave that differ, without the log.
//!
//! A daemon may be replaying changes of the very same rows. So, for some rows at a time:
//!
//! 1. The slave's table is locked against writers. The daemon locks it too before it writes, and its prepared transactions
//!    keep that lock. So from now on the table is exactly in the state of the position that is noted on the master, and
//!    stays so.
//! 2. In one snapshot of the master this reads the rows, and which of them have changes in the log that the position does
//!    not cover. Those rows are left alone: the daemon will write them, and may expect their old values.
//! 3. The slave should have the other rows as the snapshot shows them, and this writes them so. Later changes of these rows
//!    on the master reach the slave later, and expect to find the values that were written here.
//!
//! The session is set up like the daemon's: in the replica role, so that triggers do not run, and with the master's
//! identity for triggers that are ENABLE ALWAYS, so that what they log goes to the slave's own slaves and not back to the
//! master.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::compare::comparison::{ComparePlan, Difference, in_one_snapshot, wait_for_prepared};
use crate::compare::digest::{DigestSource, Key};
use crate::compare::servers::Servers;
use crate::server::checks::take_replica_role;
use crate::server::session::{Session, TextRow};
use std::time::Duration;

/// Rows that are written under one lock: so few that other sessions hardly notice it.
pub const ROWS_PER_LOCK: usize = 200;

/// While a session waits for the lock, others wait behind it. So it waits for a short time only, and tries again.
const LOCK: &str = "BEGIN; SET LOCAL lock_timeout = '2s'; LOCK TABLE";
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub struct Repaired {
    pub written: u64,
    /// Rows left alone, because changes of them are pending.
    pub in_flight: u64,
    /// Rows that the slave refused. Another try may succeed, once other rows have been written.
    pub refused: Vec<Difference>,
    /// Why the slave refused the last of them.
    pub refusal: Option<Error>,
}

/// Checks that the slave's session may repair rows, and sets it up.
pub fn prepare(slave: &mut Session, plan: &ComparePlan) -> Result<()> {
    slave.set_up(&plan.pending.master_identity)?;
    if take_replica_role(slave)? {
        return Ok(());
    }
    let detail = "the role may not set session_replication_role, and the slave's triggers must not run for this";
    Err(Error::new(Kind::Setup, Some(Side::Slave), "repair rows", detail)
        .of_standby(slave.is_standby())
        .with_hint("GRANT SET ON PARAMETER session_replication_role TO ...; (from PostgreSQL 15), or use a superuser"))
}

/// The reason why no row of this table can be repaired, if there is one.
pub fn obstacle(plan: &ComparePlan) -> Option<String> {
    plan.transformed.then(|| {
        "a transform changes its values, so the master does not hold the values that the slave should have".into()
    })
}

/// Repairs at most `ROWS_PER_LOCK` rows. With `replace`, rows are deleted and inserted instead of updated, so that two rows
/// can exchange unique values.
pub fn repair(
    servers: &mut Servers,
    plan: &ComparePlan,
    differences: &[Difference],
    replace: bool,
) -> Result<Repaired> {
    lock(servers, plan)?;
    servers.reached("repair-locked");
    let outcome = under_lock(servers, plan, differences, replace);
    servers.slave().end(outcome)
}

/// The statements that would repair the rows, if no change of them is pending.
pub fn statements(servers: &mut Servers, plan: &ComparePlan, differences: &[Difference]) -> Result<Vec<String>> {
    let keys = keys(differences);
    let (from_master, from_slave) =
        servers.ask_both("look at rows", &plan.master.values(&keys), &plan.slave.values(&keys))?;
    let (from_master, from_slave) = (by_key(from_master, &keys), by_key(from_slave, &keys));
    let rows = keys.iter().zip(from_master.iter().zip(&from_slave));
    Ok(rows
        .flat_map(|(key, (from_master, from_slave))| {
            repair_statements(plan, key, from_master.as_ref(), from_slave.as_ref(), false)
        })
        .collect())
}

/// For the operator: the columns in which each row differs, with the values of both sides.
pub fn values(
    servers: &mut Servers,
    plan: &ComparePlan,
    differences: &[Difference],
) -> Result<Vec<Vec<ColumnDifference>>> {
    let keys = keys(differences);
    let (from_master, from_slave) =
        servers.ask_both("look at rows", &plan.master.values(&keys), &plan.slave.values(&keys))?;
    let (from_master, from_slave) = (by_key(from_master, &keys), by_key(from_slave, &keys));
    Ok(from_master
        .into_iter()
        .zip(from_slave)
        .map(|(from_master, from_slave)| differing(&plan.master, from_master, from_slave))
        .collect())
}

/// A row: the names of its columns and their values.
pub type NamedValues = Vec<(String, Option<String>)>;

/// For the operator, where no key names a row: the values of each.
pub fn whole_rows(servers: &mut Servers, plan: &ComparePlan, differences: &[Difference]) -> Result<Vec<NamedValues>> {
    let keys = keys(differences);
    let (from_master, from_slave) =
        servers.ask_both("look at rows", &plan.master.values(&keys), &plan.slave.values(&keys))?;
    let rows = by_key(from_master, &keys).into_iter().zip(by_key(from_slave, &keys));
    let named = |row: TextRow| plan.master.columns.iter().cloned().zip(row.into_iter().skip(1)).collect();
    Ok(rows.map(|(from_master, from_slave)| from_master.or(from_slave).map(named).unwrap_or_default()).collect())
}

/// One column in which a row differs.
#[derive(Debug)]
pub struct ColumnDifference {
    pub column: String,
    pub master: Option<String>,
    pub slave: Option<String>,
}

fn differing(
    source: &DigestSource,
    from_master: Option<TextRow>,
    from_slave: Option<TextRow>,
) -> Vec<ColumnDifference> {
    let (Some(from_master), Some(from_slave)) = (from_master, from_slave) else { return Vec::new() };
    let columns = source.columns.iter().zip(from_master.into_iter().zip(from_slave));
    columns
        .filter(|(_, (from_master, from_slave))| from_master != from_slave)
        .map(|(column, (master, slave))| ColumnDifference { column: column.clone(), master, slave })
        .collect()
}

fn lock(servers: &mut Servers, plan: &ComparePlan) -> Result<()> {
    let lock = format!("{LOCK} {} IN SHARE ROW EXCLUSIVE MODE", plan.slave.target);
    for attempt in 1.. {
        match servers.slave().message("lock the table", &lock) {
            Ok(_) => return Ok(()),
            Err(error) => {
                servers.slave().roll_back();
                if error.code() != Some("55P03") || attempt == LOCK_TRIES {
                    let hint = "another transaction of the slave holds it: a long one, or one in doubt (pg_prepared_xacts), \
                                which the daemon settles when it connects";
                    return Err(error.with_hint(hint));
                }
                servers.show_progress(&|| format!("{}: waiting for the table's lock", plan.table));
                servers.pause(LOCK_PAUSE)?;
            }
        }
    }
    unreachable!("the last attempt returns")
}

fn under_lock(
    servers: &mut Servers,
    plan: &ComparePlan,
    differences: &[Difference],
    replace: bool,
) -> Result<Repaired> {
    let keys = keys(differences);
    // Read the slave's own log first: a change that is no longer pending in it is in the snapshot, which is taken next.
    let mut pending = plan.pending.on_slave(servers.slave(), &plan.table, &plan.slave, &keys)?;
    let (from_master, waiting) = in_one_snapshot(servers.master(), &plan.master, |master| {
        let rows = master.text_rows("look at rows", &plan.master.values(&keys))?;
        Ok((rows, plan.pending.on_master(master, &plan.table, &plan.master, &keys)?))
    })?;
    pending.extend(waiting);
    // A batch that only holds changes takes no lock of the table: it may still be prepared, although the position covers
    // it.
    if !wait_for_prepared(servers)? {
        return Ok(Repaired { in_flight: keys.len() as u64, ..Repaired::default() });
    }
    pending.extend(plan.pending.held(servers.slave(), &plan.table, &plan.slave, &keys)?);
    let from_slave = servers.slave().text_rows("look at rows", &plan.slave.values(&keys))?;
    let (from_master, from_slave) = (by_key(from_master, &keys), by_key(from_slave, &keys));
    let mut work: Vec<(usize, Vec<String>)> = Vec::new();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| !pending.contains(n)) {
        let statements = repair_statements(plan, key, from_master[n].as_ref(), from_slave[n].as_ref(), replace);
        if !statements.is_empty() {
            work.push((n, statements));
        }
    }
    let mut repaired = Repaired { in_flight: pending.len() as u64, ..Repaired::default() };
    if work.is_empty() {
        return Ok(repaired);
    }
    servers.reached("repair-read");
    // All statements in one message; one by one if the slave refuses any. DELETEs go first, because they free unique
    // values.
    let all = work.iter().flat_map(|(_, statements)| statements.clone());
    let (first, then): (Vec<String>, Vec<String>) = all.partition(|sql| sql.starts_with("DELETE"));
    let first = if plan.slave.is_by_digest && !first.is_empty() {
        // Each of them would take a scan of the table.
        let surplus = |n: &usize| surplus(from_master[*n].as_ref(), from_slave[*n].as_ref());
        let fewer = work.iter().map(|(n, _)| (&keys[*n], -surplus(n))).filter(|(_, surplus)| *surplus > 0);
        vec![plan.slave.delete_some(&fewer.collect::<Vec<_>>())]
    } else {
        first
    };
    match attempt(servers.slave(), &[first, then].concat())? {
        None => repaired.written = work.iter().map(|(n, _)| differences[*n].rows).sum(),
        Some(error) if replace => {
            repaired.refused = work.iter().map(|(n, _)| differences[*n].clone()).collect();
            repaired.refusal = Some(error);
        }
        Some(_) => {
            for (n, statements) in work {
                match attempt(servers.slave(), &statements)? {
                    None => repaired.written += differences[n].rows,
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

/// Runs statements, and rolls back all of them if the slave refuses one.
fn attempt(slave: &mut Session, statements: &[String]) -> Result<Option<Error>> {
    let message = format!("SAVEPOINT pyreplica_repair; {}; RELEASE SAVEPOINT pyreplica_repair", statements.join("; "));
    match slave.message("repair rows", &message) {
        Ok(_) => Ok(None),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            slave.message("roll back rows", "ROLLBACK TO SAVEPOINT pyreplica_repair")?;
            Ok(Some(error))
        }
    }
}

/// The statements that make the slave's row equal to the master's; none if it is.
fn repair_statements(
    plan: &ComparePlan,
    key: &Key,
    from_master: Option<&TextRow>,
    from_slave: Option<&TextRow>,
    replace: bool,
) -> Vec<String> {
    if plan.slave.is_by_digest {
        return match (surplus(from_master, from_slave), from_master) {
            (missing @ 1.., Some(from_master)) => vec![insert(plan, &from_master[1..]); missing as usize],
            (fewer @ ..=-1, _) => vec![plan.slave.delete_some(&[(key, -fewer)])],
            _ => Vec::new(),
        };
    }
    let target = &plan.slave.target;
    let delete = || format!("DELETE FROM {target} WHERE {}", plan.slave.key_condition(key));
    let changed = |from_master: &TextRow, from_slave: &TextRow| -> Vec<usize> {
        (0..plan.slave.columns.len()).filter(|n| from_master[*n] != from_slave[*n]).collect()
    };
    match (from_master, from_slave) {
        (None, None) => Vec::new(),
        (None, Some(_)) => vec![delete()],
        (Some(from_master), None) => vec![insert(plan, from_master)],
        (Some(from_master), Some(from_slave)) => {
            let changed = changed(from_master, from_slave);
            let is_fixed = |n: &usize| plan.identity_always.contains(&plan.slave.columns[*n]);
            if changed.is_empty() {
                return Vec::new();
            }
            if replace || changed.iter().any(is_fixed) {
                return vec![delete(), insert(plan, from_master)];
            }
            let set: Vec<String> = changed
                .into_iter()
                .map(|n| format!("{} = {}", quote_ident(&plan.slave.columns[n]), literal(&from_master[n])))
                .collect();
            vec![format!("UPDATE {target} SET {} WHERE {}", set.join(", "), plan.slave.key_condition(key))]
        }
    }
}

/// How many rows with this digest the master has more than the slave. Their numbers come before the values.
fn surplus(from_master: Option<&TextRow>, from_slave: Option<&TextRow>) -> i64 {
    let number = |row: Option<&TextRow>| row.and_then(|row| row.first()?.as_deref()?.parse::<i64>().ok()).unwrap_or(0);
    number(from_master) - number(from_slave)
}

fn insert(plan: &ComparePlan, row: &[Option<String>]) -> String {
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

/// Sorts rows by the number of their key, which is their first value. None for a key without row.
fn by_key(rows: Vec<TextRow>, keys: &[Key]) -> Vec<Option<TextRow>> {
    let mut by_key: Vec<Option<TextRow>> = keys.iter().map(|_| None).collect();
    for mut row in rows {
        let n = if row.is_empty() { None } else { row.remove(0) };
        if let Some(place) = n.and_then(|n| by_key.get_mut(n.parse::<usize>().ok()?)) {
            *place = Some(row);
        }
    }
    by_key
}
