//! A thread that reads the log on a session of its own while the pair replays: the master works while the slave does.
//!
//! Only long batches are worth it. What is read ahead is bounded: the thread waits as soon as so many answers wait for the
//! pair. When a batch fails, the reader is dropped together with all that it has read.

use crate::change::Change;
use crate::config::Config;
use crate::control::Control;
use crate::db::Session;
use crate::dial;
use crate::error::{Error, Kind, Result};
use crate::names::Side;
use crate::order::Entry;
use crate::reading::{Batch, Pages, ReadAhead, Reading, Window};
use crate::sql;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Answers that wait to be taken; the thread holds one more in hand.
const AHEAD: usize = 2;

/// While it waits, the pair looks up this often to see whether it has to stop.
const PATIENCE: Duration = Duration::from_millis(100);

enum Order {
    /// Answered by `Changes`, as often as it takes, and `End`.
    Batch(Batch),
    /// Answered by `Window`.
    Window(Window),
}

enum Answer {
    Changes(Vec<Change>),
    End,
    Window(Vec<Entry>),
}

/// The pair's side.
pub struct Reader {
    orders: Sender<Order>,
    answers: Receiver<Result<Answer>>,
    /// Batches that are not read to their ends.
    batches: VecDeque<Batch>,
    awaits_window: bool,
    window: Option<Vec<Entry>>,
    control: Control,
}

/// A session that is being opened while the pair has to look at the log yet.
pub struct Dialing(JoinHandle<Result<Session>>);

impl Dialing {
    pub fn start(config: &Config) -> Result<Dialing> {
        let (label, server) = (label(config), config.master.clone());
        let dial = {
            let label = label.clone();
            move || dial::connect(Side::Master, &server, &label)
        };
        let spawned = thread::Builder::new().name(label).spawn(dial);
        spawned.map(Dialing).map_err(|error| internal(&error.to_string()))
    }

    fn session(self) -> Result<Session> {
        self.0.join().unwrap_or_else(|_| Err(internal("a thread panicked, as the line before says")))
    }
}

fn label(config: &Config) -> String {
    format!("{} reader", config.name)
}

impl Reader {
    pub fn start(config: &Config, control: &Control, reading: Reading, dialing: Dialing) -> Result<Reader> {
        let label = label(config);
        let mut session = dialing.session()?;
        session.message("set the session up", sql::READ_BY_INDEX)?;
        let (orders, inbox) = channel();
        let (outbox, answers) = sync_channel(AHEAD);
        thread::Builder::new()
            .name(label)
            .spawn(move || serve(session, reading, &inbox, &outbox))
            .map_err(|error| internal(&error.to_string()))?;
        let control = control.clone();
        Ok(Reader { orders, answers, batches: VecDeque::new(), awaits_window: false, window: None, control })
    }

    /// An order that nobody takes any more has its reason among the answers.
    fn give(&self, order: Order) {
        drop(self.orders.send(order));
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

impl ReadAhead for Reader {
    fn order(&mut self, batch: &Batch) {
        if !self.batches.iter().any(|known| Batch::ptr_eq(known, batch)) {
            self.batches.push_back(batch.clone());
            self.give(Order::Batch(batch.clone()));
        }
    }

    fn order_window(&mut self, window: Window) {
        if !self.awaits_window {
            self.awaits_window = true;
            self.give(Order::Window(window));
        }
    }

    fn is_idle(&self) -> bool {
        self.batches.is_empty() && !self.awaits_window
    }

    fn is_next(&self, batch: &Batch) -> bool {
        self.batches.front().is_some_and(|next| Batch::ptr_eq(next, batch))
    }

    fn next(&mut self) -> Result<Option<Vec<Change>>> {
        loop {
            match self.answer()? {
                Answer::Changes(changes) => return Ok(Some(changes)),
                Answer::Window(entries) => self.window = Some(entries),
                Answer::End => {
                    self.batches.pop_front();
                    return Ok(None);
                }
            }
        }
    }

    fn window(&mut self) -> Result<Option<Vec<Entry>>> {
        if !std::mem::take(&mut self.awaits_window) {
            return Ok(None);
        }
        match self.window.take() {
            Some(entries) => Ok(Some(entries)),
            None => match self.answer()? {
                Answer::Window(entries) => Ok(Some(entries)),
                Answer::Changes(_) | Answer::End => Err(internal("the reader gave a wrong answer")),
            },
        }
    }
}

/// Ends with the first error, or when the pair has gone.
fn serve(mut session: Session, mut reading: Reading, inbox: &Receiver<Order>, outbox: &SyncSender<Result<Answer>>) {
    while let Ok(order) = inbox.recv() {
        let goes_on = match order {
            Order::Window(window) => hand_out(reading.window(&mut session, &window).map(Answer::Window), outbox),
            Order::Batch(batch) => read(&mut session, &mut reading, batch, outbox),
        };
        if !goes_on {
            return;
        }
    }
}

fn read(session: &mut Session, reading: &mut Reading, batch: Batch, outbox: &SyncSender<Result<Answer>>) -> bool {
    let mut pages = Pages::new(batch);
    loop {
        match pages.next(reading, session) {
            Ok(Some(changes)) => {
                if !hand_out(Ok(Answer::Changes(changes)), outbox) {
                    return false;
                }
            }
            end => return hand_out(end.map(|_| Answer::End), outbox),
        }
    }
}

fn hand_out(answer: Result<Answer>, outbox: &SyncSender<Result<Answer>>) -> bool {
    let is_fine = answer.is_ok();
    outbox.send(answer).is_ok() && is_fine
}

fn internal(why: &str) -> Error {
    Error::new(Kind::Internal, None, "read the log ahead", why)
}
