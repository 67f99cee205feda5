//! Puts transactions into quarantine. As long as there are some, each transaction is checked before it is replayed: if
//! it depends on one in quarantine, it goes there too.

use super::Pair;
use crate::backlog::change::Change;
use crate::backlog::order::Transaction;
use crate::backlog::reader::{Batch, Pages};
use crate::base::error::{Error, Kind, Result};
use std::sync::Arc;

impl Pair {
    /// Puts the transaction of this error into quarantine, if the operator has set ON_ERROR=quarantine. All
    /// transactions before it have been replayed. Returns those after it.
    pub(super) fn put_in_quarantine(&mut self, transactions: &Batch, error: Error) -> Result<Batch> {
        let is_wanted = self.quarantine && self.replayer.holds.pair().is_some() && !error.is_transient();
        let Some((id, txid)) = error.change().filter(|_| is_wanted) else { return Err(error) };
        let Some(place) = transactions.iter().position(|transaction| transaction.holds(id, txid)) else {
            return Err(error);
        };
        self.replayer.holds.request_quarantine(txid, format!("change {id}: {}", error.detail()));
        self.log.reader.escape(true);
        let quarantined = self.attempt(&Arc::new(transactions[place..=place].to_vec()));
        self.log.reader.escape(false);
        self.replayer.holds.end_request();
        quarantined?;
        let told = format!("Transaction {txid} put into quarantine: {}", self.replayer.told(error));
        log::warn!(target: &self.name, "{told}");
        self.conflicts.push(told);
        Ok(Arc::new(transactions[place + 1..].to_vec()))
    }

    /// Replays transactions one by one, or puts them into quarantine. Returns how many changes the slave got, either
    /// way.
    pub(super) fn work_with_care(&mut self, transactions: &[Transaction]) -> Result<u64> {
        self.replayer.holds.read_quarantine(&mut self.slave)?;
        let mut applied = 0;
        for transaction in transactions {
            let mut why = self.replayer.holds.requested_quarantine(transaction.txid());
            if why.is_none() {
                self.each_chunk(transaction, &mut |pair, changes| {
                    why = pair.replayer.depends(&mut pair.master, &mut pair.slave, &changes)?;
                    Ok(why.is_none())
                })?;
                if let Some(why) = &why {
                    self.replayer.report(format!("Transaction {} put into quarantine: {why}", transaction.txid()));
                }
            }
            self.each_chunk(transaction, &mut |pair, changes| {
                applied += changes.len() as u64;
                match &why {
                    Some(why) => pair.replayer.quarantine(&mut pair.master, &mut pair.slave, &changes, why)?,
                    None => pair.replayer.apply(&mut pair.master, &mut pair.slave, changes)?,
                }
                Ok(true)
            })?;
        }
        Ok(applied)
    }

    /// Reads a transaction piece by piece, as long as `visit` returns true.
    fn each_chunk(
        &mut self,
        transaction: &Transaction,
        visit: &mut dyn FnMut(&mut Pair, Vec<Change>) -> Result<bool>,
    ) -> Result<()> {
        let mut pages = Pages::new(Arc::new(vec![transaction.clone()]));
        while let Some(changes) = pages.next(&mut self.log.reader, &mut self.master)? {
            if self.control.is_stopping() {
                return Err(Error::new(Kind::Stopped, None, "finish the batch", "the daemon is stopping"));
            }
            if !visit(self, changes)? {
                break;
            }
        }
        Ok(())
    }
}
