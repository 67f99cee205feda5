//! The pairs of a process start in turns.
//!
//! A start is work for both servers: two new sessions, which know nothing of the catalogs yet. If a hundred pairs start at once, as they
//! do with the process or when a server comes back, all of them get in each other's way, and each one's first changes arrive as late
//! as the last one's. So some start, and the others wait in line. None waits long for a server that is slow or hangs.

use crate::base::control::{Control, Woken};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many pairs start at the same time. They keep the processors busy; with twice as many the last pair is no later, and the others
/// are.
const AT_ONCE: usize = 8;

/// A pair waits at most so long for each one before it in the line.
const PATIENCE: Duration = Duration::from_millis(30);

static LINE: Mutex<Line> = Mutex::new(Line { starting: 0, waiting: VecDeque::new(), next: 0 });

struct Line {
    starting: usize,
    waiting: VecDeque<(u64, Control)>,
    /// The number of the next pair that waits.
    next: u64,
}

/// A pair has it while it starts.
pub struct Turn(());

impl Turn {
    /// Waits for this pair's turn. A stop ends the wait.
    pub fn take(control: &Control) -> Turn {
        let (number, end) = {
            let mut line = line();
            if line.starting < AT_ONCE {
                line.starting += 1;
                return Turn(());
            }
            let number = line.next;
            line.next += 1;
            line.waiting.push_back((number, control.clone()));
            (number, Instant::now() + PATIENCE * line.waiting.len() as u32)
        };
        loop {
            let woken = control.wait(end.saturating_duration_since(Instant::now()));
            let mut line = line();
            let Some(place) = line.waiting.iter().position(|(waiting, _)| *waiting == number) else {
                // Another pair has handed its turn over.
                return Turn(());
            };
            if woken == Woken::Stopping || Instant::now() >= end {
                line.waiting.remove(place);
                line.starting += 1;
                return Turn(());
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = line();
        let next = if line.starting > AT_ONCE { None } else { line.waiting.pop_front() };
        match next {
            Some((_, control)) => control.wake(),
            None => line.starting -= 1,
        }
    }
}

/// Whether pairs of this process start, or wait for their turn. What can wait for a moment should not take the processors from them.
pub fn are_taken() -> bool {
    line().starting > 0
}

fn line() -> MutexGuard<'static, Line> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// One test, since the line belongs to the process.
    #[test]
    fn pairs_wait_in_line_for_a_while_and_a_stop_ends_that() {
        let all: Vec<Turn> = (0..AT_ONCE).map(|_| Turn::take(&Control::default())).collect();
        assert!(are_taken());
        // One that ends lets the first one in.
        let begun = Instant::now();
        let waits = |control: Control| thread::spawn(move || Turn::take(&control));
        let first = waits(Control::default());
        while line().waiting.is_empty() {
            thread::yield_now();
        }
        let mut all = all;
        drop(all.pop());
        all.push(first.join().unwrap());
        assert_eq!(line().starting, AT_ONCE);
        // Nobody waits for ever for one that does not end.
        let late = Turn::take(&Control::default());
        assert!(begun.elapsed() >= PATIENCE);
        assert_eq!(line().starting, AT_ONCE + 1);
        let stopped = Control::default();
        stopped.stop();
        drop((Turn::take(&stopped), late, all));
        assert!(!are_taken() && line().waiting.is_empty());
    }
}
