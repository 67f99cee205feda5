//! Checks which sequences of the slave follow those of the master, and why others do not.

use super::{Diagnosis, Level};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::base::shown::listed;
use crate::config::settings::Config;
use crate::health::sql;
use crate::sequences::comparison::{Comparison, compare};
use crate::sequences::decision::Why;
use crate::server::session::Session;

const SUBJECT: &str = "sequences";

pub(super) fn examine(report: &mut Diagnosis, config: &Config, master: &mut Session, slave: &mut Session) {
    let compared = compare(master, slave, &config.tables);
    let Some(compared) = report.ok_or_warning(None, SUBJECT, compared) else { return };
    let side = Some(Side::Slave);
    if compared.is_fed_back {
        let text = "the slave is a master for this master: each keeps its own sequences";
        report
            .add(Level::Note, side, SUBJECT, text)
            .advise("py_log_interleave gives each of them numbers that no other has");
        return;
    }
    let before = report.findings.len();
    if config.sequences.is_none() {
        report.add(Level::Note, side, SUBJECT, "SEQUENCES=off: no sequence follows");
    }
    for (why, names) in compared.not_following.iter().filter(|(why, _)| **why != Why::Busy) {
        not_following(report, config, (*why, names), if *why == Why::Unreadable { &mut *master } else { &mut *slave });
    }
    behind(report, &compared);
    if report.findings.len() == before {
        let text = format!("none is behind the master's; of {} all follow", compared.following);
        report.add(Level::Ok, side, SUBJECT, text);
    }
}

fn not_following(report: &mut Diagnosis, config: &Config, (why, names): (Why, &[String]), session: &mut Session) {
    let role = session.query_one("ask for the role", sql::ROLE_AND_VERSION, &[]);
    let Some(role) = report.ok_or_warning(Some(session.side()), SUBJECT, role) else { return };
    let role = quote_ident(role.get(0));
    let level = if why.is_a_fault() && config.sequences.is_some() { Level::Warning } else { Level::Note };
    let text = format!("sequences that do not follow: {why}: {}", listed(names));
    let finding = report.add(level, Some(session.side()), SUBJECT, text);
    match why {
        Why::Unreadable | Why::NoRight => {
            let rights = if why == Why::Unreadable { "SELECT" } else { "SELECT, UPDATE" };
            finding.fixes.extend(names.iter().map(|name| format!("GRANT {rights} ON SEQUENCE {name} TO {role};")));
            finding.advise("it also needs USAGE on the schema; docs/rights.md has a statement for all sequences");
        }
        Why::OtherOwner => {
            finding
                .advise("if they are the same sequences, give them the same owner there: ALTER SEQUENCE ... OWNER TO");
        }
        Why::OutOfBounds => drop(finding.advise("ALTER SEQUENCE ... AS bigint, or MAXVALUE, as the master's is")),
        Why::Missing => drop(finding.advise("create them there, if the slave is to become the master one day")),
        _ => {}
    }
}

fn behind(report: &mut Diagnosis, compared: &Comparison) {
    if compared.behind.is_empty() {
        return;
    }
    let text = format!("behind the master's: {}", compared.behind.len());
    let finding = report.add(Level::Note, Some(Side::Slave), SUBJECT, text);
    for (name, place) in &compared.behind {
        let (name, called) = (quote_literal(name), place.is_called);
        finding.fix(format!("SELECT pg_catalog.setval({name}, {}, {called});", place.value));
    }
    finding.advise(
        "a daemon sets them within SEQUENCES after a change; without one, run this before the slave takes over",
    );
}
