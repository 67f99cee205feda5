//! Reads the changes of a batch piece by piece, so that memory holds few of them.

use super::{Batch, CHUNK_ROWS, COMPRESSION, LogReader};
use crate::backlog::change::Change;
use crate::backlog::order::{LogEntry, Transaction};
use crate::base::error::Result;
use crate::base::names::LogId;
use crate::server::session::Session;
use std::collections::VecDeque;

/// How many bytes of payload one fetch returns, if it is more than one row.
const CHUNK_BYTES: usize = 1 << 20;

/// Rows that are expected to take as much are read on a session of their own. That is some 16 MB on disk.
const LARGE_ROW_BYTES: usize = COMPRESSION * (16 << 20);

/// How far the changes of a batch have been read.
pub struct Pages {
    batch: Batch,
    transaction: usize,
    /// The id up to which the current transaction has been read page by page.
    above: LogId,
    entries: VecDeque<LogEntry>,
    /// About how many bytes the changes take that were returned last.
    bytes: usize,
}

impl Pages {
    pub fn new(batch: Batch) -> Pages {
        Pages { batch, transaction: 0, above: LogId(i64::MIN), entries: VecDeque::new(), bytes: 0 }
    }

    /// About how many bytes the changes take that were returned last.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next changes, few enough to be kept in memory; `None` at the batch's end.
    pub fn next(&mut self, reader: &mut LogReader, master: &mut Session) -> Result<Option<Vec<Change>>> {
        while self.entries.is_empty() {
            if self.transaction == self.batch.len() {
                return Ok(None);
            }
            self.turn(reader, master)?;
        }
        let length = chunk_length(self.entries.iter());
        self.bytes = self.entries.range(..length).map(|entry| entry.size).sum();
        let rows = self.entries.drain(..length).map(|entry| (entry.id, entry.change));
        match &reader.large_rows {
            Some(large_rows) if self.bytes >= LARGE_ROW_BYTES => {
                let mut session = large_rows.open()?;
                reader.complete(&mut session, rows).map(Some)
            }
            _ => reader.complete(master, rows).map(Some),
        }
    }

    /// Adds the entries of the next transactions, or the next page of one.
    fn turn(&mut self, reader: &mut LogReader, master: &mut Session) -> Result<()> {
        let is_wanted = |entry: &&LogEntry| !entry.skip;
        match &self.batch[self.transaction] {
            Transaction::Listed(entries) => {
                self.entries.extend(entries.iter().filter(is_wanted).cloned());
                self.transaction += 1;
                while let Some(Transaction::Listed(entries)) = self.batch.get(self.transaction) {
                    self.entries.extend(entries.iter().filter(is_wanted).cloned());
                    self.transaction += 1;
                }
            }
            Transaction::Spread { txid, first, last, .. } => {
                let above = self.above.max(LogId(first.0 - 1));
                let page = reader.page(master, *txid, above, *last)?;
                match page.last() {
                    Some(last) => self.above = last.id,
                    None => (self.transaction, self.above) = (self.transaction + 1, LogId(i64::MIN)),
                }
                self.entries.extend(page.into_iter().filter(|entry| !entry.skip));
            }
        }
        Ok(())
    }
}

/// How many of these entries can be kept in memory with their payload; at least one.
fn chunk_length<'a>(entries: impl Iterator<Item = &'a LogEntry>) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&LogEntry| {
        bytes += entry.size;
        bytes <= CHUNK_BYTES
    };
    entries.take(CHUNK_ROWS).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Txid;

    #[test]
    fn a_chunk_is_bounded_in_rows_and_bytes_and_never_empty() {
        let entry = |size| LogEntry { id: LogId(1), txid: Txid(1), size, skip: false, flagged: false, change: None };
        let lengths = |mut entries: &[LogEntry]| {
            let mut lengths = Vec::new();
            while !entries.is_empty() {
                lengths.push(chunk_length(entries.iter()));
                entries = &entries[lengths[lengths.len() - 1]..];
            }
            lengths
        };
        assert_eq!(lengths(&vec![entry(1); CHUNK_ROWS + 1]), [CHUNK_ROWS, 1]);
        assert_eq!(lengths(&[entry(CHUNK_BYTES + 1), entry(1), entry(CHUNK_BYTES)]), [1, 1, 1]);
    }
}
