//! Sets the sequences, which no trigger logs: once, at the end of the copy, to where they are on the master.

use super::CopyEvent;
use crate::base::error::Result;
use crate::base::shown::listed;
use crate::sequences::decision::Why;
use crate::sequences::setting::{Occasion, set_exactly};
use crate::server::session::Session;

/// Sets all sequences, or those of some tables. Returns how many. A sequence that cannot be set is reported, and the copy
/// goes on.
pub(super) fn set_all(
    master: &mut Session,
    slave: &mut Session,
    tables: Option<Vec<String>>,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<u64> {
    let outcome = set_exactly(master, slave, tables.as_deref(), Occasion::Copy)?;
    for (reason, names) in outcome.by_reason() {
        let hint = match reason {
            Why::Missing => ". hint: CREATE SEQUENCE there, and the daemon sets it",
            _ => "",
        };
        report(CopyEvent::Note(format!("sequences that are not set: {}: {reason}{hint}", listed(&names))));
    }
    for refusal in outcome.refusals {
        report(CopyEvent::Note(format!("the slave has refused to set a sequence: {refusal}")));
    }
    Ok((outcome.same + outcome.set.len()) as u64)
}
