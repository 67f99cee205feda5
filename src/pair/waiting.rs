//! Waits until there may be something to replay.

use crate::base::control::Woken;
use crate::base::error::Result;
use crate::commit::twophase::Pair;
use crate::config::settings::Config;
use crate::pair::listener::{CHECK_INTERVAL, FIRST_PAUSE, Listener, Lock};
use crate::pair::sql;
use crate::process::failpoint;
use crate::server::session::Session;
use std::time::{Duration, Instant};

/// Flags are set when nothing has been replayed for so long.
pub const QUIET: Duration = Duration::from_secs(1);

/// Waits until there may be something to replay, and sends keepalives meanwhile. `is_empty`: the last look at the log has found
/// nothing.
pub fn wait_for_work(
    config: &Config,
    pair: &mut Pair,
    listener: Option<&mut Listener>,
    quiet_since: &mut Instant,
    (is_paused, is_empty): (bool, bool),
    flags: Option<Duration>,
) -> Result<()> {
    let name = &config.name;
    let woken = match (listener, config.poll) {
        // The end of a pause is always signalled, and changes need not wake the daemon. So it waits without the lock, and
        // no transaction has to send a NOTIFY.
        (Some(listener), _) if is_paused => {
            listener.sleep(&pair.control, config.timeout, &mut || is_there(&mut pair.slave))?
        }
        (Some(listener), _) => sleep(config, pair, listener, is_empty, flags)?,
        (None, poll) => {
            log::trace!(target: name, "Waiting to poll");
            pair.prefetcher = None;
            let length = poll.unwrap_or(config.timeout);
            poll_later(pair, flags.map_or(length, |flags| flags.min(length)))?
        }
    };
    if woken == Woken::TimedOut && quiet_since.elapsed() >= config.timeout {
        log::trace!(target: name, "Timeout('keepalive')!");
        *quiet_since = Instant::now();
        if config.keepalive {
            keepalive(name, pair)?;
        }
    }
    Ok(())
}

/// Sleeps, if no writing transaction is in progress and a look finds nothing while the daemon has the lock. `listener.rs` says why
/// in this order.
fn sleep(
    config: &Config,
    pair: &mut Pair,
    listener: &mut Listener,
    is_empty: bool,
    flags: Option<Duration>,
) -> Result<Woken> {
    let name = &config.name;
    failpoint::reached("drained");
    let lock = listener.try_lock(&pair.control)?;
    if lock == Lock::Refused {
        let pause = listener.next_pause();
        if pause == FIRST_PAUSE {
            log::trace!(target: name, "Writing transactions are in progress, looking again soon");
        }
        return Ok(pair.control.wait(pause));
    }
    failpoint::reached("lying");
    listener.reset_pause();
    let was_seen = lock == Lock::Kept && is_empty;
    if !was_seen && has_pending(pair)? {
        listener.unlock()?;
        return Ok(Woken::Notified);
    }
    failpoint::reached("looked");
    log::trace!(target: name, "Waiting for 'NOTIFY'");
    pair.prefetcher = None;
    let length = flags.map_or(config.timeout, |flags| flags.min(config.timeout));
    let woken = listener.sleep(&pair.control, length, &mut || is_there(&mut pair.slave))?;
    if woken == Woken::Notified {
        log::trace!(target: name, "Got NOTIFY");
    }
    Ok(woken)
}

/// Waits until it is time for the next look.
fn poll_later(pair: &mut Pair, length: Duration) -> Result<Woken> {
    let end = Instant::now() + length;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let woken = pair.control.wait(left.min(CHECK_INTERVAL));
        if woken != Woken::TimedOut || left <= CHECK_INTERVAL {
            return Ok(woken);
        }
        is_there(&mut pair.master)?;
        is_there(&mut pair.slave)?;
    }
}

/// An error if the server has closed the connection. A server that is shut down does that, and nothing else would tell of it
/// before the next change. This sends nothing. Only who waits gets to know what has arrived, however short the wait.
fn is_there(session: &mut Session) -> Result<()> {
    session.wait_for_notification(Duration::from_millis(1)).map(drop)
}

/// When it is time to set flags, if there are some to be set and it is not time yet.
pub fn until_flags(pair: &mut Pair, replayed_at: Instant) -> Option<Duration> {
    let left = QUIET.checked_sub(replayed_at.elapsed())?;
    pair.log.progress.unflagged().first().map(|_| left)
}

fn has_pending(pair: &mut Pair) -> Result<bool> {
    let mut backlog = pair.log.look(&mut pair.master)?;
    pair.log.more(&mut pair.master, &mut backlog, None)?;
    let has_pending = !backlog.queue().is_empty();
    if !has_pending {
        pair.log.drained(&backlog);
    }
    Ok(has_pending)
}

fn keepalive(name: &str, pair: &mut Pair) -> Result<()> {
    for (number, session) in [&mut pair.master, &mut pair.slave].into_iter().enumerate() {
        let now: String = session.query_one("keep the connection alive", sql::KEEPALIVE, &[])?.get(0);
        log::info!(target: name, "Keepalive{number}: {now}");
    }
    Ok(())
}
