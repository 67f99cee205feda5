//! Changes that the master cannot send: a text in them has no form in UTF-8, in which pyreplica reads the log.

use super::{LogReader, columns};
use crate::backlog::change::{Change, Event};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{LogId, Side, Txid};
use crate::server::session::{Session, Xid8};
use std::sync::Arc;

impl LogReader {
    /// Whether to read such changes with their bytes escaped, for the quarantine, instead of failing.
    pub fn escape(&mut self, escapes: bool) {
        self.escapes = escapes;
    }

    /// Fetches changes one by one, of which at least one cannot be sent.
    pub(super) fn bring_each(
        &mut self,
        master: &mut Session,
        away: &[(LogId, usize)],
        changes: &mut [Option<Change>],
    ) -> Result<()> {
        for (id, place) in away {
            let rows = match master.query("fetch changes", &self.queries.fetch, &[&vec![id.0], &vec![id.0]]) {
                Err(error) if error.is_of_encoding() => {
                    changes[*place] = Some(self.unreadable(master, *id, error)?);
                    continue;
                }
                rows => rows?,
            };
            if let Some(row) = rows.into_iter().next().filter(|row| !row.get::<_, bool>("skip")) {
                changes[*place] = Some(self.change(&Arc::new(row))?);
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, master: &mut Session, id: LogId, error: Error) -> Result<Change> {
        if !self.escapes {
            let txid =
                Txid(master.query_one("find the transaction", crate::backlog::sql::TRANSACTION_OF, &[&id.0])?.get(0));
            let operation = format!("read change {id} of transaction {txid}");
            return Err(Error::new(Kind::Change, Some(Side::Master), operation, error.detail())
                .with_change(id, txid)
                .with_hint(format!(
                    "no slave can get this text. Correct the row on the master, which logs another change; then give this one \
                     up: pyreplica skip {id}"
                )));
        }
        let row = master.query_one("fetch a change", &self.queries.fetch_escaped, &[&id.0])?;
        let relation: &str = row.get("relation");
        Ok(Change {
            id,
            txid: Txid(row.get::<_, Xid8>("txid").0),
            event: Event::from_letter(row.get("event")).unwrap_or(Event::Statement),
            relation: relation.to_string(),
            old: columns(row.get("old"), relation, &mut self.lists),
            new: columns(row.get("new"), relation, &mut self.lists),
            sql: row.get("sql"),
            origin: row.get("origin"),
        })
    }
}
