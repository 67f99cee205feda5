//! What an initial copy copies, and how: which columns, in which format, by which two COPY statements.
//!
//! Tables are matched by schema and name, columns by name. Generated columns of the slave are left out, because the slave
//! computes them; identity columns get the master's values. The binary format is for tables whose columns all have the same
//! built-in type on both sides, in databases of the same encoding. Everything else is sent as text, as in replay.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, create_trigger, create_trigger_of, quote_ident, quote_literal};
use crate::base::shown::listed;
use crate::config::tables::Tables;
use crate::copy::sql;
use crate::server::session::{Row, Session};
use std::collections::HashMap;

/// A table of the master whose changes are logged.
#[derive(Clone, Debug)]
pub struct Captured {
    /// As the log names it: quoted where necessary, with its schema.
    pub relation: String,
    is_partitioned: bool,
    schema: String,
    name: String,
    is_conditional: bool,
    is_known: bool,
}

/// How one table is copied.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    pub relation: String,
    /// The slave's table, with ONLY where it can have children that are tables of their own.
    pub target: String,
    /// What the master's statistics say; only the progress depends on it.
    pub rows: u64,
    pub bytes: u64,
    /// As LOCK TABLE names the master's table.
    pub source: String,
    pub out: String,
    pub into: String,
    /// The pages of the master's table, if its rows can be read in parts.
    pub pages: Option<i64>,
    /// The query for the rows of a part, without its range.
    part: String,
    format: String,
    pub is_binary: bool,
    /// The slave's table has triggers that fire without the replica role.
    pub is_watched: bool,
}

/// What a plan has to know about the servers.
pub struct ServerInfo {
    pub master_encoding: String,
    pub slave_encoding: String,
}

struct Column<'a> {
    name: &'a str,
    type_oid: i64,
    modifier: i32,
    is_plain: bool,
    is_generated: bool,
}

impl CopyPlan {
    /// The COPY that reads a range of pages. Whatever lies behind the end of the last range, it reads too.
    pub fn out_of_pages(&self, from: i64, to: Option<i64>) -> String {
        let end = to.map(|to| format!(" AND ctid < '({to},0)'")).unwrap_or_default();
        format!("COPY ({} WHERE ctid >= '({from},0)'{end}) TO STDOUT WITH ({})", self.part, self.format)
    }
}

impl Captured {
    /// As LOCK TABLE names it: with its partitions, without tables that merely inherit from it.
    pub fn locked(&self) -> String {
        only(&self.quoted(), self.is_partitioned)
    }

    /// Schema and name in quotes.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }
}

/// The tables to copy: all of the pair's that are logged, or those among them that the operator names. And notes for the operator.
pub fn choose(master: &mut Session, pairs: &Tables, wanted: &[String]) -> Result<(Vec<Captured>, Vec<String>)> {
    let rows = master.query("look for logged tables", sql::CAPTURED, &[])?;
    let all: Vec<Captured> = rows
        .iter()
        .map(|row| Captured {
            relation: row.get("relation"),
            is_partitioned: row.get("partitioned"),
            schema: row.get("schema"),
            name: row.get("name"),
            is_conditional: row.get("conditional"),
            is_known: row.get("known"),
        })
        .filter(|table| pairs.has(&table.relation))
        .collect();
    let chosen = if wanted.is_empty() { all } else { named(master, &all, wanted)? };
    if chosen.is_empty() {
        return Err(Error::new(
            Kind::Setup,
            Some(Side::Master),
            "copy",
            "no table has the trigger that logs its changes",
        )
        .with_hint("create the triggers first: pyreplica install DSN0; if TABLES is set, look at the names there"));
    }
    let (left_out, copied): (Vec<Captured>, Vec<Captured>) =
        chosen.into_iter().partition(|table| table.is_conditional || !table.is_known);
    let mut notes: Vec<String> = left_out.iter().map(why_left_out).collect();
    if copied.is_empty() {
        return Err(Error::new(Kind::Setup, Some(Side::Master), "copy", notes.join("; ")));
    }
    if wanted.is_empty() && !pairs.is_limited() {
        let rows = master.query("look for tables that are not logged", &sql::UNLOGGED, &[])?;
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if !names.is_empty() {
            notes.push(format!("without a trigger, and so not copied: {}", listed(&names)));
        }
        notes.extend(master.query("look for what else there is", sql::CONFIGURATION, &[])?.iter().map(not_copied));
    }
    Ok((copied, notes))
}

/// Those of these tables that have rows; each with its name for the slave.
pub fn filled<'a>(slave: &mut Session, tables: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<String>> {
    let mut filled = Vec::new();
    for (relation, target) in tables {
        let look = format!("SELECT FROM {target} LIMIT 1");
        if !slave.text_rows("look whether the tables are empty", &look)?.is_empty() {
            filled.push(relation.to_string());
        }
    }
    Ok(filled)
}

/// How to copy each of these tables, the largest first. One error for all tables that cannot be copied.
pub fn make(
    master: &mut Session,
    slave: &mut Session,
    tables: &[Captured],
    servers: &ServerInfo,
) -> Result<Vec<CopyPlan>> {
    let relations: Vec<&str> = tables.iter().map(|table| table.relation.as_str()).collect();
    let tables: HashMap<&str, &Captured> = tables.iter().map(|table| (table.relation.as_str(), table)).collect();
    let targets = slave.query("look at the tables", sql::TARGET, &[&relations])?;
    let targets: HashMap<&str, &Row> = targets.iter().map(|row| (row.get("relation"), row)).collect();
    let (mut plans, mut problems, mut missing) = (Vec::new(), Vec::new(), 0);
    for source in &master.query("look at the tables", sql::SOURCE, &[&relations])? {
        let table = tables[source.get::<_, &str>("relation")];
        let Some(target) = targets.get(table.relation.as_str()) else {
            missing += 1;
            problems.push(format!("there is no table {}", table.relation));
            continue;
        };
        match plan(table, source, target, servers) {
            Ok(plan) => plans.push(plan),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        return Ok(plans);
    }
    let hint = if missing > 0 {
        "let the copy create the tables too: pyreplica copy --schema ..., or create them on the slave by hand"
    } else {
        "give the slave's tables the master's columns"
    };
    Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", listed(&problems)).with_hint(hint))
}

/// What is not copied, and what to do about it.
fn not_copied(row: &Row) -> String {
    let (kind, name, rows): (&str, &str, &str) = (row.get("kind"), row.get("name"), row.get("rows"));
    if kind == "objects" {
        return format!(
            "{name} large objects are copied only with --large-objects, and their changes are not replicated"
        );
    }
    format!(
        "{name} belongs to an extension, and its rows are not copied. hint: if the slave needs them: psql -c {} DSN0 | psql -c {} \
         DSN1",
        shell_quoted(&format!("COPY ({rows}) TO STDOUT")),
        shell_quoted(&format!("COPY {name} FROM STDIN"))
    )
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn why_left_out(table: &Captured) -> String {
    let why = if table.is_known {
        "its trigger has a WHEN condition, so copy its rows by hand".to_string()
    } else {
        format!("it had another name when its triggers were created: {}", create_trigger(&table.schema, &table.name))
    };
    format!("{} is left out: {why}", table.relation)
}

/// Finds tables by their name, with or without the schema, as the log writes it or without quotes.
fn named(master: &mut Session, all: &[Captured], wanted: &[String]) -> Result<Vec<Captured>> {
    let mut chosen: Vec<Captured> = Vec::new();
    for name in wanted {
        let is_meant = |table: &&Captured| {
            table.relation == *name || table.name == *name || format!("{}.{}", table.schema, table.name) == *name
        };
        let found: Vec<&Captured> = all.iter().filter(is_meant).collect();
        match found[..] {
            [table] if chosen.iter().any(|other| other.relation == table.relation) => {}
            [table] => chosen.push(table.clone()),
            [] if !master.query_one("look for the table", sql::IS_TABLE, &[name])?.get::<_, bool>(0) => {
                let operation = format!("find table {name}");
                return Err(Error::new(Kind::Usage, Some(Side::Master), operation, "there is none")
                    .with_hint("name it as table, or as schema.table"));
            }
            [] => {
                let detail = format!("no table {name} has the trigger that logs its changes");
                return Err(Error::new(Kind::Setup, Some(Side::Master), "copy", detail)
                    .with_hint(format!("create the trigger first: {}", create_trigger_of(name))));
            }
            _ => {
                let names: Vec<&str> = found.iter().map(|table| table.relation.as_str()).collect();
                let detail = format!("{name} may be {}", names.join(" or "));
                return Err(Error::new(Kind::Usage, None, "copy", detail).with_hint("give the schema too"));
            }
        }
    }
    Ok(chosen)
}

fn plan(table: &Captured, source: &Row, target: &Row, servers: &ServerInfo) -> std::result::Result<CopyPlan, String> {
    let (from, to) = (columns(source), columns(target));
    let withheld: Vec<&str> = source.get("withheld");
    let mut chosen: Vec<(&Column, &Column)> = Vec::new();
    for column in from.iter().filter(|column| !withheld.contains(&column.name)) {
        match to.iter().find(|other| other.name == column.name) {
            Some(other) if other.is_generated => {}
            Some(other) => chosen.push((column, other)),
            None if column.is_generated => {}
            None => return Err(format!("the table {} has no column {}", table.relation, quote_ident(column.name))),
        }
    }
    // A COPY without a list of columns is about all of them, and so right only if there are none.
    if chosen.is_empty() && to.iter().any(|other| !other.is_generated) {
        return Err(format!("no column of {} is sent to the slave, and the slave's table has some", table.relation));
    }
    let is_transformed: bool = source.get("transformed");
    let is_binary = servers.master_encoding == servers.slave_encoding
        && servers.master_encoding != "SQL_ASCII"
        && !is_transformed
        && chosen.iter().all(|(a, b)| a.is_plain && a.type_oid == b.type_oid && a.modifier == b.modifier);
    let format = if is_binary {
        "FORMAT binary".to_string()
    } else if servers.master_encoding == servers.slave_encoding {
        // In the databases' own encoding, so that nothing is converted.
        format!("FORMAT text, ENCODING {}", quote_literal(&servers.master_encoding))
    } else {
        "FORMAT text".to_string()
    };
    let names: Vec<String> = chosen.iter().map(|(column, _)| quote_ident(column.name)).collect();
    let names = names.join(", ");
    let list = if names.is_empty() { String::new() } else { format!(" ({names})") };
    let qualified = table.quoted();
    let is_filtered = is_transformed || source.get("filtered");
    let pages: i64 = source.get("pages");
    let needs_query = names.is_empty() || table.is_partitioned || chosen.iter().any(|(column, _)| column.is_generated);
    let rows = if is_filtered {
        let value = |name| format!("s.pairs OPERATOR(pyreplica.->) {}", quote_literal(name));
        let values: Vec<String> = chosen.iter().map(|(column, _)| value(column.name)).collect();
        format!("({})", filtered_rows(table, &qualified, &names, is_transformed.then(|| values.join(", "))))
    } else if needs_query {
        format!("(SELECT {names} FROM {})", only(&qualified, table.is_partitioned))
    } else {
        format!("{qualified}{list}")
    };
    Ok(CopyPlan {
        relation: table.relation.clone(),
        target: only(&qualified, target.get("partitioned")),
        rows: source.get::<_, i64>("rows") as u64,
        bytes: source.get::<_, i64>("bytes") as u64,
        source: table.locked(),
        is_binary,
        pages: (pages > 0 && !is_filtered).then_some(pages),
        part: format!("SELECT {names} FROM ONLY {qualified}"),
        out: format!("COPY {rows} TO STDOUT WITH ({format})"),
        into: format!("COPY {qualified}{list} FROM STDIN WITH ({format})"),
        is_watched: target.get("watched"),
        format,
    })
}

/// A query for the rows that filters let through, by the functions that the trigger calls. `values`, if there are
/// transforms: the expression for each column's transformed value.
fn filtered_rows(table: &Captured, qualified: &str, names: &str, values: Option<String>) -> String {
    let (name, relation) = (quote_literal(&table.name), quote_literal(&table.relation));
    let from = format!(
        "{} x WHERE pyreplica.admit({name}, {relation}, x.tableoid, 'INSERT', null::{qualified}, x) IS NOT NULL",
        only(qualified, table.is_partitioned)
    );
    match values {
        None => format!("SELECT {names} FROM {from}"),
        Some(values) => format!(
            "SELECT {values} FROM (SELECT pyreplica.send({name}, {relation}, x.tableoid, OPERATOR(pyreplica.%%) x, x) AS pairs \
             FROM {from} OFFSET 0) s"
        ),
    }
}

fn only(qualified: &str, is_partitioned: bool) -> String {
    if is_partitioned { qualified.to_string() } else { format!("ONLY {qualified}") }
}

fn columns(row: &Row) -> Vec<Column<'_>> {
    let names: Vec<&str> = row.get("names");
    let types: Vec<i64> = row.get("type_oids");
    let modifiers: Vec<i32> = row.get("modifiers");
    let generated: Vec<bool> = row.get("generated");
    // Only the master's query says whether a type is built in.
    let plain: Vec<bool> = row.try_get("plain").unwrap_or_else(|_| vec![true; names.len()]);
    let rest = types.into_iter().zip(modifiers).zip(plain).zip(generated);
    let columns = names.into_iter().zip(rest).map(|(name, (((type_oid, modifier), is_plain), is_generated))| Column {
        name,
        type_oid,
        modifier,
        is_plain,
        is_generated,
    });
    columns.collect()
}
