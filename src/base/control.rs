//! How other threads control a running pair: they stop it, wake it up, or cancel the statements that the servers run
//! for it.

use crate::base::error::{Error, Kind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
        let shared =
            Shared { stopping: AtomicBool::new(false), wake, inbox: Mutex::new(inbox), cancellers: Mutex::default() };
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
