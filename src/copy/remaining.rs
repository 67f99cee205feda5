//! What of a schema is still to be made when the rows are there: indexes, constraints, triggers and more. The slave has it in
//! the table `replica_copy_schema`, from before the tables are created. What is made is deleted there by the same transaction,
//! so a copy that is run again makes the rest.
//!
//! | stage | what | how |
//! |---|---|---|
//! | `before` | foreign keys that cannot be checked later, and the indexes that they need | before the rows, one by one |
//! | `index` | indexes, and constraints that are one | several at a time, the largest first |
//! | `attach` | indexes of partitions become parts of an index | one by one |
//! | `reference` | foreign keys | several at a time |
//! | `last` | all else, in the dump's order | one by one |
//! | `refresh` | materialized views | one by one |
//!
//! PostgreSQL checks a foreign key with the rights of who creates it, and casts and operators of a table's owner would run with
//! these. So those foreign keys are created as long as there are no rows (`post_data.sql`).

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::shown::{listed, shown};
use crate::copy::script::Entry;
use crate::copy::sql;
use crate::pair::copied;
use crate::server::session::{Row, Session};
use std::collections::{HashMap, HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Before,
    Index,
    Attach,
    Reference,
    Last,
    Refresh,
}

/// The stages by their names in the table, in their order.
const STAGES: [(Stage, &str); 6] = [
    (Stage::Before, "before"),
    (Stage::Index, "index"),
    (Stage::Attach, "attach"),
    (Stage::Reference, "reference"),
    (Stage::Last, "last"),
    (Stage::Refresh, "refresh"),
];

/// A row of `replica_copy_schema`.
#[derive(Clone, Debug)]
pub struct Remaining {
    pub place: i64,
    pub stage: Stage,
    /// For people.
    pub name: String,
    /// The tables that it locks.
    pub relations: Vec<String>,
    /// Nothing else can be done with these tables meanwhile.
    pub is_alone: bool,
    /// Of the index, or the table, in bytes: what is large takes long.
    pub size: i64,
    pub statement: String,
}

const OTHERS_DEPEND_ON_IT: &str = "2BP01";

/// The letters of a name that is shown.
const LONGEST_NAME: usize = 60;

/// Decides what is made when. `catalog`: the rows of `post_data.sql`. `parts`: the tables come to others, which are at another
/// position, so that their foreign keys cannot be checked.
pub fn arrange(entries: &[Entry], catalog: &[Row], parts: bool) -> Vec<Remaining> {
    let catalog: HashMap<(u32, u32), &Row> =
        catalog.iter().map(|row| ((row.get("catalog"), row.get("oid")), row)).collect();
    let of = |entry: &Entry| catalog.get(&(entry.class, entry.oid)).copied();
    let is_index = |entry: &Entry| of(entry).is_some_and(|row| row.get::<_, &str>("kind") != "f");
    let numbers: HashSet<u32> = entries.iter().filter(|entry| !is_index(entry)).map(|entry| entry.number).collect();
    let mut remaining: Vec<Remaining> = entries
        .iter()
        .filter(|entry| !entry.statements.is_empty())
        .map(|entry| {
            let known = of(entry);
            let stage = match known.map(|row| row.get::<_, &str>("kind")) {
                Some("f") if parts || known.is_some_and(|row| row.get("early")) => Stage::Before,
                Some("f") => Stage::Reference,
                // An index of what is itself made later.
                Some(_) if entry.depends.iter().any(|number| numbers.contains(number)) => Stage::Last,
                Some(_) => Stage::Index,
                None if is_attach(entry) => Stage::Attach,
                None => Stage::Last,
            };
            let is_alone = known.is_some_and(|row| row.get::<_, &str>("kind") != "i") || entry.statements.len() > 1;
            Remaining {
                place: i64::from(entry.number),
                stage,
                name: known.map_or_else(|| first_line(&entry.statements[0]), |row| row.get("name")),
                relations: known.map(|row| row.get("relations")).unwrap_or_default(),
                is_alone,
                size: known.map_or(0, |row| row.get("size")),
                statement: format!("{}{}", entry.settings, entry.statements.join(";\n")),
            }
        })
        .collect();
    bring_forward(entries, &mut remaining, &of);
    // The places are in the order of the dump, not in that of its numbers.
    (0..).zip(&mut remaining).for_each(|(place, remaining)| remaining.place = place);
    remaining
}

/// A foreign key needs the index of the table that it refers to. In a partitioned table that index has many parts.
fn bring_forward<'a>(entries: &[Entry], remaining: &mut [Remaining], of: &dyn Fn(&Entry) -> Option<&'a Row>) {
    let stages: HashMap<i64, Stage> = remaining.iter().map(|remaining| (remaining.place, remaining.stage)).collect();
    let is_early = |entry: &&Entry| stages.get(&i64::from(entry.number)) == Some(&Stage::Before);
    let roots: HashSet<u32> = entries.iter().filter(is_early).filter_map(of).map(|row| row.get("root")).collect();
    let is_needed = |entry: &&Entry| of(entry).is_some_and(|row| roots.contains(&row.get("root")));
    let needed: HashSet<u32> = entries.iter().filter(is_needed).map(|entry| entry.number).collect();
    let depends: HashMap<i64, &Entry> = entries.iter().map(|entry| (i64::from(entry.number), entry)).collect();
    for remaining in remaining {
        let entry = depends[&remaining.place];
        match remaining.stage {
            Stage::Index if needed.contains(&entry.number) => remaining.stage = Stage::Before,
            Stage::Attach if entry.depends.iter().any(|number| needed.contains(number)) => {
                remaining.stage = Stage::Before
            }
            _ => {}
        }
    }
}

fn is_attach(entry: &Entry) -> bool {
    entry.class == 0 && entry.statements.first().is_some_and(|statement| statement.starts_with("ALTER INDEX "))
}

fn first_line(statement: &str) -> String {
    let line = statement.lines().next().unwrap_or_default();
    shown(&line.chars().take(LONGEST_NAME).collect::<String>()).into_owned()
}

/// Notes on the slave what is to be made, in the place of what was noted before, or, if these are `parts`, besides.
/// Returns the first one's place.
pub fn write(slave: &mut Session, key: &str, remaining: &[Remaining], parts: bool) -> Result<i64> {
    copied::create_schema_notes(slave)?;
    refuse_writers(slave)?;
    let operation = "note what of the schema is to be made";
    let written = slave.transaction("BEGIN", |slave| {
        if !parts {
            slave.execute(operation, sql::FORGET_REMAINING, &[&key, &0_i64])?;
        }
        let first = slave.query_one(operation, sql::HIGHEST_REMAINING, &[&key])?.get::<_, i64>(0) + 1;
        for remaining in remaining {
            let Remaining { place, name, relations, is_alone, size, statement, .. } = remaining;
            let (place, stage) = (first + place, name_of(remaining.stage));
            slave.execute(
                operation,
                sql::NOTE_REMAINING,
                &[&key, &place, &stage, name, relations, is_alone, size, statement],
            )?;
        }
        Ok(first)
    });
    written.map_err(with_rights)
}

fn with_rights(error: Error) -> Error {
    match error.code() {
        Some("42501") => error.with_hint("GRANT SELECT, INSERT, DELETE ON public.replica_copy_schema TO DSN1's role"),
        _ => error,
    }
}

/// Drops the indexes and constraints of these tables, given with their sizes, and notes in the same transaction what makes them
/// again. Returns how many. What something else depends on stays.
pub fn defer(slave: &mut Session, key: &str, tables: &[&str], sizes: &[i64]) -> Result<u64> {
    copied::create_schema_notes(slave)?;
    refuse_writers(slave)?;
    let operation = "drop indexes";
    let rows = slave.query("look at the indexes", sql::DROPPABLE, &[&tables, &sizes])?;
    slave.transaction("BEGIN", |slave| {
        let first = slave.query_one(operation, sql::HIGHEST_REMAINING, &[&key])?.get::<_, i64>(0) + 1;
        let mut dropped = 0;
        for (place, row) in (first..).zip(&rows) {
            slave.message(operation, "SAVEPOINT pyreplica_index")?;
            match slave.message(operation, row.get("dropping")) {
                Ok(_) => dropped += 1,
                Err(error) if error.code() == Some(OTHERS_DEPEND_ON_IT) => {
                    slave.message(operation, "ROLLBACK TO SAVEPOINT pyreplica_index")?;
                    continue;
                }
                Err(error) if error.code() == Some("42501") => {
                    return Err(error.with_hint("--defer-indexes needs the owner of the tables"));
                }
                Err(error) => return Err(error),
            }
            let (stage, name, statement): (&str, &str, &str) = (row.get("stage"), row.get("name"), row.get("making"));
            let (relations, alone, size): (Vec<&str>, bool, i64) =
                (row.get("relations"), row.get("alone"), row.get("size"));
            slave.execute(
                operation,
                sql::NOTE_REMAINING,
                &[&key, &place, &stage, &name, &relations, &alone, &size, &statement],
            )?;
        }
        Ok(dropped)
    })
}

/// Forgets what was noted from this place on.
pub fn forget(slave: &mut Session, key: &str, first: i64) -> Result<()> {
    slave.execute("forget what was to be made", sql::FORGET_REMAINING, &[&key, &first]).map(drop)
}

/// What is noted, in its order.
pub fn read(slave: &mut Session, key: &str) -> Result<Vec<Remaining>> {
    if !copied::has_schema_notes(slave)? {
        return Ok(Vec::new());
    }
    let rows = slave.query("look what of the schema is to be made", sql::REMAINING, &[&key])?;
    if !rows.is_empty() {
        refuse_writers(slave)?;
    }
    let remaining = rows.iter().map(|row| {
        let stage: &str = row.get("stage");
        Remaining {
            place: row.get("place"),
            stage: STAGES.iter().find(|(_, name)| *name == stage).map_or(Stage::Last, |(stage, _)| *stage),
            name: row.get("name"),
            relations: row.get("relations"),
            is_alone: row.get("alone"),
            size: row.get("size"),
            statement: row.get("statement"),
        }
    });
    Ok(remaining.collect())
}

/// What stands there runs with the rights of this role, so nobody else may write it.
fn refuse_writers(slave: &mut Session) -> Result<()> {
    let rows = slave.query("look who may write", sql::SCHEMA_NOTES_WRITERS, &[])?;
    let writers: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if writers.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "{} may write to public.replica_copy_schema, and what stands there runs with the rights of DSN1's role",
        listed(&writers)
    );
    Err(Error::new(Kind::Setup, Some(Side::Slave), "complete the schema", detail).with_hint(format!(
        "REVOKE ALL ON public.replica_copy_schema FROM {}; and if there are rows in it, look who has written them",
        writers.join(", ")
    )))
}

fn name_of(stage: Stage) -> &'static str {
    STAGES.iter().find(|(other, _)| *other == stage).map_or("", |(_, name)| name)
}
