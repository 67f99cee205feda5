//! One pair: connect, recover, listen, drain, wait.

use crate::backlog::order::{Transaction, next_batch};
use crate::backlog::pending::Backlog;
use crate::backlog::prefetch::{Connecting, Prefetcher};
use crate::backlog::reader::{Batch, CHUNK_ROWS};
use crate::backlog::sql as backlog_sql;
use crate::base::control::{Control, Woken};
use crate::base::error::{Kind, Result};
use crate::base::names::Side;
use crate::commit::sql as commit_sql;
use crate::commit::twophase::{Pair, pair_key};
use crate::config::settings::Config;
use crate::pair::copied;
use crate::pair::housekeeping::Housekeeping;
use crate::pair::listener::{FIRST_PAUSE, Listener};
use crate::pair::pace::Pace;
use crate::pair::sql;
use crate::process::failpoint;
use crate::replay::hold::Holds;
use crate::server::checks::{Findings, check, take_replica_role};
use crate::server::connect;
use crate::server::sql as server_sql;
use std::sync::Arc;
use std::time::Instant;

/// Limits of one batch. From some hundred changes on, two-phase commit costs nothing to speak of.
const BATCH_ROWS: u64 = 20_000;
const BATCH_BYTES: usize = 16 << 20;

/// How far a pair has come since it was started, and what it met on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
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
pub fn run(config: &Config, control: &Control, progress: &mut dyn FnMut(Milestone)) -> Result<()> {
    let mut pair = ready(config, control)?;
    // LISTEN comes before the first look at the log: a change is either seen by a look or announced after it.
    let mut listener = if config.poll.is_some() { None } else { Some(Listener::start(config, control)?) };
    progress(Milestone::Connected);
    let mut housekeeping = Housekeeping::default();
    let mut quiet_since = Instant::now();
    let mut pace = Pace::default();
    let mut pause = None;
    while !control.is_stopping() {
        let was_paused = pause.is_some();
        let drained = match drain(config, &mut pair, &mut pace, progress) {
            Err(error) if error.kind() == Kind::Paused => {
                pause = Some(error.detail().to_string());
                0
            }
            other => {
                pause = None;
                other?
            }
        };
        match &pause {
            Some(what) if !was_paused => log::warn!(target: &config.name, "Waiting: {what}"),
            None if was_paused => log::info!(target: &config.name, "Going on"),
            _ => {}
        }
        if drained > 0 {
            quiet_since = Instant::now();
            listener.iter_mut().for_each(Listener::stirred);
        }
        if control.is_stopping() {
            // Something may have been left.
            break;
        }
        if pause.is_none() {
            progress(Milestone::Drained);
        }
        let is_clean = housekeeping.run(config, &mut pair)?;
        housekeeping.take_warning().into_iter().for_each(|warning| progress(Milestone::Warning(warning)));
        if is_clean {
            let since = Instant::now();
            await_work(config, &mut pair, listener.as_mut(), &mut quiet_since, pause.is_some())?;
            pace.slept(since.elapsed());
        }
    }
    Ok(())
}

/// Replays everything that is pending now and returns how many changes that were.
pub fn once(config: &Config, control: &Control) -> Result<u64> {
    let mut pair = ready(config, control)?;
    let changes = drain(config, &mut pair, &mut Pace::default(), &mut |_| ())?;
    let mut housekeeping = Housekeeping::default();
    while !housekeeping.run(config, &mut pair)? && !control.is_stopping() {}
    Ok(changes)
}

/// Waits until there may be something to replay, and sees to the keepalive meanwhile.
fn await_work(
    config: &Config,
    pair: &mut Pair,
    listener: Option<&mut Listener>,
    quiet_since: &mut Instant,
    is_paused: bool,
) -> Result<()> {
    let name = &config.name;
    let woken = match (listener, config.poll) {
        // Changes are of no interest, and the end of the pause is always signalled: so no writer needs to.
        (Some(listener), _) if is_paused => listener.sleep(&pair.control, config.timeout)?,
        (Some(listener), _) => sleep(config, pair, listener)?,
        (None, poll) => {
            log::trace!(target: name, "Waiting to poll");
            pair.prefetcher = None;
            pair.control.wait(poll.unwrap_or(config.timeout))
        }
    };
    if woken == Woken::TimedOut && quiet_since.elapsed() >= config.timeout {
        log::trace!(target: name, "Timeout('keepalive')!");
        *quiet_since = Instant::now();
        // A transaction of an earlier connection may have been prepared late.
        pair.recover()?;
        if config.keepalive {
            keepalive(name, pair)?;
        }
    }
    Ok(())
}

/// Falls asleep if no writer is at work and a last look finds nothing; `listener.rs` says why in this order.
fn sleep(config: &Config, pair: &mut Pair, listener: &mut Listener) -> Result<Woken> {
    let name = &config.name;
    failpoint::reached("drained");
    if !listener.lie_down(&pair.control)? {
        let pause = listener.next_pause();
        if pause == FIRST_PAUSE {
            log::trace!(target: name, "Writers are at work, looking again soon");
        }
        return Ok(pair.control.wait(pause));
    }
    failpoint::reached("lying");
    listener.stirred();
    if is_pending(pair)? {
        listener.rise()?;
        return Ok(Woken::Notified);
    }
    failpoint::reached("looked");
    log::trace!(target: name, "Waiting for 'NOTIFY'");
    pair.prefetcher = None;
    let woken = listener.sleep(&pair.control, config.timeout)?;
    if woken == Woken::Notified {
        log::trace!(target: name, "Got NOTIFY");
    }
    Ok(woken)
}

fn is_pending(pair: &mut Pair) -> Result<bool> {
    let mut backlog = pair.log.look(&mut pair.master)?;
    pair.log.more(&mut pair.master, &mut backlog, None)?;
    let is_pending = !backlog.queue().is_empty();
    if !is_pending {
        pair.log.drained(&backlog);
    }
    Ok(is_pending)
}

/// Replays all that one look at the log sees, and looks again as long as there was something.
fn drain(config: &Config, pair: &mut Pair, pace: &mut Pace, progress: &mut dyn FnMut(Milestone)) -> Result<u64> {
    let mut total = 0;
    loop {
        let mut backlog = pair.log.look(&mut pair.master)?;
        // What was read for a drain that was broken off is of no use.
        drop(pair.prefetcher.take_if(|ahead| !ahead.is_idle()));
        let mut connecting = (backlog.is_long() && pair.prefetcher.is_none()).then(|| Connecting::start(config));
        let (mut transactions, mut drained) = (0, 0);
        let mut next = None;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => {
                    pair.log.more(&mut pair.master, &mut backlog, pair.prefetcher.as_mut())?;
                    batch_of(&mut backlog)
                }
            };
            if batch.is_empty() {
                break;
            }
            if pair.control.is_stopping() {
                return Ok(total + drained);
            }
            if let Some(ahead) = pair.prefetcher.as_mut().filter(|_| backlog.queue().is_empty()) {
                pair.log.extend(&mut pair.master, &mut backlog, ahead)?;
            }
            next = Some(batch_of(&mut backlog)).filter(|next| !next.is_empty());
            look_ahead(config, pair, &mut connecting, &backlog, (&batch, next.as_ref()));
            let replayed = pair.replay(&batch);
            pair.take_conflicts().into_iter().for_each(|conflict| progress(Milestone::Conflict(conflict)));
            if replayed.as_ref().is_err_and(|error| error.change().is_some()) {
                pair.flags.stuck(&mut pair.master, &pair.log.progress)?;
            }
            let replayed = replayed?;
            pair.log.replayed(&mut backlog, batch[batch.len() - 1].last());
            pair.flags.keep_up(&mut pair.master, &mut pair.log.progress, replayed)?;
            transactions += batch.len();
            drained += replayed;
        }
        pair.log.drained(&backlog);
        total += drained;
        if drained == 0 && backlog.is_resumed() {
            continue;
        }
        if drained == 0 {
            return Ok(total);
        }
        pair.flags.keep_up(&mut pair.master, &mut pair.log.progress, drained)?;
        log::debug!(target: &config.name, "Replicated {drained} changes");
        if pair.feeds_others {
            pair.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
        }
        if pair.control.pause(pace.replayed(transactions, drained)) {
            return Ok(total);
        }
    }
}

fn batch_of(backlog: &mut Backlog) -> Batch {
    Arc::new(next_batch(backlog.queue(), BATCH_ROWS, BATCH_BYTES))
}

/// Has this batch and the next ones read while the slave works, if that is worth a session.
fn look_ahead(
    config: &Config,
    pair: &mut Pair,
    connecting: &mut Option<Result<Connecting>>,
    backlog: &Backlog,
    (batch, next): (&Batch, Option<&Batch>),
) {
    if pair.replayer.holds.checks_transactions() {
        // Each transaction is looked at before it is replayed.
        pair.prefetcher = None;
        return;
    }
    if pair.prefetcher.is_none()
        && (next.is_some() || batch.iter().map(Transaction::rows).sum::<u64>() > CHUNK_ROWS as u64)
    {
        let connecting = connecting.take().unwrap_or_else(|| Connecting::start(config));
        match connecting
            .and_then(|connecting| Prefetcher::start(config, &pair.control, pair.log.reader.clone(), connecting))
        {
            Ok(reader) => pair.prefetcher = Some(reader),
            Err(error) => log::debug!(target: &config.name, "Reading nothing ahead: {error}"),
        }
    }
    let Some(ahead) = &mut pair.prefetcher else { return };
    ahead.request(batch);
    // Before the next batch, or the slave would wait for it behind that.
    if let Some(window) = pair.log.next_window(backlog) {
        ahead.request_window(window);
    }
    if let Some(next) = next {
        ahead.request(next);
    }
}

/// Connected, and the slave may be replicated to: no copy to it is unfinished.
fn ready(config: &Config, control: &Control) -> Result<Pair> {
    let mut pair = connect(config, control)?;
    let passing = copied::passing(&mut pair.slave, &pair.key, pair.log.progress.position())?;
    pair.log.pass_over(&passing);
    Ok(pair)
}

/// Both sides are checked, locked against other daemons, and settled.
pub fn connect(config: &Config, control: &Control) -> Result<Pair> {
    let name = &config.name;
    log::trace!(target: name, "DSN0: {}", config.master);
    log::trace!(target: name, "DSN1: {}", config.slave);
    log::info!(target: name, "Opening origin (master) connection");
    let mut master = connect::connect(Side::Master, &config.master, name)?;
    log::info!(target: name, "Opening replica (slave) connection");
    let mut slave = connect::connect(Side::Slave, &config.slave, name)?;
    control.set_cancellers(vec![master.canceller(), slave.canceller()]);
    let findings = check(config, &mut master, &mut slave)?;
    let Findings { master_encoding, slave_encoding, .. } = &findings;
    log::debug!(target: name, "Encoding for this connections are {master_encoding} {slave_encoding}");

    master.message("set the session up", backlog_sql::READ_BY_INDEX)?;
    slave.set_up(&findings.master_identity)?;
    let replica_role = take_replica_role(&mut slave)?;
    if !replica_role {
        log::warn!(
            target: name,
            "slave: the role may not set session_replication_role: triggers and cascades of the slave run too, and \
             constraints are checked. hint: GRANT SET ON PARAMETER session_replication_role (PostgreSQL 15), or a superuser"
        );
    }
    let key = pair_key(findings.origin, &config.slave_field);
    if !config.two_phase {
        slave.execute("register the master", commit_sql::PROGRESS_ROW, &[&key])?;
        for session in [&mut master, &mut slave] {
            session.query("set the session up", sql::COMMIT_DURABLY, &[])?;
        }
    }
    let holds = Holds::open(name, &key, &mut slave)?;
    let feeds_others = slave.query_one("look for a log on the slave", server_sql::HAS_LOG, &[])?.get(0);
    let mut pair = Pair::new(config, &findings, (master, slave), holds, !replica_role, feeds_others, control);
    pair.recover()?;
    if pair.feeds_others {
        // The connection before this one may have ended between a commit on the slave and its signal.
        pair.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
    }
    pair.log.progress.open(&mut pair.master)?;
    Ok(pair)
}

fn keepalive(name: &str, pair: &mut Pair) -> Result<()> {
    for (number, session) in [&mut pair.master, &mut pair.slave].into_iter().enumerate() {
        let now: String = session.query_one("keep the connection alive", sql::KEEPALIVE, &[])?.get(0);
        log::info!(target: name, "Keepalive{number}: {now}");
    }
    Ok(())
}
