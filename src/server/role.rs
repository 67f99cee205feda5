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

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::config::dsn::Dsn;
use crate::server::session::Session;
use crate::server::sql;
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
        return Ok(Said { identity, rows: Vec::new() });
    }
    let rows = session.query("look at the roles", sql::ROLES, &[&field])?;
    let is_slave = rows.iter().any(|row| row.get::<_, &str>("role") == "slave");
    let replayed = match is_slave && session.query_one("look at the roles", &sql::MAY_READ_PROGRESS, &[])?.get(0) {
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
        token: row.get("token"),
        has_replayed: replayed.iter().any(|peer| peer.get::<_, &str>(0) == row.get::<_, &str>("peer")),
    });
    Ok(Said { identity, rows: rows.collect() })
}

/// Whether the database has the table.
pub fn has_roles(session: &mut Session) -> Result<bool> {
    Ok(session.query_one("look for the roles", &sql::HAS_ROLES, &[])?.get(0))
}

/// Whether this database has become the slave of another one by an exchange of roles.
pub fn is_slave_of(session: &mut Session, identity: &str) -> Result<bool> {
    match has_roles(session)? {
        true => Ok(session.query_one("look at the roles", sql::IS_SLAVE_OF, &[&identity])?.get(0)),
        false => Ok(false),
    }
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
    let Some(newest) = newest else {
        refuse_other_master(first, second)?;
        return Ok(Roles::original());
    };
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
            return Err(two_masters(ours, here, there));
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
        (Some((Role::Slave, _)), None) if !newest.has_replayed => roles(false, State::Between),
        (None, Some((Role::Slave, _))) if !newest.has_replayed => roles(true, State::Between),
        (Some((Role::Slave, _)), None) => roles(true, State::Lost),
        (None, Some((Role::Slave, _))) => roles(false, State::Lost),
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

/// DSN1 is a master, and not of DSN0: is DSN0 a new database in the place of its slave, or is this a cascade?
fn refuse_other_master(first: &Said, second: &Said) -> Result<()> {
    let Some(row) = second.rows.iter().find(|row| row.role == Role::Master) else { return Ok(()) };
    let detail = format!(
        "DSN1 is the master of another database since {}, of {}, and not the slave of DSN0",
        row.since, row.peer_at
    );
    let hint = format!(
        "nothing was changed. If DSN0 is a new database in the place of that one: UPDATE replica_role SET peer = {} WHERE peer = {} \
         on DSN1; then fill it: pyreplica copy. If DSN1 is to be a slave of DSN0 as well, give this pair a SLAVE_FIELD of its own",
        quote_literal(&first.identity),
        quote_literal(&row.peer)
    );
    Err(Error::new(Kind::Apart, Some(Side::Slave), "tell who is the master", detail).with_hint(hint))
}

fn two_masters(epoch: i64, first: Option<&RoleRow>, second: Option<&RoleRow>) -> Error {
    let since = |row: Option<&RoleRow>| row.map_or(String::new(), |row| row.since.clone());
    let detail = format!(
        "both databases say that they are the master, in epoch {epoch}: that of DSN0 since {}, that of DSN1 since {}",
        since(first),
        since(second)
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
    let detail = format!("neither database says that it is the master: DSN0 {}, DSN1 {}", shown(ours), shown(theirs));
    Error::new(Kind::Apart, None, "tell who is the master", detail).with_hint(
        "nothing was changed. On the one that is to be the master: UPDATE replica_role SET role = 'master', epoch = epoch + 1",
    )
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
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(identity: &str, rows: &[(Role, i64, &str)]) -> Said {
        let rows = rows.iter().map(|(role, epoch, peer)| RoleRow {
            role: *role,
            pair: "p".into(),
            epoch: *epoch,
            peer: peer.to_string(),
            peer_at: "host=b".into(),
            since: String::new(),
            token: None,
            has_replayed: false,
        });
        Said { identity: identity.into(), rows: rows.collect() }
    }

    /// What both sides say, and what follows: whether DSN1 is the master, and the state.
    fn decided(first: Option<(Role, i64)>, second: Option<(Role, i64)>) -> Option<(bool, State)> {
        let rows = |row: Option<(Role, i64)>, peer| row.map(|(role, epoch)| (role, epoch, peer));
        let first = said("a", rows(first, "b").as_slice());
        let second = said("b", rows(second, "a").as_slice());
        decide(&first, &second).ok().map(|roles| (roles.is_reversed, roles.state))
    }

    #[test]
    fn every_row_of_the_table_in_both_orders() {
        use Role::{Former, Master, Slave};
        use State::{Between, Settled};
        assert_eq!(decided(None, None), Some((false, Settled)));
        let table = [
            (Some((Master, 3)), Some((Slave, 3)), Some((false, Settled))),
            (Some((Master, 3)), Some((Slave, 1)), Some((false, Settled))),
            (Some((Master, 1)), Some((Slave, 3)), Some((false, Settled))),
            (Some((Master, 3)), Some((Master, 2)), Some((false, State::Former))),
            (Some((Master, 3)), None, Some((false, State::Former))),
            (Some((Master, 3)), Some((Former, 3)), Some((false, State::Former))),
            (Some((Master, 3)), Some((Master, 3)), None),
            (Some((Slave, 3)), Some((Slave, 2)), Some((false, Between))),
            (Some((Slave, 2)), None, Some((false, Between))),
            (Some((Slave, 3)), Some((Slave, 3)), None),
        ];
        for (first, second, wanted) in table {
            assert_eq!(decided(first, second), wanted, "{first:?} {second:?}");
            let turned = wanted.map(|(is_reversed, state)| (!is_reversed, state));
            assert_eq!(decided(second, first), turned, "{second:?} {first:?}");
        }
    }

    #[test]
    fn a_slave_that_has_replayed_in_its_epoch_had_a_master() {
        let mut first = said("a", &[(Role::Slave, 2, "b")]);
        first.rows[0].has_replayed = true;
        let roles = decide(&first, &said("b", &[])).unwrap();
        assert_eq!((roles.is_reversed, roles.state), (true, State::Lost));
    }

    #[test]
    fn a_slave_that_was_left_behind_is_refused_and_the_pair_that_moved_is_not() {
        let first = said("a", &[(Role::Moved, 2, "b")]);
        assert!(decide(&first, &said("c", &[])).is_err());
        let mut first = said("a", &[(Role::Moved, 2, "b"), (Role::Slave, 2, "b")]);
        first.rows[0].pair = "q".into();
        assert!(decide(&first, &said("b", &[(Role::Master, 2, "a")])).unwrap().is_reversed);
    }

    #[test]
    fn other_pairs_of_the_same_databases_say_nothing() {
        let (mut first, second) = (said("a", &[(Role::Slave, 2, "x")]), said("b", &[]));
        first.rows[0].pair = "other".into();
        assert_eq!(decide(&first, &second).unwrap(), Roles::original());
        first.rows[0].role = Role::Master;
        assert_eq!(decide(&first, &second).unwrap(), Roles::original());
        assert!(decide(&second, &first).is_err(), "a master is not made the slave of an unknown database");
    }

    #[test]
    fn one_side_alone_tells_the_direction_if_it_knows_one_pair() {
        assert!(guess(&said("b", &[(Role::Master, 2, "a")]), true));
        assert!(!guess(&said("a", &[(Role::Master, 3, "b")]), false));
        assert!(guess(&said("a", &[(Role::Slave, 2, "b")]), false));
        assert!(!guess(&said("a", &[]), false));
    }
}
