//! Transactions that are prepared and neither committed nor rolled back: ours, and others' that hold back vacuum.

use super::{Level, Report};
use crate::config::Config;
use crate::db::Session;
use crate::error::Result;
use crate::names::{BatchNumber, Side, quote_literal};
use crate::recovery::{GidFamily, decide};
use crate::sql;
use std::collections::BTreeMap;
use std::time::Duration;

/// A batch of a daemon at work is prepared for milliseconds; after this it is stuck.
const OWN_PATIENCE: Duration = Duration::from_secs(60);

/// Somebody else's may be slower, and no transaction should take so long.
const PATIENCE: Duration = Duration::from_secs(600);

const SUBJECT: &str = "in-doubt transactions";

/// A transaction that a server keeps prepared, whosever it is.
pub struct Prepared {
    pub side: Side,
    pub gid: String,
    pub database: String,
    pub owner: String,
    pub age: Duration,
    /// In the database that was asked.
    pub is_here: bool,
}

pub(super) fn examine<'a>(
    report: &mut Report,
    config: &Config,
    origin: u64,
    is_running: bool,
    sessions: impl Iterator<Item = &'a mut Session>,
) {
    let family = GidFamily::new(&config.name, &config.slave_field, origin);
    let mut own: BTreeMap<BatchNumber, Vec<Prepared>> = BTreeMap::new();
    let mut committed = None;
    for session in sessions {
        let side = session.side();
        let asked = prepared(session);
        let Some(found) = report.tried(Some(side), SUBJECT, asked) else { continue };
        if side == Side::Master {
            let asked = session.query("read the last batch", sql::COMMITTED_BATCH, &[&config.slave_field]);
            committed = asked.ok().and_then(|rows| rows.first().map(|row| BatchNumber(row.get(0))));
        }
        let is_own = |prepared: &Prepared| family.number(side, &prepared.gid).filter(|_| prepared.is_here);
        let (ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|prepared| is_own(prepared).is_some());
        let old: Vec<_> = others.into_iter().filter(|prepared| prepared.age > PATIENCE).collect();
        if ours.is_empty() && old.is_empty() {
            report.add(Level::Ok, Some(side), SUBJECT, "none");
        }
        ours.into_iter().for_each(|prepared| {
            let number = family.number(side, &prepared.gid).expect("it was asked for");
            own.entry(number).or_default().push(prepared);
        });
        old.iter().for_each(|prepared| foreign(report, prepared));
    }
    for (number, parts) in own {
        let oldest = parts.iter().map(|part| part.age).max().unwrap_or_default();
        let level = if is_running && oldest < OWN_PATIENCE { Level::Note } else { Level::Warning };
        let has = |side| parts.iter().any(|part| part.side == side);
        let action = committed.and_then(|committed| decide(number, has(Side::Master), has(Side::Slave), committed));
        let action = action.map(|action| format!(": {action}")).unwrap_or_default();
        let text = format!("batch {number} of this pair is in doubt since {} s{action}", oldest.as_secs());
        let advice =
            if is_running { "the daemon settles it when it connects anew" } else { "start the daemon: it settles it" };
        report.add(level, None, SUBJECT, text).advise(advice);
    }
}

/// Everything that is prepared on a server.
pub fn prepared(session: &mut Session) -> Result<Vec<Prepared>> {
    let side = session.side();
    let rows = session.query("look for prepared transactions", sql::ALL_PREPARED, &[])?;
    let prepared = rows.iter().map(|row| Prepared {
        side,
        gid: row.get("gid"),
        database: row.get("database"),
        owner: row.get("owner"),
        age: Duration::from_secs(row.get::<_, i64>("age").max(0) as u64),
        is_here: row.get("here"),
    });
    Ok(prepared.collect())
}

fn foreign(report: &mut Report, prepared: &Prepared) {
    let Prepared { side, gid, database, owner, age, .. } = prepared;
    let gid = quote_literal(gid);
    let text = format!(
        "{owner} has prepared {gid} in database {database} {} s ago: it keeps its locks, and vacuum from removing rows",
        age.as_secs()
    );
    report.add(Level::Warning, Some(*side), SUBJECT, text).advise(format!(
        "whoever prepared it knows which, in that database: COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};"
    ));
}
