//! A database that was the master before a failover, and comes back: it is fenced as soon as a daemon or a verb sees it, so that
//! nobody goes on writing there. Nothing is replicated then, until `pyreplica failback`.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::phrases::counted;
use crate::config::settings::Config;
use crate::pair::sql;
use crate::server::fence;
use crate::server::role::{self, Role, Roles, Said};
use crate::server::session::Session;

/// Puts the fence up, unless it is up, and returns the error that says so.
pub fn fence(config: &Config, roles: &Roles, in_force: &Said, (former, its): (&mut Session, &Said)) -> Error {
    let is_known = its.rows.iter().any(|row| row.role == Role::Former && Some(&row.pair) == roles.pair.as_ref());
    let fenced = if is_known { Ok(0) } else { put_up(config, roles, in_force, former, its) };
    let detail = match fenced {
        Ok(tables) => format!(
            "this database was the master before epoch {}, and may have changes that the master of today ({}) lacks. It is \
             fenced{}: nobody writes there any more",
            roles.epoch,
            role::place(&config.master),
            if tables > 0 { format!(" now ({})", counted(tables, "table")) } else { String::new() }
        ),
        Err(error) => format!(
            "this database was the master before epoch {}, and may have changes that the master of today ({}) lacks. It could \
             not be fenced: {error}. Clients may still write to it",
            roles.epoch,
            role::place(&config.master)
        ),
    };
    Error::new(Kind::Apart, Some(Side::Slave), "replicate", detail).with_hint(
        "nothing is replicated. pyreplica failback shows what it has that the master lacks, and makes it the slave",
    )
}

/// Fences the replicated tables of a former master. Returns how many there are.
pub fn put_up(config: &Config, roles: &Roles, in_force: &Said, former: &mut Session, its: &Said) -> Result<usize> {
    fence::install(former)?;
    let names = fence::replicated(former)?;
    let master_at = role::place(&config.master);
    let tables = fence::look(former, &names)?;
    let passes = fence::passes(former)?;
    fence::prepare(former, &tables, &master_at, &passes)?;
    // Without the replica role, replayed changes would fire the triggers that log.
    let silent = if passes.is_empty() { String::new() } else { fence::switch_triggers(former, &names, false)? };
    let read_only = fence::read_only(former, true)?.unwrap_or_default();
    let pair = roles.pair.clone().unwrap_or_default();
    former.transaction("BEGIN; SET LOCAL lock_timeout = '5s'", |former| {
        former.message("put up the fence", &format!("{}{read_only}{silent}", fence::up(&tables)))?;
        // A database that was restored from a dump has another identity than the row says.
        let known = its.rows.iter().find(|row| row.pair == pair).map_or(&in_force.identity, |row| &row.peer);
        former.execute(
            "note the role",
            sql::SET_ROLE,
            &[&config.slave_field, &in_force.identity, &pair, &"former", &roles.epoch, &master_at, known],
        )
    })?;
    Ok(tables.iter().filter(|table| table.is_named).count())
}
