//! What the daemon knows of one table on the slave, and which columns identify a row of it.

use crate::backlog::change::{Change, Event};
use crate::backlog::row::Row;
use crate::base::names::quote_ident;
use std::collections::HashMap;

/// A table as it is on the slave at the moment, locked against changes of its definition.
#[derive(Clone, Debug)]
pub struct Table {
    /// Unique in this session: names the prepared statements made for this definition of the table.
    pub number: u32,
    /// Changes whenever the definition does.
    pub fingerprint: String,
    /// Quoted and qualified, with ONLY where the table can have children that are tables of their own.
    pub target: String,
    /// As the log shows it: in quotes, without the schema if that is public.
    pub shown: String,
    pub columns: Vec<Column>,
    /// Which columns identify a row, by position; the first that fit the change are taken.
    pub keys: Vec<Vec<u16>>,
    /// The key by which sets of changes can be replayed: the slave makes sure that it finds one row at most, and nothing
    /// on the slave watches single changes.
    pub set_key: Option<u16>,
    /// An UPDATE insists on the whole old row and writes the whole new one, as far as they are logged: where the newest row
    /// wins, it must win as it is.
    pub whole_rows: bool,
    /// The columns of each unique constraint that is checked at the end of the statement or later.
    pub deferrable: Vec<Vec<u16>>,
    /// The columns of each unique constraint or index.
    pub unique: Vec<Vec<u16>>,
    /// Its foreign keys, if they have been asked for.
    pub references: Vec<Reference>,
    /// Its columns that foreign keys refer to, likewise.
    pub referred: Vec<Vec<u16>>,
    positions: HashMap<String, u16>,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// The type without modifier, for parameters: assigning it then checks lengths as the application's statement did.
    pub base_type: String,
    /// The type with modifier, for comparing: it rounds as storing does.
    pub full_type: String,
    /// The type of an array of values.
    pub array_type: String,
    /// The schema, quoted, of the type's own operators, if there are some that an index would use.
    pub operators: Option<String>,
    /// There is no such array, so its elements are texts, to be cast.
    pub is_cast: bool,
    pub generated: bool,
    pub identity_always: bool,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub struct Reference {
    pub columns: Vec<u16>,
    /// What it refers to: a table, as the log names it, and its columns, in the order of their names.
    pub relation: String,
    pub names: Vec<String>,
}

/// Why a change cannot be put into a statement for this table.
#[derive(Debug, PartialEq, Eq)]
pub enum Misfit {
    NoSuchColumn(String),
    NoKey,
}

impl Column {
    /// `=` or `>` for two values of the type, whatever else is found in the search path.
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
        let keys = keys
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
            keys,
            set_key: None,
            whole_rows: false,
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

    /// Notes the foreign keys, each as a table, the own columns and as many of the other's, and what others refer to.
    pub fn link(&mut self, refers: &[Vec<&str>], referred: &[Vec<&str>]) {
        let reference = |list: &Vec<&str>| {
            let (relation, names) = list.split_first()?;
            let (own, theirs) = names.split_at(names.len() / 2);
            let names = theirs.iter().map(|name| name.to_string()).collect();
            Some(Reference { columns: self.positions(own)?, relation: relation.to_string(), names })
        };
        self.references = refers.iter().filter_map(reference).collect();
        self.referred = referred.iter().filter_map(|names| self.positions(names)).collect();
    }

    /// Lets changes be replayed as sets by a key that holds all columns of one of these unique indexes.
    pub fn allow_sets(&mut self, unique: &[Vec<&str>]) {
        let certain = |key: &Vec<u16>| {
            unique.iter().any(|names| names.iter().all(|name| self.position(name).is_some_and(|p| key.contains(&p))))
        };
        // A deferrable constraint is looked at change by change.
        if self.deferrable.is_empty() {
            self.set_key = self.keys.iter().position(certain).map(|n| n as u16);
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

    /// The table's name where ONLY may not stand.
    pub fn plain_target(&self) -> &str {
        self.target.strip_prefix("ONLY ").unwrap_or(&self.target)
    }

    /// The columns to write, in the table's order: all of an INSERT's, those that an UPDATE changed.
    pub fn written(&self, change: &Change) -> Result<Vec<u16>, Misfit> {
        let mut written = Vec::with_capacity(change.new.len());
        for name in change.new.names().iter() {
            if change.event == Event::Update && !change.changes(name) && !self.is_written_anyway(name) {
                continue;
            }
            let position = self.position(name).ok_or_else(|| Misfit::NoSuchColumn(name.clone()))?;
            if !self.column(position).generated {
                written.push(position);
            }
        }
        written.sort_unstable();
        Ok(written)
    }

    /// Whether an UPDATE that leaves this column alone writes it all the same.
    pub fn is_written_anyway(&self, name: &str) -> bool {
        self.whole_rows
            && self.position(name).is_some_and(|position| {
                let column = self.column(position);
                !column.generated && !column.identity_always && !self.keys.iter().any(|key| key.contains(&position))
            })
    }

    /// The columns that find the row an UPDATE or DELETE is about, as a number in `keys`.
    pub fn key(&self, change: &Change) -> Result<u16, Misfit> {
        let fits = |key: &Vec<u16>| key.iter().all(|p| change.old.has(&self.column(*p).name));
        self.keys.iter().position(fits).map(|n| n as u16).ok_or(Misfit::NoKey)
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
