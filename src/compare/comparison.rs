//! Do both sides hold the same rows? Found out by the servers, which digest ranges of keys; only where the digests differ
//! are ranges divided further, and rows looked at at last.
//!
//! Both sides move while they are compared, so what differs at a first look is only a candidate. For each candidate, in this
//! order: the slave's row is read (c); the master's row (M), and in the same snapshot whether the log holds a change of it
//! that the slave has not replayed; what the slave had prepared by then is waited for; the slave's row is read again (e),
//! then the master's (N).
//!
//! Without such a change in the log, nor one that is put aside on the slave, the slave has, at e, everything of this row that
//! M knows of. If e still is not M, then
//!
//! * either M and N are the same version of the row: nothing has changed it in between, so nothing that the slave replayed
//!   by e can be newer than M;
//! * or c and e are the same version of the row: nothing newer than M was replayed by e, for that was committed on the master
//!   after c and would have written the row since;
//! * or the row is under change, and is looked at again a little later.
//!
//! The first two are differences, and nothing else is. A row that has a change on its way to the slave is looked at again as
//! long as a daemon is at work and there is patience left; then it counts as pending. All rounds are bounded.

mod plan;
mod prepared;
mod in_progress;

use crate::base::error::Result;
use crate::compare::digest::{DigestSource, Key, Range};
use crate::compare::servers::Servers;
use crate::compare::sql;
use crate::server::session::{Session, TextRow};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

pub use plan::{ComparePlan, Omission, Outlook, Sort, plans};
pub use prepared::prepared_is_over;

/// Rows to a range at first: enough that the way to the server does not count, few enough that no statement takes long.
const CHUNK: u64 = 100_000;

/// The same where each range is a scan of the table, for lack of an index in the order that is needed.
const LONG_CHUNK: u64 = 2_000_000;

/// A range that differs is divided into so many, until it is small enough for its rows to be looked at.
const PARTS: u64 = 8;
const LEAF: u64 = 1_000;

/// Rows that are written meanwhile could make a range grow as it is divided.
const DEPTH: u32 = 8;

/// Candidates that are settled together.
const TOGETHER: usize = 1_000;

/// Looks at a row that keeps changing, or whose change does not arrive, and the pause before the second one, which doubles.
const ROUNDS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The slave lacks it.
    Missing,
    /// The master does not have it.
    Extra,
    Different,
}

#[derive(Clone, Debug)]
pub struct Difference {
    pub key: Key,
    pub what: What,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// What the digests counted, on the master and on the slave, while both may have been moving.
    pub rows: (u64, u64),
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// Rows that differ and have a change on its way.
    pub pending: u64,
    /// Rows that were under change at every look.
    pub unsettled: u64,
}

impl Counts {
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.different
    }
}

/// Takes differences as they are found, some at a time.
pub type Take<'a> = dyn FnMut(&mut Servers, Vec<Difference>) -> Result<()> + 'a;

/// Compares one table. `patience`: how long to wait, in all, for changes that are on their way.
pub fn compare(both: &mut Servers, plan: &ComparePlan, patience: Duration, take: &mut Take) -> Result<Counts> {
    begin(both, plan)?;
    let mut comparison = Comparison { both, plan, patience, take, candidates: Vec::new(), counts: Counts::default() };
    comparison.walk()?;
    comparison.settle()?;
    Ok(comparison.counts)
}

/// What both sessions need before the first query about a table.
pub fn begin(both: &mut Servers, plan: &ComparePlan) -> Result<()> {
    let set = |source: &DigestSource| format!("SET search_path = {}", source.search_path);
    both.ask("set the session up", &set(&plan.master), &set(&plan.slave)).map(drop)
}

struct Comparison<'a, 'b> {
    both: &'a mut Servers,
    plan: &'a ComparePlan,
    patience: Duration,
    take: &'a mut Take<'b>,
    candidates: Vec<Key>,
    counts: Counts,
}

/// What is known of a row by a look at it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    digest: Option<String>,
    version: Option<String>,
}

enum Verdict {
    Equal,
    Differs(What),
    /// A change is on its way.
    Pending,
    /// A change is put aside: it does not arrive before somebody lets it.
    PutAside,
    /// It was changed while it was looked at.
    Again,
}

impl Comparison<'_, '_> {
    /// Digests range after range. The master finds the end of the next one while both digest the one before.
    fn walk(&mut self) -> Result<()> {
        let plan = self.plan;
        let by_bytes = plan.master.key.iter().any(|column| column.by_bytes);
        let chunk = if by_bytes { LONG_CHUNK } else { CHUNK };
        let mut range = Range::default();
        let first = self.both.master().text_rows("divide the table", &plan.master.key_at(&range, chunk))?;
        let mut end = first.first().map(|row| key(row, plan));
        loop {
            range.up_to = end.clone();
            let mut on_master = plan.master.digest(&range);
            if end.is_some() {
                let rest = Range { above: end.clone(), up_to: None };
                on_master = format!("{on_master}; {}", plan.master.key_at(&rest, chunk));
            }
            let (there, here) = self.both.ask("digest rows", &on_master, &plan.slave.digest(&range))?;
            let (there_rows, here_rows) = (count(&there[0]), count(&here[0]));
            self.counts.rows.0 += there_rows;
            self.counts.rows.1 += here_rows;
            if there[0] != here[0] {
                self.narrow(&range, there_rows, here_rows, 0)?;
            }
            self.show();
            if end.is_none() {
                return Ok(());
            }
            range.above = end;
            end = there.get(1).map(|row| key(row, plan));
        }
    }

    /// Finds the rows that make a range differ.
    fn narrow(&mut self, range: &Range, there: u64, here: u64, depth: u32) -> Result<()> {
        let larger = there.max(here);
        if larger <= LEAF || depth == DEPTH {
            return self.leaf(range);
        }
        let plan = self.plan;
        let (source, session) =
            if here > there { (&plan.slave, self.both.slave()) } else { (&plan.master, self.both.master()) };
        let step = (larger / PARTS + 1).max(LEAF / 2);
        let keys = session.text_rows("divide a range", &source.keys_at_every(range, step))?;
        let mut parts = Vec::new();
        let mut above = range.above.clone();
        for end in keys.iter().map(|row| key(row, plan)).map(Some).chain([range.up_to.clone()]) {
            parts.push(Range { above, up_to: end.clone() });
            above = end;
        }
        let digests =
            |source: &DigestSource| parts.iter().map(|part| source.digest(part)).collect::<Vec<_>>().join("; ");
        let (there, here) = self.both.ask("digest rows", &digests(&plan.master), &digests(&plan.slave))?;
        for ((part, there), here) in parts.iter().zip(there).zip(here) {
            if there != here {
                self.narrow(part, count(&there), count(&here), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Compares the rows of a range one by one, by their digests.
    fn leaf(&mut self, range: &Range) -> Result<()> {
        let plan = self.plan;
        let (there, here) = self.both.ask("look at rows", &plan.master.rows(range), &plan.slave.rows(range))?;
        let mut rows: HashMap<Key, Option<String>> = there.into_iter().map(|row| keyed(row, plan)).collect();
        for (key, digest) in here.into_iter().map(|row| keyed(row, plan)) {
            match rows.remove(&key) {
                Some(other) if other == digest => {}
                _ => self.candidates.push(key),
            }
        }
        self.candidates.extend(rows.into_keys());
        if self.candidates.len() >= TOGETHER {
            self.settle()?;
        }
        Ok(())
    }

    /// Decides on all candidates.
    fn settle(&mut self) -> Result<()> {
        let candidates = std::mem::take(&mut self.candidates);
        for keys in candidates.chunks(TOGETHER) {
            self.settle_together(keys.to_vec())?;
            self.show();
        }
        Ok(())
    }

    fn settle_together(&mut self, mut open: Vec<Key>) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        for round in 0..ROUNDS {
            let is_last = round + 1 == ROUNDS;
            let (mut again, mut pending) = (Vec::new(), Vec::new());
            let verdicts = self.look(&open)?;
            let mut found = Vec::new();
            for (key, verdict) in open.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Equal => {}
                    Verdict::Differs(what) => found.push(Difference { key, what }),
                    Verdict::Pending => pending.push(key),
                    Verdict::PutAside => self.counts.pending += 1,
                    Verdict::Again => again.push(key),
                }
            }
            self.report(found)?;
            let waits = !pending.is_empty() && !is_last && !self.patience.is_zero() && self.daemon_runs()?;
            if !waits {
                self.counts.pending += pending.len() as u64;
                pending.clear();
            }
            if is_last {
                self.counts.unsettled += again.len() as u64;
                return Ok(());
            }
            again.extend(pending);
            open = again;
            if open.is_empty() {
                return Ok(());
            }
            let began = Instant::now();
            self.both.show(&|| format!("{}: waiting for changes of {} rows", self.plan.table, open.len()));
            self.both.pause(if waits { pause.min(self.patience) } else { FIRST_PAUSE })?;
            self.patience = self.patience.saturating_sub(began.elapsed());
            pause *= 2;
        }
        Ok(())
    }

    /// Looks at rows as the head of this file says.
    fn look(&mut self, keys: &[Key]) -> Result<Vec<Verdict>> {
        let plan = self.plan;
        let first = seen(self.both.slave(), &plan.slave, keys)?;
        let mut underway = plan.underway.on_slave(self.both.slave(), &plan.table, &plan.slave, keys)?;
        let (then, waiting) = in_one_snapshot(self.both.master(), &plan.master, |master| {
            let then = seen(master, &plan.master, keys)?;
            Ok((then, plan.underway.on_master(master, &plan.table, &plan.master, keys)?))
        })?;
        underway.extend(waiting);
        if first.iter().zip(&then).all(|(here, there)| here.digest == there.digest) {
            return Ok(keys.iter().map(|_| Verdict::Equal).collect());
        }
        let is_in_doubt = !prepared_is_over(self.both)?;
        // Before the slave's row is read again: what is no longer there by now has been replayed.
        let put_aside = plan.underway.put_aside(self.both.slave(), &plan.table, &plan.slave, keys)?;
        let second = seen(self.both.slave(), &plan.slave, keys)?;
        underway.extend(plan.underway.on_slave(self.both.slave(), &plan.table, &plan.slave, keys)?);
        let now = seen(self.both.master(), &plan.master, keys)?;
        // Keys that are written differently on both sides, such as 1.0 and 1.00, may lead to one and the same row.
        let mut versions = HashSet::new();
        let mut is_known = |seen: &Seen| seen.version.as_ref().is_some_and(|version| !versions.insert(version.clone()));
        let verdict = |n: usize| {
            let (first, then, second, now) = (&first[n], &then[n], &second[n], &now[n]);
            if second.digest == then.digest || is_known(then) {
                Verdict::Equal
            } else if put_aside.contains(&n) {
                Verdict::PutAside
            } else if underway.contains(&n) || is_in_doubt {
                Verdict::Pending
            } else if then.version.is_some() && then.version == now.version
                || second.version.is_some() && second.version == first.version
            {
                Verdict::Differs(match (&then.digest, &second.digest) {
                    (Some(_), None) => What::Missing,
                    (None, _) => What::Extra,
                    _ => What::Different,
                })
            } else {
                Verdict::Again
            }
        };
        Ok((0..keys.len()).map(verdict).collect())
    }

    fn daemon_runs(&mut self) -> Result<bool> {
        let field = &self.plan.underway.field;
        Ok(self.both.master().query_one("look for the daemon", sql::DAEMON_RUNS, &[field])?.get(0))
    }

    fn report(&mut self, found: Vec<Difference>) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        for difference in &found {
            *match difference.what {
                What::Missing => &mut self.counts.missing,
                What::Extra => &mut self.counts.extra,
                What::Different => &mut self.counts.different,
            } += 1;
        }
        (self.take)(self.both, found)
    }

    fn show(&mut self) {
        let (table, counts) = (&self.plan.table, &self.counts);
        self.both.show(&|| format!("{table}: {} rows compared, {} differ", counts.rows.0, counts.differences()));
    }
}

/// Several queries that see the same. The lock comes before the snapshot: a table that an ALTER TABLE rewrites looks empty to
/// a snapshot from before its end.
pub fn in_one_snapshot<T>(
    session: &mut Session,
    source: &DigestSource,
    ask: impl FnOnce(&mut Session) -> Result<T>,
) -> Result<T> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE";
    session.transaction(&format!("{begin} {} IN ACCESS SHARE MODE", source.target), ask)
}

/// What a side holds of these rows now, in the order of the keys.
fn seen(session: &mut Session, source: &DigestSource, keys: &[Key]) -> Result<Vec<Seen>> {
    let mut seen: Vec<Seen> = keys.iter().map(|_| Seen { digest: None, version: None }).collect();
    for row in session.text_rows("look at rows", &source.look_up(keys))? {
        let [Some(n), digest, version] = <[_; 3]>::try_from(row).unwrap_or_default() else { continue };
        if let Some(place) = n.parse::<usize>().ok().and_then(|n| seen.get_mut(n)) {
            *place = Seen { digest, version };
        }
    }
    Ok(seen)
}

fn key(row: &TextRow, plan: &ComparePlan) -> Key {
    row.iter().take(plan.master.key.len()).map(|value| value.clone().unwrap_or_default()).collect()
}

fn keyed(row: TextRow, plan: &ComparePlan) -> (Key, Option<String>) {
    (key(&row, plan), row.into_iter().last().flatten())
}

fn count(row: &TextRow) -> u64 {
    row.first().and_then(|count| count.as_deref()?.parse().ok()).unwrap_or(0)
}
