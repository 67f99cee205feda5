//! Takes pyreplica away from a database, whichever side it is of a pair: what is there, and its removal.

use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::dsn::Dsn;
use crate::roles::install;
use crate::roles::sql;
use crate::server::connect;
use crate::server::ours;
use crate::server::session::Session;
use crate::server::sql as server_sql;

/// What pyreplica has in a database.
pub struct Found {
    /// Kind and name.
    pub objects: Vec<(String, String)>,
    /// The columns of the log that belong to slaves, and how many changes it holds, up to `COUNTED`.
    pub slaves: Vec<String>,
    pub changes: i64,
    /// A log of the Python original, which stays.
    pub has_former_log: bool,
}

/// Nobody needs to know it exactly.
pub const COUNTED: i64 = 100_000;

/// Connects. The side is only a word in messages: nothing here depends on it.
pub fn open(dsn: &Dsn, control: &Control) -> Result<Session> {
    let mut session = connect::connect(Side::Master, dsn, "uninstall")?;
    control.set_cancellers(vec![session.canceller()]);
    session.message("set the session up", install::SHORT_LOCK_TIMEOUT)?;
    Ok(session)
}

/// Lists what is there. An error if some of it is not known to be pyreplica's, or if a daemon or a verb is at work.
pub fn look(session: &mut Session) -> Result<Found> {
    let mut objects = Vec::new();
    for row in session.query("look for pyreplica's objects", &sql::UNINSTALL_OBJECTS, &[])? {
        let (kind, name, owner): (String, String, String) = (row.get("kind"), row.get("name"), row.get("owner"));
        if !row.get::<_, bool>("is_trusted") {
            let detail = format!("the {kind} {name} belongs to {owner}, who is not known to have installed pyreplica");
            return Err(Error::new(Kind::Setup, Some(session.side()), "uninstall", detail)
                .with_hint("rename it; or, if it is pyreplica's, give it to the owner of the database"));
        }
        objects.push((kind, name));
    }
    if let Some(row) = session.query("look for a daemon", sql::UNINSTALL_SESSIONS, &[])?.first() {
        let (name, role): (String, String) = (row.get("name"), row.get("role"));
        let detail = format!("{name} is at work, as the role {role}");
        return Err(Error::new(Kind::Busy, Some(session.side()), "uninstall", detail)
            .with_hint("stop the daemon first, or take the pair's config file away from it"));
    }
    let has_log = ours::has(session, "replica_log")?;
    let (mut slaves, mut changes) = (Vec::new(), 0);
    if has_log {
        let fields = session.query("look at the log's columns", server_sql::SLAVE_FIELDS, &[])?;
        slaves = fields.iter().map(|row| row.get(0)).collect();
        changes = session.query_one("count the changes", sql::COUNT_LOG, &[&COUNTED])?.get(0);
    }
    let has_former_log = ours::has(session, "replica_log_former")?;
    Ok(Found { objects, slaves, changes, has_former_log })
}

/// Removes all of it. The event triggers go first, with the master's part, so that nothing is logged of the rest. `report` gets a
/// line when a lock has to be waited for.
pub fn remove(session: &mut Session, control: &Control, report: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    for (what, script) in
        [("remove the log and its triggers", sql::MASTER_UNINSTALL), ("remove the rest", sql::SLAVE_UNINSTALL)]
    {
        install::run_script(session, what, script, "a table", control, report).map_err(|error| match error.code() {
            Some("42501") if error.hint().is_none() => {
                error.with_hint("the owner of the database may do it, or a superuser, if that role installed it")
            }
            Some("2BP01") if error.hint().is_none() => {
                error.with_hint("something of yours uses it, and would go too: drop that first")
            }
            _ => error,
        })?;
    }
    Ok(())
}
