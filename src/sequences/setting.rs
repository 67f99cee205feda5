//! Sets the sequences of the slave. What has been set stays, whatever happens to a transaction; so each page has its own.

use crate::base::error::{Kind, Result};
use crate::sequences::decision::{Decision, Rules, Why, decide};
use crate::sequences::sequence::{PAGE, Place, Sequence, Which, is_of_the_session, read};
use crate::sequences::sql;
use crate::server::ours;
use crate::server::role;
use crate::server::session::Session;
use crate::server::sql as server_sql;
use std::collections::{BTreeMap, HashMap};

/// What became of the sequences of the master, each by its name.
#[derive(Debug, Default)]
pub struct Outcome {
    pub same: usize,
    /// The slave's is further, and was left so.
    pub ahead: Vec<String>,
    pub set: Vec<String>,
    /// Not set, and why.
    pub not_set: Vec<(Why, String)>,
    /// The words of the server that refused some.
    pub refusals: Vec<String>,
}

impl Outcome {
    /// The names of those that were not set, by reason.
    pub fn by_reason(&self) -> BTreeMap<Why, Vec<String>> {
        let mut reasons: BTreeMap<Why, Vec<String>> = BTreeMap::new();
        for (why, name) in &self.not_set {
            reasons.entry(*why).or_default().push(name.clone());
        }
        reasons
    }
}

/// Why all sequences are set at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The end of a copy, which an operator runs: whoever they belong to.
    Copy,
    /// The slave becomes the master, and the only one: also those that gave other numbers.
    Switchover,
}

/// Sets the sequences of the slave exactly to where the master's are, also backwards: all that both sides have, or only those
/// that belong to columns of some tables. At a switchover nobody may take numbers on either side until it returns. Neither session
/// may be in a transaction, as sequences obey none. What could not be set is in the outcome.
pub fn set_exactly(
    master: &mut Session,
    slave: &mut Session,
    tables: Option<&[String]>,
    occasion: Occasion,
) -> Result<Outcome> {
    let is_copy = occasion == Occasion::Copy;
    let slave_has_log = is_copy && has_log(slave)?;
    let mut once = |waits| {
        let on_master = read(master, Which { tables, waits, ..Which::default() }, |_| true)?;
        set(master, slave, &on_master, Rules { exact: true, any_owner: is_copy, waits, slave_has_log })
    };
    // If somebody does not give a lock back, that is about his sequence only.
    once(true).or_else(|error| if error.kind() == Kind::Contention { once(false) } else { Err(error) })
}

/// Sets the slave's sequences of these names as the rules say.
pub fn set(master: &mut Session, slave: &mut Session, on_master: &[Sequence], rules: Rules) -> Result<Outcome> {
    let (mut outcome, mut to_set) = (Outcome::default(), Vec::new());
    for (sequence, here, decision) in decisions(master, slave, on_master, rules)? {
        match decision {
            Decision::Same => outcome.same += 1,
            Decision::Ahead => outcome.ahead.push(sequence.name.clone()),
            Decision::Set(place) => to_set.push((here, &sequence.name, place)),
            Decision::Not(why) => outcome.not_set.push((why, sequence.name.clone())),
        }
    }
    for page in to_set.chunks(PAGE) {
        set_page(slave, page, rules.waits, &mut outcome)?;
    }
    Ok(outcome)
}

/// What is to be done about each of these sequences: with the number of the slave's.
pub fn decisions<'a>(
    master: &mut Session,
    slave: &mut Session,
    on_master: &'a [Sequence],
    rules: Rules,
) -> Result<Vec<(&'a Sequence, u32, Decision)>> {
    if on_master.is_empty() {
        return Ok(Vec::new());
    }
    // To look for many names takes longer than to read all.
    let names: Vec<String> = on_master.iter().map(|sequence| sequence.name.clone()).collect();
    let names = Some(names.as_slice()).filter(|names| names.len() <= PAGE);
    let on_slave = read(slave, Which { names, waits: rules.waits, ..Which::default() }, |_| true)?;
    let on_slave: HashMap<&str, &Sequence> = on_slave.iter().map(|one| (one.name.as_str(), one)).collect();
    let mut decided = Vec::new();
    for sequence in on_master {
        let (here, mut failed) = (on_slave.get(sequence.name.as_str()).copied(), None);
        let decision = decide(sequence, here, rules, |sequence| {
            is_replicated(master, sequence).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        decided.push((sequence, here.map_or(0, |here| here.oid), decision));
    }
    Ok(decided)
}

fn is_replicated(master: &mut Session, sequence: &Sequence) -> Result<bool> {
    let Some(column) = &sequence.column else { return Ok(false) };
    let asked =
        master.query_one("ask for the names of replicated tables", sql::KNOWS, &[&column.table, &column.table_oid]);
    Ok(asked?.get(0))
}

pub fn has_log(slave: &mut Session) -> Result<bool> {
    ours::has(slave, "replica_log")
}

/// Whether the slave's database is a master too, and feeds this master. Then each side has numbers of its own, which may overlap
/// in no other way than by ranges.
pub fn is_fed_back(master: &mut Session, slave: &mut Session) -> Result<bool> {
    if !has_log(slave)? {
        return Ok(false);
    }
    let operation = "look for other masters";
    if !ours::may_read(slave, &["replica_slave"])? {
        return Ok(true);
    }
    let identity: String = master.query_one(operation, server_sql::IDENTITY, &[])?.get(0);
    // After a switchover it says where its former slave is, which is its master now.
    if role::is_slave_of(slave, &identity)? {
        return Ok(false);
    }
    Ok(slave.query_one(operation, sql::IS_FED_BACK, &[&identity])?.get(0))
}

fn set_page(slave: &mut Session, page: &[(u32, &String, Place)], waits: bool, outcome: &mut Outcome) -> Result<()> {
    match set_at_once(slave, page, waits) {
        Ok(()) => outcome.set.extend(page.iter().map(|(_, name, _)| name.to_string())),
        Err(error) if is_of_the_session(&error) => return Err(error),
        Err(error) if error.kind() == Kind::Contention && waits => return Err(error),
        Err(error) if error.kind() == Kind::Contention => {
            outcome.not_set.extend(page.iter().map(|(_, name, _)| (Why::Busy, name.to_string())));
        }
        // One of them is gone, perhaps.
        Err(_) if page.len() > 1 => {
            for one in page.chunks(1) {
                set_page(slave, one, waits, outcome)?;
            }
        }
        Err(error) => {
            outcome.not_set.extend(page.iter().map(|(_, name, _)| (Why::Refused, name.to_string())));
            outcome.refusals.push(error.detail().to_string());
        }
    }
    Ok(())
}

fn set_at_once(slave: &mut Session, page: &[(u32, &String, Place)], waits: bool) -> Result<()> {
    let oids: Vec<u32> = page.iter().map(|(oid, ..)| *oid).collect();
    let values: Vec<i64> = page.iter().map(|(.., place)| place.value).collect();
    let called: Vec<bool> = page.iter().map(|(.., place)| place.is_called).collect();
    let set = |slave: &mut Session| slave.query("set the sequences", sql::SET, &[&oids, &values, &called]).map(drop);
    slave.transaction(&sql::begin(waits), set)
}
