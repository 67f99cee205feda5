//! What keeps the databases of a pair from telling who is the master.

use super::{Role, RoleRow, Said};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};

/// A slave of a former master must not go on with it: what changes there now is replayed, and not logged. `dsn` names the database
/// that this pair takes for its master, and `known` is that one's row about the pair: if it is later, the pair has been set up anew.
pub(super) fn moved(master: &Said, known: Option<&RoleRow>, dsn: &str) -> Result<()> {
    let rows = master.rows.iter().filter(|row| row.role == Role::Moved);
    let later = rows.max_by_key(|row| row.order).filter(|row| known.is_none_or(|known| known.order < row.order));
    let Some(row) = later else { return Ok(()) };
    let (was, give_up) =
        (if row.token.is_some() { "taken along" } else { "not taken along" }, quote_literal(&row.peer));
    let detail = match row.is_over {
        true => format!(
            "{dsn} is the master again, and was not for a time from {} on: this slave, which was {was}, lacks what was changed \
             meanwhile",
            row.since
        ),
        false => format!(
            "{dsn} is not the master any more, since {}: the master is {}, and this slave was {was}",
            row.since, row.peer_at
        ),
    };
    let hint = match &row.token {
        _ if row.is_over => format!(
            "stop this pair's daemon; then on {dsn}: DELETE FROM replica_role WHERE role = 'moved' AND peer = {give_up}; and \
             fill the slave: pyreplica copy --truncate"
        ),
        Some(_) => format!("make {dsn} lead there ({}); nothing has to be copied", row.peer_at),
        None => format!(
            "make {dsn} lead there ({}), give this slave a column of the log there (py_log_add_slave), and fill it: pyreplica \
             copy --truncate",
            row.peer_at
        ),
    };
    Err(Error::new(Kind::Setup, Some(Side::Master), "replicate", detail).with_hint(hint))
}

/// DSN1 is a master, and not of DSN0: is DSN0 a new database in the place of its slave, or is this a cascade?
pub(super) fn other_master(first: &Said, second: &Said) -> Result<()> {
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

pub(super) fn two_masters(epoch: i64, first: Option<&RoleRow>, second: Option<&RoleRow>) -> Error {
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

pub(super) fn no_master(ours: Option<(Role, i64)>, theirs: Option<(Role, i64)>) -> Error {
    let shown = |row: Option<(Role, i64)>| match row {
        Some((role, epoch)) => format!("{role} in epoch {epoch}"),
        None => "nothing".to_string(),
    };
    let detail = format!("neither database says that it is the master: DSN0 {}, DSN1 {}", shown(ours), shown(theirs));
    // A fenced database is read-only.
    let change = match (ours, theirs) {
        (Some((Role::Former, _)), None) | (None, Some((Role::Former, _))) => {
            "If the former one is to be the master again, there: BEGIN READ WRITE; DELETE FROM replica_role WHERE role = 'former'; COMMIT; \
             and make it DSN0"
        }
        _ => {
            "On the one that is to be the master: BEGIN READ WRITE; UPDATE replica_role SET role = 'master', epoch = epoch + 1; COMMIT"
        }
    };
    Error::new(Kind::Apart, None, "tell who is the master", detail).with_hint(format!(
        "nothing was changed. {change}. Then pyreplica doctor shows how to take its fence down, and status what the other side needs"
    ))
}
