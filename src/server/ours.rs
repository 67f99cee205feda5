//! Which of pyreplica's tables a database has. Any role that may create tables in public may make one of such a name at any moment, so
//! a table that a server may lack counts only if its owner is trusted.

use crate::base::error::{Error, Kind, Result};
use crate::server::session::{Row, Session};
use crate::server::sql;

const OPERATION: &str = "look for pyreplica's tables";

/// Whether this table is there.
pub fn has(session: &mut Session, name: &str) -> Result<bool> {
    Ok(!which(session, &[name])?.is_empty())
}

/// Those of these tables that are there.
pub fn which(session: &mut Session, names: &[&str]) -> Result<Vec<String>> {
    let rows = session.query(OPERATION, sql::OURS, &[&names])?;
    Ok(rows.iter().filter(|row| is_ours(row)).map(|row| row.get("name")).collect())
}

/// Whether all of them are there, and the role may read them.
pub fn may_read(session: &mut Session, names: &[&str]) -> Result<bool> {
    let rows = session.query(OPERATION, sql::OURS, &[&names])?;
    Ok(rows.iter().filter(|row| is_ours(row) && row.get("is_readable")).count() == names.len())
}

fn is_ours(row: &Row) -> bool {
    row.get("is_table") && row.get("is_trusted")
}

/// Refuses to use tables that have the names of pyreplica's tables but an owner who may not have installed it. A `replica_role` of
/// such an owner counts for nothing, see `has`.
pub fn refuse_untrusted_tables(session: &mut Session) -> Result<()> {
    let rows = session.query(OPERATION, sql::OURS, &[&&sql::OWN[..]])?;
    let is_strange = |row: &&Row| !row.get::<_, bool>("is_trusted") && row.get::<_, &str>("name") != "replica_role";
    let Some(row) = rows.iter().find(is_strange) else { return Ok(()) };
    let (name, owner): (&str, &str) = (row.get("name"), row.get("owner"));
    let detail = format!("public.{name} belongs to {owner}, who is not known to have installed pyreplica");
    let error = Error::new(Kind::Setup, Some(session.side()), "use pyreplica's tables", detail);
    Err(error.of_standby(session.is_standby()).with_hint(format!(
        "if it is not pyreplica's table, DROP or rename it, and run the script again. If it is, the database has another owner since: give \
         him all that is pyreplica's, since a single table is not enough: REASSIGN OWNED BY {owner} TO ...;"
    )))
}
