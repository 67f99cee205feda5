//! One pair: connect, recover, listen, drain, wait.

use crate::backlog::flags::FlagWriter;
use crate::backlog::order::{Transaction, next_batch};
use crate::backlog::pending::{Backlog, SlaveLog};
use crate::backlog::prefetch::{Connecting, Prefetcher};
use crate::backlog::reader::{Batch, CHUNK_ROWS};
use crate::backlog::sql as backlog_sql;
use crate::base::control::{Control, Woken};
use crate::base::error::{Kind, Result};
use crate::base::names::Side;
use crate::commit::sql as commit_sql;
use crate::commit::twophase::{Link, Protocol};
use crate::config::settings::Config;
use crate::pair::copied;
use crate::pair::housekeeping::Housekeeping;
use crate::pair::listener::{FIRST_PAUSE, Listener};
use crate::pair::pace::Pace;
use crate::pair::sql;
use crate::process::failpoint;
use crate::replay::hold::Holds;
use crate::replay::replayer::Replayer;
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
    let (mut link, mut protocol) = ready(config, control)?;
    // LISTEN comes before the first look at the log: a change is either seen by a look or announced after it.
    let mut listener = if config.poll.is_some() { None } else { Some(Listener::start(config, control)?) };
    progress(Milestone::Connected);
    let mut housekeeping = Housekeeping::default();
    let mut quiet_since = Instant::now();
    let mut pace = Pace::default();
    let mut pause = None;
    while !control.is_stopping() {
        let was_paused = pause.is_some();
        let drained = match drain(config, &mut link, &mut protocol, &mut pace, progress) {
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
        let is_clean = housekeeping.run(config, &mut link)?;
        housekeeping.take_warning().into_iter().for_each(|warning| progress(Milestone::Warning(warning)));
        if is_clean {
            let since = Instant::now();
            await_work(config, &mut link, &mut protocol, listener.as_mut(), &mut quiet_since, pause.is_some())?;
            pace.slept(since.elapsed());
        }
    }
    Ok(())
}

/// Replays everything that is pending now and returns how many changes that were.
pub fn once(config: &Config, control: &Control) -> Result<u64> {
    let (mut link, mut protocol) = ready(config, control)?;
    let changes = drain(config, &mut link, &mut protocol, &mut Pace::default(), &mut |_| ())?;
    let mut housekeeping = Housekeeping::default();
    while !housekeeping.run(config, &mut link)? && !control.is_stopping() {}
    Ok(changes)
}

/// Waits until there may be something to replay, and sees to the keepalive meanwhile.
fn await_work(
    config: &Config,
    link: &mut Link,
    protocol: &mut Protocol,
    listener: Option<&mut Listener>,
    quiet_since: &mut Instant,
    is_paused: bool,
) -> Result<()> {
    let name = &config.name;
    let woken = match (listener, config.poll) {
        // Changes are of no interest, and the end of the pause is always signalled: so no writer needs to.
        (Some(listener), _) if is_paused => listener.sleep(link.control, config.timeout)?,
        (Some(listener), _) => sleep(config, link, listener)?,
        (None, poll) => {
            log::trace!(target: name, "Waiting to poll");
            link.ahead = None;
            link.control.wait(poll.unwrap_or(config.timeout))
        }
    };
    if woken == Woken::TimedOut && quiet_since.elapsed() >= config.timeout {
        log::trace!(target: name, "Timeout('keepalive')!");
        *quiet_since = Instant::now();
        // A transaction of an earlier connection may have been prepared late.
        protocol.recover(link)?;
        if config.keepalive {
            keepalive(name, link)?;
        }
    }
    Ok(())
}

/// Falls asleep if no writer is at work and a last look finds nothing; `listener.rs` says why in this order.
fn sleep(config: &Config, link: &mut Link, listener: &mut Listener) -> Result<Woken> {
    let name = &config.name;
    failpoint::reached("drained");
    if !listener.lie_down(link.control)? {
        let pause = listener.next_pause();
        if pause == FIRST_PAUSE {
            log::trace!(target: name, "Writers are at work, looking again soon");
        }
        return Ok(link.control.wait(pause));
    }
    failpoint::reached("lying");
    listener.stirred();
    if is_pending(link)? {
        listener.rise()?;
        return Ok(Woken::Notified);
    }
    failpoint::reached("looked");
    log::trace!(target: name, "Waiting for 'NOTIFY'");
    link.ahead = None;
    let woken = listener.sleep(link.control, config.timeout)?;
    if woken == Woken::Notified {
        log::trace!(target: name, "Got NOTIFY");
    }
    Ok(woken)
}

fn is_pending(link: &mut Link) -> Result<bool> {
    let mut backlog = link.log.look(&mut link.master)?;
    link.log.more(&mut link.master, &mut backlog, None)?;
    let is_pending = !backlog.queue().is_empty();
    if !is_pending {
        link.log.drained(&backlog);
    }
    Ok(is_pending)
}

/// Replays all that one look at the log sees, and looks again as long as there was something.
fn drain(
    config: &Config,
    link: &mut Link,
    protocol: &mut Protocol,
    pace: &mut Pace,
    progress: &mut dyn FnMut(Milestone),
) -> Result<u64> {
    let mut total = 0;
    loop {
        let mut backlog = link.log.look(&mut link.master)?;
        // What was read for a drain that was broken off is of no use.
        drop(link.ahead.take_if(|ahead| !ahead.is_idle()));
        let mut connecting = (backlog.is_long() && link.ahead.is_none()).then(|| Connecting::start(config));
        let (mut transactions, mut drained) = (0, 0);
        let mut next = None;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => {
                    link.log.more(&mut link.master, &mut backlog, link.ahead.as_mut())?;
                    batch_of(&mut backlog)
                }
            };
            if batch.is_empty() {
                break;
            }
            if link.control.is_stopping() {
                return Ok(total + drained);
            }
            if let Some(ahead) = link.ahead.as_mut().filter(|_| backlog.queue().is_empty()) {
                link.log.extend(&mut link.master, &mut backlog, ahead)?;
            }
            next = Some(batch_of(&mut backlog)).filter(|next| !next.is_empty());
            look_ahead(config, link, &mut connecting, &backlog, (&batch, next.as_ref()));
            let replayed = protocol.replay(link, &batch);
            protocol.take_conflicts().into_iter().for_each(|conflict| progress(Milestone::Conflict(conflict)));
            if replayed.as_ref().is_err_and(|error| error.change().is_some()) {
                link.marking.stuck(&mut link.master, &link.log.ledger)?;
            }
            let replayed = replayed?;
            link.log.replayed(&mut backlog, batch[batch.len() - 1].last());
            link.marking.keep_up(&mut link.master, &mut link.log.ledger, replayed)?;
            transactions += batch.len();
            drained += replayed;
        }
        link.log.drained(&backlog);
        total += drained;
        if drained == 0 && backlog.is_resumed() {
            continue;
        }
        if drained == 0 {
            return Ok(total);
        }
        link.marking.keep_up(&mut link.master, &mut link.log.ledger, drained)?;
        log::debug!(target: &config.name, "Replicated {drained} changes");
        if link.hands_on {
            link.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
        }
        if link.control.pause(pace.replayed(transactions, drained)) {
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
    link: &mut Link,
    connecting: &mut Option<Result<Connecting>>,
    backlog: &Backlog,
    (batch, next): (&Batch, Option<&Batch>),
) {
    if link.replayer.holding.is_quarantine() {
        // Each transaction is looked at before it is replayed.
        link.ahead = None;
        return;
    }
    if link.ahead.is_none() && (next.is_some() || batch.iter().map(Transaction::rows).sum::<u64>() > CHUNK_ROWS as u64)
    {
        let connecting = connecting.take().unwrap_or_else(|| Connecting::start(config));
        match connecting
            .and_then(|connecting| Prefetcher::start(config, link.control, link.log.reading.clone(), connecting))
        {
            Ok(reader) => link.ahead = Some(reader),
            Err(error) => log::debug!(target: &config.name, "Reading nothing ahead: {error}"),
        }
    }
    let Some(ahead) = &mut link.ahead else { return };
    ahead.request(batch);
    // Before the next batch, or the slave would wait for it behind that.
    if let Some(window) = link.log.next_window(backlog) {
        ahead.request_window(window);
    }
    if let Some(next) = next {
        ahead.request(next);
    }
}

/// Connected, and the slave may be replicated to: no copy to it is unfinished.
fn ready<'a>(config: &Config, control: &'a Control) -> Result<(Link<'a>, Protocol)> {
    let (mut link, protocol) = connect(config, control)?;
    let passing = copied::passing(&mut link.slave, &link.pair, link.log.ledger.position())?;
    link.log.pass_over(&passing);
    Ok((link, protocol))
}

/// Both sides are checked, locked against other daemons, and settled.
pub fn connect<'a>(config: &Config, control: &'a Control) -> Result<(Link<'a>, Protocol)> {
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
    let pair = Protocol::progress_key(findings.origin, &config.slave_field);
    if !config.two_phase {
        slave.execute("register the master", commit_sql::PROGRESS_ROW, &[&pair])?;
        for session in [&mut master, &mut slave] {
            session.query("set the session up", sql::COMMIT_DURABLY, &[])?;
        }
    }
    let holding = Holds::open(name, &pair, &mut slave)?;
    let hands_on = slave.query_one("look for a log on the slave", server_sql::HAS_LOG, &[])?.get(0);
    let mut link = Link {
        master,
        slave,
        log: SlaveLog::new(config, &findings),
        marking: FlagWriter::new(config, &findings.fields),
        replayer: Replayer::new(config, &findings.master_identity, !replica_role, holding),
        ahead: None,
        pair,
        hands_on,
        control,
    };
    let mut protocol = Protocol::new(config, &findings, Box::new(failpoint::reached));
    protocol.recover(&mut link)?;
    if link.hands_on {
        // The connection before this one may have ended between a commit on the slave and its signal.
        link.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
    }
    link.log.ledger.open(&mut link.master)?;
    Ok((link, protocol))
}

fn keepalive(name: &str, link: &mut Link) -> Result<()> {
    for (number, session) in [&mut link.master, &mut link.slave].into_iter().enumerate() {
        let now: String = session.query_one("keep the connection alive", sql::KEEPALIVE, &[])?.get(0);
        log::info!(target: name, "Keepalive{number}: {now}");
    }
    Ok(())
}
