//! The slave's row in `replica_slave`: where its position is kept, on the master, next to what it is a position in.
//!
//! It is read at every connect and written in the transaction of every batch, with the batch's number. Between two batches
//! it moves on in memory only: an idle pair writes nothing.
//!
//! Its transaction numbers are those of one cluster. A dump carries log and positions to another one, where the same
//! numbers mean something else. So the row names the database that it is about; if that is another one, the flags of what
//! the position says is replayed are set, the position is forgotten, and a log that came along is renumbered.

use crate::backlog::horizon::Horizon;
use crate::backlog::id_ranges::IdRanges;
use crate::backlog::master_row::{MasterRow, parse, state};
use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchId, BatchNumber, LogId, Side, Txid};
use crate::config::settings::Config;
use crate::server::checks::Findings;
use crate::server::session::{Session, ToSql};

/// So many ids are walked over in milliseconds.
const FAR: i64 = 10_000;

/// Why a history has ended, in `replica_history`.
const STARTED: &str = "the server was started or promoted";

pub struct SlaveProgress {
    name: String,
    field: String,
    fields: Vec<String>,
    identity: String,
    position: Position,
    /// The slave's database, as the row names it from the next batch on.
    slave: String,
    /// The master's life, as the row of the slave names it too.
    history: Option<String>,
    /// The floor that the row has, and up to which id all flags are set.
    kept_floor: LogId,
    flagged: LogId,
    /// Where the row is in its table, and where it will be once the batch in hand has been committed.
    place: Option<String>,
    next_place: Option<String>,
    horizon: Horizon,
    /// Where rows that have been replayed may lack their flag.
    unflagged: IdRanges,
    midway: Midway,
    /// The drain that was under way when the row was read need not look below this.
    resumed_above: LogId,
    /// The row holds what is being drained.
    is_announced: bool,
    announced: Option<String>,
    /// Once this id is replayed, all of what is being drained is. Not known before all of it has been read.
    end: Option<LogId>,
}

/// How far a long drain has come: up to an id nothing of it is left, save the rows of some transactions, which wait for its
/// end.
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
        let nowhere = Position {
            batch: BatchNumber(0),
            token: None,
            base: None,
            current: None,
            last: None,
            highest: LogId(0),
            floor: LogId(0),
        };
        SlaveProgress {
            name: config.name.clone(),
            field: config.slave_field.clone(),
            fields: findings.fields.clone(),
            identity: findings.master_identity.clone(),
            slave: findings.slave_identity.clone(),
            history: None,
            flagged: LogId(0),
            position: nowhere,
            kept_floor: LogId(0),
            place: None,
            next_place: None,
            horizon: Horizon::new(LogId(0)),
            unflagged: IdRanges::default(),
            midway: Midway::default(),
            resumed_above: LogId(0),
            is_announced: false,
            announced: None,
            end: None,
        }
    }

    /// Reads the position, once what a former connection left in doubt is settled and both servers agree.
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
        self.history = row.history;
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

    /// What the master has of the present history is all that counts of it from now on.
    pub fn end_history(&self, master: &mut Session, why: &str) -> Result<()> {
        let life = self.row(master)?.life;
        self.begin_history(master, why, &life)
    }

    fn begin_history(&self, master: &mut Session, why: &str, life: &str) -> Result<()> {
        master.execute("begin a history", sql::BEGIN_HISTORY, &[&self.field, &why, &life]).map(drop)
    }

    /// What the master's row says now.
    pub fn row(&self, master: &mut Session) -> Result<MasterRow> {
        MasterRow::read(master, &self.field)
    }

    /// What the slave's row has to name besides the position.
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

    /// What to go by in setting flags: the base, and how far a long drain has come.
    pub fn replayed(&self) -> (Option<&Snapshot>, Option<&Snapshot>, &Midway) {
        (self.position.base.as_ref(), self.position.current.as_ref(), &self.midway)
    }

    /// A long drain has come so far that above one id and up to another nothing of it is left, save some transactions.
    pub fn midway(&mut self, above: LogId, up_to: LogId, apart: &[String]) {
        self.unflagged.add(above, up_to);
        self.midway = Midway { up_to, apart: apart.to_vec() };
    }

    /// Where a look begins that uses this snapshot.
    pub fn start(&self, snapshot: &Snapshot) -> LogId {
        self.horizon.start(snapshot).max(self.resumed_above)
    }

    /// This is what the next batches are from, none of which has an id above the highest one.
    pub fn drain(&mut self, snapshot: Snapshot, highest: Option<LogId>) {
        self.position.highest = self.position.highest.max(highest.unwrap_or(LogId(0)));
        if self.position.current.as_ref() != Some(&snapshot) {
            self.position.current = Some(snapshot);
            self.position.last = None;
            self.is_announced = false;
        }
        self.end = None;
    }

    /// Of what is being drained this is the last id.
    pub fn ends_at(&mut self, last: Option<LogId>) {
        self.end = last;
    }

    /// All of what is being drained has been replayed; its ids are above one and up to another.
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

    /// The position once this batch has been replayed. With the last one nothing is under way any more, so that a new
    /// connection need not walk over a log that has grown meanwhile to find that out.
    pub fn after(&self, batch: &BatchId, last: LogId) -> Position {
        let mut position = self.position.clone();
        if self.end == Some(last) {
            position.finish();
        }
        let (batch, token) = (batch.number, Some(batch.token.clone()));
        Position { batch, token, last: Some(last), floor: self.floor(), ..position }
    }

    /// The position after changes that were all passed over: the slave has no part in it, so the last batch stays the last one.
    pub fn without_batch(&self, position: &Position) -> Position {
        let Position { batch, token, .. } = self.position.clone();
        Position { batch, token, ..position.clone() }
    }

    /// What the master's row says now, in one text.
    pub fn state(&self) -> String {
        state(self.position.token.as_deref(), self.announced.as_deref())
    }

    /// Writes what is about to be drained. With two-phase commit the batch does that; without it the slave commits first,
    /// and a master that crashed then could give the numbers of transactions that left no trace to others. Now they are
    /// on its disk.
    pub fn announce(&mut self, master: &mut Session, announced: &str) -> Result<()> {
        if !self.is_announced {
            self.announced = Some(announced.to_string());
            self.position.floor = self.floor();
            let position = self.position.clone();
            self.write(master, &position, position.batch)?;
            self.is_announced = true;
        }
        Ok(())
    }

    /// Opens the master's transaction of a batch and writes the position in it.
    pub fn note(&mut self, master: &mut Session, position: &Position) -> Result<()> {
        let opened = self.update(master, "note the position", ("begin; ", ""), position, self.position.batch)?;
        self.noted(opened);
        Ok(())
    }

    /// The same, and prepares the transaction with this statement: all in one message, of which the server does nothing more
    /// once it has refused something.
    pub fn note_and_prepare(&mut self, master: &mut Session, position: &Position, prepare: &str) -> Result<()> {
        let operation = format!("prepare transaction batch {}", position.batch);
        let opened = self.update(master, &operation, ("begin; ", prepare), position, self.position.batch)?;
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

    /// Writes a position in the place of the one that a batch has left.
    pub fn write(&mut self, master: &mut Session, position: &Position, former: BatchNumber) -> Result<()> {
        let (_, place) = self.update(master, "note the position", ("", ""), position, former)?;
        self.place = Some(place);
        self.kept_floor = position.floor;
        Ok(())
    }

    /// A new connection walks over all of the log above the row's floor, which each batch writes as it was before: a long
    /// drain leaves it far behind. The rest of the row still says what was replayed last.
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

    /// Which transaction it was, and where the row is then. The update goes between `begin` and `end`, which are statements or
    /// nothing.
    fn update(
        &self,
        master: &mut Session,
        operation: &str,
        (begin, end): (&str, &str),
        position: &Position,
        former: BatchNumber,
    ) -> Result<(Txid, String)> {
        let noted = sql::Noted {
            field: &self.field,
            identity: &self.identity,
            slave: &self.slave,
            announced: self.announced.as_deref(),
            position,
        };
        let update = sql::note_position(&noted, former, self.place.as_deref());
        let noted = match master.text_rows(operation, &format!("{begin}{update}; {end}")) {
            Err(error) if error.code() == Some(sql::NOT_NOTED) => return Err(moved()),
            noted => noted?,
        };
        let Some([Some(ours), Some(place), ..]) = noted.first().map(Vec::as_slice) else { return Err(moved()) };
        Ok((Txid(ours.parse().map_err(|_| moved())?), place.clone()))
    }

    fn floor(&self) -> LogId {
        self.horizon.floor().max(self.position.floor)
    }

    /// A slave without a position: its flags say what it has replayed.
    fn begin(&mut self, master: &mut Session) -> Result<()> {
        let snapshot: String = master.query_one("take a snapshot", sql::CURRENT_SNAPSHOT, &[])?.get(0);
        let first = sql::first_pending(&self.field);
        let first: Option<i64> = master.query_one("look for the first change", &first, &[&snapshot])?.get(0);
        self.position.current = Some(parse(&snapshot)?);
        self.is_announced = false;
        match first {
            Some(id) => self.resumed_above = LogId(id - 1),
            None => {
                self.position.finish();
                self.position.floor = self.floor();
                let position = self.position.clone();
                self.write(master, &position, position.batch)?;
                self.is_announced = true;
            }
        }
        Ok(())
    }

    /// Makes this database the one that the positions are about. Whoever comes first does it for all slaves, since the log
    /// is renumbered.
    fn adopt(&self, master: &mut Session) -> Result<()> {
        master.transaction(sql::BEGIN_ADOPTING, |master| {
        let restored = master.query("look at the log's transactions", sql::RESTORED, &[])?;
        let foreign = master.query("look for positions", sql::FOREIGN_POSITIONS, &[&self.identity])?;
        for field in foreign.iter().map(|row| row.get::<_, String>(0)) {
            if self.fields.contains(&field) {
                let flagged = master.execute("set flags", &sql::passed(&field), &[&field])?;
                log::warn!(
                    target: &self.name,
                    "The position of slave {field} is from another master database: {flagged} changes got their flag instead"
                );
            }
        }
        master.execute("forget positions", sql::FORGET_POSITIONS, &[&self.identity, &self.field])?;
        for row in restored {
            let (last, numbers): (i64, i64) = (row.get("last"), row.get("numbers"));
            let renumbered = master.execute("renumber transactions", sql::RENUMBER, &[&last, &numbers])?;
            log::warn!(target: &self.name, "The log comes from another cluster: {renumbered} changes got transaction numbers of this one");
        }
        Ok(())
        })
    }
}

fn moved() -> Error {
    let detail = "the slave's row in replica_slave is not as the last batch left it";
    Error::new(Kind::Contention, Some(Side::Master), "note the batch", detail).with_code(sql::NOT_NOTED)
}
