//! Exchanges the roles of a pair while clients work, on both servers or on neither.
//!
//! ```text
//! check -> prepare what can be prepared without a lock -> lock the master's tables: writers wait, readers go on
//!   -> the daemon replays what is left -> sequences -> the two transactions of `exchange.rs`
//! ```
//!
//! Up to their commit a failure, the end of `wait`, or a stop rolls everything back, and the writers go on.

use crate::backlog::sql as backlog_sql;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::Side;
use crate::base::phrases::{counted, were};
use crate::compare::comparison::{TablePlan, compare, plans};
use crate::compare::servers::Servers;
use crate::config::settings::Config;
use crate::pair::replicator;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::roles::exchange::{Exchange, OtherSlave};
use crate::roles::hook;
use crate::roles::lock;
use crate::roles::obstacles::{self, Obstacle};
use crate::roles::sides::Sides;
use crate::roles::sql;
use crate::sequences::setting::{Occasion, set_exactly};
use crate::server::connect;
use crate::server::fence::Fenced;
use crate::server::role::{State, place};
use crate::server::session::Session;
use std::time::{Duration, Instant};

/// How often the verb looks whether everything has been replayed.
const LOOK: Duration = Duration::from_millis(5);

/// How long a hook may take after the exchange, when nobody waits for it.
const SWITCHED_HOOK_TIME: Duration = Duration::from_secs(60);

pub struct Options {
    /// Roll back instead of committing.
    pub dry_run: bool,
    /// How long writers may wait.
    pub wait: Duration,
    pub verify: bool,
    pub take_slaves: bool,
    /// Go on although something stays on the old master.
    pub leave_behind: bool,
    pub on_fenced: Option<String>,
    pub on_switched: Option<String>,
}

/// What was done.
pub struct Outcome {
    pub epoch: i64,
    /// The connection strings, without passwords, of the master before and after.
    pub old: String,
    pub new: String,
    pub tables: usize,
    pub sequences: u64,
    pub rows_compared: Option<u64>,
    /// How long writers waited at most.
    pub waited: Duration,
    /// An interrupted switchover was finished.
    pub was_finished: bool,
    pub taken: Vec<String>,
    pub left: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Does it. `source` names the pair on a command line; `report` gets a line about each step.
pub fn run(
    config: &Config,
    source: &str,
    options: &Options,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Outcome> {
    let mut sides = Sides::open(config, "switchover", control)?;
    if let Some(settled) = settle(config, &mut sides, control, report)? {
        return Ok(settled);
    }
    let mut outcome = Outcome {
        epoch: sides.roles.epoch.max(1) + 1,
        old: place(&sides.config.master),
        new: place(&sides.config.slave),
        tables: sides.tables.len(),
        sequences: 0,
        rows_compared: None,
        waited: Duration::ZERO,
        was_finished: false,
        taken: Vec::new(),
        left: Vec::new(),
        notes: Vec::new(),
    };
    let is_half_done = sides.roles.state == State::Between;
    if is_half_done {
        outcome.epoch = sides.roles.epoch;
    }
    report(&format!("{} -> {}: checking", outcome.old, outcome.new))?;
    sides.refuse_other_use()?;
    let mut found = if is_half_done { Vec::new() } else { obstacles::before(&mut sides, config, source, control)? };
    let field = sides.config.slave_field.clone();
    let mut taken = OtherSlave::all(&mut sides.master, &field)?;
    taken.retain(|_| options.take_slaves);
    found.extend(obstacles::late_slaves(&mut sides.master, &taken)?);
    let taken: Vec<String> = taken.into_iter().map(|other| other.field).collect();
    refuse(found, options, &mut outcome)?;
    catch_up(&mut sides, &taken, options, control, report)?;
    let tables = sides.prepare(&taken, options.wait, control, report)?;
    let found = obstacles::after(&mut sides, config, source, control)?;
    refuse(found, options, &mut outcome)?;
    if options.verify {
        report("comparing all tables")?;
        outcome.rows_compared = Some(verify(config, options, control)?);
    }
    let pair = match &sides.roles.pair {
        Some(pair) => pair.clone(),
        None => sides.master.query_one("name the pair", sql::NAME_PAIR, &[])?.get(0),
    };
    // A connection takes a while, and writers are not to wait for that.
    let label = format!("{} switchover guard", sides.config.name);
    let mut spare = connect::connect(Side::Master, &sides.config.master, &label)?;
    report("locking the tables: writers wait from now on, readers go on")?;
    let since = locked(&mut sides, &tables, options, control)?;
    let deadline = since + options.wait;
    sides.slave.limit_waits(lock::patience(deadline));
    let held = sides
        .refuse_new_tables(&tables)
        .and_then(|()| under_lock(&mut sides, &mut spare, &taken, options, deadline, control, &mut outcome));
    let others = held.inspect_err(|_| {
        sides.master.roll_back();
    })?;
    sides.slave.limit_waits(lock::patience(deadline));
    let epoch = outcome.epoch;
    let exchange = Exchange { sides: &mut sides, tables: &tables, epoch, pair, others, is_half_done, guard: spare };
    exchange.run(options.dry_run)?;
    outcome.waited = since.elapsed();
    if options.dry_run {
        return Ok(outcome);
    }
    announce(&mut sides, options, control, &mut outcome);
    Ok(outcome)
}

/// Without a daemon, settles what is in doubt, which may be a switchover that was interrupted. Returns the outcome if that is all
/// that there was to do.
fn settle(
    config: &Config,
    sides: &mut Sides,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Option<Outcome>> {
    let before = (sides.roles.epoch, sides.roles.is_reversed, sides.roles.state);
    if sides.has_daemon(&config.slave_field)? {
        sides.await_settlement(control, report)?;
    } else {
        report("no daemon is connected: replaying what is pending")?;
        match replicator::once(config, control) {
            Err(error) if error.kind() == Kind::Busy => {}
            done => drop(done?),
        }
    }
    let (old, new) = (place(&sides.config.master), place(&sides.config.slave));
    *sides = Sides::open(config, "switchover", control)?;
    let now = (sides.roles.epoch, sides.roles.is_reversed, sides.roles.state);
    Ok((before != now && now.2 == State::Settled).then(|| Outcome {
        epoch: now.0,
        old,
        new,
        tables: sides.tables.len(),
        sequences: 0,
        rows_compared: None,
        waited: Duration::ZERO,
        was_finished: true,
        taken: Vec::new(),
        left: Vec::new(),
        notes: vec!["a switchover had been interrupted between its two commits: it is complete now".to_string()],
    }))
}

fn refuse(found: Vec<Obstacle>, options: &Options, outcome: &mut Outcome) -> Result<()> {
    let (left, found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|obstacle| obstacle.may_be_left && options.leave_behind);
    outcome.notes.extend(left.into_iter().map(|obstacle| obstacle.text));
    if found.is_empty() {
        return Ok(());
    }
    let may_be_left = found.iter().all(|obstacle| obstacle.may_be_left);
    let texts: Vec<String> = found
        .into_iter()
        .map(|obstacle| match obstacle.help.is_empty() {
            true => obstacle.text,
            false => format!("{} ({})", obstacle.text, obstacle.help.join("; ")),
        })
        .collect();
    let hint = match may_be_left {
        true => "nothing was changed. Do what the brackets say; or go on all the same: --leave-behind",
        false => "nothing was changed. Do what the brackets say, and run the verb again",
    };
    Err(Error::new(Kind::Setup, None, "exchange the roles", texts.join("; ")).with_hint(hint))
}

/// Waits, while clients go on, until the slave is so near that little is left to be replayed under the lock; and those that are
/// taken along.
fn catch_up(
    sides: &mut Sides,
    taken: &[String],
    options: &Options,
    control: &Control,
    report: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + options.wait.max(Duration::from_secs(1));
    let mut is_told = false;
    loop {
        let mut behind = Duration::ZERO;
        for field in [&sides.config.slave_field].into_iter().chain(taken) {
            behind = behind.max(lag(&mut sides.master, field)?);
        }
        if behind <= options.wait / 4 {
            return Ok(());
        }
        if !is_told {
            report(&format!("the slave is {:.0} s behind: waiting until it is near", behind.as_secs_f64()))?;
            is_told = true;
        }
        if Instant::now() >= end {
            let detail = format!("the slave is {:.0} s behind", behind.as_secs_f64());
            return Err(Error::new(Kind::Setup, Some(Side::Slave), "exchange the roles", detail)
                .with_hint("wait until pyreplica status says that it has caught up, or give more time: --wait"));
        }
        control.pause(Duration::from_millis(200));
        control.check()?;
    }
}

/// The age of the oldest change that waits.
fn lag(master: &mut Session, field: &String) -> Result<Duration> {
    let waiting = backlog_sql::waiting(field);
    let query =
        format!("select coalesce((select extract(epoch from now() - ts::timestamptz) from ({waiting}) w), 0)::float8");
    let seconds: f64 = master.query_one("look how far the slave is behind", &query, &[field])?.get(0);
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn locked(sides: &mut Sides, tables: &[Fenced], options: &Options, control: &Control) -> Result<Instant> {
    let names: Vec<String> = tables.iter().filter(|table| table.is_named).map(|table| table.relation.clone()).collect();
    let since = lock::lock(&mut sides.master, &names, options.wait, control);
    if since.is_err() {
        sides.master.roll_back();
    }
    failpoint::reached("switch locked");
    since
}

/// What is done while writers wait, before the two transactions.
fn under_lock(
    sides: &mut Sides,
    spare: &mut Session,
    taken: &[String],
    options: &Options,
    deadline: Instant,
    control: &Control,
    outcome: &mut Outcome,
) -> Result<Vec<OtherSlave>> {
    drain(sides, taken, deadline, control)?;
    let mut others = OtherSlave::all(&mut sides.master, &sides.config.slave_field)?;
    for other in &mut others {
        other.is_taken = taken.contains(&other.field);
        let list = if other.is_taken { &mut outcome.taken } else { &mut outcome.left };
        list.push(other.field.clone());
    }
    failpoint::reached("switch drained");
    if !options.dry_run {
        carry_sequences(sides, spare, outcome)?;
    }
    let left = || deadline.saturating_duration_since(Instant::now());
    if let Some(command) = &options.on_fenced {
        hook::run("--on-fenced", command, &variables(sides, outcome), left(), control)?;
    }
    control.check()?;
    if left().is_zero() {
        return Err(too_late("prepare the exchange"));
    }
    Ok(others)
}

/// Waits until the daemon has replayed everything, and those of the slaves that are taken along. Without one the verb replays it
/// itself. Nobody adds to the log meanwhile: not by the tables, which are locked, nor by hand.
fn drain(sides: &mut Sides, taken: &[String], deadline: Instant, control: &Control) -> Result<()> {
    let field = sides.config.slave_field.clone();
    if !sides.has_daemon(&field)? {
        match replicator::once(&sides.config, control) {
            Err(error) if error.kind() == Kind::Busy => {}
            done => drop(done?),
        }
    }
    let fields: Vec<&String> = [&field].into_iter().chain(taken).collect();
    let mut is_last = false;
    loop {
        let mut is_done = true;
        for field in &fields {
            let rows = sides.master.query("look what is pending", &backlog_sql::waiting(field), &[field])?;
            is_done &= rows.is_empty();
        }
        match is_done {
            true if is_last => return Ok(()),
            true => {
                let lock = format!(
                    "{}; SET LOCAL lock_timeout = '1s'; LOCK TABLE public.replica_log, public.replica_role \
                     IN SHARE ROW EXCLUSIVE MODE; SET LOCAL synchronous_commit = on",
                    lock::give_back(deadline)
                );
                sides.master.message("lock the log", &lock)?;
                is_last = true;
                continue;
            }
            false => {}
        }
        control.pause(LOOK);
        control.check()?;
        if Instant::now() >= deadline {
            return Err(too_late("replay what was left").with_hint(
                "is the daemon at work? pyreplica status says what it waits for. --wait gives it more time",
            ));
        }
    }
}

fn too_late(what: &str) -> Error {
    Error::new(
        Kind::Contention,
        Some(Side::Slave),
        what,
        "it was not done within the time that writers may wait (--wait)",
    )
}

/// Sets the slave's sequences to where the master's are. Nobody takes numbers for rows meanwhile, since all writers wait.
///
/// `master` is another session than that with the locks, which is in a transaction: sequences obey none.
fn carry_sequences(sides: &mut Sides, master: &mut Session, outcome: &mut Outcome) -> Result<()> {
    let done = set_exactly(master, &mut sides.slave, None, Occasion::Switchover)?;
    outcome.sequences = (done.same + done.set.len()) as u64;
    for (reason, names) in done.by_reason() {
        outcome.notes.push(format!("{} not set, since {reason}: {}", were(names.len(), "sequence"), names.join(", ")));
    }
    Ok(())
}

/// Compares all tables while clients and the daemon go on. Returns the number of rows.
fn verify(config: &Config, options: &Options, control: &Control) -> Result<u64> {
    let mut servers = Servers::open(config, "switchover verify", control, Duration::ZERO)?;
    let (master, slave) = servers.sessions();
    let (mut rows, mut apart) = (0, Vec::new());
    for plan in plans(config, master, slave, &[])? {
        let TablePlan::Compare(plan) = plan else { continue };
        let counts = compare(&mut servers, &plan, options.wait.max(Duration::from_secs(30)), &mut |_, _| Ok(()))?;
        rows += counts.rows.0;
        if counts.differences() > 0 {
            apart.push(format!("{} ({})", plan.table, counted(counts.differences(), "row")));
        }
    }
    if apart.is_empty() {
        return Ok(rows);
    }
    let detail = format!("the two sides differ: {}", apart.join(", "));
    Err(Error::new(Kind::Apart, Some(Side::Slave), "exchange the roles", detail)
        .with_hint("nothing was changed. pyreplica compare shows the rows, repair makes the slave's the master's"))
}

/// Wakes the daemon, and runs the operator's command. The exchange is done, so a failure is only told.
fn announce(sides: &mut Sides, options: &Options, control: &Control, outcome: &mut Outcome) {
    // It works in the old direction, or it waits for its next try, because this verb has replayed in its place.
    let woken = [
        sides.master.message("wake the daemon", pair_sql::NOTIFY),
        sides.master.message("wake the daemon", pair_sql::NOTIFY_RETRY),
        sides.slave.message("wake the daemon", pair_sql::NOTIFY_RETRY),
    ];
    if let Some(error) = woken.into_iter().find_map(Result::err) {
        outcome.notes.push(format!("the daemon was not woken: {error}"));
    }
    if let Some(command) = &options.on_switched {
        let variables = variables(sides, outcome);
        if let Err(error) = hook::run("--on-switched", command, &variables, SWITCHED_HOOK_TIME, control) {
            outcome.notes.push(error.to_string());
        }
    }
}

/// What a command of the operator's finds in its environment.
fn variables(sides: &Sides, outcome: &Outcome) -> Vec<(&'static str, String)> {
    vec![
        ("PYREPLICA_PAIR", sides.config.name.clone()),
        ("PYREPLICA_EPOCH", outcome.epoch.to_string()),
        ("PYREPLICA_OLD_MASTER", outcome.old.clone()),
        ("PYREPLICA_NEW_MASTER", outcome.new.clone()),
    ]
}
