//! Changes of rows that are in a log and have not been replayed: they explain why a row differs.

use crate::checks;
use crate::config::Config;
use crate::db::Session;
use crate::digest::{Key, Source};
use crate::error::Result;
use crate::names::{quote_ident, quote_literal};
use crate::sql;
use std::collections::HashSet;

/// How to ask both logs. The slave has one if it is a master too: what was changed there is on its way to others.
#[derive(Clone, Debug)]
pub struct Underway {
    master: Log,
    slave: Option<Log>,
    pub master_identity: String,
    pub field: String,
}

#[derive(Clone, Debug)]
struct Log {
    /// A query's beginning, which gives the name "waiting" to what has not been replayed.
    waiting: String,
    /// hstore's operator that gets a value.
    get: String,
}

impl Underway {
    pub fn new(config: &Config, master: &mut Session, slave: &mut Session) -> Result<Underway> {
        let identity = |session: &mut Session| -> Result<String> {
            Ok(session.query_one("look at the server", sql::IDENTITY, &[])?.get(0))
        };
        let (master_identity, slave_identity) = (identity(master)?, identity(slave)?);
        if master_identity == slave_identity {
            return Err(checks::same_database());
        }
        checks::log_oid(master)?;
        checks::slave_fields(config, master)?;
        let skip_user = config.skip_user.as_deref().map_or("NULL".to_string(), quote_literal);
        let own = quote_ident(&config.slave_field);
        let waiting = sql::UNDERWAY
            .replace("l.replicated", &format!("l.{own}"))
            .replace("$field", &quote_literal(&config.slave_field))
            .replace("$skip_user", &skip_user)
            .replace("$slave", &quote_literal(&slave_identity));
        let hands_on: bool = slave.query_one("look for a log on the slave", sql::HAS_LOG, &[])?.get(0);
        let slave = if hands_on { slave_log(slave, &master_identity)? } else { None };
        let master = Log { waiting, get: get(master)? };
        Ok(Underway { master, slave, master_identity, field: config.slave_field.clone() })
    }

    /// The numbers of those keys whose rows have changes on their way to the slave.
    pub fn on_master(
        &self,
        session: &mut Session,
        table: &str,
        source: &Source,
        keys: &[Key],
    ) -> Result<HashSet<usize>> {
        self.master.ask(session, table, source, keys)
    }

    /// The same for changes made on the slave, on their way to somewhere else.
    pub fn on_slave(
        &self,
        session: &mut Session,
        table: &str,
        source: &Source,
        keys: &[Key],
    ) -> Result<HashSet<usize>> {
        self.slave.as_ref().map_or(Ok(HashSet::new()), |log| log.ask(session, table, source, keys))
    }
}

impl Log {
    fn ask(&self, session: &mut Session, table: &str, source: &Source, keys: &[Key]) -> Result<HashSet<usize>> {
        let relation = quote_literal(table);
        let columns = |row: &str| {
            let values: Vec<String> = source
                .key
                .iter()
                .enumerate()
                .map(|(n, column)| {
                    format!("(l.{row} {} {})::{} AS k{n}", self.get, quote_literal(&column.name), column.base_type)
                })
                .collect();
            values.join(", ")
        };
        let joins: Vec<String> = (0..source.key.len()).map(|n| format!("p.k{n} = c.k{n}")).collect();
        let sql = format!(
            "{} SELECT DISTINCT c.n FROM {} JOIN ( \
             SELECT {} FROM waiting l WHERE l.relation = {relation} AND l.event IN ('U', 'D') UNION ALL \
             SELECT {} FROM waiting l WHERE l.relation = {relation} AND l.event IN ('I', 'U')) p ON {} \
             UNION SELECT -1 FROM waiting l WHERE l.event = 'S' OR l.event = 'T' AND to_regclass(l.relation) IN \
             (SELECT to_regclass({relation}) UNION SELECT relid FROM pg_partition_tree(to_regclass({relation})))",
            self.waiting,
            source.key_list(keys),
            columns("old"),
            columns("new"),
            joins.join(" AND ")
        );
        let rows = session.text_rows("look at the log", &sql)?;
        let numbers: Vec<i64> = rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect();
        if numbers.contains(&-1) {
            return Ok((0..keys.len()).collect());
        }
        Ok(numbers.into_iter().map(|n| n as usize).collect())
    }
}

/// Flags follow a moment behind, which is well enough here: a change that has arrived counts as being on its way once more.
fn slave_log(slave: &mut Session, master_identity: &str) -> Result<Option<Log>> {
    let fields = slave.query("look at the slave's log", sql::SLAVE_FIELDS, &[])?;
    let flags: Vec<String> =
        fields.iter().map(|row| format!("NOT coalesce(l.{}, true)", quote_ident(row.get(0)))).collect();
    // The Python original's log says nothing about rows.
    if flags.is_empty() || slave.query("look at the slave's log", sql::LOG, &[])?[0].get::<_, Option<u32>>(1).is_none()
    {
        return Ok(None);
    }
    let waiting = format!(
        "WITH waiting AS MATERIALIZED (SELECT l.event, l.relation, l.old, l.new FROM public.replica_log l \
         WHERE ({}) AND l.origin IS DISTINCT FROM {})",
        flags.join(" OR "),
        quote_literal(master_identity)
    );
    Ok(Some(Log { waiting, get: get(slave)? }))
}

fn get(session: &mut Session) -> Result<String> {
    let schema: String = session.query_one("look for hstore", sql::HSTORE_SCHEMA, &[])?.get(0);
    Ok(format!("OPERATOR({}.->)", quote_ident(&schema)))
}
