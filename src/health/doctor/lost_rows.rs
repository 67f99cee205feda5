//! Rows that come or go without being logged: what a crash does to unlogged tables, and what a table held when it was attached as a
//! partition.

use super::{Diagnosis, Level};
use crate::base::error::Result;
use crate::base::names::{Side, quote_literal};
use crate::health::sql;
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
    let rows = master.query("look at the partitions", sql::DOCTOR_ATTACHED, &[])?;
    let before = report.findings.len();
    for row in &rows {
        let (relation, root): (&str, &str) = (row.get("relation"), row.get("root"));
        let Some(look) = row.get::<_, Option<&str>>("look") else { continue };
        if master.text_rows("look for rows", &format!("select 1 where exists ({look})"))?.is_empty() {
            continue;
        }
        let text = format!("{relation} had rows when it was attached to {root}: they are not in the log");
        let (schema, name): (&str, &str) = (row.get("schema"), row.get("name"));
        report.add(Level::Warning, Some(Side::Master), ATTACHED, text).advise(format!(
            "attach the slave's table too, if it has one with these rows. Then compare, and repair: pyreplica repair \
                 --table {root}; this warning ends with SELECT public.py_log_create_tg({}, {});",
            quote_literal(schema),
            quote_literal(name)
        ));
    }
    if report.findings.len() == before {
        report.add(Level::Ok, Some(Side::Master), ATTACHED, "none had rows when it was attached");
    }
    Ok(())
}
