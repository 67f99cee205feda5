//! How the shell talks to a running pair: stop, wake up, cancel what the servers are doing for it.

use crate::base::error::{Error, Kind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Something that makes a server give up the statement it runs for this pair.
pub type Canceller = Box<dyn Fn() + Send>;

/// The handle that the shell keeps; clones refer to the same pair.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

struct Shared {
    stopping: AtomicBool,
    // One slot: a wake-up that waits makes any further one superfluous, so a flood of NOTIFYs costs no memory.
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
    /// Asks the pair to finish or roll back the batch in hand and to end.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::SeqCst)
    }

    /// For work that goes step by step: an error once it has been told to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_stopping() { Err(Error::new(Kind::Stopped, None, "go on", "stopped by a signal")) } else { Ok(()) }
    }

    /// Ends the pair's wait, now or the next one.
    pub fn wake(&self) {
        match self.shared.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => unreachable!("the receiver lives as long as the sender"),
        }
    }

    /// Waits for a wake-up, for the stop, or for `timeout`. Only the pair's own thread waits.
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

    /// Waits out a pause before the next try. Wake-ups do not shorten it, the stop does: true when time to stop.
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

    /// The pair's open sessions say how to cancel what they are doing; replaces the former ones.
    pub fn set_cancellers(&self, cancellers: Vec<Canceller>) {
        *self.shared.cancellers.lock().expect("cancelling does not panic") = cancellers;
    }

    /// Makes both servers give up the statement in hand, so that a stop does not wait for it.
    pub fn cancel(&self) {
        for canceller in self.shared.cancellers.lock().expect("cancelling does not panic").iter() {
            canceller();
        }
    }
}
