//! What to do with what a broken batch left behind: a pure table over what each server says.

use crate::base::names::{BatchNumber, Side};
use std::fmt;

/// The name of one prepared transaction: `pyreplica:NAME:FIELD:master:42:1f2e3d4c5b6a7988:0123456789abcdef`.
///
/// Several pairs and databases share `pg_prepared_xacts`. Pair name, slave field, side and number tell the operator what
/// it is; the origin, a digest of which log on which server the batch was read from, makes it unique in its cluster; a part of
/// the batch's random token keeps others from using the name first.
///
/// Whose it is depends on the log and the slave's field alone: a pair that was renamed after a crash, or is started from
/// the command line now, must settle what it left under its former name. Otherwise its rows would wait on the slave for
/// ever, or be rolled back there as soon as another batch had been noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidFamily {
    name: String,
    field: String,
    origin: String,
}

/// `GIDSIZE` of PostgreSQL is 200 bytes with its terminator, of which a field, as a column, takes 63 at most. That leaves
/// so much for the pair's name.
const MAX_NAME: usize = 60;

/// How much of a batch's token its gid holds: 64 bits of it.
const TOKEN: usize = 16;

impl GidFamily {
    pub fn new(name: &str, field: &str, origin: u64) -> Self {
        GidFamily { name: shortened(name), field: field.to_string(), origin: format!("{origin:016x}") }
    }

    pub fn gid(&self, side: Side, number: BatchNumber, token: &str) -> String {
        format!("pyreplica:{}:{}:{side}:{number}:{}:{}", self.name, self.field, self.origin, shown(token))
    }

    /// Does this name of a prepared transaction belong to the batch with this token?
    pub fn is_of(&self, gid: &str, token: &str) -> bool {
        gid.rsplit_once(':').is_some_and(|(_, end)| end == shown(token))
    }

    /// The number, if this transaction is one of this slave's on that side. Anybody else's is never touched.
    pub fn number(&self, side: Side, gid: &str) -> Option<BatchNumber> {
        let gid = Gid::parse(side, gid)?;
        (gid.field == self.field && gid.origin == self.origin).then_some(gid.number)
    }
}

/// What the name of a prepared batch says.
#[derive(Debug, PartialEq, Eq)]
pub struct Gid<'a> {
    pub field: &'a str,
    pub number: BatchNumber,
    pub origin: &'a str,
}

impl<'a> Gid<'a> {
    /// `None` if it is no name of a batch on this side. The pair's name holds no colon; a field may, and is what is left.
    pub fn parse(side: Side, gid: &'a str) -> Option<Gid<'a>> {
        let (_name, rest) = gid.strip_prefix("pyreplica:")?.split_once(':')?;
        let (rest, _token) = rest.rsplit_once(':')?;
        let (rest, origin) = rest.rsplit_once(':')?;
        let (rest, number) = rest.rsplit_once(':')?;
        let field = rest.strip_suffix(&side.to_string())?.strip_suffix(':')?;
        number.parse().ok().map(|number| Gid { field, number: BatchNumber(number), origin })
    }
}

/// As much of a token as fits.
fn shown(token: &str) -> &str {
    token.get(..TOKEN).unwrap_or(token)
}

/// Cuts at a character boundary and leaves out what would make the gid ambiguous.
fn shortened(name: &str) -> String {
    let mut short = String::new();
    for c in name.chars().map(|c| if c == ':' || c.is_control() { '_' } else { c }) {
        if short.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        short.push(c);
    }
    short
}

/// What settles one batch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Both prepared: the batch was complete, both commit.
    CommitBoth,
    /// The slave never prepared, so nothing of it is there to keep: the position is taken back.
    RollBackMaster,
    /// The slave has committed this very batch: the master follows. It is a backup from between its PREPARE and its COMMIT.
    CommitMaster,
    /// The master has committed this very batch: the slave follows.
    CommitSlave,
    /// The master has not committed this batch: the slave prepared too late, after the master was rolled back.
    RollBackSlave,
}

/// Decides for one batch: on which servers it is prepared, and in whose row it is the last one: the master's, the slave's.
///
/// That nothing is prepared on one server proves nothing: it may have committed or have been rolled back. Its row tells.
pub fn decide(prepared: (bool, bool), last: (bool, bool)) -> Option<Settlement> {
    match (prepared, last) {
        ((true, true), _) => Some(Settlement::CommitBoth),
        ((true, false), (_, true)) => Some(Settlement::CommitMaster),
        ((true, false), _) => Some(Settlement::RollBackMaster),
        ((false, true), (true, _)) => Some(Settlement::CommitSlave),
        ((false, true), _) => Some(Settlement::RollBackSlave),
        ((false, false), _) => None,
    }
}

impl Settlement {
    pub fn commits(self) -> bool {
        matches!(self, Settlement::CommitBoth | Settlement::CommitMaster | Settlement::CommitSlave)
    }
}

impl fmt::Display for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Settlement::CommitBoth => "prepared on both sides: commit both",
            Settlement::RollBackMaster => "prepared on the master only: roll it back",
            Settlement::CommitMaster => "committed on the slave: commit on the master",
            Settlement::CommitSlave => "committed on the master: commit on the slave",
            Settlement::RollBackSlave => "not committed on the master: roll back on the slave",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN_TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_row_of_the_recovery_table() {
        let (both, master, slave, none) = ((true, true), (true, false), (false, true), (false, false));
        for last in [none, master, slave, both] {
            assert_eq!(decide(both, last), Some(Settlement::CommitBoth));
            assert_eq!(decide(none, last), None);
        }
        assert_eq!(decide(master, none), Some(Settlement::RollBackMaster));
        assert_eq!(decide(master, slave), Some(Settlement::CommitMaster));
        assert_eq!(decide(slave, master), Some(Settlement::CommitSlave));
        assert_eq!(decide(slave, none), Some(Settlement::RollBackSlave));
    }

    #[test]
    fn a_gid_names_its_number_to_its_own_family_only() {
        let ours = GidFamily::new("somedb", "replicated", 0xabc);
        let gid = ours.gid(Side::Slave, BatchNumber(42), TOKEN_TEXT);
        assert_eq!(gid, "pyreplica:somedb:replicated:slave:42:0000000000000abc:0123456789abcdef");
        assert_eq!(ours.number(Side::Slave, &gid), Some(BatchNumber(42)));
        assert_eq!(ours.number(Side::Master, &gid), None);
        assert_eq!(GidFamily::new("somedb", "replicated", 0xabd).number(Side::Slave, &gid), None);
        assert_eq!(GidFamily::new("somedb", "slave2", 0xabc).number(Side::Slave, &gid), None);
    }

    #[test]
    fn a_slave_knows_its_gids_under_another_name_but_not_those_of_another_field() {
        let ours = GidFamily::new("somedb", "a", 0xabc);
        let gid = |name, field| GidFamily::new(name, field, 0xabc).gid(Side::Master, BatchNumber(42), TOKEN_TEXT);
        assert_eq!(ours.number(Side::Master, &gid("former:name", "a")), Some(BatchNumber(42)));
        for field in ["b", "a:master", "a:master:7", "master:a", "", ":a", "a_b", "a:b"] {
            assert_eq!(ours.number(Side::Master, &gid("somedb", field)), None, "{field}");
            let other = GidFamily::new("somedb", field, 0xabc);
            assert_eq!(other.number(Side::Master, &gid("somedb", field)), Some(BatchNumber(42)), "{field}");
            assert_eq!(other.number(Side::Master, &gid("somedb", "a")), None, "{field}");
            assert_eq!(Gid::parse(Side::Master, &gid("somedb", field)).unwrap().field, field);
            assert_eq!(Gid::parse(Side::Slave, &gid("somedb", field)), None, "{field}");
        }
    }

    #[test]
    fn a_gid_never_exceeds_what_the_server_takes() {
        let long = GidFamily::new(&"é:".repeat(100), &"f".repeat(63), u64::MAX);
        let gid = long.gid(Side::Master, BatchNumber(i64::MAX), TOKEN_TEXT);
        assert!(gid.len() < 200, "{} bytes: {gid}", gid.len());
        assert_eq!(long.number(Side::Master, &gid), Some(BatchNumber(i64::MAX)));
    }
}
