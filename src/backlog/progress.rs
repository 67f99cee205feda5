//! The slave's position on the master: its row in `replica_slave`.
//!
//! The daemon reads the row at every connect, and the transaction of every batch writes it, with the batch's number.
//! When there is nothing to replay, the position moves in memory only, so an idle pair writes nothing.
//!
//! The position's transaction numbers belong to one cluster. A dump brings log and positions to another cluster, where
//! the same numbers mean other transactions. So the row names its database. If the daemon finds another database there,
//! it sets the flags of what the position covers, forgets the position, and renumbers a log that was restored from a
//! dump.

use crate::backlog::horizon::Horizon;
use crate::backlog::id_ranges::IdRanges;
use crate::backlog::master_row::{MasterRow, state, state_in_life};
use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchId, BatchNumber, LogId, Side, Txid};
use crate::config::settings::Config;
use crate::server::checks::Findings;
use crate::server::session::{Session, ToSql};

mod beginning;

/// To read so many ids of the log takes some milliseconds.
const FAR: i64 = 10_000;

/// Why a history has ended, in `replica_history`.
const STARTED: &str = "the server was started or promoted";

pub struct SlaveProgress {
    name: String,
    field: String,
    fields: Vec<String>,
    identity: String,
    position: Position,
    /// The slave's database. The next batch writes it into the row.
    slave: String,
    /// The master's present history (`agreement.rs`), which the slave's row names too.
    history: Option<String>,
    /// Timeline and start time of the master.
    life: String,
    /// The floor as the row has it, and the id up to which all flags are set.
    kept_floor: LogId,
    flagged: LogId,
    /// The row's ctid, and the ctid that it will have when the current batch has been committed.
    place: Option<String>,
    next_place: Option<String>,
    /// The prepared statement that writes the row, and how many names such statements have got.
    prepared: Option<String>,
    names_used: u32,
    horizon: Horizon,
    /// The ids of rows that have been replayed and may lack their flag.
    unflagged: IdRanges,
    midway: Midway,
    /// The drain that was interrupted before the row was read has nothing to do up to this id.
    resumed_above: LogId,
    /// The row has the snapshot that is being drained.
    is_announced: bool,
    /// The token that `announce` has written.
    announced: Option<String>,
    /// The last id of this drain. None as long as not everything has been read.
    end: Option<LogId>,
}

/// How far a long drain has come: up to an id nothing is left, except the rows of transactions that spread over many
/// ids. Their flags are set at the end of the drain.
pub struct Midway {
    pub up_to: LogId,
    pub apart: Vec<String>,
}

impl Default for Midway {
    fn default() -> Midway {
        Midway { up_to: LogId(0), apart: Vec::new() }
    }
}

impl SlaveProgress {
    pub fn new(config: &Config, findings: &Findings) -> SlaveProgress {
        SlaveProgress {
            name: config.name.clone(),
            field: config.slave_field.clone(),
            fields: findings.fields.clone(),
            identity: findings.master_identity.clone(),
            slave: findings.slave_identity.clone(),
            history: None,
            life: String::new(),
            flagged: LogId(0),
            position: Position::nowhere(),
            kept_floor: LogId(0),
            place: None,
            next_place: None,
            prepared: None,
            names_used: 0,
            horizon: Horizon::new(LogId(0)),
            unflagged: IdRanges::default(),
            midway: Midway::default(),
            resumed_above: LogId(0),
            is_announced: false,
            announced: None,
            end: None,
        }
    }

    /// Reads the position. Recovery comes first: nothing is in doubt, and both servers agree about the last batch.
    pub fn open(&mut self, master: &mut Session) -> Result<()> {
        let mut row = self.row(master)?;
        if row.identity.as_ref() != Some(&self.identity) {
            self.adopt(master)?;
            row = self.row(master)?;
        }
        if row.known_life.as_ref() != Some(&row.life) {
            let timeline = |life: &str| life.split(' ').next().and_then(|text| i64::from_str_radix(text, 16).ok());
            let (now, before) = (timeline(&row.life), row.known_life.as_deref().and_then(timeline));
            if let (Some(now), Some(_)) = (now, before.filter(|before| now != Some(*before))) {
                log::warn!(
                    target: &self.name,
                    "The master was promoted: it is on timeline {now} now, and has the same last batch: going on"
                );
            }
            self.begin_history(master, STARTED, &row.life)?;
            row = self.row(master)?;
        }
        (self.history, self.life) = (row.history, row.life);
        self.flagged = row.flagged;
        self.position = row.position;
        self.announced = row.announced;
        self.place = Some(row.place);
        let Position { highest, floor, .. } = self.position;
        self.kept_floor = floor;
        self.is_announced = true;
        self.horizon = Horizon::new(floor);
        self.unflagged = IdRanges::default();
        self.midway = Midway::default();
        self.resumed_above = floor;
        if self.position.base.is_some() || self.position.current.is_some() {
            self.unflagged.add(self.flagged, highest);
        } else {
            self.begin(master)?;
        }
        let ours: i64 = master.query_one("begin a transaction", sql::OWN_TRANSACTION, &[])?.get(0);
        self.horizon.began(Txid(ours), highest);
        Ok(())
    }

    /// Ends the present history: no batch that is made from now on belongs to it.
    pub fn end_history(&self, master: &mut Session, why: &str) -> Result<()> {
        let life = self.row(master)?.life;
        self.begin_history(master, why, &life)
    }

    fn begin_history(&self, master: &mut Session, why: &str, life: &str) -> Result<()> {
        master.execute("begin a history", sql::BEGIN_HISTORY, &[&self.field, &why, &life]).map(drop)
    }

    /// Reads the row again.
    pub fn row(&self, master: &mut Session) -> Result<MasterRow> {
        MasterRow::read(master, &self.field)
    }

    /// The present history, which the slave's row names.
    pub fn history(&self) -> Option<&str> {
        self.history.as_deref()
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    pub fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    pub fn unflagged(&mut self) -> &mut IdRanges {
        &mut self.unflagged
    }

    /// What has been replayed, for setting flags: `base`, `current`, and how far a long drain has come.
    pub fn replayed(&self) -> (Option<&Snapshot>, Option<&Snapshot>, &Midway) {
        (self.position.base.as_ref(), self.position.current.as_ref(), &self.midway)
    }

    /// Notes how far a long drain has come: above one id and up to another nothing is left, except the transactions in
    /// `apart`.
    pub fn midway(&mut self, above: LogId, up_to: LogId, apart: &[String]) {
        self.unflagged.add(above, up_to);
        self.midway = Midway { up_to, apart: apart.to_vec() };
    }

    /// Where a look with this snapshot begins.
    pub fn start(&self, snapshot: &Snapshot) -> LogId {
        self.horizon.start(snapshot).max(self.resumed_above)
    }

    /// Sets the snapshot that the next batches drain. None of their ids is above `highest`.
    pub fn drain(&mut self, snapshot: Snapshot, highest: Option<LogId>) {
        self.position.highest = self.position.highest.max(highest.unwrap_or(LogId(0)));
        if self.position.current.as_ref() != Some(&snapshot) {
            self.position.current = Some(snapshot);
            self.position.last = None;
            self.is_announced = false;
        }
        self.end = None;
    }

    /// Sets the last id of this drain.
    pub fn ends_at(&mut self, last: Option<LogId>) {
        self.end = last;
    }

    /// Everything of this drain has been replayed. `ids`: above one and up to another.
    pub fn drained(&mut self, ids: Option<(LogId, LogId)>) {
        self.position.finish();
        self.resumed_above = LogId(0);
        self.midway = Midway::default();
        if let Some((above, up_to)) = ids {
            self.unflagged.add(above, up_to);
        }
        if let Some(base) = &self.position.base {
            self.horizon.finished(base);
        }
        self.position.floor = self.floor();
    }

    /// The position after this batch. After the last batch of a drain `current` has become `base`. Otherwise a new
    /// connection would have to read a log that has grown meanwhile, to find out that nothing is left of the drain.
    pub fn after(&self, batch: &BatchId, last: LogId) -> Position {
        let mut position = self.position.clone();
        if self.end == Some(last) {
            position.finish();
        }
        let (batch, token) = (batch.number, Some(batch.token.clone()));
        Position { batch, token, last: Some(last), floor: self.floor(), ..position }
    }

    /// The position after changes that are all skipped. The slave commits nothing, so number and token stay.
    pub fn without_batch(&self, position: &Position) -> Position {
        let Position { batch, token, .. } = self.position.clone();
        Position { batch, token, ..position.clone() }
    }

    /// The state of the master's row as one text.
    pub fn state(&self) -> String {
        state(self.position.token.as_deref(), self.announced.as_deref())
    }

    /// The same, as long as the server is not started anew.
    pub fn state_in_life(&self) -> String {
        state_in_life(&self.state(), &self.life)
    }

    /// The token that `announce` writes, if it has not written one for this drain.
    pub fn will_announce(&mut self, token: &str) {
        if !self.is_announced {
            self.announced = Some(token.to_string());
            self.position.floor = self.floor();
        }
    }

    /// Writes the snapshot of a drain before its first batch, for TWO_PHASE=false: if the master crashed after the slave's commit, it
    /// would give the numbers of transactions that have written nothing to its disk to new ones. A prepared batch writes it itself.
    pub fn announce(&mut self, master: &mut Session) -> Result<()> {
        if !self.is_announced {
            let position = self.position.clone();
            self.write(master, &position, position.batch)?;
            self.is_announced = true;
        }
        Ok(())
    }

    /// Opens the master's transaction of a batch and writes the position in it. The statement `prepare` prepares it, in the same
    /// message: when the server refuses one statement of a message, it does not execute the rest.
    pub fn note(&mut self, master: &mut Session, position: &Position, prepare: Option<&str>) -> Result<()> {
        let operation = match prepare {
            Some(_) => format!("prepare transaction batch {}", position.batch),
            None => "note the position".to_string(),
        };
        let around = ("begin; ", prepare.unwrap_or_default());
        let opened = self.update(master, &operation, around, position, self.position.batch)?;
        self.noted(opened);
        Ok(())
    }

    fn noted(&mut self, (ours, place): (Txid, String)) {
        self.horizon.began(ours, self.position.highest);
        self.next_place = Some(place);
    }

    /// The batch has been committed on both sides.
    pub fn committed(&mut self, position: Position) {
        self.kept_floor = position.floor;
        self.position = position;
        self.place = self.next_place.take();
        self.is_announced = true;
    }

    /// Writes a position, if `former` is the number of the batch that wrote the row last.
    pub fn write(&mut self, master: &mut Session, position: &Position, former: BatchNumber) -> Result<()> {
        let (_, place) = self.update(master, "note the position", ("", ""), position, former)?;
        self.place = Some(place);
        self.kept_floor = position.floor;
        Ok(())
    }

    /// Writes the floor and how far flags are set, if they have moved far. A new connection reads the whole log above
    /// the floor, and during a long drain each batch writes the floor from before it. The rest of the row stays as it
    /// is.
    pub fn keep_floor(&mut self, master: &mut Session) -> Result<()> {
        let floor = self.floor();
        // A transaction that is still open has rows below the highest id, and above the floor.
        let flagged = self.unflagged.first().map_or(floor, |(above, _)| above.min(floor));
        if floor.0 - self.kept_floor.0 < FAR && flagged.0 - self.flagged.0 < FAR {
            return Ok(());
        }
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.field, &self.position.batch.0, &floor.0, &flagged.0];
        let kept = master.query("note how far the log need not be read", sql::KEEP_FLOOR, &parameters)?;
        self.place = Some(kept.first().ok_or_else(moved)?.get(0));
        (self.kept_floor, self.flagged) = (floor, flagged);
        Ok(())
    }

    /// Updates the row. Returns the number of the transaction, and the row's new ctid. `begin` and `end` are statements
    /// before and after the update, or empty.
    fn update(
        &mut self,
        master: &mut Session,
        operation: &str,
        (begin, end): (&str, &str),
        position: &Position,
        former: BatchNumber,
    ) -> Result<(Txid, String)> {
        // After a refusal it is unknown whether the statement has been prepared.
        let (name, prepare) = self.prepared.take().map_or_else(
            || {
                self.names_used += 1;
                let name = format!("pyreplica_note_{}", self.names_used);
                let prepare = sql::prepare_note(&name) + "; ";
                (name, prepare)
            },
            |name| (name, String::new()),
        );
        let noted = sql::Noted {
            field: &self.field,
            identity: &self.identity,
            slave: &self.slave,
            announced: self.announced.as_deref(),
            position,
        };
        let update = match &self.place {
            Some(place) => sql::execute_note(&name, &noted, former, place),
            None => sql::note_position(&noted, former),
        };
        let noted = match master.text_rows(operation, &format!("{prepare}{begin}{update}; {end}")) {
            Err(error) if error.code() == Some(sql::NOT_NOTED) => return Err(moved()),
            noted => noted?,
        };
        self.prepared = Some(name);
        let Some([Some(ours), Some(place), ..]) = noted.first().map(Vec::as_slice) else { return Err(moved()) };
        Ok((Txid(ours.parse().map_err(|_| moved())?), place.clone()))
    }

    fn floor(&self) -> LogId {
        self.horizon.floor().max(self.position.floor)
    }
}

fn moved() -> Error {
    let detail = "the slave's row in replica_slave is not as the last batch left it";
    Error::new(Kind::Contention, Some(Side::Master), "note the batch", detail).with_code(sql::NOT_NOTED)
}
