//! Prepared transactions that are neither committed nor rolled back: those of this pair, and old ones of others, which
//! keep vacuum from removing rows.

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

/// A running daemon commits a prepared batch within milliseconds. A batch that is older than this is stuck.
const OWN_PATIENCE: Duration = Duration::from_secs(60);

/// Transactions of others may take longer, but none should take this long.
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
        let Some(found) = report.ok_or_warning(Some(side), SUBJECT, asked) else { continue };
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
                    None if prepared.is_forged(field) => add_forged(report, &prepared),
                    None if prepared.age > PATIENCE => add_foreign(report, &prepared),
                    None => continue,
                },
                None if prepared.may_be_batch_of(field) => add_unidentified(report, &prepared),
                None if prepared.age > PATIENCE => add_foreign(report, &prepared),
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
        let settlement = rows.as_ref().and_then(|(master, slave)| {
            let has = |side| parts.iter().any(|part| part.side == side);
            let is_last = |batch, token: Option<&String>| {
                batch == *number && token.is_some_and(|token| GidFamily::is_of(&parts[0].gid, token))
            };
            let on_slave = slave.as_ref().is_some_and(|slave| is_last(slave.batch, slave.token.as_ref()));
            let on_master = is_last(master.position.batch, master.position.token.as_ref());
            decide((has(Side::Master), has(Side::Slave)), (on_master, on_slave))
        });
        add_batch(report, *number, parts, settlement, is_running);
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

/// Adds a batch of this pair. `settlement` is known only if both sides were reached.
fn add_batch(
    report: &mut Diagnosis,
    number: BatchNumber,
    parts: &[Prepared],
    settlement: Option<Settlement>,
    is_running: bool,
) {
    let oldest = parts.iter().map(|part| part.age).max().unwrap_or_default();
    let level = if is_running && oldest < OWN_PATIENCE { Level::Note } else { Level::Warning };
    let named: Vec<String> = parts.iter().map(|part| format!("'{}' on the {}", part.gid, part.side)).collect();
    let text =
        format!("batch {number} of this pair has been in doubt for {} s: {}", oldest.as_secs(), named.join(" and "));
    let Some(settlement) = settlement else {
        let advice = "don't settle it by hand: whether it must be committed depends on the other server, which cannot be \
                      reached now. The daemon settles it when it connects to both servers";
        report.add(level, None, SUBJECT, text).advise(advice);
        return;
    };
    let who = if is_running { "the daemon settles it when it reconnects" } else { "start the daemon: it settles it" };
    let command = if settlement.commits() { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
    // The master's transaction comes first here, and must be settled first.
    let steps: Vec<String> =
        parts.iter().map(|part| format!("on the {}: {command} {};", part.side, quote_literal(&part.gid))).collect();
    let advice = format!("{who}. If it cannot: {}", steps.join(" and then "));
    report.add(level, None, SUBJECT, format!("{text}: {settlement}")).advise(advice);
}

/// Adds another role's transaction with the name of a batch. A role that sees one of our names can make up others.
fn add_forged(report: &mut Diagnosis, prepared: &Prepared) {
    let Prepared { side, gid, owner, .. } = prepared;
    let text = format!("{owner} has prepared {}, which has the name of a batch", quote_literal(gid));
    report.add(Level::Warning, Some(*side), SUBJECT, text).advise(
        "pyreplica never touches it: only batches that the daemon's own role has prepared are batches. If the daemon ran as that \
         role before, start it once more as that role",
    );
}

/// Adds a transaction that may be a batch of this pair. Only the master knows, and it cannot be reached.
fn add_unidentified(report: &mut Diagnosis, prepared: &Prepared) {
    let Prepared { side, gid, age, .. } = prepared;
    let text = format!("'{gid}' has been in doubt for {} s", age.as_secs());
    report.add(Level::Warning, Some(*side), SUBJECT, text).advise(
        "don't settle it by hand: only the master knows whether it was committed there. The daemon settles it when the \
         master is back",
    );
}

/// Adds an old prepared transaction that is not a batch of this pair.
fn add_foreign(report: &mut Diagnosis, prepared: &Prepared) {
    let Prepared { side, gid, database, owner, age, .. } = prepared;
    let gid = quote_literal(gid);
    let text = format!(
        "{owner} prepared {gid} in database {database} {} s ago: it holds its locks and keeps vacuum from removing rows",
        age.as_secs()
    );
    report.add(Level::Warning, Some(*side), SUBJECT, text).advise(format!(
        "ask {owner} which is right, and run it in that database: COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};"
    ));
}
