//! What the daemon knows about one table of the slave, and which columns identify its rows.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::Row;
use crate::base::names::quote_ident;
use crate::replay::sql;
use std::collections::HashMap;

/// A table as it is on the slave now. The daemon has locked it against changes of its definition.
#[derive(Clone, Debug)]
pub struct Table {
    /// Unique in this session. It distinguishes the prepared statements of this definition of the table from those of
    /// others.
    pub number: u32,
    /// Changes whenever the definition changes.
    pub fingerprint: String,
    /// Quoted and qualified, with ONLY where the table can have children that are tables of their own.
    pub target: String,
    /// As the log shows it: in quotes, without the schema if that is public.
    pub shown: String,
    pub columns: Vec<Column>,
    /// The keys: the positions of columns that identify a row. A change uses the first key that its logged columns contain.
    pub keys: Vec<Vec<u16>>,
    /// The key by which sets of changes can be replayed: a unique index guarantees that it finds at most one row, and no
    /// trigger or rule of the slave sees single changes.
    pub set_key: Option<u16>,
    /// Changes may be replayed as sets, if a key or the whole row finds the rows.
    pub allows_sets: bool,
    /// The first columns of the table's indexes, among those by which rows may be looked up.
    pub indexed: Vec<u16>,
    /// An UPDATE compares the whole old row and writes the whole new row, as far as the log holds them. For newest(): the
    /// row that wins has to win with all its values.
    pub whole_rows: bool,
    pub partitioned: bool,
    /// It has columns whose text is read by the search path, like those of the type regclass.
    pub by_name: bool,
    /// A partition: nothing but a TRUNCATE is replayed under its own name.
    pub only_truncated: bool,
    /// Columns that the master computes only when a query reads them, and the slave does not compute: the log does not have
    /// their values.
    pub not_logged: Vec<String>,
    /// The columns of each unique constraint that is checked at the end of the statement or later.
    pub deferrable: Vec<Vec<u16>>,
    /// The columns of each unique constraint or index.
    pub unique: Vec<Vec<u16>>,
    /// The table's foreign keys, once `set_foreign_keys` has been called.
    pub references: Vec<Reference>,
    /// The columns of this table that foreign keys refer to, likewise.
    pub referred: Vec<Vec<u16>>,
    positions: HashMap<String, u16>,
    /// So many of the keys are the table's own; those that `add_key_for` has added come after them.
    own_keys: usize,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// The type without modifier, for parameters: the assignment then checks the length, as in the application's statement.
    pub base_type: String,
    /// The type with modifier, for comparisons: a cast to it rounds as storing does.
    pub full_type: String,
    /// The type of an array of values.
    pub array_type: String,
    /// The quoted schema of the type's own operators, if it has operators that an index can use.
    pub operators: Option<String>,
    /// There is no such array type: the values are sent as texts, and cast.
    pub is_cast: bool,
    pub generated: bool,
    pub identity_always: bool,
    /// Rows may be looked up by this column's value before whole rows are compared: equal texts are equal values of this type,
    /// which is PostgreSQL's own, and comparing them costs little or can use an index.
    pub is_probe: bool,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub struct Reference {
    pub columns: Vec<u16>,
    /// The table that it refers to, as the log names it, and the columns there, in the order of their names.
    pub relation: String,
    pub names: Vec<String>,
}

/// Keys of a table that are remembered.
const MAX_KEYS: usize = 100;

/// Why a change does not fit this table.
#[derive(Debug, PartialEq, Eq)]
pub enum Mismatch {
    NoSuchColumn(String),
    NoKey,
}

impl Column {
    /// The type's own `=` or `>`, whatever other operators are in the search path.
    pub fn operator(&self, name: &str) -> String {
        match &self.operators {
            Some(schema) => format!("OPERATOR({schema}.{name})"),
            None => name.to_string(),
        }
    }
}

impl Table {
    pub fn new(
        number: u32,
        fingerprint: String,
        (schema, name): (&str, &str),
        partitioned: bool,
        columns: Vec<Column>,
        keys: &[Vec<String>],
    ) -> Table {
        let qualified = format!("{}.{}", quote_ident(schema), quote_ident(name));
        let positions: HashMap<String, u16> =
            columns.iter().enumerate().map(|(n, column)| (column.name.clone(), n as u16)).collect();
        let keys: Vec<Vec<u16>> = keys
            .iter()
            .filter_map(|key| key.iter().map(|name| positions.get(name).copied()).collect::<Option<Vec<u16>>>())
            .filter(|key| !key.is_empty())
            .collect();
        Table {
            number,
            fingerprint,
            target: if partitioned { qualified.clone() } else { format!("ONLY {qualified}") },
            shown: if schema == "public" { quote_ident(name) } else { qualified },
            columns,
            own_keys: keys.len(),
            keys,
            set_key: None,
            allows_sets: false,
            indexed: Vec::new(),
            whole_rows: false,
            partitioned,
            by_name: false,
            only_truncated: false,
            not_logged: Vec::new(),
            deferrable: Vec::new(),
            unique: Vec::new(),
            references: Vec::new(),
            referred: Vec::new(),
            positions,
        }
    }

    /// Adds the columns of a deferrable unique constraint.
    pub fn add_deferrable(&mut self, names: &[&str]) {
        self.deferrable.extend(self.positions(names));
    }

    /// Adds the columns of a unique constraint.
    pub fn add_unique(&mut self, names: &[&str]) {
        self.unique.extend(self.positions(names));
    }

    /// Sets the foreign keys, and the columns that others refer to. A foreign key is a list: the other table, the own
    /// columns, as many columns of the other table.
    pub fn set_foreign_keys(&mut self, refers: &[Vec<&str>], referred: &[Vec<&str>]) {
        let reference = |list: &Vec<&str>| {
            let (relation, names) = list.split_first()?;
            let (own, theirs) = names.split_at(names.len() / 2);
            let names = theirs.iter().map(|name| name.to_string()).collect();
            Some(Reference { columns: self.positions(own)?, relation: relation.to_string(), names })
        };
        self.references = refers.iter().filter_map(reference).collect();
        self.referred = referred.iter().filter_map(|names| self.positions(names)).collect();
    }

    /// Allows changes to be replayed as sets, by the first key that contains all columns of one of these unique indexes.
    pub fn allow_sets(&mut self, unique: &[Vec<&str>]) {
        let is_unique = |key: &Vec<u16>| {
            unique.iter().any(|names| names.iter().all(|name| self.position(name).is_some_and(|p| key.contains(&p))))
        };
        // A deferrable constraint is checked change by change.
        if self.deferrable.is_empty() {
            self.set_key = self.keys.iter().position(is_unique).map(|n| n as u16);
            self.allows_sets = true;
        }
    }

    pub fn column(&self, position: u16) -> &Column {
        &self.columns[usize::from(position)]
    }

    pub fn position(&self, column: &str) -> Option<u16> {
        self.positions.get(column).copied()
    }

    pub fn has(&self, column: &str) -> bool {
        self.position(column).is_some()
    }

    /// The statement that sets the search path for writing to the table.
    pub fn path(&self) -> &'static str {
        if self.by_name { sql::NAMES_PATH } else { sql::APPLICATION_PATH }
    }

    /// The table's name without ONLY, for statements that don't take it.
    pub fn plain_target(&self) -> &str {
        self.target.strip_prefix("ONLY ").unwrap_or(&self.target)
    }

    /// The columns to write, in the table's order: all columns of an INSERT, the changed ones of an UPDATE.
    pub fn written(&self, change: &Change) -> Result<Vec<u16>, Mismatch> {
        let mut written = Vec::with_capacity(change.new.len());
        for name in change.new.names().iter() {
            if change.event == Event::Update && !change.changes(name) && !self.is_always_written(name) {
                continue;
            }
            let position = self.position(name).ok_or_else(|| Mismatch::NoSuchColumn(name.clone()))?;
            if !self.column(position).generated {
                written.push(position);
            }
        }
        written.sort_unstable();
        Ok(written)
    }

    /// Whether an UPDATE writes this column even if it leaves it alone.
    pub fn is_always_written(&self, name: &str) -> bool {
        self.whole_rows
            && self.position(name).is_some_and(|position| {
                let column = self.column(position);
                !column.generated && !column.identity_always && !self.keys.iter().any(|key| key.contains(&position))
            })
    }

    /// The key that finds the row of an UPDATE or DELETE, as its number in `keys`.
    pub fn key(&self, change: &Change) -> Result<u16, Mismatch> {
        let usable = if change.has_whole_old_row() { self.own_keys } else { self.keys.len() };
        let fits = |key: &Vec<u16>| self.has_values_of(key, &change.old);
        self.keys[..usable].iter().position(fits).map(|n| n as u16).ok_or(Mismatch::NoKey)
    }

    fn has_values_of(&self, key: &[u16], row: &Row) -> bool {
        key.iter().all(|p| row.has(&self.column(*p).name))
    }

    /// Whether this row is one that no key of the table finds.
    pub fn is_keyless(&self, row: &Row) -> bool {
        !self.keys[..self.own_keys].iter().any(|key| self.has_values_of(key, row))
    }

    /// Whether the row of an UPDATE or DELETE is found by the values of all its columns: no key of the table finds it, and the
    /// log holds the whole row. So it is with REPLICA IDENTITY FULL. Of several such rows the change is meant for any one.
    pub fn is_found_by_whole_row(&self, change: &Change) -> bool {
        change.has_whole_old_row()
            && self.is_keyless(&change.old)
            && change.old.names().iter().all(|name| self.has(name))
    }

    /// The columns by which whole rows are compared: the slave has the value of the others from somewhere else.
    pub fn compared(&self, row: &Row) -> Vec<u16> {
        let mut positions = self.positions_in(row);
        positions.retain(|p| !self.column(*p).generated && !self.not_logged.contains(&self.column(*p).name));
        positions
    }

    /// The columns of this key that are NULL in the old row of a change.
    pub fn nulls_in_key(&self, change: &Change, key: u16) -> Vec<u16> {
        let is_null = |p: &&u16| change.old.get(&self.column(**p).name) == Some(None);
        self.keys[usize::from(key)].iter().filter(is_null).copied().collect()
    }

    /// Has the change find its row by all that the log holds of the old row, if that is not the whole row and holds none of
    /// the table's keys: the primary key may be another one than when the change was logged.
    pub fn add_key_for(&mut self, change: &Change) {
        let is_row = matches!(change.event, Event::Update | Event::Delete);
        if !is_row || self.keys.len() == MAX_KEYS || change.has_whole_old_row() || self.key(change).is_ok() {
            return;
        }
        let is_usable =
            |p: &u16| self.column(*p).operators.is_some() || change.old.get(&self.column(*p).name) == Some(None);
        let key: Vec<u16> = self.positions_in(&change.old).into_iter().filter(is_usable).collect();
        // A column that was renamed or dropped may have been the key.
        if !key.is_empty() && change.old.names().iter().all(|name| self.has(name)) {
            self.keys.push(key);
        }
    }

    /// The columns of a logged row that the table has, in its order.
    pub fn positions_in(&self, row: &Row) -> Vec<u16> {
        let mut positions: Vec<u16> = row.names().iter().filter_map(|name| self.position(name)).collect();
        positions.sort_unstable();
        positions
    }

    fn positions(&self, names: &[&str]) -> Option<Vec<u16>> {
        names.iter().map(|name| self.position(name)).collect()
    }
}
