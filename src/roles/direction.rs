//! The first batch of a new direction: what a database writes when it becomes the master.

use crate::backlog::master_row::{MasterRow, parse};
use crate::backlog::position::Position;
use crate::backlog::sql as backlog_sql;
use crate::base::error::Result;
use crate::base::names::LogId;
use crate::commit::twophase::draw_batch;
use crate::roles::sql;
use crate::server::session::Session;

/// Gives the slave of a field a position that covers all of the log, in the open transaction of the new master. A crash must not give
/// the numbers of finished transactions in its snapshot to others, so a subtransaction with a later number writes it.
pub fn begin(master: &mut Session, field: &String, identity: &str, slave: &str, why: &str) -> Result<Position> {
    let batch = draw_batch(master)?;
    let now = master.query_one("take a snapshot", sql::NOW, &[])?;
    let position = Position {
        batch: batch.number,
        token: Some(batch.token),
        base: Some(parse(now.get(0))?),
        current: None,
        last: None,
        highest: LogId(now.get(1)),
        floor: LogId(0),
    };
    master.message("set a savepoint", "SAVEPOINT later")?;
    note(master, field, identity, slave, &position, why)?;
    master.message("end the savepoint", "RELEASE later")?;
    Ok(position)
}

/// Writes a slave's position, which begins a history.
pub fn note(
    master: &mut Session,
    field: &String,
    identity: &str,
    slave: &str,
    position: &Position,
    why: &str,
) -> Result<()> {
    let row = MasterRow::read(master, field)?;
    master.execute("begin a history", backlog_sql::BEGIN_HISTORY, &[field, &why, &row.life])?;
    let noted = backlog_sql::Noted { field, identity, slave, announced: None, position };
    master.text_rows("note the position", &backlog_sql::note_position(&noted, row.position.batch)).map(drop)
}
