//! After a restart of a server: finds the replicated tables that a crash has emptied, because they are unlogged.
//!
//! The log does not know of that. The other side keeps its rows, and the next INSERT of such a key stops the pair.

use crate::base::error::Result;
use crate::base::names::Side;
use crate::commit::twophase::Pair;
use crate::pair::sql;
use crate::server::session::{Row, Session};
use std::collections::HashSet;

/// A text for each table that is empty on the server that was restarted since the last batch, and has rows on the other
/// side.
pub fn find(pair: &mut Pair, field: &str) -> Result<Vec<String>> {
    let (operation, Pair { master, slave, key, .. }) = ("look for unlogged tables", pair);
    let on_master = master.query(operation, sql::MASTER_WAS_STARTED, &[&field])?.pop();
    let on_slave = slave.query(operation, sql::SLAVE_WAS_STARTED, &[&*key])?.pop();
    let Some((on_master, on_slave)) = on_master.zip(on_slave) else { return Ok(Vec::new()) };
    let unlogged = |session: &mut Session, was_started: &Row| match was_started.get(0) {
        true => session.query(operation, sql::EMPTIED, &[]),
        // To plan that query takes longer than all else here.
        false => Ok(Vec::new()),
    };
    let (on_master, on_slave) = (unlogged(master, &on_master)?, unlogged(slave, &on_slave)?);
    let mut told = Vec::new();
    for row in on_master.iter().filter(|row| row.get("captured")) {
        let relation: &str = row.get("relation");
        if !may_have_rows(master, relation)? && may_have_rows(slave, relation)? {
            told.push(text(Side::Master, relation, row.get("started")));
        }
    }
    let names: Vec<&str> = on_slave.iter().map(|row| row.get("relation")).collect();
    let captured: HashSet<String> = match names.is_empty() {
        true => HashSet::new(),
        false => {
            let rows = master.query(operation, sql::ARE_CAPTURED, &[&names])?;
            rows.iter().map(|row| row.get(0)).collect()
        }
    };
    for row in on_slave.iter().filter(|row| captured.contains(row.get::<_, &str>("relation"))) {
        let relation: &str = row.get("relation");
        if !may_have_rows(slave, relation)? && may_have_rows(master, relation)? {
            told.push(text(Side::Slave, relation, row.get("started")));
        }
    }
    Ok(told)
}

/// False if the table is certainly empty. A role that may not read it can only see that its files are: a crash leaves them so.
fn may_have_rows(session: &mut Session, relation: &str) -> Result<bool> {
    let operation = "look for rows";
    let found = session.query(operation, sql::HAS_PAGES, &[&relation])?;
    let Some(row) = found.first().filter(|row| row.get("has_pages")) else { return Ok(false) };
    if !row.get::<_, bool>("readable") {
        return Ok(true);
    }
    let only = if row.get("is_partitioned") { "" } else { "ONLY " };
    match session.text_rows(operation, &format!("SELECT EXISTS (SELECT FROM {only}{relation})")) {
        Ok(rows) => Ok(rows.into_iter().flatten().flatten().next().as_deref() == Some("t")),
        Err(error) if error.is_transient() => Err(error),
        Err(_) => Ok(true),
    }
}

fn text(side: Side, relation: &str, started: &str) -> String {
    format!(
        "{relation} is unlogged, and empty on the {side}, which was restarted at {started}. If it had crashed, the two sides \
         differ now. hint: pyreplica compare --table shows it, repair --table makes the slave's rows the master's; ALTER \
         TABLE {relation} SET LOGGED on the {side} keeps it from happening again"
    )
}
