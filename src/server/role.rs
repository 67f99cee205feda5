//! Which of a pair's two databases is the master.
//!
//! It is what the config file says, until a switchover or a failover has exchanged the roles. Then each database has a row in
//! `replica_role`, and the rows decide: the side that says master in the greater epoch is the master.
//!
//! | one side says | the other | then |
//! |---|---|---|
//! | nothing | nothing | DSN0 is the master |
//! | master | slave | that is the direction, whichever epochs they name: a side that was restored may name an older one |
//! | master | master, in an older epoch | the older one has missed a failover: it is the *former* master |
//! | master | nothing, though it is the other's peer | the same |
//! | master | former | the same; `failback` makes it the slave |
//! | master | master, in the same epoch | refused |
//! | slave, in the next epoch | slave | a switchover was interrupted between its two commits: no master, until it is settled |
//! | slave, and has replicated in that epoch | slave | refused: the other one was the master, and was restored |
//! | slave, in the first epoch | nothing | the other one is the master: the first switchover was prepared only |
//! | slave, in a later epoch | nothing | refused, for the same reason |

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::config::dsn::Dsn;
use crate::server::session::Session;
use crate::server::sql;
use std::fmt;

/// The epoch of a slave before the first switchover. Its master has no row then.
const FIRST: i64 = 1;

/// A database's row about one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRow {
    pub role: Role,
    /// Drawn by chance when the roles were exchanged for the first time; the other side's row has the same.
    pub pair: String,
    pub epoch: i64,
    /// The other database, and where clients find it.
    pub peer: String,
    pub peer_at: String,
    pub since: String,
    /// The last batch that a failover found on the slave.
    pub token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Slave,
    /// It was the master, and has missed a failover.
    Former,
    /// In a row for another slave: that slave asks this database, which is not its master any more.
    Moved,
}

/// What a database says about a pair.
#[derive(Debug)]
pub struct Said {
    /// System identifier and oid of the database.
    pub identity: String,
    pub rows: Vec<RoleRow>,
    /// The other databases from which this one has replicated something since it became their slave.
    replicated: Vec<String>,
}

/// Who is the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// DSN1 is the master.
    pub is_reversed: bool,
    /// Zero as long as the roles have never been exchanged.
    pub epoch: i64,
    pub pair: Option<String>,
    pub since: Option<String>,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A master and a slave.
    Settled,
    /// A switchover was interrupted between its two commits. The direction is that from before it.
    Between,
    /// What should be the slave was the master before a failover, and may have changes that the master lacks.
    Former,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Master => "master",
            Role::Slave => "slave",
            Role::Former => "former",
            Role::Moved => "moved",
        })
    }
}

/// Reads what this database says about the pair with this field.
pub fn said(session: &mut Session, field: &str) -> Result<Said> {
    let identity = session.query_one("look at the server", sql::IDENTITY, &[])?.get(0);
    if !has_roles(session)? {
        return Ok(Said { identity, rows: Vec::new(), replicated: Vec::new() });
    }
    let rows = session.query("look at the roles", sql::ROLES, &[&field])?;
    let rows = rows.iter().map(|row| RoleRow {
        role: match row.get("role") {
            "master" => Role::Master,
            "slave" => Role::Slave,
            "former" => Role::Former,
            _ => Role::Moved,
        },
        pair: row.get("pair"),
        epoch: row.get("epoch"),
        peer: row.get("peer"),
        peer_at: row.get("peer_at"),
        since: row.get("since"),
        token: row.get("token"),
    });
    let rows: Vec<RoleRow> = rows.collect();
    let replicated = match session.query_one("look at the progress", sql::MAY_SEE_PROGRESS, &[])?.get(0) {
        true => session.query("look at the progress", sql::REPLICATED_SINCE, &[&field])?,
        false => Vec::new(),
    };
    Ok(Said { identity, rows, replicated: replicated.iter().map(|row| row.get(0)).collect() })
}

/// Whether the database has the table.
pub fn has_roles(session: &mut Session) -> Result<bool> {
    Ok(session.query_one("look for the roles", sql::HAS_ROLES, &[])?.get(0))
}

/// Changes when the roles do. Cheap, for a daemon that has nothing to replay.
pub fn epoch(session: &mut Session, field: &str) -> Result<i64> {
    match has_roles(session)? {
        true => Ok(session.query_one("look at the roles", sql::EPOCH, &[&field])?.get(0)),
        false => Ok(0),
    }
}

impl Said {
    /// The row that is about the pair with this other database: by the pair's name, or else by the other database.
    fn about<'a>(&'a self, other: &Said) -> Option<&'a RoleRow> {
        let same_pair = |row: &&RoleRow| other.rows.iter().any(|theirs| theirs.pair == row.pair);
        let rows = || self.rows.iter().filter(|row| row.role != Role::Moved);
        rows().find(same_pair).or_else(|| rows().find(|row| row.peer == other.identity))
    }
}

/// Decides who is the master. `first` is the database of DSN0, `second` that of DSN1.
pub fn decide(first: &Said, second: &Said) -> Result<Roles> {
    let (here, there) = (first.about(second), second.about(first));
    refuse_moved(first, here)?;
    let newest = [here, there].into_iter().flatten().max_by_key(|row| row.epoch);
    let Some(newest) = newest else { return Ok(Roles::original()) };
    let roles = |is_reversed, state| Roles {
        is_reversed,
        epoch: newest.epoch,
        pair: Some(newest.pair.clone()),
        since: Some(newest.since.clone()),
        state,
    };
    let role = |row: Option<&RoleRow>| row.map(|row| (row.role, row.epoch));
    Ok(match (role(here), role(there)) {
        (Some((Role::Master, ours)), Some((Role::Master, theirs))) if ours == theirs => {
            let since = |row: Option<&RoleRow>| row.map_or(String::new(), |row| row.since.clone());
            return Err(two_masters(ours, &since(here), &since(there)));
        }
        (Some((Role::Master, ours)), Some((Role::Master, theirs))) => roles(ours < theirs, State::Former),
        (Some((Role::Master, _)), Some((Role::Former, _)) | None) => roles(false, State::Former),
        (Some((Role::Former, _)) | None, Some((Role::Master, _))) => roles(true, State::Former),
        (Some((Role::Master, _)), Some(_)) => roles(false, State::Settled),
        (Some(_), Some((Role::Master, _))) => roles(true, State::Settled),
        // The old master is fenced already, so the direction is from it to the other side, until that is the master.
        (Some((Role::Slave, ours)), Some((Role::Slave, theirs))) if ours != theirs => {
            let (old, new) = if ours < theirs { (second, first) } else { (first, second) };
            if old.replicated.contains(&new.identity) {
                return Err(no_master(role(here), role(there)));
            }
            roles(ours < theirs, State::Between)
        }
        (Some((_, FIRST)), None) => roles(true, State::Settled),
        (None, Some((_, FIRST))) => roles(false, State::Settled),
        (ours, theirs) => return Err(no_master(ours, theirs)),
    })
}

/// Decides by one side alone, while the other can't be reached. `is_second`: it is the database of DSN1.
pub fn guess(said: &Said, is_second: bool) -> bool {
    let mut rows = said.rows.iter().filter(|row| row.role != Role::Moved);
    match (rows.next(), rows.next()) {
        (Some(row), None) => (row.role == Role::Master) == is_second,
        _ => false,
    }
}

/// A slave of a former master must not go on with it: what changes there now is replayed, and not logged.
fn refuse_moved(first: &Said, known: Option<&RoleRow>) -> Result<()> {
    let Some(row) = first.rows.iter().find(|row| row.role == Role::Moved).filter(|_| known.is_none()) else {
        return Ok(());
    };
    let detail = format!(
        "DSN0 is not the master any more, since {}: the master is {}, and this slave was {}",
        row.since,
        row.peer_at,
        if row.token.is_some() { "taken along" } else { "not taken along" }
    );
    let hint = match &row.token {
        Some(_) => format!("make DSN0 lead there ({}); nothing has to be copied", row.peer_at),
        None => format!(
            "make DSN0 lead there ({}), give this slave a column of the log there (py_log_add_slave), and fill it: pyreplica \
             copy --truncate",
            row.peer_at
        ),
    };
    Err(Error::new(Kind::Setup, Some(Side::Master), "replicate", detail).with_hint(hint))
}

fn two_masters(epoch: i64, first: &str, second: &str) -> Error {
    let detail = format!(
        "both databases say that they are the master, in epoch {epoch}: that of DSN0 since {first}, that of DSN1 since {second}"
    );
    Error::new(Kind::Apart, None, "tell who is the master", detail).with_hint(
        "nothing was changed. Decide which one is right, and on the other one: UPDATE replica_role SET role = 'former'; then \
         pyreplica failback",
    )
}

fn no_master(ours: Option<(Role, i64)>, theirs: Option<(Role, i64)>) -> Error {
    let shown = |row: Option<(Role, i64)>| match row {
        Some((role, epoch)) => format!("{role} in epoch {epoch}"),
        None => "nothing".to_string(),
    };
    let detail = format!(
        "neither database says that it is the master: that of DSN0 says {}, that of DSN1 {}. One of them was restored from a backup, \
         or is another database",
        shown(ours),
        shown(theirs)
    );
    Error::new(Kind::Apart, None, "tell who is the master", detail).with_hint(
        "nothing was changed. On the one that is to be the master: UPDATE replica_role SET role = 'master', epoch = epoch + 1",
    )
}

impl Roles {
    pub fn original() -> Roles {
        Roles { is_reversed: false, epoch: 0, pair: None, since: None, state: State::Settled }
    }
}

/// Where clients find a database, for messages to them.
pub fn place(dsn: &Dsn) -> String {
    let words = ["host", "hostaddr", "port", "dbname"].into_iter().filter_map(|key| {
        dsn.get(key).filter(|value| !value.is_empty()).map(|value| match value.contains([' ', '\'']) {
            true => format!("{key}={}", quote_literal(value)),
            false => format!("{key}={value}"),
        })
    });
    words.collect::<Vec<_>>().join(" ")
}
