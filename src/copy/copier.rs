//! The initial copy while the master works.
//!
//! ```text
//! lock the pair -> LOCK TABLE ... IN ACCESS SHARE MODE -> one snapshot -> note on the slave which tables are wanted
//!               -> each table: COPY to COPY, noted as loaded in the same transaction     (any number at a time)
//!               -> the sequences -> the snapshot becomes the slave's position -> note on the slave that all is loaded
//! ```
//!
//! The snapshot shows what a transaction wrote to its tables and to the log, or neither. So when the slave holds what the
//! snapshot shows, and its position is that snapshot, it gets everything else from the log: later transactions, and those
//! that were open or prepared when the snapshot was taken. Nothing is replayed twice.
//!
//! The tables are locked before the snapshot is taken, because a table that is truncated or rewritten afterwards would look
//! empty to the snapshot. The locks do not block reading and writing; TRUNCATE and ALTER TABLE wait.
//!
//! If a copy is interrupted, at any step, the operator runs it again. Tables that are noted as loaded stay; the others are
//! loaded from a new snapshot (`copied.rs`). Meanwhile the notes on the slave keep daemons from replicating, and the master
//! keeps the log, because the slave's position has not moved. The copy checks that: it writes a number to the slave's row
//! on the master, and the number must still be there when the copy goes on and when it writes the position.

mod large_objects;
mod live;
mod load;
mod making;
mod parts;
mod registering;
mod sequences;

use crate::backlog::position::Position;
use crate::backlog::snapshot::Snapshot;
use crate::backlog::sql as backlog_sql;
use crate::base::control::Control;
use crate::base::error::{Error, Kind, Result};
use crate::base::names::{BatchNumber, LogId, Side};
use crate::base::shown::listed;
use crate::commit::sql as commit_sql;
use crate::commit::twophase::{Pair, draw_batch};
use crate::config::settings::Config;
use crate::copy::plan::{self, Captured, CopyPlan, ServerInfo};
use crate::copy::schema::{self, Wish};
use crate::copy::sql;
use crate::pair::connecting::{self, Purpose};
use crate::pair::copied::{self, Copied, State};
use crate::pair::release::Release;
use crate::pair::sql as pair_sql;
use crate::process::failpoint;
use crate::replay::hold;
use crate::server::checks;
use crate::server::connect;
use crate::server::session::{Session, ToSql};
use crate::server::sql as server_sql;
use making::Task;
use registering::{announce, defer_indexes, register, write_batch};
use std::collections::HashSet;

pub use load::{CopyProgress, LoadedTable};
pub use making::Making;

/// What the operator wants.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Only these tables, without setting the slave's position; all tables if the list is empty.
    pub tables: Vec<String>,
    pub jobs: usize,
    /// Empty the slave's tables first.
    pub truncate: bool,
    /// Forget a copy that was interrupted.
    pub restart: bool,
    /// Create the schema first.
    pub schema: bool,
    /// Drop indexes and constraints before the rows, and make them again.
    pub defer_indexes: bool,
    /// Copy large objects too.
    pub large_objects: bool,
    /// The schema without owners and privileges, although tenants of the master own some of it.
    pub no_owner: bool,
}

/// What the operator is informed about meanwhile.
pub enum CopyEvent<'a> {
    Note(String),
    Progress(&'a CopyProgress),
    LoadedTable(&'a LoadedTable),
    /// Indexes and the like are being made.
    Making(&'a Making),
    /// The copy waits for the daemon, which has to pass so many changes of the table first.
    Waiting(&'a str, u64),
}

#[derive(Debug)]
pub struct CopyResult {
    pub loaded: Vec<LoadedTable>,
    /// Loaded by an earlier run.
    pub kept: Vec<Copied>,
    pub sequences: u64,
    /// The daemon was running meanwhile.
    pub is_live: bool,
}

/// The tables of this run, and what it takes over from an earlier one.
struct Scope {
    key: String,
    is_whole: bool,
    todo: Vec<Captured>,
    kept: Vec<Copied>,
    /// Tables into which an interrupted copy has loaded some rows.
    begun: Vec<String>,
    /// Tables of an earlier run that are of no use any more.
    forgotten: Vec<String>,
    /// The number that the copy has in the slave's row on the master.
    batch: BatchNumber,
}

/// The session that holds the master's snapshot and the locks of the tables.
struct SnapshotSession {
    session: Session,
    backend: i32,
    exported: String,
    snapshot: Snapshot,
}

pub fn run(
    config: &Config,
    options: &CopyOptions,
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<CopyResult> {
    if (options.defer_indexes || options.large_objects) && !options.tables.is_empty() {
        let detail = "--defer-indexes and --large-objects are for a copy of all tables, without --table";
        return Err(Error::new(Kind::Usage, None, "copy", detail));
    }
    let purpose = if options.tables.is_empty() { Purpose::FillAll } else { Purpose::FillTables };
    match connecting::connect(config, control, purpose) {
        Ok(pair) => without_daemon(config, options, pair, control, report),
        Err(error) if error.kind() != Kind::Busy => Err(error),
        Err(_) if !options.tables.is_empty() => live::run(config, options, control, report),
        Err(error) => Err(error.with_hint(
            "stop the pair's daemon (or the copy that is in progress), and start it after the copy; with --table the \
             daemon may keep running",
        )),
    }
}

/// The copy while no daemon runs.
fn without_daemon(
    config: &Config,
    options: &CopyOptions,
    mut pair: Pair,
    control: &Control,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<CopyResult> {
    checks::show_copy(&mut pair.master, &config.slave_field)?;
    pair.slave.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
    pair.master.query("set the session up", pair_sql::COMMIT_DURABLY, &[])?;
    let (tables, notes) = plan::choose(&mut pair.master, &config.tables, &options.tables)?;
    notes.into_iter().for_each(|note| report(CopyEvent::Note(note)));
    copied::create(&mut pair.slave)?;
    let scope = choose_scope(options, &mut pair, tables.clone())?;
    let mut snapshot_session = SnapshotSession::open(config, &scope.todo)?;
    let is_announced = match options.schema {
        true => create_schema((config, options, control), &mut pair, (&scope, &tables), &snapshot_session, report)?,
        false => false,
    };
    let rest = Task::new(config, &scope.key, options.jobs, control);
    rest.before_rows(&mut pair.slave, report)?;
    let held = match scope.is_whole {
        true => Vec::new(),
        false => live::on_hold(&mut pair.slave, &scope.key, &scope.todo)?,
    };
    let servers = server_info(&mut pair.master, &mut pair.slave)?;
    let plans = plan::make(&mut snapshot_session.session, &mut pair.slave, &scope.todo, &servers)?;
    let begun = [held.as_slice(), &scope.begun].concat();
    check_slave(options, &mut pair.slave, &plans, &begun)?;
    if !is_announced {
        write_batch(&mut pair, &scope)?;
    }
    register(options, &mut pair.slave, &scope, &plans)?;
    if options.defer_indexes {
        report(CopyEvent::Note(defer_indexes(&mut pair.slave, &scope.key, &plans)?));
    }
    failpoint::reached("copy-registered");
    if options.large_objects {
        let master = &mut snapshot_session.session;
        large_objects::copy_all(master, &mut pair.slave, options.no_owner, control, report)?;
    }
    let load_options = load::LoadOptions {
        config,
        key: &scope.key,
        exported: &snapshot_session.exported,
        snapshot: &snapshot_session.snapshot,
        backend: snapshot_session.backend,
        jobs: options.jobs,
        delete_first: (options.truncate || !begun.is_empty()) && !scope.is_whole,
        divides: scope.is_whole,
        // Until the rest of the schema is there too, no daemon may replicate.
        done: "loaded",
    };
    let loaded = load::all(&load_options, snapshot_session.session, &plans, control, report)?;
    let snapshot = snapshot_session.snapshot.as_str();
    failpoint::reached("copy-loaded");
    let sequences = complete(&rest, &mut pair, &scope, &plans, report)?;
    for relation in held {
        Release::open(config, "copy", control)?.resume_table(&relation, Some(snapshot), &mut |_| ())?;
    }
    // A daemon that could not start because of this session's lock waits for its next try: this wakes it.
    pair.master.message("let the daemon go on", sql::END_COPY)?;
    Ok(CopyResult { loaded, kept: scope.kept, sequences, is_live: false })
}

/// Creates what the rows need, if the slave lacks the tables. Returns whether the copy is announced since.
fn create_schema(
    (config, options, control): (&Config, &CopyOptions, &Control),
    pair: &mut Pair,
    (scope, tables): (&Scope, &[Captured]),
    snapshot_session: &SnapshotSession,
    report: &mut dyn FnMut(CopyEvent),
) -> Result<bool> {
    let wish = Wish {
        tables,
        parts: !scope.is_whole || config.tables.is_limited(),
        is_whole: scope.is_whole,
        no_owner: options.no_owner,
        snapshot: Some(&snapshot_session.exported),
    };
    let prepared = schema::prepare(config, (&mut pair.master, &mut pair.slave), &wish, control)?;
    let is_announced = prepared.is_needed() && scope.is_whole;
    if is_announced {
        // No daemon may find the tables without their keys.
        announce(pair, scope)?;
    }
    let notes = prepared.create(config, &mut pair.slave, &scope.key, control)?;
    notes.into_iter().for_each(|note| report(CopyEvent::Note(note)));
    failpoint::reached("copy-schema");
    Ok(is_announced)
}

/// All rows are there: makes the rest of the schema, sets the sequences, and lets daemons start. Returns how many sequences.
fn complete(
    rest: &Task,
    pair: &mut Pair,
    scope: &Scope,
    plans: &[CopyPlan],
    report: &mut dyn FnMut(CopyEvent),
) -> Result<u64> {
    let tables = plans.iter().map(|plan| plan.relation.as_str());
    let kept = scope.kept.iter().map(|table| table.relation.as_str());
    rest.after_rows(&mut pair.slave, &tables.chain(kept).collect::<Vec<&str>>(), report)?;
    rest.control.set_cancellers(vec![pair.master.canceller(), pair.slave.canceller()]);
    let are_all = scope.is_whole && !rest.config.tables.is_limited();
    let relations = if are_all { None } else { Some(plans.iter().map(|plan| plan.relation.clone()).collect()) };
    let sequences = sequences::set_all(&mut pair.master, &mut pair.slave, relations, report)?;
    if scope.is_whole {
        write_position(pair, scope)?;
    } else {
        pair.slave.execute("end the copy", sql::PASS_COPIES, &[&scope.key])?;
    }
    Ok(sequences)
}

/// Decides which tables to load, by what an earlier run has left.
fn choose_scope(options: &CopyOptions, pair: &mut Pair, tables: Vec<Captured>) -> Result<Scope> {
    let key = pair.key.clone();
    let former = copied::read(&mut pair.slave, &key)?;
    let unfinished = former.iter().find(|table| table.is_of_unfinished_copy()).filter(|_| !options.restart);
    let batch = pair.log.progress.position().batch;
    if !options.tables.is_empty() {
        if unfinished.is_some() {
            return Err(unfinished_copy_error(
                "run pyreplica copy without --table first: it goes on where it was interrupted",
            ));
        }
        let (kept, forgotten) = (Vec::new(), Vec::new());
        let begun = former.into_iter().filter(|table| table.state == State::Loaded).map(|table| table.relation);
        return Ok(Scope { key, is_whole: false, todo: tables, kept, begun: begun.collect(), forgotten, batch });
    }
    let Some(begun) = unfinished.map(|table| table.batch) else {
        let batch = draw_batch(&mut pair.master)?.number;
        let forgotten = former.into_iter().map(|table| table.relation).collect();
        return Ok(Scope { key, is_whole: true, todo: tables, kept: Vec::new(), begun: Vec::new(), forgotten, batch });
    };
    if begun != batch {
        let detail = "the slave's position has moved since the copy was interrupted";
        return Err(Error::new(Kind::Setup, Some(Side::Master), "go on with the copy", detail)
            .with_hint("start over: pyreplica copy --restart --truncate ..."));
    }
    let is_captured = |table: &Copied| tables.iter().any(|other| other.relation == table.relation);
    let (kept, gone): (Vec<Copied>, Vec<Copied>) = former.into_iter().partition(is_captured);
    let is_begun = |table: &&Copied| table.state == State::Wanted && table.snapshot.is_some();
    let begun = kept.iter().filter(is_begun).map(|table| table.relation.clone()).collect();
    let kept: Vec<Copied> = kept.into_iter().filter(|table| table.state == State::Loaded).collect();
    let is_missing = |table: &Captured| !kept.iter().any(|other| other.relation == table.relation);
    let todo = tables.into_iter().filter(is_missing).collect();
    let forgotten = gone.into_iter().map(|table| table.relation).collect();
    Ok(Scope { key, is_whole: true, todo, kept, begun, forgotten, batch })
}

fn unfinished_copy_error(hint: &str) -> Error {
    Error::new(Kind::Setup, Some(Side::Slave), "copy single tables", "a copy of all tables is unfinished")
        .with_hint(hint)
}

impl SnapshotSession {
    fn open(config: &Config, tables: &[Captured]) -> Result<SnapshotSession> {
        let mut session = connect::connect(Side::Master, &config.master, &format!("{} copy", config.name))?;
        let locks = tables.iter().map(|table| format!("LOCK TABLE {} IN ACCESS SHARE MODE;", table.locked()));
        let begin = format!("{} {}", load::BEGIN_SNAPSHOT, locks.collect::<String>());
        session.message("lock the tables", &begin).map_err(|error| match error.code() {
            Some("42501") => error.with_hint("DSN0's role needs the right to SELECT from every table that is copied"),
            _ => error,
        })?;
        let row = session.query_one("take a snapshot", sql::EXPORT_SNAPSHOT, &[])?;
        let shown: &str = row.get(1);
        let snapshot = Snapshot::parse(shown).ok_or_else(|| {
            Error::new(
                Kind::Internal,
                Some(Side::Master),
                "take a snapshot",
                format!("the server sent something else: {shown}"),
            )
        })?;
        Ok(SnapshotSession { exported: row.get(0), snapshot, backend: session.backend_pid(), session })
    }
}

fn server_info(master: &mut Session, slave: &mut Session) -> Result<ServerInfo> {
    Ok(ServerInfo {
        master_encoding: master.query_one("look at the server", server_sql::IDENTITY, &[])?.get(1),
        slave_encoding: slave.query_one("look at the server", server_sql::IDENTITY, &[])?.get(1),
    })
}

/// Finds what would make the load fail, or harm the slave, before anything is written. `begun`: tables that an interrupted
/// copy may have filled.
fn check_slave(options: &CopyOptions, slave: &mut Session, plans: &[CopyPlan], begun: &[String]) -> Result<()> {
    let role: String = slave.query_one("look at the role", sql::ROLE_SETTING, &[])?.get(0);
    let watched: Vec<String> = plans.iter().filter(|plan| plan.is_watched).map(|plan| plan.relation.clone()).collect();
    if role != "replica" && !watched.is_empty() {
        let detail = format!("foreign keys or triggers would fire on {}", listed(&watched));
        return Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", detail).with_hint(checks::REPLICA_ROLE_HINT));
    }
    if options.truncate {
        return Ok(());
    }
    let begun: HashSet<&String> = begun.iter().collect();
    let looked_at = plans.iter().filter(|plan| !begun.contains(&plan.relation));
    let full = plan::filled(slave, looked_at.map(|plan| (plan.relation.as_str(), plan.target.as_str())))?;
    if full.is_empty() {
        return Ok(());
    }
    let verb = if full.len() == 1 { "is" } else { "are" };
    Err(Error::new(Kind::Setup, Some(Side::Slave), "copy", format!("{} {verb} not empty", listed(&full)))
        .with_hint("--truncate empties the slave's tables before they are loaded"))
}

/// All tables are loaded: the earliest snapshot becomes the slave's position.
fn write_position(pair: &mut Pair, scope: &Scope) -> Result<()> {
    let copied = copied::read(&mut pair.slave, &scope.key)?;
    let Some(base) = copied::earliest(&copied).filter(|_| copied.iter().all(|table| table.state == State::Loaded))
    else {
        let detail = "another session has changed the table replica_copy";
        return Err(Error::new(Kind::Internal, Some(Side::Slave), "end the copy", detail));
    };
    let former = pair.log.progress.position().clone();
    // This is read after the snapshots were taken, so none of them shows a higher id.
    let highest: i64 = pair.master.query_one("look at the log's end", backlog_sql::HIGHEST_ID, &[])?.get(0);
    let position = Position {
        batch: scope.batch,
        token: Some(draw_batch(&mut pair.master)?.token),
        base: Some(base.clone()),
        current: None,
        last: None,
        highest: former.highest.max(LogId(highest)),
        floor: former.floor,
    };
    pair.log.progress.write(&mut pair.master, &position, scope.batch)?;
    failpoint::reached("copy-positioned");
    let is_covered = |table: &&Copied| table.snapshot.as_ref().is_some_and(|snapshot| base.covers(snapshot));
    let covered: Vec<&str> = copied.iter().filter(is_covered).map(|table| table.relation.as_str()).collect();
    let progress = &pair.log.progress;
    let row: [&(dyn ToSql + Sync); 6] =
        [&scope.key, &position.batch.0, &position.token, &progress.identity(), &progress.history(), &position.encode()];
    pair.slave.transaction("BEGIN", |slave| {
        slave.execute("note the progress", commit_sql::SET_PROGRESS, &row)?;
        slave.execute("end the copy", pair_sql::FORGET_COPIES, &[&scope.key, &covered])?;
        slave.execute("end the copy", sql::PASS_COPIES, &[&scope.key])?;
        if hold::are_usable(slave)? {
            slave.execute("end the copy", sql::DROP_ALL_HELD, &[&scope.key])?;
            slave.execute("end the copy", sql::END_HOLDS, &[&scope.key])?;
        }
        Ok(())
    })
}
