//! A few threads for work that may take long, and that no server is to get much of at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// So many pieces of work at a time.
const AT_A_TIME: usize = 2;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    at_work: usize,
}

impl Pool {
    /// Does the work when it is its turn. If no thread can be started, it waits for the next call.
    pub fn run(&self, work: Work) {
        let mut queue = self.lock();
        queue.waiting.push_back(work);
        if queue.at_work < AT_A_TIME {
            let pool = self.clone();
            let started = thread::Builder::new().name("doctor".into()).spawn(move || pool.work());
            queue.at_work += usize::from(started.is_ok());
        }
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let Some(work) = queue.waiting.pop_front() else {
                queue.at_work -= 1;
                return;
            };
            drop(queue);
            // The log has the panic already.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
