//! What the query for the definition of a table returns.

use crate::replay::table::{Column, Table};
use crate::server::session::Row;

/// Adds the unique constraints and indexes of the slave's table.
pub(super) fn add_constraints(table: &mut Table, row: &Row) {
    let (unique, deferrable) = (lists(row, "unique"), lists(row, "deferrable"));
    deferrable.iter().for_each(|names| table.add_deferrable(names));
    unique.iter().chain(&deferrable).for_each(|names| table.add_unique(names));
    if row.get("setwise") {
        table.allow_sets(&unique);
    }
    let indexed: Vec<String> = row.get("indexed");
    let positions = indexed.iter().filter_map(|name| table.position(name));
    table.indexed = positions.filter(|p| table.column(*p).is_probe).collect();
}

/// Lists of names. The query returns each list as one text.
pub(super) fn lists<'a>(row: &'a Row, column: &str) -> Vec<Vec<&'a str>> {
    let lists: Option<Vec<&str>> = row.get(column);
    lists.unwrap_or_default().into_iter().map(|names| names.split('\u{1}').collect()).collect()
}

pub(super) fn columns(row: &Row) -> Vec<Column> {
    let names: Option<Vec<String>> = row.get("names");
    let base_types: Option<Vec<String>> = row.get("base_types");
    let full_types: Option<Vec<String>> = row.get("full_types");
    let generated: Option<Vec<bool>> = row.get("generated");
    let identity: Option<Vec<bool>> = row.get("identity_always");
    let array_types: Option<Vec<Option<String>>> = row.get("array_types");
    let operators: Option<Vec<Option<String>>> = row.get("operators");
    let (plain, brief): (Option<Vec<bool>>, Option<Vec<bool>>) = (row.get("plain"), row.get("brief"));
    let indexed: Vec<String> = row.get("indexed");
    let mut kinds = plain.unwrap_or_default().into_iter().zip(brief.unwrap_or_default());
    let names = names.unwrap_or_default().into_iter();
    let types = base_types.unwrap_or_default().into_iter().zip(full_types.unwrap_or_default());
    let flags = generated.unwrap_or_default().into_iter().zip(identity.unwrap_or_default());
    let types = types.zip(operators.unwrap_or_default());
    names
        .zip(types)
        .zip(array_types.unwrap_or_default())
        .zip(flags)
        .map(|(((name, ((base_type, full_type), operators)), array_type), (generated, identity_always))| Column {
            is_probe: kinds.next().is_some_and(|(plain, brief)| brief || plain && indexed.contains(&name)),
            name,
            operators,
            base_type,
            full_type,
            is_cast: array_type.is_none(),
            array_type: array_type.unwrap_or_else(|| "pg_catalog.text[]".into()),
            generated,
            identity_always,
        })
        .collect()
}
