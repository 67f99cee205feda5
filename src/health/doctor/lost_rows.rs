//! Rows that come or go without being logged: what a crash does to unlogged tables, and what a table held when it was attached as a
//! partition.

use super::{Diagnosis, Level};
use crate::base::error::Result;
use crate::base::names::Side;
use crate::health::sql;
use crate::pair::attached;
use crate::server::session::Session;

const ATTACHED: &str = "attached partitions";

/// `tables`: the schemas and names of those that the master logs.
pub(super) fn examine(report: &mut Diagnosis, session: &mut Session, tables: (&[&str], &[&str])) {
    let subjects = [("unlogged tables", "none is replicated")];
    report.ask(session, &subjects, sql::DOCTOR_UNLOGGED, &[&tables.0, &tables.1]);
    if session.side() == Side::Master {
        report.ask(session, &[("not replicated", "nothing else is left out")], sql::DOCTOR_NOT_REPLICATED, &[]);
        let examined = attached(report, session);
        report.ok_or_warning(Some(Side::Master), ATTACHED, examined);
    }
}

fn attached(report: &mut Diagnosis, master: &mut Session) -> Result<()> {
    let found = attached::find(master)?;
    let mut filled = found.iter().filter(|attached| attached.had_rows()).peekable();
    if filled.peek().is_none() {
        report.add(Level::Ok, Some(Side::Master), ATTACHED, "none had rows when it was attached");
    }
    for attached in filled {
        report.add(Level::Warning, Some(Side::Master), ATTACHED, attached.text()).advise(&attached.advice);
    }
    Ok(())
}
