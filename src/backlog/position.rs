//! What one slave has replayed of the log. One row stores it, however much that is.

use crate::backlog::snapshot::Snapshot;
use crate::base::names::{BatchNumber, LogId};

/// The slave has replayed all transactions that `base` shows, and of those that only `current` shows, the ones whose
/// last id is at most `last`. Transactions are replayed in the order of their last id (`order.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last batch: it has led to this position.
    pub batch: BatchNumber,
    /// That batch's token. None if there is none yet, or an earlier version has written the position.
    pub token: Option<String>,
    pub base: Option<Snapshot>,
    /// The snapshot that is being drained. It becomes `base` when everything that it shows has been replayed.
    pub current: Option<Snapshot>,
    /// Without `current` it is only the id with which the last batch ended.
    pub last: Option<LogId>,
    /// No row that one of the snapshots shows has a higher id.
    pub highest: LogId,
    /// Rows at or below this id have been replayed, and no further row can appear there.
    pub floor: LogId,
}

/// Stands for a value that is not there.
const NONE: &str = "-";

impl Position {
    /// Nothing has been replayed, or nobody knows what.
    pub fn nowhere() -> Position {
        let (highest, floor) = (LogId(0), LogId(0));
        Position { batch: BatchNumber(0), token: None, base: None, current: None, last: None, highest, floor }
    }

    /// All of `current` has been replayed.
    pub fn finish(&mut self) {
        if let Some(finished) = self.current.take() {
            self.base = Some(finished);
        }
        self.last = None;
    }

    /// For the slave's progress row, which has the batch's number and token in columns of their own.
    pub fn encode(&self) -> String {
        let snapshot = |snapshot: &Option<Snapshot>| snapshot.as_ref().map_or(NONE.to_string(), Snapshot::to_string);
        let last = self.last.map_or(NONE.to_string(), |last| last.to_string());
        format!("{} {} {last} {} {}", snapshot(&self.base), snapshot(&self.current), self.highest, self.floor)
    }

    /// `None` if the text was not written by `encode`.
    pub fn decode(batch: BatchNumber, token: Option<String>, text: &str) -> Option<Position> {
        let snapshot = |text: &str| match text {
            NONE => Some(None),
            text => Snapshot::parse(text).map(Some),
        };
        let id = |text: &str| text.parse().ok().map(LogId);
        let words: Vec<&str> = text.split(' ').collect();
        let [base, current, last, highest, floor] = words[..] else { return None };
        Some(Position {
            batch,
            token,
            base: snapshot(base)?,
            current: snapshot(current)?,
            last: if last == NONE { None } else { Some(id(last)?) },
            highest: id(highest)?,
            floor: id(floor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position {
            batch: BatchNumber(7),
            token: Some("abc".into()),
            base: Snapshot::parse("100:110:100,105"),
            current: Snapshot::parse("120:120:"),
            last: Some(LogId(55)),
            highest: LogId(60),
            floor: LogId(40),
        }
    }

    #[test]
    fn a_position_comes_back_as_it_was_written() {
        let begun = Position { base: None, last: None, ..position() };
        for position in [position(), begun] {
            assert_eq!(Position::decode(BatchNumber(7), Some("abc".into()), &position.encode()), Some(position));
        }
        assert_eq!(position().encode(), "100:110:100,105 120:120: 55 60 40");
        for damaged in ["", "- - - 1", "- - - 1 x", "- - - 1 1 1", "1-5,7"] {
            assert_eq!(Position::decode(BatchNumber(7), None, damaged), None, "{damaged}");
        }
    }

    #[test]
    fn what_is_drained_becomes_the_base() {
        let mut position = position();
        position.finish();
        assert_eq!((position.base, position.current, position.last), (Snapshot::parse("120:120:"), None, None));
    }
}
