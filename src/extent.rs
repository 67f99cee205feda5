//! Which changes a batch held, in a form short enough for the progress row of a slave without two-phase commit:
//! `1-1000,1005,t760:5-90000`, ranges of ids and transactions with their first and last id.

use crate::names::{LogId, Txid};
use crate::order::Unit;
use std::fmt::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every id from the first to the last.
    Ids(i64, i64),
    /// The rows of one transaction among those ids.
    Transaction(Txid, LogId, LogId),
}

pub fn encode(units: &[Unit]) -> String {
    let mut ids: Vec<i64> = Vec::new();
    let mut text = String::new();
    for unit in units {
        match unit {
            Unit::Listed(entries) => ids.extend(entries.iter().map(|entry| entry.id.0)),
            Unit::Spread { txid, first, last, .. } => {
                write!(text, ",t{txid}:{first}-{last}").expect("a String takes it")
            }
        }
    }
    ids.sort_unstable();
    for run in ids.chunk_by(|a, b| *b == *a + 1) {
        match run {
            [id] => write!(text, ",{id}"),
            _ => write!(text, ",{}-{}", run[0], run[run.len() - 1]),
        }
        .expect("a String takes it");
    }
    text.split_off(text.len().min(1))
}

/// `None` if the text was not written by `encode`.
pub fn decode(text: &str) -> Option<Vec<Extent>> {
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|id| (id, id)),
    };
    let extent = |part: &str| match part.strip_prefix('t') {
        None => range(part).map(|(first, last)| Extent::Ids(first, last)),
        Some(part) => {
            let (txid, ids) = part.split_once(':')?;
            let (first, last) = range(ids)?;
            Some(Extent::Transaction(Txid(txid.parse().ok()?), LogId(first), LogId(last)))
        }
    };
    text.split(',').filter(|part| !part.is_empty()).map(extent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Entry;

    #[test]
    fn an_extent_comes_back_as_it_was_written() {
        let entry = |id| Entry { id: LogId(id), txid: Txid(1), size: 0, skip: false };
        let spread = Unit::Spread { txid: Txid(760), first: LogId(5), last: LogId(90), rows: 3 };
        let units = [Unit::Listed(vec![entry(7), entry(9)]), spread, Unit::Listed(vec![entry(1), entry(2), entry(3)])];
        assert_eq!(encode(&units), "t760:5-90,1-3,7,9");
        assert_eq!(
            decode(&encode(&units)),
            Some(vec![
                Extent::Transaction(Txid(760), LogId(5), LogId(90)),
                Extent::Ids(1, 3),
                Extent::Ids(7, 7),
                Extent::Ids(9, 9)
            ])
        );
        assert_eq!(encode(&[]), "");
        assert_eq!(decode(""), Some(vec![]));
        assert_eq!(decode("1-x"), None);
    }
}
