//! How long a session waits for its server: until another thread calls its `Closer`, or until a limit is over.
//!
//! The postgres crate waits for an answer for ever, and gives nobody its socket. But before it sleeps, it asks our stream for
//! bytes (`line.rs`). So the stream looks here first, and returns an error when the wait is over. The thread that ends the wait wakes the
//! thread that sleeps.

use crate::base::control::Closer;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Shared by the session and the stream below it.
#[derive(Default)]
pub(super) struct Patience {
    pub(super) closer: Closer,
    /// Whether a stream looks here.
    is_heeded: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    /// How long each wait may take, if there is a limit.
    limit: Option<Duration>,
    /// When the present one is over, and how long it was allowed to take.
    over: Option<(Instant, Duration)>,
}

/// What the stream looks at.
pub(super) struct Clock {
    patience: Arc<Patience>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// From now on each wait has this limit.
    pub(super) fn set_limit(&self, limit: Duration) {
        self.times().limit = Some(limit);
    }

    /// A wait begins.
    pub(super) fn begin(&self) {
        let mut times = self.times();
        times.over = times.limit.map(|limit| (Instant::now() + limit, limit));
    }

    /// Whether the wait can be ended. Not if the connection has no stream of ours.
    pub(super) fn is_heeded(&self) -> bool {
        self.is_heeded.load(Relaxed)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    pub(super) fn new(patience: Arc<Patience>) -> Clock {
        patience.is_heeded.store(true, Relaxed);
        Clock { patience, alarm: None }
    }

    /// An error if the wait is over. If not, the caller is woken when it is.
    pub(super) fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let over = self.patience.times().over;
        if let Some((deadline, limit)) = over {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(context).is_ready() {
                let why = format!("no answer within {} s", limit.as_secs());
                self.patience.closer.close(&why, "is the server hung?");
            }
        }
        match self.patience.closer.is_called(context.waker()) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the daemon has closed the connection")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::control::Closed;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::thread;
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Waits as a stream does to which the server sends nothing.
    fn wait(clock: &mut Clock) -> io::Error {
        runtime().block_on(poll_fn(|context| match clock.look(context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }))
    }

    #[test]
    fn another_thread_ends_a_wait_and_says_why() {
        let patience = Arc::<Patience>::default();
        assert!(!patience.is_heeded());
        let mut clock = Clock::new(patience.clone());
        assert!(patience.is_heeded());
        let closer = patience.closer.clone();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            closer.close("it hangs", "let it go on");
            closer.close("too late", "");
        });
        assert_eq!(wait(&mut clock).kind(), io::ErrorKind::ConnectionAborted);
        other.join().unwrap();
        assert_eq!(patience.closer.reason(), Some(Closed { why: "it hangs".into(), hint: "let it go on".into() }));
        // Nobody waits there any more.
        wait(&mut clock);
    }

    #[test]
    fn a_limit_holds_for_each_wait_by_itself() {
        let patience = Arc::<Patience>::default();
        let mut clock = Clock::new(patience.clone());
        let looks_fine =
            |clock: &mut Clock| runtime().block_on(poll_fn(|context| Poll::Ready(clock.look(context)))).is_ok();
        patience.begin();
        patience.set_limit(Duration::from_secs(1));
        assert!(looks_fine(&mut clock));
        patience.begin();
        thread::sleep(Duration::from_millis(600));
        patience.begin();
        thread::sleep(Duration::from_millis(600));
        assert!(patience.closer.reason().is_none());
        wait(&mut clock);
        assert_eq!(patience.closer.reason().map(|closed| closed.why), Some("no answer within 1 s".into()));
    }
}
