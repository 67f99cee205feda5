//! Single tables, while the daemon goes on replicating all others.
//!
//! The table is put on hold first: from then on the daemon puts its changes aside on the slave (`held.rs`). What it had
//! replayed before is in the snapshot, which is taken afterwards. When the table is loaded, and the slave's position has
//! passed everything of the table that the snapshot shows, what is held and in the snapshot is dropped, the rest is
//! replayed, and the hold ends.
//!
//! Interrupted, it is run again: the hold tells that there was a copy before, and the table is loaded anew.

use super::load::{self, Way};
use super::{Keeper, News, Outcome, Wish, check, sequences, surroundings, unfinished_whole};
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, quote_literal};
use crate::commit::sql as commit_sql;
use crate::config::settings::Config;
use crate::copy::plan::{self, Captured};
use crate::copy::schema;
use crate::copy::sql;
use crate::pair::copied::{self, Copied};
use crate::pair::release::Release;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::replay::hold::{self, COPYING};
use crate::replay::sql as replay_sql;
use crate::server::session::{Session, ToSql};
use std::time::Duration;

/// How often a batch of the daemon's is waited for, 10 s each time (lock_timeout).
const HOLD_TRIES: u32 = 30;

/// Between two looks at how far the daemon is.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(config: &Config, wish: &Wish, control: &Control, tell: &mut dyn FnMut(News)) -> Result<Outcome> {
    let mut release = Release::open(config, "copy", control)?;
    release.master.query("tell that a copy is under way", sql::LOCK_COPY, &[&config.slave_field])?;
    let key = release.pair.clone();
    let (tables, notes) = plan::choose(&mut release.master, &wish.tables)?;
    notes.into_iter().for_each(|note| tell(News::Note(note)));
    if wish.schema {
        let sides = (&mut release.master, &mut release.slave);
        tell(News::Note(schema::bring(config, sides, &tables, true, control)?));
    }
    copied::create(&mut release.slave)?;
    if copied::read(&mut release.slave, &key)?.iter().any(Copied::is_of_unfinished_copy) {
        return Err(unfinished_whole(
            "wait for its end, or run it again without --table if it is not at work any more",
        ));
    }
    let former = on_hold(&mut release.slave, &key, &tables)?;
    let around = surroundings(&mut release.master, &mut release.slave)?;
    // Before anything is held: what cannot be copied is to stay as it is.
    let plans = plan::make(&mut release.master, &mut release.slave, &tables, &around)?;
    check(wish, &mut release.slave, &plans, &former)?;
    let relations: Vec<&str> = plans.iter().map(|plan| plan.relation.as_str()).collect();
    for relation in &relations {
        hold(&mut release, relation, control, tell)?;
    }
    let batch: i64 =
        release.master.query_one("read the last batch", commit_sql::COMMITTED_BATCH, &[&config.slave_field])?.get(0);
    let parameters: [&(dyn ToSql + Sync); 5] = [&key, &relations, &false, &batch, &"held"];
    release.slave.execute("note the copy", sql::WANT_COPY, &parameters)?;
    failpoint::reached("copy-held");
    let mut keeper = Keeper::open(config, &tables)?;
    // What comes after the snapshot and is on the disk: `copied.rs` says why.
    release.master.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
    release.master.message("make the snapshot last", sql::LEAVE_A_TRACE)?;
    let plans = plan::make(&mut keeper.session, &mut release.slave, &tables, &around)?;
    let way = Way {
        config,
        key: &key,
        exported: &keeper.exported,
        snapshot: &keeper.snapshot,
        keeper: keeper.backend,
        jobs: wish.jobs,
        delete_first: wish.truncate || !former.is_empty(),
        done: "passing",
    };
    let loaded = load::all(&way, keeper.session, &plans, control, tell)?;
    control.set_cancellers(vec![release.master.canceller(), release.slave.canceller()]);
    let snapshot = keeper.snapshot.as_str();
    failpoint::reached("copy-loaded");
    for plan in &plans {
        wait_for_daemon(config, &mut release, &plan.relation, snapshot, control, tell)?;
        let mut told = 0;
        let replayed = release.resume_table(&plan.relation, Some(snapshot), &mut |changes| told = changes)?;
        tell(News::Note(format!("{} goes on: {replayed} changes since the snapshot are replayed", plan.relation)));
    }
    let of = plans.iter().map(|plan| plan.relation.clone()).collect();
    let sequences = sequences::bring(&mut release.master, &mut release.slave, Some(of), tell)?;
    Ok(Outcome { loaded, kept: Vec::new(), sequences, is_live: true })
}

/// Those of the tables that a copy which was interrupted has left on hold. One that is paused is not copied: the copy would
/// end the pause.
pub(super) fn on_hold(slave: &mut Session, key: &str, tables: &[Captured]) -> Result<Vec<String>> {
    if !hold::are_usable(slave)? {
        return Ok(Vec::new());
    }
    let mut left = Vec::new();
    for row in slave.query("look at what is on hold", replay_sql::HOLDS, &[&key])? {
        let relation: String = row.get("relation");
        if !tables.iter().any(|table| table.relation == relation) {
            continue;
        }
        if row.get::<_, &str>("why") != COPYING {
            return Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", format!("{relation} is paused"))
                .with_hint(format!("let it go on first: pyreplica resume --table {}", quote_literal(&relation))));
        }
        left.push(relation);
    }
    Ok(left)
}

/// Puts a table on hold, between two batches of the daemon. One that meets many conflicts takes long.
fn hold(release: &mut Release, relation: &str, control: &Control, tell: &mut dyn FnMut(News)) -> Result<()> {
    let mut tries = 1;
    loop {
        match release.hold(relation, COPYING) {
            Err(error) if error.kind() == Kind::Contention && tries < HOLD_TRIES && !control.is_stopping() => {
                tell(News::Note(format!("waiting for the daemon's batch, to put {relation} on hold")));
                tries += 1;
            }
            other => return other.map(drop),
        }
    }
}

/// Until everything of the table that the snapshot shows has been replayed or put aside.
fn wait_for_daemon(
    config: &Config,
    release: &mut Release,
    relation: &str,
    snapshot: &str,
    control: &Control,
    tell: &mut dyn FnMut(News),
) -> Result<()> {
    let unpassed = sql::unpassed(&config.slave_field);
    loop {
        let left = release.master.query_one(
            "look how far the slave is",
            &unpassed,
            &[&config.slave_field, &relation, &snapshot],
        )?;
        let left: i64 = left.get(0);
        if left == 0 {
            return Ok(());
        }
        tell(News::Waiting(relation, left as u64));
        if control.pause(PAUSE) {
            return Err(Error::new(Kind::Stopped, Some(Side::Slave), "copy", "stopped by a signal"));
        }
    }
}
