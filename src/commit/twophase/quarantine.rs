//! Batches while something is in quarantine: each transaction is looked at before it is replayed, and follows if it
//! depends on what is there.

use super::{Link, Protocol, holds};
use crate::backlog::change::Change;
use crate::backlog::order::Transaction;
use crate::backlog::reader::{Batch, Pages};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Txid;
use std::sync::Arc;

impl Protocol {
    /// Puts the transaction aside that this error is about, if the operator wants that. All units before it have been
    /// replayed; returns those behind it.
    pub(super) fn put_in_quarantine(&mut self, link: &mut Link, units: &Batch, error: Error) -> Result<Batch> {
        let is_wanted = self.quarantine && link.replayer.holding.pair().is_some() && !error.is_transient();
        let Some((id, txid)) = error.change().filter(|_| is_wanted) else { return Err(error) };
        let Some(place) = units.iter().position(|unit| holds(unit, id, txid)) else { return Err(error) };
        link.replayer.holding.doom(txid, format!("change {id}: {}", error.detail()));
        let put_aside = self.attempt(link, &Arc::new(units[place..=place].to_vec()));
        link.replayer.holding.spare();
        put_aside?;
        let told = format!("Transaction {txid} put into quarantine: {error}");
        log::warn!(target: &self.name, "{told}");
        self.conflicts.push(told);
        Ok(Arc::new(units[place + 1..].to_vec()))
    }
}

/// Replays units one by one, or puts them aside; how many changes went to the slave.
pub(super) fn work_with_care(link: &mut Link, units: &[Transaction]) -> Result<u64> {
    link.replayer.holding.look_at_quarantine(&mut link.slave)?;
    let mut applied = 0;
    for unit in units {
        let mut why = link.replayer.holding.doomed(txid(unit));
        if why.is_none() {
            each_chunk(link, unit, &mut |link, changes| {
                why = link.replayer.depends(&mut link.master, &mut link.slave, &changes)?;
                Ok(why.is_none())
            })?;
            if let Some(why) = &why {
                link.replayer.tell(format!("Transaction {} put into quarantine: {why}", txid(unit)));
            }
        }
        each_chunk(link, unit, &mut |link, changes| {
            applied += changes.len() as u64;
            match &why {
                Some(why) => link.replayer.quarantine(&mut link.master, &mut link.slave, &changes, why)?,
                None => link.replayer.apply(&mut link.master, &mut link.slave, changes)?,
            }
            Ok(true)
        })?;
    }
    Ok(applied)
}

fn txid(unit: &Transaction) -> Txid {
    match unit {
        Transaction::Listed(entries) => entries[0].txid,
        Transaction::Spread { txid, .. } => *txid,
    }
}

/// Reads a unit piece by piece, as long as it is asked to go on.
fn each_chunk(
    link: &mut Link,
    unit: &Transaction,
    visit: &mut dyn FnMut(&mut Link, Vec<Change>) -> Result<bool>,
) -> Result<()> {
    let mut pages = Pages::new(Arc::new(vec![unit.clone()]));
    while let Some(changes) = pages.next(&mut link.log.reading, &mut link.master)? {
        if link.control.is_stopping() {
            return Err(Error::new(Kind::Stopped, None, "finish the batch", "the daemon is stopping"));
        }
        if !visit(link, changes)? {
            break;
        }
    }
    Ok(())
}
