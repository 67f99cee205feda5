//! Statements that find rows by the values of all their columns, for tables without a key (REPLICA IDENTITY FULL).
//!
//! Rows are compared by their text, which works for every type, also for one without `=`, and calls no function but the
//! types' own for input and output: `ROW(a, b)::text` is made by these, while a cast of the column itself might be one that
//! the owner of the type has made. The log's text becomes a value of the column's type first, since a time has another
//! text in another time zone.
//!
//! Of several equal rows each statement takes as many as there are changes, by their ctid. Before it compares texts it
//! compares those columns for which that costs little, or for which the slave has an index (`Column::is_probe`).

use crate::base::names::quote_ident;
use crate::replay::table::Table;

/// Has the planner read a whole table once for a set of rows, instead of once for each row of it. The planner can't know how
/// many rows the text of a row finds, so it is not asked: there are neither nested loops nor sorts of the table. The
/// memory is for a table of the rows that are looked for.
pub const BY_SCAN: &str = "SELECT pg_catalog.set_config('enable_nestloop', 'off', true), \
     pg_catalog.set_config('enable_hashjoin', 'on', true), pg_catalog.set_config('enable_seqscan', 'on', true), \
     pg_catalog.set_config('work_mem', '32MB', true), pg_catalog.set_config('plan_cache_mode', 'force_custom_plan', true)";

/// The same if an index finds the rows.
pub const BY_INDEX: &str = "SELECT pg_catalog.set_config('enable_nestloop', 'off', true), \
     pg_catalog.set_config('enable_hashjoin', 'on', true), pg_catalog.set_config('work_mem', '32MB', true), \
     pg_catalog.set_config('plan_cache_mode', 'force_custom_plan', true)";

/// Goes back to `sql::USE_INDEXES`.
pub const AS_BEFORE: &str = "SELECT pg_catalog.set_config('enable_nestloop', 'on', true), \
     pg_catalog.set_config('enable_hashjoin', 'off', true), \
     pg_catalog.set_config('enable_seqscan', 'off', true), \
     pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true)";

const IS: &str = "OPERATOR(pg_catalog.=)";

/// A column and the expression for its value, of the type without modifier.
pub type Value = (u16, String);

/// The condition that finds one row that has these values. `is_null` says which of them are NULL.
pub fn condition(table: &Table, values: &[Value], is_null: impl Fn(u16) -> bool) -> String {
    let probes = values.iter().filter(|(p, _)| table.column(*p).is_probe && !is_null(*p));
    let mut terms: Vec<String> =
        probes.map(|(p, value)| format!("{} {IS} {value}::{}", own(table, *p), compared_type(table, *p))).collect();
    let compared: Vec<u16> = values.iter().map(|(p, _)| *p).collect();
    terms.push(format!("{} {IS} (SELECT {})", text_of(table, &compared), text(table, values)));
    format!(
        "(tableoid, ctid) {IS} ANY (SELECT s.tableoid, s.ctid FROM {} AS s WHERE {} LIMIT 1)",
        table.target,
        terms.join(" AND ")
    )
}

/// A set of rows to be found.
pub struct Wanted<'a> {
    /// The functions that return the values of all rows.
    pub from: String,
    pub compared: &'a [Value],
    /// The columns that are NULL in none of the rows, and cheap to compare.
    pub probes: &'a [u16],
    /// A condition by which an index finds the rows, if there is one.
    pub by_index: Option<String>,
    /// The columns to write, and their new values.
    pub written: &'a [Value],
}

/// The statement that deletes these rows, or updates them.
pub fn set_statement(table: &Table, wanted: &Wanted, is_delete: bool) -> String {
    let Wanted { from, compared, probes, by_index, written } = wanted;
    let probe_value = |p: &u16| {
        let value = compared.iter().find(|(known, _)| known == p).map_or("NULL", |(_, value)| value.as_str());
        format!("{value}::{}", compared_type(table, *p))
    };
    let selected: String = probes.iter().zip(1..).map(|(p, n)| format!(", {} AS k{n}", probe_value(p))).collect();
    let new: String = written.iter().zip(1..).map(|((_, value), n)| format!(", {value} AS v{n}")).collect();
    let names: String = (1..=probes.len()).map(|n| format!(", k{n}")).collect();
    let columns: Vec<u16> = compared.iter().map(|(p, _)| *p).collect();
    // "IS TRUE" keeps this from becoming a join, for which the planner would hash the table and compute the text of each row.
    let is_likely = if probes.is_empty() {
        format!("({} {IS} ANY (SELECT g.o FROM g)) IS TRUE", text_of(table, &columns))
    } else {
        let own: Vec<String> = probes.iter().map(|p| own(table, *p)).collect();
        format!("(ROW({}) {IS} ANY (SELECT {} FROM g)) IS TRUE", own.join(", "), names.trim_start_matches(", "))
    };
    let own_probes = probes.iter().zip(1..).map(|(p, n)| format!("{} {IS} g.k{n}", own(table, *p)));
    let terms: Vec<String> = own_probes
        .chain([format!("{} {IS} g.o", text_of(table, &columns))])
        .chain([is_likely])
        .chain(by_index.clone())
        .collect();
    // The rows of "w" with equal texts follow each other: to the n-th row found belongs the n-th of them.
    let with = format!(
        "WITH w AS MATERIALIZED (SELECT y.*, pg_catalog.row_number() OVER (ORDER BY y.o) AS place FROM \
         (SELECT {} COLLATE \"C\" AS o{selected}{new} FROM {from}) y), \
         g AS MATERIALIZED (SELECT o{names}, pg_catalog.count(*) AS rows, pg_catalog.min(place) AS first FROM w GROUP BY o{names}), \
         f AS MATERIALIZED (SELECT z.* FROM (SELECT s.tableoid AS tab, s.ctid AS at, g.rows, g.first, \
         pg_catalog.row_number() OVER (PARTITION BY g.o) AS n FROM {} AS s JOIN g ON {}) z \
         WHERE z.n OPERATOR(pg_catalog.<=) z.rows)",
        text(table, compared),
        table.target,
        terms.join(" AND ")
    );
    // Before PostgreSQL 14 a ctid can't be hashed.
    let found = format!(
        "t.ctid {IS} ANY (ARRAY(SELECT f.at FROM f)) AND t.ctid::pg_catalog.text {IS} f.at::pg_catalog.text \
         AND t.tableoid {IS} f.tab"
    );
    if is_delete {
        return format!("{with} DELETE FROM {} AS t USING f WHERE {found}", table.target);
    }
    let set: Vec<String> = written
        .iter()
        .zip(1..)
        .map(|((p, _), n)| format!("{} = w.v{n}", quote_ident(&table.column(*p).name)))
        .collect();
    format!(
        "{with} UPDATE {} AS t SET {} FROM f JOIN w ON w.place {IS} (f.first OPERATOR(pg_catalog.+) f.n OPERATOR(pg_catalog.-) 1) \
         WHERE {found}",
        table.target,
        set.join(", ")
    )
}

/// The text of the slave's row.
fn text_of(table: &Table, columns: &[u16]) -> String {
    // A domain has another type than what it is made of, and the same text.
    let columns: Vec<String> = columns.iter().map(|p| own(table, *p)).collect();
    format!("ROW({})::pg_catalog.text COLLATE \"C\"", columns.join(", "))
}

/// The text of a row of these values, as the slave would write it.
fn text(table: &Table, values: &[Value]) -> String {
    let values: Vec<String> =
        values.iter().map(|(p, value)| format!("{value}::{}", compared_type(table, *p))).collect();
    format!("ROW({})::pg_catalog.text", values.join(", "))
}

fn own(table: &Table, position: u16) -> String {
    format!("s.{}", quote_ident(&table.column(position).name))
}

/// The type in which values are compared. A type that is not PostgreSQL's own stays without its modifier: for that its owner may
/// have made a cast.
fn compared_type(table: &Table, position: u16) -> &str {
    let column = table.column(position);
    // The session searches pg_catalog only, so any other type has its schema in its name.
    if column.base_type.contains('.') { &column.base_type } else { &column.full_type }
}
