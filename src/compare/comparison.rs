//! Finds the rows that differ. The servers digest ranges of keys. Only a range whose digests differ is divided further, and
//! at last its rows are compared one by one.
//!
//! Both sides change while they are compared, so a row that differs at a first look is only a candidate. For each
//! candidate, in this order:
//!
//! 1. read the slave's row (c);
//! 2. in one snapshot of the master, read the master's row (M) and whether the log holds a change of it that the slave has
//!    not replayed;
//! 3. wait for what the slave had prepared by then;
//! 4. read the slave's row again (e), then the master's (N).
//!
//! If there is no such change in the log, and none that is held on the slave, then at e the slave has replayed everything
//! of this row that M shows. If e still differs from M, there are three cases:
//!
//! * M and N are the same version of the row: nothing has changed it in between, so nothing that the slave replayed by e
//!   can be newer than M;
//! * c and e are the same version of the row: the slave has replayed nothing newer than M by e, because the master
//!   committed that after c, and its replay would have written the row since;
//! * neither: the row is being changed, and is looked at again a little later.
//!
//! In the first two cases, and in no other, the row is reported as different. A row with a pending change is looked at
//! again as long as a daemon runs and the time limit is not reached; then it counts as pending. The number of looks is
//! limited.

mod plan;
mod prepared;
mod in_progress;
mod whole_rows;

use crate::base::error::Result;
use crate::compare::digest::{DigestSource, Key, Range};
use crate::compare::servers::Servers;
use crate::server::session::{Session, TextRow};
use crate::server::sql as server_sql;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

pub use plan::{ComparePlan, LeftOutKind, LeftOutTable, TablePlan, plans};
pub use prepared::wait_for_prepared;

/// Rows of a range at first: so many that the round trip does not matter, so few that no statement takes long.
const CHUNK: u64 = 100_000;

/// The same if each range is a scan of the table, because there is no index in the order that is needed.
const LONG_CHUNK: u64 = 2_000_000;

/// A range that differs is divided into PARTS, and these again, until they have at most MAX_ROWS; then rows are compared.
const PARTS: u64 = 8;
const MAX_ROWS: u64 = 1_000;

/// Ends the division: rows that are inserted meanwhile could make a range grow.
const MAX_DEPTH: u32 = 8;

/// Candidates that are examined together.
const CANDIDATES_AT_ONCE: usize = 1_000;

/// How often to look at a row that keeps changing, or whose change does not arrive. The pause before the second look; it
/// doubles each time.
const ROUNDS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The slave does not have the row.
    Missing,
    /// The master does not have the row.
    Extra,
    Different,
}

#[derive(Clone, Debug)]
pub struct Difference {
    pub key: Key,
    pub kind: DifferenceKind,
    /// More than one only where equal rows are counted.
    pub rows: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// The numbers of rows on master and slave, as the digests counted them while both were changing.
    pub rows: (u64, u64),
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// Rows that differ and have a pending change.
    pub pending: u64,
    /// Rows that were changed during every look.
    pub unsettled: u64,
}

impl Counts {
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.different
    }
}

/// Is called with differences as they are found, some at a time.
pub type OnDifferences<'a> = dyn FnMut(&mut Servers, Vec<Difference>) -> Result<()> + 'a;

/// Compares one table. `wait_limit`: how long to wait, in all, for pending changes.
pub fn compare(
    servers: &mut Servers,
    plan: &ComparePlan,
    wait_limit: Duration,
    on_differences: &mut OnDifferences,
) -> Result<Counts> {
    let mut comparison =
        Comparison { servers, plan, wait_limit, on_differences, candidates: Vec::new(), counts: Counts::default() };
    if plan.master.is_by_digest {
        comparison.compare_whole_rows()?;
    } else {
        comparison.compare_ranges()?;
    }
    comparison.decide()?;
    Ok(comparison.counts)
}

struct Comparison<'a, 'b> {
    servers: &'a mut Servers,
    plan: &'a ComparePlan,
    wait_limit: Duration,
    on_differences: &'a mut OnDifferences<'b>,
    candidates: Vec<Key>,
    counts: Counts,
}

/// What one look at a row has found.
#[derive(Debug, PartialEq, Eq)]
struct RowState {
    digest: Option<String>,
    version: Option<String>,
}

enum Verdict {
    Equal,
    Differs(DifferenceKind, u64),
    /// A change of the row is pending.
    Pending,
    /// A change of the row is held: it does not arrive until the hold or the quarantine ends.
    Held,
    /// The row was changed during the look.
    Changing,
}

impl Comparison<'_, '_> {
    /// Digests one range after the other. While both servers digest a range, the master also finds the end of the next one.
    fn compare_ranges(&mut self) -> Result<()> {
        let plan = self.plan;
        let by_bytes = plan.master.key.iter().any(|column| column.by_bytes);
        let chunk = if by_bytes { LONG_CHUNK } else { CHUNK };
        let mut range = Range::default();
        let first = self.servers.master().text_rows("divide the table", &plan.master.key_at(&range, chunk))?;
        let mut end = first.first().map(|row| key(row, plan));
        loop {
            range.up_to = end.clone();
            let mut master_query = plan.master.digest(&range);
            if end.is_some() {
                let rest = Range { above: end.clone(), up_to: None };
                master_query = format!("{master_query}; {}", plan.master.key_at(&rest, chunk));
            }
            let (from_master, from_slave) =
                self.servers.ask_both("digest rows", &master_query, &plan.slave.digest(&range))?;
            let (master_rows, slave_rows) = (count(&from_master[0]), count(&from_slave[0]));
            self.counts.rows.0 += master_rows;
            self.counts.rows.1 += slave_rows;
            if from_master[0] != from_slave[0] {
                self.divide_range(&range, master_rows, slave_rows, 0)?;
            }
            self.show_progress();
            if end.is_none() {
                return Ok(());
            }
            range.above = end;
            end = from_master.get(1).map(|row| key(row, plan));
        }
    }

    /// Divides a range that differs, until its rows can be compared.
    fn divide_range(&mut self, range: &Range, master_rows: u64, slave_rows: u64, depth: u32) -> Result<()> {
        let larger = master_rows.max(slave_rows);
        if larger <= MAX_ROWS || depth == MAX_DEPTH {
            return self.compare_rows(range);
        }
        let plan = self.plan;
        let (source, session) = if slave_rows > master_rows {
            (&plan.slave, self.servers.slave())
        } else {
            (&plan.master, self.servers.master())
        };
        let step = (larger / PARTS + 1).max(MAX_ROWS / 2);
        let keys = session.text_rows("divide a range", &source.keys_at_every(range, step))?;
        let mut parts = Vec::new();
        let mut above = range.above.clone();
        for end in keys.iter().map(|row| key(row, plan)).map(Some).chain([range.up_to.clone()]) {
            parts.push(Range { above, up_to: end.clone() });
            above = end;
        }
        let digests =
            |source: &DigestSource| parts.iter().map(|part| source.digest(part)).collect::<Vec<_>>().join("; ");
        let (from_master, from_slave) =
            self.servers.ask_both("digest rows", &digests(&plan.master), &digests(&plan.slave))?;
        for ((part, from_master), from_slave) in parts.iter().zip(from_master).zip(from_slave) {
            if from_master != from_slave {
                self.divide_range(part, count(&from_master), count(&from_slave), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Compares the rows of a range one by one, by their digests.
    fn compare_rows(&mut self, range: &Range) -> Result<()> {
        let plan = self.plan;
        let (from_master, from_slave) =
            self.servers.ask_both("look at rows", &plan.master.rows(range), &plan.slave.rows(range))?;
        let mut rows: HashMap<Key, Option<String>> =
            from_master.into_iter().map(|row| key_and_digest(row, plan)).collect();
        for (key, digest) in from_slave.into_iter().map(|row| key_and_digest(row, plan)) {
            match rows.remove(&key) {
                Some(other) if other == digest => {}
                _ => self.candidates.push(key),
            }
        }
        self.candidates.extend(rows.into_keys());
        if self.candidates.len() >= CANDIDATES_AT_ONCE {
            self.decide()?;
        }
        Ok(())
    }

    /// Decides for each candidate whether it differs.
    fn decide(&mut self) -> Result<()> {
        let candidates = std::mem::take(&mut self.candidates);
        for keys in candidates.chunks(CANDIDATES_AT_ONCE) {
            self.decide_together(keys.to_vec())?;
            self.show_progress();
        }
        Ok(())
    }

    fn decide_together(&mut self, mut undecided: Vec<Key>) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        for round in 0..ROUNDS {
            let is_last = round + 1 == ROUNDS;
            let (mut again, mut pending) = (Vec::new(), Vec::new());
            let verdicts = self.examine(&undecided)?;
            let mut found = Vec::new();
            for (key, verdict) in undecided.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Equal => {}
                    Verdict::Differs(kind, rows) => found.push(Difference { key, kind, rows }),
                    Verdict::Pending => pending.push(key),
                    Verdict::Held => self.counts.pending += 1,
                    Verdict::Changing => again.push(key),
                }
            }
            self.report(found)?;
            let waits = !pending.is_empty() && !is_last && !self.wait_limit.is_zero() && self.daemon_runs()?;
            if !waits {
                self.counts.pending += pending.len() as u64;
                pending.clear();
            }
            if is_last {
                self.counts.unsettled += again.len() as u64;
                return Ok(());
            }
            again.extend(pending);
            undecided = again;
            if undecided.is_empty() {
                return Ok(());
            }
            let began = Instant::now();
            self.servers
                .show_progress(&|| format!("{}: waiting for changes of {} rows", self.plan.table, undecided.len()));
            self.servers.pause(if waits { pause.min(self.wait_limit) } else { FIRST_PAUSE })?;
            self.wait_limit = self.wait_limit.saturating_sub(began.elapsed());
            pause *= 2;
        }
        Ok(())
    }

    /// Looks at rows as the head of this file describes.
    fn examine(&mut self, keys: &[Key]) -> Result<Vec<Verdict>> {
        let plan = self.plan;
        let slave_before = row_states(self.servers.slave(), &plan.slave, keys)?;
        let mut pending = plan.pending.on_slave(self.servers.slave(), &plan.table, &plan.slave, keys)?;
        let (master_before, waiting) = in_one_snapshot(self.servers.master(), &plan.master, |master| {
            let master_before = row_states(master, &plan.master, keys)?;
            Ok((master_before, plan.pending.on_master(master, &plan.table, &plan.master, keys)?))
        })?;
        pending.extend(waiting);
        if slave_before
            .iter()
            .zip(&master_before)
            .all(|(from_slave, from_master)| from_slave.digest == from_master.digest)
        {
            return Ok(keys.iter().map(|_| Verdict::Equal).collect());
        }
        let is_in_doubt = !wait_for_prepared(self.servers)?;
        // This comes before the second look at the slave's row: a change that is no longer held has been replayed by then.
        let held = plan.pending.held(self.servers.slave(), &plan.table, &plan.slave, keys)?;
        let slave_after = row_states(self.servers.slave(), &plan.slave, keys)?;
        pending.extend(plan.pending.on_slave(self.servers.slave(), &plan.table, &plan.slave, keys)?);
        let master_after = row_states(self.servers.master(), &plan.master, keys)?;
        // Keys that both sides write differently, such as 1.0 and 1.00, may belong to the same row.
        let mut versions = HashSet::new();
        let mut is_known =
            |seen: &RowState| seen.version.as_ref().is_some_and(|version| !versions.insert(version.clone()));
        let verdict = |n: usize| {
            let (slave_before, master_before, slave_after, master_after) =
                (&slave_before[n], &master_before[n], &slave_after[n], &master_after[n]);
            if slave_after.digest == master_before.digest || is_known(master_before) {
                Verdict::Equal
            } else if held.contains(&n) {
                Verdict::Held
            } else if pending.contains(&n) || is_in_doubt {
                Verdict::Pending
            } else if master_before.version.is_some() && master_before.version == master_after.version
                || slave_after.version.is_some() && slave_after.version == slave_before.version
            {
                let (here, there) = (&slave_after.digest, &master_before.digest);
                if plan.master.is_by_digest {
                    return whole_rows::verdict(there.as_ref(), here.as_ref());
                }
                let kind = match (there, here) {
                    (Some(_), None) => DifferenceKind::Missing,
                    (None, _) => DifferenceKind::Extra,
                    _ => DifferenceKind::Different,
                };
                Verdict::Differs(kind, 1)
            } else {
                Verdict::Changing
            }
        };
        Ok((0..keys.len()).map(verdict).collect())
    }

    /// A repair that sets the position shows itself as a daemon, so that none replays meanwhile.
    fn daemon_runs(&mut self) -> Result<bool> {
        let (field, master) = (&self.plan.pending.field, self.servers.master());
        let sessions = master.query("look for the daemon", server_sql::DAEMON, &[field])?;
        Ok(sessions.iter().any(|row| row.get("replicates") && row.get::<_, i32>("pid") != master.backend_pid()))
    }

    fn report(&mut self, found: Vec<Difference>) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        for difference in &found {
            *match difference.kind {
                DifferenceKind::Missing => &mut self.counts.missing,
                DifferenceKind::Extra => &mut self.counts.extra,
                DifferenceKind::Different => &mut self.counts.different,
            } += difference.rows;
        }
        (self.on_differences)(self.servers, found)
    }

    fn show_progress(&mut self) {
        let (table, counts) = (&self.plan.table, &self.counts);
        self.servers
            .show_progress(&|| format!("{table}: {} rows compared, {} differ", counts.rows.0, counts.differences()));
    }
}

/// Runs several queries in one snapshot. The lock comes before the snapshot: if an ALTER TABLE rewrites the table, the
/// table looks empty to a snapshot from before its end.
pub fn in_one_snapshot<T>(
    session: &mut Session,
    source: &DigestSource,
    ask: impl FnOnce(&mut Session) -> Result<T>,
) -> Result<T> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE";
    session.transaction(&format!("{begin} {} IN ACCESS SHARE MODE", source.target), ask)
}

/// The present state of these rows on one side, in the order of the keys.
fn row_states(session: &mut Session, source: &DigestSource, keys: &[Key]) -> Result<Vec<RowState>> {
    let mut seen: Vec<RowState> = keys.iter().map(|_| RowState { digest: None, version: None }).collect();
    for row in session.text_rows("look at rows", &source.look_up(keys))? {
        let [Some(n), digest, version] = <[_; 3]>::try_from(row).unwrap_or_default() else { continue };
        if let Some(place) = n.parse::<usize>().ok().and_then(|n| seen.get_mut(n)) {
            *place = RowState { digest, version };
        }
    }
    Ok(seen)
}

fn key(row: &TextRow, plan: &ComparePlan) -> Key {
    row.iter().take(plan.master.key.len()).map(|value| value.clone().unwrap_or_default()).collect()
}

fn key_and_digest(row: TextRow, plan: &ComparePlan) -> (Key, Option<String>) {
    (key(&row, plan), row.into_iter().last().flatten())
}

fn count(row: &TextRow) -> u64 {
    row.first().and_then(|count| count.as_deref()?.parse().ok()).unwrap_or(0)
}
