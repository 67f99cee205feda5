//! A database that was the master before a failover, and comes back: it is fenced as soon as a daemon or a verb sees it, so that
//! nobody goes on writing there. Nothing is replicated then, until `pyreplica failback`.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::phrases::counted;
use crate::config::settings::Config;
use crate::pair::sql;
use crate::server::fence;
use crate::server::ours;
use crate::server::role::{self, Role, Roles, Said};
use crate::server::session::{Session, ToSql};

/// Puts the fence up, unless it is up, and returns the error that says so. `master` is the master of today, with what it says.
pub fn fence(
    config: &Config,
    roles: &Roles,
    master: (&mut Session, &Said),
    (former, its): (&mut Session, &Said),
) -> Error {
    let fenced = match stands(roles, former, its) {
        Ok(None) => put_up(config, roles, master, former, its).map(|tables| (tables, " now")),
        Ok(Some(tables)) => Ok((tables, "")),
        Err(error) => Err(error),
    };
    let state = match fenced {
        Ok((0, _)) => "It has none of the replicated tables, so nothing could be fenced. Clients may still write to it"
            .to_string(),
        Ok((tables, now)) => {
            format!("It is fenced{now} ({}): nobody writes there any more", counted(tables, "table"))
        }
        Err(error) => format!("It could not be fenced: {error}. Clients may still write to it"),
    };
    let detail = format!(
        "this database was the master before epoch {}, and may have changes that the master of today ({}) lacks. {state}",
        roles.epoch,
        role::place(&config.master)
    );
    Error::new(Kind::Apart, Some(Side::Slave), "replicate", detail).with_hint(
        "nothing is replicated. pyreplica failback shows what it has that the master lacks, and makes it the slave",
    )
}

/// How many tables are fenced, if the fence was put up and nobody has taken it down since.
pub fn stands(roles: &Roles, former: &mut Session, its: &Said) -> Result<Option<usize>> {
    if !its.rows.iter().any(|row| row.role == Role::Former && Some(&row.pair) == roles.pair.as_ref()) {
        return Ok(None);
    }
    let names = fence::replicated(former)?;
    let tables = fence::look(former, &names)?;
    let is_whole = tables.iter().all(|table| table.is_up || !table.is_named);
    Ok(is_whole.then(|| tables.iter().filter(|table| table.is_up).count()))
}

/// Fences what a former master replicates, and what it has of the tables that the master of today replicates. Its other slaves are told
/// where the master is. Returns how many tables there are.
pub fn put_up(
    config: &Config,
    roles: &Roles,
    (master, in_force): (&mut Session, &Said),
    former: &mut Session,
    its: &Said,
) -> Result<usize> {
    fence::install(former)?;
    let mut names = fence::replicated(former)?;
    // It may have been restored to a time when it had no triggers.
    names.extend(fence::known(master)?.0);
    names.sort();
    names.dedup();
    let master_at = role::place(&config.master);
    let tables = fence::look(former, &names)?;
    let passes = fence::passes(former)?;
    fence::prepare(former, &tables, &master_at, &passes)?;
    // Without the replica role, replayed changes would fire the triggers that log.
    let silent = if passes.is_empty() { String::new() } else { fence::switch_triggers(former, &names, false)? };
    let read_only = fence::read_only(former, true)?.unwrap_or_default();
    let pair = roles.pair.clone().unwrap_or_default();
    let has_log = ours::has(former, "replica_slave")?;
    former.transaction("BEGIN; SET LOCAL lock_timeout = '5s'", |former| {
        former.message("put up the fence", &format!("{}{read_only}{silent}", fence::up(&tables)))?;
        // A database that was restored from a dump has another identity than the row says.
        let known = its.rows.iter().find(|row| row.pair == pair).map_or(&in_force.identity, |row| &row.peer);
        former.execute(
            "note the role",
            sql::SET_ROLE,
            &[&config.slave_field, &in_force.identity, &pair, &"former", &roles.epoch, &master_at, known],
        )?;
        if has_log {
            let others: [&(dyn ToSql + Sync); 5] =
                [&config.slave_field, &in_force.identity, &pair, &roles.epoch, &master_at];
            former.execute("note the slaves", sql::OTHERS_MOVED, &others)?;
        }
        Ok(())
    })?;
    Ok(tables.iter().filter(|table| table.is_named).count())
}
