//! Which tables can be compared, by which key and columns, and why others cannot.

use super::in_progress::PendingChanges;
use crate::base::error::{Error, Kind, ON_PRIMARY, Result};
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::compare::digest::{DigestSource, Hash, KeyColumn};
use crate::compare::sql;
use crate::config::settings::Config;
use crate::server::session::{Row, Session};
use std::collections::HashMap;

/// What is done with one table of the master.
pub enum TablePlan {
    Compare(Box<ComparePlan>),
    LeftOut(LeftOutTable),
}

/// A table that is not compared.
pub struct LeftOutTable {
    pub table: String,
    pub reason: String,
    pub kind: LeftOutKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOutKind {
    /// The slave is not meant to have the same rows, or the table's changes are not logged.
    ByDesign,
    /// The slave should have the same rows, but no key says which row corresponds to which.
    NoKey,
    /// The table's changes are logged, but the slave does not have the table.
    NotOnSlave,
}

/// How one table is compared.
pub struct ComparePlan {
    /// The table's name as the log writes it: qualified, and quoted where necessary.
    pub table: String,
    pub master: DigestSource,
    pub slave: DigestSource,
    /// What the operator should know about the result.
    pub notes: Vec<String>,
    /// Columns of the master that the slave lacks.
    pub lacking: Vec<String>,
    /// Columns of the slave that take a value in an INSERT only.
    pub identity_always: Vec<String>,
    /// A transform changes the table's values, so the master's rows cannot be written to the slave.
    pub transformed: bool,
    pub pending: PendingChanges,
}

/// What both sides' catalogs say about one table.
struct Sides<'a> {
    master: &'a Row,
    slave: &'a Row,
}

/// What is the same for all tables of a pair.
struct Pair {
    hash: Hash,
    pending: PendingChanges,
    sorted: HashMap<(Side, String), String>,
}

/// Makes both sides write equal values as equal texts, and hides other objects from the queries.
const SETTINGS: &str = "set timezone = 'UTC'; set search_path = pg_catalog, pg_temp";

/// Texts that different collations, and different versions of one collation, sort differently.
const SAMPLES: &str = "'{a,B,A,b,a-b,ab,\"a b\",aB,1-1,11,1 1,_a,.a,a.b,Z,z,10,9,a1,A1,ch,cz,aa,az,-,~}'::text[]";

/// Digests a row on each server, to see whether both compute the same.
const PROBE: &str = "select hashtextextended(ROW(1, 'pyreplica', 0.5::float8, '2026-01-01 12:00:00+00'::timestamptz)::text \
     collate \"C\", 0)::text, pg_encoding_to_char(encoding)::text from pg_database where datname = current_database()";

/// Plans for the tables with these names, or for all of the master's tables.
pub fn plans(config: &Config, master: &mut Session, slave: &mut Session, wanted: &[String]) -> Result<Vec<TablePlan>> {
    for session in [&mut *master, &mut *slave] {
        session.message("set the session up", SETTINGS)?;
    }
    slave.refuse_views()?;
    let mut pair = Pair {
        hash: hash(master, slave)?,
        pending: PendingChanges::new(config, master, slave)?,
        sorted: HashMap::new(),
    };
    let mut tables = master.query("look at the tables", &sql::REPLICATED, &[]).map_err(add_grant_hint)?;
    tables.retain(|row| config.tables.has(row.get("relation")));
    if !wanted.is_empty() {
        for name in wanted {
            if !tables.iter().any(|row| is_called(row, name)) {
                return Err(Error::new(Kind::Usage, Some(Side::Master), format!("find table {name}"), "there is none")
                    .with_hint("name it as table, or as schema.table; if TABLES is set, it must be one of these"));
            }
        }
        tables.retain(|row| wanted.iter().any(|name| is_called(row, name)));
    }
    let names: Vec<&str> = tables.iter().map(|row| row.get("relation")).collect();
    let on_master = master.query("look at the tables", sql::COMPARABLE, &[&names])?;
    let on_slave = slave.query("look at the tables", sql::COMPARABLE, &[&names])?;
    let mut plans = Vec::new();
    for table in &tables {
        let name: &str = table.get("relation");
        let find = |rows: &'_ [Row]| rows.iter().position(|row| row.get::<_, &str>("relation") == name);
        // The table was dropped a moment ago: it is not compared.
        let Some(row_on_master) = find(&on_master).map(|n| &on_master[n]) else { continue };
        let sides = find(&on_slave).map(|n| Sides { master: row_on_master, slave: &on_slave[n] });
        plans.push(table_plan(&mut pair, master, slave, table, sides)?);
    }
    Ok(plans)
}

fn is_called(row: &Row, wanted: &str) -> bool {
    let (relation, name): (&str, &str) = (row.get("relation"), row.get("name"));
    let plain = relation.replace("\"\"", "\u{1}").replace('"', "").replace('\u{1}', "\"");
    [relation, name, &plain].contains(&wanted)
}

fn table_plan(
    pair: &mut Pair,
    master: &mut Session,
    slave: &mut Session,
    table: &Row,
    sides: Option<Sides>,
) -> Result<TablePlan> {
    let name: String = table.get("relation");
    let left_out = |kind, reason: String| Ok(TablePlan::LeftOut(LeftOutTable { table: name.clone(), reason, kind }));
    let key: Option<Vec<String>> = table.get("key");
    if !table.get::<_, bool>("logged") {
        let why = if key.is_none() && !table.get::<_, bool>("full_row") {
            "no primary key, so its changes are not logged"
        } else {
            "its changes are not logged"
        };
        return left_out(LeftOutKind::ByDesign, why.into());
    }
    if !table.get::<_, bool>("known") {
        let what = "its changes are logged under a name that pyreplica does not know: SELECT py_log_create_tg(...)";
        let place = if master.is_standby() { format!(" {ON_PRIMARY}") } else { String::new() };
        return left_out(LeftOutKind::ByDesign, format!("{what}{place}"));
    }
    let filters: Vec<String> = table.get("filters");
    if let Some(event) = filters.iter().find(|event| *event != "INSERT") {
        return left_out(LeftOutKind::ByDesign, format!("a filter withholds some of its {event}s"));
    }
    let Some(sides) = sides else { return left_out(LeftOutKind::NotOnSlave, "the slave does not have it".into()) };
    let Some(key) = key else {
        return plan(pair, master, slave, table, &sides, None).map(|plan| TablePlan::Compare(Box::new(plan)));
    };
    for (side, row) in [(Side::Master, sides.master), (Side::Slave, sides.slave)] {
        let unique: Vec<String> = row.get::<_, Option<Vec<String>>>("unique").unwrap_or_default();
        let is_unique = |names: &String| names.split('\u{1}').all(|name| key.iter().any(|column| column == name));
        if !unique.iter().any(is_unique) {
            let shown: Vec<String> = key.iter().map(|name| quote_ident(name)).collect();
            return left_out(
                LeftOutKind::NoKey,
                format!("the {side} has no unique index on ({}), so rows cannot be matched", shown.join(", ")),
            );
        }
    }
    for (side, row) in [(Side::Master, sides.master), (Side::Slave, sides.slave)] {
        let nested: Vec<bool> = row.get("nested_domains");
        if let Some(name) = key.iter().find(|name| position(row, name).is_some_and(|place| nested[place])) {
            // To read such a value is to run the checks of the domain.
            return left_out(
                LeftOutKind::NoKey,
                format!("{} is of a type that is made of a domain on the {side}", quote_ident(name)),
            );
        }
    }
    plan(pair, master, slave, table, &sides, Some(key)).map(|plan| TablePlan::Compare(Box::new(plan)))
}

fn plan(
    pair: &mut Pair,
    master: &mut Session,
    slave: &mut Session,
    table: &Row,
    sides: &Sides,
    key: Option<Vec<String>>,
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
                    let (column, slave_type) = (quote_ident(column), &slave_types[other]);
                    notes.push(format!(
                        "{column} is {} on the master and {slave_type} on the slave; they are compared as text",
                        types[place]
                    ));
                }
                columns.push(column.clone());
            }
        }
    }
    let condition = (!filters.is_empty()).then(|| {
        notes.push("only rows that pass the filter are compared".into());
        let relname = quote_literal(table.get("name"));
        format!("pyreplica.admit({relname}, {}, t.tableoid, 'INSERT', t, t) IS NOT NULL", quote_literal(&name))
    });
    // Without a key the digest of the row takes its place.
    let is_by_digest = key.is_none();
    let key = key.unwrap_or_default();
    let by_bytes = key
        .iter()
        .map(|column| Ok(pair.sorting(master, sides.master, column)? != pair.sorting(slave, sides.slave, column)?))
        .collect::<Result<Vec<bool>>>()?;
    let (mut master_key, mut slave_key) =
        with_common_types(key_columns(sides.master, &key, &by_bytes), key_columns(sides.slave, &key, &by_bytes));
    if is_by_digest {
        (master_key, slave_key) = (vec![KeyColumn::digest()], vec![KeyColumn::digest()]);
    }
    let source = |row: &Row, columns_of_key, condition| DigestSource {
        is_by_digest,
        types: types_of(row, &columns),
        target: target(row),
        key: columns_of_key,
        columns: columns.clone(),
        hash: pair.hash,
        condition,
    };
    if by_bytes.contains(&true) {
        notes.push("the sides sort its key differently; an index on it with COLLATE \"C\" would help".into());
    }
    let always: Vec<bool> = sides.slave.get("identity_always");
    let identity_always =
        on_slave.iter().zip(always).filter(|(_, always)| *always).map(|(name, _)| name.clone()).collect();
    Ok(ComparePlan {
        master: source(sides.master, master_key, condition),
        slave: source(sides.slave, slave_key, None),
        pending: pair.pending.clone(),
        table: name,
        notes,
        lacking,
        identity_always,
        transformed: !transforms.is_empty(),
    })
}

impl Pair {
    /// How a column's values are sorted: the text is the same on both sides if they sort the same way.
    fn sorting(&mut self, session: &mut Session, table: &Row, column: &str) -> Result<String> {
        let Some(place) = position(table, column) else { return Ok(String::new()) };
        let collations: Vec<Option<String>> = table.get("collations");
        let Some(collation) = &collations[place] else { return Ok(String::new()) };
        if collation.is_empty() {
            // A text that the other side never has: under a nondeterministic collation different values may be equal.
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
    let from_master = master.text_rows("try the digest", PROBE)?.concat();
    let from_slave = slave.text_rows("try the digest", PROBE)?.concat();
    // The encoding of a SQL_ASCII database is unknown: its bytes are compared as they are.
    let is_ascii = |row: &[Option<String>]| row.get(1).is_some_and(|name| name.as_deref() == Some("SQL_ASCII"));
    Ok(match () {
        () if from_master.get(1) != from_slave.get(1) && !is_ascii(&from_master) && !is_ascii(&from_slave) => {
            Hash::Md5OfUtf8
        }
        () if from_master.first() == from_slave.first() => Hash::Fast,
        () => Hash::Md5,
    })
}

fn position(table: &Row, column: &str) -> Option<usize> {
    table.get::<_, Vec<String>>("names").iter().position(|name| name == column)
}

/// The types of columns, if the text of a logged row may be cast to each.
fn types_of(table: &Row, columns: &[String]) -> Option<Vec<String>> {
    let types: Vec<String> = table.get("base_types");
    let castable: Vec<bool> = table.get("castable");
    let sql_type = |name: &String| position(table, name).filter(|p| castable[*p]).map(|p| types[p].clone());
    columns.iter().map(sql_type).collect()
}

fn target(table: &Row) -> String {
    let name: &str = table.get("relation");
    if table.get("partitioned") { name.to_string() } else { format!("ONLY {name}") }
}

fn key_columns(table: &Row, key: &[String], by_bytes: &[bool]) -> Vec<KeyColumn> {
    let types: Vec<String> = table.get("base_types");
    let collations: Vec<Option<String>> = table.get("collations");
    let operators: Vec<Option<String>> = table.get("operators");
    let runs_casts: Vec<bool> = table.get("runs_casts");
    let column = |(name, by_bytes): (&String, &bool)| {
        let place = position(table, name)?;
        // The column may be a number on this side and a text on the other.
        let by_bytes = *by_bytes && collations[place].is_some();
        Some(KeyColumn {
            name: name.clone(),
            base_type: types[place].clone(),
            operators: operators[place].clone().unwrap_or_else(|| "pg_catalog".into()),
            by_bytes,
            runs_casts: runs_casts[place],
        })
    };
    key.iter().zip(by_bytes).filter_map(column).collect()
}

/// If a key is a number of another size on each side, its values are read in the larger type: one of the master's may not
/// fit into the slave's.
fn with_common_types(mut master: Vec<KeyColumn>, mut slave: Vec<KeyColumn>) -> (Vec<KeyColumn>, Vec<KeyColumn>) {
    let size = |column: &KeyColumn| {
        ["smallint", "integer", "bigint", "numeric"].iter().position(|name| *name == column.base_type)
    };
    for (here, there) in master.iter_mut().zip(&mut slave) {
        if let (Some(ours), Some(theirs)) = (size(here), size(there)) {
            let larger = if ours > theirs { here.base_type.clone() } else { there.base_type.clone() };
            here.base_type.clone_from(&larger);
            there.base_type = larger;
        }
    }
    (master, slave)
}

/// Only their owner may read filters and transforms, unless it grants that.
fn add_grant_hint(error: Error) -> Error {
    match error.code() {
        Some("42501") => error
            .with_hint("as their owner, for the role of DSN0: GRANT SELECT ON py_log_filter, py_log_transform TO ...;"),
        _ => error,
    }
}
