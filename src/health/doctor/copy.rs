//! Checks for a copy to the slave. A copy of all tables keeps daemons from replicating; a copy of single tables holds
//! their changes.

use super::{Diagnosis, Level, Worker};
use crate::base::names::Side;
use crate::health::sql;
use crate::pair::copied;
use crate::server::ours;
use crate::server::session::Session;

const SUBJECT: &str = "copy";

pub(super) fn examine(report: &mut Diagnosis, key: &str, source: &str, worker: Worker, slave: &mut Session) {
    let side = Some(Side::Slave);
    let asked = copied::unfinished(slave, key);
    let Some(unfinished) = report.ok_or_warning(side, SUBJECT, asked) else { return };
    let asked = tables_on_hold(slave, key);
    let Some(tables) = report.ok_or_warning(side, SUBJECT, asked) else { return };
    match &unfinished {
        Some(copy) if worker == Worker::Copy => drop(report.add(Level::Note, side, SUBJECT, copy.in_progress())),
        Some(copy) => {
            report.add(Level::Failure, side, SUBJECT, copy).advise(copy.hint(source));
        }
        None if tables.is_empty() => drop(report.add(Level::Ok, side, SUBJECT, "none is unfinished")),
        None => {}
    }
    if !tables.is_empty() {
        let text =
            format!("tables that are being copied, whose changes are held on the slave until the copy ends: {tables}");
        report
            .add(Level::Warning, side, SUBJECT, text)
            .advise(format!("if no copy is in progress, run it again: pyreplica copy --table ... {source}"));
    }
}

/// The tables whose changes are held for a copy.
fn tables_on_hold(slave: &mut Session, key: &str) -> crate::base::error::Result<String> {
    if !ours::may_read(slave, sql::HELD)? {
        return Ok(String::new());
    }
    Ok(slave.query_one("count the held changes", sql::HELD_SUMMARY, &[&key])?.get(3))
}
