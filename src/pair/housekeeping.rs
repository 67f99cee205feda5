//! What a pair does besides replaying: it sets the flags of the changes that it has replayed. Once a minute it deletes what
//! every slave has replayed some time ago, and checks the size of the log, and whether a table with rows was attached as a partition.

use crate::base::error::Result;
use crate::commit::twophase::Pair;
use crate::config::settings::Config;
use crate::pair::attached::Watch;
use crate::pair::failure;
use crate::pair::sql;
use std::time::{Duration, Instant};

/// The pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);

/// Changes that arrive meanwhile wait no longer than this.
const TIME_SLICE: Duration = Duration::from_millis(100);

/// After a warning about the size of the log, the daemon warns again only if the log has shrunk to this part of the limit
/// in between.
const SHRUNK_PERCENT: u64 = 80;

pub struct Housekeeping {
    has_begun: bool,
    /// When the next round begins. The first one may come earlier: when nothing is replayed.
    next: Instant,
    is_first: bool,
    warned: bool,
    warnings: Vec<String>,
    partitions: Watch,
}

impl Housekeeping {
    pub fn new() -> Housekeeping {
        Housekeeping {
            has_begun: false,
            next: Instant::now() + INTERVAL,
            is_first: true,
            warned: false,
            warnings: Vec::new(),
            partitions: Watch::default(),
        }
    }

    /// Sets flags, and does a round of the other tasks if it is time for one. False if the time slice was too short: then
    /// the next call should follow soon. `is_quiet`: nothing has been replayed for a while, so setting flags slows nobody down.
    pub fn run(&mut self, config: &Config, pair: &mut Pair, is_quiet: bool) -> Result<bool> {
        let until = Instant::now() + TIME_SLICE;
        if (is_quiet || config.retention.is_zero()) && !set_flags(pair, until)? {
            return Ok(false);
        }
        pair.log.progress.keep_floor(&mut pair.master)?;
        if !std::mem::replace(&mut self.has_begun, true) {
            failure::is_over(&config.name, &config.slave_field, &mut pair.master);
        }
        if Instant::now() < self.next && !(self.is_first && is_quiet) {
            return Ok(true);
        }
        if !purge(pair, until)? {
            return Ok(false);
        }
        (self.next, self.is_first) = (Instant::now() + INTERVAL, false);
        pair.master.query_one("forget the names of dropped tables", sql::FORGET_NAMES, &[])?;
        delete_old_conflicts(config, pair)?;
        self.check_log_size(config, pair)?;
        for attached in self.partitions.look(&mut pair.master)? {
            self.warn(config, format!("master: {}. hint: {}", attached.text(), attached.advice));
        }
        Ok(true)
    }

    /// Warnings for the operator, which have been logged already.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn warn(&mut self, config: &Config, warning: String) {
        log::warn!(target: &config.name, "{warning}");
        self.warnings.push(warning);
    }

    fn check_log_size(&mut self, config: &Config, pair: &mut Pair) -> Result<()> {
        let size = pair.master.query_one("look at the size of the log", sql::LOG_SIZE, &[])?.get::<_, i64>(0) as u64;
        if size < config.log_warning / 100 * SHRUNK_PERCENT {
            self.warned = false;
        }
        if size <= config.log_warning || self.warned {
            return Ok(());
        }
        self.warned = true;
        let waiting = pair.flags.waiting(&mut pair.master)?;
        let slaves: Vec<String> =
            waiting.iter().map(|(field, since)| format!("{field} has not replayed changes since {since}")).collect();
        let slaves = if slaves.is_empty() { "no slave has anything to replay".into() } else { slaves.join(", ") };
        let warning = format!(
            "replica_log has grown to {} MiB: {slaves}. hint: start the daemon of the slave that is behind, or \
             remove the slave: SELECT py_log_remove_slave('...')",
            size >> 20
        );
        self.warn(config, warning);
        Ok(())
    }
}

/// Keeps the table of conflicts short.
fn delete_old_conflicts(config: &Config, pair: &mut Pair) -> Result<()> {
    let Some(key) = pair.replayer.holds.pair() else { return Ok(()) };
    let kept = config.conflicts_kept as i64;
    pair.slave.execute("forget old conflicts", sql::FORGET_CONFLICTS, &[&key, &kept]).map(drop)
}

/// True when every flag is set.
fn set_flags(pair: &mut Pair, until: Instant) -> Result<bool> {
    while Instant::now() < until && !pair.control.is_stopping() {
        if pair.flags.step(&mut pair.master, &mut pair.log.progress)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True when there is nothing more to delete.
fn purge(pair: &mut Pair, until: Instant) -> Result<bool> {
    while Instant::now() < until && !pair.control.is_stopping() {
        if pair.flags.purge(&mut pair.master, &pair.log.progress)? {
            return Ok(true);
        }
    }
    Ok(false)
}
