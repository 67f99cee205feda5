//! Compares the last batch of both servers.
//!
//! The two transactions of a batch write the same random token into the slave's row in `replica_progress` and the
//! master's in `replica_slave`. If the tokens differ, one of the servers was restored, a standby that lagged was
//! promoted in its place, or a connection string leads to another database. Then nothing is replayed before it is known
//! what the slave lacks.
//!
//! | the slave's batch | then |
//! |---|---|
//! | has the master's token | both agree |
//! | was built on what the master's row says | the master's commit is missing: recovery adds it |
//! | is older, in a history that the master has up to there | the slave is *behind*: it goes back to its own position |
//! | is newer than what the master has of its history | the slave is *ahead*: refused |
//! | is of a history that the master does not know | refused |
//! | is unknown, but the master knows of one | the slave lacks everything: refused |
//!
//! If two rows have the same token, they are of one batch. Numbers order the batches of one history, but a server that
//! was restored uses numbers again. So the daemon draws an id for a new history when the master was started or
//! promoted, when a slave has gone back to its own position, and when a repair has set the position. The master keeps
//! the last batch that it has of each former history.

use crate::backlog::master_row::MasterRow;
use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, Side};
use crate::commit::sql;
use crate::server::checks;
use crate::server::session::Session;

/// The slave's row in `replica_progress`.
#[derive(Debug)]
pub struct SlaveRow {
    /// The pair as the row names it: the log may have been in another cluster then.
    pub key: String,
    pub batch: BatchNumber,
    pub token: Option<String>,
    /// What the master's row said when this batch was built on it. With two-phase commit also the master's life: what it shows is
    /// not lost as long as it runs. TWO_PHASE=false writes the row before each drain, so what that shows is not lost at all.
    former: Option<String>,
    /// The master's database then.
    pub identity: Option<String>,
    history: Option<String>,
    /// The position as text. An earlier version may have left it empty.
    position: String,
    /// When it was written.
    pub ts: String,
}

/// The result of comparing the two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Agreed,
    /// The slave has committed this batch, and the master has not. TWO_PHASE=false was interrupted in between, or somebody has
    /// rolled back what was prepared on the master.
    CommittedOnSlave,
    /// The slave was restored from an older state.
    Behind,
    /// The master was restored from an older state, or a standby that lagged was promoted.
    Ahead,
    OtherHistory,
    /// An empty database, or one that was never this slave.
    Unknown,
}

impl SlaveRow {
    /// Reads the row of this pair. If there is none, reads the row under the name that the pair had before the master's
    /// log came to another cluster: it has the same token or history.
    pub fn read(slave: &mut Session, key: &str, master: &MasterRow) -> Result<Option<SlaveRow>> {
        let rows =
            slave.query("read the last batch", sql::PROGRESS, &[&key, &master.position.token, &master.history])?;
        Ok(rows.first().map(|row| SlaveRow {
            key: row.get("master"),
            batch: BatchNumber(row.get("batch")),
            token: row.get("token"),
            former: row.get("former"),
            identity: row.get("identity"),
            history: row.get("history"),
            position: row.get("position"),
            ts: row.get("ts"),
        }))
    }

    /// The master has everything that this batch was built on, and only its own part of it is missing.
    fn is_built_on(&self, master: &MasterRow) -> bool {
        // A clone of the master has the same state, and may have made the batch.
        let is_of_master = self.identity.is_none() || master.identity.is_none() || self.identity == master.identity;
        let is_former = |former: &String| *former == master.state() || *former == master.state_in_life();
        is_of_master && self.former.as_ref().is_some_and(is_former)
    }

    /// The same of a master that has been started anew since. Whether it was restored meanwhile, its log has to tell.
    pub fn is_built_on_former_life(&self, master: &MasterRow) -> bool {
        self.former.is_some() && self.former == master.state_in_former_life()
    }

    pub fn position(&self) -> Result<Position> {
        Position::decode(self.batch, self.token.clone(), &self.position).ok_or_else(|| {
            Error::new(Kind::Internal, Some(Side::Slave), "read the progress", "replica_progress.position is damaged")
        })
    }
}

/// Reads the two rows for a verb, and changes nothing. None before a daemon has replicated for the first time. While a
/// daemon works, the rows may be of two batches.
pub fn look(
    master: &mut Session,
    slave: &mut Session,
    key: &str,
    field: &str,
) -> Result<Option<(MasterRow, Option<SlaveRow>)>> {
    let Some(there) = MasterRow::find(master, field)? else { return Ok(None) };
    // The slave's table may be missing, or be of an earlier version.
    let here = if checks::has_progress(slave)? { SlaveRow::read(slave, key, &there)? } else { None };
    Ok(Some((there, here)))
}

impl Standing {
    /// Whether the daemon refuses to replicate.
    pub fn is_refused(self) -> bool {
        matches!(self, Standing::Ahead | Standing::OtherHistory | Standing::Unknown)
    }
}

/// Compares the two rows.
pub fn standing(master: &MasterRow, slave: Option<&SlaveRow>) -> Standing {
    let known = master.position.token.as_ref();
    let Some(slave) = slave else {
        return if known.is_none() { Standing::Agreed } else { Standing::Unknown };
    };
    match (&slave.token, known) {
        // An earlier version has written both rows, without tokens. It wrote a position only with TWO_PHASE=false.
        (None, None) if slave.batch > master.position.batch && !slave.position.is_empty() => Standing::CommittedOnSlave,
        (None, None) => Standing::Agreed,
        (Some(here), Some(there)) if here == there => Standing::Agreed,
        (Some(_), _) if slave.is_built_on(master) => Standing::CommittedOnSlave,
        (None, Some(_)) => Standing::Unknown,
        (Some(_), None) => Standing::Ahead,
        (Some(_), Some(_)) => match slave.history.as_ref().and_then(|history| master.has_up_to(history)) {
            Some(up_to) if slave.batch <= up_to => Standing::Behind,
            Some(_) => Standing::Ahead,
            None => Standing::OtherHistory,
        },
    }
}

/// The error for a standing with which the daemon refuses to replicate.
pub fn refusal(standing: Standing, master: &MasterRow, slave: Option<&SlaveRow>) -> Error {
    let there = format!("the master's last batch is {}, of {}", master.position.batch, master.ts);
    let here = slave.map_or(String::new(), |slave| format!("the slave's is {}, of {}", slave.batch, slave.ts));
    let (side, what, hint) = match standing {
        Standing::Ahead => (
            Side::Master,
            format!(
                "the slave has replayed batches that the master does not know any more: {here}, and {there}. The master was \
                 restored, or a standby that lagged was promoted"
            ),
            APART,
        ),
        Standing::OtherHistory => {
            (Side::Slave, format!("this master has not made the slave's last batch: {here}, and {there}"), APART)
        }
        _ => (
            Side::Slave,
            format!("the slave does not know of any batch, but {there}: this is an empty database, or another one"),
            "is DSN1 right? If this is to be the slave from now on, fill it: pyreplica copy",
        ),
    };
    Error::new(Kind::Apart, Some(side), "replicate", what).with_hint(hint)
}

/// What the operator can do without losing changes unseen.
const APART: &str = "nothing was changed. If the master is right: stop the daemon, look at the differences with pyreplica compare, \
     and run pyreplica repair, which makes the slave equal and sets its position. If the slave is right: pyreplica \
     failover --force makes it the master";

/// Returns an error if the log may not have everything that the slave lacks.
pub fn refuse_if_purged(
    session: &mut Session,
    position: &Position,
    master: &MasterRow,
    slave: &SlaveRow,
) -> Result<()> {
    let is_same_database = slave.identity == master.identity;
    let base = position.base.as_ref().map(Snapshot::as_str);
    let is_purged = session.query_one("look at what was deleted", sql::IS_PURGED, &[&position.floor.0, &base])?;
    if is_same_database && !is_purged.get::<_, bool>(0) {
        return Ok(());
    }
    let why = if is_same_database {
        "the log may not have all changes since then, because RETENTION is over for some rows"
    } else {
        "the log has come to another cluster since, with other transaction numbers"
    };
    let detail = format!(
        "the slave is behind: its last batch is {}, of {}, and the master's is {}, of {}; {why}",
        slave.batch, slave.ts, master.position.batch, master.ts
    );
    Err(Error::new(Kind::Apart, Some(Side::Slave), "replicate", detail).with_hint(
        "nothing was changed. Fill the slave from scratch: pyreplica copy --truncate; or run pyreplica repair, which makes it \
         equal and sets its position",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(batch: i64, token: Option<&str>, history: &str) -> MasterRow {
        MasterRow::of(batch, token, history, &[("old", 50)])
    }

    fn slave(batch: i64, token: Option<&str>, history: &str, former: Option<&str>) -> Option<SlaveRow> {
        Some(SlaveRow {
            key: "k".into(),
            batch: BatchNumber(batch),
            token: token.map(str::to_string),
            former: former.map(str::to_string),
            identity: None,
            history: Some(history.into()),
            position: "- - - 0 0".into(),
            ts: String::new(),
        })
    }

    #[test]
    fn every_standing() {
        let stand = |master: MasterRow, slave: Option<SlaveRow>| standing(&master, slave.as_ref());
        let now = || master(60, Some("t60"), "now");
        assert_eq!(stand(now(), slave(60, Some("t60"), "now", None)), Standing::Agreed);
        assert_eq!(stand(now(), slave(61, Some("t61"), "now", Some("t60/-"))), Standing::CommittedOnSlave);
        assert_eq!(stand(now(), slave(61, Some("t61"), "now", Some("t59/-"))), Standing::Ahead);
        assert_eq!(stand(now(), slave(61, Some("t61"), "now", Some("t60/-/1 noon"))), Standing::CommittedOnSlave);
        assert_eq!(
            stand(now(), slave(61, Some("t61"), "now", Some("t60/-/1 dawn"))),
            Standing::Ahead,
            "it was started since"
        );
        assert_eq!(stand(now(), slave(61, Some("t61"), "now", None)), Standing::Ahead);
        assert_eq!(stand(now(), slave(59, Some("t59"), "now", None)), Standing::Behind);
        assert_eq!(stand(now(), slave(50, Some("t50"), "old", None)), Standing::Behind);
        assert_eq!(stand(now(), slave(51, Some("t51"), "old", None)), Standing::Ahead, "the master has it up to 50");
        assert_eq!(stand(now(), slave(51, Some("t51"), "other", None)), Standing::OtherHistory);
        assert_eq!(stand(now(), slave(0, None, "", None)), Standing::Unknown);
        assert_eq!(stand(now(), None), Standing::Unknown);
        assert_eq!(stand(master(0, None, "now"), None), Standing::Agreed, "neither has replayed anything");
        assert_eq!(stand(master(9, None, "now"), slave(9, None, "", None)), Standing::Agreed, "from before tokens");
        assert_eq!(stand(master(8, None, "now"), slave(9, None, "", None)), Standing::CommittedOnSlave);
        assert_eq!(stand(master(9, None, "now"), slave(9, Some("t9"), "now", None)), Standing::Ahead);
    }
}
