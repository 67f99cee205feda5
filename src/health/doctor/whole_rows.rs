//! Tables without a key, whose rows are found by all their columns: what makes that slow, and which filters do not go with it.

use super::{Diagnosis, Level};
use crate::base::names::{Side, quote_literal};
use crate::health::sql;
use crate::server::session::Session;

/// A table that the master logs, and whose whole row identifies it.
pub(super) struct WholeRow<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    pub relation: &'a str,
}

pub(super) fn examine(report: &mut Diagnosis, tables: &[WholeRow], master: Option<&mut Session>, slave: &mut Session) {
    if tables.is_empty() {
        return;
    }
    if let Some(master) = master {
        filters(report, tables, master);
    }
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
    let subjects = [("whole rows", "no large table is searched without an index")];
    report.ask(slave, &subjects, sql::DOCTOR_WHOLE_ROWS, &[&schemas, &names]);
}

/// A filter on UPDATE or DELETE keeps changes from a row that the slave has. Without a key that row is not found again.
fn filters(report: &mut Diagnosis, tables: &[WholeRow], master: &mut Session) {
    // If the role may not read the filters, nothing is said about them.
    let filters = master.query("look at the filters", sql::CHANGE_FILTERS, &[]).unwrap_or_default();
    for row in &filters {
        let (relname, event): (&str, &str) = (row.get(0), row.get(1));
        for table in tables.iter().filter(|table| [table.name, table.relation].contains(&relname)) {
            let text = format!(
                "{} has no key, and a filter on {event}: the next change of a row whose change was kept from the slave does not \
                 find it there",
                table.relation
            );
            report.add(Level::Warning, Some(Side::Master), "filters", text).advise(format!(
                "give the table a primary key on both sides; or let a condition on INSERT decide which rows belong on the slave: \
                 DELETE FROM py_log_filter WHERE relname = {} AND event = '{event}';",
                quote_literal(relname)
            ));
        }
    }
}
