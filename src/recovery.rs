//! What to do with what a broken batch left behind: a pure table over what each server says.

use crate::names::{BatchNumber, Side};
use std::fmt;

/// The name of one prepared transaction: `pyreplica:NAME:FIELD:master:42:1f2e3d4c5b6a7988`.
///
/// Several pairs and databases share `pg_prepared_xacts`. Pair name, slave field, side and number tell the operator what
/// it is; the origin, a digest of which log on which server the batch was read from, makes it unique in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidFamily {
    prefix: String,
    origin: String,
}

/// `GIDSIZE` of PostgreSQL is 200 bytes with its terminator, which leaves so much for the pair's name.
const MAX_NAME: usize = 60;

/// A column's name is never longer.
const MAX_FIELD: usize = 63;

impl GidFamily {
    pub fn new(name: &str, field: &str, origin: u64) -> Self {
        GidFamily {
            prefix: format!("pyreplica:{}:{}:", shortened(name, MAX_NAME), shortened(field, MAX_FIELD)),
            origin: format!("{origin:016x}"),
        }
    }

    pub fn gid(&self, side: Side, number: BatchNumber) -> String {
        format!("{}{side}:{number}:{}", self.prefix, self.origin)
    }

    /// The number, if this transaction is one of this pair's on that side. Anybody else's is never touched.
    pub fn number(&self, side: Side, gid: &str) -> Option<BatchNumber> {
        let rest = gid.strip_prefix(&self.prefix)?.strip_prefix(&format!("{side}:"))?;
        let (number, origin) = rest.split_once(':')?;
        (origin == self.origin).then_some(())?;
        number.parse().ok().map(BatchNumber)
    }

    /// Whose it is, if another slave's daemon has prepared it on our master.
    pub fn neighbour(&self, gid: &str) -> Option<Neighbour> {
        let parts: Vec<&str> = gid.split(':').collect();
        let ["pyreplica", _, field, "master", number, origin] = parts[..] else { return None };
        let number = number.parse().ok().map(BatchNumber)?;
        let is_neighbour = origin == self.origin && !self.prefix.ends_with(&format!(":{field}:"));
        is_neighbour.then(|| Neighbour { field: field.to_string(), number })
    }
}

/// A batch of another slave of the same log, prepared on the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub field: String,
    pub number: BatchNumber,
}

/// Cuts at a character boundary and leaves out what would make the gid ambiguous.
fn shortened(name: &str, bytes: usize) -> String {
    let mut short = String::new();
    for c in name.chars().map(|c| if c == ':' || c.is_control() { '_' } else { c }) {
        if short.len() + c.len_utf8() > bytes {
            break;
        }
        short.push(c);
    }
    short
}

/// What settles one batch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Both prepared: the batch was complete, both commit.
    CommitBoth,
    /// The slave never prepared, so nothing of it is there to keep: the marks are taken back.
    RollBackMaster,
    /// The master has committed this very batch: the slave follows.
    CommitSlave,
    /// The master has not committed this batch: the slave prepared too late, after the master was rolled back.
    RollBackSlave,
}

/// Decides for one batch number. `committed` is the number in the master's row for this slave.
///
/// That nothing is prepared on the master proves nothing: it may have committed or have been rolled back. Its row tells.
pub fn decide(number: BatchNumber, on_master: bool, on_slave: bool, committed: BatchNumber) -> Option<Action> {
    match (on_master, on_slave) {
        (true, true) => Some(Action::CommitBoth),
        (true, false) => Some(Action::RollBackMaster),
        (false, true) if number == committed => Some(Action::CommitSlave),
        (false, true) => Some(Action::RollBackSlave),
        (false, false) => None,
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::CommitBoth => "prepared on both sides: commit both",
            Action::RollBackMaster => "prepared on the master only: roll it back",
            Action::CommitSlave => "committed on the master: commit on the slave",
            Action::RollBackSlave => "not committed on the master: roll back on the slave",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_recovery_table() {
        let (seven, eight) = (BatchNumber(7), BatchNumber(8));
        assert_eq!(decide(seven, true, true, eight), Some(Action::CommitBoth));
        assert_eq!(decide(seven, true, false, seven), Some(Action::RollBackMaster));
        assert_eq!(decide(seven, false, true, seven), Some(Action::CommitSlave));
        assert_eq!(decide(seven, false, true, eight), Some(Action::RollBackSlave));
        assert_eq!(decide(seven, false, false, seven), None);
    }

    #[test]
    fn a_gid_names_its_number_to_its_own_family_only() {
        let ours = GidFamily::new("somedb", "replicated", 0xabc);
        let gid = ours.gid(Side::Slave, BatchNumber(42));
        assert_eq!(gid, "pyreplica:somedb:replicated:slave:42:0000000000000abc");
        assert_eq!(ours.number(Side::Slave, &gid), Some(BatchNumber(42)));
        assert_eq!(ours.number(Side::Master, &gid), None);
        assert_eq!(GidFamily::new("somedb", "replicated", 0xabd).number(Side::Slave, &gid), None);
        assert_eq!(GidFamily::new("somedb2", "replicated", 0xabc).number(Side::Slave, &gid), None);
        assert_eq!(GidFamily::new("somedb", "slave2", 0xabc).number(Side::Slave, &gid), None);
    }

    #[test]
    fn a_neighbour_reads_the_same_log_for_another_slave() {
        let ours = GidFamily::new("somedb", "replicated", 0xabc);
        let gid = |field, side, origin| GidFamily::new("other", field, origin).gid(side, BatchNumber(42));
        let slave2 = Neighbour { field: "slave2".into(), number: BatchNumber(42) };
        assert_eq!(ours.neighbour(&gid("slave2", Side::Master, 0xabc)), Some(slave2));
        assert_eq!(ours.neighbour(&gid("slave2", Side::Slave, 0xabc)), None, "it stands on some slave");
        assert_eq!(ours.neighbour(&gid("slave2", Side::Master, 0xabd)), None, "it is of another log");
        assert_eq!(ours.neighbour(&gid("replicated", Side::Master, 0xabc)), None, "it is our own slave's");
        assert_eq!(ours.neighbour("somebody else's"), None);
    }

    #[test]
    fn a_gid_never_exceeds_what_the_server_takes() {
        let long = GidFamily::new(&"é:".repeat(100), &"ü".repeat(63), u64::MAX);
        let gid = long.gid(Side::Master, BatchNumber(i64::MAX));
        assert!(gid.len() < 200, "{} bytes: {gid}", gid.len());
        assert_eq!(long.number(Side::Master, &gid), Some(BatchNumber(i64::MAX)));
    }
}
