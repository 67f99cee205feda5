//! Prepares a database to be a master: the log, and the triggers that write it.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident};
use crate::config::dsn::Dsn;
use crate::roles::sql;
use crate::server::checks;
use crate::server::connect;
use crate::server::fence;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::time::Duration;

/// Others wait behind this session, at most so long.
pub const SHORT_LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";

/// How often a lock is tried, and how long to let others work in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(2);

/// Runs the embedded master script and creates the triggers. It calls `report` with a line about each table. With `ddl` schema changes
/// travel from then on.
///
/// A session that waits for a table's lock makes those wait that come after it. So each table has a transaction of its own, waits for
/// a moment only, and is tried again when the others have had their turn.
pub fn install(dsn: &Dsn, ddl: bool, control: &Control, report: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut master = connect::connect(Side::Master, dsn, "install")?;
    control.set_cancellers(vec![master.canceller()]);
    install_log(&mut master, control, report)?;
    create_triggers(&mut master, &|_| true, false, control, report)?;
    if ddl {
        master.script("install what logs schema changes", sql::MASTER_INSTALL_DDL)?;
        report("schema changes travel from now on")?;
    }
    Ok(())
}

/// Runs the script.
pub fn install_log(master: &mut Session, control: &Control, report: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    // The script then creates hstore in the schema in which the operator's own session would create it.
    master.message("set the session up", &format!("RESET search_path; {SHORT_LOCK_TIMEOUT}"))?;
    let of = "the log or of pyreplica's other objects";
    run_script(master, "install the log and its trigger", sql::MASTER_INSTALL, of, control, report)?;
    master.message("set the session up", sql::OWN_SESSION_PATH)?;
    let warnings: Vec<String> = master.query_one("read the warnings of the script", sql::WARNINGS, &[])?.get(0);
    warnings.iter().try_for_each(|warning| report(warning))
}

/// Runs a script that is a transaction, and tries again for a while if it does not get a lock `of` something. The session has
/// `SHORT_LOCK_TIMEOUT`.
pub fn run_script(
    session: &mut Session,
    what: &str,
    script: &str,
    of: &str,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut tries = 1;
    while let Err(error) = session.script(what, script) {
        if error.kind() != Kind::Contention || control.is_stopping() || tries == TRIES {
            return Err(error);
        }
        report(&format!("waiting for a lock of {of}: {}", error.detail()))?;
        wait(control)?;
        tries += 1;
    }
    Ok(())
}

const NO_KEY: &str = "hint: without a primary key, ALTER TABLE ... REPLICA IDENTITY USING INDEX ...; names a unique index whose \
     columns identify a row (they must be NOT NULL), and ALTER TABLE ... REPLICA IDENTITY FULL; says that the whole row does. \
     Then run pyreplica install again";

/// Gives a database what a master has, as far as it lacks it: the log, in which the first of these fields belongs to the pair and all
/// are columns, and the rights of the role. `announcement` is reported if the log has to be installed. Locks are then waited for
/// for a moment only.
pub fn prepare_log(
    session: &mut Session,
    fields: &[&String],
    announcement: &str,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    if checks::log_oid(session).is_err() {
        report(announcement)?;
        install_log(session, control, &mut |line| {
            log::debug!(target: "pyreplica", "{line}");
            Ok(())
        })?;
    }
    let known = session.query("look at the log's columns", server_sql::SLAVE_FIELDS, &[])?;
    for field in fields {
        if !known.iter().any(|row| row.get::<_, &str>(0) == *field) {
            session.query("add the slave", sql::ADD_SLAVE, &[*field])?;
        }
    }
    if !session.query("look at the rights", server_sql::MISSING_RIGHTS, &[])?.is_empty() {
        session.query("grant the daemon's rights", sql::GRANT_DAEMON, &[])?;
    }
    session.execute("register the slave", server_sql::SLAVE_ROW, &[fields[0]])?;
    session.message("set the session up", SHORT_LOCK_TIMEOUT).map(drop)
}

/// Creates the triggers of the tables that lack them and are wanted. `disabled`: leaves them so.
pub fn create_triggers(
    master: &mut Session,
    is_wanted: &dyn Fn(&str) -> bool,
    disabled: bool,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut todo: Vec<(String, String)> = Vec::new();
    let mut lacks_key = false;
    for row in master.query("look at the tables", &sql::TO_INSTALL, &[])? {
        let (schema, name): (String, String) = (row.get("schema"), row.get("name"));
        if !is_wanted(row.get("relation")) {
            continue;
        }
        lacks_key |= row.get::<_, bool>("lacks_key");
        if row.get("is_done") {
            let key: Option<Vec<String>> = row.get("key");
            let key = key.map_or("replica identity full".to_string(), |key| key.join(","));
            report(&format!("{name} has its trigger ({key})"))?;
        } else {
            todo.push((schema, name));
        }
    }
    let mut failed: Vec<String> = Vec::new();
    for attempt in 1..=TRIES {
        let mut locked = Vec::new();
        for (schema, name) in todo {
            let created = master.transaction("BEGIN", |master| {
                let row = master.query_one("create the triggers", sql::CREATE_TRIGGERS, &[&schema, &name])?;
                if disabled {
                    let relation = format!("{}.{}", quote_ident(&schema), quote_ident(&name));
                    let disable = fence::switch_triggers(master, &[relation], false)?;
                    master.message("disable the triggers", &disable)?;
                }
                Ok(row.get::<_, String>(0))
            });
            match created {
                Ok(line) => report(&line)?,
                Err(error) if error.kind() == Kind::Contention && !control.is_stopping() => {
                    if attempt == 1 {
                        report(&format!("table {name} waits for its turn: {}", error.detail()))?;
                    }
                    locked.push((schema, name));
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    report(&format!("table {name} gets no trigger: {}", error.detail()))?;
                    failed.push(name);
                }
            }
        }
        todo = locked;
        if todo.is_empty() {
            break;
        }
        if attempt < TRIES {
            wait(control)?;
        }
    }
    if lacks_key {
        report(NO_KEY)?;
    }
    failed.extend(todo.into_iter().map(|(_, name)| name));
    if failed.is_empty() {
        return Ok(());
    }
    let detail = format!("{} of the tables have none: {}", failed.len(), failed.join(", "));
    Err(Error::new(Kind::Setup, Some(Side::Master), "create all triggers", detail).with_hint(
        "the lines above say why; the other tables have theirs. Run pyreplica install again, when the sessions that lock these \
         tables have ended (pg_stat_activity shows which have begun long ago)",
    ))
}

fn wait(control: &Control) -> Result<()> {
    match control.pause(PAUSE) {
        true => Err(Error::new(Kind::Stopped, None, "install", "stopped by a signal")),
        false => Ok(()),
    }
}
