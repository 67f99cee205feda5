//! The two transactions that exchange the roles.
//!
//! They are the last batch of the old direction: a batch without changes, which carries the roles along. The old master notes its
//! number and token in `replica_slave`, the slave in `replica_progress`, and both are prepared under the names of a batch. So
//! whatever a crash leaves is settled by the same code, by the same table (`commit/recovery.rs`), and like a batch it commits on the
//! old master first.
//!
//! | transaction | on the old master | on the new one |
//! |---|---|---|
//! | roles | slave, in the next epoch | master, in the next epoch |
//! | fence | up | down |
//! | the old direction | number and token | the same |
//! | the new direction | a first batch: number, token, position | the same |
//!
//! The old master's locks are held until its commit, also by the prepared transaction, so at no moment do both accept a write.
//! Without two-phase commit the old master commits first. A crash in between leaves no master; `switchover` finishes it.

use crate::backlog::master_row::MasterRow;
use crate::backlog::position::Position;
use crate::backlog::sql as backlog_sql;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchId, BatchNumber, Side, quote_literal};
use crate::commit::agreement::{self, Standing, standing};
use crate::commit::recovery::GidFamily;
use crate::commit::sql as commit_sql;
use crate::commit::twophase::{draw_batch, pair_key};
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::roles::direction;
use crate::roles::sides::Sides;
use crate::roles::sql;
use crate::server::checks;
use crate::server::fence::{self, Fenced};
use crate::server::role::{self, place};
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;

/// Why the history of a slave's positions begins anew.
const EXCHANGED: &str = "the roles were exchanged: this database became the master";

/// SQLSTATEs of a prepared transaction that has ended, and of a statement that was cancelled.
const IS_GONE: &str = "42704";
const CANCELLED: &str = "57014";

/// A slave of the old master, for the new one.
pub struct OtherSlave {
    pub field: String,
    pub token: String,
    batch: i64,
    database: Option<String>,
    /// It becomes a slave of the new master, and continues where it is.
    pub is_taken: bool,
}

/// What the exchange writes.
pub struct Exchange<'a> {
    pub sides: &'a mut Sides,
    /// The fence's tables on the old master.
    pub tables: &'a [Fenced],
    pub epoch: i64,
    pub pair: String,
    pub others: Vec<OtherSlave>,
    /// The old master has its half already: a switchover was interrupted between the two commits.
    pub is_half_done: bool,
    /// A session of its own on the old master, for the lock that keeps others from settling what this prepares.
    pub guard: Session,
}

/// The first "batch" of the new direction.
struct First {
    key: String,
    position: Position,
    history: Option<String>,
}

impl OtherSlave {
    /// The other slaves that have replicated from this master.
    pub fn all(master: &mut Session, field: &String) -> Result<Vec<OtherSlave>> {
        let rows = master.query("look at the other slaves", sql::OTHER_SLAVES, &[field])?;
        let others = rows.iter().map(|row| OtherSlave {
            field: row.get("field"),
            token: row.get("token"),
            batch: row.get("batch"),
            database: row.get("slave"),
            is_taken: false,
        });
        Ok(others.collect())
    }

    pub fn has_daemon(&self, master: &mut Session) -> Result<bool> {
        let rows = master.query("look for the daemon", server_sql::DAEMON, &[&self.field])?;
        Ok(rows.iter().any(|row| row.get("replicates")))
    }

    /// Whether anything is pending for it.
    pub fn is_behind(&self, master: &mut Session) -> Result<bool> {
        Ok(!master.query("look what is pending", &backlog_sql::waiting(&self.field), &[&self.field])?.is_empty())
    }
}

impl Exchange<'_> {
    /// Exchanges the roles. The master's session holds the locks in an open transaction. With `dry` both sides are rolled back
    /// instead of being committed.
    pub fn run(mut self, dry: bool) -> Result<()> {
        let done = self.both_halves(dry);
        if done.is_err() {
            // What is prepared stays prepared: these end what is not.
            self.sides.slave.roll_back();
            self.sides.master.roll_back();
        }
        done
    }

    fn both_halves(&mut self, dry: bool) -> Result<()> {
        // A daemon must not take for dead what this verb has prepared.
        self.guard.message("keep others from settling", commit_sql::HOLD_SWITCHOVER)?;
        self.refuse_if_changed()?;
        let position = self.agreed_position()?;
        let last = match self.sides.config.two_phase && !self.is_half_done {
            true => Some(self.last_batch(position)?),
            false => None,
        };
        let first = self.on_slave(last.as_ref())?;
        failpoint::reached("switch slave noted");
        self.on_master(&first, last.as_ref())?;
        failpoint::reached("switch noted");
        match last {
            Some((batch, _)) => self.commit_both(&batch, dry),
            None => self.commit_one_by_one(dry),
        }
    }

    fn commit_both(&mut self, batch: &BatchId, dry: bool) -> Result<()> {
        let gids = GidFamily::new(&self.sides.config.name, &self.sides.config.slave_field, self.sides.origin);
        let gid = |side| quote_literal(&gids.gid(side, batch.number, &batch.token));
        let (old, new) = (gid(Side::Master), gid(Side::Slave));
        let epoch = self.epoch;
        let Sides { master, slave, config, .. } = &mut *self.sides;
        if dry {
            // One after the other: what a crash leaves prepared on both sides is committed by whoever finds it.
            prepare_and_roll_back(master, &old)?;
            return prepare_and_roll_back(slave, &new);
        }
        master.message("prepare the old master's half", &format!("PREPARE TRANSACTION {old}"))?;
        failpoint::reached("switch old prepared");
        let prepared = slave.message("prepare the new master's half", &format!("PREPARE TRANSACTION {new}"));
        failpoint::reached("switch prepared");
        // A server that has answered has prepared, or it has not. Otherwise recovery finds out.
        if let Err(error) = prepared {
            if let Err(error) = master.message("roll back", &format!("ROLLBACK PREPARED {old}")) {
                log::warn!(target: "pyreplica", "{error}");
            }
            return Err(error);
        }
        let field = &config.slave_field;
        if let Err(error) = commit_prepared(master, &old, field, epoch) {
            // Without an answer nobody knows, and recovery finds out. An answer says that it is not committed.
            if error.code().is_some() {
                let rolled_back = master.message("roll back", &format!("ROLLBACK PREPARED {old}"));
                rolled_back.err().filter(|error| error.code() != Some(IS_GONE)).map_or(Ok(()), Err)?;
                let rolled_back = slave.message("roll back", &format!("ROLLBACK PREPARED {new}"));
                rolled_back.err().filter(|error| error.code() != Some(IS_GONE)).map_or(Ok(()), Err)?;
            }
            return Err(error);
        }
        failpoint::reached("switch old committed");
        let mut committed = commit_prepared(slave, &new, field, epoch);
        if committed.as_ref().is_err_and(|error| error.code() == Some(CANCELLED)) {
            // It is too late to stop.
            committed = commit_prepared(slave, &new, field, epoch);
        }
        failpoint::reached("switch committed");
        committed.map_err(half_done)
    }

    fn commit_one_by_one(&mut self, dry: bool) -> Result<()> {
        let command = if dry { "ROLLBACK" } else { "COMMIT" };
        self.sides.master.message("commit the old master's half", command)?;
        failpoint::reached("switch old committed");
        let committed = self.sides.slave.message("commit the new master's half", command);
        failpoint::reached("switch committed");
        committed.map(drop).map_err(half_done)
    }

    /// Somebody else may have exchanged the roles before this verb got the lock. From here on nobody can.
    fn refuse_if_changed(&mut self) -> Result<()> {
        let Sides { master, slave, config, roles, .. } = &mut *self.sides;
        let (here, there) = (role::said(master, &config.slave_field)?, role::said(slave, &config.slave_field)?);
        let now = role::decide(&here, &there)?;
        if (now.is_reversed, now.state, now.epoch) == (false, roles.state, roles.epoch) {
            return Ok(());
        }
        let detail = "somebody else has exchanged the roles meanwhile";
        Err(Error::new(Kind::Busy, None, "exchange the roles", detail)
            .with_hint("nothing was changed. pyreplica status shows who is the master"))
    }

    /// Where the slave is, if both servers mean the same last batch. A slave that was restored lacks something, whatever the master's
    /// row says.
    fn agreed_position(&mut self) -> Result<Position> {
        let Sides { master, slave, key, config, .. } = &mut *self.sides;
        let field = &config.slave_field;
        let Some((there, here)) = agreement::look(master, slave, key, field)? else {
            return Err(never_replicated());
        };
        match standing(&there, here.as_ref()) {
            Standing::Agreed if here.is_some() => Ok(there.position),
            Standing::Agreed => Err(never_replicated()),
            apart if apart.is_refused() => Err(agreement::refusal(apart, &there, here.as_ref())),
            _ => {
                let detail = "the two databases do not have the same last batch at this moment";
                Err(Error::new(Kind::Contention, None, "exchange the roles", detail)
                    .with_hint("start the daemon, which settles it, or run the verb again"))
            }
        }
    }

    /// Number and token of the old direction's last batch, and its position.
    fn last_batch(&mut self, position: Position) -> Result<(BatchId, Position)> {
        let batch = draw_batch(&mut self.sides.master)?;
        let position = Position { batch: batch.number, token: Some(batch.token.clone()), ..position };
        Ok((batch, position))
    }

    /// The new master's half, up to its end.
    fn on_slave(&mut self, last: Option<&(BatchId, Position)>) -> Result<First> {
        let (epoch, pair) = (self.epoch, self.pair.clone());
        let Sides { master, slave, config, key, master_identity, slave_identity, tables, .. } = &mut *self.sides;
        let field = &config.slave_field;
        slave.message(
            "begin the new master's half",
            "BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL synchronous_commit = on",
        )?;
        let mut statements = fence::down(&fence::look(slave, tables)?);
        statements += &fence::switch_triggers(slave, tables, true)?;
        statements += &fence::read_only(slave, false)?.unwrap_or_default();
        if !statements.is_empty() {
            slave.message("take the fence down", &statements)?;
        }
        slave.execute("forget former databases", sql::FORGET_PEERS, &[field, &pair, master_identity])?;
        slave.execute(
            "note the role",
            pair_sql::SET_ROLE,
            &[field, master_identity, &pair, &"master", &epoch, &place(&config.master), master_identity],
        )?;
        slave.execute("note the slaves", sql::NOT_MOVED, &[field])?;
        let position = direction::begin(slave, field, slave_identity, master_identity, EXCHANGED)?;
        for other in self.others.iter().filter(|other| other.is_taken) {
            let position =
                Position { batch: BatchNumber(other.batch), token: Some(other.token.clone()), ..position.clone() };
            slave.execute("register the slave", server_sql::SLAVE_ROW, &[&other.field])?;
            let database = other.database.as_deref().unwrap_or_default();
            direction::note(slave, &other.field, slave_identity, database, &position, EXCHANGED)?;
            slave.execute("note the slaves", sql::NOT_MOVED, &[&other.field])?;
        }
        let history: Option<String> = slave.query_one("look at the history", sql::HISTORY, &[field])?.get(0);
        if let Some((_, position)) = last {
            let there = MasterRow::read(master, field)?;
            let row = commit_sql::ProgressRow {
                position,
                former: None,
                identity: master_identity,
                history: there.history.as_deref(),
            };
            let values = commit_sql::note_values(key, there.position.token.as_deref(), &row);
            slave.message("note the batch", &commit_sql::note_progress(&values))?;
        }
        let (_, origin) = checks::identity_and_origin(slave)?;
        Ok(First { key: pair_key(origin, field), position, history })
    }

    /// The old master's half, up to its end.
    fn on_master(&mut self, first: &First, last: Option<&(BatchId, Position)>) -> Result<()> {
        let (epoch, pair) = (self.epoch, self.pair.clone());
        let Sides { master, config, master_identity, slave_identity, tables, replica_role, .. } = &mut *self.sides;
        let field = &config.slave_field;
        let there = place(&config.slave);
        let mut statements = fence::up(self.tables);
        statements += &fence::read_only(master, true)?.unwrap_or_default();
        if !replica_role.0 {
            statements += &fence::switch_triggers(master, tables, false)?;
        }
        master.message("put up the fence", &statements)?;
        master.execute("forget former databases", sql::FORGET_PEERS, &[field, &pair, slave_identity])?;
        master.execute(
            "note the role",
            pair_sql::SET_ROLE,
            &[field, slave_identity, &pair, &"slave", &epoch, &there, slave_identity],
        )?;
        for other in &self.others {
            let token = Some(&other.token).filter(|_| other.is_taken);
            master.execute(
                "note the slaves",
                sql::MOVED,
                &[&other.field, slave_identity, &pair, &epoch, &there, &token],
            )?;
        }
        let encoded = first.position.encode();
        let row: [&(dyn ToSql + Sync); 6] =
            [&first.key, &first.position.batch.0, &first.position.token, slave_identity, &first.history, &encoded];
        master.execute("note the progress", commit_sql::SET_PROGRESS, &row)?;
        if let Some((_, position)) = last {
            let former = MasterRow::read(master, field)?.position.batch;
            let noted = backlog_sql::Noted {
                field,
                identity: master_identity,
                slave: slave_identity,
                announced: None,
                position,
            };
            master.text_rows("note the batch", &backlog_sql::note_position(&noted, former))?;
        }
        Ok(())
    }
}

fn prepare_and_roll_back(session: &mut Session, gid: &str) -> Result<()> {
    session.message("prepare this half", &format!("PREPARE TRANSACTION {gid}"))?;
    session.message("roll this half back", &format!("ROLLBACK PREPARED {gid}")).map(drop)
}

/// Commits one half. If it is gone, somebody has settled it, because the verb was stopped for too long: the role says how.
fn commit_prepared(session: &mut Session, gid: &str, field: &str, epoch: i64) -> Result<()> {
    match session.message("commit this half", &format!("COMMIT PREPARED {gid}")) {
        Err(error) if error.code() == Some(IS_GONE) => {
            match role::epoch(session, field)? >= epoch {
                true => Ok(()),
                false => Err(error
                    .with_hint("a daemon has rolled the exchange back, because it took too long. Run the verb again")),
            }
        }
        done => done.map(drop),
    }
}

/// The old master is a slave already.
fn half_done(error: Error) -> Error {
    error.with_hint(
        "the old master is fenced, and the new one is not the master yet: nobody can write. Run pyreplica switchover again, or \
         let the daemon connect, which settles it",
    )
}

fn never_replicated() -> Error {
    Error::new(Kind::Setup, None, "exchange the roles", "no daemon has ever replicated this pair")
        .with_hint("fill the slave (pyreplica copy), and let a daemon replicate it first")
}
