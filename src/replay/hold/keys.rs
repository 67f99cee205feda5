//! Finds out which change depends on which, by hashes that are stored with the changes in quarantine.
//!
//! A change has *keys*, the hashes of what it touches, and *needs*: it depends on each earlier change in quarantine that
//! has one of these hashes among its keys. Two changes have a hash in common if they touch the same row, by its key; if one
//! frees a value of another unique constraint and the other takes it; and by a foreign key of the slave: the change of a
//! row that refers to another waits for the change that inserts that row, and the change that deletes a row waits for the
//! changes of rows that still referred to it. Two changes of rows that refer to the same row do not depend on each other. A
//! change of a row that refers to another does not depend on an UPDATE of that row which leaves the referenced columns
//! alone.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::Row;
use crate::replay::table::Table;
use std::collections::BTreeSet;

/// What a hash is made of. Each tag has its letter in the hashes; they are stored, so the letters must not change.
#[derive(Clone, Copy)]
enum Tag {
    /// Every change of the table has this key.
    Any,
    /// A change of all rows, or of unknown ones.
    All,
    Row,
    Unique,
    /// A row that others may refer to is inserted or deleted.
    Target,
    /// A row refers, or referred, to another.
    Reference,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dependencies {
    pub keys: BTreeSet<i64>,
    pub needs: BTreeSet<i64>,
}

/// The dependencies of a change; `table` is its table on the slave. A free statement has none: it is unknown what it
/// touches.
pub(super) fn dependencies(change: &Change, table: Option<&Table>) -> Dependencies {
    let mut dependencies = Dependencies::default();
    if change.event == Event::Statement {
        return dependencies;
    }
    let relation = change.relation.as_str();
    let known = table.filter(|_| change.event != Event::Truncate);
    let rows = known.and_then(|table| Some((table, rows(change, table)?)));
    let Some((table, rows)) = rows else {
        dependencies.keys.extend([hash(Tag::Any, relation, &[], &[]), hash(Tag::All, relation, &[], &[])]);
        dependencies.needs.insert(hash(Tag::Any, relation, &[], &[]));
        return dependencies;
    };
    dependencies.keys.insert(hash(Tag::Any, relation, &[], &[]));
    dependencies.needs.insert(hash(Tag::All, relation, &[], &[]));
    let touched = Touched { change, table };
    let rows = rows.iter().map(|values| hash(Tag::Row, relation, &[], values));
    let unique = table.unique.iter().filter(|columns| Some(*columns) != table.keys.first());
    let unique = unique.flat_map(|columns| touched.both(columns).map(move |values| (columns, values)));
    let unique = unique.map(|(columns, values)| hash(Tag::Unique, relation, &touched.names(columns), &values));
    for hash in rows.chain(unique) {
        dependencies.keys.insert(hash);
        dependencies.needs.insert(hash);
    }
    for columns in table.referred.iter().filter(|columns| touched.differ(columns)) {
        let of = |tag, values: &Values| hash(tag, relation, &touched.names(columns), values);
        dependencies.keys.extend(touched.both(columns).map(|values| of(Tag::Target, &values)));
        dependencies.needs.extend(touched.before(columns).map(|values| of(Tag::Reference, &values)));
    }
    for reference in &table.references {
        let names: Vec<&str> = reference.names.iter().map(String::as_str).collect();
        let of = |tag, values: &Values| hash(tag, &reference.relation, &names, values);
        dependencies.keys.extend(touched.both(&reference.columns).map(|values| of(Tag::Reference, &values)));
        if touched.differ(&reference.columns) {
            dependencies.needs.extend(touched.after(&reference.columns).map(|values| of(Tag::Target, &values)));
        }
    }
    dependencies
}

type Values = Vec<Option<String>>;

/// The types of which equal values have equal texts in all sessions, whatever time zone and the like these have set.
const STEADY_TYPES: [&str; 10] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "text",
    "character varying",
    "uuid",
    "date",
    "timestamp without time zone",
];

/// The row's key before the change and after it. None if the log does not hold them. Where a row is found by all its values, they
/// are the key, but for those that another session may write otherwise: then rows that are equal without them depend on each other
/// too.
fn rows(change: &Change, table: &Table) -> Option<BTreeSet<Values>> {
    let is_steady = |p: &u16| {
        let column = table.column(*p);
        !column.generated && STEADY_TYPES.contains(&column.base_type.as_str())
    };
    let row = if change.event == Event::Insert { &change.new } else { &change.old };
    let key = match table.keys.first() {
        Some(key) if !table.is_keyless(row) => key.clone(),
        _ if change.event != Event::Insert && !change.has_whole_old_row() => return None,
        _ => table.positions_in(row).into_iter().filter(is_steady).collect(),
    };
    if key.is_empty() {
        return None;
    }
    let value = |row: &Row, other: Option<&Row>| -> Option<Values> {
        let column = |p: &u16| {
            let name = &table.column(*p).name;
            row.get(name).or_else(|| other?.get(name)).map(|value| value.map(str::to_string))
        };
        key.iter().map(column).collect()
    };
    let rows = match change.event {
        Event::Insert => vec![value(&change.new, None)],
        Event::Update => vec![value(&change.old, None), value(&change.new, Some(&change.old))],
        _ => vec![value(&change.old, None)],
    };
    rows.into_iter().collect()
}

struct Touched<'a> {
    change: &'a Change,
    table: &'a Table,
}

impl Touched<'_> {
    fn names(&self, columns: &[u16]) -> Vec<&str> {
        columns.iter().map(|p| self.table.column(*p).name.as_str()).collect()
    }

    /// Whether the change inserts, deletes or changes these values.
    fn differ(&self, columns: &[u16]) -> bool {
        self.change.event != Event::Update || columns.iter().any(|p| self.change.changes(&self.table.column(*p).name))
    }

    fn before(&self, columns: &[u16]) -> Option<Values> {
        self.values(&self.change.old, &self.change.new, columns)
    }

    fn after(&self, columns: &[u16]) -> Option<Values> {
        self.values(&self.change.new, &self.change.old, columns)
    }

    fn both(&self, columns: &[u16]) -> impl Iterator<Item = Values> {
        self.before(columns).into_iter().chain(self.after(columns))
    }

    /// The values of these columns. Of a large row, the log holds a column that an UPDATE leaves alone in the old row only,
    /// or not at all. None if a value is unknown or NULL: a NULL is equal to nothing and refers to nothing.
    fn values(&self, row: &Row, other: &Row, columns: &[u16]) -> Option<Values> {
        if row.is_empty() {
            return None;
        }
        let value = |p: &u16| {
            let name = &self.table.column(*p).name;
            row.get(name).or_else(|| other.get(name)).flatten().map(|value| Some(value.to_string()))
        };
        columns.iter().map(value).collect()
    }
}

/// FNV-1a: the hashes are stored, so every version has to compute the same. Two different things with the same hash only
/// make a transaction wait without need.
fn hash(tag: Tag, relation: &str, columns: &[&str], values: &[Option<String>]) -> i64 {
    let tag = match tag {
        Tag::Any => 'a',
        Tag::All => 't',
        Tag::Row => 'k',
        Tag::Unique => 'u',
        Tag::Target => 'd',
        Tag::Reference => 'r',
    };
    let mut text = format!("{tag}{relation}\0{}\0", columns.join("\0"));
    for value in values {
        match value {
            Some(value) => text.push_str(&format!("{}:{value}", value.len())),
            None => text.push('-'),
        }
    }
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::{LogId, Txid};
    use crate::replay::table::{Column, Reference};

    fn row(columns: &[(&str, &str)]) -> Row {
        columns.iter().map(|(name, value)| (name.to_string(), Some(*value))).collect()
    }

    fn change(relation: &str, event: Event, old: &[(&str, &str)], new: &[(&str, &str)]) -> Change {
        let (old, new) = (row(old), row(new));
        Change {
            id: LogId(1),
            txid: Txid(1),
            event,
            relation: relation.into(),
            old,
            new,
            sql: String::new(),
            origin: None,
        }
    }

    fn table(columns: &[&str]) -> Table {
        let column = |name: &&str| Column {
            name: name.to_string(),
            base_type: "text".into(),
            full_type: "text".into(),
            array_type: "text[]".into(),
            operators: Some("pg_catalog".into()),
            is_cast: false,
            generated: false,
            identity_always: false,
            is_probe: false,
        };
        let key = [vec![columns[0].to_string()]];
        Table::new(1, String::new(), ("public", "t"), false, columns.iter().map(column).collect(), &key)
    }

    /// The second waits while the first is in quarantine.
    fn follows(first: (&Change, &Table), second: (&Change, &Table)) -> bool {
        !dependencies(first.0, Some(first.1)).keys.is_disjoint(&dependencies(second.0, Some(second.1)).needs)
    }

    #[test]
    fn changes_of_one_row_depend_on_each_other_and_a_truncate_on_all() {
        let t = table(&["a", "b"]);
        let of = |event, old: &[_], new: &[_]| change("public.t", event, old, new);
        let insert = of(Event::Insert, &[], &[("a", "1"), ("b", "2")]);
        let update = of(Event::Update, &[("a", "1"), ("b", "2")], &[("b", "3")]);
        let moved = of(Event::Update, &[("a", "1")], &[("a", "2")]);
        let other = of(Event::Delete, &[("a", "3")], &[]);
        let truncate = of(Event::Truncate, &[], &[]);
        assert!(follows((&insert, &t), (&update, &t)) && follows((&moved, &t), (&update, &t)));
        assert!(!follows((&moved, &t), (&other, &t)) && !follows((&update, &t), (&other, &t)));
        assert!(follows((&other, &t), (&truncate, &t)) && follows((&truncate, &t), (&other, &t)));
        assert_eq!(dependencies(&update, None), dependencies(&truncate, Some(&t)));
        let statement = change("", Event::Statement, &[], &[]);
        assert_eq!(dependencies(&statement, None), Dependencies::default());
    }

    #[test]
    fn a_change_that_takes_a_unique_value_depends_on_the_one_that_frees_it() {
        let mut t = table(&["a", "b"]);
        t.add_unique(&["b"]);
        let of = |event, old: &[_], new: &[_]| change("public.t", event, old, new);
        let free = of(Event::Delete, &[("a", "1"), ("b", "x")], &[]);
        let take = of(Event::Insert, &[], &[("a", "2"), ("b", "x")]);
        let other = of(Event::Insert, &[], &[("a", "3"), ("b", "y")]);
        assert!(follows((&free, &t), (&take, &t)) && !follows((&free, &t), (&other, &t)));
    }

    #[test]
    fn a_reference_depends_on_the_insert_of_its_row_and_on_nothing_else() {
        let (mut parent, mut child) = (table(&["p", "v"]), table(&["c", "of"]));
        parent.referred.push(vec![0]);
        child.references.push(Reference { columns: vec![1], relation: "public.p".into(), names: vec!["p".into()] });
        let p = |event, old: &[_], new: &[_]| change("public.p", event, old, new);
        let c = |event, old: &[_], new: &[_]| change("public.c", event, old, new);
        let bring = p(Event::Insert, &[], &[("p", "1"), ("v", "x")]);
        let touch = p(Event::Update, &[("p", "1"), ("v", "x")], &[("p", "1"), ("v", "y")]);
        let take = p(Event::Delete, &[("p", "1"), ("v", "x")], &[]);
        let refer = c(Event::Insert, &[], &[("c", "7"), ("of", "1")]);
        let sibling = c(Event::Insert, &[], &[("c", "8"), ("of", "1")]);
        let leave = c(Event::Delete, &[("c", "9"), ("of", "1")], &[]);
        assert!(follows((&bring, &parent), (&refer, &child)) && !follows((&touch, &parent), (&refer, &child)));
        assert!(follows((&leave, &child), (&take, &parent)) && !follows((&leave, &child), (&touch, &parent)));
        assert!(!follows((&refer, &child), (&sibling, &child)) && !follows((&bring, &parent), (&leave, &child)));
    }
}
