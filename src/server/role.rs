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
//! | slave, in the next epoch | slave, or nothing | a switchover was interrupted between its two commits: no master, until it is settled |
//! | the same, and has replayed since | the same | the other side was the master, and was restored from before that |
//! | the same, and has replayed since | nothing, and has no table of pyreplica | the other side was the master, and was uninstalled |

mod refusals;

use crate::base::error::Result;
use crate::base::names::quote_literal;
use crate::config::dsn::Dsn;
use crate::server::checks;
use crate::server::libpq;
use crate::server::ours;
use crate::server::session::Session;
use crate::server::sql;
use crate::server::tls;
use std::fmt;

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
    /// A row that was written later has a greater one.
    pub order: i64,
    /// This database has become the master again of a pair that has moved.
    pub is_over: bool,
    /// The last batch that a failover found on the slave.
    pub token: Option<String>,
    /// A slave has replayed batches since it got this role. So the other side was the master, whatever it says.
    pub has_replayed: bool,
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
    /// It has no tables of pyreplica, neither a master's nor a slave's.
    pub is_bare: bool,
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
    /// What should be the master knows nothing of it, although its slave has replicated from it: it was restored.
    Lost,
    /// The same, but that has nothing of pyreplica: it was uninstalled there, and nobody knows which side has the later rows.
    Uninstalled,
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
    let there = ours::which(session, &["replica_role", "replica_log", "replica_progress"])?;
    if !there.iter().any(|name| name == "replica_role") {
        return Ok(Said { identity, rows: Vec::new(), is_bare: there.is_empty() });
    }
    let rows = session.query("look at the roles", sql::ROLES, &[&field])?;
    let is_slave = rows.iter().any(|row| row.get::<_, &str>("role") == "slave");
    let replayed = match is_slave && ours::may_read(session, &["replica_progress"])? {
        true => session.query("look at the roles", sql::REPLAYED_SINCE, &[&field])?,
        false => Vec::new(),
    };
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
        order: row.get("order"),
        is_over: row.get("is_over"),
        token: row.get("token"),
        has_replayed: replayed.iter().any(|peer| peer.get::<_, &str>(0) == row.get::<_, &str>("peer")),
    });
    Ok(Said { identity, rows: rows.collect(), is_bare: false })
}

/// Whether the database has the table.
pub fn has_roles(session: &mut Session) -> Result<bool> {
    ours::has(session, "replica_role")
}

/// Whether this database has become the slave of another one by an exchange of roles.
pub fn is_slave_of(session: &mut Session, identity: &str) -> Result<bool> {
    match has_roles(session)? {
        true => Ok(session.query_one("look at the roles", sql::IS_SLAVE_OF, &[&identity])?.get(0)),
        false => Ok(false),
    }
}

/// Whether another database leads in some pair of this one, after an exchange of roles or a failover.
pub fn is_led(session: &mut Session) -> Result<bool> {
    match has_roles(session)? {
        true => Ok(session.query_one("look at the roles", sql::IS_LED, &[])?.get(0)),
        false => Ok(false),
    }
}

/// Changes whenever a row with this field does. Cheap, for a daemon that has nothing to replay.
pub fn stamp(session: &mut Session, field: &str) -> Result<String> {
    match has_roles(session)? {
        true => Ok(session.query_one("look at the roles", sql::ROLES_STAMP, &[&field])?.get(0)),
        false => Ok(String::new()),
    }
}

/// The greatest epoch of this database's own roles under a field.
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
    if first.identity == second.identity {
        return Err(checks::same_database());
    }
    let (here, there) = (first.about(second), second.about(first));
    let roles = by_rows(first, second, here, there);
    let is_reversed = roles.as_ref().is_ok_and(|roles| roles.is_reversed);
    let (master, known) = if is_reversed { (second, there) } else { (first, here) };
    refusals::moved(master, known, if is_reversed { "DSN1" } else { "DSN0" })?;
    roles
}

/// By what both databases say about this pair.
fn by_rows(first: &Said, second: &Said, here: Option<&RoleRow>, there: Option<&RoleRow>) -> Result<Roles> {
    let newest = [here, there].into_iter().flatten().max_by_key(|row| row.epoch);
    let Some(newest) = newest else {
        refusals::other_master(first, second)?;
        return Ok(Roles::original());
    };
    let roles = |is_reversed, state| Roles {
        is_reversed,
        epoch: newest.epoch,
        pair: Some(newest.pair.clone()),
        since: Some(newest.since.clone()),
        state,
    };
    let lost = |master: &Said| if master.is_bare { State::Uninstalled } else { State::Lost };
    let role = |row: Option<&RoleRow>| row.map(|row| (row.role, row.epoch));
    Ok(match (role(here), role(there)) {
        (Some((Role::Master, ours)), Some((Role::Master, theirs))) if ours == theirs => {
            return Err(refusals::two_masters(ours, here, there));
        }
        (Some((Role::Master, ours)), Some((Role::Master, theirs))) => roles(ours < theirs, State::Former),
        (Some((Role::Master, _)), Some((Role::Former, _)) | None) => roles(false, State::Former),
        (Some((Role::Former, _)) | None, Some((Role::Master, _))) => roles(true, State::Former),
        (Some((Role::Master, _)), Some(_)) => roles(false, State::Settled),
        (Some(_), Some((Role::Master, _))) => roles(true, State::Settled),
        // The old master is fenced already, so the direction is from it to the other side, until that is the master.
        (Some((Role::Slave, ours)), Some((Role::Slave, theirs))) if ours != theirs && !newest.has_replayed => {
            roles(ours < theirs, State::Between)
        }
        (Some((Role::Slave, ours)), Some((Role::Slave, theirs))) if ours != theirs => roles(ours > theirs, State::Lost),
        (Some((Role::Slave, _)), None) if !newest.has_replayed && !second.is_bare => roles(false, State::Between),
        (None, Some((Role::Slave, _))) if !newest.has_replayed && !first.is_bare => roles(true, State::Between),
        (Some((Role::Slave, _)), None) => roles(true, lost(second)),
        (None, Some((Role::Slave, _))) => roles(false, lost(first)),
        (ours, theirs) => return Err(refusals::no_master(ours, theirs)),
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

impl Roles {
    /// What keeps the pair from replicating, and what to do. `master_at`: where the master is.
    pub fn trouble(&self, master_at: &str) -> Option<(String, &'static str)> {
        let since = self.since.as_deref().unwrap_or_default();
        match self.state {
            State::Settled => None,
            State::Between => Some((
                format!(
                    "a switchover was interrupted: {master_at} is fenced, and the other side is not the master yet"
                ),
                "run pyreplica switchover again, which finishes it",
            )),
            State::Former => Some((
                format!("the master is {master_at}; the other side was the master before, and replicates nothing"),
                "pyreplica failback shows what it has that the master lacks, and makes it the slave",
            )),
            State::Lost => Some((
                format!(
                    "{master_at} became the master at {since}, and knows nothing of it: it was restored from a backup from before. \
                     What was changed there since is on the slave"
                ),
                "nothing was changed. pyreplica failover --force makes the slave the master, and then failback makes this database \
                 its slave",
            )),
            State::Uninstalled => Some((
                format!(
                    "{master_at} became the master at {since}, and has no log any more: pyreplica was uninstalled there, or the \
                     database was restored or replaced"
                ),
                "nothing was changed. Look which of the two has the later rows. If it is that one: pyreplica uninstall on the other \
                 side, and then copy --install --truncate from it, as DSN0. If it is the slave: pyreplica failover --force makes the \
                 slave the master, and failback --discard-lost then gives up what only that one has",
            )),
        }
    }

    pub fn original() -> Roles {
        Roles { is_reversed: false, epoch: 0, pair: None, since: None, state: State::Settled }
    }
}

/// Where clients find a database, for messages to them. A connection string may leave that to a service file or to variables.
pub fn place(dsn: &Dsn) -> String {
    if ["host", "hostaddr"].iter().any(|key| dsn.get(key).is_some_and(|value| !value.is_empty())) {
        return words(dsn, &["host", "hostaddr", "port", "dbname"]);
    }
    match libpq::complete(dsn).as_deref() {
        // A socket of this machine says nothing to clients of others.
        Ok([full]) if tls::is_socket(full) => words(full, &["port", "dbname"]),
        Ok([full, ..]) => words(full, &["host", "hostaddr", "port", "dbname"]),
        _ => words(dsn, &["service", "port", "dbname"]),
    }
}

fn words(dsn: &Dsn, keys: &[&str]) -> String {
    let words = keys.iter().filter_map(|key| {
        dsn.get(key).filter(|value| !value.is_empty()).map(|value| match value.contains([' ', '\'']) {
            true => format!("{key}={}", quote_literal(value)),
            false => format!("{key}={value}"),
        })
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
