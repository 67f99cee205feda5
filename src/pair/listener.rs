//! How a pair sleeps without missing a change, and without a NOTIFY for every change.
//!
//! A NOTIFY makes the commits of a server wait for each other, so the trigger signals only while the daemon sleeps. An
//! advisory lock of the slave's tells: the daemon holds it while it sleeps; a writer tries it in shared mode, keeps it to
//! the end of its transaction, and NOTIFYs if it can't have it.
//!
//! ```text
//! LISTEN ... drain, nothing left -> try the lock -> look again -> sleep until NOTIFY or time-out -> unlock -> drain ...
//!              ^                      | writers are at work  | there is something
//!              +---- a pause ---------+                      |
//!              +----------------------- unlock --------------+
//! ```
//!
//! No change is missed. A silent writer held the lock in shared mode when it wrote, and a transaction's locks go after its
//! changes have become visible. So when the daemon gets the lock, every silent writer of before is visible to the look
//! that follows, and every later one fails its try and signals, which a session that has been listening hears. A writer
//! that is still at work makes the daemon's own try fail. What a subtransaction did goes together with its lock; a
//! prepared transaction keeps the lock, also over a crash of the server.
//!
//! The lock belongs to the listening session, not to the one that replays: who loses the lock loses the connection it
//! waits on, and notices. Were they two, a change could be silent because the lock is gone, and nobody be awake.

use crate::base::control::{Control, Woken};
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::config::settings::Config;
use crate::pair::sql;
use crate::process::failpoint;
use crate::server::connect;
use crate::server::session::Session;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The pause before another look while writers are at work; it doubles as long as nothing comes.
pub const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// No pause is longer. A transaction that stays open, or prepared, for hours costs four looks a second, and a change of
/// somebody else waits this long at most meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A shorter pause before another try is over before anybody has mended anything.
const WATCHED_PAUSE: Duration = Duration::from_secs(1);

/// Both threads look up this often to see whether the other one is still there. They ask the server nothing then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session of its own on the master, on a thread of its own, which holds the lock and hears the notifications.
pub struct Listener {
    orders: Sender<Order>,
    answers: Receiver<Result<Answer>>,
    pause: Duration,
}

enum Order {
    /// Answered by `Lying` or `Refused`.
    LieDown,
    /// Answered by `Woken`; only for one who lies.
    Sleep(Duration),
    /// Not answered; an error is the answer to the next order.
    Rise,
}

enum Answer {
    Lying,
    Refused,
    Woken(Woken),
}

impl Listener {
    /// Listens from now on: what is not signalled because the daemon is awake is seen by its next look.
    pub fn start(config: &Config, control: &Control) -> Result<Listener> {
        Listener::on(sql::LISTEN, "listener", config, control)
    }

    /// Listens for an operator who has mended something, for a daemon that waits to try again. What is signalled while it
    /// tries ends its next wait: it may have come too late for that try.
    pub fn for_mending(config: &Config, control: &Control) -> Result<Listener> {
        Listener::on(sql::LISTEN_FOR_MENDING, "waiting", config, control)
    }

    fn on(listen: &str, label: &str, config: &Config, control: &Control) -> Result<Listener> {
        let label = format!("{} {label}", config.name);
        let mut session = connect::connect(Side::Master, &config.master, &label)?;
        session.message("listen", listen)?;
        let (orders, inbox) = channel();
        let (outbox, answers) = channel();
        let mut sleeper = Sleeper {
            session,
            field: config.slave_field.clone(),
            is_known: false,
            lies: false,
            has_missed: false,
            control: control.clone(),
        };
        thread::Builder::new()
            .name(label)
            .spawn(move || sleeper.serve(&inbox, &outbox))
            .map_err(|error| internal(&error.to_string()))?;
        Ok(Listener { orders, answers, pause: FIRST_PAUSE })
    }

    /// Takes the lock, if no writer is at work. Whoever lies must look at the log once more before it sleeps.
    pub fn lie_down(&mut self, control: &Control) -> Result<bool> {
        self.order(Order::LieDown)?;
        Ok(matches!(self.answer(control)?, Answer::Lying))
    }

    /// Waits, lying or not, until somebody signals or the time is over. The lock is free again before the next order. Who does
    /// not lie hears what is signalled to others only, and what tells of a change to `replica_hold`.
    pub fn sleep(&self, control: &Control, limit: Duration) -> Result<Woken> {
        self.order(Order::Sleep(limit))?;
        match self.answer(control)? {
            Answer::Woken(why) => Ok(why),
            Answer::Lying | Answer::Refused => Err(internal("the listener gave a wrong answer")),
        }
    }

    /// Frees the lock, because there is work.
    pub fn rise(&self) -> Result<()> {
        self.order(Order::Rise)
    }

    /// Something has come: the next pause is a short one.
    pub fn stirred(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// How long to wait before the next look while writers are at work.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).map_err(|_| match self.answers.try_recv() {
            Ok(Err(error)) => error,
            _ => internal("the listener has ended"),
        })
    }

    /// The answer to the order that was given. A stop does not wait for it.
    fn answer(&self, control: &Control) -> Result<Answer> {
        loop {
            if control.wait(PATIENCE) == Woken::Stopping {
                return Ok(Answer::Woken(Woken::Stopping));
            }
            match self.answers.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(internal("the listener has ended")),
            }
        }
    }
}

/// How a daemon waits between two tries that fail: for its time, or until somebody has mended something.
#[derive(Default)]
pub struct Respite {
    /// Kept for all tries of a row, so that nothing is missed while one is made.
    listener: Option<Listener>,
}

impl Respite {
    /// True when it is time to stop. A master that is away has nothing to say.
    pub fn take(&mut self, config: &Config, control: &Control, length: Duration, is_master_there: bool) -> bool {
        let end = Instant::now() + length;
        if !is_master_there {
            self.listener = None;
        } else if self.listener.is_none() && length >= WATCHED_PAUSE {
            let listener = Listener::for_mending(config, control);
            self.listener = listener.inspect_err(|error| log::debug!(target: &config.name, "{error}")).ok();
        }
        log::info!(target: &config.name, "Trying again in {:.1} s", length.as_secs_f64());
        let woken = self.listener.as_ref().map(|listener| listener.sleep(control, length));
        match woken {
            Some(Ok(Woken::Stopping)) => true,
            Some(Ok(Woken::TimedOut)) => false,
            Some(Ok(Woken::Notified)) => {
                log::info!(target: &config.name, "Trying at once: an operator has done something about it");
                false
            }
            Some(Err(_)) => {
                self.listener = None;
                control.pause(end.saturating_duration_since(Instant::now()))
            }
            None => control.pause(length),
        }
    }

    /// It works again.
    pub fn end(&mut self) {
        self.listener = None;
    }
}

/// The thread's side.
struct Sleeper {
    session: Session,
    field: String,
    /// The trigger asks for this slave's lock.
    is_known: bool,
    lies: bool,
    /// Something has been signalled and forgotten since the last order.
    has_missed: bool,
    control: Control,
}

impl Sleeper {
    fn serve(&mut self, inbox: &Receiver<Order>, outbox: &Sender<Result<Answer>>) {
        loop {
            let outcome = match inbox.recv_timeout(PATIENCE) {
                Ok(Order::LieDown) => self.lie_down().map(Some),
                Ok(Order::Sleep(limit)) => self.sleep(limit, inbox).map(Some),
                Ok(Order::Rise) => self.unlock().map(|()| None),
                // A server whose notifications nobody reads cannot send any more to anyone.
                Err(RecvTimeoutError::Timeout) => self.session.forget_notifications().map(|came| {
                    self.has_missed |= came;
                    None
                }),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let is_over = outcome.is_err();
            let Some(answer) = outcome.transpose() else { continue };
            let is_awake = matches!(answer, Ok(Answer::Woken(_)));
            // The pair may have ended meanwhile.
            drop(outbox.send(answer));
            self.control.wake();
            if is_over {
                return;
            }
            // Changes need not wait for this.
            if is_awake {
                if let Err(error) = self.unlock() {
                    drop(outbox.send(Err(error)));
                    return;
                }
                failpoint::reached("risen");
            }
        }
    }

    fn lie_down(&mut self) -> Result<Answer> {
        // They speak of commits that the look which follows sees.
        self.session.forget_notifications()?;
        self.has_missed = false;
        if !self.is_known {
            let asked = self.session.query_one("ask whom the trigger wakes", sql::CAN_WAKE, &[&self.field])?;
            self.is_known = asked.get(0);
        }
        self.lies = self.is_known
            && self.session.query_one("take the sleeper's lock", sql::LOCK_SLEEPER, &[&self.field])?.get(0);
        Ok(if self.lies { Answer::Lying } else { Answer::Refused })
    }

    fn sleep(&mut self, limit: Duration, inbox: &Receiver<Order>) -> Result<Answer> {
        let end = Instant::now() + limit;
        let why = loop {
            if std::mem::take(&mut self.has_missed) {
                break Woken::Notified;
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.session.wait_for_notification(left.min(PATIENCE))? {
                break Woken::Notified;
            }
            if left <= PATIENCE {
                break Woken::TimedOut;
            }
            if matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)) {
                break Woken::Stopping;
            }
        };
        failpoint::reached("woken");
        Ok(Answer::Woken(why))
    }

    fn unlock(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.lies) {
            return Ok(());
        }
        self.session.query("free the sleeper's lock", sql::UNLOCK_SLEEPER, &[&self.field]).map(drop)
    }
}

fn internal(why: &str) -> Error {
    Error::new(Kind::Internal, None, "wait for notifications", why)
}
