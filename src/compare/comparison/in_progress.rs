//! Changes of rows that have not been replayed, because they are pending in a log or held on the slave. They explain why a
//! row differs.

use crate::backlog::sql::passed_by;
use crate::base::error::Result;
use crate::base::names::{fully_quoted, quote_ident, quote_literal};
use crate::commit::twophase::pair_key;
use crate::compare::digest::{DigestSource, Key};
use crate::compare::sql;
use crate::config::settings::Config;
use crate::server::checks;
use crate::server::ours;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::collections::HashSet;

/// How to query the logs of both sides. The slave has a log if it is a master too: changes made on the slave are pending
/// for others.
#[derive(Clone, Debug)]
pub struct PendingChanges {
    master: Log,
    slave: Option<Log>,
    /// The held changes on the slave: of tables on hold, and in quarantine. The slave's position has moved past them.
    held: Option<Log>,
    pub master_identity: String,
    pub field: String,
}

#[derive(Clone, Debug)]
struct Log {
    /// The beginning of a query: a WITH clause that names the changes which have not been replayed "waiting".
    waiting: String,
    /// The expression for a value of a logged row: "$row" stands for "old" or "new", "$name" for the column's name as a
    /// literal.
    value: String,
    /// The condition that such a row lacks a column: "$names" stands for their array.
    lacks: String,
}

impl PendingChanges {
    pub fn new(config: &Config, master: &mut Session, slave: &mut Session) -> Result<PendingChanges> {
        let identity = |session: &mut Session| -> Result<String> {
            Ok(session.query_one("look at the server", server_sql::IDENTITY, &[])?.get(0))
        };
        let (master_identity, slave_identity) = (identity(master)?, identity(slave)?);
        if master_identity == slave_identity {
            return Err(checks::same_database());
        }
        let origin = checks::origin(&master_identity, checks::log_oid(master)?);
        checks::slave_fields(config, master)?;
        let skip_user = config.skip_user.as_deref().map_or("NULL".to_string(), quote_literal);
        let tables = config.tables.pattern().map_or("NULL::text".to_string(), |pattern| quote_literal(&pattern));
        let own = quote_ident(&config.slave_field);
        let waiting = sql::PENDING
            .replace("l.replicated", &format!("l.{own}"))
            .replace("$field", &quote_literal(&config.slave_field))
            .replace("$skip_user", &skip_user)
            .replace("$tables", &tables)
            .replace("$slave", &quote_literal(&slave_identity));
        let has_held = ours::has(slave, "replica_held")?;
        let has_log = ours::has(slave, "replica_log")?;
        let slave = if has_log { slave_log(slave, &master_identity)? } else { None };
        let (value, lacks) = in_hstore(master)?;
        let master = Log { waiting, value, lacks };
        let held = has_held.then(|| held_log(&pair_key(origin, &config.slave_field)));
        Ok(PendingChanges { master, slave, held, master_identity, field: config.slave_field.clone() })
    }

    /// The numbers of the keys whose rows have changes in the master's log that the slave has not replayed.
    pub fn on_master(
        &self,
        session: &mut Session,
        table: &str,
        source: &DigestSource,
        keys: &[Key],
    ) -> Result<HashSet<usize>> {
        self.master.changed_rows(session, table, source, keys)
    }

    /// The same for changes that were made on the slave and that its own slaves have not replayed.
    pub fn on_slave(
        &self,
        session: &mut Session,
        table: &str,
        source: &DigestSource,
        keys: &[Key],
    ) -> Result<HashSet<usize>> {
        changed_rows(self.slave.as_ref(), session, table, source, keys)
    }

    /// The same for changes that are held on the slave.
    pub fn held(
        &self,
        session: &mut Session,
        table: &str,
        source: &DigestSource,
        keys: &[Key],
    ) -> Result<HashSet<usize>> {
        changed_rows(self.held.as_ref(), session, table, source, keys).map_err(|error| match error.code() {
            Some("42501") => error.with_hint("for the role of DSN1: GRANT SELECT ON replica_held TO ...;"),
            _ => error,
        })
    }
}

impl Log {
    fn changed_rows(
        &self,
        session: &mut Session,
        table: &str,
        source: &DigestSource,
        keys: &[Key],
    ) -> Result<HashSet<usize>> {
        let relation = quote_literal(table);
        // Older rows may have each name in quotes.
        let quoted = quote_literal(&fully_quoted(table));
        let value = |row: &str, name: &str| self.value.replace("$row", row).replace("$name", &quote_literal(name));
        let own = format!("l.relation IN ({relation}, {quoted})");
        if source.key.iter().any(|column| column.runs_casts) {
            // A key of the log cannot be read without it, so each row may be one that changes.
            let sql = format!("{} SELECT FROM waiting l WHERE {own} OR l.event IN ('S', 'T') LIMIT 1", self.waiting);
            let is_changing = !session.text_rows("look at the log", &sql)?.is_empty();
            return Ok(if is_changing { (0..keys.len()).collect() } else { HashSet::new() });
        }
        let mut any_row = String::new();
        if source.is_by_digest {
            // A row from before a column was added has another digest now.
            let names: Vec<String> = source.columns.iter().map(|name| quote_literal(name)).collect();
            let names = format!("ARRAY[{}]::text[]", names.join(", "));
            let lacks = |row: &str| self.lacks.replace("$row", row).replace("$names", &names);
            any_row = match &source.types {
                None => format!(" UNION SELECT -1 FROM waiting l WHERE {own}"),
                Some(_) => format!(
                    " UNION SELECT -1 FROM waiting l WHERE {own} AND (l.event IN ('U', 'D') AND {} OR l.event IN ('I', 'U') AND {})",
                    lacks("old"),
                    lacks("new")
                ),
            };
        }
        let digest = |row: &str| match &source.types {
            None => "NULL::bigint AS k0".to_string(),
            Some(types) => {
                let values = source.columns.iter().zip(types);
                let values: Vec<String> =
                    values.map(|(name, sql_type)| format!("({})::{sql_type}", value(row, name))).collect();
                format!("{} AS k0", source.hash_of(&values))
            }
        };
        let columns = |row: &str| {
            if source.is_by_digest {
                return digest(row);
            }
            let values: Vec<String> = source
                .key
                .iter()
                .enumerate()
                .map(|(n, column)| format!("({})::{} AS k{n}", value(row, &column.name), column.base_type))
                .collect();
            values.join(", ")
        };
        let keys_of = source.key.iter().enumerate();
        let joins: Vec<String> = keys_of.map(|(n, column)| format!("p.k{n} {} c.k{n}", column.operator("="))).collect();
        let sql = format!(
            "{} SELECT DISTINCT c.n FROM {} JOIN ( \
             SELECT {} FROM waiting l WHERE {own} AND l.event IN ('U', 'D') UNION ALL \
             SELECT {} FROM waiting l WHERE {own} AND l.event IN ('I', 'U')) p ON {} \
             UNION SELECT -1 FROM waiting l WHERE l.event = 'S' OR l.event = 'T' AND to_regclass(l.relation) IN \
             (SELECT to_regclass({relation}) UNION SELECT relid FROM pg_partition_tree(to_regclass({relation}))){any_row}",
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

/// The same for a log that may not exist.
fn changed_rows(
    log: Option<&Log>,
    session: &mut Session,
    table: &str,
    source: &DigestSource,
    keys: &[Key],
) -> Result<HashSet<usize>> {
    log.map_or(Ok(HashSet::new()), |log| log.changed_rows(session, table, source, keys))
}

/// The position says what has been replayed. The flags of a slave that was the master before may never be set.
fn slave_log(slave: &mut Session, master_identity: &str) -> Result<Option<Log>> {
    let fields = slave.query("look at the slave's log", server_sql::SLAVE_FIELDS, &[])?;
    let fields: Vec<String> = fields.iter().map(|row| row.get(0)).collect();
    // The log of the Python original does not hold rows.
    if fields.is_empty()
        || slave.query("look at the slave's log", server_sql::LOG, &[])?[0].get::<_, Option<u32>>(1).is_none()
    {
        return Ok(None);
    }
    let waiting = format!(
        "WITH waiting AS MATERIALIZED (SELECT l.event, l.relation, l.old, l.new FROM public.replica_log l \
         WHERE NOT ({}) AND l.origin IS DISTINCT FROM {})",
        passed_by(fields.iter()),
        quote_literal(master_identity)
    );
    let (value, lacks) = in_hstore(slave)?;
    Ok(Some(Log { waiting, value, lacks }))
}

/// The expressions for a value of an hstore, and for whether it lacks columns.
fn in_hstore(session: &mut Session) -> Result<(String, String)> {
    let schema: String = session.query_one("look for hstore", server_sql::HSTORE_SCHEMA, &[])?.get(0);
    let schema = quote_ident(&schema);
    Ok((format!("l.$row OPERATOR({schema}.->) $name"), format!("NOT l.$row OPERATOR({schema}.?&) $names")))
}

/// Rows are arrays in this table: name, value, name, value.
fn held_log(pair: &str) -> Log {
    let waiting = format!(
        "WITH waiting AS MATERIALIZED (SELECT l.event, l.relation, l.old, l.new FROM public.replica_held l \
         WHERE l.master = {})",
        quote_literal(pair)
    );
    let value = "SELECT l.$row[i + 1] FROM generate_series(1, cardinality(l.$row), 2) i WHERE l.$row[i] = $name";
    Log { waiting, value: value.into(), lacks: "NOT l.$row @> $names".into() }
}
