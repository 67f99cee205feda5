//! Checks that the master's tables are logged, and that the slave's tables can take the logged changes.

use super::whole_rows::{self, WholeRow};
use super::{Diagnosis, Level, lost_rows};
use crate::base::error::Result;
use crate::base::names::{Side, quote_ident, quote_literal};
use crate::config::tables::Tables;
use crate::health::sql;
use crate::server::checks;
use crate::server::session::{Row, Session};
use std::collections::{BTreeMap, HashSet};

/// Separates the columns of a unique index in the query's result.
const SEPARATOR: &str = "\u{1}";

struct Table {
    schema: String,
    name: String,
    relation: String,
    key: Vec<String>,
    /// Columns that could become the primary key.
    candidate: Vec<String>,
    /// Their index.
    candidate_index: Option<String>,
    /// REPLICA IDENTITY FULL: without a key the whole row identifies it.
    is_full: bool,
    columns: Vec<Column>,
    /// The columns of each unique index, with `SEPARATOR` between them.
    unique: Vec<String>,
    is_logged: bool,
    /// The operator has created the trigger and named the key columns in it.
    trigger_names_key: bool,
}

struct Column {
    name: String,
    /// The type as in CREATE TABLE.
    sql_type: String,
    /// The type without its schema, which for an extension's type may differ between the two sides.
    bare_type: String,
    not_null: bool,
    generated: bool,
    expression: Option<String>,
    identity: String,
    has_default: bool,
    /// The collation is nondeterministic: different texts may be equal.
    is_nondeterministic: bool,
}

type Catalog = BTreeMap<(String, String), Table>;

/// `tables`: those that the pair replicates; `has_log` says whether the log is installed on the master.
pub(super) fn examine(
    report: &mut Diagnosis,
    tables: &Tables,
    has_log: bool,
    mut master: Option<&mut Session>,
    slave: Option<&mut Session>,
) {
    let on_master = master.as_mut().and_then(|master| {
        let asked = catalog(master)
            .map(|catalog| catalog.into_iter().filter(|(_, table)| tables.has(&table.relation)).collect::<Catalog>());
        report.ok_or_warning(Some(Side::Master), "tables", asked)
    });
    let Some(slave) = slave else {
        logging(report, has_log, on_master.as_ref(), None);
        return;
    };
    let asked = catalog(slave);
    let on_slave = report.ok_or_warning(Some(Side::Slave), "tables", asked);
    logging(report, has_log, on_master.as_ref(), on_slave.as_ref());
    replaying(report, slave, on_master.as_ref());
    if let Some(on_master) = on_master.as_ref().filter(|_| has_log) {
        let logged = || on_master.values().filter(|table| table.is_logged);
        let schemas: Vec<&str> = logged().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = logged().map(|table| table.name.as_str()).collect();
        for session in [master.as_deref_mut(), Some(&mut *slave)].into_iter().flatten() {
            lost_rows::examine(report, session, (&schemas, &names));
        }
        let whole = logged().filter(|table| table.key.is_empty() && !table.trigger_names_key);
        let whole: Vec<WholeRow> =
            whole.map(|Table { schema, name, relation, .. }| WholeRow { schema, name, relation }).collect();
        whole_rows::examine(report, &whole, master.as_deref_mut(), slave);
    }
    let (Some(on_master), Some(on_slave)) = (on_master, on_slave) else { return };
    // If the role may not read which columns are left out, the findings include such columns too.
    let left_out: HashSet<(String, String)> = match master.filter(|_| has_log) {
        Some(master) => {
            let rows = master.query("look at the transforms", sql::LEFT_OUT, &[]).unwrap_or_default();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
        None => HashSet::new(),
    };
    let before = report.findings.len();
    for table in on_master.values().filter(|table| table.is_logged) {
        match on_slave.get(&(table.schema.clone(), table.name.clone())) {
            Some(other) => compare(report, table, other, |column| {
                [&table.name, &table.relation]
                    .iter()
                    .any(|name| left_out.contains(&(name.to_string(), column.to_string())))
            }),
            None => missing(report, table, on_slave.keys().any(|(schema, _)| *schema == table.schema)),
        }
    }
    if report.findings.len() == before {
        let logged = on_master.values().filter(|table| table.is_logged).count();
        report.add(Level::Ok, None, "tables", format!("logged tables that are the same on both sides: {logged}"));
    }
}

/// Finds tables of the master that are not logged.
fn logging(report: &mut Diagnosis, has_log: bool, on_master: Option<&Catalog>, on_slave: Option<&Catalog>) {
    let Some(on_master) = on_master else { return };
    let side = Some(Side::Master);
    let mut is_fine = true;
    for (place, table) in
        on_master.iter().filter(|(_, table)| !table.is_logged || (table.lacks_identity() && !table.trigger_names_key))
    {
        // If the slave does not have the table either, perhaps it should not be replicated.
        let level = match on_slave {
            Some(there) if !there.contains_key(place) => Level::Note,
            _ => Level::Warning,
        };
        let create = format!(
            "SELECT public.py_log_create_tg({}, {}{});",
            quote_literal(&table.schema),
            quote_literal(&table.name),
            if ["row", "statement"].contains(&table.name.as_str()) { ", 'row'" } else { "" }
        );
        let Table { relation, .. } = table;
        if table.lacks_identity() && table.is_logged {
            is_fine = false;
            let text = format!(
                "{relation} has lost its key or its REPLICA IDENTITY: its changes are still logged, as whole rows, but a new \
                 trigger would be refused"
            );
            let fix = format!("ALTER TABLE {relation} REPLICA IDENTITY FULL;");
            report.add(level, side, "keys", text).fix(fix).advise("or give it a primary key, on both sides");
        } else if table.lacks_identity() {
            is_fine = false;
            let text = format!("{relation} has no primary key: its changes are not replicated");
            let finding = report.add(level, side, "keys", text);
            let index = table.candidate_index.as_deref().unwrap_or("...");
            let without = format!(
                "if a unique index of NOT NULL columns identifies a row: ALTER TABLE {relation} REPLICA IDENTITY USING INDEX \
                 {index}; if only the whole row does: ALTER TABLE {relation} REPLICA IDENTITY FULL;"
            );
            if table.candidate.is_empty() {
                finding.advise(format!("give it one, on both sides. Or, {without} then create the trigger: {create}"));
            } else {
                finding.fix(format!("ALTER TABLE {relation} ADD PRIMARY KEY ({});", list(&table.candidate)));
                finding.fixes.extend(has_log.then_some(create));
                finding.advise(format!("add the key on the slave too. Or, {without}"));
            }
        } else if has_log {
            is_fine = false;
            let text = format!("{relation} has no trigger: its changes are not replicated");
            report
                .add(level, side, "triggers", text)
                .fix(create)
                .advise("copy the rows that it has already: pyreplica copy");
        }
    }
    if is_fine && has_log {
        report.add(Level::Ok, side, "triggers", format!("on all tables: {}", on_master.len()));
    }
}

/// Finds what would disturb replay on the slave.
fn replaying(report: &mut Diagnosis, slave: &mut Session, on_master: Option<&Catalog>) {
    let side = Some(Side::Slave);
    let may_take = checks::may_take_replica_role(slave);
    let Some(may_take) = report.ok_or_warning(side, "replica role", may_take) else { return };
    if may_take {
        report.add(Level::Ok, side, "replica role", "the slave's triggers and cascades do not run");
    } else {
        let role = slave.query_one("ask for the role", sql::ROLE_AND_VERSION, &[]);
        let text = "the role may not set session_replication_role: the slave's triggers and cascades run too";
        let finding = report.add(Level::Warning, side, "replica role", text);
        match role.map(|row| (row.get::<_, String>(0), row.get::<_, i32>(1))) {
            Ok((role, version)) if version >= 150_000 => {
                finding.fix(format!("GRANT SET ON PARAMETER session_replication_role TO {};", quote_ident(&role)));
            }
            _ => drop(
                finding.advise("before PostgreSQL 15 only a superuser may set it; docs/rights.md says what that means"),
            ),
        }
    }
    let progress = checks::has_progress(slave)
        .and_then(|has| if has { checks::missing_progress_rights(slave).map(Some) } else { Ok(None) });
    match progress {
        Ok(Some(None)) => drop(report.add(Level::Ok, side, "progress", "the table replica_progress is there")),
        Ok(Some(Some(missing))) => {
            let text = "the role lacks rights on replica_progress";
            let finding = report.add(Level::Failure, side, "progress", text);
            for grant in missing.split_inclusive(';') {
                finding.fix(grant.trim().to_string());
            }
        }
        Ok(None) => {
            let text = "there is no table replica_progress of this version yet";
            let advice =
                "the daemon creates it, if its role may create tables in public; otherwise run sql/slave-install.sql";
            report.add(Level::Note, side, "progress", text).advise(advice);
        }
        Err(error) => drop(report.add_failure("progress", &error)),
    }
    let Some(on_master) = on_master else { return };
    let logged = || on_master.values().filter(|table| table.is_logged);
    let schemas: Vec<&str> = logged().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = logged().map(|table| table.name.as_str()).collect();
    let subjects =
        [("rights", "the role may write to every table"), ("row security", "none"), ("slave triggers", "none fires")];
    report.ask(slave, &subjects, sql::DOCTOR_SLAVE, &[&schemas, &may_take, &names]);
}

fn missing(report: &mut Diagnosis, table: &Table, has_schema: bool) {
    let Table { relation, .. } = table;
    let text = format!("{relation} is logged on the master and missing on the slave");
    let finding = report.add(Level::Failure, Some(Side::Slave), "tables", text);
    if !has_schema && table.schema != "public" {
        finding.fix(format!("CREATE SCHEMA IF NOT EXISTS {};", quote_ident(&table.schema)));
    }
    let mut parts: Vec<String> = table.columns.iter().map(definition).collect();
    if !table.key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", list(&table.key)));
    }
    finding.fix(format!("CREATE TABLE {relation} ({});", parts.join(", ")));
    finding.advise("for defaults, indexes and constraints use pg_dump --schema-only, for its rows pyreplica copy");
}

fn compare(report: &mut Diagnosis, table: &Table, other: &Table, is_left_out: impl Fn(&str) -> bool) {
    let Table { relation, .. } = table;
    let side = Some(Side::Slave);
    for column in table.columns.iter().filter(|column| !column.generated && !is_left_out(&column.name)) {
        let name = quote_ident(&column.name);
        let Some(there) = other.columns.iter().find(|there| there.name == column.name) else {
            let text = format!("{relation} lacks the column {name}");
            let add = format!("ALTER TABLE {relation} ADD COLUMN {name} {};", column.sql_type);
            report.add(Level::Failure, side, "columns", text).fix(add);
            continue;
        };
        if there.bare_type != column.bare_type && !there.generated {
            let text =
                format!("{relation}.{name} is {} on the slave, {} on the master", there.sql_type, column.sql_type);
            report.add(Level::Warning, side, "columns", text).fix(format!(
                "ALTER TABLE {relation} ALTER COLUMN {name} TYPE {0} USING {name}::pg_catalog.text::{0};",
                column.sql_type
            ));
        }
        if there.is_nondeterministic != column.is_nondeterministic
            && table.unique.iter().any(|set| set.split(SEPARATOR).any(|c| c == column.name))
        {
            let text =
                format!("{relation}.{name} is unique, but the two sides' collations differ in which texts are equal");
            report.add(Level::Warning, side, "columns", text).advise("give it the same collation on both sides");
        }
    }
    for column in other.columns.iter().filter(|there| there.not_null && !there.has_default && !there.generated) {
        if !table.columns.iter().any(|here| here.name == column.name) || is_left_out(&column.name) {
            let name = quote_ident(&column.name);
            let text = format!("{relation}.{name} must not be null on the slave, and the master sends nothing for it");
            let fix = format!("ALTER TABLE {relation} ALTER COLUMN {name} DROP NOT NULL;");
            report.add(Level::Failure, side, "columns", text).fix(fix);
        }
    }
    let mut key = table.key.clone();
    key.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let is_unique = |set: &String| {
        let mut columns: Vec<&str> = set.split(SEPARATOR).collect();
        columns.sort_unstable();
        columns == key
    };
    if !key.is_empty() && !table.trigger_names_key && !other.unique.iter().any(is_unique) {
        let text = format!("{relation} is not unique on the slave by the master's key ({})", list(&table.key));
        let fix = if other.key.is_empty() {
            format!("ALTER TABLE {relation} ADD PRIMARY KEY ({});", list(&table.key))
        } else {
            format!("CREATE UNIQUE INDEX ON {relation} ({});", list(&table.key))
        };
        report.add(Level::Warning, side, "keys", text).fix(fix);
    }
}

impl Table {
    /// Whether nothing says which row is which, so that py_log_create_tg makes no trigger.
    fn lacks_identity(&self) -> bool {
        self.key.is_empty() && !self.is_full
    }
}

/// The definition of a column in CREATE TABLE.
fn definition(column: &Column) -> String {
    let mut text = format!("{} {}", quote_ident(&column.name), column.sql_type);
    match (&column.expression, column.identity.as_str()) {
        (Some(expression), _) => text += &format!(" GENERATED ALWAYS AS ({expression}) STORED"),
        (None, "a") => text += " GENERATED ALWAYS AS IDENTITY",
        (None, "d") => text += " GENERATED BY DEFAULT AS IDENTITY",
        (None, _) if column.not_null => text += " NOT NULL",
        (None, _) => {}
    }
    text
}

fn list(columns: &[String]) -> String {
    columns.iter().map(|column| quote_ident(column)).collect::<Vec<_>>().join(", ")
}

fn catalog(session: &mut Session) -> Result<Catalog> {
    let rows = session.query("look at the tables", &sql::DOCTOR_CATALOG, &[])?;
    Ok(rows.iter().map(|row| ((row.get("schema"), row.get("name")), table(row))).collect())
}

fn table(row: &Row) -> Table {
    let texts = |name| row.get::<_, Option<Vec<String>>>(name).unwrap_or_default();
    let flags = |name| row.get::<_, Option<Vec<bool>>>(name).unwrap_or_default();
    let (sql_types, bare_types, identity) = (texts("types"), texts("plain"), texts("identity"));
    let expressions = row.get::<_, Option<Vec<Option<String>>>>("expressions").unwrap_or_default();
    let (not_null, generated) = (flags("notnull"), flags("generated"));
    let (has_default, is_nondeterministic) = (flags("filled"), flags("loose"));
    let columns = texts("names").into_iter().enumerate().map(|(n, name)| Column {
        name,
        sql_type: sql_types[n].clone(),
        bare_type: bare_types[n].clone(),
        not_null: not_null[n],
        generated: generated[n],
        expression: expressions[n].clone(),
        identity: identity[n].clone(),
        has_default: has_default[n],
        is_nondeterministic: is_nondeterministic[n],
    });
    Table {
        schema: row.get("schema"),
        name: row.get("name"),
        relation: row.get("relation"),
        key: texts("key"),
        candidate: texts("candidate"),
        candidate_index: row.get("candidate_index"),
        is_full: row.get("full_row"),
        columns: columns.collect(),
        unique: texts("unique"),
        is_logged: row.get("logged"),
        trigger_names_key: row.get("by_hand"),
    }
}
