//! How other threads control a running pair: they stop it, wake it up, or cancel the statements that the servers run
//! for it.

use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// A session of a running pair, for somebody who watches over it.
#[derive(Clone)]
pub struct Watched {
    pub side: Side,
    pub backend: i32,
    pub waiting: Waiting,
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
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    Notified,
    TimedOut,
    Stopping,
}

impl Default for Control {
    fn default() -> Self {
        let (wake, inbox) = sync_channel(1);
        let shared = Shared {
            stopping: AtomicBool::new(false),
            wake,
            inbox: Mutex::new(inbox),
            cancellers: Mutex::default(),
            watched: Mutex::default(),
        };
        Control { shared: Arc::new(shared) }
    }
}

impl Control {
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

    /// The sessions of the pair's present connection.
    pub fn set_watched(&self, watched: Vec<Watched>) {
        *self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner) = watched;
    }

    pub fn watched(&self) -> Vec<Watched> {
        self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
