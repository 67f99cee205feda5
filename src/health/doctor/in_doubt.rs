//! Transactions that are prepared and neither committed nor rolled back: ours, and others' that hold back vacuum.

use super::{Diagnosis, Level};
use crate::backlog::master_row::MasterRow;
use crate::base::names::{BatchNumber, Side, quote_literal};
use crate::commit::agreement::{SlaveRow, Standing, refusal, standing};
use crate::commit::prepared::{Prepared, prepared};
use crate::commit::recovery::{GidFamily, Settlement, decide};
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::server::checks;
use crate::server::session::Session;
use std::collections::BTreeMap;
use std::time::Duration;

/// A batch of a daemon at work is prepared for milliseconds; after this it is stuck.
const OWN_PATIENCE: Duration = Duration::from_secs(60);

/// Somebody else's may be slower, and no transaction should take so long.
const PATIENCE: Duration = Duration::from_secs(600);

const SUBJECT: &str = "in-doubt transactions";

pub(super) fn examine<'a>(
    report: &mut Diagnosis,
    config: &Config,
    origin: Option<u64>,
    is_running: bool,
    sessions: impl Iterator<Item = &'a mut Session>,
) {
    let field = &config.slave_field;
    let family = origin.map(|origin| GidFamily::new(&config.name, field, origin));
    let mut own: BTreeMap<BatchNumber, Vec<Prepared>> = BTreeMap::new();
    let mut asked_sides = Vec::new();
    let (mut master_row, mut slave_row) = (None, None);
    for session in sessions {
        let side = session.side();
        let asked = prepared(session);
        let Some(found) = report.tried(Some(side), SUBJECT, asked) else { continue };
        asked_sides.push(side);
        if let (Side::Master, Some(_)) = (side, origin) {
            master_row = MasterRow::find(session, field).ok().flatten();
        }
        if let (Side::Slave, Some(origin), Some(master)) = (side, origin, &master_row) {
            let has_row = checks::has_progress(session).unwrap_or(false);
            slave_row =
                if has_row { SlaveRow::read(session, &pair_key(origin, field), master).ok() } else { Some(None) };
        }
        let mut has_any = false;
        for prepared in found {
            match &family {
                Some(family) => match prepared.batch_of(family) {
                    Some(number) => own.entry(number).or_default().push(prepared),
                    None if prepared.is_forged(field) => forged(report, &prepared),
                    None if prepared.age > PATIENCE => foreign(report, &prepared),
                    None => continue,
                },
                None if prepared.may_be_batch_of(field) => orphaned(report, &prepared),
                None if prepared.age > PATIENCE => foreign(report, &prepared),
                None => continue,
            }
            has_any = true;
        }
        if !has_any {
            report.add(Level::Ok, Some(side), SUBJECT, "none");
        }
    }
    let rows = master_row.zip(slave_row).filter(|_| asked_sides.len() == 2);
    for (number, parts) in &own {
        let settlement = rows.as_ref().zip(family.as_ref()).and_then(|((master, slave), family)| {
            let has = |side| parts.iter().any(|part| part.side == side);
            let is_last = |batch, token: Option<&String>| {
                batch == *number && token.is_some_and(|token| family.is_of(&parts[0].gid, token))
            };
            let on_slave = slave.as_ref().is_some_and(|slave| is_last(slave.batch, slave.token.as_ref()));
            let on_master = is_last(master.position.batch, master.position.token.as_ref());
            decide((has(Side::Master), has(Side::Slave)), (on_master, on_slave))
        });
        doubtful(report, *number, parts, settlement, is_running);
    }
    let Some((master, slave)) = rows.filter(|_| own.is_empty() && !is_running) else { return };
    match standing(&master, slave.as_ref()) {
        apart if apart.is_refused() => {
            let error = refusal(apart, &master, slave.as_ref());
            let finding = report.add(Level::Failure, error.side(), "last batch", error.detail());
            if let Some(hint) = error.hint() {
                finding.advise(hint);
            }
        }
        Standing::Behind => {
            let text = "the slave was restored: it is behind the master's position for it";
            let advice = "start the daemon: it goes back to the slave's own position, if the log has everything since";
            report.add(Level::Warning, Some(Side::Slave), "last batch", text).advise(advice);
        }
        _ => drop(report.add(Level::Ok, None, "last batch", "both servers mean the same one")),
    }
}

/// A batch of the pair's. What becomes of it is known if both sides could be asked.
fn doubtful(
    report: &mut Diagnosis,
    number: BatchNumber,
    parts: &[Prepared],
    settlement: Option<Settlement>,
    is_running: bool,
) {
    let oldest = parts.iter().map(|part| part.age).max().unwrap_or_default();
    let level = if is_running && oldest < OWN_PATIENCE { Level::Note } else { Level::Warning };
    let named: Vec<String> = parts.iter().map(|part| format!("'{}' on the {}", part.gid, part.side)).collect();
    let text = format!("batch {number} of this pair is in doubt since {} s: {}", oldest.as_secs(), named.join(" and "));
    let Some(settlement) = settlement else {
        let advice = "don't settle it by hand: what becomes of it depends on the other side, which can't be asked now. \
                      The daemon settles it when it connects to both";
        report.add(level, None, SUBJECT, text).advise(advice);
        return;
    };
    let who =
        if is_running { "the daemon settles it when it connects anew" } else { "start the daemon: it settles it" };
    let command = if settlement.commits() { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
    // The master's part was read first, and is the first to be settled.
    let steps: Vec<String> =
        parts.iter().map(|part| format!("on the {}: {command} {};", part.side, quote_literal(&part.gid))).collect();
    let advice = format!("{who}. If it cannot: {}", steps.join(" and then "));
    report.add(level, None, SUBJECT, format!("{text}: {settlement}")).advise(advice);
}

/// The name of a batch, and another role's transaction: whoever sees one of our names can use it for the next one.
fn forged(report: &mut Diagnosis, prepared: &Prepared) {
    let Prepared { side, gid, owner, .. } = prepared;
    let text = format!("{owner} has prepared {}, which has the name of a batch", quote_literal(gid));
    report.add(Level::Warning, Some(*side), SUBJECT, text).advise(
        "pyreplica never touches it: only batches that the daemon's own role has prepared are batches. If the daemon ran as that \
         role before, start it once more as that role",
    );
}

/// It may be a batch of the pair's: the master, which could tell, can't be asked.
fn orphaned(report: &mut Diagnosis, prepared: &Prepared) {
    let Prepared { side, gid, age, .. } = prepared;
    let text = format!("'{gid}' is in doubt since {} s", age.as_secs());
    report.add(Level::Warning, Some(*side), SUBJECT, text).advise(
        "don't settle it by hand: only the master tells whether it was committed there. When that is back, the daemon \
         settles it",
    );
}

fn foreign(report: &mut Diagnosis, prepared: &Prepared) {
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
