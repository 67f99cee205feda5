//! What can be known before anything is installed for a copy: a master that logs its changes although no copy can be made fills its
//! disk.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::shown::listed;
use crate::commit::agreement::{self, Standing, standing};
use crate::commit::twophase::pair_key;
use crate::config::settings::Config;
use crate::copy::copier::CopyOptions;
use crate::copy::plan;
use crate::copy::schema;
use crate::copy::sql;
use crate::server::checks;
use crate::server::connect;
use crate::server::ours;
use crate::server::role;
use crate::server::session::{Row, Session};
use std::collections::HashSet;

/// An error if the copy would be refused after the installation. It writes nothing. If the master has a log already, the copy itself
/// says all.
pub fn before_install(config: &Config, options: &CopyOptions, control: &Control) -> Result<()> {
    let (mut master, mut slave) = connected(config, control)?;
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
    if wanted.is_empty() {
        let detail = "the master has no table that could be replicated; nothing was changed";
        return Err(Error::new(Kind::Setup, Some(Side::Master), "copy", detail).with_hint(
            "are DSN0 and DSN1 exchanged? DSN0 is the master. If not: its tables need a primary key or a REPLICA IDENTITY",
        ));
    }
    let there = slave.query("look at the tables", sql::TARGET, &[&wanted])?;
    if options.schema && there.is_empty() {
        return schema::check_programs(&mut master);
    }
    missing(&wanted, &there, options.schema)?;
    filled_and_watched(&mut slave, &there, options.truncate)
}

fn connected(config: &Config, control: &Control) -> Result<(Session, Session)> {
    let master = connect::connect(Side::Master, &config.master, &format!("{} check", config.name))?;
    let slave = connect::connect(Side::Slave, &config.slave, &format!("{} check", config.name))?;
    control.set_cancellers(vec![master.canceller(), slave.canceller()]);
    Ok((master, slave))
}

/// An error if a copy would empty a master that has replicated to DSN0, and works. One that was restored to an earlier time may be filled.
pub fn refuse_exchanged(config: &Config, options: &CopyOptions, control: &Control) -> Result<()> {
    if !options.truncate || !options.tables.is_empty() || config.skip_user.is_some() {
        return Ok(());
    }
    let (mut first, mut second) = connected(config, control)?;
    let (first, second, field) = (&mut first, &mut second, &config.slave_field);
    if checks::log_oid(second).is_err() || role::epoch(first, field)? > 0 || role::epoch(second, field)? > 0 {
        return Ok(());
    }
    let (_, origin) = checks::identity_and_origin(second)?;
    let Some((there, Some(here))) = agreement::look(second, first, &pair_key(origin, field), field)? else {
        return Ok(());
    };
    if there.position.token.is_none() || standing(&there, Some(&here)) != Standing::Agreed {
        return Ok(());
    }
    let detail = format!(
        "DSN1 is a master, which has replicated to DSN0 until {}: are the two exchanged? Nothing was changed",
        there.ts
    );
    Err(Error::new(Kind::Setup, Some(Side::Slave), "empty its tables", detail).with_hint(
        "DSN0 is the master. If what is DSN0 here is to become it: pyreplica failover --force with the strings the other way round, and \
         then failback",
    ))
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
