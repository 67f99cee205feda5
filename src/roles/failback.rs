//! Makes a former master the slave, after a failover.
//!
//! It may have committed changes that it had not sent. They are in its log, behind the slave's position: they are shown, and replayed
//! on the master of today, written to a file, or given up, as the operator says. Then a repair makes it equal.

use crate::backlog::master_row::{MasterRow, parse};
use crate::backlog::position::Position;
use crate::backlog::sql as backlog_sql;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, quote_literal};
use crate::commit::agreement::{SlaveRow, Standing, standing};
use crate::commit::prepared::prepared;
use crate::commit::recovery::{Gid, GidFamily};
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::pair::connecting::Purpose;
use crate::pair::former;
use crate::pair::replicator;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::roles::exchange::OtherSlave;
use crate::roles::obstacles;
use crate::roles::sql;
use crate::server::checks;
use crate::server::connect_pair::{self, BothSides};
use crate::server::ours;
use crate::server::role::{self, Role, Roles, Said, State, place};
use crate::server::session::{Session, ToSql};
use std::io::Write;

/// A pair after a failover: the master of today, and the former one, which is fenced.
pub struct Failback {
    /// In the direction in force: DSN0 of it is the master of today.
    pub config: Config,
    pub master: Session,
    pub former: Session,
    roles: Roles,
    master_said: Said,
    former_said: Said,
    /// Whether it is known what is lost.
    standing: Standing,
}

/// A change that the former master has, and the master of today not.
pub struct Lost {
    pub id: i64,
    pub txid: i64,
    pub ts: String,
    pub sql: String,
}

impl Failback {
    /// Connects, fences the former master, and settles what it has prepared.
    pub fn open(config: &Config, control: &Control) -> Result<Failback> {
        let BothSides { master, slave, config, roles } = connect_pair::open(config, "failback", control);
        let (mut master, former) = (master?, slave?);
        let field = config.slave_field.clone();
        let roles = roles.unwrap_or_else(Roles::original);
        if roles.state != State::Former {
            let detail = "neither database is a former master";
            return Err(Error::new(Kind::Usage, None, "fail back", detail).with_hint(
                "pyreplica status shows who is the master. After a failover, failback makes the old master the slave; pyreplica \
                 switchover exchanges the roles",
            ));
        }
        let master_said = role::said(&mut master, &field)?;
        let former_said = Said { identity: String::new(), rows: Vec::new(), is_bare: false };
        let mut failback =
            Failback { config, master, former, roles, master_said, former_said, standing: Standing::Unknown };
        // What is prepared may hold the locks that the fence needs, and may be a switchover that puts it up.
        failback.settle()?;
        failpoint::reached("failback settled");
        failback.fence(&field)?;
        failpoint::reached("failback fenced");
        Ok(failback)
    }

    /// Puts the fence up, unless it is up.
    fn fence(&mut self, field: &str) -> Result<()> {
        let Failback { config, master, former, roles, master_said, .. } = self;
        self.former_said = role::said(former, field)?;
        let is_now = |role| self.former_said.rows.iter().any(|row| row.role == role && row.epoch >= roles.epoch);
        let is_up =
            is_now(Role::Slave) || is_now(Role::Former) && former::stands(roles, former, &self.former_said)?.is_some();
        if !is_up {
            former::put_up(config, roles, (master, master_said), former, &self.former_said)?;
            self.former_said = role::said(former, field)?;
        }
        Ok(())
    }

    /// Settles the former master's half of a batch: the failover has noted which batch the slave had last.
    fn settle(&mut self) -> Result<()> {
        if checks::log_oid(&mut self.former).is_err() {
            return Ok(());
        }
        let field = self.config.slave_field.clone();
        let (identity, origin) = checks::identity_and_origin(&mut self.former)?;
        let family = GidFamily::new(&self.config.name, &field, origin);
        let key = pair_key(origin, &field);
        let Some(row) = MasterRow::find(&mut self.former, &field)? else { return Ok(()) };
        let slave = SlaveRow::read(&mut self.master, &key, &row)?;
        let last = slave.as_ref().and_then(|slave| slave.token.clone());
        for found in prepared(&mut self.former)? {
            let is_batch = Gid::parse(Side::Master, &found.gid).is_some() && found.gid.contains(":master:");
            if !found.is_here || !found.is_own || !is_batch || family.number(Side::Master, &found.gid).is_none() {
                continue;
            }
            let commits = last.as_ref().is_some_and(|token| GidFamily::is_of(&found.gid, token));
            let command = if commits { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
            self.former.message("settle the batch in doubt", &format!("{command} {}", quote_literal(&found.gid)))?;
        }
        let row = MasterRow::read(&mut self.former, &field)?;
        self.standing = standing(&row, slave.as_ref());
        let Some(slave) = slave else { return Ok(()) };
        if self.standing == Standing::CommittedOnSlave || shows_batch(&mut self.former, &identity, &row, &slave)? {
            let position = slave.position()?;
            let noted = backlog_sql::Noted {
                field: &field,
                identity: &identity,
                slave: &self.master_said.identity,
                announced: None,
                position: &position,
            };
            let note = backlog_sql::note_position(&noted, row.position.batch);
            self.former.text_rows("note the position", &note)?;
            self.standing = Standing::Agreed;
        }
        Ok(())
    }

    /// Whether the former master's log shows exactly what the master of today lacks.
    pub fn knows_lost(&self) -> bool {
        self.standing == Standing::Agreed
    }

    /// Calls `take` with each lost change, in the order of replay.
    pub fn each_lost(&mut self, mut take: impl FnMut(Lost) -> Result<()>) -> Result<u64> {
        let field = self.config.slave_field.clone();
        let (mut count, mut failed) = (0, None);
        self.former.each("look at what is lost", &sql::lost(&field), &[&field, &self.master_said.identity], |row| {
            count += 1;
            let lost = Lost { id: row.get("id"), txid: row.get("txid"), ts: row.get("ts"), sql: row.get("sql") };
            if failed.is_none() {
                failed = take(lost).err();
            }
        })?;
        failed.map_or(Ok(count), Err)
    }

    /// Writes the lost changes as SQL, each transaction as one.
    pub fn write_lost(&mut self, file: &mut dyn Write) -> Result<u64> {
        let wrong = |error: std::io::Error| Error::new(Kind::Setup, None, "write the lost changes", error);
        let mut open: Option<i64> = None;
        let count = self.each_lost(|lost| {
            if open != Some(lost.txid) {
                let end = if open.is_some() { "COMMIT;\n\n" } else { "" };
                write!(file, "{end}-- transaction {} of {}\nBEGIN;\n", lost.txid, lost.ts).map_err(wrong)?;
                open = Some(lost.txid);
            }
            writeln!(file, "{};", lost.sql).map_err(wrong)
        })?;
        let end = if open.is_some() { "COMMIT;\n" } else { "" };
        file.write_all(end.as_bytes()).and_then(|()| file.flush()).map_err(wrong)?;
        Ok(count)
    }

    /// Replays the lost changes on the master of today. Conflicts are recorded there, and decided by CONFLICT.
    pub fn replay_lost(&mut self, control: &Control) -> Result<u64> {
        replicator::drain_as(&self.config.directed(true), control, Purpose::ReplayLost)
    }

    /// What the former master's log has for the other side counts as replayed from now on: it was replayed, kept or given up.
    pub fn give_up(&mut self) -> Result<()> {
        if checks::log_oid(&mut self.former).is_err() {
            return Ok(());
        }
        let field = &self.config.slave_field;
        let Some(row) = MasterRow::find(&mut self.former, field)? else { return Ok(()) };
        let now = self.former.query_one("take a snapshot", sql::NOW, &[])?;
        let position = Position {
            base: Some(parse(now.get(0))?),
            current: None,
            last: None,
            highest: LogId(now.get(1)),
            ..row.position.clone()
        };
        let noted = backlog_sql::Noted {
            field,
            identity: &self.former_said.identity,
            slave: &self.master_said.identity,
            announced: None,
            position: &position,
        };
        let note = backlog_sql::note_position(&noted, row.position.batch);
        self.former.text_rows("note the position", &note)?;
        self.forget_held()
    }

    /// What is held on the master of today would come back when it is the slave of this master again.
    fn forget_held(&mut self) -> Result<()> {
        let key = self.key()?;
        if ours::may_read(&mut self.master, &["replica_held", "replica_hold", "replica_skipped"])? {
            self.master.execute("give up what is held", sql::GIVE_UP_HELD, &[&key])?;
            self.master.execute("end what is on hold", sql::END_HOLDS, &[&key])?;
        }
        if ours::may_read(&mut self.master, &["replica_copy"])? {
            self.master.execute("end a copy", sql::END_COPIES, &[&key])?;
        }
        Ok(())
    }

    fn key(&mut self) -> Result<String> {
        let (_, origin) = checks::identity_and_origin(&mut self.former)?;
        Ok(pair_key(origin, &self.config.slave_field))
    }

    /// What the master of today has never got, and the former master's log does not show as lost.
    pub fn withheld(&mut self) -> Result<Vec<String>> {
        if checks::log_oid(&mut self.former).is_err() {
            return Ok(Vec::new());
        }
        let key = self.key()?;
        let found = obstacles::withheld(&mut self.master, &mut self.former, &key)?;
        Ok(found.into_iter().map(|found| found.text).collect())
    }

    /// The fields of the other slaves of the master of today. What it replays is not logged for them.
    pub fn other_slaves(&mut self) -> Result<Vec<String>> {
        let others = OtherSlave::all(&mut self.master, &self.config.slave_field)?;
        Ok(others.into_iter().map(|other| other.field).collect())
    }

    /// The former master is equal now, and has the position of a slave: it is one.
    pub fn end(&mut self) -> Result<()> {
        let pair = self.roles.pair.clone().unwrap_or_default();
        let master = &self.master_said.identity;
        let known = self.former_said.rows.iter().find(|row| row.pair == pair).map_or(master, |row| &row.peer);
        let field = &self.config.slave_field;
        let there = place(&self.config.master);
        self.former.execute(
            "note the role",
            pair_sql::SET_ROLE,
            &[field, master, &pair, &"slave", &self.roles.epoch, &there, known],
        )?;
        self.master.message("wake the daemon", pair_sql::NOTIFY_RETRY).map(drop)
    }

    pub fn epoch(&self) -> i64 {
        self.roles.epoch
    }
}

/// The former master died before it had its half of the slave's last batch, and was started again: everything in the batch is in its log.
/// Not so if it was restored from before the batch.
fn shows_batch(former: &mut Session, identity: &str, row: &MasterRow, slave: &SlaveRow) -> Result<bool> {
    if !slave.is_built_on_former_life(row) || slave.identity.as_deref() != Some(identity) {
        return Ok(false);
    }
    let Position { base, current, last, highest, floor, .. } = slave.position()?;
    let [base, current] = [base, current].map(|snapshot| snapshot.map(|snapshot| snapshot.to_string()));
    let last = last.map(|last| last.0);
    let parameters: [&(dyn ToSql + Sync); 6] = [&base, &current, &last, &highest.0, &floor.0, &slave.ts];
    Ok(former.query_one("look for the slave's last batch", sql::SHOWS_BATCH, &parameters)?.get(0))
}
