//! Puts the fence up on an ordinary slave, or takes it down: nobody writes to a slave by mistake.

use crate::base::control::Control;
use crate::base::error::Result;
use crate::config::settings::Config;
use crate::server::connect_pair::{self, BothSides};
use crate::server::fence::{self, Renamed};
use crate::server::role::{Roles, place};
use crate::server::session::Session;

/// What was done on the slave.
pub struct Outcome {
    /// The slave, as clients find it.
    pub slave: String,
    /// How many tables have the fence up now, partitions too, and how many had it before.
    pub tables: usize,
    pub before: usize,
    pub notes: Vec<String>,
}

/// Fences the slave's replicated tables and their partitions, also those that are new since the last time.
pub fn protect(config: &Config, control: &Control) -> Result<Outcome> {
    let BothSides { master, slave, config, .. } = connect_pair::open(config, "protect", control);
    let (mut master, mut slave) = (master?, slave?);
    let (mut names, mut renamed) = fence::known(&mut master)?;
    names.retain(|name| config.tables.has(name));
    renamed.retain(|table| config.tables.has(&table.relation));
    fence::install(&mut slave)?;
    let before = fence::look(&mut slave, &names)?;
    let passes = fence::passes(&mut slave)?;
    slave.message("set the session up", "SET lock_timeout = '5s'")?;
    fence::prepare(&mut slave, &before, &place(&config.master), &passes)?;
    let tables = fence::look(&mut slave, &names)?;
    let up = fence::up(&tables);
    if !up.is_empty() {
        slave.transaction("BEGIN", |slave| slave.message("put up the fence", &up))?;
    }
    let count = |tables: &[fence::Fenced]| tables.iter().filter(|table| table.is_put_up()).count();
    let after = fence::look(&mut slave, &names)?;
    let note = |tables: &[Renamed]| {
        format!(
            "left out, since on the master they had other names when their triggers were created: {} ({})",
            Renamed::listed(tables),
            Renamed::help(tables)
        )
    };
    let notes = if renamed.is_empty() { Vec::new() } else { vec![note(&renamed)] };
    Ok(Outcome { slave: place(&config.slave), tables: count(&after), before: count(&before), notes })
}

/// Takes the fence down on the slave, so that it can be written to.
pub fn unprotect(config: &Config, control: &Control) -> Result<Outcome> {
    let BothSides { master, slave, config, roles } = connect_pair::open(config, "unprotect", control);
    let mut slave = slave?;
    drop(master);
    let count = |slave: &mut Session| -> Result<usize> {
        Ok(fence::look(slave, &[])?.iter().filter(|table| table.is_up).count())
    };
    let before = count(&mut slave)?;
    let writable = match roles.unwrap_or_else(Roles::original).epoch {
        0 => String::new(),
        _ => fence::read_only(&mut slave, false)?.unwrap_or_default(),
    };
    let notes = slave.transaction("BEGIN", |slave| fence::lift(slave, &[], &writable))?;
    let tables = count(&mut slave)?;
    Ok(Outcome { slave: place(&config.slave), tables, before, notes })
}
