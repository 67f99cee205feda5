//! The sequences, which no trigger logs: set once, to where they are on the master at the end of the copy.

use super::News;
use crate::base::error::Result;
use crate::base::names::quote_literal;
use crate::copy::plan::listed;
use crate::copy::sql;
use crate::server::session::Session;
use std::collections::HashMap;

/// Sets all sequences, or those of some tables; how many. What cannot be set is told, and keeps nothing from going on.
pub(super) fn bring(
    master: &mut Session,
    slave: &mut Session,
    of: Option<Vec<String>>,
    tell: &mut dyn FnMut(News),
) -> Result<u64> {
    let there = master.query("look at the sequences", &sql::SEQUENCES, &[&of])?;
    let here = slave.query("look at the sequences", &sql::SEQUENCES, &[&None::<Vec<String>>])?;
    let here: HashMap<String, i64> = here.iter().map(|row| (row.get("sequence"), row.get("increment"))).collect();
    let mut set = 0;
    let (mut missing, mut secret, mut interleaved) = (Vec::new(), Vec::new(), Vec::new());
    for row in there {
        let name: String = row.get("sequence");
        let is_readable: bool = row.get("readable");
        match here.get(&name) {
            None => missing.push(name),
            // Where both sides are masters, each gives out numbers of its own: py_log_interleave.
            Some(increment) if *increment != row.get::<_, i64>("increment") => interleaved.push(name),
            Some(_) if !is_readable => secret.push(name),
            Some(_) => match set_one(master, slave, &name) {
                Ok(()) => set += 1,
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => tell(News::Note(format!("the sequence {name} is not set: {error}"))),
            },
        }
    }
    let notes = [
        (missing, "the slave has no sequence"),
        (secret, "DSN0's role may not read the sequence"),
        (interleaved, "not set, since it counts in other steps on the slave: the sequence"),
    ];
    for (names, what) in notes.iter().filter(|(names, _)| !names.is_empty()) {
        tell(News::Note(format!("{what} {}", listed(names))));
    }
    Ok(set)
}

fn set_one(master: &mut Session, slave: &mut Session, name: &str) -> Result<()> {
    let rows = master.text_rows("read a sequence", &format!("SELECT last_value, is_called FROM {name}"))?;
    let Some([Some(value), Some(is_called)]) = rows.first().map(Vec::as_slice) else { return Ok(()) };
    let set = format!("SELECT pg_catalog.setval({}, {value}, {})", quote_literal(name), quote_literal(is_called));
    slave.message("set a sequence", &set).map(drop)
}
