//! What can be known before anything is installed for a copy: a master that logs its changes although no copy can be made fills its
//! disk.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::shown::listed;
use crate::config::settings::Config;
use crate::copy::copier::CopyOptions;
use crate::copy::plan;
use crate::copy::schema;
use crate::copy::sql;
use crate::server::checks;
use crate::server::connect;
use crate::server::ours;
use crate::server::session::{Row, Session};
use std::collections::HashSet;

/// An error if the copy would be refused after the installation. It writes nothing. If the master has a log already, the copy itself
/// says all.
pub fn before_install(config: &Config, options: &CopyOptions, control: &Control) -> Result<()> {
    let mut master = connect::connect(Side::Master, &config.master, &format!("{} check", config.name))?;
    let mut slave = connect::connect(Side::Slave, &config.slave, &format!("{} check", config.name))?;
    control.set_cancellers(vec![master.canceller(), slave.canceller()]);
    if ours::has(&mut master, "replica_log")? {
        return Ok(());
    }
    checks::before_install(config, &mut master, &mut slave)?;
    if !options.tables.is_empty() {
        return Ok(());
    }
    let rows = master.query("look at the tables", &sql::CANDIDATES, &[])?;
    let wanted: Vec<&str> =
        rows.iter().map(|row| row.get::<_, &str>("relation")).filter(|name| config.tables.has(name)).collect();
    let there = slave.query("look at the tables", sql::TARGET, &[&wanted])?;
    if options.schema && there.is_empty() {
        return schema::check_programs(&mut master);
    }
    missing(&wanted, &there, options.schema)?;
    filled_and_watched(&mut slave, &there, options.truncate)
}

fn missing(wanted: &[&str], there: &[Row], with_schema: bool) -> Result<()> {
    let there: HashSet<&str> = there.iter().map(|row| row.get("relation")).collect();
    let missing: Vec<String> =
        wanted.iter().filter(|name| !there.contains(**name)).map(|name| (*name).to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let hint = match with_schema {
        true => {
            "--schema creates all tables or none: drop those that the slave has, or create the others there by hand"
        }
        false => "let the copy create the tables too: pyreplica copy --schema ..., or create them on the slave by hand",
    };
    let detail = format!("the slave does not have {}; nothing was changed", listed(&missing));
    Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", detail).with_hint(hint))
}

fn filled_and_watched(slave: &mut Session, there: &[Row], truncates: bool) -> Result<()> {
    let of = |row: &Row| row.get::<_, String>("relation");
    let refused = |detail: String, hint: &str| {
        Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", format!("{detail}; nothing was changed"))
            .with_hint(hint))
    };
    let watched: Vec<String> = there.iter().filter(|row| row.get("watched")).map(of).collect();
    if !watched.is_empty() && !checks::may_take_replica_role(slave)? {
        return refused(
            format!("foreign keys or triggers would fire on {}", listed(&watched)),
            checks::REPLICA_ROLE_HINT,
        );
    }
    let names = there.iter().filter(|_| !truncates).map(|row| row.get::<_, &str>("relation"));
    let filled = plan::filled(slave, names.map(|name| (name, name)))?;
    match filled.is_empty() {
        true => Ok(()),
        false => refused(format!("not empty: {}", listed(&filled)), "--truncate empties the slave's tables first"),
    }
}
