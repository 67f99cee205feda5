//! Compares the two servers: encoding, locale, clocks, sequences.

use super::{Diagnosis, Level};
use crate::base::error::Result;
use crate::base::names::quote_literal;
use crate::health::sql;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::collections::HashMap;
use std::time::Instant;

/// From this difference of the clocks on, in seconds, the lag in seconds is not accurate.
const CLOCK_NOTE: f64 = 1.0;

/// From this difference on, one of the clocks is wrong.
const CLOCK_WARNING: f64 = 60.0;

pub(super) fn examine(report: &mut Diagnosis, master: &mut Session, slave: &mut Session) {
    let ask = |session: &mut Session| -> Result<(String, String, String)> {
        let row = session.query_one("look at the database", sql::DATABASE, &[])?;
        Ok((row.get("identity"), row.get("encoding"), row.get("locale")))
    };
    let both = ask(master).and_then(|on_master| Ok((on_master, ask(slave)?)));
    let Some(((identity, encoding, locale), there)) = report.ok_or_warning(None, "databases", both) else { return };
    if identity == there.0 {
        report
            .add(Level::Failure, None, "databases", "DSN0 and DSN1 are the same database")
            .advise("DSN0 is the master, DSN1 the slave: name two databases");
        return;
    }
    encodings(report, &encoding, &there.1);
    if locale == there.2 {
        report.add(Level::Ok, None, "locale", locale);
    } else {
        let text = format!("the master sorts text by {locale}, the slave by {}", there.2);
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
    sequences(report, master, slave);
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

/// Sequences are not replicated. The operator must know that before the slave takes over from the master.
fn sequences(report: &mut Diagnosis, master: &mut Session, slave: &mut Session) {
    let ask = |session: &mut Session| -> Result<Vec<(String, i64, bool)>> {
        let rows = session.query("look at the sequences", &sql::DOCTOR_SEQUENCES, &[])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    };
    // If the slave is also a master, its sequences have other values by design.
    let is_master =
        slave.query_one("look for a log on the slave", server_sql::HAS_LOG, &[]).map(|row| row.get::<_, bool>(0));
    let Some(false) = report.ok_or_warning(None, "sequences", is_master) else { return };
    let both = ask(master).and_then(|on_master| Ok((on_master, ask(slave)?)));
    let Some((on_master, on_slave)) = report.ok_or_warning(None, "sequences", both) else { return };
    let there: HashMap<&str, i64> = on_slave.iter().map(|(name, value, _)| (name.as_str(), *value)).collect();
    let names = slave.query("look at the sequences", sql::SEQUENCE_NAMES, &[]);
    let Some(names) = report.ok_or_warning(None, "sequences", names) else { return };
    let known: Vec<String> = names.iter().map(|row| row.get(0)).collect();
    let behind = on_master.iter().filter(|(name, value, rises)| {
        known.contains(name)
            && there.get(name.as_str()).is_none_or(|there| if *rises { there < value } else { there > value })
    });
    let behind: Vec<_> = behind.collect();
    if behind.is_empty() {
        report.add(Level::Ok, Some(slave.side()), "sequences", "none is behind the master's");
        return;
    }
    let text = format!("sequences are not replicated; behind the master's: {}", behind.len());
    let finding = report.add(Level::Note, Some(slave.side()), "sequences", text);
    for (name, value, _) in behind {
        finding.fix(format!("SELECT pg_catalog.setval({}, {value});", quote_literal(name)));
    }
    finding.advise("run this before the slave takes over from the master");
}
