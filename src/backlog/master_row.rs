//! The slave's row in `replica_slave`, as the master has it.

use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, LogId, Side};
use crate::server::session::{Row, Session};

/// A slave's row in `replica_slave`.
#[derive(Debug)]
pub struct MasterRow {
    pub position: Position,
    /// The database that the position's transaction numbers belong to.
    pub identity: Option<String>,
    /// The slave's database that has the last batch.
    pub slave: Option<String>,
    pub history: Option<String>,
    /// The token that TWO_PHASE=false has written before its first batch of a drain.
    pub announced: Option<String>,
    /// The former histories, and the last batch that the master has of each.
    pub histories: Vec<(String, BatchNumber)>,
    /// When the last batch was written.
    pub ts: String,
    /// Timeline and start time of the server: as the row has them, and as they are now.
    pub known_life: Option<String>,
    pub life: String,
    /// Flags are set up to here.
    pub flagged: LogId,
    /// The row's ctid.
    pub place: String,
}

impl MasterRow {
    pub fn read(master: &mut Session, field: &str) -> Result<MasterRow> {
        let missing = || Error::new(Kind::Internal, Some(Side::Master), "read the position", "the slave has no row");
        MasterRow::find(master, field)?.ok_or_else(missing)
    }

    /// None if no daemon has ever replicated to the slave.
    pub fn find(master: &mut Session, field: &str) -> Result<Option<MasterRow>> {
        let rows = master.query("read the position", sql::POSITION, &[&field])?;
        rows.first().map(MasterRow::of_row).transpose()
    }

    fn of_row(row: &Row) -> Result<MasterRow> {
        let histories: Vec<String> = row.get("histories");
        let up_to: Vec<i64> = row.get("up_to");
        Ok(MasterRow {
            position: Position {
                batch: BatchNumber(row.get("batch")),
                token: row.get("token"),
                base: row.get::<_, Option<&str>>("base").map(parse).transpose()?,
                current: row.get::<_, Option<&str>>("current").map(parse).transpose()?,
                last: row.get::<_, Option<i64>>("last").map(LogId),
                highest: LogId(row.get("highest")),
                floor: LogId(row.get("floor")),
            },
            identity: row.get("identity"),
            slave: row.get("slave"),
            history: row.get("history"),
            announced: row.get("announced"),
            histories: histories.into_iter().zip(up_to.into_iter().map(BatchNumber)).collect(),
            ts: row.get("ts"),
            known_life: row.get("known_life"),
            life: row.get("life"),
            flagged: LogId(row.get("flagged")),
            place: row.get("place"),
        })
    }

    #[cfg(test)]
    pub fn of(batch: i64, token: Option<&str>, history: &str, histories: &[(&str, i64)]) -> MasterRow {
        let position = Position { batch: BatchNumber(batch), token: token.map(str::to_string), ..Position::nowhere() };
        MasterRow {
            position,
            identity: None,
            slave: None,
            history: Some(history.to_string()),
            announced: None,
            histories: histories.iter().map(|(name, up_to)| (name.to_string(), BatchNumber(*up_to))).collect(),
            ts: String::new(),
            known_life: None,
            life: "1 noon".to_string(),
            flagged: LogId(0),
            place: String::new(),
        }
    }

    /// The state of this row as one text. With TWO_PHASE=false the slave stores it with the batch that was built on it.
    pub fn state(&self) -> String {
        state(self.position.token.as_deref(), self.announced.as_deref())
    }

    /// The same, as long as the server is not started anew.
    pub fn state_in_life(&self) -> String {
        state_in_life(&self.state(), &self.life)
    }

    /// The same in the life that wrote this row, if the server has been started anew since, on the same timeline.
    pub fn state_in_former_life(&self) -> Option<String> {
        let timeline = |life: &str| life.split(' ').next().map(str::to_string);
        let known = self.known_life.as_ref().filter(|known| timeline(known) == timeline(&self.life))?;
        Some(state_in_life(&self.state(), known))
    }

    /// The last batch that the master has of this history, which may be the present one or a former one.
    pub fn has_up_to(&self, history: &str) -> Option<BatchNumber> {
        if self.history.as_deref() == Some(history) {
            return Some(self.position.batch);
        }
        self.histories.iter().find(|(former, _)| former == history).map(|(_, up_to)| *up_to)
    }
}

pub fn state(token: Option<&str>, announced: Option<&str>) -> String {
    format!("{}/{}", token.unwrap_or("-"), announced.unwrap_or("-"))
}

pub fn state_in_life(state: &str, life: &str) -> String {
    format!("{state}/{life}")
}

pub fn parse(text: &str) -> Result<Snapshot> {
    Snapshot::parse(text).ok_or_else(|| {
        Error::new(Kind::Internal, Some(Side::Master), "read the position", format!("that is no snapshot: {text}"))
    })
}
