//! Which sequences of the master have moved since the last look. To ask for the last numbers takes a third of the time of reading
//! all that there is to know of each sequence. That is read only of those that have moved, and of all when the catalog has changed.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::tables::Tables;
use crate::sequences::sequence::{PAGE, Sequence, Which, is_of_the_session, read};
use crate::sequences::sql;
use crate::server::session::Session;
use std::collections::{HashMap, HashSet};

const MOVED: &str = "look for sequences that have moved";

/// Whoever may create sequences must not fill the daemon's memory. So many take some 50 MB.
const MOST: i64 = 100_000;

pub struct Known {
    /// The tables that the pair replicates.
    tables: Tables,
    /// How each was when it was last dealt with, by its number. One that is to be dealt with again has no place.
    sequences: HashMap<u32, Sequence>,
    /// The state of the catalog before all were read. None if all are to be read again.
    catalog: Option<(i64, Option<String>)>,
}

impl Known {
    pub fn new(tables: &Tables) -> Known {
        Known { tables: tables.clone(), sequences: HashMap::new(), catalog: None }
    }

    /// Those that are not as they were.
    pub fn moved(&mut self, master: &mut Session) -> Result<Vec<Sequence>> {
        let row = master.transaction(&sql::begin(false), |master| master.query_one(MOVED, sql::CATALOG, &[]))?;
        let count: i64 = row.get(0);
        if count > MOST {
            let detail = format!("the master has {count}, more than {MOST}");
            return Err(
                Error::new(Kind::Setup, Some(Side::Master), MOVED, detail).with_hint("SEQUENCES=off lets none follow")
            );
        }
        let catalog = Some((count, row.get(1)));
        if catalog == self.catalog {
            match self.given(master) {
                Ok(oids) if oids.is_empty() => return Ok(Vec::new()),
                Ok(oids) => return self.read_again(master, &oids),
                // One of them may be gone, or be locked in this moment.
                Err(error) if is_of_the_session(&error) => return Err(error),
                Err(_) => {}
            }
        }
        let (mut there, sequences, tables) = (HashSet::new(), &self.sequences, &self.tables);
        let moved = read(master, Which::default(), |sequence| {
            if !sequence.is_of(tables) {
                return false;
            }
            there.insert(sequence.oid);
            sequences.get(&sequence.oid).is_none_or(|known| !known.is_as(sequence))
        })?;
        self.sequences.retain(|oid, _| there.contains(oid));
        self.catalog = catalog;
        Ok(moved)
    }

    pub fn remember(&mut self, sequence: Sequence) {
        self.sequences.insert(sequence.oid, sequence);
    }

    /// All are read at the next look.
    pub fn forget(&mut self, sequence: &Sequence) {
        self.sequences.remove(&sequence.oid);
        self.catalog = None;
    }

    /// Forgets those that were not dealt with, and those that have given no number: what changes there is not to be seen cheaply.
    pub fn forget_unsettled(&mut self) {
        self.sequences.retain(|_, sequence| sequence.place.is_some_and(|place| place.is_called));
        self.catalog = None;
    }

    /// Those that have given another number.
    fn given(&self, master: &mut Session) -> Result<Vec<u32>> {
        let mut known: Vec<(u32, Option<i64>)> =
            self.sequences.values().filter(|one| one.is_readable).map(|one| (one.oid, one.last)).collect();
        known.sort_unstable();
        let mut moved = Vec::new();
        for page in known.chunks(PAGE) {
            let (oids, last): (Vec<u32>, Vec<Option<i64>>) = page.iter().copied().unzip();
            let ask = |master: &mut Session| master.query(MOVED, sql::MOVED, &[&oids, &last]);
            let rows = master.transaction(&sql::begin(false), ask)?;
            moved.extend(rows.iter().map(|row| row.get::<_, u32>(0)));
        }
        Ok(moved)
    }

    fn read_again(&self, master: &mut Session, oids: &[u32]) -> Result<Vec<Sequence>> {
        let names: Vec<String> = oids.iter().map(|oid| self.sequences[oid].name.clone()).collect();
        let names = Some(names.as_slice()).filter(|names| names.len() <= PAGE);
        let wanted: HashSet<u32> = oids.iter().copied().collect();
        read(master, Which { names, ..Which::default() }, |sequence| wanted.contains(&sequence.oid))
    }
}
