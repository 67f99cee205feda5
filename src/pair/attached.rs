//! Finds the tables that had rows when they were attached as partitions: the log does not have those rows.

use crate::base::error::{Kind, Result};
use crate::base::names::quote_literal;
use crate::pair::sql;
use crate::server::session::Session;
use std::collections::HashSet;

/// A partition that was attached after its root got the trigger.
pub struct Attached {
    relation: String,
    root: String,
    /// The number of the transaction that attached it.
    by: String,
    /// A row is from before. None if the role may not read the table, which has rows now.
    had_rows: Option<bool>,
    pub advice: String,
}

impl Attached {
    pub fn had_rows(&self) -> bool {
        self.had_rows == Some(true)
    }

    pub fn text(&self) -> String {
        let Attached { relation, root, .. } = self;
        match self.had_rows {
            Some(_) => format!("{relation} had rows when it was attached to {root}: they are not in the log"),
            None => format!("{relation} was attached to {root}: if it had rows, they are not in the log"),
        }
    }
}

/// The partitions that had rows when they were attached, or may have had some.
pub fn find(master: &mut Session) -> Result<Vec<Attached>> {
    let mut found: Vec<Attached> = Vec::new();
    for row in &master.query("look at the partitions", sql::ATTACHED, &[])? {
        let had_rows = match row.get::<_, Option<&str>>("look") {
            _ if !row.get::<_, bool>("has_pages") => Some(false),
            Some(look) => {
                Some(!master.text_rows("look for rows", &format!("select 1 where exists ({look})"))?.is_empty())
            }
            None => None,
        };
        let (relation, root): (String, String) = (row.get("relation"), row.get("root"));
        let is_told = found.last().is_some_and(|last| last.relation == relation && last.had_rows());
        if had_rows == Some(false) || is_told {
            continue;
        }
        let (schema, name) = (quote_literal(row.get("schema")), quote_literal(row.get("name")));
        let advice = format!(
            "attach the slave's table too, if it has one with these rows. Then compare, and repair: pyreplica repair --table {root}; \
             this warning ends with SELECT public.py_log_create_tg({schema}, {name});"
        );
        found.push(Attached { relation, root, by: row.get("attached_by"), had_rows, advice });
    }
    Ok(found)
}

/// Looks again when a partition was attached or detached.
#[derive(Default)]
pub struct Watch {
    /// How many rows pg_inherits had, and the sum of the transactions that wrote them.
    seen: Option<(i64, i64)>,
    known: HashSet<(String, String)>,
}

impl Watch {
    /// Those found since the last call. Without the right to read a table, only if it was attached since then.
    pub fn look(&mut self, master: &mut Session) -> Result<Vec<Attached>> {
        let row = master.query_one("look at the partitions", sql::INHERITS, &[])?;
        let inherits: (i64, i64) = (row.get(0), row.get(1));
        if self.seen == Some(inherits) {
            return Ok(Vec::new());
        }
        if inherits.0 == 0 {
            self.seen = Some(inherits);
            return Ok(Vec::new());
        }
        let mut found = match master.transaction(sql::BEGIN_LOOK, find) {
            Ok(found) => found,
            // Replication waits for no table of the master.
            Err(error) if error.kind() == Kind::Contention || !error.is_transient() => {
                log::debug!(target: "pyreplica", "{error}");
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let is_first = self.seen.replace(inherits).is_none();
        found.retain(|attached| {
            let is_new = self.known.insert((attached.relation.clone(), attached.by.clone()));
            is_new && (attached.had_rows() || !is_first)
        });
        Ok(found)
    }
}
