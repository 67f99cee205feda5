//! A thread that reads the log ahead, on a session of its own, so that the master and the slave work at the same time.
//!
//! It pays for long batches only. The thread waits when `AHEAD_BYTES` of changes are waiting for the pair. When a batch
//! fails, the thread is dropped together with all that it has read.

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

/// How many bytes of changes may wait for the pair, as the log stores them. One piece may be larger. The thread holds
/// one more piece.
const AHEAD_BYTES: usize = 3 << 20;

/// How often the pair checks, while it waits, whether it has to stop.
const PATIENCE: Duration = Duration::from_millis(100);

enum Request {
    /// Answered by any number of `Changes`, and then `End`.
    Batch(Batch),
    /// Answered by `Window`.
    Window(Window),
}

enum Answer {
    Changes(Vec<Change>, usize),
    End,
    Window(Vec<LogEntry>),
}

/// How many bytes of changes wait for the pair.
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
    /// Waits for room. False if the pair has dropped its side.
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
    /// Batches that were requested and are not taken to their end.
    batches: VecDeque<Batch>,
    awaits_window: bool,
    window: Option<Vec<LogEntry>>,
    control: Control,
}

/// A session that is being opened for the thread while the pair still looks at the log.
pub struct Connecting(JoinHandle<Result<Session>>);

impl Connecting {
    pub fn start(config: &Config, control: &Control) -> Result<Connecting> {
        let (label, server, control) = (label(config), config.master.clone(), control.clone());
        let thread = thread::Builder::new().name(label.clone());
        let connect = move || {
            let mut session = connect::connect(Side::Master, &server, &label)?;
            control.watch(session.watched());
            session.message("set the session up", sql::READ_BY_INDEX)?;
            Ok(session)
        };
        thread.spawn(connect).map(Connecting).map_err(|error| internal(&error.to_string()))
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

    /// If the thread has ended, the error that ended it is among the answers.
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
    /// Requests the changes of a batch. They come after those of earlier requests.
    pub fn request(&mut self, batch: &Batch) {
        if !self.batches.iter().any(|known| Batch::ptr_eq(known, batch)) {
            self.batches.push_back(batch.clone());
            self.give(Request::Batch(batch.clone()));
        }
    }

    /// Requests the rows of the next window, if no window is requested yet.
    pub fn request_window(&mut self, window: Window) {
        if !self.awaits_window {
            self.awaits_window = true;
            self.give(Request::Window(window));
        }
    }

    /// Whether everything that was requested has been taken.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty() && !self.awaits_window
    }

    /// Whether this batch is the next one of those that were requested.
    pub fn is_next(&self, batch: &Batch) -> bool {
        self.batches.front().is_some_and(|next| Batch::ptr_eq(next, batch))
    }

    /// The next changes of the batch; `None` at its end.
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

    /// The rows of the window, if one was requested.
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
    /// Sends an answer. Returns whether the thread goes on.
    fn hand_out(&self, answer: Result<Answer>) -> bool {
        let goes_on = match &answer {
            Ok(Answer::Changes(_, bytes)) => self.shelf.put(*bytes),
            other => other.is_ok(),
        };
        self.answers.send(answer).is_ok() && goes_on
    }
}

/// Answers requests until the first error, or until the pair has dropped its side.
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
