//! Makes the slave the master, because the master is gone.
//!
//! A batch that the slave has prepared is committed: its changes were committed by the application long ago. The slave notes which
//! batch it has last, so that `failback` can settle what the old master has prepared. Nothing here decides that a master is dead: if
//! it answers, the verb refuses.

use crate::backlog::position::Position;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, Side, quote_literal};
use crate::commit::prepared::prepared;
use crate::commit::recovery::Gid;
use crate::config::settings::Config;
use crate::pair::former;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::roles::direction;
use crate::roles::install;
use crate::roles::obstacles;
use crate::roles::sql;
use crate::server::checks;
use crate::server::connect_pair::{self, BothSides};
use crate::server::fence;
use crate::server::role::{self, Role, Roles, Said, State, place};
use crate::server::session::{Row, Session};
use crate::server::sql as server_sql;

/// How many numbers a sequence leaves out.
const GAP: i64 = 1_000;

/// SQLSTATE of a lock that was not granted in time; and how many tables are waited for.
const NO_LOCK: &str = "55P03";
const MOST_LOCKED: u32 = 5;

/// What was done, and what is certain.
pub struct Outcome {
    pub epoch: i64,
    pub old: String,
    pub new: String,
    /// The last batch that the slave has, when it was committed there, and the last change in it.
    pub batch: i64,
    pub replayed_at: String,
    pub last_change: i64,
    /// It was prepared, and this has committed it.
    pub was_in_doubt: bool,
    /// How many sequences were moved on.
    pub sequences: u64,
    /// The old master was reached, and is fenced.
    pub is_fenced: bool,
    pub notes: Vec<String>,
}

/// The slave's last batch.
struct Last {
    /// The pair in the slave's tables.
    key: String,
    batch: i64,
    token: String,
    /// The old master's database.
    identity: String,
    ts: String,
    /// The highest change that it may have.
    highest: i64,
}

/// Does it. With `force` a master that answers is fenced first.
pub fn run(
    config: &Config,
    force: bool,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Outcome> {
    if config.tables.is_limited() {
        let why = "TABLES is set: the slave has some of the master's tables only";
        return Err(Error::new(Kind::Setup, None, "make the slave the master", why)
            .with_hint("a failover is for a pair that replicates all tables"));
    }
    let BothSides { master, slave, config, roles } = connect_pair::open(config, "failover", control);
    let field = config.slave_field.clone();
    let (mut slave, master) = match (master, slave) {
        // The side that answers may have been made the master already.
        (Ok(mut master), Err(away)) => {
            refuse_master(&role::said(&mut master, &field)?, None)?;
            return Err(away);
        }
        (master, slave) => (slave?, master),
    };
    let said = role::said(&mut slave, &field)?;
    refuse_master(&said, roles.as_ref())?;
    let mut master = away_or_forced(master, force)?;
    checks::progress_table(&mut slave)?;
    let last = last(&mut slave, &field)?;
    let mut notes = missing(&mut slave, &said, &last, &field, force)?;
    fence::install(&mut slave)?;
    let known = said.rows.iter().find(|row| row.role != Role::Moved && row.peer == last.identity);
    let epoch = known.map_or(1, |row| row.epoch) + 1;
    let pair = match known {
        Some(row) => row.pair.clone(),
        None => slave.query_one("name the pair", sql::NAME_PAIR, &[])?.get(0),
    };
    if let Some(master) = &mut master {
        report("the master answers: putting up its fence first")?;
        let identity: String = slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
        let turned = config.directed(true);
        let roles = Roles { is_reversed: false, epoch, pair: Some(pair.clone()), since: None, state: State::Former };
        let its = role::said(master, &field)?;
        let says = Said { identity, rows: Vec::new(), is_bare: false };
        former::put_up(&turned, &roles, (&mut slave, &says), master, &its)?;
    }
    failpoint::reached("failover fenced");
    let was_in_doubt = settle(&mut slave, &field, &last)?;
    let last = self::last(&mut slave, &field)?;
    // The batch in doubt may have been a switchover.
    let said = role::said(&mut slave, &field)?;
    let known = said.rows.iter().find(|row| row.role != Role::Moved && row.peer == last.identity);
    let (epoch, pair) = known.map_or((epoch, pair), |row| (row.epoch.max(epoch), row.pair.clone()));
    failpoint::reached("failover settled");
    // After that: what was in doubt held locks of its tables.
    install(&mut slave, &config, control, report, &mut notes)?;
    let sequences = move_sequences(&mut slave, control, &mut notes)?;
    notes.extend(take_over(&mut slave, &config, &last, epoch, &pair)?);
    if let Err(error) = slave.message("wake the daemon", pair_sql::NOTIFY_RETRY) {
        notes.push(error.to_string());
    }
    Ok(Outcome {
        epoch,
        old: place(&config.master),
        new: place(&config.slave),
        batch: last.batch,
        replayed_at: last.ts,
        last_change: last.highest,
        was_in_doubt,
        sequences,
        is_fenced: master.is_some(),
        notes,
    })
}

fn refuse_master(said: &Said, roles: Option<&Roles>) -> Result<()> {
    let is_master = said.rows.iter().any(|row| row.role == Role::Master);
    if roles.is_some_and(|roles| roles.state == State::Former) || is_master {
        let detail = "this database is the master already";
        return Err(Error::new(Kind::Usage, Some(Side::Slave), "fail over", detail)
            .with_hint("when the former master is back, run pyreplica failback"));
    }
    Ok(())
}

/// The session on the master if it answers and may be fenced. An error if it answers otherwise.
fn away_or_forced(master: Result<Session>, force: bool) -> Result<Option<Session>> {
    let refuse = |why: String| {
        Err(Error::new(Kind::Setup, Some(Side::Master), "fail over", why).with_hint(
            "nothing was changed. While the master works, pyreplica switchover exchanges the roles without losing anything; \
             pyreplica failover --force fences the master, if it can, and goes on without what it has not sent",
        ))
    };
    match master {
        Ok(master) if force => Ok(Some(master)),
        Ok(_) => refuse("it answers".to_string()),
        // Nobody answers there. A server that has no connection left, or is starting, has answered.
        Err(error) if error.kind() == Kind::Connection && error.code().is_none() => Ok(None),
        Err(_) if force => Ok(None),
        Err(error) => refuse(format!("it answers, though not as it should: {error}")),
    }
}

/// What this database lacks, or would lose, as notes. An error unless it is to be the master all the same.
fn missing(slave: &mut Session, said: &Said, last: &Last, field: &str, force: bool) -> Result<Vec<String>> {
    let mut own: Vec<String> = said.rows.iter().map(|row| row.peer.clone()).collect();
    own.push(last.identity.clone());
    let found = obstacles::of_failover(slave, field, &last.key, &own)?;
    if !force && !found.is_empty() {
        let texts: Vec<String> =
            found.iter().map(|found| format!("{} ({})", found.text, found.help.join("; "))).collect();
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "fail over", texts.join("; "))
            .with_hint("nothing was changed. Do what the brackets say; or go on all the same: --force"));
    }
    let held = obstacles::held_by(slave, &last.key)?;
    let held =
        held.map(|held| format!("{}: the old master has the rows, and replica_held here the changes", held.text));
    Ok(found.into_iter().map(|found| found.text).chain(held).collect())
}

fn last(slave: &mut Session, field: &String) -> Result<Last> {
    let rows = slave.query("look what was replayed last", sql::LAST_REPLAYED, &[field])?;
    let identity = |row: &Row| row.get::<_, Option<String>>("identity");
    if rows.iter().any(|row| identity(row) != identity(&rows[0])) {
        let masters: Vec<String> = rows
            .iter()
            .map(|row| format!("'{}' until {}", row.get::<_, &str>("master"), row.get::<_, &str>("ts")))
            .collect();
        let detail = format!("it has replayed the changes of several masters: {}", masters.join(", "));
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "fail over", detail).with_hint(
            "nothing was changed. It cannot take the place of one of them while the others work. If they are no more: DELETE FROM \
             replica_progress WHERE master = '...' here, of all but the one that is gone, and run the failover again",
        ));
    }
    let Some(row) = rows.first() else {
        let detail = "this database has never replayed anything for this SLAVE_FIELD";
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "fail over", detail).with_hint("is DSN1 right?"));
    };
    let (batch, position): (i64, &str) = (row.get("batch"), row.get("position"));
    let highest = Position::decode(BatchNumber(batch), None, position)
        .map_or(0, |position| position.last.unwrap_or(position.highest).0);
    Ok(Last {
        key: row.get("master"),
        batch,
        token: row.get("token"),
        identity: row.get::<_, Option<String>>("identity").unwrap_or_default(),
        ts: row.get("ts"),
        highest,
    })
}

fn install(
    slave: &mut Session,
    config: &Config,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut quiet = |_: &str| Ok(());
    install::prepare_log(slave, &[&config.slave_field], "installing the log on the new master", control, report)?;
    // A table without a trigger is better than no master.
    if let Err(error) = install::create_triggers(slave, &|_| true, false, control, &mut quiet) {
        control.check()?;
        notes.push(format!(
            "{error}; changes of these tables are not logged until pyreplica install gives them their trigger"
        ));
    }
    Ok(())
}

/// Commits what the slave has prepared of the old master's batches. There is one at most, since all write the same row.
fn settle(slave: &mut Session, field: &str, last: &Last) -> Result<bool> {
    let origin = last.key.split(' ').next().unwrap_or_default();
    let is_ours =
        |gid: &str| Gid::parse(Side::Slave, gid).is_some_and(|gid| gid.field == field && gid.origin == origin);
    let mut found = false;
    for batch in prepared(slave)?.into_iter().filter(|found| found.is_here && found.is_own && is_ours(&found.gid)) {
        slave.message("commit the batch in doubt", &format!("COMMIT PREPARED {}", quote_literal(&batch.gid)))?;
        found = true;
    }
    Ok(found)
}

/// Moves each sequence on beyond the outermost value of the columns that use it, and beyond where it is, by a gap: the old master
/// has given further numbers to rows that it has not sent.
fn move_sequences(slave: &mut Session, control: &Control, notes: &mut Vec<String>) -> Result<u64> {
    slave.refuse_views()?;
    let (mut moved, mut locked) = (0, 0);
    for row in slave.query("look at the sequences", sql::LAST_VALUES, &[&GAP])? {
        let (sequence, column, query): (String, String, String) =
            (row.get("sequence"), row.get("column"), row.get("query"));
        if !row.get::<_, bool>("may_set") {
            notes.push(format!(
                "sequence {sequence} was not moved on for {column}, whose owner may use it, and not set it"
            ));
            continue;
        }
        if locked == MOST_LOCKED {
            slave.query("wait for no lock", sql::LOCK_TIMEOUT, &[&"10ms"])?;
        }
        let outermost = slave.text_rows("look at the largest value", &query).and_then(|rows| {
            let row = rows.into_iter().next().unwrap_or_default();
            let value = |n: usize| row.get(n).cloned().flatten();
            let outermost = value(0).and_then(|value| value.parse::<i64>().ok());
            let has_further = value(1).as_deref() == Some("true");
            let set = match outermost.is_some() || has_further {
                true => slave.query("move the sequence on", sql::MOVE_ON, &[&sequence, &outermost, &GAP])?.len(),
                false => 0,
            };
            Ok((set as u64, has_further))
        });
        match outermost {
            Ok((set, has_further)) => {
                moved += set;
                if has_further {
                    notes.push(format!("sequence {sequence}: values of {column} near its end were not regarded"));
                }
            }
            // A better master than none, whoever keeps a table locked.
            Err(error) if error.code() == Some(NO_LOCK) => {
                control.check()?;
                locked += 1;
                notes.push(format!("sequence {sequence} was not moved on: somebody keeps {column} locked"));
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => notes.push(format!("sequence {sequence} was not moved on: {}", error.detail())),
        }
    }
    Ok(moved)
}

/// The transaction that makes the slave the master. No slave of it has the token that it draws, so the old master cannot replicate
/// from here before it was made equal.
fn take_over(slave: &mut Session, config: &Config, last: &Last, epoch: i64, pair: &str) -> Result<Vec<String>> {
    let field = &config.slave_field;
    let identity: String = slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0);
    let tables = fence::replicated(slave)?;
    let triggers = fence::trigger_switches(slave, &tables, true)?;
    let writable = fence::read_only(slave, false)?.unwrap_or_default();
    slave.transaction("BEGIN", |slave| {
        let left = fence::lift(slave, &triggers, &writable)?;
        let (there, none) = (place(&config.master), last.identity.clone());
        slave.execute(
            "note the role",
            pair_sql::SET_ROLE,
            &[field, &last.identity, &pair, &"master", &epoch, &there, &none],
        )?;
        slave.execute("note the last batch", sql::SET_LAST, &[field, &last.identity, &last.batch, &last.token])?;
        direction::begin(slave, field, &identity, &last.identity, "a failover made this database the master")?;
        // The old master may have the batches of former epochs, and more besides. So none of them is a position to go back to.
        slave.execute("forget the histories", sql::FORGET_HISTORIES, &[field])?;
        failpoint::reached("failover noted");
        Ok(left)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symptom: a failover went on while the master worked, since it had no connection left for the verb.
    #[test]
    fn a_master_that_sends_an_answer_is_not_gone() {
        let refused = |code: &str| {
            Err(Error::new(Kind::Connection, Some(Side::Master), "connect", "it has refused").with_code(code))
        };
        for code in ["53300", "57P03"] {
            assert!(away_or_forced(refused(code), false).is_err(), "{code}");
            assert!(away_or_forced(refused(code), true).unwrap().is_none(), "{code}");
        }
        let silent = Error::new(Kind::Connection, Some(Side::Master), "connect", "connection refused");
        assert!(away_or_forced(Err(silent), false).unwrap().is_none());
    }
}
