//! A repair of all tables gives two servers that do not have the same last batch (`commit/agreement.rs`) a common
//! position.
//!
//! Before the first table is compared, the current snapshot becomes the master's position for the slave. So every
//! change that is logged from now on is pending. The repair leaves rows with such changes to the daemon, as it always
//! does, and makes all other rows equal. At the end it writes the same token into the slave's row. Then both servers
//! have the same last "batch", and the daemon replays what has been logged since the snapshot. Until then no daemon
//! replicates, because the two rows differ. A repair that was interrupted has to be run again.

use crate::backlog::master_row::{MasterRow, parse};
use crate::backlog::position::Position;
use crate::backlog::sql as backlog_sql;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side};
use crate::commit::agreement::{self, SlaveRow, Standing, standing};
use crate::commit::prepared::prepared;
use crate::commit::recovery::GidFamily;
use crate::commit::sql as commit_sql;
use crate::commit::twophase::{draw_batch, pair_key};
use crate::config::settings::Config;
use crate::server::checks;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;

/// What a repair needs to set the position at its end.
pub struct Rejoin {
    key: String,
    field: String,
    identity: String,
    position: Position,
}

impl Rejoin {
    /// Makes the current snapshot the master's position, if the daemon would refuse to replicate. Returns None
    /// otherwise: then a repair needs no new position. A former master needs one in any case (`is_former`): if it has an older position
    /// from when it was the slave, the daemon would go back to that, and replay what the repair has brought.
    pub fn begin(
        config: &Config,
        master: &mut Session,
        slave: &mut Session,
        is_former: bool,
    ) -> Result<Option<Rejoin>> {
        let Some(there) = apart(config, master, slave, is_former)? else { return Ok(None) };
        let field = &config.slave_field;
        let (identity, origin) = checks::identity_and_origin(master)?;
        let key = pair_key(origin, field);
        checks::progress_table(slave)?;
        if let Some(other) = checks::take_slave(master, field, &[])? {
            let detail =
                format!("a daemon or another repair is connected for this slave (server process {})", other.pid);
            return Err(Error::new(Kind::Busy, Some(Side::Master), "set the slave's position", detail)
                .with_hint("stop it, and run the repair again"));
        }
        let slave_identity: String = slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        let snapshot: String = master.query_one("take a snapshot", backlog_sql::CURRENT_SNAPSHOT, &[])?.get(0);
        let highest: i64 = master.query_one("look at the log's end", backlog_sql::HIGHEST_ID, &[])?.get(0);
        let batch = draw_batch(master)?;
        let position = Position {
            batch: batch.number,
            token: Some(batch.token),
            base: Some(parse(&snapshot)?),
            current: None,
            last: None,
            highest: LogId(highest),
            floor: LogId(0),
        };
        let noted = backlog_sql::Noted {
            field,
            identity: &identity,
            slave: &slave_identity,
            announced: None,
            position: &position,
        };
        let note = backlog_sql::note_position(&noted, there.position.batch);
        let reason = "the slave was repaired";
        master.transaction("BEGIN", |master| {
            master.execute("begin a history", backlog_sql::BEGIN_HISTORY, &[field, &reason, &there.life])?;
            master.text_rows("note the position", &note).map(drop)
        })?;
        Ok(Some(Rejoin { key, field: field.clone(), identity, position }))
    }

    /// Writes the slave's row. All tables are equal now, except rows with changes that the daemon is going to replay.
    pub fn end(self, master: &mut Session, slave: &mut Session) -> Result<()> {
        let Rejoin { key, field, identity, position } = self;
        let row = MasterRow::read(master, &field)?;
        if row.position.token != position.token {
            let detail = "somebody else has set the slave's position meanwhile";
            return Err(Error::new(Kind::Busy, Some(Side::Master), "set the slave's position", detail)
                .with_hint("run the repair again"));
        }
        let encoded = position.encode();
        let row: [&(dyn ToSql + Sync); 6] =
            [&key, &position.batch.0, &position.token, &identity, &row.history, &encoded];
        slave.execute("note the progress", commit_sql::SET_PROGRESS, &row).map(drop)
    }
}

/// The master's row, if the daemon would refuse to replicate, or if it must in any case get a new position.
fn apart(config: &Config, master: &mut Session, slave: &mut Session, is_former: bool) -> Result<Option<MasterRow>> {
    let field = &config.slave_field;
    let (_, origin) = checks::identity_and_origin(master)?;
    let Some((there, here)) = agreement::look(master, slave, &pair_key(origin, field), field)? else { return Ok(None) };
    // If a daemon has committed a batch between the two looks, they are of two batches, and it has made sure that the servers
    // agree.
    let moves = |now: Option<MasterRow>| now.is_none_or(|now| now.position.token != there.position.token);
    if !is_former && (!are_apart(master, &there, here.as_ref())? || moves(MasterRow::find(master, field)?)) {
        return Ok(None);
    }
    Ok(Some(there))
}

/// Whether batches are prepared of servers that the daemon would refuse. They keep the rows that a repair has to write, and the daemon
/// settles nothing before it refuses.
pub fn is_in_doubt(config: &Config, master: &mut Session, slave: &mut Session, is_former: bool) -> Result<bool> {
    if apart(config, master, slave, is_former)?.is_none() {
        return Ok(false);
    }
    let (_, origin) = checks::identity_and_origin(master)?;
    let gids = GidFamily::new(&config.name, &config.slave_field, origin);
    let mut found = prepared(master)?;
    found.extend(prepared(slave)?);
    Ok(found.iter().any(|found| found.batch_of(&gids).is_some()))
}

/// An error if the slave came back with an older state from which the daemon goes on by itself. It would replay what a repair has
/// brought, and fail; and with a new position it would not replay the free statements that the slave lacks.
pub fn refuse_if_behind(config: &Config, master: &mut Session, slave: &mut Session) -> Result<()> {
    let (_, origin) = checks::identity_and_origin(master)?;
    let key = pair_key(origin, &config.slave_field);
    let Some((there, here)) = agreement::look(master, slave, &key, &config.slave_field)? else { return Ok(()) };
    if standing(&there, here.as_ref()) != Standing::Behind || are_apart(master, &there, here.as_ref())? {
        return Ok(());
    }
    let detail = "the slave came back with an older state, and the log still has all that it lacks";
    Err(Error::new(Kind::Apart, Some(Side::Slave), "repair", detail).with_hint(
        "start the daemon, or run it with --once: it replays what the slave lacks. Run compare and repair afterwards",
    ))
}

fn are_apart(master: &mut Session, there: &MasterRow, here: Option<&SlaveRow>) -> Result<bool> {
    match (standing(there, here), here) {
        (Standing::Behind, Some(row)) => match agreement::refuse_if_purged(master, &row.position()?, there, row) {
            Err(error) if error.kind() == Kind::Apart => Ok(true),
            other => other.map(|()| false),
        },
        (standing, _) => Ok(standing.is_refused()),
    }
}
