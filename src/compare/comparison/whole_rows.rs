//! Compares a table whose rows no key tells apart (REPLICA IDENTITY FULL). Equal rows are counted, and their order does not
//! matter.
//!
//! The digest of a row takes the place of its key: what is looked at, here and in `comparison.rs`, are all rows with one digest,
//! and how many they are. No index is in the order of the digests. So instead of ranges, of which each would take a scan of the
//! table, three scans find the digests that differ: one for all rows together, one for groups of digests, and one for the digests
//! of the groups that differ.

use super::{CANDIDATES_AT_ONCE, Comparison, DifferenceKind, Verdict, count};
use crate::base::error::Result;
use crate::compare::digest::{DigestSource, Range};
use crate::server::session::TextRow;
use std::collections::{BTreeSet, HashMap};

/// Rows of a group, and the largest number of groups as a power of two.
const GROUP: u64 = 500;
const MAX_BITS: u32 = 16;

/// So many groups are read at once.
const GROUPS_AT_ONCE: usize = 200;

impl Comparison<'_, '_> {
    pub(super) fn compare_whole_rows(&mut self) -> Result<()> {
        let plan = self.plan;
        let both = |query: &dyn Fn(&DigestSource) -> String| (query(&plan.master), query(&plan.slave));
        let (on_master, on_slave) = both(&|source| source.digest(&Range::default()));
        let (from_master, from_slave) = self.servers.ask_both("digest rows", &on_master, &on_slave)?;
        self.counts.rows = (count(&from_master[0]), count(&from_slave[0]));
        self.show_progress();
        if from_master == from_slave {
            return Ok(());
        }
        let groups = (self.counts.rows.0.max(self.counts.rows.1) / GROUP).next_power_of_two();
        let bits = groups.trailing_zeros().clamp(1, MAX_BITS);
        let (on_master, on_slave) = both(&|source| source.groups(bits));
        let (from_master, from_slave) = self.servers.ask_both("digest rows", &on_master, &on_slave)?;
        let groups: Vec<String> = differing(from_master, from_slave).into_iter().collect();
        for groups in groups.chunks(GROUPS_AT_ONCE) {
            let (on_master, on_slave) = both(&|source| source.digests(bits, groups));
            let (from_master, from_slave) = self.servers.ask_both("look at rows", &on_master, &on_slave)?;
            self.candidates.extend(differing(from_master, from_slave).into_iter().map(|key| vec![key]));
            if self.candidates.len() >= CANDIDATES_AT_ONCE {
                self.decide()?;
            }
        }
        Ok(())
    }
}

/// The first values of the rows that are not the same on both sides.
fn differing(from_master: Vec<TextRow>, from_slave: Vec<TextRow>) -> BTreeSet<String> {
    let by_first = |rows: Vec<TextRow>| -> HashMap<String, TextRow> {
        rows.into_iter().map(|row| (row.first().cloned().flatten().unwrap_or_default(), row)).collect()
    };
    let (from_master, from_slave) = (by_first(from_master), by_first(from_slave));
    let keys = from_master.keys().chain(from_slave.keys());
    keys.filter(|key| from_master.get(*key) != from_slave.get(*key)).cloned().collect()
}

/// The difference between these numbers of rows with one digest.
pub(super) fn verdict(on_master: Option<&String>, on_slave: Option<&String>) -> Verdict {
    let number = |count: Option<&String>| count.and_then(|count| count.parse::<i64>().ok()).unwrap_or(0);
    let surplus = number(on_master) - number(on_slave);
    let kind = if surplus > 0 { DifferenceKind::Missing } else { DifferenceKind::Extra };
    Verdict::Differs(kind, surplus.unsigned_abs())
}
