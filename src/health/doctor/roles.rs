//! Who is the master, and whether the fence is where it should be.

use super::{Diagnosis, Level};
use crate::base::error::Result;
use crate::base::names::Side;
use crate::base::shown::listed;
use crate::config::settings::Config;
use crate::server::fence::{self, Fenced};
use crate::server::ours;
use crate::server::role::{self, Roles, State};
use crate::server::session::Session;

pub(super) fn examine(
    report: &mut Diagnosis,
    config: &Config,
    source: &str,
    roles: Option<&Roles>,
    master: Option<&mut Session>,
    slave: Option<&mut Session>,
) {
    if let Some(roles) = roles {
        direction(report, config, roles);
    }
    let (Some(master), Some(slave)) = (master, slave) else { return };
    let looked = look(config, master, slave);
    let Some((on_master, on_slave, has_log)) = report.ok_or_warning(None, "fence", looked) else { return };
    let up = names(&on_master, Fenced::is_put_up);
    if !up.is_empty() && roles.is_none_or(|roles| matches!(roles.state, State::Settled | State::Former)) {
        let text = format!("the master's tables refuse every write: {}", listed(&up));
        if report.ok_or_warning(Some(Side::Master), "fence", role::is_led(master)).unwrap_or(true) {
            // The fence has been put up by another pair.
            report.add(Level::Failure, Some(Side::Master), "fence", text).advise(
                "that database is not the master any more: another one leads. Don't take the fence down: both would be written to. \
                 SELECT * FROM replica_role there says which one it is",
            );
        } else {
            let fixes = report.ok_or_warning(Some(Side::Master), "fence", fence::by_hand(master, &up));
            report.add(Level::Failure, Some(Side::Master), "fence", text).fixes = fixes.unwrap_or_default();
        }
    }
    let open = names(&on_slave, |table| table.is_named && !table.is_up);
    let closed = names(&on_slave, |table| table.is_named && table.is_up);
    let protect = format!("pyreplica protect {source}");
    match (open.is_empty(), closed.is_empty()) {
        (true, false) => drop(report.add(
            Level::Ok,
            Some(Side::Slave),
            "fence",
            "nobody but the daemon can write to replicated tables",
        )),
        (false, false) => {
            let text = format!("some tables can be written to, and others not: {}", listed(&open));
            report.add(Level::Warning, Some(Side::Slave), "fence", text).advise(protect);
        }
        // A slave with a log of its own may be a master too, and written to on purpose.
        (false, true) if !has_log || roles.is_some_and(|roles| roles.epoch > 0) => {
            let text = "everybody with the right to can write to the slave's tables";
            report.add(Level::Note, Some(Side::Slave), "fence", text).advise(protect);
        }
        _ => {}
    }
}

fn direction(report: &mut Diagnosis, config: &Config, roles: &Roles) {
    let place = role::place(&config.master);
    if let Some((text, advice)) = roles.trouble(&place) {
        report.add(Level::Failure, None, "roles", text).advise(advice);
    } else if roles.epoch > 0 {
        let since = roles.since.as_deref().unwrap_or_default();
        report.add(Level::Ok, None, "roles", format!("in epoch {}, since {since}, the master is {place}", roles.epoch));
    }
}

/// The fence on both sides, and whether the slave has a log.
fn look(config: &Config, master: &mut Session, slave: &mut Session) -> Result<(Vec<Fenced>, Vec<Fenced>, bool)> {
    let (mut on_master, (mut on_slave, _)) = (fence::replicated(master)?, fence::known(master)?);
    on_master.retain(|name| config.tables.has(name));
    on_slave.retain(|name| config.tables.has(name));
    let has_log = ours::has(slave, "replica_log")?;
    Ok((fence::look(master, &on_master)?, fence::look(slave, &on_slave)?, has_log))
}

fn names(tables: &[Fenced], is_wanted: impl Fn(&Fenced) -> bool) -> Vec<String> {
    tables.iter().filter(|table| is_wanted(table)).map(|table| table.relation.clone()).collect()
}
