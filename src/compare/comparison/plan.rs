//! Which tables can be compared, by which key and columns, and why others cannot.

use super::in_progress::Underway;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::compare::digest::{DigestSource, Hash, KeyColumn};
use crate::compare::sql;
use crate::config::settings::Config;
use crate::server::session::{Row, Session};
use std::collections::HashMap;

/// One table of the master, as far as comparing it is concerned.
pub enum Outlook {
    Comparable(Box<ComparePlan>),
    LeftOut(Omission),
}

/// A table that is not compared.
pub struct Omission {
    pub table: String,
    pub reason: String,
    pub sort: Sort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It has no equal on the slave, or its changes are not logged.
    ByDesign,
    /// It should have one, and nobody can tell which row is which.
    Keyless,
    /// Its changes are logged, and the slave does not have it.
    Absent,
}

/// How one table is compared.
pub struct ComparePlan {
    /// As the log writes it: quoted where it must be, and qualified.
    pub table: String,
    pub master: DigestSource,
    pub slave: DigestSource,
    /// What the operator should know about the result.
    pub notes: Vec<String>,
    /// Columns of the master that the slave lacks.
    pub lacking: Vec<String>,
    /// Columns of the slave that take a value in an INSERT only.
    pub identity_always: Vec<String>,
    /// Why rows cannot be copied as they are.
    pub transformed: bool,
    pub underway: Underway,
}

/// What both sides have to say about one table.
struct Sides<'a> {
    master: &'a Row,
    slave: &'a Row,
}

/// What holds for all tables of a pair.
struct Pair {
    hash: Hash,
    underway: Underway,
    sorted: HashMap<(Side, String), String>,
}

/// Under this no other object gets in the way of PostgreSQL's own.
pub const SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// Makes both sides write equal values alike, and says what they need for being compared.
const SETTINGS: &str = "set timezone = 'UTC'; set search_path = pg_catalog, pg_temp";

/// Texts that collations, and versions of one collation, sort differently.
const SAMPLES: &str = "'{a,B,A,b,a-b,ab,\"a b\",aB,1-1,11,1 1,_a,.a,a.b,Z,z,10,9,a1,A1,ch,cz,aa,az,-,~}'::text[]";

/// A row digested by both servers: do they compute the same?
const PROBE: &str = "select hashtextextended(ROW(1, 'pyreplica', 0.5::float8, '2026-01-01 12:00:00+00'::timestamptz)::text \
     collate \"C\", 0)::text, pg_encoding_to_char(encoding)::text from pg_database where datname = current_database()";

/// The outlook for the tables called so, or for all of the master's.
pub fn plans(config: &Config, master: &mut Session, slave: &mut Session, wanted: &[String]) -> Result<Vec<Outlook>> {
    for session in [&mut *master, &mut *slave] {
        session.message("set the session up", SETTINGS)?;
    }
    let mut pair =
        Pair { hash: hash(master, slave)?, underway: Underway::new(config, master, slave)?, sorted: HashMap::new() };
    let mut tables = master.query("look at the tables", &sql::REPLICATED, &[]).map_err(allow)?;
    if !wanted.is_empty() {
        for name in wanted {
            if !tables.iter().any(|row| is_called(row, name)) {
                return Err(Error::new(Kind::Setup, Some(Side::Master), format!("find table {name}"), "there is none")
                    .with_hint("name it as table, or as schema.table"));
            }
        }
        tables.retain(|row| wanted.iter().any(|name| is_called(row, name)));
    }
    let names: Vec<&str> = tables.iter().map(|row| row.get("relation")).collect();
    let on_master = master.query("look at the tables", sql::COMPARABLE, &[&names])?;
    let on_slave = slave.query("look at the tables", sql::COMPARABLE, &[&names])?;
    let mut outlooks = Vec::new();
    for table in &tables {
        let name: &str = table.get("relation");
        let find = |rows: &'_ [Row]| rows.iter().position(|row| row.get::<_, &str>("relation") == name);
        // A table that is gone by now is nobody's concern.
        let Some(mine) = find(&on_master).map(|n| &on_master[n]) else { continue };
        let sides = find(&on_slave).map(|n| Sides { master: mine, slave: &on_slave[n] });
        outlooks.push(outlook(&mut pair, master, slave, table, sides)?);
    }
    Ok(outlooks)
}

fn is_called(row: &Row, wanted: &str) -> bool {
    let (relation, name): (&str, &str) = (row.get("relation"), row.get("name"));
    let plain = relation.replace("\"\"", "\u{1}").replace('"', "").replace('\u{1}', "\"");
    [relation, name, &plain].contains(&wanted)
}

fn outlook(
    pair: &mut Pair,
    master: &mut Session,
    slave: &mut Session,
    table: &Row,
    sides: Option<Sides>,
) -> Result<Outlook> {
    let name: String = table.get("relation");
    let left_out = |sort, reason: String| Ok(Outlook::LeftOut(Omission { table: name.clone(), reason, sort }));
    let key: Option<Vec<String>> = table.get("key");
    if !table.get::<_, bool>("logged") {
        let why =
            if key.is_none() { "no primary key, so its changes are not logged" } else { "its changes are not logged" };
        return left_out(Sort::ByDesign, why.into());
    }
    let filters: Vec<String> = table.get("filters");
    if let Some(event) = filters.iter().find(|event| *event != "INSERT") {
        return left_out(Sort::ByDesign, format!("a filter withholds some of its {event}s"));
    }
    let Some(sides) = sides else { return left_out(Sort::Absent, "the slave does not have it".into()) };
    let Some(key) = key else { return left_out(Sort::Keyless, "nothing identifies a row".into()) };
    for (side, row) in [(Side::Master, sides.master), (Side::Slave, sides.slave)] {
        let unique: Vec<String> = row.get::<_, Option<Vec<String>>>("unique").unwrap_or_default();
        let is_sure = |names: &String| names.split('\u{1}').all(|name| key.iter().any(|column| column == name));
        if !unique.iter().any(is_sure) {
            let shown: Vec<String> = key.iter().map(|name| quote_ident(name)).collect();
            return left_out(
                Sort::Keyless,
                format!("no unique index on ({}) makes a row of the {side} certain", shown.join(", ")),
            );
        }
    }
    plan(pair, master, slave, table, &sides, key).map(|plan| Outlook::Comparable(Box::new(plan)))
}

fn plan(
    pair: &mut Pair,
    master: &mut Session,
    slave: &mut Session,
    table: &Row,
    sides: &Sides,
    key: Vec<String>,
) -> Result<ComparePlan> {
    let name: String = table.get("relation");
    let transforms: Vec<String> = table.get("transforms");
    let filters: Vec<String> = table.get("filters");
    let (names, on_slave): (Vec<String>, Vec<String>) = (sides.master.get("names"), sides.slave.get("names"));
    let generated: Vec<bool> = sides.slave.get("generated");
    let (types, slave_types): (Vec<String>, Vec<String>) =
        (sides.master.get("full_types"), sides.slave.get("full_types"));
    let (mut columns, mut lacking, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (place, column) in names.iter().enumerate() {
        match on_slave.iter().position(|other| other == column) {
            _ if transforms.contains(column) => {
                notes.push(format!("{} is transformed and not compared", quote_ident(column)))
            }
            None => lacking.push(column.clone()),
            Some(other) if generated[other] => {}
            Some(other) => {
                if types[place] != slave_types[other] {
                    let (column, here) = (quote_ident(column), &slave_types[other]);
                    notes.push(format!(
                        "{column} is {} on the master and {here} on the slave; texts are compared",
                        types[place]
                    ));
                }
                columns.push(column.clone());
            }
        }
    }
    let condition = (!filters.is_empty()).then(|| {
        notes.push("only rows that the filter lets through are meant".into());
        let relname = quote_literal(table.get("name"));
        format!("pyreplica.admit({relname}, {}, 'INSERT', t, t) IS NOT NULL", quote_literal(&name))
    });
    let by_bytes = key
        .iter()
        .map(|column| Ok(pair.sorting(master, sides.master, column)? != pair.sorting(slave, sides.slave, column)?))
        .collect::<Result<Vec<bool>>>()?;
    let source = |row: &Row, condition| DigestSource {
        target: target(row),
        key: key_columns(row, &key, &by_bytes),
        columns: columns.clone(),
        hash: pair.hash,
        condition,
        search_path: search_path(row, &key),
    };
    if by_bytes.contains(&true) {
        notes.push("the sides sort its key differently; an index on it with COLLATE \"C\" would help".into());
    }
    let always: Vec<bool> = sides.slave.get("identity_always");
    let identity_always =
        on_slave.iter().zip(always).filter(|(_, always)| *always).map(|(name, _)| name.clone()).collect();
    Ok(ComparePlan {
        master: source(sides.master, condition),
        slave: source(sides.slave, None),
        underway: pair.underway.clone(),
        table: name,
        notes,
        lacking,
        identity_always,
        transformed: !transforms.is_empty(),
    })
}

impl Pair {
    /// How a column's values are sorted, in a form that is the same where values are sorted the same way.
    fn sorting(&mut self, session: &mut Session, table: &Row, column: &str) -> Result<String> {
        let Some(place) = position(table, column) else { return Ok(String::new()) };
        let collations: Vec<Option<String>> = table.get("collations");
        let Some(collation) = &collations[place] else { return Ok(String::new()) };
        if collation.is_empty() {
            // Never the same as anything: equal by such a collation is not equal.
            return Ok(format!("{}", session.side()));
        }
        let known = (session.side(), collation.clone());
        if let Some(sorted) = self.sorted.get(&known) {
            return Ok(sorted.clone());
        }
        let probe = format!(
            "select array(select s from unnest({SAMPLES}) s order by s collate {collation}, s collate \"C\")::text"
        );
        let sorted = session.text_rows("try a collation", &probe)?.concat().pop().flatten().unwrap_or_default();
        self.sorted.insert(known, sorted.clone());
        Ok(sorted)
    }
}

/// The fastest digest that both servers compute alike.
fn hash(master: &mut Session, slave: &mut Session) -> Result<Hash> {
    let there = master.text_rows("try the digest", PROBE)?.concat();
    let here = slave.text_rows("try the digest", PROBE)?.concat();
    // Of SQL_ASCII nobody knows what it is: its bytes are taken as they are.
    let is_ascii = |row: &[Option<String>]| row.get(1).is_some_and(|name| name.as_deref() == Some("SQL_ASCII"));
    Ok(match () {
        () if there.get(1) != here.get(1) && !is_ascii(&there) && !is_ascii(&here) => Hash::Md5OfUtf8,
        () if there.first() == here.first() => Hash::Fast,
        () => Hash::Md5,
    })
}

fn position(table: &Row, column: &str) -> Option<usize> {
    table.get::<_, Vec<String>>("names").iter().position(|name| name == column)
}

fn target(table: &Row) -> String {
    let name: &str = table.get("relation");
    if table.get("partitioned") { name.to_string() } else { format!("ONLY {name}") }
}

fn key_columns(table: &Row, key: &[String], by_bytes: &[bool]) -> Vec<KeyColumn> {
    let types: Vec<String> = table.get("base_types");
    let collations: Vec<Option<String>> = table.get("collations");
    let column = |(name, by_bytes): (&String, &bool)| {
        let place = position(table, name)?;
        // A number on this side is a text on the other.
        let by_bytes = *by_bytes && collations[place].is_some();
        Some(KeyColumn { name: name.clone(), base_type: types[place].clone(), by_bytes })
    };
    key.iter().zip(by_bytes).filter_map(column).collect()
}

fn search_path(table: &Row, key: &[String]) -> String {
    let schemas: Vec<String> = table.get("schemas");
    let mut path = SEARCH_PATH.to_string();
    for name in key {
        let Some(place) = position(table, name) else { continue };
        if schemas[place] != "pg_catalog" {
            path.push_str(&format!(", {}", quote_ident(&schemas[place])));
        }
    }
    path
}

/// Filters and transforms are their owner's affair.
fn allow(error: Error) -> Error {
    match error.code() {
        Some("42501") => error.with_hint(
            "as their owner, for the role that compares: GRANT SELECT ON py_log_filter, py_log_transform TO ...;",
        ),
        _ => error,
    }
}
