//! Decides about the prepared transactions that a batch has left behind, by a table over what each server says.

use crate::base::names::{BatchNumber, Side};
use std::fmt;

/// The name of one prepared transaction: `pyreplica:NAME:FIELD:master:42:1f2e3d4c5b6a7988:0123456789abcdef`.
///
/// Several pairs and databases share `pg_prepared_xacts`. Pair name, slave field, side and number show the operator
/// what the transaction is. The origin, a digest of the server and the log that the batch was read from, makes it
/// unique in its cluster. A part of the batch's random token keeps others from using the name first.
///
/// Only the log and the slave's field decide to which pair it belongs. A pair may be renamed after a crash, or started
/// from the command line, and must settle what it has prepared under its former name. Otherwise the transaction would
/// stay prepared on the slave for ever, or be rolled back there after the next batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidFamily {
    name: String,
    field: String,
    origin: String,
}

/// How many bytes the pair's name may take. PostgreSQL's `GIDSIZE` is 200 bytes with the terminator, and a field is the
/// name of a column, at most 63 bytes.
const MAX_NAME: usize = 60;

/// How many characters of a batch's token its gid has: 64 bits.
const TOKEN: usize = 16;

impl GidFamily {
    pub fn new(name: &str, field: &str, origin: u64) -> Self {
        GidFamily { name: shortened(name), field: field.to_string(), origin: format!("{origin:016x}") }
    }

    pub fn gid(&self, side: Side, number: BatchNumber, token: &str) -> String {
        format!("pyreplica:{}:{}:{side}:{number}:{}:{}", self.name, self.field, self.origin, shown(token))
    }

    /// Whether this gid belongs to the batch with this token.
    pub fn is_of(gid: &str, token: &str) -> bool {
        gid.rsplit_once(':').is_some_and(|(_, end)| end == shown(token))
    }

    /// The number, if this is a batch of this slave on that side. No other transaction is ever touched.
    pub fn number(&self, side: Side, gid: &str) -> Option<BatchNumber> {
        let gid = Gid::parse(side, gid)?;
        (gid.field == self.field && gid.origin == self.origin).then_some(gid.number)
    }
}

/// The parts of a prepared batch's name.
#[derive(Debug, PartialEq, Eq)]
pub struct Gid<'a> {
    pub field: &'a str,
    pub number: BatchNumber,
    pub origin: &'a str,
}

impl<'a> Gid<'a> {
    /// `None` if it is not the name of a batch on this side. The pair's name has no colon. A field may have one: it is
    /// what remains between the other parts.
    pub fn parse(side: Side, gid: &'a str) -> Option<Gid<'a>> {
        let (_name, rest) = gid.strip_prefix("pyreplica:")?.split_once(':')?;
        let (rest, _token) = rest.rsplit_once(':')?;
        let (rest, origin) = rest.rsplit_once(':')?;
        let (rest, number) = rest.rsplit_once(':')?;
        let field = rest.strip_suffix(&side.to_string())?.strip_suffix(':')?;
        number.parse().ok().map(|number| Gid { field, number: BatchNumber(number), origin })
    }
}

/// The part of a token that the gid has.
fn shown(token: &str) -> &str {
    token.get(..TOKEN).unwrap_or(token)
}

/// Cuts a name at a character boundary, and replaces characters that would make the gid ambiguous.
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

/// What to do with the prepared transactions of one batch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Prepared on both: the batch is complete, and both commit.
    CommitBoth,
    /// The slave has not prepared it, so the slave has nothing of it, and the master's position is rolled back.
    RollBackMaster,
    /// The slave has committed this batch, so the master commits too.
    CommitMaster,
    /// The master has committed this batch, so the slave commits too.
    CommitSlave,
    /// The master has not committed this batch: the slave has prepared it late, after the master was rolled back.
    RollBackSlave,
}

/// Decides about one batch. Each pair is (master, slave): `prepared` says where it is prepared, `last` in which
/// server's row it is the last batch.
///
/// If it is not prepared on a server, it may have been committed or rolled back there. The server's row says which.
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
