//! How other threads control a running pair: they stop it, wake it up, or cancel the statements that the servers run
//! for it.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::tally::Tally;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

/// What a session is waiting for at the moment: an answer of its server, since when, and to what.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<(Instant, String)>>>);

impl Waiting {
    pub fn begin(&self, operation: &str) {
        *self.lock() = Some((Instant::now(), operation.to_string()));
    }

    pub fn end(&self) {
        *self.lock() = None;
    }

    /// For how long it has waited, and for what.
    pub fn since(&self) -> Option<(Instant, String)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a connection from another thread than the one that waits for its server.
#[derive(Clone, Default)]
pub struct Closer(Arc<Mutex<Closing>>);

#[derive(Default)]
struct Closing {
    closed: Option<Closed>,
    waker: Option<Waker>,
}

/// Why a connection was closed, and what to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub why: String,
    pub hint: String,
}

impl Closer {
    /// Closes the connection. What waits for an answer there returns an error with this reason.
    pub fn close(&self, why: &str, hint: &str) {
        let mut closing = self.lock();
        closing.closed.get_or_insert_with(|| Closed { why: why.into(), hint: hint.into() });
        if let Some(waker) = closing.waker.take() {
            waker.wake();
        }
    }

    /// Whether the connection is to be closed. If not, `waker` is called when it is.
    pub fn is_called(&self, waker: &Waker) -> bool {
        let mut closing = self.lock();
        match &mut closing.waker {
            Some(known) => known.clone_from(waker),
            None => closing.waker = Some(waker.clone()),
        }
        closing.closed.is_some()
    }

    pub fn reason(&self) -> Option<Closed> {
        self.lock().closed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Closing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session of a running pair, for somebody who watches over it.
#[derive(Clone)]
pub struct Watched {
    pub side: Side,
    pub backend: i32,
    pub waiting: Waiting,
    /// None if nobody can close the connection.
    pub closer: Option<Closer>,
    /// The session has the value as long as it lives.
    pub life: Weak<()>,
}

impl Watched {
    /// Whether the session has not ended.
    pub fn is_alive(&self) -> bool {
        self.life.strong_count() > 0
    }
}

/// A function that makes a server cancel the statement it runs for this pair.
pub type Canceller = Box<dyn Fn() + Send>;

/// A handle on one pair. Clones refer to the same pair.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

struct Shared {
    stopping: AtomicBool,
    // One slot. While a wake-up waits in it, further ones change nothing, so many NOTIFYs cost no memory.
    wake: SyncSender<()>,
    inbox: Mutex<Receiver<()>>,
    cancellers: Mutex<Vec<Canceller>>,
    watched: Mutex<Vec<Watched>>,
    abandoned: Mutex<Vec<i32>>,
    backends: Mutex<VecDeque<i32>>,
    reversed: AtomicBool,
    tally: Arc<Tally>,
}

/// So many of the pair's last sessions on the master are remembered. Each try opens three at most.
const BACKENDS: usize = 12;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    Notified,
    TimedOut,
    Stopping,
}

impl Default for Control {
    fn default() -> Self {
        Control::counting(Arc::default())
    }
}

impl Control {
    /// What the pair does is added to this tally.
    pub fn counting(tally: Arc<Tally>) -> Control {
        let (wake, inbox) = sync_channel(1);
        let shared = Shared {
            stopping: AtomicBool::new(false),
            wake,
            inbox: Mutex::new(inbox),
            cancellers: Mutex::default(),
            watched: Mutex::default(),
            abandoned: Mutex::default(),
            backends: Mutex::default(),
            reversed: AtomicBool::new(false),
            tally,
        };
        Control { shared: Arc::new(shared) }
    }

    /// What the pair has done.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.shared.tally
    }

    /// Asks the pair to finish or roll back its current batch and to end.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::SeqCst)
    }

    /// Returns an error once the pair has been asked to stop. Work that goes step by step calls it between two steps.
    pub fn check(&self) -> Result<()> {
        if self.is_stopping() { Err(Error::new(Kind::Stopped, None, "go on", "stopped by a signal")) } else { Ok(()) }
    }

    /// Ends the wait of the pair. If it does not wait now, its next wait ends at once.
    pub fn wake(&self) {
        match self.shared.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => unreachable!("the receiver lives as long as the sender"),
        }
    }

    /// Waits for a wake-up or a stop, at most `timeout`. Only the pair's own thread calls it.
    pub fn wait(&self, timeout: Duration) -> Woken {
        if self.is_stopping() {
            return Woken::Stopping;
        }
        let inbox = self.shared.inbox.lock().expect("no waiter panics while it holds the inbox");
        let woken = inbox.recv_timeout(timeout);
        match woken {
            _ if self.is_stopping() => Woken::Stopping,
            Ok(()) => Woken::Notified,
            Err(RecvTimeoutError::Timeout) => Woken::TimedOut,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the sender lives as long as the receiver"),
        }
    }

    /// Pauses before the next try. Wake-ups do not shorten the pause, but a stop ends it. Returns true after a stop.
    pub fn pause(&self, length: Duration) -> bool {
        let end = Instant::now() + length;
        while !self.is_stopping() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wait(left);
        }
        true
    }

    /// Whether DSN1 is the master, as far as is known: a switchover has exchanged the roles.
    pub fn is_reversed(&self) -> bool {
        self.shared.reversed.load(Ordering::SeqCst)
    }

    pub fn set_reversed(&self, is_reversed: bool) {
        self.shared.reversed.store(is_reversed, Ordering::SeqCst);
    }

    /// Adds a session of the pair to those that are watched over, until it ends.
    pub fn watch(&self, session: Watched) {
        if session.side == Side::Master {
            let mut backends = self.lock_backends();
            if backends.len() >= BACKENDS {
                backends.pop_front();
            }
            backends.push_back(session.backend);
        }
        let mut watched = self.lock_watched();
        watched.retain(Watched::is_alive);
        watched.push(session);
    }

    /// Whether this server process on the master works for the pair, or has lately: a session that has ended may keep its locks for a
    /// moment.
    pub fn is_own(&self, backend: i32) -> bool {
        self.lock_backends().contains(&backend) || self.lock_abandoned().contains(&backend)
    }

    pub fn watched(&self) -> Vec<Watched> {
        let mut watched = self.lock_watched();
        watched.retain(Watched::is_alive);
        watched.clone()
    }

    /// Remembers the server process of a session on the master whose connection is closed, although the process may still run.
    pub fn abandon(&self, session: &Watched) {
        if session.side == Side::Master {
            self.lock_abandoned().push(session.backend);
        }
    }

    /// Former server processes of this pair on the master.
    pub fn abandoned(&self) -> Vec<i32> {
        self.lock_abandoned().clone()
    }

    fn lock_backends(&self) -> MutexGuard<'_, VecDeque<i32>> {
        self.shared.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_abandoned(&self) -> MutexGuard<'_, Vec<i32>> {
        self.shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the functions that cancel what the pair's open sessions do. They replace the former ones.
    pub fn set_cancellers(&self, cancellers: Vec<Canceller>) {
        *self.shared.cancellers.lock().expect("cancelling does not panic") = cancellers;
    }

    /// Cancels the current statement on both servers, so that a stop does not wait for it.
    pub fn cancel(&self) {
        for canceller in self.shared.cancellers.lock().expect("cancelling does not panic").iter() {
            canceller();
        }
    }
}
