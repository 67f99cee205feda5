//! Compares the two servers: encoding, locale, clocks.

use super::{Diagnosis, Level};
use crate::base::error::Result;
use crate::health::sql;
use crate::server::session::Session;
use std::time::Instant;

/// From this difference of the clocks on, in seconds, the lag in seconds is not accurate.
const CLOCK_NOTE: f64 = 1.0;

/// From this difference on, one of the clocks is wrong.
const CLOCK_WARNING: f64 = 60.0;

/// False if it makes no sense to compare more.
pub(super) fn examine(report: &mut Diagnosis, master: &mut Session, slave: &mut Session) -> bool {
    let ask = |session: &mut Session| -> Result<(String, String)> {
        let row = session.query_one("look at the database", sql::DATABASE, &[])?;
        Ok((row.get("encoding"), row.get("locale")))
    };
    let both = ask(master).and_then(|on_master| Ok((on_master, ask(slave)?)));
    let Some(((encoding, locale), there)) = report.ok_or_warning(None, "databases", both) else {
        return false;
    };
    encodings(report, &encoding, &there.0);
    if locale == there.1 {
        report.add(Level::Ok, None, "locale", locale);
    } else {
        let text = format!("the master sorts text by {locale}, the slave by {}", there.1);
        report
            .add(Level::Note, None, "locale", text)
            .advise("ORDER BY may sort differently there; unique indexes over expressions like lower() may differ");
    }
    let clocks = clocks(master, slave);
    if let Some((difference, uncertainty)) = report.ok_or_warning(None, "clocks", clocks) {
        let seconds = difference.abs() - uncertainty;
        let level = match seconds {
            s if s >= CLOCK_WARNING => Level::Warning,
            s if s >= CLOCK_NOTE => Level::Note,
            _ => Level::Ok,
        };
        let ahead = if difference > 0.0 { "ahead of" } else { "behind" };
        let text = format!("the slave's clock is {:.1} s {ahead} the master's", difference.abs());
        let finding = report.add(level, None, "clocks", text);
        if level > Level::Ok {
            finding.advise("synchronize the clocks of both machines with NTP");
        }
    }
    true
}

fn encodings(report: &mut Diagnosis, master: &str, slave: &str) {
    let text = format!("{master} on the master, {slave} on the slave");
    if master == slave {
        report.add(Level::Ok, None, "encoding", master);
    } else if slave == "UTF8" && master != "SQL_ASCII" {
        report.add(Level::Note, None, "encoding", text);
    } else {
        report
            .add(Level::Warning, None, "encoding", text)
            .advise("a character that the slave's encoding lacks stops replication: make the slave's database in UTF8");
    }
}

/// How many seconds the slave's clock is ahead, and the largest possible error of that.
fn clocks(master: &mut Session, slave: &mut Session) -> Result<(f64, f64)> {
    let start = Instant::now();
    let ask = |session: &mut Session| -> Result<(f64, f64)> {
        // The first call prepares the statement, so only the second one is measured.
        session.query_one("read the clock", sql::CLOCK, &[])?;
        let before = start.elapsed().as_secs_f64();
        let there: f64 = session.query_one("read the clock", sql::CLOCK, &[])?.get(0);
        let after = start.elapsed().as_secs_f64();
        Ok((there - (before + after) / 2.0, (after - before) / 2.0))
    };
    let (on_master, on_slave) = (ask(master)?, ask(slave)?);
    Ok((on_slave.0 - on_master.0, on_slave.1 + on_master.1))
}
