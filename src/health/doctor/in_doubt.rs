//! Prepared transactions that are neither committed nor rolled back: those of this pair, and old ones of others, which
//! keep vacuum from removing rows.

use super::{Diagnosis, Level};
use crate::base::names::{BatchNumber, Side, quote_literal};
use crate::commit::prepared::{Prepared, prepared};
use crate::commit::recovery::{GidFamily, Settlement, decide};
use crate::commit::sql as commit_sql;
use crate::config::settings::Config;
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
    let mut committed = None;
    for session in sessions {
        let side = session.side();
        let asked = prepared(session);
        let Some(found) = report.ok_or_warning(Some(side), SUBJECT, asked) else { continue };
        asked_sides.push(side);
        if side == Side::Master && family.is_some() {
            let asked = session.query("read the last batch", commit_sql::COMMITTED_BATCH, &[field]);
            committed = asked.ok().and_then(|rows| rows.first().map(|row| BatchNumber(row.get(0))));
        }
        let mut has_any = false;
        for prepared in found {
            match &family {
                Some(family) => match prepared.batch_of(family) {
                    Some(number) => own.entry(number).or_default().push(prepared),
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
    let committed = committed.filter(|_| asked_sides.len() == 2);
    own.iter().for_each(|(number, parts)| add_batch(report, *number, parts, committed, is_running));
}

/// Adds a batch of this pair. `committed` is the number in the master's row; it is known only if both sides were
/// reached.
fn add_batch(
    report: &mut Diagnosis,
    number: BatchNumber,
    parts: &[Prepared],
    committed: Option<BatchNumber>,
    is_running: bool,
) {
    let oldest = parts.iter().map(|part| part.age).max().unwrap_or_default();
    let level = if is_running && oldest < OWN_PATIENCE { Level::Note } else { Level::Warning };
    let named: Vec<String> = parts.iter().map(|part| format!("'{}' on the {}", part.gid, part.side)).collect();
    let text =
        format!("batch {number} of this pair has been in doubt for {} s: {}", oldest.as_secs(), named.join(" and "));
    let has = |side| parts.iter().any(|part| part.side == side);
    let Some(action) = committed.and_then(|committed| decide(number, has(Side::Master), has(Side::Slave), committed))
    else {
        let advice = "don't settle it by hand: whether it must be committed depends on the other server, which cannot be \
                      reached now. The daemon settles it when it connects to both servers";
        report.add(level, None, SUBJECT, text).advise(advice);
        return;
    };
    let who = if is_running { "the daemon settles it when it reconnects" } else { "start the daemon: it settles it" };
    let command = match action {
        Settlement::CommitBoth | Settlement::CommitSlave => "COMMIT PREPARED",
        Settlement::RollBackMaster | Settlement::RollBackSlave => "ROLLBACK PREPARED",
    };
    // The master's transaction comes first here, and must be settled first.
    let steps: Vec<String> =
        parts.iter().map(|part| format!("on the {}: {command} {};", part.side, quote_literal(&part.gid))).collect();
    let advice = format!("{who}. If it cannot: {}", steps.join(" and then "));
    report.add(level, None, SUBJECT, format!("{text}: {action}")).advise(advice);
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
