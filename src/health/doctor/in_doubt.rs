//! Transactions that are prepared and neither committed nor rolled back: ours, and others' that hold back vacuum.

use super::{Diagnosis, Level};
use crate::base::names::{BatchNumber, Side, quote_literal};
use crate::commit::prepared::{Prepared, prepared};
use crate::commit::recovery::{GidFamily, Settlement, decide};
use crate::commit::sql as commit_sql;
use crate::config::settings::Config;
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
    let mut committed = None;
    for session in sessions {
        let side = session.side();
        let asked = prepared(session);
        let Some(found) = report.tried(Some(side), SUBJECT, asked) else { continue };
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
    let committed = committed.filter(|_| asked_sides.len() == 2);
    own.iter().for_each(|(number, parts)| doubtful(report, *number, parts, committed, is_running));
}

/// A batch of the pair's. `committed`, the number in the master's row, is known if both sides could be asked.
fn doubtful(
    report: &mut Diagnosis,
    number: BatchNumber,
    parts: &[Prepared],
    committed: Option<BatchNumber>,
    is_running: bool,
) {
    let oldest = parts.iter().map(|part| part.age).max().unwrap_or_default();
    let level = if is_running && oldest < OWN_PATIENCE { Level::Note } else { Level::Warning };
    let named: Vec<String> = parts.iter().map(|part| format!("'{}' on the {}", part.gid, part.side)).collect();
    let text = format!("batch {number} of this pair is in doubt since {} s: {}", oldest.as_secs(), named.join(" and "));
    let has = |side| parts.iter().any(|part| part.side == side);
    let Some(action) = committed.and_then(|committed| decide(number, has(Side::Master), has(Side::Slave), committed))
    else {
        let advice = "don't settle it by hand: what becomes of it depends on the other side, which can't be asked now. \
                      The daemon settles it when it connects to both";
        report.add(level, None, SUBJECT, text).advise(advice);
        return;
    };
    let who =
        if is_running { "the daemon settles it when it connects anew" } else { "start the daemon: it settles it" };
    let command = match action {
        Settlement::CommitBoth | Settlement::CommitSlave => "COMMIT PREPARED",
        Settlement::RollBackMaster | Settlement::RollBackSlave => "ROLLBACK PREPARED",
    };
    // The master's part was read first, and is the first to be settled.
    let steps: Vec<String> =
        parts.iter().map(|part| format!("on the {}: {command} {};", part.side, quote_literal(&part.gid))).collect();
    let advice = format!("{who}. If it cannot: {}", steps.join(" and then "));
    report.add(level, None, SUBJECT, format!("{text}: {action}")).advise(advice);
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
