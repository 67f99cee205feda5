//! Puts tables and pairs on hold, and replays held changes, in a session of its own on the slave. The daemon may run or
//! not.
//!
//! All of this concerns the slave alone, so an ordinary transaction there is enough. What is on hold is changed under an
//! exclusive lock of `replica_hold`, which waits for the daemon's current batch (`hold.rs` says why). A table's held
//! changes are replayed in pieces without that lock, while the daemon goes on holding new changes. Only the last piece is
//! replayed under the lock, in the transaction that ends the hold. So every change is replayed once, and in order.

use crate::backlog::change::Change;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, Txid};
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::pair::sql;
use crate::process::failpoint;
use crate::replay::hold::{self, Holds, WHOLE_PAIR};
use crate::replay::replayer::Replayer;
use crate::replay::sql as replay_sql;
use crate::server::checks::{identity_and_origin, take_replica_role};
use crate::server::connect_pair;
use crate::server::session::{Row, Session, ToSql};
use crate::server::sql as server_sql;

/// Limits of a piece: its rows, and its bytes as they are stored.
const PIECE_ROWS: i64 = 1_000;
const PIECE_BYTES: i64 = 1 << 20;

/// A dry run does not wait long for locks.
const SHORT_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";

/// A verb's sessions on both sides of a pair, for holding changes and replaying held ones.
pub struct Release {
    pub master: Session,
    pub slave: Session,
    /// The pair's name in the slave's tables.
    pub pair: String,
    /// The slave's database. Changes that were made there are not replayed there.
    pub slave_identity: String,
    /// Where hstore is installed on the master.
    pub hstore_schema: String,
    replayer: Replayer,
    control: Control,
}

/// The result of retrying a transaction.
#[derive(Debug)]
pub enum Retried {
    Replayed,
    /// Nothing was done, for this reason.
    Waits(String),
    Failed(Error),
    /// It is not in quarantine any more.
    Gone,
}

impl Release {
    pub fn open(config: &Config, verb: &str, control: &Control) -> Result<Release> {
        let (mut master, mut slave) = connect_pair::open_both(config, verb, control)?;
        let (identity, origin) = identity_and_origin(&mut master)?;
        let slave_identity = slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        let hstore_schema = master.query_one("look for hstore", server_sql::HSTORE_SCHEMA, &[])?.get(0);
        if !hold::are_usable(&mut slave)? {
            let detail = "the tables for held changes are missing, or the role lacks rights on them";
            return Err(Error::new(Kind::Setup, Some(Side::Slave), "hold or replay changes", detail).with_hint(
                "run sql/slave-install.sql on the slave, and GRANT SELECT, INSERT, UPDATE, DELETE ON replica_hold, \
                 replica_held, replica_conflict, replica_skipped to the role; then restart the daemon",
            ));
        }
        slave.set_up(&identity)?;
        let deferring = !take_replica_role(&mut slave)?;
        let pair = pair_key(origin, &config.slave_field);
        let replayer = Replayer::new(config, &identity, deferring, Holds::for_verb(&pair)).telling_values();
        Ok(Release { master, slave, pair, slave_identity, hstore_schema, replayer, control: control.clone() })
    }

    /// Puts a table, named as in the log, or the whole pair on hold. False if it was on hold already. When this returns,
    /// nothing of it is replayed any more: new changes of a table are held, and those of a pair stay pending.
    pub fn hold(&mut self, relation: &str, why: &str) -> Result<bool> {
        let held =
            self.with_exclusive_lock(|this| this.slave.execute("hold", sql::HOLD, &[&this.pair, &relation, &why]))?;
        self.notify()?;
        Ok(held > 0)
    }

    /// Ends the pause of the whole pair. False if it was not paused. Tables that are on hold stay on hold.
    pub fn resume_pair(&mut self) -> Result<bool> {
        let resumed = self.with_exclusive_lock(|this| {
            this.slave.execute("resume", sql::END_HOLD, &[&this.pair, &WHOLE_PAIR.to_string()])
        })?;
        self.notify()?;
        Ok(resumed > 0)
    }

    /// Replays a table's held changes and ends its hold. `snapshot`, if a copy of the table was made, is the master's
    /// snapshot that the copy is from: held changes that it shows are dropped. The caller makes sure that no change which
    /// it shows is still pending on the master. `progress` gets the number of changes replayed so far.
    pub fn resume_table(
        &mut self,
        relation: &str,
        snapshot: Option<&str>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        let mut total = 0;
        loop {
            let (piece, is_all) = self.transaction(|this| this.replay_piece(relation, snapshot))?;
            total += piece;
            if is_all {
                break;
            }
            progress(total);
        }
        total += self.with_exclusive_lock(|this| {
            let mut last = 0;
            loop {
                let (piece, is_all) = this.replay_piece(relation, snapshot)?;
                last += piece;
                if is_all {
                    break;
                }
            }
            this.slave.execute("resume", sql::END_HOLD, &[&this.pair, &relation])?;
            Ok(last)
        })?;
        self.notify()?;
        Ok(total)
    }

    /// The transactions in quarantine, in the order of replay.
    pub fn quarantined(&mut self) -> Result<Vec<Row>> {
        self.slave.query("look at the quarantine", replay_sql::QUARANTINED, &[&self.pair])
    }

    /// Replays a transaction from quarantine, whole or not at all.
    pub fn retry(&mut self, txid: Txid) -> Result<Retried> {
        let number = txid.to_string();
        let outcome = self.with_exclusive_lock(|this| {
            let pair = this.pair.clone();
            let parameters: [&(dyn ToSql + Sync); 2] = [&pair, &number];
            if let Some(row) = this.slave.query("look at the quarantine", sql::WAITS_FOR, &parameters)?.first() {
                let before: i64 = row.get(0);
                return Ok(Retried::Waits(format!("it depends on transaction {before}, which is in quarantine")));
            }
            if let Some(row) = this.slave.query("look at what is on hold", sql::TABLE_ON_HOLD, &parameters)?.first() {
                let relation: String = row.get(0);
                return Ok(Retried::Waits(format!("{relation} is on hold: pyreplica resume lets it go on")));
            }
            let replayed = this.replay_quarantined(&number)?;
            this.slave.execute("empty the quarantine", sql::FORGET_QUARANTINED, &parameters)?;
            Ok(if replayed == 0 { Retried::Gone } else { Retried::Replayed })
        });
        match outcome {
            // An error that the slave finds at the commit, where it checks foreign keys, belongs to no single change.
            Err(error) if error.side() == Some(Side::Slave) && !error.is_transient() => {
                let change = error.change().map(|(id, _)| format!("change {id}: ")).unwrap_or_default();
                let said = format!("{change}{}", error.detail());
                self.slave.execute("note the error", sql::NOTE_HELD_ERROR, &[&self.pair, &number, &said])?;
                Ok(Retried::Failed(error))
            }
            other => {
                self.notify()?;
                other
            }
        }
    }

    /// Replays these changes and rolls back: an error if the slave refuses one now.
    pub fn dry_run(&mut self, changes: Vec<Change>) -> Result<()> {
        self.replayer.be_careful(true);
        let body = || {
            self.replayer.begin(&mut self.slave)?;
            self.slave.message("wait for locks", SHORT_LOCK_TIMEOUT)?;
            self.replayer.apply(&mut self.master, &mut self.slave, changes)?;
            self.replayer.check_unique(&mut self.master, &mut self.slave)
        };
        let outcome = body();
        self.replayer.be_careful(false);
        self.slave.roll_back();
        self.replayer.take_conflicts();
        outcome
    }

    /// Held changes as SQL.
    pub fn show(&mut self, places: &[i64]) -> Result<Vec<String>> {
        self.replayer.be_careful(true);
        let shown = self.transaction(|this| {
            let changes = hold::read(&mut this.slave, places)?;
            this.replayer.show(&mut this.master, &mut this.slave, &changes)
        });
        self.replayer.be_careful(false);
        shown
    }

    /// Gives up held changes: whole transactions, or single changes.
    pub fn skip_held(&mut self, places: &[i64], reason: Option<&str>) -> Result<u64> {
        let skipped = self.with_exclusive_lock(|this| {
            let skipped = this.slave.execute("skip held changes", sql::SKIP_HELD, &[&this.pair, &places, &reason])?;
            if skipped == places.len() as u64 {
                return Ok(skipped);
            }
            let detail = "another session has replayed or skipped some of these changes meanwhile";
            Err(Error::new(Kind::Busy, Some(Side::Slave), "skip held changes", detail)
                .with_hint("none of them was skipped: pyreplica pending shows which are left"))
        })?;
        self.notify()?;
        Ok(skipped)
    }

    /// The conflicts of the changes that were replayed since the last call.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        self.replayer.take_conflicts()
    }

    /// Wakes the daemon, and the daemons of the slave's own slaves.
    pub fn notify(&mut self) -> Result<()> {
        self.master.message("wake the daemon", sql::NOTIFY)?;
        self.master.message("wake the daemon", sql::NOTIFY_RETRY)?;
        self.slave.message("wake the slave's own replicas", sql::NOTIFY).map(drop)
    }

    /// Runs a transaction during which no batch of the daemon is in progress.
    fn with_exclusive_lock<T>(&mut self, work: impl FnOnce(&mut Release) -> Result<T>) -> Result<T> {
        self.transaction(|this| {
            let locked = this.slave.message("wait for the batch in progress", sql::LOCK);
            locked.map_err(|error| match error.kind() {
                Kind::Contention => error.with_hint(
                    "the daemon ends a batch in progress, and settles a batch in doubt when it connects; then try again. \
                     pyreplica doctor shows which it is",
                ),
                _ => error,
            })?;
            work(this)
        })
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Release) -> Result<T>) -> Result<T> {
        let body = || {
            self.replayer.begin(&mut self.slave)?;
            let done = work(self)?;
            self.replayer.check_unique(&mut self.master, &mut self.slave)?;
            failpoint::reached("release-done");
            Ok(done)
        };
        let done = body();
        let done = self.slave.end(done)?;
        failpoint::reached("release-committed");
        Ok(done)
    }

    /// Replays the next held changes of a table. Returns how many, and whether no others are held at the moment.
    fn replay_piece(&mut self, relation: &str, snapshot: Option<&str>) -> Result<(u64, bool)> {
        self.slave.message("wait for other sessions that replay held changes", sql::LOCK_RELEASE)?;
        if let Some(snapshot) = snapshot {
            self.slave.execute("drop what was copied", sql::DROP_VISIBLE, &[&self.pair, &relation, &snapshot])?;
        }
        let next = self.slave.query("look at what is held", sql::NEXT_HELD, &[&self.pair, &relation, &PIECE_ROWS])?;
        let places = piece(&next);
        let count = self.replay(&places)?;
        self.slave.execute("forget what was held", sql::FORGET_HELD, &[&places])?;
        Ok((count, places.len() == next.len() && next.len() < PIECE_ROWS as usize))
    }

    fn replay_quarantined(&mut self, txid: &String) -> Result<u64> {
        let (mut total, mut last) = (0, i64::MIN);
        loop {
            let next = self.slave.query(
                "look at the quarantine",
                sql::NEXT_QUARANTINED,
                &[&self.pair, txid, &PIECE_ROWS, &last],
            )?;
            let places = piece(&next);
            let Some(place) = places.last() else { return Ok(total) };
            last = *place;
            total += self.replay(&places)?;
        }
    }

    fn replay(&mut self, places: &[i64]) -> Result<u64> {
        self.control.check()?;
        let changes = hold::read(&mut self.slave, places)?;
        let count = changes.len() as u64;
        let replayed = self.replayer.apply(&mut self.master, &mut self.slave, changes);
        replayed.map_err(|error| match error.change() {
            Some((id, _)) => error
                .with_hint(format!("fix the slave by hand and try again, or give the change up: pyreplica skip {id}")),
            None => error,
        })?;
        Ok(count)
    }
}

/// The places of those changes, at the beginning of a list, that are replayed together.
fn piece(rows: &[Row]) -> Vec<i64> {
    let mut bytes = 0;
    let fits = |row: &&Row| {
        bytes += i64::from(row.get::<_, i32>("size"));
        bytes <= PIECE_BYTES
    };
    let length = rows.iter().take_while(fits).count().max(1).min(rows.len());
    rows[..length].iter().map(|row| row.get("place")).collect()
}
