//! A snapshot of the master: which transactions were over when it was taken.

use crate::base::names::Txid;
use std::fmt;

/// As PostgreSQL writes it: `xmin:xmax:open,open`. All transactions below xmin were over, and none from xmax on.
/// Between them all were over except those in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    text: String,
    xmax: Txid,
    open: Vec<Txid>,
}

impl Snapshot {
    /// `None` if the text is not a snapshot.
    pub fn parse(text: &str) -> Option<Snapshot> {
        let number = |word: &str| word.parse().ok().map(Txid);
        let mut words = text.split(':');
        let (_xmin, xmax, open) = (number(words.next()?)?, number(words.next()?)?, words.next()?);
        let open = open.split(',').filter(|word| !word.is_empty()).map(number).collect::<Option<Vec<_>>>()?;
        words.next().is_none().then(|| Snapshot { text: text.to_string(), xmax, open })
    }

    /// The first transaction number that it does not show anything of.
    pub fn xmax(&self) -> Txid {
        self.xmax
    }

    /// The transactions below `xmax` that were not over.
    pub fn open(&self) -> &[Txid] {
        &self.open
    }

    pub fn shows(&self, transaction: Txid) -> bool {
        transaction < self.xmax && !self.open.contains(&transaction)
    }

    /// Whether this snapshot shows everything that the other one shows. Of two snapshots of one cluster the later
    /// covers the earlier.
    pub fn covers(&self, other: &Snapshot) -> bool {
        other.xmax <= self.xmax && !self.open.iter().any(|open| other.shows(*open))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_what_was_over() {
        let snapshot = Snapshot::parse("100:110:100,105").unwrap();
        let shown: Vec<i64> = (98..112).filter(|n| snapshot.shows(Txid(*n))).collect();
        assert_eq!(shown, [98, 99, 101, 102, 103, 104, 106, 107, 108, 109]);
        assert_eq!(snapshot.to_string(), "100:110:100,105");
        assert!(Snapshot::parse("100:100:").unwrap().open().is_empty());
    }

    #[test]
    fn a_later_snapshot_covers_an_earlier_one() {
        let [first, same, ended, later] = ["100:110:100,105", "100:110:100,105", "105:110:105", "111:115:"]
            .map(|text| Snapshot::parse(text).unwrap());
        assert!(first.covers(&same) && ended.covers(&first) && later.covers(&first) && later.covers(&ended));
        assert!(!first.covers(&ended) && !first.covers(&later) && !ended.covers(&later));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "100", "100:110", "100:x:", "100:110:105,", "100:110:105:1", "100:110:1 5"] {
            assert_eq!(Snapshot::parse(text).is_some(), text == "100:110:105,", "{text}");
        }
    }
}
