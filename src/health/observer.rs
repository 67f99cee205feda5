//! Looks at a pair's databases, on a thread of its own, and keeps what they said last.
//!
//! So a server that hangs delays nobody but its own pair. Who asks says so, and waits for the next look to end, but only for some
//! time. The thread keeps its two sessions from one look to the next. Without a question it looks now and then, for the lag of the last
//! hour. A pair has one thread and two sessions, whatever its servers do, and both end when nobody observes it any more.
//!
//! What doctor checks takes longer. That is done every few minutes, for two pairs of the process at a time, with sessions of its own.

pub mod pool;

use crate::base::tally::Tally;
use crate::config::dsn::Dsn;
use crate::config::settings::Config;
use crate::health::doctor;
use crate::health::exposition::{ByDaemon, Checked};
use crate::health::status::{self, PairStatus, Problem};
use crate::process::logger::OWN_TARGET;
use crate::server::connect;
use crate::server::connect_pair::{self, BothSides, Kept, Opened};
use crate::server::session::Session;
use pool::Pool;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How often the thread looks without being asked.
const INTERVAL: Duration = Duration::from_secs(30);

/// The lag of the last hour: so many looks, at least `INTERVAL` apart.
const SAMPLES: usize = 120;

/// How often doctor checks the pair.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// How long connecting may take, and as long again the first answer of each session: then the server hangs.
const PROBE_TIME: Duration = Duration::from_secs(4);

/// How long each later answer may take. A statement waits for a lock for five seconds.
const ANSWER_TIME: Duration = Duration::from_secs(8);

/// How long what was seen is used for further questions.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// While a look takes long, this much older answers stand for it.
const KNOWN_TIME: Duration = Duration::from_secs(20);

/// The same for the doctor, whose statements have a limit of a minute on the server.
const CHECK_TIMES: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(65)];

/// So much of what doctor finds is kept, and of each text.
const MOST_FINDINGS: usize = 100;
const LONGEST_TEXT: usize = 2000;

const VERB: &str = "metrics";
const DOCTOR: &str = "doctor";

/// What somebody who asks gets to know.
pub struct Seen {
    pub status: Arc<PairStatus>,
    pub by_daemon: ByDaemon,
    /// The master and the slave.
    pub sides: [String; 2],
    pub history: Vec<Sample>,
}

impl Look {
    fn sample(&self) -> Sample {
        Sample { at: self.ended, lag: self.status.lag.as_ref().map(|lag| lag.seconds) }
    }
}

/// How far the slave was behind.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Instant,
    /// None if it could not be found out.
    pub lag: Option<f64>,
}

/// A pair that is observed, until this is dropped.
pub struct Observer(Arc<Observed>);

struct Observed {
    config: Config,
    /// Names the pair on a command line.
    source: String,
    tally: Arc<Tally>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    latest: Option<Look>,
    /// Somebody waits for a look.
    is_wanted: bool,
    is_looking: bool,
    is_over: bool,
    history: VecDeque<Sample>,
    checked: Option<Arc<Checked>>,
    /// When a check began last.
    check_began: Option<Instant>,
    is_checking: bool,
}

struct Look {
    ended: Instant,
    sides: [String; 2],
    answered: SystemTime,
    status: Arc<PairStatus>,
}

impl Observer {
    /// Starts the thread. `former` has observed the same pair with other settings.
    pub fn start(
        config: &Config,
        source: String,
        tally: Arc<Tally>,
        pool: &Pool,
        former: Option<&Observer>,
    ) -> Observer {
        let history = former.map_or_else(VecDeque::new, |former| former.0.lock().history.clone());
        let state = Mutex::new(State { history, ..State::default() });
        let (config, pool, changed) = (config.clone(), pool.clone(), Condvar::new());
        let name = format!("{} {VERB}", config.name);
        let observed = Arc::new(Observed { config, source, tally, state, changed });
        let shared = observed.clone();
        if let Err(e) = thread::Builder::new().name(name).spawn(move || shared.run(&pool)) {
            log::warn!(target: OWN_TARGET, "no metrics of {}: cannot start a thread: {e}", observed.config.name);
        }
        Observer(observed)
    }

    pub fn is_of(&self, config: &Config, source: &str, tally: &Arc<Tally>) -> bool {
        self.0.config == *config && self.0.source == source && Arc::ptr_eq(&self.0.tally, tally)
    }

    /// Whether it is the same pair, maybe with other settings.
    pub fn is_like(&self, config: &Config) -> bool {
        self.0.config.name == config.name && self.0.config.slave_field == config.slave_field
    }

    /// Asks for a look, if there has not been one just now.
    pub fn ask(&self) {
        let mut state = self.0.lock();
        let is_fresh = state.latest.as_ref().is_some_and(|look| look.ended.elapsed() < FRESH_TIME);
        if !is_fresh && !state.is_looking {
            state.is_wanted = true;
            self.0.changed.notify_all();
        }
    }

    /// Waits until a look has ended that was in progress at `since` or began later, but not longer than `until`.
    pub fn answer(&self, since: Instant, until: Instant) -> Seen {
        let mut state = self.0.lock();
        while state.latest.as_ref().is_none_or(|look| look.ended + FRESH_TIME < since) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let answered = state.latest.as_ref().map(|look| look.answered);
        let known = state.latest.as_ref().filter(|look| look.ended + KNOWN_TIME >= Instant::now());
        let status = known.map_or_else(|| Arc::new(self.0.no_answer(since)), |look| look.status.clone());
        let of_file = || [&self.0.config.master, &self.0.config.slave].map(Dsn::to_string);
        Seen {
            status,
            by_daemon: ByDaemon { tally: self.0.tally.clone(), answered, checked: state.checked.clone() },
            sides: state.latest.as_ref().map_or_else(of_file, |look| look.sides.clone()),
            history: state.history.iter().copied().chain(state.latest.as_ref().map(Look::sample)).collect(),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Observed {
    fn run(self: &Arc<Observed>, pool: &Pool) {
        let mut kept = Kept::default();
        let mut pause = Duration::ZERO;
        while self.wait(std::mem::replace(&mut pause, INTERVAL)) {
            let looked = catch_unwind(AssertUnwindSafe(|| self.look(std::mem::take(&mut kept))));
            let mut state = self.lock();
            state.is_looking = false;
            // The log has the panic already. The next look begins with new sessions.
            if let Ok((status, sides, sessions)) = looked {
                kept = sessions;
                state.note(status, sides);
            }
            if !state.is_checking && state.check_began.is_none_or(|began| began.elapsed() >= CHECK_INTERVAL) {
                (state.is_checking, state.check_began) = (true, Some(Instant::now()));
                let shared = self.clone();
                pool.run(Box::new(move || shared.check()));
            }
            drop(state);
            self.changed.notify_all();
        }
        drop(kept);
        [VERB, DOCTOR].iter().for_each(|verb| connect::give_up(&format!("{} {verb}", self.config.name)));
    }

    /// What doctor finds.
    fn check(&self) {
        if self.lock().is_over {
            return;
        }
        let [to_connect, to_answer] = CHECK_TIMES;
        let checked = catch_unwind(|| {
            let Opened { both, .. } = connect_pair::open_again(&self.config, DOCTOR, Kept::default(), Some(to_connect));
            let BothSides { mut master, mut slave, config, roles } = both;
            for session in [&mut master, &mut slave].into_iter().flatten() {
                session.limit_waits(to_answer);
            }
            doctor::diagnose(&config, &self.source, roles.as_ref(), master, slave)
        });
        let mut state = self.lock();
        state.is_checking = false;
        if let Ok(mut findings) = checked {
            findings.sort_by_key(|finding| Reverse(finding.level));
            findings.truncate(MOST_FINDINGS);
            findings.iter_mut().for_each(|finding| finding.cut(LONGEST_TEXT));
            state.checked = Some(Arc::new(Checked { at: SystemTime::now(), findings }));
        }
    }

    /// Waits until it is time for a look. False if there is to be none any more.
    fn wait(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over || state.is_wanted || left.is_zero() {
                state.is_wanted = false;
                state.is_looking = !state.is_over;
                return !state.is_over;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn look(&self, kept: Kept) -> (PairStatus, [String; 2], Kept) {
        let Opened { both, is_reversed } = connect_pair::open_again(&self.config, VERB, kept, Some(PROBE_TIME));
        let BothSides { mut master, mut slave, config, roles } = both;
        for session in [&mut master, &mut slave].into_iter().flatten() {
            session.limit_waits(ANSWER_TIME);
        }
        let status = status::look(&config, &self.source, roles, (&mut master, &mut slave), false);
        // A session that was refused something may have an outdated idea of the database.
        let keep = |session: Option<Session>| session.filter(|session| !status.has_failed_on(session.side()));
        let sessions = [keep(master.ok()), keep(slave.ok())];
        (status, [config.master.to_string(), config.slave.to_string()], Kept { sessions, is_reversed })
    }

    fn no_answer(&self, since: Instant) -> PairStatus {
        let text = format!("the databases have not answered within {} s", since.elapsed().as_secs());
        let hint = format!("pyreplica doctor {} says which of them does not", self.source);
        PairStatus::unknown(&self.config, Problem { is_failure: true, text, hint: Some(hint) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, status: PairStatus, sides: [String; 2]) {
        let look = Look { ended: Instant::now(), sides, answered: SystemTime::now(), status: Arc::new(status) };
        if self.history.back().is_none_or(|last| last.at + INTERVAL <= look.ended) {
            if self.history.len() >= SAMPLES {
                self.history.pop_front();
            }
            self.history.push_back(look.sample());
        }
        self.latest = Some(look);
    }
}
