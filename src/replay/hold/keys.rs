//! The numbers by which a change is known to touch what another has touched.
//!
//! A change *leaves* numbers, which later ones are looked up by while it is in quarantine, and *needs* numbers: it waits for
//! whoever has left one of them. Two changes meet at a row, by its key; at a value of another unique constraint, which one
//! frees and the other takes; and at a foreign key of the slave's: who refers to a row waits for what brings that row, and
//! what takes a row away waits for those that still referred to it. Two that refer to one row don't meet, nor do one that
//! refers to a row and one that changes it otherwise.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::Row;
use crate::replay::table::Table;
use std::collections::BTreeSet;

/// What a number is made for. The letters are in numbers that are stored.
#[derive(Clone, Copy)]
enum Tag {
    /// Every change of a table leaves it.
    Any,
    /// A change of all rows, or of nobody knows which.
    All,
    Row,
    Unique,
    /// A row that others may refer to has come or gone.
    Target,
    /// A row refers, or referred, to another.
    Reference,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub left: BTreeSet<i64>,
    pub needed: BTreeSet<i64>,
}

/// The numbers of a change; `table` is what the slave has of its table. What a free statement is about, nobody can tell.
pub(super) fn numbers(change: &Change, table: Option<&Table>) -> Numbers {
    let mut numbers = Numbers::default();
    if change.event == Event::Statement {
        return numbers;
    }
    let relation = change.relation.as_str();
    let known = table.filter(|_| change.event != Event::Truncate);
    let rows = known.and_then(|table| Some((table, rows(change, table)?)));
    let Some((table, rows)) = rows else {
        numbers.left.extend([number(Tag::Any, relation, &[], &[]), number(Tag::All, relation, &[], &[])]);
        numbers.needed.insert(number(Tag::Any, relation, &[], &[]));
        return numbers;
    };
    numbers.left.insert(number(Tag::Any, relation, &[], &[]));
    numbers.needed.insert(number(Tag::All, relation, &[], &[]));
    let touched = Touched { change, table };
    let rows = rows.iter().map(|values| number(Tag::Row, relation, &[], values));
    let unique = table.unique.iter().filter(|columns| Some(*columns) != table.keys.first());
    let unique = unique.flat_map(|columns| touched.both(columns).map(move |values| (columns, values)));
    let unique = unique.map(|(columns, values)| number(Tag::Unique, relation, &touched.names(columns), &values));
    for number in rows.chain(unique) {
        numbers.left.insert(number);
        numbers.needed.insert(number);
    }
    for columns in table.referred.iter().filter(|columns| touched.differ(columns)) {
        let of = |tag, values: &Values| number(tag, relation, &touched.names(columns), values);
        numbers.left.extend(touched.both(columns).map(|values| of(Tag::Target, &values)));
        numbers.needed.extend(touched.before(columns).map(|values| of(Tag::Reference, &values)));
    }
    for reference in &table.references {
        let names: Vec<&str> = reference.names.iter().map(String::as_str).collect();
        let of = |tag, values: &Values| number(tag, &reference.relation, &names, values);
        numbers.left.extend(touched.both(&reference.columns).map(|values| of(Tag::Reference, &values)));
        if touched.differ(&reference.columns) {
            numbers.needed.extend(touched.after(&reference.columns).map(|values| of(Tag::Target, &values)));
        }
    }
    numbers
}

type Values = Vec<Option<String>>;

/// The keys that a row has, and had. None if they are not logged.
fn rows(change: &Change, table: &Table) -> Option<BTreeSet<Values>> {
    let key = table.keys.first()?;
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

    /// Whether the values come, go, or become others.
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

    /// A column of a large row that an UPDATE leaves alone is logged in neither, or in the old row only. NULLs are equal to
    /// nothing and refer to nothing.
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

/// FNV-1a: it is stored, so it must be the same in every version. Two that come to the same number only make a transaction
/// wait that need not.
fn number(tag: Tag, relation: &str, columns: &[&str], values: &[Option<String>]) -> i64 {
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
        };
        let key = [vec![columns[0].to_string()]];
        Table::new(1, String::new(), ("public", "t"), false, columns.iter().map(column).collect(), &key)
    }

    /// The second waits while the first is in quarantine.
    fn follows(first: (&Change, &Table), second: (&Change, &Table)) -> bool {
        !numbers(first.0, Some(first.1)).left.is_disjoint(&numbers(second.0, Some(second.1)).needed)
    }

    #[test]
    fn changes_of_one_row_meet_and_a_truncate_meets_all() {
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
        assert_eq!(numbers(&update, None), numbers(&truncate, Some(&t)));
        let statement = change("", Event::Statement, &[], &[]);
        assert_eq!(numbers(&statement, None), Numbers::default());
    }

    #[test]
    fn who_takes_a_unique_value_meets_who_frees_it() {
        let mut t = table(&["a", "b"]);
        t.add_unique(&["b"]);
        let of = |event, old: &[_], new: &[_]| change("public.t", event, old, new);
        let free = of(Event::Delete, &[("a", "1"), ("b", "x")], &[]);
        let take = of(Event::Insert, &[], &[("a", "2"), ("b", "x")]);
        let other = of(Event::Insert, &[], &[("a", "3"), ("b", "y")]);
        assert!(follows((&free, &t), (&take, &t)) && !follows((&free, &t), (&other, &t)));
    }

    #[test]
    fn who_refers_to_a_row_waits_for_what_brings_it_and_no_other() {
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
