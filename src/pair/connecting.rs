//! Connects a pair: opens both sessions, finds out who is the master, checks both sides, and settles what is in doubt.

use crate::backlog::sql as backlog_sql;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::commit::twophase::{Pair, pair_key};
use crate::config::settings::Config;
use crate::pair::copied;
use crate::pair::emptied;
use crate::pair::former;
use crate::pair::sql;
use crate::replay::hold::Holds;
use crate::server::checks::{Findings, check, take_replica_role};
use crate::server::connect;
use crate::server::ours;
use crate::server::role::{self, Roles, State};
use crate::server::session::Session;
use std::time::Duration;

/// Before the pair is connected again in another direction.
pub const SWITCHED_PAUSE: Duration = Duration::from_millis(100);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Replicate,
    /// A copy of single tables. The slave's position stays.
    FillTables,
    /// A copy of everything, which makes a new position.
    FillAll,
    /// From a former master to the master of today, what it had committed and never sent.
    ReplayLost,
}

/// Connects, and makes sure that no copy to the slave is unfinished.
pub fn connect_for_replay(config: &Config, control: &Control) -> Result<Pair> {
    let mut pair = connect(config, control, Purpose::Replicate)?;
    let later_snapshots =
        copied::later_snapshots(&mut pair.slave, &pair.key, pair.log.progress.position().base.as_ref())?;
    pair.log.pass_over(&later_snapshots);
    emptied::find(&mut pair, &config.slave_field)?.into_iter().for_each(|what| pair.warn(what));
    Ok(pair)
}

/// Connects to both sides, checks them, locks the pair against other daemons, and settles transactions in doubt.
pub fn connect(config: &Config, control: &Control, purpose: Purpose) -> Result<Pair> {
    let name = &config.name;
    log::trace!(target: name, "DSN0: {}", config.master);
    log::trace!(target: name, "DSN1: {}", config.slave);
    log::info!(target: name, "Opening origin (master) connection");
    let mut master = connect::connect(Side::Master, &config.master, name)?;
    control.watch(master.watched());
    log::info!(target: name, "Opening replica (slave) connection");
    let mut slave = connect::connect(Side::Slave, &config.slave, name)?;
    control.watch(slave.watched());
    control.set_cancellers(vec![master.canceller(), slave.canceller()]);
    let stamp = role::stamp(&mut master, &config.slave_field)?;
    let roles = match purpose {
        Purpose::ReplayLost => Roles::original(),
        _ => who_is_master(config, control, purpose, &mut master, &mut slave)?,
    };
    let findings = check(config, &mut master, &mut slave, &control.abandoned())?;
    if roles.epoch > 0 {
        log::info!(target: name, "In epoch {} the master is {}", roles.epoch, role::place(&config.master));
    }
    let Findings { master_encoding, slave_encoding, .. } = &findings;
    log::debug!(target: name, "Encoding for this connections are {master_encoding} {slave_encoding}");

    master.message("set the session up", backlog_sql::READ_BY_INDEX)?;
    slave.set_up(&findings.master_identity)?;
    let replica_role = take_replica_role(&mut slave)?;
    if !replica_role {
        log::warn!(
            target: name,
            "slave: the role may not set session_replication_role: triggers and cascades of the slave run too, and \
             constraints are checked. hint: GRANT SET ON PARAMETER session_replication_role (PostgreSQL 15), or use a \
             superuser"
        );
    }
    let key = pair_key(findings.origin, &config.slave_field);
    if !config.two_phase {
        for session in [&mut master, &mut slave] {
            session.query("set the session up", sql::COMMIT_DURABLY, &[])?;
        }
    }
    let holds = Holds::open(name, &key, &mut slave)?;
    let feeds_others = ours::has(&mut slave, "replica_log")?;
    let mut pair = Pair::new(config, &findings, (master, slave), holds, !replica_role, feeds_others, control);
    pair.roles = stamp;
    // As long as a copy of everything is unfinished, what the slave's row says is of no interest.
    let is_unfinished = copied::unfinished(&mut pair.slave, &pair.key)?.is_some();
    match purpose {
        Purpose::Replicate if is_unfinished => drop(copied::later_snapshots(&mut pair.slave, &pair.key, None)?),
        Purpose::Replicate | Purpose::ReplayLost => pair.recover()?,
        Purpose::FillTables if !is_unfinished => pair.recover()?,
        Purpose::FillTables | Purpose::FillAll => pair.recover_to_fill()?,
    }
    // What was prepared may have been a switchover.
    refuse_if_switched(config, &mut pair)?;
    if roles.state == State::Between {
        pair.slave_roles = Some(role::stamp(&mut pair.slave, &config.slave_field)?);
        // It may have been finished meanwhile, also by what was settled above.
        who_is_master(config, control, purpose, &mut pair.master, &mut pair.slave)?;
        pair.warn(BETWEEN.to_string());
    }
    if pair.feeds_others {
        // An earlier connection may have been lost between a commit on the slave and its NOTIFY.
        pair.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
    }
    pair.log.progress.open(&mut pair.master)?;
    Ok(pair)
}

const BETWEEN: &str = "A switchover was interrupted: the fence is up on the old master, and the slave is not the master yet. \
     hint: run pyreplica switchover again, which finishes it";

/// Decides who is the master. An error if it is the other side, and if the other side was the master before a failover: then
/// that is fenced first.
fn who_is_master(
    config: &Config,
    control: &Control,
    purpose: Purpose,
    master: &mut Session,
    slave: &mut Session,
) -> Result<Roles> {
    let field = &config.slave_field;
    let (here, there) = (role::said(master, field)?, role::said(slave, field)?);
    let roles = role::decide(&here, &there)?;
    if roles.is_reversed {
        control.set_reversed(!control.is_reversed());
        return Err(switched("the other database is the master"));
    }
    if let (State::Lost | State::Uninstalled, Some((text, hint))) =
        (roles.state, roles.trouble(&role::place(&config.master)))
    {
        return Err(Error::new(Kind::Apart, Some(Side::Master), "replicate", text).with_hint(hint));
    }
    // A copy of everything replaces what a former master has.
    if roles.state == State::Former && purpose != Purpose::FillAll {
        return Err(former::fence(config, &roles, (master, &here), (slave, &there)));
    }
    Ok(roles)
}

/// An error if the roles have changed since the pair was connected.
pub fn refuse_if_switched(config: &Config, pair: &mut Pair) -> Result<()> {
    let field = &config.slave_field;
    let mut has_changed = role::stamp(&mut pair.master, field)? != pair.roles;
    if let Some(stamp) = &pair.slave_roles {
        has_changed |= role::stamp(&mut pair.slave, field)? != *stamp;
    }
    match has_changed {
        true => Err(switched("the roles have changed")),
        false => Ok(()),
    }
}

fn switched(why: &str) -> Error {
    Error::new(Kind::Switched, Some(Side::Master), "go on in this direction", why)
        .with_hint("the daemon connects again by itself; for a verb: run it again")
}
