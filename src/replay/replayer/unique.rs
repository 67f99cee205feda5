//! Checks deferrable unique constraints. PostgreSQL checks them by triggers, which do not run in the replica role.
//!
//! Between two changes of a transaction a value may be there twice, so the last word is said at the end of the batch. But one
//! transaction may have millions of changes, and memory does not hold a condition for each. So from time to time all conditions
//! are looked at, and those that hold are forgotten: if a value is there once now, it can be there twice later only by a later
//! change that writes the same value, and that change brings its own condition. Those kept are of the values that are there twice
//! at that moment.

use super::{FIX_SLAVE, Replayer};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid};
use crate::replay::sql;
use crate::server::session::Session;
use std::collections::HashSet;

/// Conditions that one query checks.
const AT_ONCE: usize = 200;

/// So many conditions are kept before they are looked at.
const MAX_UNCHECKED: usize = 10_000;

/// A change, and a condition that is true if the slave has a duplicate of one of its values.
struct Condition {
    id: LogId,
    txid: Txid,
    is_duplicate: String,
}

/// Changes of a batch whose uniqueness the slave has not checked.
#[derive(Default)]
pub(super) struct Unchecked {
    conditions: Vec<Condition>,
    /// How many were found to be duplicates when they were looked at last.
    duplicates: usize,
}

impl Unchecked {
    pub fn add(&mut self, id: LogId, txid: Txid, duplicates: impl Iterator<Item = String>) {
        self.conditions.extend(duplicates.map(|is_duplicate| Condition { id, txid, is_duplicate }));
    }

    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Unchecked::default();
    }

    /// Whether it is time to look at all of them. If most are duplicates each time, that takes the longer the rarer.
    fn is_due(&self) -> bool {
        self.conditions.len() >= MAX_UNCHECKED.max(2 * self.duplicates)
    }

    /// Forgets all but those at these places.
    fn keep(&mut self, places: &HashSet<usize>) {
        let mut place = 0..;
        self.conditions.retain(|_| place.next().is_some_and(|place| places.contains(&place)));
        self.duplicates = self.conditions.len();
    }

    /// The places of duplicates among `conditions`.
    fn duplicates(conditions: &[Condition], slave: &mut Session) -> Result<Vec<usize>> {
        let queries: Vec<String> = conditions
            .iter()
            .enumerate()
            .map(|(place, condition)| format!("SELECT {place} WHERE {}", condition.is_duplicate))
            .collect();
        let found = slave.text_rows("look for duplicates", &queries.join(" UNION ALL "))?;
        Ok(found.into_iter().flatten().flatten().filter_map(|place| place.parse().ok()).collect())
    }
}

impl Replayer {
    /// Checks deferrable unique constraints at the end of a batch.
    pub fn check_unique(&mut self, master: &mut Session, slave: &mut Session) -> Result<()> {
        self.finish(master, slave)?;
        for conditions in std::mem::take(&mut self.unchecked).conditions.chunks(AT_ONCE) {
            let Some(place) = Unchecked::duplicates(conditions, slave)?.into_iter().min() else { continue };
            let Condition { id, txid, .. } = conditions[place];
            let operation = format!("replay change {id} of transaction {txid}");
            let detail = "duplicate key value violates a deferrable unique constraint";
            return Err(Error::new(Kind::Change, Some(Side::Slave), operation, detail)
                .with_change(id, txid)
                .with_code("23505")
                .premature()
                .with_hint(FIX_SLAVE));
        }
        if self.deferring {
            // Deferred triggers run at the end of the transaction, and need the application's search path.
            slave.message("replay", sql::APPLICATION_PATH)?;
        }
        Ok(())
    }

    /// Forgets conditions that are met, if there are many. Only between two messages: each change is in place.
    pub(super) fn limit_unchecked(&mut self, slave: &mut Session) -> Result<()> {
        if !self.unchecked.is_due() {
            return Ok(());
        }
        let mut duplicates = HashSet::new();
        for (number, conditions) in self.unchecked.conditions.chunks(AT_ONCE).enumerate() {
            let found = Unchecked::duplicates(conditions, slave)?;
            duplicates.extend(found.into_iter().map(|place| number * AT_ONCE + place));
        }
        self.unchecked.keep(&duplicates);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(unchecked: &mut Unchecked, ids: std::ops::Range<i64>) {
        ids.for_each(|id| unchecked.add(LogId(id), Txid(1), std::iter::once(format!("{id}"))));
    }

    #[test]
    fn conditions_are_looked_at_before_they_fill_the_memory() {
        let mut unchecked = Unchecked::default();
        add(&mut unchecked, 0..MAX_UNCHECKED as i64 - 1);
        assert!(!unchecked.is_due());
        add(&mut unchecked, 10_000..10_001);
        assert!(unchecked.is_due());
        unchecked.keep(&HashSet::from([3, 9_999]));
        let kept: Vec<i64> = unchecked.conditions.iter().map(|condition| condition.id.0).collect();
        assert_eq!(kept, [3, 10_000]);
        assert!(!unchecked.is_due());
    }

    #[test]
    fn conditions_that_stay_duplicates_are_not_looked_at_again_and_again() {
        let mut unchecked = Unchecked::default();
        add(&mut unchecked, 0..30_000);
        unchecked.keep(&(0..30_000).collect());
        assert!(!unchecked.is_due());
        add(&mut unchecked, 30_000..60_000);
        assert!(unchecked.is_due());
    }
}
