//! Looks at a pair's databases, on a thread of its own, and keeps what they said last.
//!
//! So a server that hangs delays nobody but its own pair. Who asks says so, and waits for the next look to end, but only for some
//! time. The thread keeps its two sessions from one look to the next. Without a question it looks now and then, so that
//! the sessions stay open. A pair has one thread and two sessions, whatever its servers do, and both end when nobody observes it any more.

use crate::base::tally::Tally;
use crate::config::settings::Config;
use crate::health::status::{self, PairStatus, Problem};
use crate::process::logger::OWN_TARGET;
use crate::server::connect;
use crate::server::connect_pair::{self, BothSides, Kept, Opened};
use crate::server::session::Session;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How often the thread looks without being asked.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long connecting may take, and as long again the first answer of each session: then the server hangs.
const PROBE_TIME: Duration = Duration::from_secs(4);

/// How long each later answer may take. A statement waits for a lock for five seconds.
const ANSWER_TIME: Duration = Duration::from_secs(8);

/// How long what was seen is used for further questions.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// While a look takes long, this much older answers stand for it.
const KNOWN_TIME: Duration = Duration::from_secs(20);

const VERB: &str = "metrics";

/// What somebody who asks gets to know.
pub struct Seen {
    pub status: Arc<PairStatus>,
    /// What the pair has done.
    pub tally: Arc<Tally>,
    /// When the databases have answered last, if they ever have.
    pub answered: Option<SystemTime>,
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
}

struct Look {
    ended: Instant,
    answered: SystemTime,
    status: Arc<PairStatus>,
}

impl Observer {
    /// Starts the thread.
    pub fn start(config: &Config, source: String, tally: Arc<Tally>) -> Observer {
        let (config, state, changed) = (config.clone(), Mutex::default(), Condvar::new());
        let name = format!("{} {VERB}", config.name);
        let observed = Arc::new(Observed { config, source, tally, state, changed });
        let shared = observed.clone();
        if let Err(e) = thread::Builder::new().name(name).spawn(move || shared.run()) {
            log::warn!(target: OWN_TARGET, "no metrics of {}: cannot start a thread: {e}", observed.config.name);
        }
        Observer(observed)
    }

    pub fn is_of(&self, config: &Config, source: &str, tally: &Arc<Tally>) -> bool {
        self.0.config == *config && self.0.source == source && Arc::ptr_eq(&self.0.tally, tally)
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
        while !state.latest.as_ref().is_some_and(|look| look.ended + FRESH_TIME >= since) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let answered = state.latest.as_ref().map(|look| look.answered);
        let known = state.latest.as_ref().filter(|look| look.ended + KNOWN_TIME >= Instant::now());
        let status = known.map_or_else(|| Arc::new(self.0.no_answer(since)), |look| look.status.clone());
        Seen { status, tally: self.0.tally.clone(), answered }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Observed {
    fn run(&self) {
        let mut kept = Kept::default();
        let mut pause = Duration::ZERO;
        while self.wait(std::mem::replace(&mut pause, INTERVAL)) {
            let looked = catch_unwind(AssertUnwindSafe(|| self.look(std::mem::take(&mut kept))));
            let mut state = self.lock();
            state.is_looking = false;
            // The log has the panic already. The next look begins with new sessions.
            if let Ok((status, sessions)) = looked {
                kept = sessions;
                state.note(status);
            }
            drop(state);
            self.changed.notify_all();
        }
        drop(kept);
        connect::give_up(&format!("{} {VERB}", self.config.name));
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

    fn look(&self, kept: Kept) -> (PairStatus, Kept) {
        let Opened { both, is_reversed } = connect_pair::open_again(&self.config, VERB, kept, Some(PROBE_TIME));
        let BothSides { mut master, mut slave, config, roles } = both;
        for session in [&mut master, &mut slave].into_iter().flatten() {
            session.limit_waits(ANSWER_TIME);
        }
        let status = status::look(&config, &self.source, roles, (&mut master, &mut slave), false);
        // A session that was refused something may have an outdated idea of the database.
        let keep = |session: Option<Session>| session.filter(|session| !status.has_failed_on(session.side()));
        let sessions = [keep(master.ok()), keep(slave.ok())];
        (status, Kept { sessions, is_reversed })
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
    fn note(&mut self, status: PairStatus) {
        let now = Instant::now();
        self.latest = Some(Look { ended: now, answered: SystemTime::now(), status: Arc::new(status) });
    }
}
