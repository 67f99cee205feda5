//! Sets the sequences, which no trigger logs: once, at the end of the copy, to their values on the master.

use super::CopyEvent;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::copy::plan::listed;
use crate::copy::sql;
use crate::server::session::Session;
use std::collections::HashMap;

/// Sets all sequences, or those of some tables. Returns how many. A sequence that cannot be set is reported, and the copy
/// goes on.
pub(super) fn set_all(
    master: &mut Session,
    slave: &mut Session,
    tables: Option<Vec<String>>,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<u64> {
    let on_master = master.query("look at the sequences", &sql::SEQUENCES, &[&tables])?;
    let on_slave = slave.query("look at the sequences", &sql::SEQUENCES, &[&None::<Vec<String>>])?;
    let on_slave: HashMap<String, i64> =
        on_slave.iter().map(|row| (row.get("sequence"), row.get("increment"))).collect();
    let mut set = 0;
    let (mut missing, mut unreadable, mut interleaved) = (Vec::new(), Vec::new(), Vec::new());
    for row in on_master {
        let name: String = row.get("sequence");
        let is_readable: bool = row.get("readable");
        match on_slave.get(&name) {
            None => missing.push(name),
            // Where both sides are masters, each takes numbers of its own: py_log_interleave.
            Some(increment) if *increment != row.get::<_, i64>("increment") => interleaved.push(name),
            Some(_) if !is_readable => unreadable.push(name),
            Some(_) => match set_one(master, slave, &name, row.get("oid")) {
                Ok(()) => set += 1,
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => report(CopyEvent::Note(format!("the sequence {name} is not set: {error}"))),
            },
        }
    }
    let notes = [
        (missing, "the slave has no sequence"),
        (unreadable, "DSN0's role may not read the sequence"),
        (interleaved, "not set, because the increment differs on the slave: the sequence"),
    ];
    for (names, what) in notes.iter().filter(|(names, _)| !names.is_empty()) {
        report(CopyEvent::Note(format!("{what} {}", listed(names))));
    }
    Ok(set)
}

fn set_one(master: &mut Session, slave: &mut Session, name: &str, oid: u32) -> Result<()> {
    master.message("begin", "BEGIN")?;
    let read = read_one(master, name, oid);
    let (value, is_called) = master.end(read)?;
    let set = format!("SELECT pg_catalog.setval({}, {value}, {is_called})", quote_literal(name));
    slave.message("set a sequence", &set).map(drop)
}

/// The last number, and whether it has been given. The sequence's owner may give its name to something else at any moment,
/// such as a view, which would run functions of his with our rights, and tell any text for a number. So it is read by its own
/// number; only where it stands before the first is read by its name alone, and that can't change meanwhile.
fn read_one(master: &mut Session, name: &str, oid: u32) -> Result<(i64, bool)> {
    let operation = "read a sequence";
    if let Some(value) = master.query_one(operation, sql::LAST_VALUE, &[&oid])?.get(0) {
        return Ok((value, true));
    }
    let refused = |what: &str| Error::new(Kind::Setup, Some(Side::Master), operation, what.to_string());
    if !master.query_one(operation, sql::IS_NAMED, &[&oid, &name])?.get::<_, bool>(0) {
        return Err(refused("it has got another name meanwhile"));
    }
    let rows = master.text_rows(operation, &format!("SELECT last_value FROM {name}"))?;
    let value = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    value.map(|value| (value, false)).ok_or_else(|| refused("it has no last value"))
}
