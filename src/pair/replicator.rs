//! Runs one pair: connects, recovers, listens, replays what is pending, and waits.

use crate::backlog::order::Transaction;
use crate::backlog::pending::Backlog;
use crate::backlog::prefetch::{Connecting, Prefetcher};
use crate::backlog::reader::{Batch, CHUNK_ROWS};
use crate::base::control::Control;
use crate::base::error::{Kind, Result};
use crate::base::phrases::counted;
use crate::commit::twophase::Pair;
use crate::config::settings::Config;
use crate::pair::batches::{batch_of, replay_and_grow};
use crate::pair::connecting::{Purpose, SWITCHED_PAUSE, connect, connect_for_replay, refuse_if_switched};
use crate::pair::failure;
use crate::pair::housekeeping::Housekeeping;
use crate::pair::listener::Listener;
use crate::pair::pace::Pace;
use crate::pair::sql;
use crate::pair::turns::{self, Turn};
use crate::pair::waiting::{QUIET, until_flags, wait_for_work};
use crate::sequences::follower::Follower;
use std::time::{Duration, Instant};

/// Under a load without end, housekeeping gets its turn after so long.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);

/// A daemon that is woken for nothing looks for prepared transactions, if it has not done so for this long.
const IDLE_PATIENCE: Duration = Duration::from_secs(2);

/// A pair that has replayed its backlog looks again after so long, while others of the process replay theirs. It opens its third session
/// and sets flags when all are done, or have had time enough.
const LET_OTHERS_START: Duration = Duration::from_millis(250);

/// After a larger change the sessions are opened anew: their buffers would keep the size of the largest message for ever.
const LARGE_BYTES: usize = 16 << 20;

/// What the caller of `run` is informed about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Both sides are connected, checked and recovered.
    Connected,
    /// Everything that was pending has been replayed.
    Drained,
    /// A change met a conflict. The change is committed, and the conflict is logged.
    Conflict(String),
    /// Something else that the operator should look at. It is logged as well.
    Warning(String),
}

/// Replicates until `control` stops it, or until something fails. The caller decides whether to try again; `progress`
/// informs it how far this try has come.
pub fn run(config: &Config, control: &Control, progress: &mut dyn FnMut(Milestone)) -> Result<()> {
    let config = &config.directed(control.is_reversed());
    let mut turn = Some(Turn::take(control));
    control.check()?;
    let started = Instant::now();
    let mut pair = connect_for_replay(config, control)?;
    let mut listener = None;
    progress(Milestone::Connected);
    let mut housekeeping = Housekeeping::new();
    let (mut quiet_since, mut replayed_at, mut recovered_at) = (Instant::now(), Instant::now(), Instant::now());
    let mut pace = Pace::default();
    let mut sequences = Follower::new(config, config.sequences);
    let mut pause = None;
    while !control.is_stopping() {
        let was_paused = pause.is_some();
        let Drained { changes: drained, mut is_empty } =
            match drain(config, &mut pair, (&mut pace, &mut sequences), progress) {
                Err(error) if error.kind() == Kind::Paused => {
                    pause = Some(error.detail().to_string());
                    Drained::default()
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
        if drained == 0 {
            refuse_if_switched(config, &mut pair)?;
        } else {
            (quiet_since, replayed_at) = (Instant::now(), Instant::now());
            listener.iter_mut().for_each(Listener::reset_pause);
        }
        if control.is_stopping() {
            // Something may still be pending.
            break;
        }
        drop(turn.take());
        if listener.is_none() && config.poll.is_none() {
            if turns::are_taken() && started.elapsed() < LONGEST_DRAIN {
                control.wait(LET_OTHERS_START);
                continue;
            }
            // Nobody waits before this, and a backlog need not wait for another session. LISTEN comes before the next look at the log,
            // so each change is either seen by a look or signalled after it.
            listener = Some(Listener::start(config, control)?);
            continue;
        }
        if pause.is_none() {
            progress(Milestone::Drained);
            follow(&mut pair, &mut sequences, progress)?;
        }
        if pair.replayer.take_largest() >= LARGE_BYTES {
            // The old sessions end first: one of them shows itself as the slave's daemon.
            drop(pair);
            pair = connect_for_replay(config, control)?;
            is_empty = false;
        }
        // A transaction of an earlier connection may be prepared late, also while the pair is never idle. And somebody may have woken
        // the daemon because a switchover was interrupted.
        let patience = if drained == 0 { config.timeout.min(IDLE_PATIENCE) } else { config.timeout };
        if recovered_at.elapsed() >= patience {
            recovered_at = Instant::now();
            pair.recover()?;
            is_empty = false;
            // What works has no failure, whoever has recorded one.
            failure::is_over(&config.name, &config.slave_field, &mut pair.master);
            // It may have settled a switchover.
            refuse_if_switched(config, &mut pair)?;
        }
        let is_done = housekeeping.run(config, &mut pair, replayed_at.elapsed() >= QUIET)?;
        housekeeping.take_warnings().into_iter().for_each(|warning| progress(Milestone::Warning(warning)));
        if is_done {
            let since = Instant::now();
            let flags = until_flags(&mut pair, replayed_at);
            let at_most = flags.into_iter().chain(sequences.until_due().filter(|_| pause.is_none())).min();
            wait_for_work(
                config,
                &mut pair,
                listener.as_mut(),
                &mut quiet_since,
                (pause.is_some(), is_empty),
                at_most,
            )?;
            pace.slept(since.elapsed());
        }
    }
    // Who stops the daemon may want to use the slave.
    if let Err(error) = sequences.finish(&mut pair.master, &mut pair.slave) {
        log::debug!(target: &config.name, "{error}");
    }
    Ok(())
}

/// Replays everything that is pending now. Returns the number of changes.
pub fn once(config: &Config, control: &Control) -> Result<u64> {
    let _turn = Turn::take(control);
    control.check()?;
    let mut config = config.clone();
    let mut pair = loop {
        match connect_for_replay(&config, control) {
            Err(error) if error.kind() == Kind::Switched && !control.pause(SWITCHED_PAUSE) => {
                config = config.directed(true);
            }
            connected => break connected?,
        }
    };
    let config = &config;
    let mut sequences = Follower::new(config, config.sequences);
    let changes = drain(config, &mut pair, (&mut Pace::default(), &mut sequences), &mut |_| ())?.changes;
    sequences.finish(&mut pair.master, &mut pair.slave)?.into_iter().for_each(|warning| pair.warn(warning));
    let mut housekeeping = Housekeeping::new();
    while !housekeeping.run(config, &mut pair, true)? && !control.is_stopping() {}
    Ok(changes)
}

/// Replays everything that is pending, without looking at the roles.
pub fn drain_as(config: &Config, control: &Control, purpose: Purpose) -> Result<u64> {
    let mut pair = connect(config, control, purpose)?;
    let mut sequences = Follower::new(config, None);
    drain(config, &mut pair, (&mut Pace::default(), &mut sequences), &mut |_| ()).map(|drained| drained.changes)
}

/// What `drain` has done.
#[derive(Default)]
struct Drained {
    changes: u64,
    /// Its last look has found nothing.
    is_empty: bool,
}

/// Replays everything that a look at the log finds, and looks again until it finds nothing.
fn drain(
    config: &Config,
    pair: &mut Pair,
    (pace, sequences): (&mut Pace, &mut Follower),
    progress: &mut dyn FnMut(Milestone),
) -> Result<Drained> {
    let (mut total, started) = (0, Instant::now());
    loop {
        let mut backlog = pair.log.look(&mut pair.master)?;
        // A prefetcher that has read changes for an interrupted drain is of no use.
        drop(pair.prefetcher.take_if(|prefetcher| !prefetcher.is_idle()));
        let mut connecting =
            (backlog.is_long() && pair.prefetcher.is_none()).then(|| Connecting::start(config, &pair.control));
        let (mut transactions, mut drained) = (0, 0);
        let mut next = None;
        loop {
            let mut batch = match next.take() {
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
                return Ok(Drained { changes: total + drained, is_empty: false });
            }
            if let Some(prefetcher) = pair.prefetcher.as_mut().filter(|_| backlog.queue().is_empty()) {
                pair.log.extend(&mut pair.master, &mut backlog, prefetcher)?;
            }
            next = Some(batch_of(&mut backlog)).filter(|next| !next.is_empty());
            prefetch(config, pair, &mut connecting, &backlog, (&batch, next.as_ref()));
            let replayed = replay_and_grow(pair, &mut batch, &mut next, &mut backlog);
            pair.take_conflicts().into_iter().for_each(|conflict| progress(Milestone::Conflict(conflict)));
            if replayed.as_ref().is_err_and(|error| error.change().is_some()) {
                pair.flags.stuck(&mut pair.master, &pair.log.progress)?;
            }
            let replayed = replayed?;
            pair.log.replayed(&mut backlog, batch[batch.len() - 1].last());
            pair.flags.keep_up(&mut pair.master, &mut pair.log.progress, replayed)?;
            transactions += batch.len();
            drained += replayed;
            pair.control.tally().add_replayed(replayed);
            sequences.replayed();
            follow(pair, sequences, progress)?;
        }
        pair.log.drained(&backlog);
        total += drained;
        if drained == 0 && backlog.is_resumed() {
            continue;
        }
        if drained == 0 {
            return Ok(Drained { changes: total, is_empty: true });
        }
        pair.flags.keep_up(&mut pair.master, &mut pair.log.progress, drained)?;
        log::debug!(target: &config.name, "Replicated {}", counted(drained, "change"));
        if pair.feeds_others {
            pair.slave.message("wake the slave's own replicas", sql::NOTIFY)?;
        }
        if pair.control.pause(pace.replayed(transactions, drained)) || started.elapsed() >= LONGEST_DRAIN {
            return Ok(Drained { changes: total, is_empty: false });
        }
    }
}

/// Sets the slave's sequences, if it is time to.
fn follow(pair: &mut Pair, sequences: &mut Follower, progress: &mut dyn FnMut(Milestone)) -> Result<()> {
    for warning in sequences.follow(&mut pair.master, &mut pair.slave)? {
        log::warn!(target: pair.name(), "{warning}");
        progress(Milestone::Warning(warning));
    }
    Ok(())
}

/// Lets the prefetcher read this batch and the next ones while the slave executes, if that is worth a session.
fn prefetch(
    config: &Config,
    pair: &mut Pair,
    connecting: &mut Option<Result<Connecting>>,
    backlog: &Backlog,
    (batch, next): (&Batch, Option<&Batch>),
) {
    if pair.replayer.holds.checks_transactions() {
        // Each transaction is read and checked before it is replayed.
        pair.prefetcher = None;
        return;
    }
    if pair.prefetcher.is_none()
        && (next.is_some() || batch.iter().map(Transaction::rows).sum::<u64>() > CHUNK_ROWS as u64)
    {
        let connecting = connecting.take().unwrap_or_else(|| Connecting::start(config, &pair.control));
        match connecting
            .and_then(|connecting| Prefetcher::start(config, &pair.control, pair.log.reader.clone(), connecting))
        {
            Ok(reader) => pair.prefetcher = Some(reader),
            Err(error) => log::debug!(target: &config.name, "No prefetch: {error}"),
        }
    }
    let Some(prefetcher) = &mut pair.prefetcher else { return };
    prefetcher.request(batch);
    // Requested before the next batch; otherwise the slave would wait until that batch is read, too.
    if let Some(window) = pair.log.next_window(backlog) {
        prefetcher.request_window(window);
    }
    if let Some(next) = next {
        prefetcher.request(next);
    }
}
