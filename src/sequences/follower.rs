//! Lets the sequences of the slave follow while the pair runs.
//!
//! ```text
//! look at the log -> replay what it found -> read the master's sequences -> set those that have moved on the slave
//! ```
//!
//! A transaction takes its numbers before it commits. So what is read after a look is at least what the rows need that the look
//! has found. It is read at most once per SEQUENCES, and once more when that time is over after the last change: a burst ends
//! with the sequences right. A sequence that moves without a change is read with the next one, or at the next TIMEOUT.
//!
//! Nothing here stops replication but a lost connection.

use crate::base::error::{Error, Result};
use crate::base::shown::listed;
use crate::config::settings::Config;
use crate::sequences::decision::{Rules, Why};
use crate::sequences::known::Known;
use crate::sequences::sequence::is_of_the_session;
use crate::sequences::setting::{Outcome, has_log, is_fed_back, set};
use crate::server::session::Session;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Those that could not be set, and those that have given no number yet, are tried again after this: what has changed is the
/// slave, or not to be seen cheaply.
const RETRY: Duration = Duration::from_secs(60);

/// So many rounds that fail are a matter of the moment, such as a sequence that was dropped while it was read.
const PATIENCE: u32 = 2;

/// Looks take at most this part of the daemon's time, however many sequences there are: between two it does something else for so
/// many times as long as one took.
const SHARE: u32 = 10;

pub struct Follower {
    /// Of the pair, for its log.
    name: String,
    /// None if the sequences do not follow.
    every: Option<Duration>,
    timeout: Duration,
    /// Changes have been replayed since the last look.
    is_due: bool,
    looked_at: Instant,
    /// How long the last look took.
    took: Duration,
    retried_at: Option<Instant>,
    known: Known,
    told: HashSet<(Why, String)>,
    is_fed_back: bool,
    failures: u32,
}

impl Follower {
    /// `every`: how often at most; None if they do not follow. The first look comes after that time too: a daemon that starts has
    /// changes to replay, and perhaps hundred pairs.
    pub fn new(config: &Config, every: Option<Duration>) -> Follower {
        Follower {
            name: config.name.clone(),
            every,
            timeout: config.timeout,
            is_due: true,
            looked_at: Instant::now(),
            took: Duration::ZERO,
            retried_at: None,
            known: Known::new(&config.tables),
            told: HashSet::new(),
            is_fed_back: false,
            failures: 0,
        }
    }

    /// Changes have been replayed.
    pub fn replayed(&mut self) {
        self.is_due = true;
    }

    /// When it is time to look, if that is to be done.
    pub fn until_due(&self) -> Option<Duration> {
        let every = self.every?.max(self.took.saturating_mul(SHARE));
        self.is_due.then(|| every.saturating_sub(self.looked_at.elapsed()))
    }

    /// Looks, if it is time. Returns what the operator should know. Both sessions must be outside of a transaction.
    pub fn follow(&mut self, master: &mut Session, slave: &mut Session) -> Result<Vec<String>> {
        let is_time = self.until_due().is_some_and(|left| left.is_zero());
        let is_idle = self.every.is_some() && self.looked_at.elapsed() >= self.timeout;
        if is_time || is_idle { self.look(master, slave) } else { Ok(Vec::new()) }
    }

    /// Looks once more if there is something to look for, whether it is time or not.
    pub fn finish(&mut self, master: &mut Session, slave: &mut Session) -> Result<Vec<String>> {
        if self.every.is_some() && self.is_due { self.look(master, slave) } else { Ok(Vec::new()) }
    }

    fn look(&mut self, master: &mut Session, slave: &mut Session) -> Result<Vec<String>> {
        self.is_due = false;
        let since = Instant::now();
        let looked = self.round(master, slave);
        (self.looked_at, self.took) = (since, since.elapsed());
        match looked {
            Ok(told) => {
                self.failures = 0;
                Ok(told)
            }
            Err(error) if is_of_the_session(&error) => Err(error),
            Err(error) => Ok(self.failed(&error).into_iter().collect()),
        }
    }

    fn failed(&mut self, error: &Error) -> Option<String> {
        self.failures += 1;
        // After that the next change brings the next look.
        self.is_due = self.failures < PATIENCE;
        let hint = error.hint().map_or(String::new(), |hint| format!(". hint: {hint}"));
        (self.failures == PATIENCE).then(|| format!("the sequences do not follow: {error}{hint}"))
    }

    fn round(&mut self, master: &mut Session, slave: &mut Session) -> Result<Vec<String>> {
        if self.retried_at.is_none_or(|at| at.elapsed() >= RETRY) {
            self.retried_at = Some(Instant::now());
            if self.is_fed_back {
                self.look_for_feedback(master, slave)?;
            }
            self.known.forget_unsettled();
        }
        if self.is_fed_back {
            return Ok(Vec::new());
        }
        let moved = self.known.moved(master)?;
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        // Each time: the second of two masters may have been set up in the meantime.
        self.look_for_feedback(master, slave)?;
        if self.is_fed_back {
            return Ok(Vec::new());
        }
        let rules = Rules { slave_has_log: has_log(slave)?, ..Rules::default() };
        let outcome = set(master, slave, &moved, rules)?;
        log::trace!(target: &self.name, "Sequences that have moved: {}; set: {}", moved.len(), outcome.set.len());
        let told = self.warnings(&outcome);
        let left: HashMap<&str, Why> = outcome.not_set.iter().map(|(why, name)| (name.as_str(), *why)).collect();
        for mut sequence in moved {
            match left.get(sequence.name.as_str()) {
                Some(Why::Busy) => {
                    self.known.forget(&sequence);
                    self.is_due = true;
                    continue;
                }
                Some(_) => sequence.place = None,
                None => {}
            }
            self.known.remember(sequence);
        }
        Ok(told)
    }

    fn look_for_feedback(&mut self, master: &mut Session, slave: &mut Session) -> Result<()> {
        let is_fed_back = is_fed_back(master, slave)?;
        if is_fed_back && !self.is_fed_back {
            log::info!(target: &self.name, "The slave is a master for this master: each keeps its own sequences");
        }
        self.is_fed_back = is_fed_back;
        Ok(())
    }

    /// A text for each reason why sequences cannot follow, of those that it has not told yet.
    fn warnings(&mut self, outcome: &Outcome) -> Vec<String> {
        let mut reasons: Vec<Why> =
            outcome.not_set.iter().map(|(why, _)| *why).filter(|why| why.is_a_fault()).collect();
        reasons.sort();
        reasons.dedup();
        let mut texts = Vec::new();
        for reason in reasons {
            let of_it = outcome.not_set.iter().filter(|(why, _)| *why == reason);
            let names: Vec<String> =
                of_it.filter(|entry| self.told.insert((*entry).clone())).map(|(_, name)| name.clone()).collect();
            if names.is_empty() {
                continue;
            }
            let said = outcome.refusals.first().filter(|_| reason == Why::Refused);
            let said = said.map_or(String::new(), |said| format!(" ({said})"));
            texts.push(format!(
                "sequences that do not follow: {}: {reason}{said}. hint: pyreplica doctor says what to do; SEQUENCES=off lets \
                 none follow",
                listed(&names)
            ));
        }
        texts
    }
}
