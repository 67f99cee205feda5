//! Lets the daemon sleep without missing a change, and without a NOTIFY for every change.
//!
//! A NOTIFY makes the commits of a server wait for each other, so the trigger sends one only while the daemon sleeps. The
//! daemon shows that by an advisory lock on the master, one for each slave, which it holds while it sleeps. A writing
//! transaction tries to take the lock in shared mode. If it gets the lock, it keeps it to its end; if not, it sends a
//! NOTIFY.
//!
//! ```text
//! LISTEN ... drain, nothing left -> try the lock -> look again -> sleep until NOTIFY or time-out -> drain ... unlock
//!              ^                      | writers are at work  | there is something
//!              +---- a pause ---------+                      |
//!              +----------------------- unlock --------------+
//! ```
//!
//! A daemon that is woken keeps the lock for a moment. A change that comes alone is replayed in that time, and then the daemon
//! sleeps on: it has had the lock since before its last look, so it need not look again. If there is more to do, the listener
//! releases the lock meanwhile.
//!
//! No change is missed. A transaction that sends no NOTIFY holds the lock in shared mode, and PostgreSQL releases a
//! transaction's locks after its changes have become visible. So when the daemon gets the lock, its next look at the log
//! sees the changes of all these transactions. Every later one does not get the lock and sends a NOTIFY, which the daemon's
//! session receives, because it listens already. While a transaction that holds the lock is in progress, the daemon does
//! not get the lock. When a subtransaction is rolled back, its lock goes together with its changes. A prepared transaction
//! keeps the lock, even over a crash of the server.
//!
//! The session that listens holds the lock, not the session that replays. So a daemon that loses the lock also loses the
//! connection on which it waits, and notices that. With two sessions, the lock could be lost while the daemon sleeps on:
//! then no transaction would send a NOTIFY, and the daemon would not wake up.

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

/// The pause before the next look at the log while writing transactions are in progress. It doubles as long as no change
/// arrives.
pub const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// No pause is longer. So a transaction that stays open or prepared for hours costs four looks a second, and meanwhile
/// changes of other transactions wait at most this long.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long a daemon that is woken keeps the lock. Until then writers send a NOTIFY as if it slept.
const KEPT: Duration = Duration::from_millis(5);

/// How long the thread reads what has arrived while the daemon is busy.
const READ_TIME: Duration = Duration::from_millis(1);

/// During shorter pauses between two tries the daemon does not listen: they are over before an operator has fixed anything.
const MIN_PAUSE_TO_LISTEN: Duration = Duration::from_secs(1);

/// Anybody who may log in to the master can send that signal, and every try writes to its log. So one try at once, and no second one
/// before this is over.
const SIGNAL_PAUSE: Duration = Duration::from_secs(5);

/// How often each of the two threads checks whether the other one still runs. This sends nothing to the server.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A thread with a session of its own on the master, which holds the lock and receives notifications.
pub struct Listener {
    orders: Sender<Order>,
    answers: Receiver<Result<Answer>>,
    pause: Duration,
}

enum Order {
    /// Answered by `Lock`.
    Lock,
    /// Answered by `Woken`.
    Sleep(Duration),
    /// Not answered; if it fails, the error is the answer to the next order.
    Unlock,
}

enum Answer {
    Lock(Lock),
    Woken(Woken),
}

/// Whether the daemon may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It has the lock, and must look at the log once more.
    Taken,
    /// It has had the lock since it slept the last time.
    Kept,
    /// Writing transactions are in progress.
    Refused,
}

impl Listener {
    /// Begins to listen. Transactions that send no NOTIFY because the daemon is awake are seen by its next look at the log.
    pub fn start(config: &Config, control: &Control) -> Result<Listener> {
        Listener::on(sql::LISTEN, "listener", config, control)
    }

    /// Listens for an operator who has fixed something, while a daemon waits for its next try. A signal that arrives during
    /// a try ends the next wait, because the fix may have come too late for that try.
    pub fn for_retry(config: &Config, control: &Control) -> Result<Listener> {
        Listener::on(sql::LISTEN_FOR_RETRY, "waiting", config, control)
    }

    fn on(listen: &str, label: &str, config: &Config, control: &Control) -> Result<Listener> {
        let label = format!("{} {label}", config.name);
        let mut session = connect::connect(Side::Master, &config.master, &label)?;
        control.watch(session.watched());
        session.message("listen", listen)?;
        let (orders, inbox) = channel();
        let (outbox, answers) = channel();
        let mut thread = ListenerThread {
            session,
            field: config.slave_field.clone(),
            trigger_knows_slave: false,
            held: Held::No,
            was_signalled: false,
            control: control.clone(),
        };
        thread::Builder::new()
            .name(label)
            .spawn(move || thread.serve(&inbox, &outbox))
            .map_err(|error| internal(&error.to_string()))?;
        Ok(Listener { orders, answers, pause: FIRST_PAUSE })
    }

    /// Takes the lock, if no writing transaction is in progress. To be called when a look at the log has found nothing.
    pub fn try_lock(&mut self, control: &Control) -> Result<Lock> {
        self.order(Order::Lock)?;
        Ok(match self.answer(control, &mut || Ok(()))? {
            Answer::Lock(lock) => lock,
            Answer::Woken(_) => Lock::Refused,
        })
    }

    /// Waits for a signal, or until the time is over, with the lock or without it. Afterwards the thread releases the lock, unless
    /// `try_lock` comes soon. Without the lock, only two kinds of signals arrive: those meant for other slaves, and those
    /// that tell of a change of `replica_hold`. Now and then it calls `look`, whose error ends the wait.
    pub fn sleep(&self, control: &Control, limit: Duration, look: &mut dyn FnMut() -> Result<()>) -> Result<Woken> {
        self.order(Order::Sleep(limit))?;
        match self.answer(control, look)? {
            Answer::Woken(why) => Ok(why),
            Answer::Lock(_) => Err(internal("the listener gave a wrong answer")),
        }
    }

    /// Releases the lock, because there is something to replay.
    pub fn unlock(&self) -> Result<()> {
        self.order(Order::Unlock)
    }

    /// Makes the next pause short, because changes have arrived.
    pub fn reset_pause(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// How long to wait before the next look while writing transactions are in progress.
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

    /// Waits for the answer to the last order. A stop ends the wait.
    fn answer(&self, control: &Control, look: &mut dyn FnMut() -> Result<()>) -> Result<Answer> {
        loop {
            if control.wait(CHECK_INTERVAL) == Woken::Stopping {
                return Ok(Answer::Woken(Woken::Stopping));
            }
            match self.answers.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Empty) => look()?,
                Err(TryRecvError::Disconnected) => return Err(internal("the listener has ended")),
            }
        }
    }
}

/// How a daemon waits between two tries that fail: for some time, or until an operator has fixed something.
#[derive(Default)]
pub struct RetryWait {
    /// Kept until a try succeeds, so that no signal is missed during a try.
    listener: Option<Listener>,
    /// When a signal has caused the last try.
    signalled: Option<Instant>,
}

impl RetryWait {
    /// Waits. True when it is time to stop. The daemon does not listen if it cannot reach the master.
    pub fn wait(&mut self, config: &Config, control: &Control, length: Duration, is_master_there: bool) -> bool {
        let end = Instant::now() + length;
        if !is_master_there {
            self.listener = None;
        } else if self.listener.is_none() && length >= MIN_PAUSE_TO_LISTEN {
            let listener = Listener::for_retry(config, control);
            self.listener = listener.inspect_err(|error| log::debug!(target: &config.name, "{error}")).ok();
        }
        log::info!(target: &config.name, "Trying again in {:.1} s", length.as_secs_f64());
        let woken = self.listener.as_ref().map(|listener| listener.sleep(control, length, &mut || Ok(())));
        match woken {
            Some(Ok(Woken::Stopping)) => true,
            Some(Ok(Woken::TimedOut)) => false,
            Some(Ok(Woken::Notified)) => {
                let next = self.signalled.map_or_else(Instant::now, |last| last + SIGNAL_PAUSE);
                let left = next.min(end).saturating_duration_since(Instant::now());
                let when =
                    if left.is_zero() { "at once".to_string() } else { format!("in {:.1} s", left.as_secs_f64()) };
                log::info!(target: &config.name, "Trying {when}: somebody has signalled that the cause may be fixed");
                let is_over = control.pause(left);
                self.signalled = Some(Instant::now());
                is_over
            }
            Some(Err(_)) => {
                self.listener = None;
                control.pause(end.saturating_duration_since(Instant::now()))
            }
            None => control.pause(length),
        }
    }

    /// Stops listening, because a try has succeeded.
    pub fn reset(&mut self) {
        self.listener = None;
    }
}

/// Whether the thread has the lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    /// The daemon sleeps, or is about to.
    Asleep,
    /// The daemon is awake, and has kept the lock.
    Awake,
}

/// What the thread works with.
struct ListenerThread {
    session: Session,
    field: String,
    /// The trigger tries this slave's lock.
    trigger_knows_slave: bool,
    held: Held,
    /// A notification has been received and dropped since the last order.
    was_signalled: bool,
    control: Control,
}

impl ListenerThread {
    fn serve(&mut self, inbox: &Receiver<Order>, outbox: &Sender<Result<Answer>>) {
        loop {
            let is_awake = self.held == Held::Awake;
            let outcome = match inbox.recv_timeout(if is_awake { KEPT } else { CHECK_INTERVAL }) {
                Ok(Order::Lock) => self.lock().map(Some),
                Ok(Order::Sleep(limit)) => self.sleep(limit, inbox).map(Some),
                Ok(Order::Unlock) => self.unlock().map(|()| None),
                Err(RecvTimeoutError::Timeout) if is_awake => self.unlock().map(|()| None),
                // If a session does not read its notifications, the server's queue of notifications fills up, and NOTIFY
                // fails for all sessions.
                Err(RecvTimeoutError::Timeout) => self.read().map(|()| None),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let is_over = outcome.is_err();
            let Some(answer) = outcome.transpose() else { continue };
            // Nobody receives the answer if the pair has ended meanwhile.
            drop(outbox.send(answer));
            self.control.wake();
            if is_over {
                return;
            }
        }
    }

    /// Only a wait reads from the connection; what it has read is dropped then.
    fn read(&mut self) -> Result<()> {
        self.was_signalled |= self.session.wait_for_notification(READ_TIME)?;
        self.was_signalled |= self.session.forget_notifications()?;
        Ok(())
    }

    fn lock(&mut self) -> Result<Answer> {
        if self.held == Held::Awake {
            self.held = Held::Asleep;
            return Ok(Answer::Lock(Lock::Kept));
        }
        if !self.trigger_knows_slave {
            let asked =
                self.session.query_one("check that the trigger tries the lock", sql::CAN_WAKE, &[&self.field])?;
            self.trigger_knows_slave = asked.get(0);
        }
        let is_taken = self.trigger_knows_slave
            && self.session.query_one("take the sleep lock", sql::LOCK_SLEEP, &[&self.field])?.get(0);
        self.held = if is_taken { Held::Asleep } else { Held::No };
        // What has arrived with the answer tells of commits that the next look at the log sees.
        self.session.forget_notifications()?;
        self.was_signalled = false;
        Ok(Answer::Lock(if is_taken { Lock::Taken } else { Lock::Refused }))
    }

    fn sleep(&mut self, limit: Duration, inbox: &Receiver<Order>) -> Result<Answer> {
        if self.held == Held::Awake {
            self.unlock()?;
        }
        let end = Instant::now() + limit;
        let why = loop {
            if std::mem::take(&mut self.was_signalled) {
                break Woken::Notified;
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.session.wait_for_notification(left.min(CHECK_INTERVAL))? {
                break Woken::Notified;
            }
            if left <= CHECK_INTERVAL {
                break Woken::TimedOut;
            }
            if matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)) {
                break Woken::Stopping;
            }
        };
        failpoint::reached("woken");
        if self.held == Held::Asleep {
            self.held = Held::Awake;
        }
        Ok(Answer::Woken(why))
    }

    fn unlock(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.held, Held::No) != Held::No {
            self.session.query("release the sleep lock", sql::UNLOCK_SLEEP, &[&self.field])?;
            failpoint::reached("risen");
        }
        Ok(())
    }
}

fn internal(why: &str) -> Error {
    Error::new(Kind::Internal, None, "wait for notifications", why)
}
