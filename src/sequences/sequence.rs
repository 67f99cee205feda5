//! The sequences of one side, read page by page.

use crate::base::error::{Error, Kind, Result};
use crate::config::tables::Tables;
use crate::sequences::sql;
use crate::server::session::{Row, Session, ToSql};
use std::collections::HashMap;

/// Reading a sequence locks it until the transaction ends. By default a server has room for some 7,000 locks of all
/// sessions together.
pub const PAGE: usize = 500;

const READ: &str = "look at the sequences";

/// Where a sequence stands: its last number, and whether it has given that already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub value: i64,
    pub is_called: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Quoted where necessary, with its schema.
    pub name: String,
    pub oid: u32,
    pub owner: String,
    /// The owner may do anyway what the owner of the log may.
    pub is_trusted: bool,
    /// The column that it belongs to.
    pub column: Option<Column>,
    pub increment: i64,
    pub lowest: i64,
    pub highest: i64,
    pub cycles: bool,
    pub is_readable: bool,
    pub is_settable: bool,
    /// Somebody has locked it.
    pub is_busy: bool,
    /// None if it could not be read.
    pub place: Option<Place>,
    /// What is cheap to read: the last number given, and the file, which is a new one when it is restarted.
    pub(super) last: Option<i64>,
    pub(super) file: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub table_oid: u32,
    pub table: String,
    name: String,
}

impl Sequence {
    /// Whether a pair that is limited to some tables cares for it: by its own name or schema, or by the table of its column.
    pub fn is_of(&self, tables: &Tables) -> bool {
        tables.has(&self.name) || self.column.as_ref().is_some_and(|column| tables.has(&column.table))
    }

    /// Nothing has changed but perhaps the place of one that has given no number yet.
    pub fn is_as(&self, other: &Sequence) -> bool {
        let place = other.place;
        *self == Sequence { place: self.place, ..other.clone() } && (place.is_none() || self.last.is_some())
    }
}

impl Column {
    /// The same column, on the other side.
    pub fn is(&self, other: &Column) -> bool {
        (&self.table, &self.name) == (&other.table, &other.name)
    }
}

/// Which sequences to read.
#[derive(Clone, Copy, Default)]
pub struct Which<'a> {
    pub names: Option<&'a [String]>,
    /// Those that belong to columns of these tables.
    pub tables: Option<&'a [String]>,
    /// Wait for those that somebody has locked, as long as the session waits for a lock.
    pub waits: bool,
}

/// Reads sequences. `is_wanted` gets each one before its place is read, and says whether it is to be returned. The session must
/// not be in a transaction.
pub fn read(
    session: &mut Session,
    which: Which,
    mut is_wanted: impl FnMut(&Sequence) -> bool,
) -> Result<Vec<Sequence>> {
    let (mut above, mut found) = (0u32, Vec::new());
    loop {
        let mut page = Vec::new();
        let (last, count) = session.transaction(&sql::begin(which.waits), |session| {
            let parameters: [&(dyn ToSql + Sync); 5] =
                [&above, &(PAGE as i64), &which.names, &which.tables, &which.waits];
            let rows = session.query(READ, &sql::SEQUENCES, &parameters)?;
            let ours = rows.iter().filter(|row| !row.get::<_, bool>("excepted")).map(sequence);
            page = ours.filter(&mut is_wanted).collect();
            read_places(session, &mut page)?;
            Ok((rows.last().map(|row| row.get("oid")), rows.len()))
        })?;
        found.append(&mut page);
        match last {
            Some(last) if count == PAGE => above = last,
            _ => return Ok(found),
        }
    }
}

/// The connection is lost: not a matter of sequences.
pub fn is_of_the_session(error: &Error) -> bool {
    error.is_transient() && error.kind() != Kind::Contention
}

fn sequence(row: &Row) -> Sequence {
    let column = row.get::<_, Option<String>>("column");
    let last: Option<i64> = row.get("last");
    Sequence {
        name: row.get("name"),
        oid: row.get("oid"),
        owner: row.get("owner"),
        is_trusted: row.get("trusted"),
        column: column.map(|name| Column { table_oid: row.get("table_oid"), table: row.get("table_name"), name }),
        increment: row.get("increment"),
        lowest: row.get("lowest"),
        highest: row.get("highest"),
        cycles: row.get("cycles"),
        is_readable: row.get("readable"),
        is_settable: row.get("settable"),
        is_busy: row.get("busy"),
        place: last.map(|value| Place { value, is_called: true }),
        last,
        file: row.get("file"),
    }
}

/// Reads the sequences that have given no number yet. The server reads those by name only. The owner may give the name to
/// something else, such as a view, which would run functions of his with our rights, and tell any text for a number. But the
/// last number has been read by the sequence's own number, and that has locked it: it keeps its name until the transaction ends.
fn read_places(session: &mut Session, page: &mut [Sequence]) -> Result<()> {
    let is_open = |sequence: &Sequence| sequence.place.is_none() && sequence.is_readable && !sequence.is_busy;
    let oids: Vec<u32> = page.iter().filter(|sequence| is_open(sequence)).map(|sequence| sequence.oid).collect();
    if oids.is_empty() {
        return Ok(());
    }
    let rows = session.query(READ, sql::NAMES, &[&oids])?;
    let names: HashMap<u32, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut parts = Vec::new();
    for (number, sequence) in page.iter_mut().enumerate().filter(|(_, sequence)| is_open(sequence)) {
        match names.get(&sequence.oid) {
            Some(name) if *name == sequence.name => {
                parts.push(format!("select {number}, last_value, is_called from {name}"));
            }
            // It has got another name since the query began.
            _ => sequence.is_busy = true,
        }
    }
    if parts.is_empty() {
        return Ok(());
    }
    for row in session.text_rows(READ, &parts.join(" union all "))? {
        let text = |index: usize| row.get(index).and_then(|text| text.as_deref());
        let number = text(0).and_then(|text| text.parse::<usize>().ok());
        let value = text(1).and_then(|text| text.parse().ok());
        if let (Some(sequence), Some(value)) = (number.and_then(|number| page.get_mut(number)), value) {
            sequence.place = Some(Place { value, is_called: text(2) == Some("t") });
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One that rises by 1 and stands here.
    pub fn at(value: i64, is_called: bool) -> Sequence {
        Sequence {
            name: "public.s".into(),
            oid: 1,
            owner: "joe".into(),
            is_trusted: false,
            column: None,
            increment: 1,
            lowest: 1,
            highest: i64::MAX,
            cycles: false,
            is_readable: true,
            is_settable: true,
            is_busy: false,
            place: Some(Place { value, is_called }),
            last: None,
            file: 1,
        }
    }
}
