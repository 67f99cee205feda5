//! Copies single tables while the daemon goes on replicating all others.
//!
//! The copy first puts the table on hold: from then on the daemon holds its changes on the slave (`hold.rs`). What the
//! daemon has replayed before is in the snapshot, which is taken afterwards. When the table is loaded, the copy waits until
//! the slave's position has passed everything of the table that the snapshot shows. Then it drops the held changes that the
//! snapshot shows, replays the others, and ends the hold.
//!
//! If it is interrupted, the operator runs it again: the hold shows that there was a copy before, and the table is loaded
//! again.

use super::load::{self, LoadOptions};
use super::{
    CopyEvent, CopyOptions, CopyResult, SnapshotSession, Task, check_slave, sequences, server_info,
    unfinished_copy_error,
};
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{Side, fully_quoted, quote_literal};
use crate::base::phrases::counted;
use crate::commit::sql as commit_sql;
use crate::config::settings::Config;
use crate::copy::plan::{self, Captured, CopyPlan};
use crate::copy::schema::{self, Wish};
use crate::copy::sql;
use crate::pair::copied::{self, Copied};
use crate::pair::release::Release;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::replay::hold::{self, COPYING};
use crate::replay::sql as replay_sql;
use crate::server::checks;
use crate::server::session::{Session, ToSql};
use std::time::Duration;

/// How often to wait for a batch of the daemon, 10 s each time (lock_timeout).
const HOLD_TRIES: u32 = 30;

/// Between two looks at how far the daemon is.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(
    config: &Config,
    options: &CopyOptions,
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<CopyResult> {
    let mut release = Release::open(config, "copy", control)?;
    checks::show_copy(&mut release.master, &config.slave_field)?;
    let key = release.pair.clone();
    let (tables, notes) = plan::choose(&mut release.master, &config.tables, &options.tables)?;
    notes.into_iter().for_each(|note| report(CopyEvent::Note(note)));
    if options.schema {
        let sides = (&mut release.master, &mut release.slave);
        let wish = Wish { tables: &tables, parts: true, is_whole: false, no_owner: options.no_owner, snapshot: None };
        let prepared = schema::prepare(config, sides, &wish, control)?;
        let notes = prepared.create(config, &mut release.slave, &key, control)?;
        notes.into_iter().for_each(|note| report(CopyEvent::Note(note)));
    }
    copied::create(&mut release.slave)?;
    if copied::read(&mut release.slave, &key)?.iter().any(Copied::is_of_unfinished_copy) {
        return Err(unfinished_copy_error("wait for its end, or run it again without --table if it was interrupted"));
    }
    let rest = Task::new(config, &key, options.jobs, control);
    rest.before_rows(&mut release.slave, report)?;
    let former = on_hold(&mut release.slave, &key, &tables)?;
    let servers = server_info(&mut release.master, &mut release.slave)?;
    // This comes before the hold, so that a table which cannot be copied stays as it is.
    let plans = plan::make(&mut release.master, &mut release.slave, &tables, &servers)?;
    check_slave(options, &mut release.slave, &plans, &former)?;
    let relations: Vec<&str> = plans.iter().map(|plan| plan.relation.as_str()).collect();
    for relation in &relations {
        hold(&mut release, relation, control, report)?;
    }
    let batch: i64 =
        release.master.query_one("read the last batch", commit_sql::COMMITTED_BATCH, &[&config.slave_field])?.get(0);
    let parameters: [&(dyn ToSql + Sync); 5] = [&key, &relations, &false, &batch, &"held"];
    release.slave.execute("note the copy", sql::WANT_COPY, &parameters)?;
    failpoint::reached("copy-held");
    let mut snapshot_session = SnapshotSession::open(config, &tables)?;
    // A transaction that writes to disk after the snapshot: `copied.rs` says why.
    release.master.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
    release.master.message("make the snapshot last", sql::WRITE_TO_DISK)?;
    let plans = plan::make(&mut snapshot_session.session, &mut release.slave, &tables, &servers)?;
    let load_options = LoadOptions {
        config,
        key: &key,
        exported: &snapshot_session.exported,
        snapshot: &snapshot_session.snapshot,
        backend: snapshot_session.backend,
        jobs: options.jobs,
        delete_first: options.truncate || !former.is_empty(),
        divides: false,
        done: "passing",
    };
    let loaded = load::all(&load_options, snapshot_session.session, &plans, control, report)?;
    failpoint::reached("copy-loaded");
    rest.after_rows(&mut release.slave, &relations, report)?;
    control.set_cancellers(vec![release.master.canceller(), release.slave.canceller()]);
    let snapshot = snapshot_session.snapshot.as_str();
    go_on(config, &mut release, &plans, snapshot, control, report)?;
    let relations = plans.iter().map(|plan| plan.relation.clone()).collect();
    let sequences = sequences::set_all(&mut release.master, &mut release.slave, Some(relations), report)?;
    Ok(CopyResult { loaded, kept: Vec::new(), sequences, is_live: true })
}

/// Lets the daemon go on with each table, as soon as its position has passed what the snapshot shows.
fn go_on(
    config: &Config,
    release: &mut Release,
    plans: &[CopyPlan],
    snapshot: &str,
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<()> {
    for plan in plans {
        wait_for_daemon(config, release, &plan.relation, snapshot, control, report)?;
        let mut replayed_so_far = 0;
        let replayed =
            release.resume_table(&plan.relation, Some(snapshot), &mut |changes| replayed_so_far = changes)?;
        report(CopyEvent::Note(format!(
            "{} goes on: {} since the snapshot replayed",
            plan.relation,
            counted(replayed, "change")
        )));
    }
    Ok(())
}

/// The tables among these that an interrupted copy has left on hold. A paused table is not copied: the copy would end the
/// pause.
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
                .with_hint(format!("end the pause first: pyreplica resume --table {}", quote_literal(&relation))));
        }
        left.push(relation);
    }
    Ok(left)
}

/// Puts a table on hold, between two batches of the daemon. A batch that meets many conflicts takes long.
fn hold(release: &mut Release, relation: &str, control: &Control, report: &mut dyn FnMut(CopyEvent)) -> Result<()> {
    let mut tries = 1;
    loop {
        match release.hold(relation, COPYING) {
            Err(error) if error.kind() == Kind::Contention && tries < HOLD_TRIES && !control.is_stopping() => {
                report(CopyEvent::Note(format!("waiting for the daemon's batch, to put {relation} on hold")));
                tries += 1;
            }
            other => return other.map(drop),
        }
    }
}

/// Waits until everything of the table that the snapshot shows has been replayed or held.
fn wait_for_daemon(
    config: &Config,
    release: &mut Release,
    relation: &str,
    snapshot: &str,
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<()> {
    let unpassed = sql::unpassed(&config.slave_field);
    let names = [relation, &fully_quoted(relation)];
    loop {
        let left = release.master.query_one(
            "look how far the slave is",
            &unpassed,
            &[&config.slave_field, &names.as_slice(), &snapshot],
        )?;
        let left: i64 = left.get(0);
        if left == 0 {
            return Ok(());
        }
        report(CopyEvent::Waiting(relation, left as u64));
        if control.pause(PAUSE) {
            return Err(Error::new(Kind::Stopped, Some(Side::Slave), "copy", "stopped by a signal"));
        }
    }
}
