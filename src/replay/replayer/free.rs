//! Free statements, and the schema changes that event triggers of the master write in their form.
//!
//! The log row of a schema change describes the object as the master has it afterwards. If the slave refuses the statement and its
//! object has that shape already, somebody has made the change there before: that is worth a warning and no reason to stop.

use super::quarantine::refuse_escaped;
use super::{CHECK_NOW, Replayer, set_origin};
use crate::backlog::change::Change;
use crate::base::error::{Error, Result};
use crate::base::names::quote_literal;
use crate::replay::sql;
use crate::replay::statements::{instruction, outline};
use crate::server::session::Session;
use crate::server::sql as server_sql;

/// A comment in the log that the slave's operator is to read: a schema change that did not travel.
const REMARK: &str = "-- pyreplica: ";

/// Set before a schema change. If the slave refuses it, the transaction goes on from there.
const SAVEPOINT: &str = "pyreplica_schema";

/// SQLSTATEs: there is such a table, column, object, function, schema already.
const EXISTS_ALREADY: [&str; 5] = ["42P07", "42701", "42710", "42723", "42P06"];

impl Replayer {
    /// A free statement runs inside a DO block, so that it cannot end the transaction in which it is replayed.
    pub(super) fn free_statement(&mut self, slave: &mut Session, change: &Change) -> Result<()> {
        refuse_escaped(change).map_err(|error| self.rejected(change, error))?;
        if let Some(remark) = change.sql.strip_prefix(REMARK).filter(|remark| !remark.contains(['\n', '\r'])) {
            self.remark(remark.to_string(), change.id);
            return Ok(());
        }
        self.flush(slave)?;
        log::debug!(target: &self.name, "Executing: {}", instruction(change, None));
        let mut message = self.switch_origin(change) + sql::DEFAULT_PLANNING;
        if self.deferring {
            // PostgreSQL refuses to alter a table with pending deferred checks.
            message.push_str(CHECK_NOW);
        }
        let is_described = change.new.has("shape");
        if is_described {
            message.push_str(&format!("SAVEPOINT {SAVEPOINT};"));
        }
        let block = format!("begin execute {}; end", quote_literal(&change.sql));
        message.push_str(&format!("DO {}; {};", quote_literal(&block), sql::RESET_ROLE));
        if makes_owned(change) {
            let said = |name: &str| change.new.get(name).flatten();
            message.push_str(&sql::refuse_stranger([said("type"), said("names"), said("arguments"), said("owner")]));
        }
        if is_described {
            message.push_str(&format!("RELEASE SAVEPOINT {SAVEPOINT}; {}", sql::RESET_SETTINGS));
        }
        if !self.deferring {
            message.push_str(&format!("{}; {}", server_sql::REPLICA_ROLE, sql::USE_INDEXES));
        }
        if let Err(error) = slave.message("replay", &message) {
            if error.is_transient() || !is_described {
                return Err(self.rejected(change, error));
            }
            match self.what_is_there(slave, change, &error)? {
                Found::Other => return Err(self.rejected(change, error)),
                Found::OfStranger(role) => {
                    let hint =
                        format!("It belongs to role {role} there, which is not trusted with it. {}", sql::TAKE_IT_AWAY);
                    return Err(self.rejected(change, error.with_hint(hint)));
                }
                Found::Same => {}
            }
            let (said, shown) = match self.tells_values {
                true => (error.detail(), instruction(change, None)),
                false => (error.bare_detail(), outline(change, None)),
            };
            let Change { id, txid, .. } = change;
            self.report(format!("change {id} of transaction {txid} was made on the slave already: {said} ({shown})"));
        }
        self.cache.unlock();
        self.cache.forget_prepared();
        slave.set_up(&self.current_origin)
    }

    /// Takes a schema change back that the slave has refused, and returns whether its object is as the change would have made it. An
    /// object that is there already may have more than the master's: a column that a later change adds.
    fn what_is_there(&mut self, slave: &mut Session, change: &Change, refusal: &Error) -> Result<Found> {
        let back = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; {}", set_origin(&self.current_origin));
        match slave.message("roll back a schema change", &back) {
            // The server could not read the message.
            Err(missing) if missing.code() == Some(sql::NO_SAVEPOINT) => return Ok(Found::Other),
            done => done.map(drop)?,
        }
        slave.set_up(&self.current_origin)?;
        let described = |name: &str| change.new.get(name).flatten().unwrap_or_default().to_string();
        let (kind, names) = (described("type"), described("names"));
        let (arguments, shape) = (described("arguments"), described("shape"));
        let owner = change.new.get("owner").flatten();
        let may_have_more = refusal.code().is_some_and(|code| EXISTS_ALREADY.contains(&code));
        let asked = slave.query(
            "compare the shape of an object",
            &sql::HAS_SHAPE,
            &[&kind, &names, &arguments, &owner, &shape, &may_have_more],
        );
        let found = match asked {
            Ok(rows) => rows.first().map_or(Found::Other, |row| match (row.get(0), row.get(1)) {
                (false, _) => Found::Other,
                (true, None) => Found::Same,
                (true, Some(role)) => Found::OfStranger(role),
            }),
            Err(error) if error.is_transient() => return Err(error),
            // There is no such object.
            Err(_) => {
                slave.message("roll back a look", &back)?;
                Found::Other
            }
        };
        slave.message("go on", &format!("RELEASE SAVEPOINT {SAVEPOINT}"))?;
        Ok(found)
    }
}

/// What the slave has under the name of an object that a schema change is about.
enum Found {
    /// It is as the master has it.
    Same,
    /// So it is, and belongs to this role.
    OfStranger(String),
    Other,
}

/// Whether a statement makes something that has an owner of its own. The functions of an extension belong to a superuser.
fn makes_owned(change: &Change) -> bool {
    let said = |name: &str| change.new.get(name).flatten().unwrap_or_default();
    let kinds =
        ["table", "view", "materialized view", "sequence", "type", "function", "procedure", "aggregate", "schema"];
    said("tag").starts_with("CREATE ") && kinds.contains(&said("type"))
}
