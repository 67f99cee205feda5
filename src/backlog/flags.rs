//! Sets the flags of changes that have been replayed, and deletes what every slave has replayed.
//!
//! The position says what has been replayed. The flags are for people and monitors that read the log, and each costs an
//! UPDATE of the row. So they are set later, when nothing has been replayed for a moment. Rows are deleted by the
//! positions of all slaves, flagged or not. Both is done in small transactions outside of two-phase commit. So slaves
//! wait for each other only here, and never for long.

use crate::backlog::position::Position;
use crate::backlog::progress::SlaveProgress;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql;
use crate::backlog::sql::FlagQueries;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::LogId;
use crate::config::settings::Config;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;
use std::time::{Duration, Instant};

/// Rows that one step reads.
const ROWS: i64 = 5_000;

/// How many flags are set at most before an error is reported.
const STUCK: i64 = 50_000;

/// With RETENTION=0 rows are deleted during a drain too, if more ids than this wait for it, in at most so many steps
/// after each batch. A backlog is replayed first. Under a load without end the log would only grow.
const BEHIND: u64 = 500_000;
const STEPS: u64 = 10;

/// If another session holds the rows, the next try comes after this pause.
const PAUSE: Duration = Duration::from_secs(60);

pub struct FlagWriter {
    name: String,
    field: String,
    fields: Vec<String>,
    retention: Duration,
    /// FLAGS of the config file.
    sets_flags: bool,
    queries: FlagQueries,
    paused: Option<Instant>,
    /// The id above which deleting goes on, and the lowest id that was kept since it began at the log's start.
    purge_above: LogId,
    kept: Option<LogId>,
}

impl FlagWriter {
    pub fn new(config: &Config, fields: &[String]) -> FlagWriter {
        let field = &config.slave_field;
        FlagWriter {
            name: config.name.clone(),
            field: field.clone(),
            fields: fields.to_vec(),
            retention: config.retention,
            sets_flags: config.flags,
            queries: FlagQueries::new(field, fields, config.retention.as_secs()),
            paused: None,
            purge_above: LogId(0),
            kept: None,
        }
    }

    /// Sets the flags of the next rows. True when there is nothing more to do for now.
    pub fn step(&mut self, master: &mut Session, progress: &mut SlaveProgress) -> Result<bool> {
        if !self.sets_flags && !self.retention.is_zero() {
            return Ok(true);
        }
        if self.paused.is_some_and(|since| since.elapsed() < PAUSE) {
            return Ok(true);
        }
        let Some((above, up_to)) = progress.unflagged().first() else { return Ok(true) };
        let (base, current, midway) = progress.replayed();
        let (base, current) = (base.map(Snapshot::as_str), current.map(Snapshot::as_str));
        let row = master.query_one(
            "read the log",
            &self.queries.due,
            &[&above.0, &up_to.0, &ROWS, &base, &current, &midway.up_to.0, &midway.apart],
        )?;
        let (rows, last): (i64, Option<i64>) = (row.get("rows"), row.get("last"));
        let due: Vec<i64> = row.get("due");
        if !due.is_empty() && !self.change(master, &due, |queries| &queries.mark)? {
            return Ok(true);
        }
        progress.unflagged().done(last.filter(|_| rows == ROWS).map_or(up_to, LogId));
        Ok(progress.unflagged().first().is_none())
    }

    /// With RETENTION=0, deletes rows during a long drain. `replayed`: how many changes were replayed since the last
    /// call.
    pub fn keep_up(&mut self, master: &mut Session, progress: &mut SlaveProgress, replayed: u64) -> Result<()> {
        let mut steps = if self.retention.is_zero() { (1 + replayed / ROWS as u64).min(STEPS) } else { 0 };
        while steps > 0 && progress.unflagged().ids() > BEHIND && !self.step(master, progress)? {
            steps -= 1;
        }
        Ok(())
    }

    /// Sets the flags of what has been replayed when a drain can't go on. An operator who then reads the log for the
    /// cause sees only changes that are pending.
    pub fn stuck(&mut self, master: &mut Session, progress: &SlaveProgress) -> Result<()> {
        let Position { base, current: Some(current), last: Some(last), .. } = progress.position() else {
            return Ok(());
        };
        let (above, base) = (progress.start(current), base.as_ref().map(Snapshot::as_str));
        let parameters: [&(dyn ToSql + Sync); 5] = [&above.0, &base, &current.as_str(), &last.0, &STUCK];
        let due: Vec<i64> = master.query_one("read the log", &self.queries.stuck, &parameters)?.get("due");
        for ids in due.chunks(ROWS as usize) {
            self.change(master, ids, |queries| &queries.mark)?;
        }
        Ok(())
    }

    /// Deletes some of the rows that every slave has replayed and that RETENTION does not keep. True when nothing is
    /// left to delete for now.
    pub fn purge(&mut self, master: &mut Session, progress: &SlaveProgress) -> Result<bool> {
        let seconds = self.retention.as_secs_f64();
        self.look_at_fields(master)?;
        let row = master.query_one("read the log", &self.queries.old, &[&self.purge_above.0, &seconds, &ROWS])?;
        let (rows, old): (i64, i64) = (row.get("rows"), row.get("old"));
        let last = row.get::<_, Option<i64>>("last").map_or(self.purge_above, LogId);
        let passed: Vec<i64> = row.get("passed");
        if !passed.is_empty() && !self.change(master, &passed, |queries| &queries.purge)? {
            return Ok(true);
        }
        self.kept = self.kept.or(row.get::<_, Option<i64>>("kept").map(LogId));
        let is_end = rows < ROWS || old == 0;
        self.purge_above = if is_end {
            // Begin again at the log's start: the lowest id that was kept, or the floor, below which nothing can
            // appear.
            let floor = progress.position().floor;
            self.kept.take().map_or(floor, |kept| LogId(kept.0 - 1).min(floor))
        } else {
            last
        };
        Ok(is_end || passed.is_empty())
    }

    /// The slaves that have something to replay, and since when.
    pub fn waiting(&self, master: &mut Session) -> Result<Vec<(String, String)>> {
        let mut waiting = Vec::new();
        for (field, query) in &self.queries.waiting {
            let since = master.query("look for the slaves' oldest changes", query, &[field])?;
            waiting.extend(since.first().map(|row| (field.clone(), row.get(0))));
        }
        Ok(waiting)
    }

    /// Flags or deletes rows. False if another session holds some of them. The transaction locks the log, so that no
    /// slave's column is added or dropped meanwhile.
    fn change(&mut self, master: &mut Session, ids: &[i64], which: fn(&FlagQueries) -> &[String]) -> Result<bool> {
        let changed = master.transaction(sql::BEGIN_MARKING, |master| {
            self.look_at_fields(master)?;
            for statement in which(&self.queries) {
                master.execute("mark replayed changes", statement, &[&ids])?;
            }
            Ok(())
        });
        match changed {
            Ok(()) => Ok(true),
            Err(error) if is_held(&error) => {
                log::debug!(target: &self.name, "{error}");
                self.paused = Some(Instant::now());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A slave may have been added or removed, and its column with it.
    fn look_at_fields(&mut self, master: &mut Session) -> Result<()> {
        let rows = master.query("look at the log's columns", server_sql::SLAVE_FIELDS, &[])?;
        let fields: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if fields != self.fields {
            self.queries = FlagQueries::new(&self.field, &fields, self.retention.as_secs());
            self.fields = fields;
        }
        Ok(())
    }
}

fn is_held(error: &Error) -> bool {
    error.kind() == Kind::Contention && matches!(error.code(), Some("55P03" | "40P01"))
}
