//! One pair: connect, recover, listen, drain, wait.

use crate::capture::Log;
use crate::checks::{Findings, check, take_replica_role};
use crate::config::Config;
use crate::control::{Control, Woken};
use crate::db::Session;
use crate::dial;
use crate::error::{Error, Kind, Result};
use crate::housekeeping::Housekeeping;
use crate::names::Side;
use crate::order::next_batch;
use crate::replay::Replayer;
use crate::signals;
use crate::sql;
use crate::twophase::{Link, Protocol, Seam, Step};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Limits of one batch. From some hundred changes on, two-phase commit costs nothing to speak of.
const BATCH_ROWS: u64 = 10_000;
const BATCH_BYTES: usize = 16 << 20;

/// A listener that hears nothing looks up this often, to see whether its pair still wants to know. It asks the server
/// nothing then.
const LISTENER_PATIENCE: Duration = Duration::from_secs(5);

/// Names the step, and which time it is reached, at which the process is to stop itself: `slave-prepared` or `marked:3`.
const PAUSE_VARIABLE: &str = "PYREPLICA_PAUSE_AT";

/// How far a pair has come since it was started, and what it met on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Both sides are connected, checked and recovered.
    Connected,
    /// Everything that was pending has been replayed.
    Drained,
    /// A change was replayed on a row that was not what it should have been; this is committed, and logged.
    Conflict(String),
    /// Something else that the operator should look at, logged as well.
    Warning(String),
}

/// Replicates until the control says stop, or until something fails; the caller decides about another try, and is told
/// how far this one got.
pub fn run(config: &Config, control: &Control, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    let (mut link, mut protocol) = connect(config, control)?;
    // LISTEN comes before the first look at the log: a change is either seen by the look or announced after it.
    let listener = if config.poll.is_some() { None } else { Some(Listener::start(config, control)?) };
    progress(Progress::Connected);
    let mut housekeeping = Housekeeping::default();
    let mut quiet_since = Instant::now();
    while !control.is_stopping() {
        if drain(config, &mut link, &mut protocol, progress)? > 0 {
            quiet_since = Instant::now();
        }
        if control.is_stopping() {
            // Something may have been left.
            break;
        }
        progress(Progress::Drained);
        let is_clean = housekeeping.run(config, &mut link)?;
        housekeeping.take_warning().into_iter().for_each(|warning| progress(Progress::Warning(warning)));
        if is_clean {
            await_work(config, &mut link, &mut protocol, &mut quiet_since)?;
        }
        listener.as_ref().map_or(Ok(()), Listener::check)?;
    }
    Ok(())
}

/// Replays everything that is pending now and returns how many changes that were.
pub fn once(config: &Config, control: &Control) -> Result<u64> {
    let (mut link, mut protocol) = connect(config, control)?;
    let changes = drain(config, &mut link, &mut protocol, &mut |_| ())?;
    Housekeeping::default().run(config, &mut link)?;
    Ok(changes)
}

/// Waits for a notification, or for as long as one may take to be missed.
fn await_work(config: &Config, link: &mut Link, protocol: &mut Protocol, quiet_since: &mut Instant) -> Result<()> {
    let name = &config.name;
    match config.poll {
        None => log::trace!(target: name, "Waiting for 'NOTIFY'"),
        Some(_) => log::trace!(target: name, "Waiting to poll"),
    }
    match link.control.wait(config.poll.unwrap_or(config.timeout)) {
        Woken::Notified => log::trace!(target: name, "Got NOTIFY"),
        Woken::TimedOut if quiet_since.elapsed() >= config.timeout => {
            log::trace!(target: name, "Timeout('keepalive')!");
            *quiet_since = Instant::now();
            // A row written by hand may have drawn its id before its transaction had a number; a transaction of an
            // earlier connection may have been prepared late.
            link.log.forget_floor();
            protocol.recover(link)?;
            if config.keepalive {
                keepalive(name, link)?;
            }
        }
        Woken::Stopping | Woken::TimedOut => {}
    }
    Ok(())
}

/// Replays all that one look at the log sees, and looks again as long as there was something.
fn drain(config: &Config, link: &mut Link, protocol: &mut Protocol, progress: &mut dyn FnMut(Progress)) -> Result<u64> {
    let mut total = 0;
    loop {
        let mut backlog = link.log.look(&mut link.master)?;
        let mut drained = 0;
        loop {
            let queue = link.log.more(&mut link.master, &mut backlog)?;
            let batch = next_batch(queue, BATCH_ROWS, BATCH_BYTES);
            if batch.is_empty() {
                break;
            }
            if link.control.is_stopping() {
                return Ok(total + drained);
            }
            let replayed = protocol.replay(link, &batch);
            protocol.take_conflicts().into_iter().for_each(|conflict| progress(Progress::Conflict(conflict)));
            drained += replayed?;
        }
        link.log.drained(&backlog);
        total += drained;
        if drained == 0 {
            return Ok(total);
        }
        log::debug!(target: &config.name, "Replicated {drained} changes");
        if link.hands_on {
            link.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
        }
    }
}

fn connect<'a>(config: &Config, control: &'a Control) -> Result<(Link<'a>, Protocol)> {
    let name = &config.name;
    log::trace!(target: name, "DSN0: {}", config.master);
    log::trace!(target: name, "DSN1: {}", config.slave);
    log::info!(target: name, "Opening origin (master) connection");
    let mut master = dial::connect(Side::Master, &config.master, name)?;
    log::info!(target: name, "Opening replica (slave) connection");
    let mut slave = dial::connect(Side::Slave, &config.slave, name)?;
    control.set_cancellers(vec![master.canceller(), slave.canceller()]);
    let findings = check(config, &mut master, &mut slave)?;
    let Findings { master_encoding, slave_encoding, .. } = &findings;
    log::debug!(target: name, "Encoding for this connections are {master_encoding} {slave_encoding}");

    master.message("set the session up", sql::NO_SEQUENTIAL_SCANS)?;
    slave.set_up(&findings.master_identity)?;
    let replica_role = take_replica_role(&mut slave)?;
    if !replica_role {
        log::warn!(
            target: name,
            "slave: the role may not set session_replication_role: triggers and cascades of the slave run too, and \
             constraints are checked. hint: GRANT SET ON PARAMETER session_replication_role (PostgreSQL 15), or a superuser"
        );
    }
    if !config.two_phase {
        let key = Protocol::progress_key(findings.origin, &config.slave_field);
        slave.execute("register the master", sql::PROGRESS_ROW, &[&key])?;
    }
    let hands_on = slave.query_one("look for a log on the slave", sql::HAS_LOG, &[])?.get(0);
    let mut link = Link {
        master,
        slave,
        log: Log::new(config, &findings),
        replayer: Replayer::new(name, &findings.master_identity, !replica_role),
        hands_on,
        control,
    };
    let mut protocol = Protocol::new(config, &findings, seam());
    protocol.recover(&mut link)?;
    Ok((link, protocol))
}

fn keepalive(name: &str, link: &mut Link) -> Result<()> {
    for (number, session) in [&mut link.master, &mut link.slave].into_iter().enumerate() {
        let now: String = session.query_one("keep the connection alive", sql::KEEPALIVE, &[])?.get(0);
        log::info!(target: name, "Keepalive{number}: {now}");
    }
    Ok(())
}

/// A thread with a session of its own on the master, which wakes the pair at every notification.
struct Listener {
    shared: Arc<Listening>,
}

#[derive(Default)]
struct Listening {
    over: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Listener {
    fn start(config: &Config, control: &Control) -> Result<Listener> {
        let label = format!("{} listener", config.name);
        let mut session = dial::connect(Side::Master, &config.master, &label)?;
        session.message("listen", sql::LISTEN)?;
        let shared = Arc::new(Listening::default());
        let (control, listening) = (control.clone(), shared.clone());
        std::thread::Builder::new()
            .name(label)
            .spawn(move || listen(session, &control, &listening))
            .map_err(|error| Error::new(Kind::Internal, None, "start a thread", error))?;
        Ok(Listener { shared })
    }

    /// The error that ended the listening, if one has.
    fn check(&self) -> Result<()> {
        match self.shared.failure.lock().expect("nobody panics while holding a failure").take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

fn listen(mut session: Session, control: &Control, listening: &Listening) {
    while !listening.over.load(Ordering::SeqCst) {
        match session.wait_for_notification(LISTENER_PATIENCE) {
            Ok(true) => control.wake(),
            Ok(false) => {}
            Err(error) => {
                *listening.failure.lock().expect("nobody panics while holding a failure") = Some(error);
                return control.wake();
            }
        }
    }
}

/// Does nothing, unless a test wants the process to stand still at a step of the protocol.
fn seam() -> Seam {
    static REACHED: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var(PAUSE_VARIABLE) else { return Box::new(|_| ()) };
    let (step, turn) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    let turn: u32 = turn.parse().unwrap_or(1);
    let Some(step) = Step::ALL.into_iter().find(|known| known.to_string() == step) else {
        return Box::new(|_| ());
    };
    Box::new(move |reached| {
        // Counted by the process, not by the connection: a daemon that goes on after a fault does not pause again.
        if reached == step && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == turn {
            signals::stand_still();
        }
    })
}
