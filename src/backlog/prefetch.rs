//! A thread that reads the log on a session of its own while the pair replays: the master works while the slave does.
//!
//! Only long batches are worth it. What is read ahead is bounded: the thread waits as soon as so many answers wait for the
//! pair. When a batch fails, the reader is dropped together with all that it has read.

use crate::backlog::change::Change;
use crate::backlog::order::LogEntry;
use crate::backlog::reader::{Batch, LogReader, Pages, Window};
use crate::backlog::sql;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::server::connect;
use crate::server::session::Session;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// So many bytes of changes may wait to be taken, as the log stores them, or one piece of more; the thread holds another one in
/// hand.
const AHEAD_BYTES: usize = 3 << 20;

/// While it waits, the pair looks up this often to see whether it has to stop.
const PATIENCE: Duration = Duration::from_millis(100);

enum Request {
    /// Answered by `Changes`, as often as it takes, and `End`.
    Batch(Batch),
    /// Answered by `Window`.
    Window(Window),
}

enum Answer {
    Changes(Vec<Change>, usize),
    End,
    Window(Vec<LogEntry>),
}

/// How much waits to be taken.
#[derive(Default)]
struct Shelf {
    state: Mutex<Shelved>,
    changed: Condvar,
}

#[derive(Default)]
struct Shelved {
    bytes: usize,
    is_closed: bool,
}

impl Shelf {
    /// Waits for room; false if nobody will take it any more.
    fn put(&self, bytes: usize) -> bool {
        let is_full =
            |shelved: &mut Shelved| !shelved.is_closed && shelved.bytes > 0 && shelved.bytes + bytes > AHEAD_BYTES;
        let mut shelved = self.changed.wait_while(self.lock(), is_full).expect("no holder panics");
        shelved.bytes += bytes;
        !shelved.is_closed
    }

    fn take(&self, bytes: usize) {
        self.lock().bytes -= bytes;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Shelved> {
        self.state.lock().expect("no holder panics")
    }
}

/// The pair's side.
pub struct Prefetcher {
    requests: Sender<Request>,
    answers: Receiver<Result<Answer>>,
    shelf: Arc<Shelf>,
    /// Batches that are not read to their ends.
    batches: VecDeque<Batch>,
    awaits_window: bool,
    window: Option<Vec<LogEntry>>,
    control: Control,
}

/// A session to read with that is being opened while the pair has to look at the log yet.
pub struct Connecting(JoinHandle<Result<Session>>);

impl Connecting {
    pub fn start(config: &Config) -> Result<Connecting> {
        let (label, server) = (label(config), config.master.clone());
        let thread = thread::Builder::new().name(label.clone());
        let dial = move || {
            let mut session = connect::connect(Side::Master, &server, &label)?;
            session.message("set the session up", sql::READ_BY_INDEX)?;
            Ok(session)
        };
        thread.spawn(dial).map(Connecting).map_err(|error| internal(&error.to_string()))
    }

    fn session(self) -> Result<Session> {
        self.0.join().unwrap_or_else(|_| Err(internal("a thread panicked, as the line before says")))
    }
}

fn label(config: &Config) -> String {
    format!("{} reader", config.name)
}

impl Prefetcher {
    pub fn start(config: &Config, control: &Control, reading: LogReader, connecting: Connecting) -> Result<Prefetcher> {
        let session = connecting.session()?;
        let (requests, inbox) = channel();
        let (outbox, answers) = channel();
        let shelf = Arc::new(Shelf::default());
        let outbox = Outbox { answers: outbox, shelf: Arc::clone(&shelf) };
        thread::Builder::new()
            .name(label(config))
            .spawn(move || serve(session, reading, &inbox, &outbox))
            .map_err(|error| internal(&error.to_string()))?;
        let control = control.clone();
        Ok(Prefetcher {
            requests,
            answers,
            shelf,
            batches: VecDeque::new(),
            awaits_window: false,
            window: None,
            control,
        })
    }

    /// An order that nobody takes any more has its reason among the answers.
    fn give(&self, request: Request) {
        drop(self.requests.send(request));
    }

    fn answer(&self) -> Result<Answer> {
        loop {
            match self.answers.recv_timeout(PATIENCE) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(internal("the reader has ended")),
                Err(RecvTimeoutError::Timeout) if self.control.is_stopping() => {
                    return Err(Error::new(Kind::Stopped, None, "finish the batch", "the daemon is stopping"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Prefetcher {
    /// Asks for the changes of a batch, after those asked for before.
    pub fn request(&mut self, batch: &Batch) {
        if !self.batches.iter().any(|known| Batch::ptr_eq(known, batch)) {
            self.batches.push_back(batch.clone());
            self.give(Request::Batch(batch.clone()));
        }
    }

    /// Asks for the rows of the next window, once.
    pub fn request_window(&mut self, window: Window) {
        if !self.awaits_window {
            self.awaits_window = true;
            self.give(Request::Window(window));
        }
    }

    /// Has everything been taken that was asked for?
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty() && !self.awaits_window
    }

    /// Is this batch the next one that was asked for?
    pub fn is_next(&self, batch: &Batch) -> bool {
        self.batches.front().is_some_and(|next| Batch::ptr_eq(next, batch))
    }

    /// The batch's next changes; `None` at its end.
    pub fn next(&mut self) -> Result<Option<Vec<Change>>> {
        loop {
            match self.answer()? {
                Answer::Changes(changes, bytes) => {
                    self.shelf.take(bytes);
                    return Ok(Some(changes));
                }
                Answer::Window(entries) => self.window = Some(entries),
                Answer::End => {
                    self.batches.pop_front();
                    return Ok(None);
                }
            }
        }
    }

    /// The rows of the window, if it was asked for.
    pub fn window(&mut self) -> Result<Option<Vec<LogEntry>>> {
        if !std::mem::take(&mut self.awaits_window) {
            return Ok(None);
        }
        match self.window.take() {
            Some(entries) => Ok(Some(entries)),
            None => match self.answer()? {
                Answer::Window(entries) => Ok(Some(entries)),
                Answer::Changes(..) | Answer::End => Err(internal("the reader gave a wrong answer")),
            },
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.shelf.close();
    }
}

/// The thread's side.
struct Outbox {
    answers: Sender<Result<Answer>>,
    shelf: Arc<Shelf>,
}

impl Outbox {
    /// Whether the thread goes on.
    fn hand_out(&self, answer: Result<Answer>) -> bool {
        let goes_on = match &answer {
            Ok(Answer::Changes(_, bytes)) => self.shelf.put(*bytes),
            other => other.is_ok(),
        };
        self.answers.send(answer).is_ok() && goes_on
    }
}

/// Ends with the first error, or when the pair has gone.
fn serve(mut session: Session, mut reading: LogReader, inbox: &Receiver<Request>, outbox: &Outbox) {
    while let Ok(request) = inbox.recv() {
        let goes_on = match request {
            Request::Window(window) => outbox.hand_out(reading.window(&mut session, &window).map(Answer::Window)),
            Request::Batch(batch) => read(&mut session, &mut reading, batch, outbox),
        };
        if !goes_on {
            return;
        }
    }
}

fn read(session: &mut Session, reading: &mut LogReader, batch: Batch, outbox: &Outbox) -> bool {
    let mut pages = Pages::new(batch);
    loop {
        match pages.next(reading, session) {
            Ok(Some(changes)) => {
                if !outbox.hand_out(Ok(Answer::Changes(changes, pages.bytes()))) {
                    return false;
                }
            }
            end => return outbox.hand_out(end.map(|_| Answer::End)),
        }
    }
}

fn internal(why: &str) -> Error {
    Error::new(Kind::Internal, None, "read the log ahead", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_but_for_one_piece() {
        let shelf = Shelf::default();
        assert!(shelf.put(10 * AHEAD_BYTES));
        shelf.take(10 * AHEAD_BYTES);
        assert!(shelf.put(AHEAD_BYTES - 1) && shelf.put(1));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| shelf.put(1));
            thread::sleep(Duration::from_millis(20));
            assert_eq!(shelf.lock().bytes, AHEAD_BYTES);
            shelf.take(1);
            assert!(waiting.join().unwrap());
            let waiting = scope.spawn(|| shelf.put(1));
            shelf.close();
            assert!(!waiting.join().unwrap(), "nobody will take it");
        });
    }
}
