//! A large table is divided, by ranges of its pages, if several workers load. Each part is a transaction of its own. The note
//! that the table is loaded comes when all parts are there. Before the first one, the slave notes that the table is loaded in
//! parts: a copy that was interrupted has to empty it.

use crate::base::error::Result;
use crate::copy::plan::CopyPlan;
use crate::copy::sql;
use crate::server::session::Session;

/// A table that is larger than twice this is divided, into parts of at least this many pages: 16 MB.
const LEAST_PART: i64 = 2048;

/// So many parts for each worker, so that all end at about the same time.
const PARTS_PER_JOB: i64 = 4;

/// A table, or a range of its pages.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub table: usize,
    pub pages: Option<(i64, Option<i64>)>,
}

/// The tables in their order, large ones in parts.
pub(super) fn divide(plans: &[CopyPlan], jobs: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for (table, plan) in plans.iter().enumerate() {
        let pages = plan.pages.filter(|_| jobs > 1).unwrap_or(0);
        let part = (pages / (jobs as i64 * PARTS_PER_JOB)).max(LEAST_PART);
        if pages < 2 * part {
            items.push(Item { table, pages: None });
            continue;
        }
        let mut from = 0;
        while from < pages {
            // Rows may have been added behind the end.
            let to = Some(from + part).filter(|to| to + part <= pages);
            items.push(Item { table, pages: Some((from, to)) });
            from = to.unwrap_or(pages);
        }
    }
    items
}

/// Notes on the slave which tables are loaded in parts: they have a snapshot, and are not loaded.
pub(super) fn note_divided(
    slave: &mut Session,
    key: &str,
    snapshot: &str,
    plans: &[CopyPlan],
    items: &[Item],
) -> Result<()> {
    let mut divided: Vec<&str> =
        items.iter().filter(|item| item.pages.is_some()).map(|item| plans[item.table].relation.as_str()).collect();
    divided.dedup();
    if divided.is_empty() {
        return Ok(());
    }
    slave.execute("note the copy", sql::BEGIN_PARTS, &[&key, &divided, &snapshot]).map(drop)
}
