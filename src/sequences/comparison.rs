//! How far the sequences of the slave are, for status and doctor. It sets nothing.

use crate::base::error::Result;
use crate::config::tables::Tables;
use crate::sequences::decision::{Decision, Rules, Why};
use crate::sequences::sequence::{Place, Which, read};
use crate::sequences::setting::{decisions, has_log, is_fed_back};
use crate::server::session::Session;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Comparison {
    /// Where the master's are, or further.
    pub following: usize,
    /// Those that the daemon is going to set, and to what.
    pub behind: Vec<(String, Place)>,
    pub not_following: BTreeMap<Why, Vec<String>>,
    /// The slave is a master for this master: its sequences are its own.
    pub is_fed_back: bool,
}

/// `tables`: those that the pair replicates.
pub fn compare(master: &mut Session, slave: &mut Session, tables: &Tables) -> Result<Comparison> {
    let mut comparison = Comparison { is_fed_back: is_fed_back(master, slave)?, ..Comparison::default() };
    if comparison.is_fed_back {
        return Ok(comparison);
    }
    let on_master = read(master, Which::default(), |sequence| sequence.is_of(tables))?;
    let rules = Rules { slave_has_log: has_log(slave)?, ..Rules::default() };
    for (sequence, _, decision) in decisions(master, slave, &on_master, rules)? {
        let name = sequence.name.clone();
        match decision {
            Decision::Same | Decision::Ahead => comparison.following += 1,
            Decision::Set(place) => comparison.behind.push((name, place)),
            Decision::Not(why) => comparison.not_following.entry(why).or_default().push(name),
        }
    }
    Ok(comparison)
}
